//! Shell: one run. All checks at once, then verdict, remedy, report; state and report written around every restart.
//!
//! What is decided is decided in `verdict` and `remedy`; this file reads clocks and files and keeps the order:
//! load → check → judge → decide → write ahead → act → judge again → write. A hanging check costs its own time-out and
//! nobody else's; a hanging disk costs [`DISK_WAIT`].

use std::path::PathBuf;
use std::time::Duration;

use protocol::report::{Host, Outcome, RemedyReport, Report, Status};
use protocol::why::KnownWhy;
use serde::Deserialize;
use uuid::Uuid;

use crate::act::{self, Acted, Order};
use crate::ask::{self, Managers};
use crate::checks::deadline::in_thread;
use crate::checks::{Context, Finding};
use crate::clock::{self, Moment};
use crate::pause::{self, Pause};
use crate::remedy::{self, Circumstances, Decision, Pending, Settled};
use crate::report;
use crate::settings::{HeartbeatMode, RestartPolicy, Settings};
use crate::state::{self, State, boot_ms};
use crate::state_dir::{Lock, STOPS_FILE, StateDir};
use crate::systemd::ServiceManager;
use crate::verdict::{self, Streak};

/// How long the state directory may take to be read or written.
const DISK_WAIT: Duration = Duration::from_secs(10);
/// How long another run is waited for.
const LOCK_WAIT: Duration = Duration::from_secs(30);
/// The shortest time between two reports while a restart is waited for.
const REFRESH_MIN: Duration = Duration::from_secs(5);
/// The longest.
const REFRESH_MAX: Duration = Duration::from_secs(60);
/// Stops that are believed: more were never made by hand in one boot.
const STOPS: usize = 256;

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
    let dir = StateDir::new(&settings.state_dir);
    let kept = Kept::open(&dir, options, began).await?;
    let mut run = Run {
        settings,
        options,
        managers,
        began,
        ctx: context(&dir, options, began).await,
        circumstances: kept.circumstances(&dir, options, began).await,
        writable: kept.uncountable.is_none() && !options.no_act,
        before: kept.state.streaks.clone(),
        state: kept.state,
        findings: Vec::new(),
        host: Host::default(),
        dir,
        lock: kept.lock,
    };
    Ok(run.whole().await)
}

/// The state as found, and whether it can be kept.
struct Kept {
    state: State,
    lock: Option<Lock>,
    uncountable: Option<String>,
}

impl Kept {
    async fn open(dir: &StateDir, options: &Options, began: Moment) -> Result<Self, RunError> {
        let (lock, mut uncountable) = if options.no_act {
            (None, None)
        } else {
            take_lock(dir).await?
        };
        let owned = dir.clone();
        let loaded = in_thread(DISK_WAIT, move |_| state::load(&owned, began.wall)).await;
        let mut state = match loaded {
            Ok(loaded) => {
                uncountable = uncountable.or(loaded.unreadable.map(|err| err.to_string()));
                loaded.state
            }
            Err(err) => {
                uncountable = Some(format!("the state directory {} gave {err}", dir.path().display()));
                State::default()
            }
        };
        if let Some(aside) = state.set_aside.as_ref().filter(|aside| aside.at == began.wall) {
            tracing::error!(
                file = aside.file,
                why = aside.why,
                "the state file could not be read and was set aside"
            );
        }
        if let Some(text) = &uncountable {
            tracing::error!("{text}; restarts cannot be counted, so nothing is restarted");
        }
        state.begin(clock::boot_id(), began);
        Ok(Self {
            state,
            lock,
            uncountable,
        })
    }

    async fn circumstances(&self, dir: &StateDir, options: &Options, began: Moment) -> Circumstances {
        let owned = dir.clone();
        let paused = in_thread(DISK_WAIT, move |_| pause::read(&owned, began.wall)).await;
        Circumstances {
            paused: match paused {
                Ok(Pause::None) => None,
                Ok(Pause::Until(paused)) => Some(format!("paused until {}: {}", paused.until, paused.reason)),
                // Where nothing can be kept, that is the reason to name.
                Ok(Pause::Unreadable(_)) if self.uncountable.is_some() => None,
                Ok(Pause::Unreadable(text)) => Some(text),
                Err(err) => Some(format!("whether remedies are paused cannot be read: {err}")),
            },
            uncountable: self.uncountable.clone(),
            no_act: options.no_act,
            runs_this_boot: self.state.runs,
        }
    }
}

