//! Pure: a failing check + what is remembered → restart its unit, or the reason why not.
//!
//! It reads no clock and restarts nothing; `act` does. The rules, in the order in which they are asked:
//!
//! - **Counting.** A failing run counts unless it lies within the start-up grace, while a restart is under way, or while
//!   the check itself says what forbids a restart (a [`Hold`](crate::checks::Hold)): there it is evidence of
//!   nothing. A transition or a grace leaves the count as it is; any other hold (a fence, an operator's stop) takes it
//!   back to zero, because what was seen before it says nothing about what comes after. `ok` and `warning` take it back
//!   to zero. `unknown` neither counts nor clears: a check that cannot look must not trigger a restart and must not
//!   launder a failing streak; but as many unknown runs in a row as a restart needs failing ones make the streak too
//!   old to act on, and it begins anew. A pause stops acting, not counting.
//! - **Restart** at the `after`-th counted run, with at least `after` runs in this boot. The count goes back to zero and
//!   the grace begins.
//! - **At most `max` restarts in any `window`** (sliding, on the boot clock), with growing spacing between them
//!   ([`spacing`]), and at most `max` in a row that helped nothing, however slowly they came (a restart that takes minutes
//!   could otherwise go on for ever, each one a little more than a window's share after the last). When they are used up
//!   it gives up, once and loudly, until a whole window has passed since the last restart; then it begins anew. A
//!   check that was healthy for `after` runs is no longer given up, but the restarts of the window still count.

use std::time::Duration;

use jiff::Timestamp;
use protocol::report::Status;
use protocol::why::KnownWhy;
use serde::{Deserialize, Serialize};

use crate::checks::{Finding, span_text};
use crate::settings::RestartPolicy;

/// Milliseconds on this boot's `CLOCK_BOOTTIME`; negative: before this boot.
pub type BootMs = i64;

/// Restarts remembered a unit: more than the largest `max_restarts`.
const ATTEMPTS_KEPT: usize = 128;

/// What one check's failing has come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CaseMemory {
    /// Counted failing runs in a row.
    pub failing: u32,
    /// Unknown runs in a row.
    pub unknown: u32,
    /// Healthy runs in a row.
    pub healthy: u32,
    /// Restarts since it was healthy last.
    pub in_vain: u32,
    /// Given up until then.
    pub gave_up_until: Option<BootMs>,
}

/// What was done to one unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UnitMemory {
    /// Restarts, oldest first.
    pub attempts: Vec<Attempt>,
    /// Failing is not counted until then.
    pub grace_until: Option<BootMs>,
    /// A restart whose job was still running when the run ended.
    pub pending: Option<Pending>,
}

/// One restart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// On the boot clock: what decides.
    pub boot_ms: BootMs,
    /// On the wall clock: what is carried over a reboot.
    pub at: Timestamp,
}

/// A restart under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When it was asked for, wall clock.
    pub at: Timestamp,
    /// The same on the boot clock.
    pub boot_ms: BootMs,
    /// When it is overdue: the unit's own time-outs have passed.
    pub until: BootMs,
    /// The check that asked for it, by its key: another check that shares the unit cannot tell whether it helped.
    #[serde(default)]
    pub by: String,
}

/// What holds for the whole box in this run.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// Remedies are paused: until when and why, in a sentence.
    pub paused: Option<String>,
    /// The state cannot be written, so a restart could not be counted: why, in a sentence.
    pub uncountable: Option<String>,
    /// `--no-act`.
    pub no_act: bool,
    /// Runs in this boot, this one included.
    pub runs_this_boot: u32,
}

/// What to do about one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing is failing, or nothing is ever done about it.
    Nothing,
    /// Failing, and not restarted.
    HoldBack {
        /// In a word.
        why: KnownWhy,
        /// In a sentence.
        summary: String,
    },
    /// The restarts are used up.
    GiveUp {
        /// In a sentence.
        summary: String,
    },
    /// Restart the unit now. It is counted already.
    Restart {
        /// In a sentence.
        summary: String,
    },
}

/// How a restart that was under way came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// Healthy again.
    Healthy(Pending),
    /// Not by the time that the unit's own time-outs allow.
    Overdue(Pending),
}

