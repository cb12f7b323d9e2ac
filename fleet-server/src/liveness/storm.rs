//! Is it all of them? Boxes of one group that go together are one incident, not many.
//!
//! Evidence rules, asked when a box's verdict is due:
//! - A group of the box's is in a **storm** already: the box joins it. (A storm over a small part of its group, or over
//!   the fleet, takes nobody in any more when nobody has joined for [`FRESH`].)
//! - **Together**: [`MOST`] of a labelled group overdue (at least [`GROUP_MIN`]), or a [`PART`] of it or of the whole
//!   fleet (at least [`PART_MIN`]). Of several such groups that one which explains it best: the widest that is gone as
//!   a whole ([`FULL`]), else one that holds half of all who are overdue, else the fleet.
//! - A storm speaks only of boxes whose own verdict is due: it **gathers** for at most [`GATHER`] until those of the
//!   others that do not come back are due as well, and whoever is due later joins.
//! - Fewer, but others of the group ([`HOLD_MIN`]) or a noticeable part of the fleet are overdue as well: the verdict is
//!   held for [`HOLD`], so that the group can show. A box that goes alone is never held.
//! - **Everybody comes back at once** ([`rush`](super::rush)): servers and
//!   paths are crowded then, by handshakes and by refusals. Verdicts in that group are held for up to [`RUSH_HOLD`].
//! - **Too many** one by one, or too many groups ([`pace`](super::pace)): the rest joins one storm over the fleet.
//! - A storm **ebbs** when few of it ([`STRAGGLERS`], or [`CALM`] of the group, or a [`HANDFUL`] for long) have been
//!   missing for its time; those are told of one by one, slowly, and only then it is over. So at every moment a dark box is told of by an incident of
//!   its own or by a storm's.

use std::collections::BTreeSet;
use std::time::Duration;

use super::BoxIx;
use super::census::{Count, GroupIx};
use super::event::{Cause, Event, Group, StormWhy};
use super::pace::{ALONE, Pace};
use super::rush::Rush;
use super::time::{Moment, Mono};
use super::tracker::{Proposal, Tracker, Verdict, with_group};
use protocol::api::Liveness;

/// Share of a labelled group …
const MOST: f64 = 0.5;
/// … and boxes of it.
const GROUP_MIN: u32 = 3;
/// Share of a large group, or of the fleet …
const PART: f64 = 0.1;
/// … and boxes of it.
const PART_MIN: u32 = 10;
/// Share that is a group as a whole: some are always in maintenance, or dark already.
const FULL: f64 = 0.9;
/// How long a storm waits at most for boxes that are suspect and not yet due.
const GATHER: Duration = Duration::from_millis(1500);
/// Overdue boxes of a group, the proposed one among them, that make a verdict wait.
const HOLD_MIN: u32 = 2;
/// How long it waits at most.
const HOLD: Duration = Duration::from_secs(1);
/// How long a verdict waits at most while everybody comes back.
const RUSH_HOLD: Duration = Duration::from_secs(15);
/// After so long without a new member a storm is a thing of its own.
const FRESH: Duration = Duration::from_secs(60);
/// Missing members that let a storm ebb, by share of its largest extent and by number …
const STRAGGLERS: (f64, usize) = (0.4, 10);
/// … or by share of the group …
const CALM: f64 = 0.05;
/// … for so long, …
const OVER_AFTER: Duration = Duration::from_secs(10);
/// … and over the fleet for so long.
const FLEET_OVER_AFTER: Duration = Duration::from_secs(30);
/// A handful that has not changed for so long, and is a small part of its group, is no storm any more either.
const HANDFUL: (usize, f64, Duration) = (5, 0.25, Duration::from_secs(180));
/// Members that come back or join are written down this often.
const CHANGES_EVERY: Duration = Duration::from_secs(5);
/// A storm that grew by more than this share is told of again …
const GREW: f64 = 0.1;
/// … this often, …
const GREW_EVERY: Duration = Duration::from_secs(30);
/// … and one that doubled since, this often.
const DOUBLED_EVERY: Duration = Duration::from_secs(5);
/// A storm that nothing was told of for so long is not told of in a burst: each box that joins it is news.
const QUIET: Duration = Duration::from_secs(60);

/// The storms under way, and those that may become some.
#[derive(Debug, Clone, Default)]
pub struct Storms {
    open: Vec<Storm>,
    /// Groups that went together, since when: not told of yet.
    gathering: Vec<(GroupIx, Mono)>,
    /// Of this tick: more than can be told of one by one.
    too_many: Vec<Proposal>,
    rush: Rush,
    pace: Pace,
}

