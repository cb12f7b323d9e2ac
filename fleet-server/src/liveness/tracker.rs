//! The table of boxes: arrivals go in, due verdicts come out. One pass over a plain array of deadlines a tick; no timer
//! per box.
//!
//! It proposes verdicts and carries them out; whether they may be spoken is [`judge`](super::judge)'s.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;
use protocol::names::Labels;

use super::beat::{Arrival, OnTime, Refused, WitnessAnswer};
use super::cell::{Cell, Learnt, State, Suspicion, Word, arrived, bounded, learn, restored, silent_for};
use super::census::{Census, Counts, GroupIx, Memberships, QUICK, RECENT};
use super::event::{Cause, Event, Transition, What};
use super::history::History;
use super::identity::{Identity, Newer};
use super::margin::Margins;
use super::record::Record;
use super::time::{Moment, Mono};
use super::{BoxIx, ConnId};

pub use super::cell::Verdict;

/// Deadlines are worked out anew once in so many beats (and after each gap): a root and a sort less on every beat.
const RECKON_EVERY: u64 = 16;

/// Nobody heard for so long, of at least [`AIR_MIN`] boxes that beat every few seconds: that is no silence of theirs.
/// One box alone that beats each second keeps it from happening.
const DEAD_AIR: Duration = Duration::from_millis(1250);
/// See [`DEAD_AIR`].
pub(super) const AIR_MIN: u32 = 4;
/// The same of at least [`AIR_FEW_MIN`] boxes, where one that is gone and two losses of another come together sooner.
const DEAD_AIR_FEW: Duration = Duration::from_millis(2000);
/// See [`DEAD_AIR_FEW`].
const AIR_FEW_MIN: u32 = 2;

/// A second dead air since a box was heard, and a third, move its deadline no further than this in all: who is heard
/// between them shows that the way is open, and a bad way or a slow pace of theirs is no excuse for ever.
const AIRS_MAX: Duration = Duration::from_secs(10);

/// All boxes.
#[derive(Debug)]
pub struct Tracker {
    margins: Margins,
    /// By [`BoxIx`]: when to look at it. What a tick reads.
    due: Vec<Mono>,
    cells: Vec<Option<Cell>>,
    /// Who is counted, by group.
    pub(super) census: Census,
    /// Judged boxes that still count as overdue, oldest first.
    recent: VecDeque<(Mono, BoxIx)>,
    duplicates: Vec<BoxIx>,
    /// When anybody who beats quickly was heard last.
    heard: Mono,
    /// Boxes whose beats are told in bulk.
    bulk: u32,
    /// A gap that began before this says nothing about the path.
    learn_from: Mono,
    /// What happened and was not yet taken.
    pub(super) events: Vec<Event>,
}

/// A verdict that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// On which box.
    pub ix: BoxIx,
    /// What.
    pub verdict: Verdict,
    /// Since when it is due.
    pub due: Mono,
}

/// One box, as shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Which.
    pub ix: BoxIx,
    /// Its state.
    pub state: Liveness,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The last beat, by the server's clock.
    pub last_seen: Option<Timestamp>,
    /// Its interval.
    pub every: Duration,
    /// How long it may be silent, by its history.
    pub dark_after: Duration,
    /// Two machines speak with its identity.
    pub duplicate: bool,
    /// Beats accepted since the server's start.
    pub beats: u64,
}

impl Tracker {
    /// An empty table. `labels` group boxes for [`storm`](super::storm).
    pub fn new(margins: Margins, labels: &[String]) -> Self {
        Self {
            margins,
            due: Vec::new(),
            cells: Vec::new(),
            census: Census::new(labels),
            recent: VecDeque::new(),
            duplicates: Vec::new(),
            heard: Mono::default(),
            bulk: 0,
            learn_from: Mono::default(),
            events: Vec::new(),
        }
    }

    /// A box joins, as remembered or unseen; or its labels change.
    pub fn add(&mut self, ix: BoxIx, labels: &Labels, memory: Option<&Record>, now: Moment) {
        let groups = self.census.memberships(labels);
        self.add_to(ix, groups, memory, now);
    }

