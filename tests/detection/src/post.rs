//! Sending: each receiver's worker in virtual time, over the real outbox and the real schedule of repetitions; and what
//! the receivers have heard, held against what they may hear.
//!
//! The worker is the server's in what it does, and not its code, which sleeps: the oldest undelivered row of each incident,
//! four side by side, one while the receiver fails, the pause that [`wait_after`] says, the word about a receiver that
//! failed for a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_server::incident::change::Change;
use fleet_server::liveness::time::Mono;
use fleet_server::notify::outbox::OutboxRow;
use fleet_server::notify::retry::{FAILING_AFTER, SendError, wait_after};
use fleet_server::store::{Store, sqlite::SqliteStore};
use protocol::incident::{EventKind, Kind, Severity};

use crate::desk::must;
use crate::dice::Dice;
use crate::path::ServerTimes;
use crate::profile;
use crate::schedule::moment;

/// As the worker has it: rows of different incidents at once.
const SIDE_BY_SIDE: u32 = 4;
/// As the sender has it: a connection that is not accepted in this time …
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// … an answer that does not come in this one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What was told, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Told {
    /// Notifications that receivers have taken.
    pub taken: u64,
    /// … among them those that they had taken before: the server was stopped before it could write that down.
    pub repeats: u64,
    /// Attempts that were not taken.
    pub failed: u64,
    /// Out of order, without their opening, after their end, or twice without a cause.
    pub wrong: u64,
    /// Never taken.
    pub lost: u64,
    /// Pages that on-call was never told of, and ends that were not told to whoever was told of the opening.
    pub untold: u64,
}

impl Told {
    /// Adds another fleet's.
    pub fn add(&mut self, other: Self) {
        self.taken += other.taken;
        self.repeats += other.repeats;
        self.failed += other.failed;
        self.wrong += other.wrong;
        self.lost += other.lost;
        self.untold += other.untold;
    }
}

/// A notification that a receiver took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// When.
    pub at: Mono,
    /// By which receiver.
    pub receiver: usize,
    /// Of which incident.
    pub incident: i64,
    /// What.
    pub event: EventKind,
    /// It could not have been sent then.
    pub wrong: Option<&'static str>,
}

/// A word about a receiver, for the books: it fails (why), or takes notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Which.
    pub receiver: usize,
    /// Why it fails.
    pub failing: Option<String>,
}

/// All workers, and all receivers.
#[derive(Debug)]
pub struct Post {
    lanes: Vec<Lane>,
    /// When each receiver takes nothing, and whether it answers at all then.
    outages: Vec<Vec<(Mono, Mono)>>,
    dice: Dice,
    /// Incidents that opened as pages and that somebody else than their own receiver can be told of; and those that ended.
    pages: BTreeSet<i64>,
    ended: BTreeSet<i64>,
    /// What was told.
    pub told: Told,
}

#[derive(Debug, Default)]
struct Lane {
    name: String,
    failures: u32,
    since: Option<Mono>,
    /// The books know that it fails.
    said: bool,
    /// It took something since the server's start.
    proven: bool,
    /// Left alone until then.
    deaf_until: Mono,
    under_way: Vec<(OutboxRow, Result<(), SendError>)>,
    /// Counts sendings: an answer that comes after the server's end is nobody's.
    turn: u64,
    /// By incident: the newest revision taken, and whether that was its end.
    heard: BTreeMap<i64, (u32, bool)>,
    /// Rows that were under way when the server was stopped.
    cut_off: Vec<(i64, u32)>,
}

impl Post {
    /// Workers for these receivers.
    pub fn new(names: &[String], outages: Vec<Vec<(Mono, Mono)>>, dice: Dice) -> Self {
        let lane = |name: &String| Lane {
            name: name.clone(),
            ..Lane::default()
        };
        Self {
            lanes: names.iter().map(lane).collect(),
            outages,
            dice,
            pages: BTreeSet::new(),
            ended: BTreeSet::new(),
            told: Told::default(),
        }
    }

    /// What the books decided: held at the end against what receivers have heard, whatever the planner made of it.
    pub fn decided(&mut self, changes: &[Change]) {
        for change in changes {
            let incident = &change.incident;
            let page = incident.severity == Severity::Page && incident.kind != Kind::ReceiverFailing;
            match change.event {
                EventKind::Opened if page => drop(self.pages.insert(incident.id)),
                EventKind::Resolved => drop(self.ended.insert(incident.id)),
                EventKind::Opened | EventKind::Updated => {}
            }
        }
    }

    /// Pages that on-call never heard of, and ends that somebody did not hear of who had heard of the opening.
    pub fn untold(&self) -> u64 {
        let silent = |id: &&i64| !self.lanes[0].heard.contains_key(id);
        let unended = |(id, heard): &(&i64, &(u32, bool))| !heard.1 && self.ended.contains(id);
        let open = self
            .lanes
            .iter()
            .flat_map(|lane| &lane.heard)
            .filter(unended)
            .count();
        (self.pages.iter().filter(silent).count() + open) as u64
    }

