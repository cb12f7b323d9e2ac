//! Is it all of them? Boxes of one group that go together are one incident, not many.
//!
//! Evidence rules, asked when a box's verdict is due, the narrowest group first:
//! - The group is in a **storm** already: the box joins it.
//! - **[`GROUP_SHARE`]** of a labelled group overdue (at least [`GROUP_MIN`]), or [`FLEET_SHARE`] of the whole fleet (at
//!   least [`FLEET_MIN`]): a storm begins with everybody in it who is overdue now.
//! - Fewer, but others of the group ([`HOLD_MIN`]) or a noticeable part of the fleet are overdue as well: the verdict is
//!   held for [`HOLD`], so that the group can show. A box that goes alone is never held.
//! - A storm **ends** when no more than [`STRAGGLERS`] of it (by share and by number) have been missing for
//!   [`OVER_AFTER`]; those are told of one by one. So one storm never ends in a burst.

use std::collections::BTreeSet;
use std::time::Duration;

use super::BoxIx;
use super::census::{Count, GroupIx};
use super::event::{Event, Group};
use super::time::{Moment, Mono};
use super::tracker::{Proposal, Tracker, Verdict, with_group};
use protocol::api::Liveness;

/// Share of a labelled group.
const GROUP_SHARE: f64 = 0.5;
/// Boxes of a labelled group.
const GROUP_MIN: u32 = 3;
/// Share of the whole fleet.
const FLEET_SHARE: f64 = 0.1;
/// Boxes of the whole fleet.
const FLEET_MIN: u32 = 10;
/// Overdue boxes of a group, the proposed one among them, that make a verdict wait.
const HOLD_MIN: u32 = 2;
/// How long it waits at most.
const HOLD: Duration = Duration::from_secs(1);
/// Missing members that end a storm, by share of its largest extent and by number.
const STRAGGLERS: (f64, usize) = (0.4, 10);
/// … for so long.
const OVER_AFTER: Duration = Duration::from_secs(10);
/// Members that come back are told of this often.
const CHANGES_EVERY: Duration = Duration::from_secs(5);

/// The storms under way.
#[derive(Debug, Clone, Default)]
pub struct Storms {
    open: Vec<Storm>,
}

#[derive(Debug, Clone)]
struct Storm {
    group: GroupIx,
    members: BTreeSet<BoxIx>,
    peak: usize,
    few_since: Option<Mono>,
    told: Mono,
    changed: bool,
}