    /// The server's own canary joins: judged like any box, and counted nowhere.
    pub fn add_aside(&mut self, ix: BoxIx, now: Moment) {
        self.add_to(ix, Memberships::ASIDE, None, now);
    }

    /// Whether the box counts among the fleet.
    pub fn is_counted(&self, ix: BoxIx) -> bool {
        self.cell(ix)
            .is_some_and(|cell| cell.groups != Memberships::ASIDE)
    }

    fn add_to(&mut self, ix: BoxIx, groups: Memberships, memory: Option<&Record>, now: Moment) {
        if let Some(cell) = self.cell(ix) {
            let (was, every, old) = (cell.counts, cell.every, cell.groups);
            self.census.change(old, (was, every), (Counts::Not, every));
            self.census.change(groups, (Counts::Not, every), (was, every));
            if let Some(cell) = self.cell_mut(ix) {
                cell.groups = groups;
            }
            self.census.leave(old);
            return;
        }
        if self.cells.len() <= ix.at() {
            self.cells.resize(ix.at() + 1, None);
            self.due.resize(ix.at() + 1, Mono::NEVER);
        }
        let every = memory.map_or(Duration::from_secs(1), |memory| bounded(memory.every_ms));
        let history = memory.map(|memory| memory.history).filter(History::is_sound);
        let history = history.unwrap_or_default();
        self.cells[ix.at()] = Some(Cell {
            state: memory.map_or(State::Unseen, |memory| restored(memory, now)),
            since: memory.and_then(|memory| memory.since),
            base: now.mono,
            last: None,
            last_seen: memory.and_then(|memory| memory.last_seen),
            every,
            deadlines: self.margins.deadlines(every, &history),
            identity: memory
                .and_then(|memory| memory.last)
                .map_or_else(Identity::default, |(boot, session, seq)| {
                    Identity::restored(boot, session, seq)
                }),
            history,
            conn: None,
            beats: 0,
            on_conn: 0,
            // The canary goes dark on purpose: judged by itself, like a box that may be gone.
            excused: groups == Memberships::ASIDE,
            groups,
            counts: Counts::Not,
            aired: Duration::ZERO,
            in_bulk: false,
        });
        self.settle(ix);
        // Gone long before this start: not gone together with anybody now.
        if matches!(self.state(ix), Some(Liveness::Dark | Liveness::Silent)) {
            self.recount(ix, Counts::Not);
        }
    }

    /// Two machines spoke with the box's identity before the start.
    pub fn restore_duplicate(&mut self, ix: BoxIx, now: Mono) {
        if let Some(cell) = self.cell_mut(ix) {
            cell.identity.restore_duplicate(now);
            self.duplicates.push(ix);
        }
    }

    /// Nothing is expected of the box any more.
    pub fn remove(&mut self, ix: BoxIx) {
        self.recount(ix, Counts::Not);
        if let Some(cell) = self.cells.get_mut(ix.at()).and_then(Option::take) {
            self.census.leave(cell.groups);
            self.due[ix.at()] = Mono::NEVER;
        }
        self.duplicates.retain(|duplicate| *duplicate != ix);
    }

