//! The outcome of one run of all checks, as it stands on the wire, in `report.json` and behind `check --json`.
//!
//! What a report may hold is bounded in [`Report::validate`]; how a status comes about is the watchdog's side.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::limits;
use crate::names::{Labels, UnitName, Word};
use crate::why::Why;
use crate::words::words;

words! {
    /// A check's answer: three values and a warning. Failing to check is `unknown`, never `failing`.
    pub enum Status {
        /// As it should be.
        Ok = "ok",
        /// Not yet wrong.
        Warning = "warning",
        /// Wrong.
        Failing = "failing",
        /// Could not be told.
        Unknown = "unknown",
    }
}

words! {
    /// The four questions.
    pub enum CheckName {
        /// Does the box's purpose run, and is it alive?
        Gateway = "gateway",
        /// Is there room, and can it be written?
        Disk = "disk",
        /// When was the last good backup?
        Backup = "backup",
        /// Can operators reach the box, and for how long still?
        Tailscale = "tailscale",
    }
}

words! {
    /// What came of a remedy.
    pub enum Outcome {
        /// The unit was restarted and was healthy afterwards, or its restart is still under way (`why` tells).
        Restarted = "restarted",
        /// The restart was tried and failed.
        Failed = "failed",
        /// No restart, for the reason in `why`.
        HeldBack = "held_back",
        /// The restarts of this window are used up; tries again after the window.
        GaveUp = "gave_up",
    }
}

/// One run of all checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of this run.
    pub id: Uuid,
    /// When the run began, by the box's clock (shown, never judged by).
    pub at: Timestamp,
    /// How long the run took, in milliseconds.
    pub took_ms: u64,
    /// A row a check; several gateway units have a row each.
    pub checks: Vec<CheckReport>,
    /// The newest remedies and hold-backs of this boot, oldest first.
    #[serde(default)]
    pub remedies: Vec<RemedyReport>,
    /// The machine.
    #[serde(default)]
    pub host: Host,
    /// As declared in the box's configuration; the server's own labels win over them.
    #[serde(default)]
    pub labels: Labels,
}

/// One check's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Which question. A [`CheckName`] of this version, or a word of a newer one.
    pub name: Word,
    /// What it was asked about, where a check has several rows: the gateway's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<UnitName>,
    /// The answer.
    pub status: Status,
    /// Its reason.
    pub why: Why,
    /// A sentence for people.
    pub summary: String,
    /// How many runs in a row have had this status, this one included.
    pub consecutive: u32,
    /// Since when it has had this status, by the box's clock.
    pub since: Timestamp,
    /// Figures behind the answer, by name; units are last in the names (`free_bytes`, `age_secs`).
    #[serde(default)]
    pub values: serde_json::Map<String, Value>,
}

impl CheckReport {
    /// Whether it is the check `name`.
    pub fn is(&self, name: CheckName) -> bool {
        self.name.as_str() == name.as_str()
    }
}

/// What the watchdog did about a failing check, or why it did nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemedyReport {
    /// When, by the box's clock.
    pub at: Timestamp,
    /// The unit that it concerns.
    pub unit: UnitName,
    /// What came of it.
    pub outcome: Outcome,
    /// Its reason.
    pub why: Why,
    /// A sentence for people: job result, how long it took, which fence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The redacted, bounded digest of the evidence saved before a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// The machine that the report is about. Everything may be absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `PRETTY_NAME` of os-release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// Kernel release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The watchdog's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_version: Option<String>,
    /// Seconds since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_secs: Option<u64>,
    /// Memory in all, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_total_bytes: Option<u64>,
    /// Memory that could be had, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_available_bytes: Option<u64>,
    /// Load average over 1 minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load1: Option<f64>,
    /// Processors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
}