#[derive(Debug, Clone)]
struct Storm {
    group: GroupIx,
    why: StormWhy,
    members: BTreeSet<BoxIx>,
    /// Boxes of the group when it began.
    expected: usize,
    peak: usize,
    joined: Mono,
    /// When somebody joined or left.
    moved: Mono,
    /// Who joined in this tick: to be carried out when the event is out.
    joining: Vec<Proposal>,
    few_since: Option<Mono>,
    ebbing: bool,
    /// Told of by themselves.
    stragglers: Vec<BoxIx>,
    noted: Mono,
    changed: bool,
    told: Mono,
    told_peak: usize,
    news: bool,
}

impl Storms {
    /// A storm that was under way when the server ended.
    pub fn restore(&mut self, group: GroupIx, members: BTreeSet<BoxIx>, peak: usize, now: Mono) {
        let peak = peak.max(members.len());
        let mut storm = Storm::new(group, StormWhy::Share, peak, now);
        storm.members = members;
        storm.told_peak = peak;
        storm.peak = peak;
        self.open.push(storm);
    }

    /// How many are under way.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Whether one may be about to begin.
    pub fn is_gathering(&self) -> bool {
        !self.gathering.is_empty()
    }

    /// Who came back since the last call. To be called in every tick, before events are taken.
    pub fn note_returns(&mut self, tracker: &Tracker, now: Mono) {
        self.rush.note(tracker, now);
    }

    /// Carries each due verdict out: alone, with its group, or not yet.
    pub fn judge(&mut self, tracker: &mut Tracker, due: &[Proposal], now: Moment) {
        for proposal in due {
            // It may be gone, and is told of to nobody: no matter of any group's.
            if tracker.is_excused(proposal.ix) {
                tracker.carry_out(proposal.ix, proposal.verdict, now);
                continue;
            }
            match proposal.verdict {
                Verdict::Overdue(_) => self.alone(tracker, *proposal, now),
                Verdict::Dark(_) | Verdict::Silent => self.judge_one(tracker, *proposal, now),
            }
        }
        self.gathered(tracker, due, now);
        let too_many = std::mem::take(&mut self.too_many);
        if !too_many.is_empty() {
            self.begin(tracker, (GroupIx::FLEET, StormWhy::Rate), too_many, now);
        }
        for storm in &mut self.open {
            storm.joined(tracker, now);
        }
        self.follow(tracker, now);
    }

    /// A fleet-wide storm of everybody who is suspect: what a blindness turns out to have been.
    pub fn all_gone(&mut self, tracker: &mut Tracker, now: Moment) {
        let suspects = tracker.suspects_of(GroupIx::FLEET);
        let gone = suspects.into_iter().map(|ix| Proposal {
            ix,
            verdict: Verdict::Dark(Cause::Group),
            due: now.mono,
        });
        let gone = gone.collect();
        self.begin(tracker, (GroupIx::FLEET, StormWhy::Settled), gone, now);
        self.judge(tracker, &[], now);
    }

    /// Boxes that could be gone until now, and are gone still: a few are told of one by one, more are one storm. Answers
    /// with those that are in one.
    pub fn still_gone(&mut self, tracker: &mut Tracker, gone: &[BoxIx], now: Moment) -> Vec<BoxIx> {
        let many = gone.len() > ALONE;
        let told_here = |_: &&BoxIx| many || !self.pace.alone(now.mono);
        let together: BTreeSet<BoxIx> = gone.iter().filter(told_here).copied().collect();
        let Some(group) = shared_group(tracker, &together) else {
            return Vec::new();
        };
        if let Some(storm) = self.open.iter_mut().find(|storm| storm.group == group) {
            storm.members.extend(&together);
            storm.peak = storm.peak.max(storm.members.len());
            storm.joined = now.mono;
            storm.ebbing = false;
            storm.news = true;
        } else {
            let of = tracker.census.group(group).clone();
            let group = tracker.census.hold(of.clone());
            // Gone long before, they are not expected by the census.
            let expected = tracker.census.all(group).expected as usize + together.len();
            let mut storm = Storm::new(group, StormWhy::Absence, expected, now.mono);
            storm.peak = together.len();
            storm.told_peak = storm.peak;
            storm.members.clone_from(&together);
            tracker.events.push(Event::StormOpened {
                group: of,
                why: StormWhy::Absence,
                members: together.iter().copied().collect(),
                expected: expected as u32,
                at: now,
            });
            self.open.push(storm);
        }
        together.into_iter().collect()
    }

