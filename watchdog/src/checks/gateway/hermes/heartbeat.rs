//! `state/gateway.heartbeat`, rewritten by the gateway's event loop every 30 s. Pure.
//!
//! # The evidence rule
//! The file counts only when it was written by a process of the unit, after that process's start, in this boot. Its age
//! is taken on `CLOCK_MONOTONIC` (field `monotonic`), which neither a clock that jumps nor a suspended machine moves;
//! without that field by the file's time. A file that does not count (absent, another writer, older than the start) says
//! nothing at all: older versions write none, and a gateway that has just started has not yet.

use std::time::Duration;

use serde_json::Value;

use super::file::File;
use crate::checks::Context;
use crate::systemd::Stamp;

/// The run reads its clock a moment before it reads the file, and the two sides round differently.
const SLACK: Duration = Duration::from_secs(5);
/// How much earlier than its own start a process may believe it started, before the file is somebody else's.
const START_SLACK_SECS: f64 = 60.0;

/// The process that a heartbeat must come from.
#[derive(Debug, Clone, Copy)]
pub struct Writer {
    /// The file's pid is the unit's main process, or in its control group.
    pub in_unit: bool,
    /// The main process.
    pub main: Option<u32>,
    /// When systemd started it.
    pub main_start: Stamp,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulse {
    /// Nothing; why not.
    NoWord(&'static str),
    /// The loop turns.
    Beats {
        /// Since the last beat.
        age: Duration,
    },
    /// It has not turned for too long.
    Stale {
        /// Since the last beat.
        age: Duration,
        /// The writer.
        pid: u32,
        /// What can be asked besides.
        witness: Option<Witness>,
    },
}

/// A second witness that the file offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Witness {
    /// `state/gateway.loop-tick.<pid>.sock`.
    Socket,
    /// A port of the loopback.
    Port(u16),
}

impl Pulse {
    /// For the figures.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoWord(reason) => reason,
            Self::Beats { .. } => "fresh",
            Self::Stale { .. } => "stale",
        }
    }
}

/// The pid that the file names.
pub fn pid(text: &str) -> Option<u32> {
    number(&serde_json::from_str(text).ok()?, "pid")
}

/// Judges the file.
pub fn judge(file: Option<&File>, writer: &Writer, stale: Duration, ctx: &Context) -> Pulse {
    let Some(file) = file else {
        return Pulse::NoWord("absent");
    };
    let Ok(beat) = serde_json::from_str::<Value>(&file.text) else {
        return Pulse::NoWord("unreadable");
    };
    let Some(pid) = number(&beat, "pid") else {
        return Pulse::NoWord("unreadable");
    };
    if !writer.in_unit {
        return Pulse::NoWord("another_process");
    }
    let start_secs = writer.main_start.realtime_us as f64 / 1e6;
    if beat
        .get("start_time")
        .and_then(Value::as_f64)
        .is_some_and(|start| start + START_SLACK_SECS < start_secs)
    {
        return Pulse::NoWord("earlier_process");
    }
    let age = match beat.get("monotonic").and_then(Value::as_f64) {
        Some(at) => by_monotonic(at, writer, ctx.monotonic),
        None => by_file_time(file, start_secs, ctx),
    };
    match age {
        None => Pulse::NoWord("earlier_process"),
        Some(age) if age <= stale => Pulse::Beats { age },
        Some(age) => Pulse::Stale {
            age,
            pid,
            witness: witness(&beat),
        },
    }
}

/// None: written before this start, or in another boot.
fn by_monotonic(at: f64, writer: &Writer, now: Duration) -> Option<Duration> {
    let at = Duration::try_from_secs_f64(at).ok()?;
    let start = Duration::from_micros(writer.main_start.monotonic_us);
    (at + SLACK >= start && at <= now + SLACK).then(|| now.saturating_sub(at))
}

fn by_file_time(file: &File, start_secs: f64, ctx: &Context) -> Option<Duration> {
    let modified = file.modified.as_microsecond() as f64 / 1e6;
    let age = ctx.now.duration_since(file.modified);
    (modified + SLACK.as_secs_f64() >= start_secs).then(|| Duration::try_from(age).unwrap_or_default())
}

fn witness(beat: &Value) -> Option<Witness> {
    if beat
        .get("loop_tick_socket")
        .is_some_and(|value| value == true || value.is_string())
    {
        return Some(Witness::Socket);
    }
    number(beat, "loop_tick_tcp_port").map(Witness::Port)
}

fn number<T: TryFrom<u64>>(beat: &Value, name: &str) -> Option<T> {
    T::try_from(beat.get(name)?.as_u64()?).ok()
}
