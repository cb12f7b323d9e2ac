//! One open incident: which receivers its routes want told by a time, who was told and when, and what follows from the
//! difference.
//!
//! The active route is the first that matches and whose hours hold. It took the incident up when the incident opened,
//! got louder or was given back, or when its own hours began, or when those of a route before it ended, whichever came
//! last; from then its steps count. That is a function of the incident and the configuration alone, so nothing of it is
//! kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::incident::{Ack, Incident, Kind};

use crate::hours::{Hours, Standing};
use crate::incident::change::{Audience, Change};
use crate::incident::flap::is_held;
use crate::incident::hand::steps_from;
use crate::incident::ledger::MUTED_AT;
use crate::incident::text::duration;
use crate::liveness::pace::PER_MINUTE;
use crate::settings::Route;

/// A muted incident is looked at again after so long: whoever takes a mute away need not say so.
const MUTED_LOOK: SignedDuration = SignedDuration::from_secs(1);
/// At the ends of mutes somebody is told of the same incident no sooner again than this.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);
/// See [`Again`].
const PACE_WINDOW: SignedDuration = SignedDuration::from_mins(1);
/// A time that lies ahead by more than this is of a clock that was wrong; by less, of one that is being corrected.
const SET_BACK: SignedDuration = SignedDuration::from_secs(60);
/// Nothing is due: looked at again after so long nevertheless.
const IDLE_LOOK: SignedDuration = SignedDuration::from_hours(1);

/// The configuration's part: receivers and routes.
#[derive(Debug)]
pub(super) struct Routes {
    receivers: Vec<String>,
    in_order: Vec<Planned>,
    /// Receivers that take nothing now: they are reminded when they do again, once, and not once for each time.
    pub(super) failing: BTreeSet<String>,
}

/// A route, with how its hours stand.
#[derive(Debug)]
struct Planned {
    route: Route,
    receivers: BTreeSet<String>,
    steps: Vec<(Duration, BTreeSet<String>)>,
    hours: Option<Hours>,
    standing: Standing,
    known: Option<(Timestamp, Timestamp)>,
}

/// One open incident.
#[derive(Debug)]
pub(super) struct Entry {
    /// Without its texts and figures: what matchers ask.
    pub(super) incident: Incident,
    /// Who was told, and when.
    pub(super) told: BTreeMap<String, Told>,
    /// Not to be looked at before.
    pub(super) next: Timestamp,
    matched: Vec<usize>,
    deaf: Option<String>,
    acked: bool,
    held: bool,
    /// When it was last noted that it is muted, by now or no more.
    muted_at: Option<Timestamp>,
    from: Timestamp,
}

/// When a receiver was told of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    /// First.
    pub(super) first: Timestamp,
    /// Last, of whatever.
    pub(super) last: Timestamp,
}

/// Something due now.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) to: BTreeSet<String>,
    pub(super) why: Why,
}

/// Why somebody is told although nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Nobody acknowledged it in time.
    Step { after: Duration },
    /// The hours of its route have begun, or those of the route before have ended.
    Hours,
    /// It is not muted any more, and they have not heard of it since before it was.
    Unmuted,
    /// It is open, and they do not know: new in the configuration.
    Open,
    /// They have not heard of it for a while.
    Reminder { open_for: Duration, acked: bool },
}

/// How many incidents were told again of late because their mute was over: no more a minute than boxes that go dark alone.
#[derive(Debug, Default)]
pub(super) struct Again(VecDeque<Timestamp>);

impl Again {
    fn has_room(&mut self, now: Timestamp) -> bool {
        let minute_ago = now.saturating_sub(PACE_WINDOW).unwrap_or(Timestamp::MIN);
        // One that lies ahead is of before the clock was set back.
        self.0.retain(|at| minute_ago < *at && *at <= now);
        self.0.len() < PER_MINUTE
    }

    fn told(&mut self, now: Timestamp) {
        self.0.push_back(now);
    }
}