    fn judge_one(&mut self, tracker: &mut Tracker, proposal: Proposal, now: Moment) {
        let groups: Vec<GroupIx> = tracker.groups_of(proposal.ix).collect();
        let late = now.mono.since(proposal.due);
        if late < RUSH_HOLD && groups.iter().any(|group| self.rush.is_on(tracker, *group)) {
            return;
        }
        // The narrow groups have their say first: a site that goes while the fleet is in a storm is still a site.
        let labelled = || groups.iter().filter(|group| **group != GroupIx::FLEET);
        if self.join(labelled(), proposal, now) {
            return;
        }
        let with = together(tracker, &groups);
        if let Some(group) = with.filter(|group| *group != GroupIx::FLEET) {
            self.gather(tracker, group, now);
            return;
        }
        if self.waits(tracker, labelled(), late) || self.join(groups.iter(), proposal, now) {
            return;
        }
        match with {
            Some(fleet) => self.gather(tracker, fleet, now),
            None if self.waits(tracker, groups.iter(), late) => {}
            None => self.alone(tracker, proposal, now),
        }
    }

    /// Joins the first storm over one of `groups` that takes it.
    fn join<'a>(
        &mut self,
        mut groups: impl Iterator<Item = &'a GroupIx>,
        proposal: Proposal,
        now: Moment,
    ) -> bool {
        let open = &mut self.open;
        groups.any(|group| {
            let storm = open.iter_mut().find(|storm| storm.group == *group);
            let storm = storm.filter(|storm| storm.takes(now.mono));
            storm.map(|storm| storm.joining.push(proposal)).is_some()
        })
    }

    fn waits<'a>(
        &self,
        tracker: &Tracker,
        mut groups: impl Iterator<Item = &'a GroupIx>,
        late: Duration,
    ) -> bool {
        groups.any(|group| {
            let gathering = self.gathering.iter().any(|(with, _)| with == group);
            gathering || (late < HOLD && perhaps_together(tracker, *group))
        })
    }

    fn gather(&mut self, tracker: &mut Tracker, group: GroupIx, now: Moment) {
        if !self.gathering.iter().any(|(with, _)| *with == group) {
            let of = tracker.census.group(group).clone();
            self.gathering.push((tracker.census.hold(of), now.mono));
        }
    }

    /// Alone, or with all others that are too many.
    fn alone(&mut self, tracker: &mut Tracker, proposal: Proposal, now: Moment) {
        if self.pace.alone(now.mono) {
            tracker.carry_out(proposal.ix, proposal.verdict, now);
        } else {
            self.too_many.push(proposal);
        }
    }

    /// Groups that have waited long enough.
    fn gathered(&mut self, tracker: &mut Tracker, due: &[Proposal], now: Moment) {
        for (group, since) in std::mem::take(&mut self.gathering) {
            let gone: Vec<Proposal> = due
                .iter()
                .filter(|proposal| tracker.state(proposal.ix) == Some(Liveness::Suspect))
                .filter(|proposal| tracker.groups_of(proposal.ix).any(|of| of == group))
                .filter(|proposal| !self.is_placed(proposal.ix))
                .copied()
                .collect();
            let all_due = gone.len() >= tracker.suspects_of(group).len();
            if !all_due && now.mono.since(since) < GATHER {
                self.gathering.push((group, since));
                continue;
            }
            if gone.len() >= GROUP_MIN as usize || together(tracker, &[group]).is_some() {
                self.begin(tracker, (group, StormWhy::Share), gone, now);
            } else {
                // The others came back meanwhile.
                for proposal in gone {
                    self.alone(tracker, proposal, now);
                }
            }
            tracker.census.release(group);
        }
    }

    /// Whether this tick has found a storm for it already.
    fn is_placed(&self, ix: BoxIx) -> bool {
        let joining = self.open.iter().flat_map(|storm| &storm.joining);
        joining.chain(&self.too_many).any(|proposal| proposal.ix == ix)
    }

    /// A storm of these; or they join the one that there is, or that of all that are too many.
    fn begin(
        &mut self,
        tracker: &mut Tracker,
        (group, why): (GroupIx, StormWhy),
        gone: Vec<Proposal>,
        now: Moment,
    ) {
        if gone.is_empty() {
            return;
        }
        if let Some(storm) = self.open.iter_mut().find(|storm| storm.group == group) {
            storm.joining.extend(gone);
            return;
        }
        if group != GroupIx::FLEET && !self.pace.group(now.mono) {
            self.too_many.extend(gone);
            return;
        }
        if group == GroupIx::FLEET && why != StormWhy::Settled && !self.pace.fleet(now.mono) {
            // It has only just ended, twice: proposed again in the next tick.
            return;
        }
        let of = tracker.census.group(group).clone();
        let group = tracker.census.hold(of.clone());
        let expected = tracker.census.all(group).expected;
        let mut storm = Storm::new(group, why, expected as usize, now.mono);
        storm.members = gone.iter().map(|proposal| proposal.ix).collect();
        storm.peak = storm.members.len();
        storm.told_peak = storm.peak;
        tracker.events.push(Event::StormOpened {
            group: of,
            why,
            members: storm.members.iter().copied().collect(),
            expected: expected.max(storm.peak as u32),
            at: now,
        });
        for proposal in gone {
            tracker.carry_out(proposal.ix, with_group(proposal.verdict), now);
        }
        self.open.push(storm);
    }

    /// Members that came back leave; a storm with few left ebbs, and then ends.
    fn follow(&mut self, tracker: &mut Tracker, now: Moment) {
        let Self { open, pace, .. } = self;
        open.retain_mut(|storm| {
            let before = storm.members.len();
            storm.members.retain(|&ix| is_gone(tracker, ix));
            if storm.members.len() != before {
                storm.changed = true;
                storm.moved = now.mono;
            }
            let group = tracker.census.group(storm.group).clone();
            storm.ebb(now.mono);
            while storm.ebbing && !storm.members.is_empty() && pace.straggler(now.mono) {
                let Some(ix) = storm.members.pop_first() else {
                    break;
                };
                storm.stragglers.push(ix);
                storm.changed = true;
                let group = group.clone();
                tracker.events.push(Event::Straggler { group, ix, at: now });
            }
            if storm.ebbing && storm.members.is_empty() {
                let stragglers = std::mem::take(&mut storm.stragglers);
                let stragglers = stragglers
                    .into_iter()
                    .filter(|ix| is_gone(tracker, *ix))
                    .collect();
                let at = now;
                tracker.events.push(Event::StormOver {
                    group,
                    stragglers,
                    at,
                });
                tracker.census.release(storm.group);
                return false;
            }
            if storm.has_news(now.mono) {
                let event = storm.change(group, now);
                tracker.events.push(event);
            }
            true
        });
    }
}