/// What is over a limit, or out of range: the field as a path, and the sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field (`report.checks[3].summary`).
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Invalid {
    /// `problem` at `field`.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl Report {
    /// Holds every bound of [`limits`]. `at` is the path of this report in its message.
    pub fn validate(&self, at: &str) -> Result<(), Invalid> {
        count(&format!("{at}.checks"), self.checks.len(), limits::CHECKS)?;
        count(&format!("{at}.remedies"), self.remedies.len(), limits::REMEDIES)?;
        for (n, check) in self.checks.iter().enumerate() {
            let here = format!("{at}.checks[{n}]");
            text(&format!("{here}.summary"), &check.summary, limits::SUMMARY_BYTES)?;
            values(&format!("{here}.values"), &check.values)?;
            let key = (&check.name, &check.subject);
            if self.checks[..n].iter().any(|c| (&c.name, &c.subject) == key) {
                return Err(Invalid::new(here, "the same check stands twice in the report"));
            }
        }
        for (n, remedy) in self.remedies.iter().enumerate() {
            let here = format!("{at}.remedies[{n}]");
            text(&format!("{here}.summary"), &remedy.summary, limits::SUMMARY_BYTES)?;
            text(
                &format!("{here}.evidence"),
                remedy.evidence.as_deref().unwrap_or(""),
                limits::EVIDENCE_BYTES,
            )?;
        }
        let host = &self.host;
        for (name, value) in [
            ("hostname", &host.hostname),
            ("os", &host.os),
            ("kernel", &host.kernel),
            ("watchdog_version", &host.watchdog_version),
        ] {
            text(
                &format!("{at}.host.{name}"),
                value.as_deref().unwrap_or(""),
                limits::NAME_BYTES,
            )?;
        }
        Ok(())
    }

    /// The worst status: failing over warning over unknown over ok.
    pub fn worst(&self) -> Status {
        let rank = |status: Status| match status {
            Status::Ok => 0,
            Status::Unknown => 1,
            Status::Warning => 2,
            Status::Failing => 3,
        };
        self.checks
            .iter()
            .map(|c| c.status)
            .max_by_key(|&s| rank(s))
            .unwrap_or(Status::Unknown)
    }
}

pub(crate) fn count(field: &str, got: usize, limit: usize) -> Result<(), Invalid> {
    if got > limit {
        return Err(Invalid::new(
            field,
            format!("has {got} entries; at most {limit} are allowed"),
        ));
    }
    Ok(())
}

pub(crate) fn text(field: &str, value: &str, limit: usize) -> Result<(), Invalid> {
    if value.len() > limit {
        return Err(Invalid::new(
            field,
            format!("is {} bytes long; at most {limit} are allowed", value.len()),
        ));
    }
    if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Invalid::new(
            field,
            "has a control character other than newline and tab",
        ));
    }
    Ok(())
}

fn values(field: &str, map: &serde_json::Map<String, Value>) -> Result<(), Invalid> {
    count(field, map.len(), limits::VALUES)?;
    let mut bytes = 0;
    for (name, value) in map {
        text(&format!("{field} (a name)"), name, limits::NAME_BYTES)?;
        bytes += name.len()
            + weigh(value, 1).ok_or_else(|| {
                Invalid::new(
                    field,
                    format!("{name:?} nests deeper than {} levels", limits::VALUES_DEPTH),
                )
            })?;
    }
    if bytes > limits::VALUES_BYTES {
        return Err(Invalid::new(
            field,
            format!(
                "weighs {bytes} bytes; at most {} are allowed",
                limits::VALUES_BYTES
            ),
        ));
    }
    Ok(())
}

/// About how many bytes `value` takes when written; `None` when it nests too deep.
fn weigh(value: &Value, depth: usize) -> Option<usize> {
    if depth > limits::VALUES_DEPTH {
        return None;
    }
    match value {
        Value::Null | Value::Bool(_) => Some(5),
        Value::Number(_) => Some(12),
        Value::String(s) => Some(s.len() + 2),
        Value::Array(items) => items
            .iter()
            .try_fold(2, |sum, v| Some(sum + weigh(v, depth + 1)? + 1)),
        Value::Object(map) => map
            .iter()
            .try_fold(2, |sum, (k, v)| Some(sum + k.len() + 4 + weigh(v, depth + 1)?)),
    }
}