    /// A beat arrived.
    pub fn beat(&mut self, ix: BoxIx, now: Moment, beat: &Arrival) -> Result<(), Refused> {
        let margins = self.margins;
        let learn_from = self.learn_from;
        let Some(cell) = self.cells.get_mut(ix.at()).and_then(Option::as_mut) else {
            return Err(Refused::Removed);
        };
        let silent = now.mono.since(cell.base) >= cell.deadlines.suspect_after;
        let known_duplicate = cell.identity.is_duplicate();
        let heard = cell.identity.hear(now.mono, beat, silent);
        if !known_duplicate && cell.identity.is_duplicate() {
            self.duplicates.push(ix);
            self.events.push(Event::Duplicate { ix, at: now });
        }
        let newer = heard?;
        if beat.every <= QUICK && cell.groups != Memberships::ASIDE {
            self.after_dead_air(now.mono);
        }
        let Some(cell) = self.cells.get_mut(ix.at()).and_then(Option::as_mut) else {
            return Err(Refused::Removed);
        };
        let learn_from = learn_from.max(self.learn_from);
        let learnt = learn(cell, now.mono, newer, learn_from, &margins);
        if learnt == Learnt::Gap || cell.every != beat.every || beat.seq.is_multiple_of(RECKON_EVERY) {
            let before = (cell.counts, cell.every);
            cell.every = beat.every;
            cell.deadlines = margins.deadlines(cell.every, &cell.history);
            self.census.change(cell.groups, before, (cell.counts, cell.every));
        }
        arrived(cell, now, beat);
        self.arrived_event(ix, now, newer, beat.goodbye);
        Ok(())
    }

    /// The box beats on time from now on, and those beats are told together by [`beats_came`](Self::beats_came): until
    /// then it is never overdue.
    pub(super) fn in_bulk(&mut self, ix: BoxIx) {
        if let Some(cell) = self.cell_mut(ix)
            && !std::mem::replace(&mut cell.in_bulk, true)
        {
            self.bulk += 1;
            self.settle(ix);
        }
    }

    /// Beats since [`in_bulk`](Self::in_bulk); one by one again from now on.
    pub(super) fn beats_came(&mut self, ix: BoxIx, beats: &OnTime) {
        let (margins, learn_from) = (self.margins, self.learn_from);
        let Some(cell) = self.cells.get_mut(ix.at()).and_then(Option::as_mut) else {
            return;
        };
        if !std::mem::replace(&mut cell.in_bulk, false) {
            return;
        }
        self.bulk -= 1;
        if beats.steady.count > 0 {
            self.heard = self.heard.max(beats.last.mono);
            if cell.last.is_some_and(|last| last >= learn_from) {
                cell.history.learn_steady(&beats.steady);
            }
            cell.identity.heard_up_to(beats.seq);
            cell.deadlines = margins.deadlines(cell.every, &cell.history);
            cell.base = cell.base.max(beats.last.mono);
            cell.last = Some(beats.last.mono);
            cell.last_seen = Some(beats.last.wall);
            cell.beats += u64::from(beats.steady.count);
            cell.on_conn = 2;
        }
        self.settle(ix);
    }

    /// When the next deadline passes or a judged box ceases to count, if nothing arrives.
    pub(super) fn next_look(&self) -> Mono {
        if !self.events.is_empty() {
            return Mono::default();
        }
        let due = self.due.iter().copied().min().unwrap_or(Mono::NEVER);
        let aged = self.recent.front().map_or(Mono::NEVER, |(until, _)| *until);
        if self.duplicates.is_empty() {
            due.min(aged)
        } else {
            Mono::default()
        }
    }

    /// The peer closed `conn`. Believed only of a connection that was kept alive, and was the last to carry a beat.
    pub fn closed(&mut self, ix: BoxIx, conn: ConnId, now: Moment) {
        let Some(cell) = self.cell_mut(ix) else { return };
        if cell.conn != Some(conn) || cell.on_conn < 2 || cell.every > QUICK || cell.state != State::Live {
            return;
        }
        cell.state = State::Suspect(Suspicion {
            since: now.mono,
            closed: Some(now.mono),
            witness: None,
        });
        self.changed(ix, now, Liveness::Live, What::Suspect { closed: true });
    }

    /// A witness answered a question of `asked`. Counts only for the suspicion that it was asked for.
    pub fn witness(&mut self, ix: BoxIx, asked: Mono, now: Mono, answer: WitnessAnswer) {
        if let Some(cell) = self.cell_mut(ix)
            && let State::Suspect(suspicion) = &mut cell.state
            && asked >= suspicion.since
        {
            if suspicion.witness.is_none_or(|word| word.answer != answer) {
                suspicion.witness = Some(Word { answer, since: now });
            }
            self.settle(ix);
        }
    }

