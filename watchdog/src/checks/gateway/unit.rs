//! What the unit's own facts say about the gateway. Pure: facts in, an answer out.
//!
//! Whether an active unit is alive is not seen here; that is asked by `probes` and `hermes`.
//!
//! # Stopped, or fallen over?
//! A gateway that an operator stopped must never be restarted, and looks much like one that crashed (a genuine Hermes
//! ends as `failed`, status 1, on `systemctl stop`). It counts as stopped when one of these is seen:
//! 1. The resident part saw the stop job, and the unit was not started since.
//! 2. The unit ceased to be active BEFORE its main process ended: that is the order of a stop job (and of systemd's own
//!    watchdog and memory limit, which the result names). A process that dies by itself ends first.
//! 3. systemd would have restarted it had it gone by itself, and did not: `Restart=always` in `failed` or `inactive`
//!    (or `on-failure` in `failed`), its status not one that forbids a restart. Only a stop job takes away a pending
//!    automatic restart. The other reason is the start limit, where the unit has one: systemd 252 leaves the result as
//!    it was (`exit-code`), so it is told by time: the limit is noticed when the automatic restart is due, no earlier.
//! 4. An earlier run of this boot saw it active, and now systemd knows of no start at all: a stopped unit that nothing
//!    refers to is forgotten; a failed one is not.
//!
//! Such a gateway is a `warning`: somebody wanted it so, and nobody is to be woken; but it does not run.
//! Never started in this boot is a different thing: nobody stopped it. (Unless the unit is disabled: then somebody did
//! not want it started, and it is reported as failing, but left alone.)

use std::time::Duration;

use jiff::Timestamp;
use protocol::names::UnitName;
use protocol::report::Status;
use protocol::why::KnownWhy;

use super::crash_loop::CrashLoop;
use crate::checks::{Hold, span_text};
use crate::systemd::{ActiveState, LoadState, UnitFacts};

/// The exit status that says "fatal configuration" (`EX_CONFIG` of sysexits.h), also where the unit does not name it.
const EXIT_CONFIG: i32 = 78;
/// `CLD_EXITED`: the process ended by itself, with a status.
const EXITED: i32 = 1;
/// Added to the unit's own time-outs: systemd needs a moment to enforce them.
const TRANSITION_SLACK: Duration = Duration::from_secs(15);
/// What "infinite" is taken for. The longest legitimate drain upstream is 1,815 s.
const TRANSITION_ENDLESS: Duration = Duration::from_secs(3600);

/// What is known beside the facts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moment {
    /// `CLOCK_MONOTONIC`.
    pub monotonic: Duration,
    /// When the resident part last saw an operator stop the unit in this boot.
    pub stop_seen: Option<Timestamp>,
    /// Whether an earlier run of this boot saw it active.
    pub seen_active: bool,
    /// The crash loop that goes on.
    pub crash_loop: Option<CrashLoop>,
}

/// What the unit alone tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    /// systemd calls it active: whether it is alive must be asked.
    Active {
        /// For how long.
        up: Duration,
        /// What forbids a restart all the same.
        hold: Option<Hold>,
    },
    /// Nothing more to ask.
    Settled(Answer),
}

/// An answer without its figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// Its reason.
    pub why: KnownWhy,
    /// A sentence.
    pub summary: String,
    /// What forbids a restart.
    pub hold: Option<Hold>,
}

impl Answer {
    /// Without a hold.
    pub fn new(status: Status, why: KnownWhy, summary: impl Into<String>) -> Self {
        Self {
            status,
            why,
            summary: summary.into(),
            hold: None,
        }
    }

    /// Held for the same reason, in the same words.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.hold = Some(Hold {
            why: self.why,
            summary: self.summary.clone(),
        });
        self
    }
}

