//! The small message that a box sends every second, and the answer to it: `POST /v1/heartbeat`.
//!
//! The box is who the token says, never what the body says; so no name stands in it. Times in it are the box's own
//! clock: its skew is reported, liveness is never judged by it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::account::Account;
use crate::limits;
use crate::names::{UnitName, Word};
use crate::report::{Invalid, Report, count, text};
use crate::words::words;

/// One heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The kernel's boot id.
    pub boot_id: Uuid,
    /// Random, one a process: `seq` counts within it.
    pub session: Uuid,
    /// Counts up by one a beat; an older one of the same session is refused with 409.
    pub seq: u64,
    /// When the next beat will come, milliseconds after this one: 250 to 3,600,000.
    pub every_ms: u64,
    /// By the box's clock.
    pub sent_at: Timestamp,
    /// The gateway units as the service manager sees them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitState>,
    /// "I go, on purpose."
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goodbye: Option<Goodbye>,
    /// Remedies are paused on the box.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// The id of the box's newest report, whether or not the report is in this beat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_id: Option<Uuid>,
    /// How old the newest report is, seconds: sent once it is older than two timer periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report_stale_secs: Option<u64>,
    /// The timer's period on this box, seconds, so that the server knows when a report is overdue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check_every_secs: Option<u64>,
    /// The newest report: when it changed, or when the server asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<Report>>,
    /// What kept the box from being heard by this server, in the first beats after a silence, until one is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Box<Account>>,
}

/// A unit as the service manager sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitState {
    /// The unit.
    pub name: UnitName,
    /// `ActiveState`.
    pub active: Word,
    /// `SubState`.
    pub sub: Word,
    /// `Result` (`success`, `exit-code`, `timeout`, …), where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Word>,
    /// `NRestarts`.
    #[serde(default)]
    pub restarts: u64,
    /// An operator stopped it: a stop job was seen and no start job since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped_by_operator: bool,
    /// The kernel's OOM killer ended its last run: what says so, in a line. Told until another run has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<String>,
}

words! {
    /// Why a box goes.
    pub enum GoodbyeWhy {
        /// The machine reboots.
        Reboot = "reboot",
        /// The machine is switched off.
        Poweroff = "poweroff",
        /// The machine halts.
        Halt = "halt",
        /// The machine restarts its kernel directly.
        Kexec = "kexec",
        /// The machine goes to sleep.
        Suspend = "suspend",
        /// Only the watchdog stops, the machine goes on.
        WatchdogStopped = "watchdog_stopped",
    }
}

/// A planned absence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goodbye {
    /// Why.
    pub why: GoodbyeWhy,
    /// How long it may take, seconds; at most a day. After that the absence is overdue.
    pub back_within_secs: u64,
}

/// Remedies paused by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// Until when, by the box's clock.
    pub until: Timestamp,
    /// In the operator's words.
    #[serde(default)]
    pub reason: String,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// How often to send from now on, milliseconds. It can slow a box down, never stop it.
    pub every_ms: u64,
    /// Send the newest report with the next beat.
    #[serde(default)]
    pub want_report: bool,
}

impl Heartbeat {
    /// Reads `body` and holds every bound; the error names the field.
    pub fn decode(body: &[u8]) -> Result<Self, Invalid> {
        let mut json = serde_json::Deserializer::from_slice(body);
        let beat: Self = serde_path_to_error::deserialize(&mut json).map_err(|err| {
            let path = err.path().to_string();
            let field = if path == "." { "the body".to_owned() } else { path };
            Invalid::new(field, err.inner().to_string())
        })?;
        json.end()
            .map_err(|err| Invalid::new("the body", err.to_string()))?;
        beat.validate()?;
        Ok(beat)
    }

    /// Holds every bound of [`limits`].
    pub fn validate(&self) -> Result<(), Invalid> {
        let every = Duration::from_millis(self.every_ms);
        if every < limits::INTERVAL_MIN || every > limits::INTERVAL_MAX {
            let (min, max) = (limits::INTERVAL_MIN.as_millis(), limits::INTERVAL_MAX.as_millis());
            return Err(Invalid::new(
                "every_ms",
                format!("is {}; {min} to {max} are allowed", self.every_ms),
            ));
        }
        if self.seq > limits::SEQ_MAX {
            return Err(Invalid::new("seq", format!("is over {}", limits::SEQ_MAX)));
        }
        count("units", self.units.len(), limits::UNITS)?;
        for (n, unit) in self.units.iter().enumerate() {
            let line = unit.oom.as_deref().unwrap_or("");
            text(&format!("units[{n}].oom"), line, limits::ACCOUNT_LINE_BYTES)?;
        }
        if let Some(account) = &self.account {
            account.validate("account")?;
        }
        if let Some(goodbye) = &self.goodbye
            && goodbye.back_within_secs > limits::BACK_WITHIN_MAX.as_secs()
        {
            let max = limits::BACK_WITHIN_MAX.as_secs();
            return Err(Invalid::new(
                "goodbye.back_within_secs",
                format!("is over {max} (a day)"),
            ));
        }
        if let Some(paused) = &self.paused {
            text("paused.reason", &paused.reason, limits::REASON_BYTES)?;
        }
        if let Some(report) = &self.report {
            report.validate("report")?;
            if self.report_id.is_some_and(|id| id != report.id) {
                return Err(Invalid::new(
                    "report_id",
                    "is not the id of the report in the same beat",
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = include_str!("../golden/heartbeat-plain.json");
    const FULL: &str = include_str!("../golden/heartbeat-full.json");

    #[test]
    fn golden_messages_decode_and_survive_a_round_trip() {
        for golden in [PLAIN, FULL] {
            let beat = Heartbeat::decode(golden.as_bytes()).unwrap();
            let again = serde_json::to_vec(&beat).unwrap();
            assert_eq!(Heartbeat::decode(&again).unwrap(), beat);
        }
    }

    #[test]
    fn the_error_names_the_field() {
        let bad = FULL.replace("\"failing\"", "\"broken\"");
        let err = Heartbeat::decode(bad.as_bytes()).unwrap_err();
        assert_eq!(err.field, "report.checks[0].status");
        let bad = PLAIN.replace("\"every_ms\": 1000", "\"every_ms\": 10");
        assert_eq!(Heartbeat::decode(bad.as_bytes()).unwrap_err().field, "every_ms");
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert!(Heartbeat::decode(format!("{PLAIN} {{}}").as_bytes()).is_err());
    }
}