impl Storm {
    fn new(group: GroupIx, why: StormWhy, expected: usize, now: Mono) -> Self {
        Self {
            group,
            why,
            members: BTreeSet::new(),
            expected,
            peak: 0,
            joined: now,
            moved: now,
            joining: Vec::new(),
            few_since: None,
            ebbing: false,
            stragglers: Vec::new(),
            noted: now,
            changed: false,
            told: now,
            told_peak: 0,
            news: false,
        }
    }

    /// Whether a box of its group that goes now is part of it.
    fn takes(&self, now: Mono) -> bool {
        let most = self.members.len() as f64 >= MOST * self.expected as f64;
        let whole = self.group != GroupIx::FLEET && most && self.why == StormWhy::Share;
        let open = !self.ebbing && self.why != StormWhy::Absence;
        open && (whole || now.since(self.joined) < FRESH)
    }

    /// Takes in who joined in this tick.
    fn joined(&mut self, tracker: &mut Tracker, now: Moment) {
        if self.joining.is_empty() {
            return;
        }
        let joining = std::mem::take(&mut self.joining);
        self.members.extend(joining.iter().map(|proposal| proposal.ix));
        self.peak = self.peak.max(self.members.len());
        self.joined = now.mono;
        self.moved = now.mono;
        self.ebbing = false;
        self.few_since = None;
        self.news |= now.mono.since(self.told) >= QUIET;
        // At once: what the books do not know to be a member's they tell of alone.
        let group = tracker.census.group(self.group).clone();
        let event = self.change(group, now);
        tracker.events.push(event);
        for proposal in joining {
            tracker.carry_out(proposal.ix, with_group(proposal.verdict), now);
        }
    }

    fn has_news(&self, now: Mono) -> bool {
        (self.changed && now.since(self.noted) >= CHANGES_EVERY) || self.grew(now)
    }

