//! What comes and goes again and again is held open and told of once, with its count, and once more when it has been
//! calm for a while.
//!
//! Rule: when the same thing (kind, box, subject) opens for the `after`-th time `within` a window, that incident is one
//! that flaps. Its ends and openings from then on stand in its timeline and are sent to nobody; so are its other changes,
//! except that it got louder or bigger than ever. After `calm` without the trouble it is resolved, once, with a summary.
//! A pair is never sent for it, so N openings cost at most `2 * after` notifications, however large N is.
//!
//! The window is kept by the wall clock and stands in the incident (`details.flapping`), so that a restart changes
//! nothing. While the server is blind, and for a while ([`SETTLE`], or the calm if that is shorter) after that and after a
//! start, nothing is called calm: silence of the judge is no calm of the box.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::incident::{EventKind, Incident, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::change::Change;
use super::facts::Facts;
use super::gone::plain;
use super::ledger::{Key, Ledger, Open, Say};
use super::text::{Details, bounded, duration};
use crate::liveness::time::Moment;
use crate::settings::IncidentRules;

/// The name in an incident's details under which the rest of this stands.
pub const FLAPPING: &str = "flapping";
/// After a start or a blindness nothing is called calm for so long: every box has its full deadline first.
const SETTLE: Duration = Duration::from_secs(60);
/// A clock that is being corrected goes back by less than this.
const SET_BACK: SignedDuration = SignedDuration::from_secs(-60);
/// Between two looks for what can be forgotten.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// A flapping storm that is bigger than ever by more than this share is told of.
const BIGGER: f64 = 1.1;

/// An incident that comes and goes. `details.flapping` of the incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flap {
    /// How often it opened …
    pub count: u32,
    /// … since then.
    pub since: Timestamp,
    /// It is well since then; absent: it is wrong now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calm_since: Option<Timestamp>,
    /// How it ended last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ended: String,
    /// The newest openings, as many as make a flapping.
    pub openings: Vec<Timestamp>,
    /// Most boxes of a storm that were told of.
    #[serde(default, skip_serializing_if = "is_zero")]
    peak: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's shape")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Whether `incident` is well for now and only held open because it flaps.
pub fn is_held(incident: &Incident) -> bool {
    let flapping = incident.details.get(FLAPPING);
    flapping.is_some_and(|flap| flap.get("calm_since").is_some_and(|since| !since.is_null()))
}

/// When what opened lately, and what is held open.
#[derive(Debug, Default)]
pub(super) struct Openings {
    by_key: BTreeMap<Key, VecDeque<Timestamp>>,
    held: BTreeSet<Key>,
    /// Nothing is called calm before.
    settled_at: Option<Timestamp>,
    pruned_at: Option<Timestamp>,
}

impl Openings {
    /// Whether anything is held open.
    pub(super) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// It opened (again). `Some`: that is flapping.
    pub(super) fn add(&mut self, key: &Key, now: Timestamp, rules: &IncidentRules) -> Option<Flap> {
        let rule = rules.flapping?;
        self.held.remove(key);
        let openings = self.by_key.entry(key.clone()).or_default();
        openings.push_back(now);
        // One that lies ahead was written before the wall clock was set back.
        openings.retain(|at| *at <= now && within(*at, now, rule.within));
        while openings.len() > rule.after as usize {
            openings.pop_front();
        }
        (openings.len() >= rule.after as usize).then(|| Flap {
            count: openings.len() as u32,
            since: openings[0],
            calm_since: None,
            ended: String::new(),
            openings: openings.iter().copied().collect(),
            peak: 0,
        })
    }

    /// What an incident of before the start says of it.
    pub(super) fn restore(&mut self, key: &Key, incident: &Incident) {
        let flap = Flap::of(incident);
        let times = flap.map_or_else(|| vec![incident.opened_at], |flap| flap.openings);
        let openings = self.by_key.entry(key.clone()).or_default();
        openings.extend(times);
        openings.make_contiguous().sort();
        if is_held(incident) && incident.resolved_at.is_none() {
            self.held.insert(key.clone());
        }
    }

    pub(super) fn forget(&mut self, key: &Key) {
        self.held.remove(key);
    }
}

impl Flap {
    /// As it stands in an incident's details.
    pub fn of(incident: &Incident) -> Option<Self> {
        serde_json::from_value(incident.details.get(FLAPPING)?.clone()).ok()
    }
}

impl Ledger {
    /// An incident that ended before the start: its opening counts, should the same thing come again.
    pub fn remember(&mut self, ended: &Incident) {
        let key = self.key_of(ended);
        self.openings.restore(&key, ended);
    }