    /// Whether a box other than the silent ones was heard since `due`.
    pub(super) fn heard_since(&self, due: Mono, now: Mono) -> bool {
        self.heard >= due || (self.bulk > 0 && self.heard_in_bulk(due, now))
    }

    /// Whether nobody at all has been heard for longer than a fleet is silent.
    pub(super) fn is_dead_air(&self, now: Mono) -> bool {
        self.bulk == 0 && now.since(self.heard) >= DEAD_AIR
    }

    /// Moves every deadline by the time in which nobody at all was heard, if that was long. `now`: a beat arrives.
    fn after_dead_air(&mut self, now: Mono) {
        let air = now.since(self.heard);
        if air >= DEAD_AIR && self.bulk == 0 && self.heard > Mono::default() {
            let quick = self.census.quick(GroupIx::FLEET).expected;
            if quick >= AIR_MIN || (quick >= AIR_FEW_MIN && air >= DEAD_AIR_FEW) {
                self.aired(air, now);
            }
        }
        self.heard = self.heard.max(now);
    }

    fn aired(&mut self, air: Duration, now: Mono) {
        self.learn_from = now;
        for (cell, due) in self.cells.iter_mut().zip(&mut self.due) {
            if let Some(cell) = cell
                && matches!(cell.state, State::Live | State::Suspect(_))
            {
                let by = if cell.aired.is_zero() {
                    air
                } else {
                    air.min(AIRS_MAX.saturating_sub(cell.aired))
                };
                cell.aired += air;
                cell.base = (cell.base + by).min(now).max(cell.base);
                *due = cell.due();
            }
        }
    }

    fn heard_in_bulk(&self, due: Mono, now: Mono) -> bool {
        self.entries().filter(|(_, cell)| cell.in_bulk).any(|(_, cell)| {
            let every = cell.every.as_micros().max(1) as u64;
            let last = cell.last.unwrap_or(cell.base);
            let beats = now.since(last).as_micros() as u64 / every;
            last + Duration::from_micros(beats * every) >= due
        })
    }

    /// Looks at all deadlines: live boxes that are overdue become suspect; due verdicts are proposed, and again each
    /// time until they are carried out or the box is heard.
    pub fn sweep(&mut self, now: Moment) -> Vec<Proposal> {
        self.age(now);
        let mut proposals = Vec::new();
        for at in 0..self.due.len() {
            if self.due[at] <= now.mono {
                proposals.extend(self.look(BoxIx(at as u32), now));
            }
        }
        proposals
    }

    /// Carries a verdict out.
    pub fn carry_out(&mut self, ix: BoxIx, verdict: Verdict, now: Moment) {
        let Some(cell) = self.cell_mut(ix) else { return };
        let from = cell.liveness();
        let silent_for = silent_for(cell, now);
        let (state, what) = match verdict {
            Verdict::Dark(cause) => (State::Dark, What::Dark { cause, silent_for }),
            Verdict::Silent => (State::Silent, What::Silent { silent_for }),
            Verdict::Overdue(why) => (State::Dark, What::Overdue { why, silent_for }),
        };
        cell.state = state;
        self.changed(ix, now, from, what);
        self.recent.push_back((now.mono + RECENT, ix));
    }

    /// The server was late by `excess`: every deadline moves.
    pub fn shift(&mut self, excess: Duration, now: Mono) {
        self.rebase(|base| (base + excess).min(now), now);
    }

    /// The server hears nobody: gaps that began before `now` are its own.
    pub fn own_gap(&mut self, now: Mono) {
        self.learn_from = now;
    }

    /// Every box gets one full deadline, from now on.
    pub fn fresh(&mut self, now: Mono) {
        self.rebase(|_| now, now);
    }

    /// The box may be gone from now on: it is judged by itself, and counts for nobody else's verdict.
    pub fn excuse(&mut self, ix: BoxIx) {
        if let Some(cell) = self.cell_mut(ix) {
            cell.excused = true;
            self.recount(ix, Counts::Not);
        }
    }