/// Decides about one check, `now` on the boot clock. A restart is counted here, so that it cannot be forgotten.
pub fn decide(
    finding: &Finding,
    policy: &RestartPolicy,
    around: &Circumstances,
    case: &mut CaseMemory,
    unit: &mut UnitMemory,
    now: (BootMs, Timestamp),
) -> Decision {
    let (now, wall) = now;
    let held = match finding.status {
        Status::Ok => {
            healthy(case, policy);
            return Decision::Nothing;
        }
        Status::Warning => return warning(finding, case, policy),
        Status::Unknown => {
            unknown(case, policy);
            return Decision::Nothing;
        }
        Status::Failing => count(finding, case, unit, now),
    };
    if policy.max == 0 {
        return Decision::Nothing;
    }
    if let Some(summary) = &around.paused {
        return hold(KnownWhy::Paused, summary.clone());
    }
    if let Some(held) = held {
        return held;
    }
    if let Some(summary) = &around.uncountable {
        return hold(KnownWhy::StateUnwritable, summary.clone());
    }
    let runs = case.failing.min(around.runs_this_boot);
    if runs < policy.after {
        return hold(
            KnownWhy::TooFewRuns,
            format!(
                "{runs} of the {} failing runs in a row that lead to a restart",
                policy.after
            ),
        );
    }
    if let Some(decision) = used_up(policy, case, unit, now) {
        return decision;
    }
    if around.no_act {
        return hold(
            KnownWhy::NoAct,
            format!("asked not to act; would restart {} now", policy.unit),
        );
    }
    restart(policy, case, unit, now, wall)
}

/// How long after the restart before it the next one may come, with `done` restarts in the window.
///
/// `window · 2^(done-1) / 2^max`: each gap is twice the one before it, the last is a quarter of the window, and all of
/// them together are less than half of it: so all `max` restarts fit. With 3 in an hour: 7.5 and 15 minutes.
pub fn spacing(policy: &RestartPolicy, done: u32) -> Duration {
    if done == 0 {
        return Duration::ZERO;
    }
    // More than 2^31 parts of a window are no time at all.
    let halvings = policy.max.saturating_sub(done.saturating_sub(1));
    if halvings > 31 {
        Duration::ZERO
    } else {
        policy.window / (1 << halvings)
    }
}

/// Whether a restart that was under way has come to an end, as the check called `key` sees it.
pub fn settle(
    unit: &mut UnitMemory,
    key: &str,
    healthy: bool,
    policy: &RestartPolicy,
    now: BootMs,
) -> Option<Settled> {
    let pending = unit.pending.clone()?;
    let settled = match healthy && (pending.by == key || pending.by.is_empty()) {
        true => Settled::Healthy(pending),
        false if now >= pending.until => Settled::Overdue(pending),
        false => return None,
    };
    unit.pending = None;
    begin_grace(unit, policy, now);
    Some(settled)
}

/// Whether the box's purpose is served: `ok`, or a warning about something else than that it does not run.
pub fn is_healthy(finding: &Finding) -> bool {
    match finding.status {
        Status::Ok => true,
        Status::Warning => finding.why != KnownWhy::AutoRestart && !is_on_purpose(finding),
        Status::Failing | Status::Unknown => false,
    }
}

/// What the check warns of is the very thing that forbids a restart: stopped by an operator, masked, fenced.
fn is_on_purpose(finding: &Finding) -> bool {
    finding.hold.as_ref().is_some_and(|hold| hold.why == finding.why)
}

/// The unit was just started: failing is not counted for the grace from now on.
pub fn begin_grace(unit: &mut UnitMemory, policy: &RestartPolicy, now: BootMs) {
    unit.grace_until = Some(now.saturating_add(millis(policy.grace)));
}

/// A restart that was decided was not carried out: it is as if it had not been counted.
pub fn take_back(policy: &RestartPolicy, case: &mut CaseMemory, unit: &mut UnitMemory) {
    unit.attempts.pop();
    unit.grace_until = None;
    unit.pending = None;
    case.in_vain = case.in_vain.saturating_sub(1);
    case.failing = policy.after;
}

/// Brings what is remembered from `old_now`'s boot into another boot, whose clock says `now`.
///
/// The boot clock started anew, so ages come from the wall clock here, and only here; one that lies in the future
/// (the clock was moved back meanwhile) counts as just now. Grace and pending restarts ended with the boot.
pub fn into_new_boot(
    case_memories: &mut [&mut CaseMemory],
    unit: &mut UnitMemory,
    now: BootMs,
    wall: Timestamp,
) {
    for attempt in &mut unit.attempts {
        let age = wall
            .duration_since(attempt.at)
            .as_millis()
            .clamp(0, i128::from(i32::MAX));
        attempt.boot_ms = now - age as BootMs;
        attempt.at = attempt.at.min(wall);
    }
    unit.grace_until = None;
    unit.pending = None;
    for case in case_memories {
        **case = CaseMemory::default();
    }
}

/// Forgets restarts that no window reaches.
pub fn prune(unit: &mut UnitMemory, longest_window: Duration, now: BootMs) {
    unit.attempts.retain(|a| now - a.boot_ms < millis(longest_window));
    let surplus = unit.attempts.len().saturating_sub(ATTEMPTS_KEPT);
    unit.attempts.drain(..surplus);
}

fn healthy(case: &mut CaseMemory, policy: &RestartPolicy) {
    (case.failing, case.unknown) = (0, 0);
    case.healthy = case.healthy.saturating_add(1);
    if case.healthy >= policy.after {
        case.gave_up_until = None;
        case.in_vain = 0;
    }
}

