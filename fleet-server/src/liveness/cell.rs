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
/// A host answered a witness, so the way is open: the beat that is due within one interval may take this long over it
/// (a connection, TLS, a repetition of each).
const OPEN_WAY: Duration = Duration::from_secs(2);
/// Boxes that were not answered for so long open connections less often …
const CLIENT_RUSH: Duration = Duration::from_secs(8);
/// … so that the beat may take this long.
const OPEN_WAY_LATE: Duration = Duration::from_secs(4);

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
    /// Time in which nobody at all was heard, by which its deadline was moved since it was heard last.
    pub(super) aired: Duration,
    /// It beats on time, by [`Tracker::in_bulk`](super::tracker::Tracker::in_bulk).
    pub(super) in_bulk: bool,
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
    /// What its witnesses say.
    pub(super) witness: Option<Word>,
}

/// What witnesses say of a suspect box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Word {
    /// Their newest answer.
    pub(super) answer: WitnessAnswer,
    /// Since when they say the same.
    pub(super) since: Mono,
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
            State::Live if self.in_bulk => Mono::NEVER,
            State::Live => self.base + self.deadlines.suspect_after,
            State::Suspect(suspicion) => self.verdict_at(&suspicion).0,
            State::Away { until, .. } => until,
        }
    }

    /// The verdict on a suspect box as things stand, and when it falls.
    ///
    /// Nothing is said before `tolerance`, nor before the box is overdue by its own history. Then:
    /// - **The host answers**: the way is open, so a beat must come, on a fresh connection if need be. *Silent* when it
    ///   has not within [`OPEN_WAY`] of the first such answer; a host that answers is never *dark*, however late it is.
    /// - **The host does not answer** either: *dark* at `confirmed_after`.
    /// - **Nobody can say**: *dark* soon after its connection was closed, else at `dark_after`.
    /// - Answers that change all the time put nothing off for ever: `at_last` is the end of it.
    pub(super) fn verdict_at(&self, suspicion: &Suspicion) -> (Mono, Verdict) {
        let Deadlines {
            suspect_after,
            tolerance,
            confirmed_after,
            dark_after,
            at_last,
        } = self.deadlines;
        let earliest = self.base + suspect_after.max(tolerance);
        let deadline = (self.base + dark_after).max(earliest);
        let at_last = (self.base + at_last).max(deadline);
        match (suspicion.witness, suspicion.closed) {
            (
                Some(Word {
                    answer: WitnessAnswer::Reachable,
                    since,
                }),
                _,
            ) => {
                let silent_for = since.since(self.base);
                let way = if silent_for < CLIENT_RUSH {
                    OPEN_WAY
                } else {
                    OPEN_WAY_LATE
                };
                let open_way = since.max(self.base) + self.every + way;
                (open_way.max(earliest).min(at_last), Verdict::Silent)
            }
            (
                Some(Word {
                    answer: WitnessAnswer::Unreachable,
                    since,
                }),
                _,
            ) => (
                since.max(self.base + confirmed_after).max(earliest).min(at_last),
                Verdict::Dark(Cause::WitnessConfirmed),
            ),
            (
                Some(Word {
                    answer: WitnessAnswer::Unknown,
                    ..
                })
                | None,
                Some(closed),
            ) => {
                let alone = closed.max(self.base) + CLOSED_DARK;
                (
                    alone.max(earliest).min(deadline),
                    Verdict::Dark(Cause::ConnectionClosed),
                )
            }
            (
                Some(Word {
                    answer: WitnessAnswer::Unknown,
                    ..
                })
                | None,
                None,
            ) => (deadline, Verdict::Dark(Cause::Deadline)),
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
    cell.aired = Duration::ZERO;
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