    /// Whether it may be gone.
    pub fn is_excused(&self, ix: BoxIx) -> bool {
        self.cell(ix).is_some_and(|cell| cell.excused)
    }

    /// The box is expected again: it has one full deadline from now on. One that is gone already stays so.
    pub fn fresh_box(&mut self, ix: BoxIx, now: Mono) {
        let Some(cell) = self.cell_mut(ix) else { return };
        cell.excused = cell.groups == Memberships::ASIDE;
        // The gap over which it was not expected says nothing about its path.
        cell.last = None;
        match &mut cell.state {
            State::Live | State::Suspect(_) => cell.base = cell.base.max(now),
            State::Away { until, .. } => *until = (*until).max(now + cell.deadlines.dark_after),
            State::Unseen => {}
            // Gone long before: not gone together with anybody now.
            State::Dark | State::Silent => return,
        }
        self.settle(ix);
    }

    /// The boxes of `group` that are suspect.
    pub fn suspects_of(&self, group: GroupIx) -> Vec<BoxIx> {
        let suspect = |cell: &&Cell| {
            matches!(cell.state, State::Suspect(_)) && !cell.excused && cell.groups.contains(group)
        };
        self.entries()
            .filter(|(_, cell)| suspect(cell))
            .map(|(ix, _)| ix)
            .collect()
    }

    /// Its state; `None` if removed.
    pub fn state(&self, ix: BoxIx) -> Option<Liveness> {
        self.cell(ix).map(Cell::liveness)
    }

    /// The groups of a box, narrow ones first.
    pub fn groups_of(&self, ix: BoxIx) -> impl Iterator<Item = GroupIx> + use<> {
        let groups = self.cell(ix).map(|cell| cell.groups);
        groups
            .into_iter()
            .flat_map(|groups| groups.iter().collect::<Vec<_>>())
    }

    /// The last beat, by the server's clock.
    pub fn last_seen(&self, ix: BoxIx) -> Option<Timestamp> {
        self.cell(ix)?.last_seen
    }

    /// One box, as shown.
    pub fn row(&self, ix: BoxIx) -> Option<Row> {
        self.cell(ix).map(|cell| row(ix, cell))
    }

    /// All boxes, as shown.
    pub fn rows(&self) -> Vec<Row> {
        self.entries().map(|(ix, cell)| row(ix, cell)).collect()
    }

    /// What to remember of a box.
    pub fn memory(&self, ix: BoxIx, now: Moment) -> Option<Record> {
        let cell = self.cell(ix)?;
        Some(Record {
            state: cell.liveness(),
            since: cell.since,
            last_seen: cell.last_seen,
            every_ms: cell.every.as_millis() as u64,
            last: cell.identity.last(),
            away: match cell.state {
                State::Away { why, until } => Some((why, now.wall_of(until))),
                State::Unseen | State::Live | State::Suspect(_) | State::Dark | State::Silent => None,
            },
            history: cell.history,
        })
    }

    fn look(&mut self, ix: BoxIx, now: Moment) -> Option<Proposal> {
        let cell = self.cell_mut(ix)?;
        let due = cell.due();
        match cell.state {
            State::Live => {
                cell.state = State::Suspect(Suspicion {
                    since: now.mono,
                    closed: None,
                    witness: None,
                });
                self.changed(ix, now, Liveness::Live, What::Suspect { closed: false });
                None
            }
            State::Suspect(suspicion) => Some(Proposal {
                ix,
                verdict: cell.verdict_at(&suspicion).1,
                due,
            }),
            State::Away { why, .. } => Some(Proposal {
                ix,
                verdict: Verdict::Overdue(why),
                due,
            }),
            State::Unseen | State::Dark | State::Silent => None,
        }
    }