impl Storms {
    /// A storm that was under way when the server ended.
    pub fn restore(&mut self, group: GroupIx, members: BTreeSet<BoxIx>, peak: usize, now: Mono) {
        self.open.push(Storm {
            group,
            peak: peak.max(members.len()),
            members,
            few_since: None,
            told: now,
            changed: false,
        });
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Carries each due verdict out: alone, with its group, or not yet.
    pub fn judge(&mut self, tracker: &mut Tracker, due: Vec<Proposal>, now: Moment) {
        for proposal in due {
            // Taken along by a storm that an earlier one of these began.
            if !matches!(
                tracker.state(proposal.ix),
                Some(Liveness::Suspect | Liveness::Away)
            ) {
                continue;
            }
            if tracker.is_excused(proposal.ix) {
                tracker.carry_out(proposal.ix, proposal.verdict, now);
                continue;
            }
            match proposal.verdict {
                Verdict::Overdue(_) => tracker.carry_out(proposal.ix, proposal.verdict, now),
                Verdict::Dark(_) | Verdict::Silent => self.judge_one(tracker, proposal, now),
            }
        }
        self.follow(tracker, now);
    }

    /// A fleet-wide storm of everybody who is suspect: what a blindness turns out to have been.
    pub fn all_gone(&mut self, tracker: &mut Tracker, now: Moment) {
        self.begin(tracker, GroupIx::FLEET, now);
    }

    fn judge_one(&mut self, tracker: &mut Tracker, proposal: Proposal, now: Moment) {
        let groups = tracker.groups_of(proposal.ix);
        let mut hold = false;
        for group in groups {
            if let Some(storm) = self.open.iter_mut().find(|storm| storm.group == group) {
                storm.join(tracker, proposal, now);
                return;
            }
            let count = tracker.census.all(group);
            if together(group, count) {
                self.begin(tracker, group, now);
                return;
            }
            hold |= perhaps_together(group, count);
        }
        if !hold || now.mono.since(proposal.due) >= HOLD {
            tracker.carry_out(proposal.ix, proposal.verdict, now);
        }
    }

    fn begin(&mut self, tracker: &mut Tracker, group: GroupIx, now: Moment) {
        let members = tracker.suspects_of(group);
        let of = tracker.census.group(group).clone();
        let group = tracker.census.hold(of);
        let expected = tracker.census.all(group).expected;
        tracker.events.push(Event::StormOpened {
            group: tracker.census.group(group).clone(),
            members: members.clone(),
            expected,
            at: now,
        });
        for ix in &members {
            tracker.carry_out(*ix, Verdict::Dark(super::event::Cause::Group), now);
        }
        self.open.push(Storm {
            group,
            peak: members.len(),
            members: members.into_iter().collect(),
            few_since: None,
            told: now.mono,
            changed: false,
        });
    }

    /// Members that came back leave; a storm with few left ends.
    fn follow(&mut self, tracker: &mut Tracker, now: Moment) {
        self.open.retain_mut(|storm| {
            let before = storm.members.len();
            storm
                .members
                .retain(|&ix| matches!(tracker.state(ix), Some(Liveness::Dark | Liveness::Silent)));
            storm.changed |= storm.members.len() != before;
            let over = storm.over(now.mono);
            let group = || tracker.census.group(storm.group).clone();
            if over {
                let event = Event::StormOver {
                    group: group(),
                    stragglers: storm.members.iter().copied().collect(),
                    at: now,
                };
                tracker.events.push(event);
                tracker.census.release(storm.group);
            } else if storm.changed && now.mono.since(storm.told) >= CHANGES_EVERY {
                let event = storm.change(group(), now);
                tracker.events.push(event);
            }
            !over
        });
    }
}

impl Storm {
    fn join(&mut self, tracker: &mut Tracker, proposal: Proposal, now: Moment) {
        self.members.insert(proposal.ix);
        self.peak = self.peak.max(self.members.len());
        let event = self.change(tracker.census.group(self.group).clone(), now);
        tracker.events.push(event);
        tracker.carry_out(proposal.ix, with_group(proposal.verdict), now);
    }

    fn change(&mut self, group: Group, now: Moment) -> Event {
        self.changed = false;
        self.told = now.mono;
        Event::StormChanged {
            group,
            members: self.members.iter().copied().collect(),
            at: now,
        }
    }

    fn over(&mut self, now: Mono) -> bool {
        let (share, number) = STRAGGLERS;
        let few = ((self.peak as f64 * share) as usize).min(number);
        if self.members.len() > few {
            self.few_since = None;
            return false;
        }
        let since = *self.few_since.get_or_insert(now);
        self.members.is_empty() || now.since(since) >= OVER_AFTER
    }
}

fn together(group: GroupIx, count: Count) -> bool {
    let (share, min) = if group == GroupIx::FLEET {
        (FLEET_SHARE, FLEET_MIN)
    } else {
        (GROUP_SHARE, GROUP_MIN)
    };
    count.overdue >= min && f64::from(count.overdue) >= share * f64::from(count.expected)
}

fn perhaps_together(group: GroupIx, count: Count) -> bool {
    if group == GroupIx::FLEET {
        // In a large fleet somebody is always suspect: half of a storm is noticeable.
        let half = f64::from(count.expected) * FLEET_SHARE / 2.0;
        count.overdue >= FLEET_MIN / 2 && f64::from(count.overdue) >= half
    } else {
        count.overdue >= HOLD_MIN
    }
}