    fn grew(&self, now: Mono) -> bool {
        let much = self.peak as f64 > self.told_peak as f64 * (1.0 + GREW);
        let doubled = self.peak >= self.told_peak * 2;
        let told_for = now.since(self.told);
        self.news || (much && told_for >= GREW_EVERY) || (doubled && told_for >= DOUBLED_EVERY)
    }

    fn change(&mut self, group: Group, now: Moment) -> Event {
        let grew = self.grew(now.mono);
        if grew {
            self.told = now.mono;
            self.told_peak = self.peak;
            self.news = false;
        }
        self.changed = false;
        self.noted = now.mono;
        Event::StormChanged {
            group,
            members: self.members.iter().copied().collect(),
            grew,
            at: now,
        }
    }

    fn ebb(&mut self, now: Mono) {
        if self.ebbing {
            return;
        }
        let (share, number) = STRAGGLERS;
        let left = self.members.len();
        let (handful, part, unchanged) = HANDFUL;
        let handful = left <= handful && left as f64 <= self.expected as f64 * part;
        let few = match self.why {
            StormWhy::Share | StormWhy::Settled | StormWhy::Absence => {
                let calm = (self.expected as f64 * CALM) as usize;
                left <= ((self.peak as f64 * share) as usize).min(number) || left <= calm
            }
            StormWhy::Rate => left <= number && now.since(self.joined) >= FRESH,
        };
        let lasting = handful && now.since(self.moved) >= unchanged;
        if !few && !lasting {
            self.few_since = None;
            return;
        }
        let since = *self.few_since.get_or_insert(now);
        let after = if self.group == GroupIx::FLEET {
            FLEET_OVER_AFTER
        } else {
            OVER_AFTER
        };
        let nobody = left == 0 && self.group != GroupIx::FLEET;
        self.ebbing = nobody || now.since(since) >= after;
    }
}

/// The narrowest group that all of them are in; none, if there is nobody.
fn shared_group(tracker: &Tracker, boxes: &BTreeSet<BoxIx>) -> Option<GroupIx> {
    let mut boxes = boxes.iter();
    let mut shared: Vec<GroupIx> = tracker.groups_of(*boxes.next()?).collect();
    for ix in boxes {
        let groups: Vec<GroupIx> = tracker.groups_of(*ix).collect();
        shared.retain(|group| groups.contains(group));
    }
    shared.first().copied()
}

/// The group that explains best who is overdue besides this box, if any does.
fn together(tracker: &Tracker, groups: &[GroupIx]) -> Option<GroupIx> {
    let counted = |group: &GroupIx| (*group, tracker.census.all(*group));
    let labelled: Vec<(GroupIx, Count)> = groups
        .iter()
        .filter(|group| **group != GroupIx::FLEET)
        .map(counted)
        .filter(|(_, count)| {
            let share = share(*count);
            (count.overdue >= GROUP_MIN && share >= MOST) || (count.overdue >= PART_MIN && share >= PART)
        })
        .collect();
    let full = labelled.iter().filter(|(_, count)| share(*count) >= FULL);
    // Of equal ones the first, which is the narrowest by the order of the configuration.
    if let Some((group, _)) = full.rev().max_by_key(|(_, count)| count.expected) {
        return Some(*group);
    }
    let all = tracker.census.all(GroupIx::FLEET);
    let mut holding = labelled
        .iter()
        .filter(|(_, count)| count.overdue * 2 >= all.overdue);
    if let Some((group, _)) = holding.next() {
        return Some(*group);
    }
    if all.overdue >= PART_MIN && share(all) >= PART {
        return Some(GroupIx::FLEET);
    }
    labelled.first().map(|(group, _)| *group)
}

fn perhaps_together(tracker: &Tracker, group: GroupIx) -> bool {
    let count = tracker.census.all(group);
    if group == GroupIx::FLEET {
        // In a large fleet somebody is always suspect: half of a storm is noticeable.
        let half = f64::from(count.expected) * PART / 2.0;
        count.overdue >= PART_MIN / 2 && f64::from(count.overdue) >= half
    } else {
        // In a large group, too.
        count.overdue >= HOLD_MIN && f64::from(count.overdue) >= f64::from(count.expected) * PART / 2.0
    }
}

fn share(count: Count) -> f64 {
    f64::from(count.overdue) / f64::from(count.expected.max(1))
}

fn is_gone(tracker: &Tracker, ix: BoxIx) -> bool {
    matches!(tracker.state(ix), Some(Liveness::Dark | Liveness::Silent))
}