    /// What was judged long ago does not count any more; a duplicate that went quiet is over.
    fn age(&mut self, now: Moment) {
        while let Some((until, ix)) = self.recent.front().copied()
            && until <= now.mono
        {
            self.recent.pop_front();
            if matches!(self.state(ix), Some(Liveness::Dark | Liveness::Silent)) {
                self.recount(ix, Counts::Not);
            }
        }
        let mut duplicates = std::mem::take(&mut self.duplicates);
        duplicates.retain(|&ix| {
            let over = self.cell_mut(ix).is_some_and(|cell| {
                let every = cell.every;
                cell.identity.over(now.mono, every)
            });
            if over {
                self.events.push(Event::DuplicateOver { ix, at: now });
            }
            !over
        });
        self.duplicates = duplicates;
    }

    fn arrived_event(
        &mut self,
        ix: BoxIx,
        now: Moment,
        newer: Newer,
        goodbye: Option<(GoodbyeWhy, Duration)>,
    ) {
        let Some(cell) = self.cell_mut(ix) else { return };
        let from = cell.liveness();
        let after = silent_for(cell, now);
        let was = cell.state;
        match goodbye {
            Some((why, back_within)) => {
                let until = now.mono + back_within;
                cell.state = State::Away { why, until };
                if matches!(was, State::Away { .. }) {
                    self.settle(ix);
                } else {
                    self.changed(ix, now, from, What::Away { why, back_within });
                }
            }
            None if was == State::Live => self.settle(ix),
            None => {
                cell.state = State::Live;
                let what = What::Live {
                    after,
                    rebooted: newer.rebooted,
                    first: from == Liveness::Unseen,
                };
                self.changed(ix, now, from, what);
            }
        }
        if let Some(cell) = self.cell_mut(ix) {
            cell.last = Some(now.mono);
            cell.last_seen = Some(now.wall);
        }
    }

    fn changed(&mut self, ix: BoxIx, now: Moment, from: Liveness, what: What) {
        let last_seen = self.last_seen(ix);
        if let Some(cell) = self.cell_mut(ix) {
            cell.since = Some(now.wall);
        }
        self.settle(ix);
        self.events.push(Event::Box(Transition {
            ix,
            at: now,
            from,
            what,
            last_seen,
        }));
    }

    /// After a change of state: when to look again, and how it counts.
    fn settle(&mut self, ix: BoxIx) {
        let Some(cell) = self.cell(ix) else { return };
        let (due, counts) = (cell.due(), cell.counts_now());
        self.due[ix.at()] = due;
        self.recount(ix, counts);
    }

    fn recount(&mut self, ix: BoxIx, counts: Counts) {
        if let Some(cell) = self.cells.get_mut(ix.at()).and_then(Option::as_mut) {
            let every = cell.every;
            self.census
                .change(cell.groups, (cell.counts, every), (counts, every));
            cell.counts = counts;
        }
    }

    fn rebase(&mut self, base: impl Fn(Mono) -> Mono, now: Mono) {
        self.learn_from = now;
        for (cell, due) in self.cells.iter_mut().zip(&mut self.due) {
            if let Some(cell) = cell
                && matches!(cell.state, State::Live | State::Suspect(_))
            {
                cell.base = base(cell.base).max(cell.base);
                *due = cell.due();
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (BoxIx, &Cell)> {
        self.cells
            .iter()
            .zip(0_u32..)
            .filter_map(|(cell, at)| Some((BoxIx(at), cell.as_ref()?)))
    }

    fn cell(&self, ix: BoxIx) -> Option<&Cell> {
        self.cells.get(ix.at())?.as_ref()
    }

    fn cell_mut(&mut self, ix: BoxIx) -> Option<&mut Cell> {
        self.cells.get_mut(ix.at())?.as_mut()
    }
}

fn row(ix: BoxIx, cell: &Cell) -> Row {
    Row {
        ix,
        state: cell.liveness(),
        since: cell.since,
        last_seen: cell.last_seen,
        every: cell.every,
        dark_after: cell.deadlines.dark_after,
        duplicate: cell.identity.is_duplicate(),
        beats: cell.beats,
    }
}

/// The cause that members of a storm are dark by.
pub(super) fn with_group(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Dark(_) => Verdict::Dark(Cause::Group),
        Verdict::Silent => Verdict::Silent,
        Verdict::Overdue(why) => Verdict::Overdue(why),
    }
}
