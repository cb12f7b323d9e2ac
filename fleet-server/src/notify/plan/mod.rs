//! Pure: which receivers are told of what, and when: the rows of a change, and what time alone makes due.
//!
//! The planner holds, for each open incident, whom its routes want told by now ([`wanted`]) against who was told, and
//! when. A difference is a [`Nudge`]: a step whose time has come, hours that have begun, a mute that is over, a receiver
//! new in the configuration, a reminder. The ledger makes a change of it, and the change comes back here for its rows.
//!
//! Everything it holds stands in the store (incidents with acknowledgements, rows with their times), so that a restart
//! changes nothing. It goes by the wall clock, because it must outlive the process.
//!
//! Rules:
//! - Whoever was told that an incident opened is told of its end, whatever the routes, mutes and hours say by then; nobody
//!   else is.
//! - Whoever was told is told of its changes; while it is muted nobody is.
//! - At the end of a mute whoever is to know is told, also who knew before it began: it is still open, and nobody has it. Who
//!   heard of it more than once hears so no sooner than ten minutes after the last time, and at a bounded pace over all.
//! - Acknowledged, or well for now and only held open because it flaps: nobody new is told.
//! - What a receiver hears first of an incident is that it opened.
//! - A receiver that fails is not reminded until it takes notifications again, and then once: what waits there stays
//!   bounded by what happened.

mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

use jiff::Timestamp;
use protocol::alert::{Alert, VERSION};
use protocol::incident::{EventKind, Incident, Kind};

use self::wanted::{Again, Due, Entry, Routes, Told, Why};
use super::outbox::OutboxRow;
use crate::incident::canary::is_canarys;
use crate::incident::change::Change;
use crate::incident::hand::{ACKNOWLEDGED, UNACKNOWLEDGED};
use crate::settings::Route;
use crate::store;

/// Nudges of one look: what is due beyond that waits for the next one, a second later.
pub const NUDGES: usize = 500;

/// Whether an incident is muted at a time.
pub type Muted = Box<dyn Fn(&Incident, Timestamp) -> bool + Send>;

/// The rows of a change of an incident of the canary's own box.
pub type Proof = Box<dyn Fn(&Change) -> Vec<OutboxRow> + Send>;

/// Turns changes into outbox rows, and time into nudges.
pub struct Planner {
    routes: Routes,
    muted: Muted,
    proof: Proof,
    open: BTreeMap<i64, Entry>,
    /// At what pace incidents were told again whose mutes were over.
    again: Again,
    looked_at: Timestamp,
    /// Where the last look ended that found more than [`NUDGES`].
    resume_after: i64,
}

/// Something that is due although nothing changed: for [`Ledger::again`](crate::incident::ledger::Ledger::again).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nudge {
    /// Of which incident.
    pub incident: i64,
    /// As what.
    pub event: EventKind,
    /// Whom.
    pub to: BTreeSet<String>,
    /// Why, in a sentence.
    pub text: String,
}

impl Planner {
    /// Over `receivers` and `routes` of the configuration; nothing is open, nothing muted.
    pub fn new(receivers: Vec<String>, routes: Vec<Route>) -> Self {
        Self {
            routes: Routes::new(receivers, routes),
            muted: Box::new(|_, _| false),
            proof: Box::new(|_| Vec::new()),
            open: BTreeMap::new(),
            again: Again::default(),
            looked_at: Timestamp::MIN,
            resume_after: i64::MIN,
        }
    }

    /// With `muted` to ask.
    #[must_use]
    pub fn with_muted(self, muted: Muted) -> Self {
        Self { muted, ..self }
    }

    /// With `proof` for what concerns the canary's own box: it goes its own way.
    #[must_use]
    pub fn with_proof(self, proof: Proof) -> Self {
        Self { proof, ..self }
    }

    /// What is open, and who was told of it, as the store has it.
    pub fn restore(&mut self, open: &[store::StoredIncident], told: &[store::Told]) {
        for stored in open.iter().filter(|stored| !is_canarys(&stored.incident)) {
            let entry = Entry::new(&stored.incident, stored.ack.as_ref(), &self.routes);
            self.open.insert(stored.incident.id, entry);
        }
        for row in told {
            if let Some(entry) = self.open.get_mut(&row.incident) {
                let told = Told {
                    first: row.first,
                    last: row.last,
                };
                entry.told.insert(row.receiver.clone(), told);
            }
        }
        self.note_failing();
    }

    /// Mutes were changed, or ended: every incident is looked at with the next [`due`](Self::due).
    pub fn look_again(&mut self) {
        for entry in self.open.values_mut() {
            entry.next = Timestamp::MIN;
        }
    }

    /// Whether the incident is open, nobody was told of it, and nobody has it in hand.
    pub fn is_untold(&self, incident: i64) -> bool {
        self.open.get(&incident).is_some_and(Entry::is_untold)
    }