/// A warning ends a streak; what does not run on purpose is no health either, and it is said why it is left alone.
fn warning(finding: &Finding, case: &mut CaseMemory, policy: &RestartPolicy) -> Decision {
    if is_healthy(finding) {
        healthy(case, policy);
        return Decision::Nothing;
    }
    (case.failing, case.unknown, case.healthy) = (0, 0, 0);
    match &finding.hold {
        Some(found) if is_on_purpose(finding) => hold(found.why, found.summary.clone()),
        Some(_) | None => Decision::Nothing,
    }
}

fn unknown(case: &mut CaseMemory, policy: &RestartPolicy) {
    case.healthy = 0;
    case.unknown = case.unknown.saturating_add(1);
    if case.unknown >= policy.after {
        case.failing = 0;
    }
}

/// Counts a failing run, or says why it does not count.
fn count(finding: &Finding, case: &mut CaseMemory, unit: &mut UnitMemory, now: BootMs) -> Option<Decision> {
    (case.healthy, case.unknown) = (0, 0);
    if let Some(pending) = &unit.pending {
        let text = format!(
            "the restart asked for {} ago is still under way",
            ago(pending.boot_ms, now)
        );
        return Some(hold(KnownWhy::RestartUnderWay, text));
    }
    if let Some(found) = &finding.hold {
        let passing = [KnownWhy::InTransition, KnownWhy::StartupGrace].contains(&found.why);
        if !passing {
            case.failing = 0;
        }
        return Some(hold(found.why, found.summary.clone()));
    }
    if let Some(until) = unit.grace_until {
        if now < until {
            let text = format!(
                "restarted a moment ago; failing counts again in {}",
                ago(now, until)
            );
            return Some(hold(KnownWhy::StartupGrace, text));
        }
        unit.grace_until = None;
    }
    case.failing = case.failing.saturating_add(1);
    None
}

/// The reasons that lie in earlier restarts.
fn used_up(
    policy: &RestartPolicy,
    case: &mut CaseMemory,
    unit: &UnitMemory,
    now: BootMs,
) -> Option<Decision> {
    let last = unit.attempts.last().map(|a| a.boot_ms);
    if last.is_none_or(|last| now >= last + millis(policy.window)) {
        // A whole window of rest: it begins anew.
        case.in_vain = 0;
    }
    if case.gave_up_until.is_some_and(|until| now >= until) {
        case.gave_up_until = None;
    }
    let done = done(policy, case, unit, now);
    if case.gave_up_until.is_none() && done >= policy.max {
        case.gave_up_until = last.map(|last| last + millis(policy.window));
    }
    if let Some(until) = case.gave_up_until {
        return Some(Decision::GiveUp {
            summary: format!(
                "{} was restarted {} and is failing still; next try in {}",
                policy.unit,
                times(done),
                ago(now, until)
            ),
        });
    }
    let next = last? + millis(spacing(policy, done));
    if now < next {
        let text = format!(
            "the next restart comes in {} at the earliest ({done} of {} done)",
            ago(now, next),
            policy.max
        );
        return Some(hold(KnownWhy::Spacing, text));
    }
    None
}

/// Restarts that count against `max`: those in the window, and those in a row that helped nothing.
fn done(policy: &RestartPolicy, case: &CaseMemory, unit: &UnitMemory, now: BootMs) -> u32 {
    let in_window = |a: &&Attempt| now - a.boot_ms < millis(policy.window);
    let in_window = unit.attempts.iter().filter(in_window).count() as u32;
    in_window.max(case.in_vain)
}

fn restart(
    policy: &RestartPolicy,
    case: &mut CaseMemory,
    unit: &mut UnitMemory,
    now: BootMs,
    wall: Timestamp,
) -> Decision {
    let counted = std::mem::take(&mut case.failing);
    unit.attempts.push(Attempt {
        boot_ms: now,
        at: wall,
    });
    begin_grace(unit, policy, now);
    case.in_vain = case.in_vain.saturating_add(1);
    let number = done(policy, case, unit, now);
    Decision::Restart {
        summary: format!(
            "{counted} failing runs in a row; restart {number} of {} within {}",
            policy.max,
            span_text(policy.window)
        ),
    }
}

fn hold(why: KnownWhy, summary: String) -> Decision {
    Decision::HoldBack { why, summary }
}

fn millis(duration: Duration) -> BootMs {
    BootMs::try_from(duration.as_millis()).unwrap_or(BootMs::MAX / 4)
}

fn ago(from: BootMs, to: BootMs) -> String {
    // Whole seconds: "in 7 min 29 s", not "in 7 min 29.96 s".
    span_text(Duration::from_secs(
        (to - from).max(0).unsigned_abs().div_ceil(1000),
    ))
}

fn times(n: u32) -> String {
    if n == 1 {
        "once".to_owned()
    } else {
        format!("{n} times")
    }
}

#[cfg(test)]
#[path = "remedy_tests.rs"]
mod tests;