/// What the active route says.
struct Wanted {
    /// Those to be told by now, with the reason for each.
    now: BTreeMap<String, Why>,
    /// All that it names, its later steps too.
    all: BTreeSet<String>,
    /// When its next step is due.
    next: Option<Timestamp>,
    remind: Option<Duration>,
    remind_acked: Option<Duration>,
}

impl Routes {
    pub(super) fn new(receivers: Vec<String>, routes: Vec<Route>) -> Self {
        let names = |words: &[protocol::names::Word]| words.iter().map(ToString::to_string).collect();
        let planned = |route: Route| Planned {
            receivers: names(&route.receivers),
            steps: route
                .steps
                .iter()
                .map(|step| (step.after, names(&step.receivers)))
                .collect(),
            hours: route.when.clone(),
            standing: Standing {
                open: true,
                since: None,
                until: None,
            },
            known: None,
            route,
        };
        Self {
            receivers,
            in_order: routes.into_iter().map(planned).collect(),
            failing: BTreeSet::new(),
        }
    }

    fn matching(&self, incident: &Incident) -> Vec<usize> {
        let matches = |planned: &Planned| planned.route.matcher.matches(incident);
        (0..self.in_order.len())
            .filter(|at| matches(&self.in_order[*at]))
            .collect()
    }

    fn has(&self, receiver: &str) -> bool {
        self.receivers.iter().any(|name| name == receiver)
    }
}

impl Planned {
    /// How its hours stand: reckoned once for all incidents, until they change.
    fn standing(&mut self, now: Timestamp) -> Standing {
        let Some(hours) = &self.hours else {
            return self.standing;
        };
        let current = |(from, until): (Timestamp, Timestamp)| from <= now && now < until;
        if !self.known.is_some_and(current) {
            self.standing = hours.at(now);
            let until = self
                .standing
                .until
                .unwrap_or(now.saturating_add(IDLE_LOOK).unwrap_or(now));
            self.known = Some((now, until));
        }
        self.standing
    }
}

impl Entry {
    pub(super) fn new(incident: &Incident, ack: Option<&Ack>, routes: &Routes) -> Self {
        let mut entry = Self {
            incident: outline(incident),
            told: BTreeMap::new(),
            next: Timestamp::MIN,
            matched: Vec::new(),
            deaf: deaf(incident),
            acked: false,
            held: false,
            muted_at: None,
            from: incident.opened_at,
        };
        entry.changed(incident, ack, routes);
        entry
    }

    /// The incident as it is now; it is looked at again soon.
    pub(super) fn changed(&mut self, incident: &Incident, ack: Option<&Ack>, routes: &Routes) {
        self.incident = outline(incident);
        self.matched = routes.matching(&self.incident);
        self.acked = ack.is_some();
        self.held = is_held(incident);
        self.from = steps_from(incident);
        self.muted_at = muted_at(incident);
        self.next = Timestamp::MIN;
    }

    /// Whom `change` goes to.
    pub(super) fn recipients(
        &mut self,
        change: &Change,
        muted: bool,
        routes: &mut Routes,
        now: Timestamp,
    ) -> BTreeSet<String> {
        let over = change.incident.resolved_at.is_some();
        let told = self.told.keys().cloned();
        let mut to: BTreeSet<String> = match &change.to {
            Audience::Only(names) => names.clone(),
            Audience::Routed if over => told.collect(),
            Audience::Routed if muted => BTreeSet::new(),
            Audience::Routed if self.acked || self.held => told.collect(),
            Audience::Routed => told.chain(self.wanted(routes, now).now.into_keys()).collect(),
        };
        // A receiver that left the configuration has no worker: a row for it would wait for ever.
        to.retain(|name| routes.has(name));
        to
    }

    /// The receiver that takes nothing, if that is what it says now.
    pub(super) fn failing(&self) -> Option<&String> {
        self.deaf.as_ref().filter(|_| !self.held)
    }

    /// Whether nobody was told of it, and nobody has it in hand.
    pub(super) fn is_untold(&self) -> bool {
        self.told.is_empty() && !self.acked
    }

