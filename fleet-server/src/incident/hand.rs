//! Who has an incident in hand, and what is said of one again although nothing about it changed: that nobody has it in
//! hand, that it is still open, that a mute is over.
//!
//! It does not decide when that is said, or to whom: that is `notify::plan`'s.

use jiff::Timestamp;
use protocol::incident::{Ack, EventKind, Incident};

use super::change::{Audience, Change};
use super::ledger::{Ledger, Open};
use super::text::bounded;
use crate::liveness::time::Moment;

/// The name in an incident's details of the time from which a route's steps count, where that is not its opening: it got
/// louder, or was given back.
pub const STEPS_FROM: &str = "steps_from";
/// The word in a timeline for "somebody has it in hand".
pub const ACKNOWLEDGED: &str = "acknowledged";
/// The word in a timeline for "nobody has it in hand any more".
pub const UNACKNOWLEDGED: &str = "unacknowledged";
/// The word in a timeline for "said again".
const NOTIFIED: &str = "notified";

/// From when a route's steps count.
pub fn steps_from(incident: &Incident) -> Timestamp {
    let from = incident
        .details
        .get(STEPS_FROM)
        .and_then(serde_json::Value::as_str);
    from.and_then(|from| from.parse().ok())
        .unwrap_or(incident.opened_at)
}

impl Ledger {
    /// Says an open incident again, to `to`, with `text` as the reason; `None`: it is not open. Like every change it has
    /// a revision, a line in the timeline and its rows in the one transaction.
    pub fn again(
        &mut self,
        id: i64,
        event: EventKind,
        text: String,
        now: Moment,
        to: Audience,
    ) -> Option<Change> {
        let open = self.by_id(id)?;
        let told_at = open.told_at;
        let mut change = open.change(event, true, bounded(text), now.wall);
        // Nothing new was told: what waits for news since then waits on.
        open.told_at = told_at;
        change.to = to;
        NOTIFIED.clone_into(&mut change.entry.event);
        Some(change)
    }

    /// Somebody has it in hand; those who were told hear of it. `None`: it is not open, or was in these hands before.
    pub fn acknowledge(&mut self, id: i64, ack: Ack, now: Moment) -> Option<Change> {
        let open = self.by_id(id)?;
        let same = |known: &Ack| (&known.by, &known.note) == (&ack.by, &ack.note);
        if open.ack.as_ref().is_some_and(same) {
            return None;
        }
        let text = by(&ack.by, &ack.note);
        open.ack = Some(ack);
        Some(open.handed(ACKNOWLEDGED, text, now))
    }

    /// It is given back: steps begin anew. `None`: it is not open, or nobody had it.
    pub fn unacknowledge(&mut self, id: i64, who: &str, note: &str, now: Moment) -> Option<Change> {
        let open = self.by_id(id)?;
        open.ack.as_ref()?;
        open.starts_anew(now.wall);
        Some(open.handed(UNACKNOWLEDGED, by(who, note), now))
    }

    /// Who had it in hand before the start.
    pub fn restore_ack(&mut self, id: i64, ack: Option<Ack>) {
        if let Some(open) = self.by_id(id) {
            open.ack = ack;
        }
    }

    /// Whether there is such an open incident.
    pub fn is_open_id(&self, id: i64) -> bool {
        self.ids.contains_key(&id)
    }

    fn by_id(&mut self, id: i64) -> Option<&mut Open> {
        let key = self.ids.get(&id)?;
        self.open.get_mut(key)
    }
}

impl Open {
    /// A route's steps begin anew; whoever had it in hand had something quieter, or gave it back.
    pub(super) fn starts_anew(&mut self, now: Timestamp) -> Option<Ack> {
        self.incident
            .details
            .insert(STEPS_FROM.to_owned(), now.to_string().into());
        self.ack.take()
    }

    fn handed(&mut self, event: &str, text: String, now: Moment) -> Change {
        let told_at = self.told_at;
        let mut change = self.change(EventKind::Updated, true, bounded(text), now.wall);
        self.told_at = told_at;
        event.clone_into(&mut change.entry.event);
        change
    }
}

fn by(who: &str, note: &str) -> String {
    if note.is_empty() {
        format!("by {who}")
    } else {
        format!("by {who}: {note}")
    }
}
