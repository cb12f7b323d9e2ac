//! How many boxes are expected to beat, and how many of those are overdue: by group and over all, counted as they
//! change, so that a tick costs nothing for it.
//!
//! It draws no conclusion: [`self_doubt`](super::self_doubt) and [`storm`](super::storm) do.
//!
//! A box counts as *expected* while it is live or suspect, and for [`RECENT`] after it was judged dark or silent (those
//! count as overdue too), so that what goes together is still seen together when the first one has been judged.

use std::collections::HashMap;
use std::time::Duration;

use protocol::names::Labels;

use super::event::Group;

/// How long a judged box still counts as overdue.
pub const RECENT: Duration = Duration::from_secs(10);
/// Intervals up to this are *quick*. Quick and slow boxes are counted apart: when arrivals stop, the quick ones are
/// overdue long before the first slow one can be.
pub const QUICK: Duration = Duration::from_secs(5);
/// Labels that group boxes, at most.
pub const GROUP_LABELS: usize = 4;

/// A group's place in the census.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIx(u32);

impl GroupIx {
    /// All boxes.
    pub const FLEET: Self = Self(0);
    const NONE: Self = Self(u32::MAX);
}

/// The groups of one box; the last place is the fleet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memberships([GroupIx; GROUP_LABELS + 1]);

impl Memberships {
    /// In no group, not even the fleet: the server's own canary. It goes dark on purpose, so it may neither make a
    /// storm nor hide one, nor make the server doubt itself.
    pub const ASIDE: Self = Self([GroupIx::NONE; GROUP_LABELS + 1]);

    /// Its groups, then the fleet: the narrower ones first.
    pub fn iter(&self) -> impl Iterator<Item = GroupIx> {
        self.0.into_iter().filter(|group| *group != GroupIx::NONE)
    }

    /// Whether the box is in `group`.
    pub fn contains(&self, group: GroupIx) -> bool {
        self.iter().any(|of| of == group)
    }
}

/// How one box counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counts {
    /// Not at all: unseen, away, dark for a while.
    Not,
    /// Expected, and heard.
    Heard,
    /// Expected, and not heard.
    Overdue,
}

/// One group's count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Boxes that should beat.
    pub expected: u32,
    /// Those of them that do not.
    pub overdue: u32,
}

/// The counts of all groups.
#[derive(Debug, Clone)]
pub struct Census {
    labels: Vec<String>,
    groups: Vec<Slot>,
    by_group: HashMap<Group, GroupIx>,
    /// Places of groups that nobody is in any more: boxes declare labels themselves, and may do so anew each second.
    free: Vec<GroupIx>,
}

/// A group's place.
#[derive(Debug, Clone)]
struct Slot {
    group: Group,
    /// By [`pace`].
    counts: [Count; 2],
    /// Boxes in it, and storms over it.
    held: u32,
}

impl Census {
    /// Grouped by these labels' values (at most [`GROUP_LABELS`] of them), the narrowest first.
    pub fn new(labels: &[String]) -> Self {
        Self {
            labels: labels.iter().take(GROUP_LABELS).cloned().collect(),
            groups: vec![Slot {
                group: Group::Fleet,
                counts: Default::default(),
                held: 1,
            }],
            by_group: HashMap::from([(Group::Fleet, GroupIx::FLEET)]),
            free: Vec::new(),
        }
    }

    /// The groups of a box with these labels, held until [`leave`](Self::leave).
    pub fn memberships(&mut self, labels: &Labels) -> Memberships {
        let mut of = [GroupIx::NONE; GROUP_LABELS + 1];
        of[GROUP_LABELS] = GroupIx::FLEET;
        for (slot, name) in of.iter_mut().zip(self.labels.clone()) {
            if let Some(value) = labels.get(&name) {
                let value = value.to_owned();
                *slot = self.hold(Group::Label { name, value });
            }
        }
        Memberships(of)
    }

    /// A box is in these groups no longer.
    pub fn leave(&mut self, of: Memberships) {
        for group in of.iter().filter(|group| *group != GroupIx::FLEET) {
            self.release(group);
        }
    }

    /// A box counts differently now, or beats at another pace.
    pub fn change(&mut self, of: Memberships, before: (Counts, Duration), after: (Counts, Duration)) {
        if before == after {
            return;
        }
        for group in of.iter() {
            let counts = &mut self.groups[group.0 as usize].counts;
            let old = &mut counts[pace(before.1)];
            old.expected -= u32::from(before.0 != Counts::Not);
            old.overdue -= u32::from(before.0 == Counts::Overdue);
            let new = &mut counts[pace(after.1)];
            new.expected += u32::from(after.0 != Counts::Not);
            new.overdue += u32::from(after.0 == Counts::Overdue);
        }
    }

    /// The count to judge `group` by: its quick boxes, or its slow ones where fewer than `floor` are quick.
    pub fn count(&self, group: GroupIx, floor: u32) -> Count {
        let [quick, slow] = self.groups[group.0 as usize].counts;
        if quick.expected >= floor { quick } else { slow }
    }

    /// The quick ones of `group`, however few.
    pub fn quick(&self, group: GroupIx) -> Count {
        self.groups[group.0 as usize].counts[0]
    }

    /// All boxes of `group`, quick and slow.
    pub fn all(&self, group: GroupIx) -> Count {
        let [quick, slow] = self.groups[group.0 as usize].counts;
        Count {
            expected: quick.expected + slow.expected,
            overdue: quick.overdue + slow.overdue,
        }
    }

    /// For each label the groups by it, without the fleet: every label divides the boxes in its own way.
    pub fn by_label(&self) -> impl Iterator<Item = impl Iterator<Item = GroupIx>> {
        self.labels.iter().map(|label| {
            let slots = self.groups.iter().zip(0_u32..);
            slots
                .filter(move |(slot, _)| match &slot.group {
                    Group::Fleet => false,
                    Group::Label { name, .. } => name == label,
                })
                .map(|(_, ix)| GroupIx(ix))
        })
    }

    /// What `group` is.
    pub fn group(&self, group: GroupIx) -> &Group {
        &self.groups[group.0 as usize].group
    }

    /// Where `group` is counted, until it is released as often as it was held.
    pub fn hold(&mut self, group: Group) -> GroupIx {
        if let Some(&ix) = self.by_group.get(&group) {
            self.groups[ix.0 as usize].held += 1;
            return ix;
        }
        let slot = Slot {
            group: group.clone(),
            counts: Default::default(),
            held: 1,
        };
        let ix = if let Some(ix) = self.free.pop() {
            self.groups[ix.0 as usize] = slot;
            ix
        } else {
            self.groups.push(slot);
            GroupIx(self.groups.len() as u32 - 1)
        };
        self.by_group.insert(group, ix);
        ix
    }

    /// One that held `group` is gone; nobody left, its place is free.
    pub fn release(&mut self, group: GroupIx) {
        let slot = &mut self.groups[group.0 as usize];
        slot.held = slot.held.saturating_sub(1);
        if slot.held == 0 {
            self.by_group.remove(&slot.group);
            self.free.push(group);
        }
    }

    /// Groups that somebody holds, the fleet among them.
    pub fn groups(&self) -> usize {
        self.by_group.len()
    }
}

fn pace(every: Duration) -> usize {
    usize::from(every > QUICK)
}
