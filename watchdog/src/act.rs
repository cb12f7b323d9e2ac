//! Shell: carries out one restart that `remedy` decided: evidence, the job, and a look whether it helped.
//!
//! The restart was counted and written to disk before this is called. It decides nothing about other restarts. A job
//! that takes longer than [`RESTART_WAIT`] is left to systemd (a drain can take half an hour): the next runs look after it.

use std::future::Future;
use std::time::Duration;

use protocol::names::UnitName;
use protocol::report::Outcome;
use protocol::why::KnownWhy;

use crate::checks::gateway::{self, GatewayHistory};
use crate::checks::{Context, Finding, Hold, span_text};
use crate::clock;
use crate::evidence::{self, Evidence};
use crate::remedy;
use crate::settings::{GatewaySettings, RestartPolicy, Scope, Settings};
use crate::systemd::{ActiveState, JobOutcome, JobResult, ManagerError, ServiceManager, UnitFacts};

/// How long a run waits for the restart's job. A wedged gateway takes its `TimeoutStopSec` (a minute or more); a run that
/// waits much longer is a run that does not check.
pub const RESTART_WAIT: Duration = Duration::from_secs(180);
/// The longest look whether the unit is healthy again, however long its grace.
const VERIFY_MAX: Duration = Duration::from_secs(300);
/// Between two looks.
const VERIFY_EVERY: Duration = Duration::from_secs(2);
/// Healthy looks in a row that count as healthy: a process that dies at once looks healthy once.
const VERIFY_LOOKS: u32 = 2;
/// What systemd may add to a unit's own time-outs before a restart is overdue.
const JOB_MARGIN: Duration = Duration::from_secs(60);
/// Taken for an infinite time-out: longer than the longest drain.
const JOB_ENDLESS: Duration = Duration::from_secs(3600);

/// One restart to carry out.
#[derive(Debug)]
pub struct Order<'a> {
    /// The unit and when it counts as started.
    pub policy: &'a RestartPolicy,
    /// Whose unit.
    pub scope: &'a Scope,
    /// What tells whether it helped: the gateway's own check. None: the unit is active.
    pub gateway: Option<(&'a GatewaySettings, GatewayHistory)>,
    /// Why, in a sentence.
    pub reason: String,
}

/// How it came out.
#[derive(Debug)]
pub struct Acted {
    /// What the report says.
    pub outcome: Outcome,
    /// In a word.
    pub why: KnownWhy,
    /// In a sentence.
    pub summary: String,
    /// What was saved before.
    pub evidence: Evidence,
    /// The job is still running: how long the unit's own time-outs give it, from now.
    pub under_way_for: Option<Duration>,
    /// The gateway's check after the restart.
    pub after: Option<(Finding, GatewayHistory)>,
}

/// Restarts, and looks whether it helped. `held` is asked in the last moment: checks and evidence take seconds, in which
/// an operator may have stopped the unit, or an update begun.
pub async fn restart<M: ServiceManager>(
    order: Order<'_>,
    settings: &Settings,
    ctx: &Context,
    manager: &M,
    held: impl Future<Output = Option<Hold>>,
) -> Acted {
    let unit = &order.policy.unit;
    let keep = settings.run.evidence_keep;
    let evidence = evidence::save(&settings.state_dir, keep, unit, order.scope, ctx, manager).await;
    let own_timeouts = match manager.unit(unit).await {
        Ok(facts) => timeouts(&facts),
        Err(_) => JOB_ENDLESS,
    };
    if let Some(hold) = held.await {
        return held_back(evidence, &hold);
    }
    tracing::warn!(%unit, reason = order.reason, "restarting");
    let job = manager.restart(unit, RESTART_WAIT).await;
    let mut acted = match job {
        Ok(JobOutcome {
            result: JobResult::Done,
            took,
        }) => return verified(order, evidence, ctx, manager, took).await,
        Ok(JobOutcome {
            result: JobResult::Pending,
            took,
        }) => {
            let left = own_timeouts.saturating_sub(took) + JOB_MARGIN;
            under_way(unit, evidence, took, left)
        }
        Ok(outcome) => failed(unit, evidence, &outcome),
        Err(err) => refused(unit, evidence, &err),
    };
    acted.summary = format!("{}: {}", order.reason, acted.summary);
    acted
}

fn held_back(evidence: Evidence, hold: &Hold) -> Acted {
    Acted {
        outcome: Outcome::HeldBack,
        why: hold.why,
        summary: format!("not restarted after all: {}", hold.summary),
        evidence,
        under_way_for: None,
        after: None,
    }
}

/// How long the unit's own time-outs give a restart.
fn timeouts(facts: &UnitFacts) -> Duration {
    match (facts.timeout_stop, facts.timeout_start) {
        (Some(stop), Some(start)) => (stop + start).min(JOB_ENDLESS),
        (None, _) | (_, None) => JOB_ENDLESS,
    }
}

fn under_way(unit: &UnitName, evidence: Evidence, took: Duration, left: Duration) -> Acted {
    Acted {
        outcome: Outcome::Restarted,
        why: KnownWhy::RestartUnderWay,
        summary: format!(
            "the restart of {unit} is still under way after {}; its own time-outs allow {} more",
            span_text(took),
            span_text(left)
        ),
        evidence,
        under_way_for: Some(left),
        after: None,
    }
}