    /// The rows of `change`.
    pub fn plan(&mut self, change: &Change, now: Timestamp) -> Vec<OutboxRow> {
        if is_canarys(&change.incident) {
            return (self.proof)(change);
        }
        let id = change.incident.id;
        let over = change.incident.resolved_at.is_some();
        let entry = self
            .open
            .entry(id)
            .or_insert_with(|| Entry::new(&change.incident, None, &self.routes));
        entry.changed(&change.incident, change.ack.as_ref(), &self.routes);
        let recipients = if change.notify {
            let muted = !over && (self.muted)(&entry.incident, now);
            entry.recipients(change, muted, &mut self.routes, now)
        } else {
            BTreeSet::new()
        };
        let rows = recipients
            .into_iter()
            .map(|receiver| {
                let first = !entry.told.contains_key(&receiver);
                entry.tell(&receiver, change.at);
                row(change, receiver, first)
            })
            .collect();
        if over {
            self.open.remove(&id);
        }
        if change.incident.kind == Kind::ReceiverFailing {
            self.note_failing();
        }
        rows
    }

    /// Which receivers take nothing; whoever takes notifications again is reminded of what is due.
    fn note_failing(&mut self) {
        let failing: BTreeSet<String> = self.open.values().filter_map(Entry::failing).cloned().collect();
        let before = std::mem::replace(&mut self.routes.failing, failing);
        if !before.is_subset(&self.routes.failing) {
            self.look_again();
        }
    }

    /// Before this nothing is due, if nothing changes; `None`: nothing is open.
    pub fn next_look(&self) -> Option<Timestamp> {
        self.open.values().map(|entry| entry.next).min()
    }

    /// What time has made due by `now`; to be asked at most once a second. At most [`NUDGES`]: the rest waits for the next.
    pub fn due(&mut self, now: Timestamp) -> Vec<Nudge> {
        let before = std::mem::replace(&mut self.looked_at, now);
        let set_back = now < before;
        let mut nudges = Vec::new();
        let (start, mut last) = (self.resume_after, i64::MIN);
        self.resume_after = i64::MIN;
        // From where the last look stopped, round to there.
        for range in [(Excluded(start), Unbounded), (Unbounded, Included(start))] {
            for (id, entry) in self.open.range_mut(range) {
                if entry.next > now && !set_back {
                    continue;
                }
                if nudges.len() >= NUDGES {
                    self.resume_after = last;
                    if set_back {
                        // The rest waits for a time that was: it is looked at with the next look, whatever it waits for.
                        self.looked_at = before;
                    }
                    return nudges;
                }
                last = *id;
                let muted = (self.muted)(&entry.incident, now);
                let due = entry.look(muted, &mut self.routes, &mut self.again, now);
                nudges.extend(due.into_iter().map(|due| due.nudge(*id)));
            }
        }
        nudges
    }
}

impl Due {
    fn nudge(self, incident: i64) -> Nudge {
        let event = match self.why {
            // Whoever has not heard of it hears that it opened, whatever this is.
            Why::Reminder { .. } | Why::Unmuted => EventKind::Updated,
            Why::Step { .. } | Why::Hours | Why::Open => EventKind::Opened,
        };
        Nudge {
            incident,
            event,
            text: self.why.to_string(),
            to: self.to,
        }
    }
}

impl std::fmt::Debug for Planner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Planner")
            .field("open", &self.open.len())
            .finish_non_exhaustive()
    }
}

/// The row that tells `receiver` of `change`; `first`: it has not heard of the incident.
pub(crate) fn row(change: &Change, receiver: String, first: bool) -> OutboxRow {
    let event = match change.event {
        EventKind::Opened | EventKind::Updated if first => EventKind::Opened,
        EventKind::Opened | EventKind::Updated | EventKind::Resolved => change.event,
    };
    OutboxRow {
        id: 0,
        receiver,
        incident_id: change.incident.id,
        alert: Alert {
            version: VERSION,
            key: key(&change.incident),
            revision: change.revision,
            event,
            test: false,
            incident: change.incident.clone(),
            ack: change.ack.clone(),
            note: note(change),
        },
        queued_at: change.at,
        attempts: 0,
        next_attempt_at: change.at,
        last_error: None,
        thread: None,
    }
}

/// What the line in the timeline says and the summary does not.
fn note(change: &Change) -> String {
    let entry = &change.entry;
    if entry.event == ACKNOWLEDGED || entry.event == UNACKNOWLEDGED {
        format!("{} {}", entry.event, entry.text)
    } else if entry.text == change.incident.summary {
        String::new()
    } else {
        entry.text.clone()
    }
}

/// The incident's key. The time is in it because ids start anew when a database is lost, and a receiver's memory
/// outlives a database.
pub fn key(incident: &Incident) -> String {
    let about = incident.box_name.as_ref().map_or("-", |name| name.as_str());
    format!(
        "{}:{about}:{}:{}",
        incident.kind,
        incident.id,
        incident.opened_at.as_millisecond()
    )
}

#[cfg(test)]
mod props;
#[cfg(test)]
mod tests;
