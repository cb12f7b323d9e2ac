//! Shell: one run. All checks at once, then verdict, remedy, report; state and report written around every restart.
//!
//! What is decided is decided in `verdict` and `remedy`; this file reads clocks and files and keeps the order:
//! load → check → judge → decide → write ahead → act → judge again → write. A hanging check costs its own time-out and
//! nobody else's; a hanging disk costs [`DISK_WAIT`].

use std::path::PathBuf;
use std::time::Duration;

use protocol::names::UnitName;
use protocol::report::{Host, Outcome, RemedyReport, Report, Status};
use protocol::why::KnownWhy;

use crate::act::{self, Acted, Order};
use crate::ask::{self, Managers};
use crate::checks::deadline::in_thread;
use crate::checks::{Context, Finding, Hold, span_text};
use crate::clock::{self, Moment};
use crate::remedy::{self, Decision, Pending, Settled};
use crate::report;
use crate::settings::{HeartbeatMode, RestartPolicy, Scope, Settings};
use crate::state::{self, boot_ms};
use crate::systemd::ServiceManager;
use crate::verdict::{self, Streak};

mod begin;
mod disk;

use begin::Begun;
use disk::{DISK_WAIT, Disk};

/// How long another run is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// How long it may take to tell what forbids a restart.
const HOLD_WAIT: Duration = Duration::from_secs(15);
/// The shortest time between two reports while a restart is waited for.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// The longest.
const REFRESH_MAX: Duration = Duration::from_secs(60);

/// What the caller wants.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Look and tell only: no restart, no counter, no stored report.
    pub no_act: bool,
    /// Where `/proc`, `/run`, … are found; `/` outside tests.
    pub root: PathBuf,
}

/// Why there was no run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another one is under way.
    #[error("another run of the checks has been under way for over {}s; try again when it is over", LOCK_WAIT.as_secs())]
    Busy,
}

/// One run. `managers` opens the service manager of a scope.
pub async fn run<M: ServiceManager>(
    settings: &Settings,
    options: &Options,
    managers: Managers<M>,
) -> Result<Report, RunError> {
    let began = clock::now();
    let disk = Disk::new(&settings.state_dir);
    let begun = Begun::read(&disk, options, began).await?;
    let mut run = Run {
        settings,
        options,
        managers,
        began,
        disk,
        before: begun.state.streaks.clone(),
        begun,
        findings: Vec::new(),
        host: Host::default(),
    };
    Ok(run.whole().await)
}

/// A run in progress.
struct Run<'a, M> {
    settings: &'a Settings,
    options: &'a Options,
    managers: Managers<M>,
    began: Moment,
    disk: Disk,
    begun: Begun,
    before: Vec<Streak>,
    findings: Vec<Finding>,
    host: Host,
}

/// A restart that was decided: which finding, and why.
struct Ordered {
    finding: usize,
    policy: RestartPolicy,
    reason: String,
}

