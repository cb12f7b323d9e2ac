//! Everything that must be asked before a box is called dark, in the order in which it must be asked: was I away? do I
//! still hear? did they go together? and only then: this box alone.

use std::collections::BTreeSet;

use protocol::api::Liveness;
use protocol::names::Labels;

use super::beat::{Arrival, OnTime, Refused, WitnessAnswer};
use super::census::{Count, GroupIx};
use super::event::{BlindWhy, Cause, Event, Group};
use super::margin::Margins;
use super::record::Record;
use super::self_doubt::{FLEET_MIN, Pause, SelfDoubt, Sight};
use super::storm::Storms;
use super::time::{Moment, Mono};
use super::tracker::{AIR_MIN, Proposal, Row, Tracker, Verdict};
use super::{BoxIx, ConnId};
use crate::settings::LivenessSettings;

/// The judge of all boxes. Arrivals in any order between ticks; one [`tick`](Judge::tick) every
/// [`TICK`](super::self_doubt::TICK); what happened comes out of [`take_events`](Judge::take_events).
#[derive(Debug)]
pub struct Judge {
    tracker: Tracker,
    doubt: SelfDoubt,
    storms: Storms,
}

/// A storm as it was when the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenStorm {
    /// Which group.
    pub group: Group,
    /// Who is gone.
    pub members: BTreeSet<BoxIx>,
    /// How many were at most.
    pub peak: usize,
}

impl Judge {
    /// At the server's start. `labels`: by which boxes are grouped. `blind`: it was so when it ended.
    pub fn new(settings: &LivenessSettings, labels: &[String], now: Mono, blind: bool) -> Self {
        let full_deadline = settings.warm_up.max(settings.dark_after);
        Self {
            tracker: Tracker::new(Margins::new(settings), labels),
            doubt: SelfDoubt::new(now, full_deadline, blind),
            storms: Storms::default(),
        }
    }

    /// The server hears from now on. What its own start took (a large store, certificates) is nobody's silence: the full
    /// deadline that every box gets begins here.
    pub fn begin(&mut self, now: Mono) {
        self.tracker.fresh(now);
        self.doubt.warm_up(now);
    }

    /// A box joins, as remembered or unseen; or its labels change.
    pub fn add(&mut self, ix: BoxIx, labels: &Labels, memory: Option<&Record>, now: Moment) {
        self.tracker.add(ix, labels, memory, now);
    }

    /// The server's own canary joins: judged like any box, but in no group and in no count.
    pub fn add_aside(&mut self, ix: BoxIx, now: Moment) {
        self.tracker.add_aside(ix, now);
    }

    /// A storm goes on from before the start.
    pub fn restore_storm(&mut self, storm: OpenStorm, now: Mono) {
        let group = self.tracker.census.hold(storm.group);
        self.storms.restore(group, storm.members, storm.peak, now);
    }

    /// Two machines spoke with the box's identity before the start.
    pub fn restore_duplicate(&mut self, ix: BoxIx, now: Mono) {
        self.tracker.restore_duplicate(ix, now);
    }

    /// Nothing is expected of the box any more.
    pub fn remove(&mut self, ix: BoxIx) {
        self.tracker.remove(ix);
    }

    /// A beat arrived.
    pub fn beat(&mut self, ix: BoxIx, now: Moment, beat: &Arrival) -> Result<(), Refused> {
        self.tracker.beat(ix, now, beat)?;
        // The canary beats from inside: that it is heard says nothing of the server's own way.
        if self.tracker.is_counted(ix) {
            self.doubt.own.heard(now.mono);
        }
        Ok(())
    }

    /// The addresses declared for the server itself are asked.
    pub fn own_asked(&mut self, now: Mono) {
        self.doubt.own.asked(now);
    }

    /// Of the addresses declared for the server itself one answered the question of `asked`, or none.
    pub fn own_answered(&mut self, asked: Mono, by_anybody: bool) {
        self.doubt.own.answered(asked, by_anybody);
    }

    /// Whether one of them has ever answered in this process.
    pub fn own_proven(&self) -> bool {
        self.doubt.own.proven()
    }

    /// A silent box's host has stopped answering its witnesses as well: it is dark. `false`: nobody is judged now (a
    /// server that is cut off reaches no host), so the witnesses must say so again.
    pub fn host_lost(&mut self, ix: BoxIx, now: Moment) -> bool {
        let quick = self.tracker.census.quick(GroupIx::FLEET);
        let deaf = quick.expected >= AIR_MIN && self.tracker.is_dead_air(now.mono);
        let doubtful = deaf || !self.ready(now.mono);
        if !doubtful && self.tracker.state(ix) == Some(Liveness::Silent) {
            self.tracker.carry_out(ix, Verdict::Dark(Cause::HostLost), now);
        }
        !doubtful
    }

    /// Whether it is to be asked whether the server's own way out is open: only a fleet too small to collapse is judged by
    /// that, and others' machines are not asked each second for nothing.
    pub fn doubts_its_way(&self) -> bool {
        let all = self.tracker.census.all(GroupIx::FLEET);
        all.expected < FLEET_MIN && (all.overdue > 0 || self.blind())
    }

    /// Boxes that are overdue, or were until moments ago.
    pub fn overdue(&self) -> u32 {
        self.tracker.census.all(GroupIx::FLEET).overdue
    }

