//! One box in the table: its state, and when it must be looked at again.

use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;
use protocol::limits;

use super::ConnId;
use super::beat::{Arrival, WitnessAnswer};
use super::census::{Counts, Memberships};
use super::event::Cause;
use super::history::History;
use super::identity::{Identity, Newer};
use super::margin::{Deadlines, Margins};
use super::record::Record;
use super::time::{Moment, Mono};

/// After a connection was closed without a goodbye and no other came: dark by that alone. A watchdog that its service
/// manager restarts is back before.
const CLOSED_DARK: Duration = Duration::from_secs(4);
/// A host answered a witness, so the way is open: the beat that is due within one interval may take this long over it.
const OPEN_WAY_GRACE: Duration = Duration::from_secs(1);

/// A box.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) state: State,
    /// Since when it is in that state.
    pub(super) since: Option<Timestamp>,
    /// What deadlines count from: the last arrival, or later where the server doubted itself.
    pub(super) base: Mono,
    /// The last arrival in this process.
    pub(super) last: Option<Mono>,
    /// The last arrival, by the server's wall clock.
    pub(super) last_seen: Option<Timestamp>,
    pub(super) every: Duration,
    pub(super) deadlines: Deadlines,
    pub(super) identity: Identity,
    pub(super) history: History,
    pub(super) conn: Option<ConnId>,
    /// Beats in a row on that connection, up to 2: one that carried only one is not kept alive, and its end means nothing.
    pub(super) on_conn: u8,
    /// Accepted in this process.
    pub(super) beats: u64,
    pub(super) groups: Memberships,
    /// It may be gone (maintenance): no evidence for anything, and its path teaches nothing meanwhile.
    pub(super) excused: bool,
    /// How the census counts it.
    pub(super) counts: Counts,
}

/// The state of a box, with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum State {
    Unseen,
    Live,
    Suspect(Suspicion),
    Dark,
    Silent,
    Away { why: GoodbyeWhy, until: Mono },
}

/// What is known against a suspect box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Suspicion {
    /// Since when.
    pub(super) since: Mono,
    /// Its connection was closed.
    pub(super) closed: Option<Mono>,
    /// What a witness said, and when.
    pub(super) witness: Option<(WitnessAnswer, Mono)>,
}

/// What is to be said of a box, unless the server doubts itself or the whole group went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing answers.
    Dark(Cause),
    /// The host answers, the watchdog does not.
    Silent,
    /// Said goodbye and did not come back.
    Overdue(GoodbyeWhy),
}

impl Cell {
    pub(super) fn liveness(&self) -> Liveness {
        match self.state {
            State::Unseen => Liveness::Unseen,
            State::Live => Liveness::Live,
            State::Suspect(_) => Liveness::Suspect,
            State::Dark => Liveness::Dark,
            State::Silent => Liveness::Silent,
            State::Away { .. } => Liveness::Away,
        }
    }

    /// When it must be looked at, if nothing arrives.
    pub(super) fn due(&self) -> Mono {
        match self.state {
            State::Unseen | State::Dark | State::Silent => Mono::NEVER,
            State::Live => self.base + self.deadlines.suspect_after,
            State::Suspect(suspicion) => self.verdict_at(&suspicion).0,
            State::Away { until, .. } => until,
        }
    }

    /// The verdict on a suspect box as things stand, and when it falls.
    pub(super) fn verdict_at(&self, suspicion: &Suspicion) -> (Mono, Verdict) {
        let overdue = self.base + self.deadlines.suspect_after;
        let deadline = self.base + self.deadlines.dark_after;
        match (suspicion.witness, suspicion.closed) {
            (Some((WitnessAnswer::Reachable, at)), _) => {
                let open_way = at.max(self.base) + self.every + OPEN_WAY_GRACE;
                (open_way.max(overdue).min(deadline), Verdict::Silent)
            }
            (Some((WitnessAnswer::Unreachable, at)), _) => (
                at.max(overdue).min(deadline),
                Verdict::Dark(Cause::WitnessConfirmed),
            ),
            (Some((WitnessAnswer::Unknown, _)) | None, Some(closed)) => {
                let alone = closed.max(self.base) + CLOSED_DARK;
                (
                    alone.max(overdue).min(deadline),
                    Verdict::Dark(Cause::ConnectionClosed),
                )
            }
            (Some((WitnessAnswer::Unknown, _)) | None, None) => (deadline, Verdict::Dark(Cause::Deadline)),
        }
    }

    /// How the census counts this state when it begins.
    pub(super) fn counts_now(&self) -> Counts {
        if self.excused {
            return Counts::Not;
        }
        match self.state {
            State::Unseen | State::Away { .. } => Counts::Not,
            State::Live => Counts::Heard,
            State::Suspect(_) | State::Dark | State::Silent => Counts::Overdue,
        }
    }
}

/// What a beat taught about its box's path.
#[derive(PartialEq, Eq)]
pub(super) enum Learnt {
    Nothing,
    Beat,
    Gap,
}

pub(super) fn learn(cell: &mut Cell, now: Mono, newer: Newer, learn_from: Mono, margins: &Margins) -> Learnt {
    let Some(last) = cell.last else {
        return Learnt::Nothing;
    };
    if cell.excused
        || !newer.same_session
        || last < learn_from
        || matches!(cell.state, State::Away { .. } | State::Unseen)
    {
        return Learnt::Nothing;
    }
    let gap = now.since(last).as_secs_f32();
    let every = cell.every.as_secs_f32();
    let body = margins.body_secs(cell.every);
    cell.history
        .learn(gap, every, body, margins.longest_secs(cell.every));
    if gap - every > body {
        Learnt::Gap
    } else {
        Learnt::Beat
    }
}

pub(super) fn arrived(cell: &mut Cell, now: Moment, beat: &Arrival) {
    cell.base = now.mono;
    cell.beats += 1;
    cell.on_conn = if cell.conn == Some(beat.conn) { 2 } else { 1 };
    cell.conn = Some(beat.conn);
}

/// A box that was judged before the restart is so still; one that was not starts with a full deadline.
pub(super) fn restored(memory: &Record, now: Moment) -> State {
    match (memory.state, memory.away) {
        (Liveness::Away, Some((why, until))) => State::Away {
            why,
            until: now.mono_of(until),
        },
        (Liveness::Unseen, _) => State::Unseen,
        (Liveness::Live | Liveness::Suspect | Liveness::Away, _) => State::Live,
        (Liveness::Dark, _) => State::Dark,
        (Liveness::Silent, _) => State::Silent,
    }
}

/// What comes from a file may be out of bounds.
pub(super) fn bounded(every_ms: u64) -> Duration {
    Duration::from_millis(every_ms).clamp(limits::INTERVAL_MIN, limits::INTERVAL_MAX)
}

/// By the clock that never jumps where the last beat came in this process; else by the wall clock.
pub(super) fn silent_for(cell: &Cell, now: Moment) -> Duration {
    match (cell.last, cell.last_seen) {
        (Some(last), _) => now.mono.since(last),
        (None, Some(seen)) => now.wall.duration_since(seen).try_into().unwrap_or_default(),
        (None, None) => Duration::ZERO,
    }
}