    /// `receiver` is told at `at`.
    pub(super) fn tell(&mut self, receiver: &str, at: Timestamp) {
        let told = self
            .told
            .entry(receiver.to_owned())
            .or_insert(Told { first: at, last: at });
        // Not the latest: the wall clock may have been set back since.
        told.last = at;
    }

    /// What is due now; sets when to look again.
    pub(super) fn look(
        &mut self,
        muted: bool,
        routes: &mut Routes,
        pace: &mut Again,
        now: Timestamp,
    ) -> Vec<Due> {
        if muted {
            self.next = later(now, MUTED_LOOK);
            return Vec::new();
        }
        let wanted = self.wanted(routes, now);
        let mut next = later(now, IDLE_LOOK);
        if let Some(boundary) = self.boundary(routes, now) {
            next = next.min(boundary);
        }
        let mut found: BTreeMap<Why, BTreeSet<String>> = BTreeMap::new();
        let mut again = false;
        if !self.acked && !self.held {
            next = wanted.next.map_or(next, |step| next.min(step));
            for (name, why) in &wanted.now {
                let why = match self.told.get(name) {
                    None if *why == Why::Open && self.muted_at.is_some() => Why::Unmuted,
                    None => *why,
                    // Nobody is told while it is muted: so they heard of it before, and may count on hearing of the end.
                    Some(told) => match self.muted_at.map(|at| past(at, now)) {
                        Some(at) if past(told.last, now) < at => {
                            let due = again_at(told, at, now);
                            if due > now || !pace.has_room(now) {
                                next = next.min(due.max(later(now, MUTED_LOOK)));
                                continue;
                            }
                            again = true;
                            Why::Unmuted
                        }
                        Some(_) | None => continue,
                    },
                };
                found.entry(why).or_default().insert(name.clone());
            }
        }
        if again {
            pace.told(now);
        }
        let (every, among) = if self.acked {
            (wanted.remind_acked, wanted.all)
        } else {
            (wanted.remind, wanted.now.into_keys().collect())
        };
        if let Some(every) = every.filter(|_| !self.held) {
            for name in among {
                let Some(told) = self.told.get(&name).filter(|_| !routes.failing.contains(&name)) else {
                    continue;
                };
                let due = after(past(told.last, now), every);
                let told_anyway = found.get(&Why::Unmuted).is_some_and(|to| to.contains(&name));
                if told_anyway {
                    next = next.min(after(now, every));
                } else if due <= now {
                    let why = Why::Reminder {
                        open_for: between(self.incident.opened_at, now),
                        acked: self.acked,
                    };
                    found.entry(why).or_default().insert(name);
                    next = next.min(after(now, every));
                } else {
                    next = next.min(due);
                }
            }
        }
        self.next = next;
        found.into_iter().map(|(why, to)| Due { to, why }).collect()
    }