/// Judges `facts`. The order is that of certainty: what an operator or systemd says outright comes first.
pub fn judge(unit: &UnitName, facts: &UnitFacts, moment: &Moment) -> Judged {
    let settled = |answer: Answer| Judged::Settled(answer);
    if let Some(answer) = masked(unit, facts) {
        return match facts.active {
            ActiveState::Active | ActiveState::Reloading => Judged::Active {
                up: up(facts, moment),
                hold: answer.hold,
            },
            ActiveState::Inactive
            | ActiveState::Failed
            | ActiveState::Activating
            | ActiveState::Deactivating
            | ActiveState::Other(_) => settled(answer),
        };
    }
    match &facts.active {
        ActiveState::Active | ActiveState::Reloading => match moment.crash_loop {
            Some(found) => settled(crash_loop(unit, facts, found)),
            None => Judged::Active {
                up: up(facts, moment),
                hold: None,
            },
        },
        ActiveState::Activating if facts.auto_restart() => settled(match moment.crash_loop {
            Some(found) => crash_loop(unit, facts, found),
            None => auto_restart(unit, facts),
        }),
        ActiveState::Activating => settled(match moment.crash_loop {
            Some(found) => crash_loop(unit, facts, found),
            None => transition(unit, facts, moment, "starting", facts.timeout_start),
        }),
        ActiveState::Deactivating => settled(transition(unit, facts, moment, "stopping", facts.timeout_stop)),
        ActiveState::Inactive | ActiveState::Failed => settled(down(unit, facts, moment)),
        ActiveState::Other(word) => settled(Answer::new(
            Status::Unknown,
            KnownWhy::CheckError,
            format!("systemd calls {unit} {word:?}, a state that this version does not know"),
        )),
    }
}

fn up(facts: &UnitFacts, moment: &Moment) -> Duration {
    facts.active_enter.age(moment.monotonic).unwrap_or_default()
}

fn masked(unit: &UnitName, facts: &UnitFacts) -> Option<Answer> {
    let masked = facts.load == LoadState::Masked || facts.file_state.starts_with("masked");
    masked.then(|| {
        let text =
            format!("{unit} is masked: not restarted; `systemctl unmask {unit}` if it should run again");
        Answer::new(Status::Warning, KnownWhy::UnitMasked, text).held()
    })
}

fn crash_loop(unit: &UnitName, facts: &UnitFacts, found: CrashLoop) -> Answer {
    let now = if facts.active == ActiveState::Active {
        "running just now".to_owned()
    } else {
        ending(facts)
    };
    let text = format!(
        "{unit} crashes again and again: {} times within {} ({now}); it never reaches `failed`, because systemd starts it anew each time",
        found.crashes,
        span_text(found.within),
    );
    Answer::new(Status::Failing, KnownWhy::CrashLoop, text)
}

fn auto_restart(unit: &UnitName, facts: &UnitFacts) -> Answer {
    let text = format!(
        "{unit} ended ({}); systemd starts it again {} later",
        ending(facts),
        span_text(facts.restart_delay)
    );
    Answer::new(Status::Warning, KnownWhy::AutoRestart, text)
}

/// Each step of a start or stop (`start-pre`, `start`, `stop-sigterm`, `stop-sigkill`, …) has the time-out of its own.
fn transition(
    unit: &UnitName,
    facts: &UnitFacts,
    moment: &Moment,
    verb: &str,
    timeout: Option<Duration>,
) -> Answer {
    let age = facts.state_change.age(moment.monotonic).unwrap_or_default();
    let allowed = timeout.map_or(TRANSITION_ENDLESS, |timeout| timeout + TRANSITION_SLACK);
    let (since, sub) = (span_text(age), &facts.sub);
    if age <= allowed {
        let text = format!("{unit} is {verb} ({sub}) since {since}");
        return Answer::new(Status::Unknown, KnownWhy::InTransition, text).held();
    }
    let text = format!(
        "{unit} is {verb} ({sub}) since {since}; its own time-outs allow {}",
        span_text(allowed)
    );
    Answer::new(Status::Failing, KnownWhy::TransitionStuck, text)
}

/// Not running.
fn down(unit: &UnitName, facts: &UnitFacts, moment: &Moment) -> Answer {
    match &facts.load {
        LoadState::NotFound => {
            let text = format!(
                "there is no unit {unit} on this box; set [gateway] unit to one that `systemctl list-unit-files` shows"
            );
            return Answer::new(Status::Failing, KnownWhy::UnitNotFound, text).held();
        }
        LoadState::Broken(word) => {
            let text = format!(
                "systemd cannot read {unit} ({word}: {}); see `systemd-analyze verify {unit}`",
                facts.load_error
            );
            return Answer::new(Status::Failing, KnownWhy::UnitBroken, text).held();
        }
        LoadState::Loaded | LoadState::Masked => {}
    }
    let forbidden = facts.exit_status == EXIT_CONFIG || facts.restart_prevent.contains(&facts.exit_status);
    if facts.active == ActiveState::Failed && facts.exit_code == EXITED && forbidden {
        let text = format!(
            "{unit} ended with status {}, which says \"fatal configuration\": a restart cannot help; mend its configuration, then `systemctl restart {unit}`",
            facts.exit_status
        );
        return Answer::new(Status::Failing, KnownWhy::FatalConfig, text).held();
    }
    if let Some(job) = facts.job.as_ref().filter(|job| job.kind != "stop") {
        let text = format!("{unit} waits for its {} job", job.kind);
        return Answer::new(Status::Unknown, KnownWhy::InTransition, text).held();
    }
    if let Some(how) = stopped(facts, moment) {
        let since = facts.inactive_enter.age(moment.monotonic).map_or_else(
            || "in this boot".to_owned(),
            |age| format!("{} ago", span_text(age)),
        );
        let text = format!(
            "{unit} was stopped by an operator {since} ({how}): not restarted; `systemctl start {unit}` ends that"
        );
        return Answer::new(Status::Warning, KnownWhy::OperatorStopped, text).held();
    }
    not_running(unit, facts)
}