    /// A receiver's worker looks for something to send. `Some`: when what it sends now is answered, one way or another, and the
    /// number that [`settle`](Self::settle) wants.
    pub fn look(
        &mut self,
        receiver: usize,
        now: Mono,
        store: &mut SqliteStore,
        times: &ServerTimes,
    ) -> (Option<(Mono, u64)>, Vec<Taken>) {
        let lane = &self.lanes[receiver];
        if !lane.under_way.is_empty() || now < lane.deaf_until {
            return (None, Vec::new());
        }
        let limit = if lane.failures > 0 { 1 } else { SIDE_BY_SIDE };
        let rows = must(store.due(&lane.name, moment(now).wall, limit));
        let mut ends = None;
        let mut taken = Vec::new();
        for row in rows {
            let (at, answer) = self.send(receiver, now, times);
            if answer.is_ok() {
                taken.push(self.take(receiver, &row, at));
            } else {
                self.told.failed += 1;
            }
            ends = ends.max(Some(at));
            self.lanes[receiver].under_way.push((row, answer));
        }
        self.lanes[receiver].turn += 1;
        let turn = self.lanes[receiver].turn;
        (ends.map(|at| (at, turn)), taken)
    }

    /// What was under way is answered. Answers with when to look again, and what the books are to hear.
    pub fn settle(
        &mut self,
        (receiver, turn): (usize, u64),
        now: Mono,
        store: &mut SqliteStore,
    ) -> (Mono, Option<Health>) {
        let lane = &mut self.lanes[receiver];
        if lane.turn != turn || lane.under_way.is_empty() {
            return (Mono::NEVER, None);
        }
        let mut again = now;
        let mut health = None;
        for (row, answer) in std::mem::take(&mut lane.under_way) {
            let Err(error) = answer else {
                must(store.delivered(row.id, moment(now).wall, None));
                if lane.said || !lane.proven {
                    health = Some(Health {
                        receiver,
                        failing: None,
                    });
                }
                (lane.failures, lane.since, lane.said, lane.proven) = (0, None, false, true);
                continue;
            };
            lane.failures = lane.failures.saturating_add(1);
            let since = *lane.since.get_or_insert(now);
            if !lane.said && now.since(since) >= FAILING_AFTER {
                lane.said = true;
                health = Some(Health {
                    receiver,
                    failing: Some(error.to_string()),
                });
            }
            must(store.attempt_failed(row.id, moment(now).wall, &error.to_string()));
            again = again.max(now + wait_after(&error, lane.failures, self.dice.unit()));
        }
        lane.deaf_until = again;
        (again, health)
    }

    /// The server's process ends: what was taken and not written down is sent again by the next one.
    pub fn stopped(&mut self) {
        for lane in &mut self.lanes {
            let answered = lane.under_way.drain(..).filter(|(_, answer)| answer.is_ok());
            lane.cut_off
                .extend(answered.map(|(row, _)| (row.incident_id, row.alert.revision)));
            (lane.failures, lane.since, lane.said, lane.proven) = (0, None, false, false);
            lane.deaf_until = Mono::default();
        }
    }

    /// Whether something is under way.
    pub fn is_busy(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.under_way.is_empty())
    }

    fn send(&mut self, receiver: usize, now: Mono, times: &ServerTimes) -> (Mono, Result<(), SendError>) {
        // The way out is the server's first path.
        if times.cut(0, now) {
            let error = SendError::unavailable("no connection");
            return (now + CONNECT_TIMEOUT, Err(error));
        }
        let down = self.outages[receiver]
            .iter()
            .find(|(from, to)| *from <= now && now < *to);
        if let Some((from, _)) = down {
            // Half of all outages answer with an error, the others not at all.
            return if from.as_micros().is_multiple_of(2) {
                let error = SendError::unavailable("503 Service Unavailable");
                (now + self.answer_time(), Err(error))
            } else {
                let error = SendError::unavailable("no answer within 10 s");
                (now + ANSWER_TIMEOUT, Err(error))
            };
        }
        (now + self.answer_time(), Ok(()))
    }

    fn answer_time(&mut self) -> Duration {
        let spread = (profile::ANSWER_SHAPE * self.dice.normal()).exp();
        Duration::from_secs_f64((profile::ANSWER_MEDIAN_SECS * spread).min(ANSWER_TIMEOUT.as_secs_f64()))
    }

    /// A receiver takes a row, and holds it against what it has heard.
    fn take(&mut self, receiver: usize, row: &OutboxRow, at: Mono) -> Taken {
        let lane = &mut self.lanes[receiver];
        let (incident, revision, event) = (row.incident_id, row.alert.revision, row.alert.event);
        let over = event == EventKind::Resolved;
        self.told.taken += 1;
        let known = lane.heard.insert(incident, (revision, over));
        let wrong = match known {
            None if event == EventKind::Opened => None,
            None => Some("told of something that they were not told had opened"),
            Some((newest, _)) if newest == revision => {
                self.told.repeats += 1;
                let this = |one: &(i64, u32)| *one == (incident, revision);
                if let Some(at) = lane.cut_off.iter().position(this) {
                    lane.cut_off.swap_remove(at);
                    None
                } else {
                    Some("told twice without a cause")
                }
            }
            Some((_, true)) => Some("told of what had ended"),
            Some((newest, false)) if newest > revision => Some("told out of order"),
            Some((_, false)) => None,
        };
        self.told.wrong += u64::from(wrong.is_some());
        Taken {
            at,
            receiver,
            incident,
            event,
            wrong,
        }
    }
}