    /// Ends what has been calm for long enough.
    pub(super) fn calmed(&mut self, now: Moment) -> Vec<Change> {
        let Some(rule) = self.rules.flapping else {
            // Switched off since: nothing is held any more.
            let held = std::mem::take(&mut self.openings.held);
            return held
                .iter()
                .filter_map(|key| self.end_of_flapping(key, now))
                .collect();
        };
        self.prune(now.wall, rule.within);
        if self.openings.held.is_empty() {
            return Vec::new();
        }
        let blind = self.is_open(&plain(Kind::ServerBlind));
        if blind || self.openings.settled_at.is_none() {
            self.openings.settled_at = now.wall.checked_add(SETTLE.min(rule.calm)).ok();
        }
        let settles = |at| now.wall < at && within(now.wall, at, SETTLE * 2);
        let settled = !self.openings.settled_at.is_some_and(settles);
        // A box that is gone is not calm, even where another incident tells of it.
        let gone = |key: &Key| {
            key.about
                .and_then(|ix| self.facts(ix))
                .is_some_and(Facts::is_gone)
        };
        let calm = |key: &&Key| {
            if gone(key) {
                return false;
            }
            let since = self
                .open
                .get(*key)
                .and_then(|open| open.flap.as_ref()?.calm_since);
            since.is_none_or(|since| !within(since, now.wall, rule.calm))
        };
        let over: Vec<Key> = if settled {
            self.openings.held.iter().filter(calm).cloned().collect()
        } else {
            Vec::new()
        };
        over.iter()
            .filter_map(|key| self.end_of_flapping(key, now))
            .collect()
    }

    /// An incident that flaps is well for now: it is held open.
    pub(super) fn hold(&mut self, key: &Key, said: &str, now: Moment) -> Option<Change> {
        let calm = self.rules.calm();
        let open = self.open.get_mut(key)?;
        let change = open.hold(said, calm, now.wall)?;
        self.openings.held.insert(key.clone());
        Some(change)
    }

    fn end_of_flapping(&mut self, key: &Key, now: Moment) -> Option<Change> {
        let flap = self.open.get(key)?.flap.clone()?;
        let calm_since = flap.calm_since.unwrap_or(now.wall);
        let said = format!(
            "{}; calm for {} since, after it flapped {} times in {}",
            flap.ended,
            duration(between(calm_since, now.wall)),
            flap.count,
            duration(between(flap.since, calm_since)),
        );
        self.end(key, said, now)
    }

    /// Forgets openings that no window reaches any more, now and then.
    fn prune(&mut self, now: Timestamp, window: Duration) {
        let openings = &mut self.openings;
        if openings.pruned_at.is_some_and(|at| within(at, now, PRUNE_EVERY)) {
            return;
        }
        openings.pruned_at = Some(now);
        openings
            .by_key
            .retain(|_, times| times.back().is_some_and(|last| within(*last, now, window)));
    }
}

impl Open {
    /// Well for now, and held open because it flaps.
    pub(super) fn is_held(&self) -> bool {
        self.flap.as_ref().is_some_and(|flap| flap.calm_since.is_some())
    }

    /// It is wrong again, for the `newest` time of a flapping. `None`: it opened, and does not flap.
    pub(super) fn comes_again(&mut self, newest: Option<Flap>) {
        if let Some(flap) = &mut self.flap {
            flap.calm_since = None;
            flap.count = flap.count.saturating_add(1);
            if let Some(newest) = newest {
                flap.openings = newest.openings;
            }
        }
    }

    /// `text`, with the flapping before it if it flaps; the details say it too.
    pub(super) fn with_flapping(&mut self, text: String, calm: Duration, now: Timestamp) -> String {
        let Some(flap) = &self.flap else { return text };
        if let Ok(value) = serde_json::to_value(flap) {
            self.incident.details.insert(FLAPPING.to_owned(), value);
        }
        format!(
            "flapping, {} times in {} (told of again when it has been calm for {}): {text}",
            flap.count,
            duration(between(flap.since, now)),
            duration(calm),
        )
    }

    /// Whether `say` makes a flapping storm bigger than ever.
    pub(super) fn bigger(&mut self, say: &Say) -> bool {
        let peak = |details: &Details| details.get("peak").and_then(Value::as_u64).unwrap_or(0);
        let known = peak(&self.incident.details);
        let Some(flap) = &mut self.flap else { return false };
        let (was, is) = (flap.peak.max(known), peak(&say.details));
        flap.peak = was.max(is);
        is as f64 > was as f64 * BIGGER
    }

    fn hold(&mut self, said: &str, calm: Duration, now: Timestamp) -> Option<Change> {
        let flap = self.flap.as_mut().filter(|flap| flap.calm_since.is_none())?;
        flap.calm_since = Some(now);
        said.clone_into(&mut flap.ended);
        self.incident.summary = bounded(self.with_flapping(said.to_owned(), calm, now));
        Some(self.change(
            EventKind::Updated,
            false,
            bounded(format!("well for now: {said}")),
            now,
        ))
    }
}

/// Whether `then` is less than `window` ago. What lies ahead was written before the wall clock was set back: it is not.
fn within(then: Timestamp, now: Timestamp, window: Duration) -> bool {
    let ago = now.duration_since(then);
    ago >= SET_BACK && ago < SignedDuration::try_from(window).unwrap_or(SignedDuration::MAX)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
