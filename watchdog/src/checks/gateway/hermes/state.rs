//! `gateway_state.json`: what the gateway says of itself. Pure; the caller has made sure that the running process wrote
//! it (pid and start time), because the file outlives its writer.
//!
//! Its age proves nothing: it is written on events.

use std::time::Duration;

use jiff::Timestamp;
use protocol::why::KnownWhy;
use serde_json::Value;

use super::super::fences::Fence;
use crate::checks::span_text;
use crate::systemd::UnitFacts;

/// The longest legitimate drain upstream, 1,815 s, and a minute.
const DRAIN: Duration = Duration::from_secs(1875);
/// From its last word to the end of its process; a wedged end is found after this.
const STOPPED: Duration = Duration::from_secs(120);
/// A start that takes longer has stopped half-way.
const STARTING: Duration = Duration::from_secs(600);
/// Platforms named in one sentence.
const NAMED: usize = 5;

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Who wrote it.
    pub pid: u32,
    /// Field 22 of the writer's `/proc/PID/stat`.
    pub start_ticks: Option<u64>,
    /// `starting`, `running`, `degraded`, `draining`, `stopped`, `startup_failed`; cut to 32 characters.
    pub word: String,
    /// Turns that run now.
    pub active_agents: Option<u64>,
    updated_at: Option<Timestamp>,
    platforms: Vec<Platform>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Platform {
    name: String,
    bad: bool,
    updated_at: Option<Timestamp>,
    writer: Option<u64>,
}

impl State {
    /// None: not that file.
    pub fn parse(text: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(text).ok()?;
        let platforms = value.get("platforms").and_then(Value::as_object);
        Some(Self {
            pid: u32::try_from(value.get("pid")?.as_u64()?).ok()?,
            start_ticks: value.get("start_time").and_then(Value::as_u64),
            word: plain(
                value
                    .get("gateway_state")
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            ),
            active_agents: value.get("active_agents").and_then(Value::as_u64),
            updated_at: time(&value, "updated_at"),
            platforms: platforms
                .into_iter()
                .flatten()
                .map(|(name, of)| Platform::of(name, of))
                .collect(),
        })
    }

    /// It drains, or has stopped in good order and its process is about to end: nobody should restart it now, and it
    /// need not answer.
    pub fn going(&self, now: Timestamp) -> Option<Fence> {
        let age = Duration::try_from(now.duration_since(self.updated_at?)).unwrap_or_default();
        let (limit, what) = match self.word.as_str() {
            "draining" => (DRAIN, "drains"),
            "stopped" => (STOPPED, "has stopped in good order"),
            _ => return None,
        };
        (age <= limit).then(|| {
            Fence::excusing(
                KnownWhy::FenceDrain,
                format!("the gateway {what} since {}", span_text(age)),
            )
        })
    }

    /// What it admits.
    pub fn worries(&self, facts: &UnitFacts, up: Duration) -> Vec<(KnownWhy, String)> {
        let degraded = |text: String| (KnownWhy::Degraded, text);
        let mut worries = Vec::new();
        match self.word.as_str() {
            word @ ("degraded" | "startup_failed") => {
                worries.push(degraded(format!("it says of itself that it is {word}")));
            }
            "starting" if up > STARTING => {
                worries.push(degraded(format!(
                    "it says after {} that it is still starting",
                    span_text(up)
                )));
            }
            _ => {}
        }
        let bad: Vec<&str> = self
            .platforms
            .iter()
            .filter(|platform| platform.bad && platform.believable(self.pid, facts))
            .map(|platform| platform.name.as_str())
            .take(NAMED)
            .collect();
        if !bad.is_empty() {
            worries.push(degraded(format!(
                "its platform {} needs attention",
                bad.join(", ")
            )));
        }
        worries
    }
}

impl Platform {
    fn of(name: &str, of: &Value) -> Self {
        let is = |key: &str, wanted: Value| of.get(key).is_some_and(|value| *value == wanted);
        Self {
            name: plain(name),
            bad: is("state", "fatal".into()) || is("needs_attention", true.into()),
            updated_at: time(of, "updated_at"),
            writer: of.get("writer_pid").and_then(Value::as_u64),
        }
    }

    /// Entries of an earlier process stay in the file.
    fn believable(&self, pid: u32, facts: &UnitFacts) -> bool {
        let started = Timestamp::from_microsecond(facts.main_start.realtime_us as i64).unwrap_or_default();
        self.writer.is_none_or(|writer| writer == u64::from(pid))
            && self.updated_at.is_none_or(|at| at >= started)
    }
}

fn time(value: &Value, name: &str) -> Option<Timestamp> {
    value.get(name)?.as_str()?.parse().ok()
}

/// A name of theirs in a sentence of ours.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        .take(32)
        .collect()
}