/// Down, and nobody stopped it.
fn not_running(unit: &UnitName, facts: &UnitFacts) -> Answer {
    if facts.active == ActiveState::Failed {
        let limit = if facts.restart != "no" && limit_hit(facts) {
            "; systemd has given up restarting it (start limit)"
        } else {
            ""
        };
        let text = format!("{unit} has failed ({}){limit}", ending(facts));
        return Answer::new(Status::Failing, KnownWhy::UnitFailed, text);
    }
    let conditions = if facts.conditions_held {
        ""
    } else {
        "; one of its Condition…= lines did not hold"
    };
    if !facts.inactive_exit.never() {
        let text = format!("{unit} is not running ({}){conditions}", ending(facts));
        return Answer::new(Status::Failing, KnownWhy::Inactive, text);
    }
    if matches!(facts.file_state.as_str(), "disabled" | "disabled-runtime") {
        let text = format!(
            "{unit} is disabled and was not started in this boot: left alone; `systemctl enable --now {unit}` if it should run"
        );
        return Answer::new(Status::Failing, KnownWhy::UnitDisabled, text).held();
    }
    let text = format!("{unit} is not running and was not started in this boot{conditions}");
    Answer::new(Status::Failing, KnownWhy::NeverStarted, text)
}

/// How it is known that an operator stopped it; the numbers are those of the module's comment.
fn stopped(facts: &UnitFacts, moment: &Moment) -> Option<String> {
    let started_at = Timestamp::from_microsecond(facts.inactive_exit.realtime_us as i64).unwrap_or_default();
    if moment.stop_seen.is_some_and(|at| at >= started_at) {
        return Some("a stop job was seen".to_owned());
    }
    if facts.inactive_exit.never() {
        let forgotten = moment.seen_active && facts.active == ActiveState::Inactive;
        return forgotten.then(|| "it ran in this boot, and systemd has forgotten it since".to_owned());
    }
    // What systemd itself ends or refuses to restart; the last two it could not even try.
    if matches!(
        facts.result.as_str(),
        "start-limit-hit" | "exec-condition" | "resources" | "protocol"
    ) {
        return None;
    }
    let left_first = !facts.active_exit.never()
        && facts.active_exit >= facts.inactive_exit
        && facts.main_exit.monotonic_us > facts.active_exit.monotonic_us;
    if left_first && !matches!(facts.result.as_str(), "watchdog" | "oom-kill") {
        return Some(format!(
            "{}, and it was being stopped before its process ended",
            ending(facts)
        ));
    }
    let would_restart =
        facts.restart == "always" || (facts.restart == "on-failure" && facts.active == ActiveState::Failed);
    (would_restart && !limit_hit(facts)).then(|| {
        format!(
            "{}, and systemd did not restart it although Restart={}",
            ending(facts),
            facts.restart
        )
    })
}

/// Whether systemd has given up: it says so, or it went down when its automatic restart was due.
fn limit_hit(facts: &UnitFacts) -> bool {
    let waited = Duration::from_micros(
        facts
            .inactive_enter
            .monotonic_us
            .saturating_sub(facts.main_exit.monotonic_us),
    );
    facts.result == "start-limit-hit" || (facts.start_limited && waited >= facts.restart_delay)
}

/// How the last run ended: `exit-code, status 1`.
fn ending(facts: &UnitFacts) -> String {
    let how = match facts.exit_code {
        0 => String::new(),
        EXITED => format!(", status {}", facts.exit_status),
        _ => format!(", signal {}", facts.exit_status),
    };
    let state = if facts.active == ActiveState::Failed {
        "failed, "
    } else {
        ""
    };
    format!("{state}{}{how}", facts.result)
}

#[cfg(test)]
mod tests;