impl<M: ServiceManager> Run<'_, M> {
    async fn whole(&mut self) -> Report {
        let root = self.begun.ctx.root.clone();
        let host = in_thread(DISK_WAIT, move |_| report::host(&root));
        let asked = ask::all(self.settings, &self.begun.state, &self.begun.ctx, &self.managers);
        let (asked, host) = tokio::join!(asked, host);
        self.host = host.unwrap_or_default();
        let mut keys = Vec::new();
        for answer in asked {
            let key = state::key_of(&answer.finding);
            if let Some(history) = answer.history {
                self.begun.state.histories.insert(key.clone(), history);
            }
            keys.push(key);
            self.findings.push(answer.finding);
        }
        self.begun.state.retain(&keys);
        self.forbid().await;
        let now = clock::now();
        self.judge(now);
        let ordered = self.decide(now);
        if !ordered.is_empty() {
            self.act(ordered).await;
        }
        let report = self.report();
        // What could not be kept is logged; the report goes out all the same.
        let _ = self.keep(&report).await;
        self.send(&report).await;
        report
    }

    /// A check knows what forbids a restart of its own unit; where another one would be restarted, that one is asked.
    async fn forbid(&mut self) {
        let asked = self.findings.iter().map(async |finding| {
            let policy = ask::policy_of(self.settings, finding)?;
            let own = finding.subject.as_ref() == Some(&policy.unit);
            if own || finding.status != Status::Failing || finding.hold.is_some() || policy.max == 0 {
                return None;
            }
            self.held(finding, &policy.unit, &self.begun.ctx).await
        });
        let holds = futures_util::future::join_all(asked).await;
        for (finding, hold) in self.findings.iter_mut().zip(holds) {
            finding.hold = finding.hold.take().or(hold);
        }
    }

    async fn held(&self, finding: &Finding, unit: &UnitName, ctx: &Context) -> Option<Hold> {
        let scope = ask::scope_of(self.settings, finding, unit);
        let state = &self.begun.state;
        let asking = ask::hold(self.settings, state, ctx, (unit, scope), &self.managers);
        let asked = tokio::time::timeout(HOLD_WAIT, asking).await;
        asked.unwrap_or_else(|_| {
            let text = format!(
                "whether {unit} may be restarted could not be told within {}",
                span_text(HOLD_WAIT)
            );
            Some(Hold {
                why: KnownWhy::CheckTimedOut,
                summary: text,
            })
        })
    }

    /// The last look before a restart: what an operator or Hermes did since the run began.
    async fn last_look(&self, ordered: &Ordered) -> Option<Hold> {
        let now = clock::now();
        if let Some(summary) = begin::paused(&self.disk, now.wall, false).await {
            return Some(Hold {
                why: KnownWhy::Paused,
                summary,
            });
        }
        let ctx = begin::context(&self.disk, self.options, clock::boot_id(), now).await;
        self.held(&self.findings[ordered.finding], &ordered.policy.unit, &ctx)
            .await
    }

    fn judge(&mut self, now: Moment) {
        self.begun.state.streaks = verdict::judge(&self.findings, &self.before, now.wall);
    }

    /// Decides about every check that has a remedy; what is only to be said is noted at once.
    fn decide(&mut self, now: Moment) -> Vec<Ordered> {
        let mut ordered = Vec::new();
        for n in 0..self.findings.len() {
            let Some(policy) = ask::policy_of(self.settings, &self.findings[n]) else {
                continue;
            };
            let policy = policy.clone();
            self.settle(n, &policy, now);
            let finding = &self.findings[n];
            let key = state::key_of(finding);
            let case = self.begun.state.cases.entry(key.clone()).or_default();
            let unit = self.begun.state.units.entry(policy.unit.clone()).or_default();
            let at = (boot_ms(now), now.wall);
            let row = |outcome, why: KnownWhy, summary| RemedyReport {
                at: now.wall,
                unit: policy.unit.clone(),
                outcome,
                why: why.into(),
                summary,
                evidence: None,
            };
            match remedy::decide(finding, &policy, &self.begun.circumstances, case, unit, at) {
                Decision::Nothing if finding.status == Status::Unknown => {}
                Decision::Nothing => self.begun.state.quiet(&key),
                Decision::HoldBack { why, summary } => {
                    self.begun
                        .state
                        .note(&key, row(Outcome::HeldBack, why, summary), why);
                }
                Decision::GiveUp { summary } => {
                    let why = KnownWhy::RestartsUsedUp;
                    self.begun
                        .state
                        .note(&key, row(Outcome::GaveUp, why, summary), why);
                }
                Decision::Restart { summary } => {
                    unit.pending = Some(Pending {
                        at: now.wall,
                        boot_ms: boot_ms(now),
                        until: boot_ms(now) + act::RESTART_WAIT.as_millis() as i64,
                        by: key.clone(),
                    });
                    self.begun.state.quiet(&key);
                    let why = KnownWhy::RestartUnderWay;
                    self.begun
                        .state
                        .log(row(Outcome::Restarted, why, format!("{summary}: restarting")));
                    ordered.push(Ordered {
                        finding: n,
                        policy,
                        reason: summary,
                    });
                }
            }
        }
        ordered
    }

    /// A restart of an earlier run that was still under way then.
    fn settle(&mut self, n: usize, policy: &RestartPolicy, now: Moment) {
        let unit = self.begun.state.units.entry(policy.unit.clone()).or_default();
        let (key, healthy) = (
            state::key_of(&self.findings[n]),
            remedy::is_healthy(&self.findings[n]),
        );
        let settled = remedy::settle(unit, &key, healthy, policy, boot_ms(now));
        let Some(settled) = settled else { return };
        let after = |pending: &Pending| {
            let millis = (boot_ms(now) - pending.boot_ms).max(0);
            span_text(Duration::from_millis(millis.unsigned_abs()))
        };
        let (pending, outcome, why, text) = match &settled {
            Settled::Healthy(pending) => {
                let text = format!("healthy again within {} of the restart", after(pending));
                (pending, Outcome::Restarted, KnownWhy::FailingInARow, text)
            }
            Settled::Overdue(pending) => {
                let text = format!("not healthy {} after the restart was asked for", after(pending));
                (pending, Outcome::Failed, KnownWhy::NotHealthyAfter, text)
            }
        };
        self.begun
            .state
            .finish(&policy.unit, pending.at, outcome, why, &text, None);
    }

    /// Writes ahead, restarts all units at once, and writes what came of it into state and findings.
    async fn act(&mut self, ordered: Vec<Ordered>) {
        let report = self.report();
        if let Err(text) = self.keep(&report).await {
            self.take_back(&ordered, &text);
            return;
        }
        self.send(&report).await;
        for (ordered, acted) in ordered.iter().zip(self.restart_all(&ordered).await) {
            self.finish(ordered, acted);
        }
        self.judge(clock::now());
    }

    /// The restart could not be counted on disk: it does not happen.
    fn take_back(&mut self, ordered: &[Ordered], text: &str) {
        let now = clock::now();
        for Ordered { finding, policy, .. } in ordered {
            let key = state::key_of(&self.findings[*finding]);
            let case = self.begun.state.cases.entry(key.clone()).or_default();
            let unit = self.begun.state.units.entry(policy.unit.clone()).or_default();
            remedy::take_back(policy, case, unit);
            self.begun.state.forget(&policy.unit);
            let why = KnownWhy::StateUnwritable;
            let row = RemedyReport {
                at: now.wall,
                unit: policy.unit.clone(),
                outcome: Outcome::HeldBack,
                why: why.into(),
                summary: format!("not restarted, because the restart could not be counted: {text}"),
                evidence: None,
            };
            self.begun.state.note(&key, row, why);
        }
    }

    /// While the restarts go on, the report is made anew now and then: an old report looks like a dead timer, and where
    /// the run itself sends the beats, a restart that takes minutes would look like a dead box.
    async fn restart_all(&self, ordered: &[Ordered]) -> Vec<Acted> {
        let restarts = ordered.iter().map(|ordered| {
            let finding = &self.findings[ordered.finding];
            let (order, scope) = self.order(ordered, finding);
            let held = self.last_look(ordered);
            let manager = self.managers.of(scope);
            act::restart(order, self.settings, &self.begun.ctx, manager, held)
        });
        let mut restarts = std::pin::pin!(futures_util::future::join_all(restarts));
        let every = self.settings.run.every.clamp(REFRESH_MIN, REFRESH_MAX);
        loop {
            if let Ok(acted) = tokio::time::timeout(every, &mut restarts).await {
                return acted;
            }
            let report = self.report();
            self.keep_report(&report).await;
            self.send(&report).await;
        }
    }

    fn order<'b>(&'b self, ordered: &'b Ordered, finding: &'b Finding) -> (Order<'b>, &'b Scope) {
        let scope = ask::scope_of(self.settings, finding, &ordered.policy.unit);
        // The gateway's check only tells about the gateway's unit.
        let gateway = ask::gateway_of(self.settings, finding).filter(|g| g.unit == ordered.policy.unit);
        let history = self.begun.state.history(&state::key_of(finding));
        let order = Order {
            policy: &ordered.policy,
            scope,
            gateway: gateway.map(|g| (g, history)),
            reason: ordered.reason.clone(),
        };
        (order, scope)
    }

    fn finish(&mut self, ordered: &Ordered, acted: Acted) {
        let now = clock::now();
        let key = state::key_of(&self.findings[ordered.finding]);
        let unit = self
            .begun
            .state
            .units
            .entry(ordered.policy.unit.clone())
            .or_default();
        let asked_at = unit.pending.as_ref().map_or(now.wall, |p| p.at);
        match (acted.under_way_for, &mut unit.pending) {
            (Some(left), Some(pending)) => pending.until = boot_ms(now) + left.as_millis() as i64,
            (Some(_), None) | (None, _) => unit.pending = None,
        }
        if acted.outcome == Outcome::HeldBack {
            let case = self.begun.state.cases.entry(key.clone()).or_default();
            remedy::take_back(&ordered.policy, case, unit);
            let going_on = (acted.outcome, acted.why);
            self.begun.state.noted.insert(key.clone(), going_on);
        } else {
            remedy::begin_grace(unit, &ordered.policy, boot_ms(now));
        }
        let digest = Some(acted.evidence.digest).filter(|d| !d.is_empty());
        let (outcome, why) = (acted.outcome, acted.why);
        tracing::warn!(unit = %ordered.policy.unit, %outcome, %why, "{}", acted.summary);
        self.begun.state.finish(
            &ordered.policy.unit,
            asked_at,
            outcome,
            why,
            &acted.summary,
            digest,
        );
        if let Some((finding, history)) = acted.after {
            self.begun.state.keep_history(&key, &history);
            // "Just started, cannot tell yet" does not take back what led to the restart.
            if finding.status != Status::Unknown {
                self.findings[ordered.finding] = finding;
            }
        }
    }

    fn report(&self) -> Report {
        let now = clock::now();
        let took = now.boot.saturating_sub(self.began.boot).as_millis() as u64;
        report::build(
            self.settings,
            &self.begun.state,
            &self.findings,
            &self.host,
            now.wall,
            took,
        )
    }

    /// Writes state and report; the error is for the one who must know that the state is on disk.
    async fn keep(&self, report: &Report) -> Result<(), String> {
        if self.options.no_act {
            return Ok(());
        }
        let mut stored = Ok(());
        if self.begun.is_writable() {
            let state = self.begun.state.clone();
            stored = self.disk.ask(move |dir| state.store(dir)).await;
        }
        if let Err(text) = &stored {
            tracing::error!("the state could not be kept: {text}");
        }
        self.keep_report(report).await;
        stored
    }

    /// Keeps the report where the resident part finds it. One that cannot be kept was printed at least.
    async fn keep_report(&self, report: &Report) {
        let kept = report.clone();
        let stored = self.disk.ask(move |dir| report::store(dir, &kept)).await;
        if let Err(text) = &stored {
            tracing::error!("the report could not be kept: {text}");
        }
        let Some(spare) = self.settings.spare_dir.clone() else {
            return;
        };
        let (failed, kept) = (stored.is_err(), report.clone());
        let spared = in_thread(DISK_WAIT, move |_| {
            if failed {
                report::store_spare(&spare, &kept)
            } else {
                report::clear_spare(&spare).map(drop)
            }
        });
        if let Ok(Err(err)) = spared.await {
            tracing::error!("the report's second place: {err}");
        }
    }

    /// `mode = "timer"`: the report goes out here.
    async fn send(&self, report: &Report) {
        let wanted = self.settings.heartbeat.mode == HeartbeatMode::Timer && self.settings.server.is_some();
        if !wanted || self.options.no_act {
            return;
        }
        if let Err(err) = crate::beat::send_once(self.settings, report, self.settings.run.every).await {
            tracing::error!("the heartbeat was not taken: {err}");
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