fn failed(unit: &UnitName, evidence: Evidence, job: &JobOutcome) -> Acted {
    let because = match &job.result {
        JobResult::Canceled => "somebody else cancelled it".to_owned(),
        JobResult::Dependency => "a unit that it needs did not come up".to_owned(),
        JobResult::Failed => format!("it did not come up; `systemctl status {unit}` shows why"),
        JobResult::Timeout => "it did not come up in time".to_owned(),
        JobResult::Done | JobResult::Skipped | JobResult::Pending | JobResult::Other(_) => {
            format!("systemd says {}", job.result.as_str())
        }
    };
    Acted {
        outcome: Outcome::Failed,
        why: KnownWhy::JobFailed,
        summary: format!(
            "the restart of {unit} failed after {}: {because}",
            span_text(job.took)
        ),
        evidence,
        under_way_for: None,
        after: None,
    }
}

fn refused(unit: &UnitName, evidence: Evidence, err: &ManagerError) -> Acted {
    let why = match err.why() {
        KnownWhy::CheckError => KnownWhy::JobFailed,
        why => why,
    };
    Acted {
        outcome: Outcome::Failed,
        why,
        summary: format!("{unit} could not be restarted: {err}"),
        evidence,
        under_way_for: None,
        after: None,
    }
}

/// The job is done, which says little: looks until the unit is healthy, or its grace is over.
async fn verified<M: ServiceManager>(
    order: Order<'_>,
    evidence: Evidence,
    ctx: &Context,
    manager: &M,
    took: Duration,
) -> Acted {
    let Order {
        policy,
        gateway,
        reason,
        ..
    } = order;
    let limit = policy.grace.clamp(VERIFY_EVERY * (VERIFY_LOOKS + 1), VERIFY_MAX);
    let mut look = Look {
        unit: &policy.unit,
        gateway,
        ctx,
        manager,
        last: None,
        said: String::new(),
        hopeless: false,
    };
    let waited = look.until_healthy(limit).await;
    let job = span_text(took);
    let left = policy.grace.saturating_sub(limit);
    let (outcome, why, text) = match waited {
        Some(waited) => (
            Outcome::Restarted,
            KnownWhy::FailingInARow,
            format!("restarted in {job}, healthy {} later", span_text(waited)),
        ),
        None if !left.is_zero() && !look.hopeless => (
            Outcome::Restarted,
            KnownWhy::RestartUnderWay,
            format!(
                "restarted in {job}; it has {} more to become healthy: {}",
                span_text(left),
                look.said
            ),
        ),
        None => (
            Outcome::Failed,
            KnownWhy::NotHealthyAfter,
            format!("restarted in {job}, but not healthy afterwards: {}", look.said),
        ),
    };
    let history = look.gateway.map(|(_, history)| history);
    Acted {
        outcome,
        why,
        summary: format!("{reason}: {text}"),
        evidence,
        under_way_for: (why == KnownWhy::RestartUnderWay).then_some(left + JOB_MARGIN),
        after: look.last.zip(history),
    }
}

/// Looks at a unit that was just restarted.
struct Look<'a, M> {
    unit: &'a UnitName,
    gateway: Option<(&'a GatewaySettings, GatewayHistory)>,
    ctx: &'a Context,
    manager: &'a M,
    last: Option<Finding>,
    said: String,
    /// What it says will not change by waiting: stopped again, masked, a fatal configuration.
    hopeless: bool,
}

impl<M: ServiceManager> Look<'_, M> {
    /// How long it took to be healthy twice in a row; none: not within `limit`.
    async fn until_healthy(&mut self, limit: Duration) -> Option<Duration> {
        let began = clock::ticks();
        let mut healthy = 0;
        while began.elapsed() < limit && !self.hopeless {
            tokio::time::sleep(VERIFY_EVERY).await;
            healthy = if self.is_healthy().await { healthy + 1 } else { 0 };
            if healthy == VERIFY_LOOKS {
                return Some(began.elapsed());
            }
        }
        None
    }

    async fn is_healthy(&mut self) -> bool {
        let Some((settings, history)) = &mut self.gateway else {
            return self.is_active().await;
        };
        let ctx = at_this_moment(self.ctx);
        let check = gateway::check(settings, history.clone(), &ctx, self.manager);
        let Ok((finding, next)) = tokio::time::timeout(settings.timeout, check).await else {
            "the check took too long".clone_into(&mut self.said);
            return false;
        };
        *history = next;
        self.said.clone_from(&finding.summary);
        let healthy = remedy::is_healthy(&finding);
        let passing = [KnownWhy::InTransition, KnownWhy::StartupGrace];
        self.hopeless = finding
            .hold
            .as_ref()
            .is_some_and(|hold| !healthy && !passing.contains(&hold.why));
        self.last = Some(finding);
        healthy
    }

    async fn is_active(&mut self) -> bool {
        match self.manager.unit(self.unit).await {
            Ok(facts) => {
                self.said = format!("{} is {} ({})", self.unit, facts.active.as_str(), facts.result);
                // One that does its work and ends (a backup, a cleaner) has ended well.
                let ended_well = facts.active == ActiveState::Inactive && facts.result == "success";
                facts.active == ActiveState::Active || ended_well
            }
            Err(err) => {
                self.said = err.to_string();
                false
            }
        }
    }
}

/// The run's context, with the clocks of now.
fn at_this_moment(ctx: &Context) -> Context {
    let now = clock::now();
    Context {
        now: now.wall,
        monotonic: now.monotonic,
        uptime_secs: now.boot.as_secs(),
        ..ctx.clone()
    }
}
