//! The checks: one question about the box each, asked all at once, each with its own time-out.
//!
//! A check answers with a [`Finding`]. It does not count runs (`verdict`) and restarts nothing (`remedy`, `act`).

pub mod gateway;

use jiff::Timestamp;
use protocol::names::UnitName;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde_json::{Map, Value};

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