/// The lock, or why it cannot be had.
async fn take_lock(dir: &StateDir) -> Result<(Option<Lock>, Option<String>), RunError> {
    let waiting = clock::ticks();
    loop {
        let owned = dir.clone();
        match in_thread(DISK_WAIT, move |_| owned.try_lock()).await {
            Ok(Ok(Some(lock))) => {
                dir.sweep();
                return Ok((Some(lock), None));
            }
            Ok(Ok(None)) if waiting.elapsed() > LOCK_WAIT => return Err(RunError::Busy),
            Ok(Ok(None)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(Err(err)) => return Ok((None, Some(err.to_string()))),
            Err(err) => {
                return Ok((
                    None,
                    Some(format!("the state directory {} gave {err}", dir.path().display())),
                ));
            }
        }
    }
}

async fn context(dir: &StateDir, options: &Options, began: Moment) -> Context {
    let boot_id = clock::boot_id();
    let owned = dir.clone();
    let stops = in_thread(DISK_WAIT, move |_| owned.read(STOPS_FILE)).await;
    let bytes = stops.ok().and_then(Result::ok).flatten().unwrap_or_default();
    Context {
        now: began.wall,
        root: if options.root.as_os_str().is_empty() {
            PathBuf::from("/")
        } else {
            options.root.clone()
        },
        operator_stops: operator_stops(&bytes, boot_id),
        uptime_secs: began.boot.as_secs(),
        monotonic: began.monotonic,
        boot_id: boot_id.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// Stops of this boot; a file that cannot be read has none, and systemd's own state still tells most of them.
fn operator_stops(bytes: &[u8], boot_id: Option<Uuid>) -> Vec<(protocol::names::UnitName, jiff::Timestamp)> {
    #[derive(Deserialize)]
    struct Stop {
        unit: protocol::names::UnitName,
        at: jiff::Timestamp,
        boot_id: Uuid,
    }
    let stops: Vec<Stop> = serde_json::from_slice(bytes).unwrap_or_default();
    let of_this_boot = stops.into_iter().filter(|stop| Some(stop.boot_id) == boot_id);
    of_this_boot
        .take(STOPS)
        .map(|stop| (stop.unit, stop.at))
        .collect()
}

/// A run in progress.
struct Run<'a, M> {
    settings: &'a Settings,
    options: &'a Options,
    managers: Managers<M>,
    began: Moment,
    ctx: Context,
    circumstances: Circumstances,
    writable: bool,
    before: Vec<Streak>,
    state: State,
    findings: Vec<Finding>,
    host: Host,
    dir: StateDir,
    lock: Option<Lock>,
}

/// A restart that was decided: which finding, and why.
struct Ordered {
    finding: usize,
    policy: RestartPolicy,
    reason: String,
}

impl<M: ServiceManager> Run<'_, M> {
    async fn whole(&mut self) -> Report {
        let root = self.ctx.root.clone();
        let host = in_thread(DISK_WAIT, move |_| report::host(&root));
        let asked = ask::all(self.settings, &self.state, &self.ctx, &self.managers);
        let (asked, host) = tokio::join!(asked, host);
        self.host = host.unwrap_or_default();
        let mut keys = Vec::new();
        for answer in asked {
            let key = state::key_of(&answer.finding);
            if let Some(history) = answer.history {
                self.state.histories.insert(key.clone(), history);
            }
            keys.push(key);
            self.findings.push(answer.finding);
        }
        self.state.retain(&keys);
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

    fn judge(&mut self, now: Moment) {
        self.state.streaks = verdict::judge(&self.findings, &self.before, now.wall);
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
            let case = self.state.cases.entry(key.clone()).or_default();
            let unit = self.state.units.entry(policy.unit.clone()).or_default();
            let at = (boot_ms(now), now.wall);
            let row = |outcome, why: KnownWhy, summary| RemedyReport {
                at: now.wall,
                unit: policy.unit.clone(),
                outcome,
                why: why.into(),
                summary,
                evidence: None,
            };
            match remedy::decide(finding, &policy, &self.circumstances, case, unit, at) {
                Decision::Nothing if finding.status == Status::Unknown => {}
                Decision::Nothing => self.state.quiet(&key),
                Decision::HoldBack { why, summary } => {
                    self.state.note(&key, row(Outcome::HeldBack, why, summary), why);
                }
                Decision::GiveUp { summary } => {
                    let why = KnownWhy::RestartsUsedUp;
                    self.state.note(&key, row(Outcome::GaveUp, why, summary), why);
                }
                Decision::Restart { summary } => {
                    unit.pending = Some(Pending {
                        at: now.wall,
                        boot_ms: boot_ms(now),
                        until: boot_ms(now) + act::RESTART_WAIT.as_millis() as i64,
                    });
                    self.state.quiet(&key);
                    let why = KnownWhy::RestartUnderWay;
                    self.state
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
        let unit = self.state.units.entry(policy.unit.clone()).or_default();
        let settled = remedy::settle(unit, remedy::is_healthy(&self.findings[n]), policy, boot_ms(now));
        let Some(settled) = settled else { return };
        let after = |pending: &Pending| {
            let millis = (boot_ms(now) - pending.boot_ms).max(0);
            crate::checks::span_text(Duration::from_millis(millis.unsigned_abs()))
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
        self.state
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
            let case = self.state.cases.entry(key.clone()).or_default();
            let unit = self.state.units.entry(policy.unit.clone()).or_default();
            remedy::take_back(policy, case, unit);
            self.state.forget(&policy.unit);
            let why = KnownWhy::StateUnwritable;
            let row = RemedyReport {
                at: now.wall,
                unit: policy.unit.clone(),
                outcome: Outcome::HeldBack,
                why: why.into(),
                summary: format!("not restarted, because the restart could not be counted: {text}"),
                evidence: None,
            };
            self.state.note(&key, row, why);
        }
    }

    /// While the restarts go on, the report is made anew now and then: an old report looks like a dead timer.
    async fn restart_all(&self, ordered: &[Ordered]) -> Vec<Acted> {
        let restarts = ordered.iter().map(|ordered| {
            let finding = &self.findings[ordered.finding];
            let (order, scope) = self.order(ordered, finding);
            act::restart(order, self.settings, &self.ctx, self.managers.of(scope))
        });
        let mut restarts = std::pin::pin!(futures_util::future::join_all(restarts));
        let every = self.settings.run.every.clamp(REFRESH_MIN, REFRESH_MAX);
        loop {
            if let Ok(acted) = tokio::time::timeout(every, &mut restarts).await {
                return acted;
            }
            write_report(&self.dir, &self.report()).await;
        }
    }

    fn order<'b>(
        &'b self,
        ordered: &'b Ordered,
        finding: &'b Finding,
    ) -> (Order<'b>, &'b crate::settings::Scope) {
        let gateway = ask::gateway_of(self.settings, finding);
        let scope = gateway.map_or(&crate::settings::Scope::System, |g| &g.scope);
        // The gateway's check only tells about the gateway's unit.
        let gateway = gateway.filter(|g| g.unit == ordered.policy.unit);
        let history = self.state.history(&state::key_of(finding));
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
        let unit = self.state.units.entry(ordered.policy.unit.clone()).or_default();
        let asked_at = unit.pending.as_ref().map_or(now.wall, |p| p.at);
        match (acted.under_way_for, &mut unit.pending) {
            (Some(left), Some(pending)) => pending.until = boot_ms(now) + left.as_millis() as i64,
            (Some(_), None) | (None, _) => unit.pending = None,
        }
        remedy::begin_grace(unit, &ordered.policy, boot_ms(now));
        let digest = Some(acted.evidence.digest).filter(|d| !d.is_empty());
        let (outcome, why) = (acted.outcome, acted.why);
        tracing::warn!(unit = %ordered.policy.unit, %outcome, %why, "{}", acted.summary);
        self.state.finish(
            &ordered.policy.unit,
            asked_at,
            outcome,
            why,
            &acted.summary,
            digest,
        );
        if let Some((finding, history)) = acted.after {
            self.state.keep_history(&key, &history);
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
            &self.state,
            &self.findings,
            &self.host,
            now.wall,
            took,
        )
    }

    /// Writes state and report; the error is for the one who must know that the state is on disk.
    async fn keep(&self, report: &Report) -> Result<(), String> {
        if self.options.no_act || self.lock.is_none() {
            return Ok(());
        }
        let stored = self.store_state().await;
        if let Err(text) = &stored {
            tracing::error!("the state could not be kept: {text}");
        }
        write_report(&self.dir, report).await;
        stored
    }

    async fn store_state(&self) -> Result<(), String> {
        if !self.writable {
            return Ok(());
        }
        let (dir, state) = (self.dir.clone(), self.state.clone());
        match in_thread(DISK_WAIT, move |_| state.store(&dir)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(err)) => Err(err.to_string()),
            Err(err) => Err(format!("the state directory gave {err}")),
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

/// Keeps the report where the resident part finds it. A report that cannot be kept was printed at least.
async fn write_report(dir: &StateDir, report: &Report) {
    let (dir, report) = (dir.clone(), report.clone());
    let stored = in_thread(DISK_WAIT, move |_| report::store(&dir, &report)).await;
    let text = match stored {
        Ok(Ok(())) => return,
        Ok(Err(err)) => err.to_string(),
        Err(err) => err.to_string(),
    };
    tracing::error!("the report could not be kept: {text}");
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