    /// For who simulates years: this live box beats on time from now on, each beat within its suspicion's slack, and is
    /// not told of until [`beats_came`](Self::beats_came).
    pub fn in_bulk(&mut self, ix: BoxIx) {
        self.tracker.in_bulk(ix);
    }

    /// The beats of a box since [`in_bulk`](Self::in_bulk), all at once; one by one again from now on.
    pub fn beats_came(&mut self, ix: BoxIx, beats: &OnTime) {
        self.tracker.beats_came(ix, beats);
    }

    /// For who simulates years: ticks came on time up to `until`. Only where [`next_look`](Self::next_look) said that
    /// none of them would do anything.
    pub fn ticks_came(&mut self, until: Mono) {
        self.doubt.ticks_came(until);
    }

    /// The first moment after `now` at which a [`tick`](Self::tick) may do something, if nothing arrives before.
    pub fn next_look(&self, now: Mono) -> Mono {
        let busy = !self.doubt.ready(now) || !self.storms.is_empty() || self.storms.is_gathering();
        if busy { now } else { self.tracker.next_look() }
    }

    /// The peer closed a connection that beats arrived on.
    pub fn closed(&mut self, ix: BoxIx, conn: ConnId, now: Moment) {
        self.tracker.closed(ix, conn, now);
    }

    /// A witness answered a question of `asked`.
    pub fn witness(&mut self, ix: BoxIx, asked: Mono, now: Mono, answer: WitnessAnswer) {
        self.tracker.witness(ix, asked, now, answer);
    }

    /// The box may be gone from now on (maintenance): its absence is no evidence against this server or its group, and it
    /// joins no storm.
    pub fn excuse(&mut self, ix: BoxIx) {
        self.tracker.excuse(ix);
    }

    /// The box is expected again: one full deadline from now on.
    pub fn fresh_box(&mut self, ix: BoxIx, now: Mono) {
        self.tracker.fresh_box(ix, now);
    }

    /// Boxes that could be gone until now, and are gone still. Answers with those that a storm tells of from now on; the
    /// others are told of one by one.
    pub fn still_gone(&mut self, gone: &[BoxIx], now: Moment) -> Vec<BoxIx> {
        self.storms.still_gone(&mut self.tracker, gone, now)
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) {
        match self.doubt.pause(now.mono) {
            Pause::None => {}
            Pause::Short(excess) => self.tracker.shift(excess, now.mono),
            Pause::Long(_) => self.tracker.fresh(now.mono),
        }
        self.storms.note_returns(&self.tracker, now.mono);
        let mut due = self.tracker.sweep(now);
        if self.doubt.warming(now.mono) {
            return;
        }
        self.hear_first(&mut due, now.mono);
        let somebody = due.iter().any(|proposal| self.tracker.is_counted(proposal.ix));
        match self.doubt.look(now.mono, &self.tracker.census, somebody) {
            Sight::Clear => self.storms.judge(&mut self.tracker, &due, now),
            Sight::Blind => self.tracker.own_gap(now.mono),
            Sight::BlindNow(count) => self.doubted(BlindWhy::Collapse, count, now),
            Sight::CutOffNow(count) => self.doubted(BlindWhy::NoWayOut, count, now),
            Sight::OverloadedNow => {
                let count = self.tracker.census.all(GroupIx::FLEET);
                self.doubted(BlindWhy::Overload, count, now);
            }
            Sight::Rested => self.tracker.fresh(now.mono),
            Sight::Recovered(after) => {
                self.tracker.fresh(now.mono);
                self.tracker.events.push(Event::SeesAgain { after, at: now });
            }
            Sight::Settled(after) => {
                self.tracker.events.push(Event::SeesAgain { after, at: now });
                self.storms.all_gone(&mut self.tracker, now);
            }
        }
    }

    /// A verdict waits until somebody else was heard after it fell due: a server that hears nobody at that moment may be
    /// what is silent. Where nobody (or hardly anybody) beats, there is nobody to wait for.
    fn hear_first(&self, due: &mut Vec<Proposal>, now: Mono) {
        let quick = self.tracker.census.quick(GroupIx::FLEET);
        if quick.expected >= AIR_MIN && quick.expected > quick.overdue {
            due.retain(|proposal| self.tracker.heard_since(proposal.due, now));
        }
    }

    fn doubted(&mut self, why: BlindWhy, count: Count, now: Moment) {
        self.tracker.events.push(Event::Blind {
            why,
            overdue: count.overdue,
            expected: count.expected,
            at: now,
        });
    }

    /// What happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.tracker.events)
    }

    /// Whether it can judge: neither warming up nor blind.
    pub fn ready(&self, now: Mono) -> bool {
        self.doubt.ready(now)
    }

    /// Whether the server may be blind.
    pub fn blind(&self) -> bool {
        self.doubt.blind()
    }

    /// Whether the server does not get round to its work.
    pub fn overloaded(&self) -> bool {
        self.doubt.overloaded()
    }

    /// The server's own pauses so far.
    pub fn pauses(&self) -> u64 {
        self.doubt.pauses()
    }

    /// One box, as shown.
    pub fn row(&self, ix: BoxIx) -> Option<Row> {
        self.tracker.row(ix)
    }

    /// All boxes, as shown.
    pub fn rows(&self) -> Vec<Row> {
        self.tracker.rows()
    }

    /// What to remember of a box.
    pub fn memory(&self, ix: BoxIx, now: Moment) -> Option<Record> {
        self.tracker.memory(ix, now)
    }
}

#[cfg(test)]
#[path = "judge_tests/mod.rs"]
mod tests;