    /// The active route at `now`, reckoned.
    fn wanted(&self, routes: &mut Routes, now: Timestamp) -> Wanted {
        let mut wanted = Wanted {
            now: BTreeMap::new(),
            all: BTreeSet::new(),
            next: None,
            remind: None,
            remind_acked: None,
        };
        let takes_it = |name: &&String| Some(*name) != self.deaf.as_ref();
        if routes.in_order.is_empty() {
            let all = routes.receivers.iter().filter(takes_it).cloned();
            wanted.now = all.map(|name| (name, Why::Open)).collect();
            wanted.all = wanted.now.keys().cloned().collect();
            return wanted;
        }
        let mut from = past(self.from, now);
        for at in &self.matched {
            let planned = &mut routes.in_order[*at];
            let standing = planned.standing(now);
            // It was this route's, or ceased to be: what comes after took it up then.
            from = standing.since.map_or(from, |since| from.max(since));
            if !standing.open {
                continue;
            }
            let first: BTreeSet<String> = planned.receivers.iter().filter(takes_it).cloned().collect();
            // A route that can only tell the failing receiver itself tells nobody: the next one is asked.
            if first.is_empty() && self.incident.kind == Kind::ReceiverFailing {
                continue;
            }
            let why = if from > self.from { Why::Hours } else { Why::Open };
            wanted.now = first.into_iter().map(|name| (name, why)).collect();
            wanted.all = wanted.now.keys().cloned().collect();
            // Steps follow the first receivers: while these could not be told (muted), nobody came too late.
            let told = wanted.now.keys().filter_map(|name| self.told.get(name));
            let told = told.map(|told| past(told.first, now)).min();
            let began = if wanted.now.is_empty() {
                Some(from)
            } else {
                told.map(|told| from.max(told))
            };
            for (step, names) in &planned.steps {
                let due = began.map_or(Timestamp::MAX, |began| after(began, *step));
                let names = names.iter().filter(takes_it);
                wanted.all.extend(names.clone().cloned());
                if due <= now {
                    for name in names {
                        let why = Why::Step { after: *step };
                        wanted.now.entry(name.clone()).or_insert(why);
                    }
                } else {
                    wanted.next = Some(wanted.next.map_or(due, |next| next.min(due)));
                }
            }
            wanted.remind = planned.route.remind;
            wanted.remind_acked = planned.route.remind_acked;
            return wanted;
        }
        // That a receiver fails must reach somebody: where no route takes it, every other receiver.
        if self.deaf.is_some() {
            let all = routes.receivers.iter().filter(takes_it).cloned();
            wanted.now = all.map(|name| (name, Why::Open)).collect();
            wanted.all = wanted.now.keys().cloned().collect();
        }
        wanted
    }

    /// When hours of one of its routes begin or end next.
    fn boundary(&self, routes: &mut Routes, now: Timestamp) -> Option<Timestamp> {
        let until = |at: &usize| routes.in_order[*at].standing(now).until;
        self.matched.iter().filter_map(until).min()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step { after } => write!(f, "nobody has acknowledged it within {}", duration(*after)),
            Self::Hours => f.write_str("open, and now in the hours of this route"),
            Self::Unmuted => f.write_str("not muted any more, and still open"),
            Self::Open => f.write_str("open, and not told here before"),
            Self::Reminder { open_for, acked } => {
                let hand = if *acked {
                    "acknowledged"
                } else {
                    "not acknowledged"
                };
                write!(f, "reminder: open for {}, {hand}", duration(*open_for))
            }
        }
    }
}

/// When who heard of it before it was muted at `muted_at` is to hear that this is over: at once who heard of it once;
/// otherwise not so soon after the last time, so that mutes that come and go do not page each time. Not before it began: the
/// clock may have been set back a little since, and what is told before that is told again each time.
fn again_at(told: &Told, muted_at: Timestamp, now: Timestamp) -> Timestamp {
    if told.first == told.last {
        muted_at
    } else {
        muted_at.max(later(past(told.last, now), AGAIN))
    }
}

/// What matchers ask, without what only people read.
fn outline(incident: &Incident) -> Incident {
    Incident {
        summary: String::new(),
        details: serde_json::Map::new(),
        labels: incident.labels.clone(),
        box_name: incident.box_name.clone(),
        ..*incident
    }
}

fn muted_at(incident: &Incident) -> Option<Timestamp> {
    incident.details.get(MUTED_AT)?.as_str()?.parse().ok()
}

/// The receiver that a `receiver_failing` incident is about: nobody is told of his own deafness.
fn deaf(incident: &Incident) -> Option<String> {
    if incident.kind == Kind::ReceiverFailing {
        Some(incident.details.get("receiver")?.as_str()?.to_owned())
    } else {
        None
    }
}

/// `then`, or long ago if it lies ahead: it was written before the wall clock was set back, and nobody is to wait for the
/// clock to come there again.
fn past(then: Timestamp, now: Timestamp) -> Timestamp {
    if then.duration_since(now) > SET_BACK {
        Timestamp::MIN
    } else {
        then
    }
}

fn later(now: Timestamp, by: SignedDuration) -> Timestamp {
    now.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn after(from: Timestamp, by: Duration) -> Timestamp {
    from.saturating_add(by).unwrap_or(Timestamp::MAX)
}

fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
