//! What else goes wrong: checks that stopped on a live box, a clock that is off, a receiver that takes nothing.

use std::time::Duration;

use protocol::incident::Kind;
use serde_json::json;

use super::change::Change;
use super::checks::object;
use super::facts::Facts;
use super::gone::about;
use super::ledger::{Key, Ledger, Say, Tell};
use super::severity;
use super::text::duration;
use crate::liveness::BoxIx;
use crate::liveness::time::Moment;

/// Over two of its periods: a run may itself take so long.
const REPORT_GRACE: Duration = Duration::from_secs(60);
/// All boxes are gone through once in so many ticks.
const ROUND_TICKS: usize = 20;

impl Ledger {
    /// Time has passed. Looks at units that have to settle, and at a share of all boxes.
    pub fn tick(&mut self, now: Moment) -> Vec<Change> {
        let mut changes = self.units(now);
        changes.extend(self.held_ends(now));
        changes.extend(self.calmed(now));
        let share = self.boxes.len().div_ceil(ROUND_TICKS);
        for _ in 0..share {
            self.round = (self.round + 1) % self.boxes.len().max(1);
            let facts = self.boxes.get(self.round).and_then(Option::as_ref);
            if let Some(age) = facts.and_then(|facts| stopped_for(facts, now)) {
                changes.extend(self.checks_stopped(BoxIx(self.round as u32), age, now));
            }
        }
        changes
    }

    /// Whether the next [`tick`](Self::tick) may do more than look for checks that stopped: something has to settle.
    pub fn is_settling(&self) -> bool {
        !self.watching.is_empty() || !self.waiting.is_empty() || self.openings.holds_any()
    }

    /// A receiver fails (`Some(error)`), or takes notifications again.
    pub fn receiver(&mut self, name: &str, failing: Option<&str>, now: Moment) -> Option<Change> {
        let key = Key {
            kind: Kind::ReceiverFailing,
            about: None,
            subject: name.to_owned(),
        };
        let Some(error) = failing else {
            return self.resolve(&key, format!("receiver {name} takes notifications again"), now);
        };
        let say = Say {
            severity: severity::of(Kind::ReceiverFailing),
            summary: format!("receiver {name} does not take notifications: {error}"),
            details: object(json!({ "receiver": name, "error": error })),
        };
        self.say(key, say, Tell::Nobody, now)
    }

    /// Ends what is open about receivers that are not in the configuration any more.
    pub fn known_receivers(&mut self, names: &[String], now: Moment) -> Vec<Change> {
        let keys = self.keys_of(Kind::ReceiverFailing);
        keys.iter()
            .filter(|key| !names.contains(&key.subject))
            .filter_map(|key| {
                let said = format!("receiver {} is not in the configuration any more", key.subject);
                self.end(key, said, now)
            })
            .collect()
    }

    pub(super) fn clock(&mut self, ix: BoxIx, off_ms: Option<i64>, now: Moment) -> Option<Change> {
        let key = about(Kind::ClockSkew, ix);
        let name = self.name(ix);
        let Some(ms) = off_ms else {
            return self.resolve(&key, format!("{name}: its clock is right again"), now);
        };
        let (off, direction) = (
            Duration::from_millis(ms.unsigned_abs()),
            if ms < 0 { "behind" } else { "ahead" },
        );
        let say = Say {
            severity: severity::of(Kind::ClockSkew),
            summary: format!(
                "{name}: its clock is {} {direction}; nothing is judged by it",
                duration(off)
            ),
            details: object(json!({ "ahead_ms": ms })),
        };
        self.say(key, say, Tell::Nobody, now)
    }

    fn checks_stopped(&mut self, ix: BoxIx, age: Duration, now: Moment) -> Option<Change> {
        let say = Say {
            severity: severity::of(Kind::ChecksStopped),
            summary: format!(
                "{}: beats arrive, but no check has run for {}; is fleet-watchdog.timer running?",
                self.name(ix),
                duration(age)
            ),
            details: object(json!({ "report_age_secs": age.as_secs() })),
        };
        self.say(about(Kind::ChecksStopped, ix), say, Tell::Nobody, now)
    }
}

/// How old the newest report of a live box is, if that is too old: by the box's own word, or by what arrives.
fn stopped_for(facts: &Facts, now: Moment) -> Option<Duration> {
    if !facts.is_live() {
        return None;
    }
    if let Some(secs) = facts.word.report_stale_secs {
        return Some(Duration::from_secs(secs));
    }
    let every = facts.word.check_every?;
    let age = now.mono.since(facts.report_since);
    (age > every * 2 + REPORT_GRACE).then_some(age)
}
