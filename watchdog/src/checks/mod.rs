//! The checks: one question about the box each, asked all at once, each with its own time-out.
//!
//! A check answers with a [`Finding`]. It does not count runs (`verdict`) and restarts nothing (`remedy`, `act`).

pub mod gateway;

use jiff::Timestamp;
use protocol::names::UnitName;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde_json::{Map, Value};

pub mod deadline;
pub mod disk;
pub mod backup;
pub mod tailscale;

/// One check's answer in this run.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which question.
    pub name: CheckName,
    /// What it was asked about, where a check has several rows: the gateway's unit.
    pub subject: Option<UnitName>,
    /// The answer.
    pub status: Status,
    /// Its reason.
    pub why: KnownWhy,
    /// A sentence for people.
    pub summary: String,
    /// Figures behind it.
    pub values: Map<String, Value>,
    /// What forbids a restart of the subject right now, whatever the counters say: masked, stopped by an operator,
    /// in transition, a fence, exit code 78.
    pub hold: Option<Hold>,
}

impl Finding {
    /// A finding about the box as a whole, without figures; `summary` is cut and cleaned to what a report may hold.
    pub fn new(name: CheckName, status: Status, why: KnownWhy, summary: impl AsRef<str>) -> Self {
        Self {
            name,
            subject: None,
            status,
            why,
            summary: sentence(summary.as_ref()),
            values: Map::new(),
            hold: None,
        }
    }

    /// The same, with figures.
    #[must_use]
    pub fn with(mut self, values: Map<String, Value>) -> Self {
        self.values = values;
        self
    }
}

/// What a pure judge says of what a check saw; the check makes a [`Finding`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How bad.
    pub status: Status,
    /// In a word.
    pub why: KnownWhy,
    /// In a sentence.
    pub summary: String,
}

impl Verdict {
    fn new(status: Status, why: KnownWhy, summary: impl Into<String>) -> Self {
        Self {
            status,
            why,
            summary: summary.into(),
        }
    }
}

/// `text` as a report may hold it: no control characters, at most [`protocol::limits::SUMMARY_BYTES`].
pub fn sentence(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if clean.len() <= protocol::limits::SUMMARY_BYTES {
        return clean;
    }
    let end = clean.floor_char_boundary(protocol::limits::SUMMARY_BYTES - '…'.len_utf8());
    format!("{}…", &clean[..end])
}

/// A length of time for people, its two largest units: `2 d 3 h`, `1 h 40 min`, `12 s`.
pub fn span_text(span: std::time::Duration) -> String {
    let secs = span.as_secs();
    let parts = [
        (secs / 86_400, "d"),
        (secs / 3600 % 24, "h"),
        (secs / 60 % 60, "min"),
        (secs % 60, "s"),
    ];
    let first = parts.iter().position(|&(n, _)| n > 0);
    match first {
        None if span.is_zero() => "0 s".to_owned(),
        None => format!("{} ms", span.as_millis()),
        Some(at) => parts[at..]
            .iter()
            .take(2)
            .filter(|&&(n, _)| n > 0)
            .map(|(n, unit)| format!("{n} {unit}"))
            .collect::<Vec<_>>()
            .join(" "),
    }
}

/// A reason not to restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// In a word.
    pub why: KnownWhy,
    /// In a sentence.
    pub summary: String,
}

/// What every check may know about the moment and the place. Checks read no clock of their own to judge by.
#[derive(Debug, Clone)]
pub struct Context {
    /// The run's wall-clock time.
    pub now: Timestamp,
    /// Where `/proc`, `/run`, … are found; `/` outside tests.
    pub root: std::path::PathBuf,
    /// Units that the resident part saw an operator stop in this boot (`stops.json`), with the time.
    pub operator_stops: Vec<(UnitName, Timestamp)>,
    /// Seconds since boot.
    pub uptime_secs: u64,
    /// `CLOCK_MONOTONIC` at `now`: the clock of systemd's own time stamps, and of Hermes' heartbeat.
    pub monotonic: std::time::Duration,
    /// This boot's id; empty: unknown.
    pub boot_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_sentence_fits_a_report() {
        let text = sentence(&format!("a\u{1b}[31m{}", "ä".repeat(600)));
        assert!(
            text.len() <= protocol::limits::SUMMARY_BYTES && text.ends_with('…'),
            "{text}"
        );
        assert!(!text.chars().any(char::is_control));
        assert_eq!(sentence("two\nlines"), "two lines");
    }

    #[test]
    fn spans_read_well() {
        for (secs, text) in [
            (0, "0 s"),
            (12, "12 s"),
            (60, "1 min"),
            (6000, "1 h 40 min"),
            (183_600, "2 d 3 h"),
        ] {
            assert_eq!(span_text(Duration::from_secs(secs)), text);
        }
        assert_eq!(span_text(Duration::from_millis(250)), "250 ms");
    }
}
