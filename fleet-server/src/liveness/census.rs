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

/// The groups of one box, besides the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memberships([GroupIx; GROUP_LABELS]);

impl Memberships {
    /// Its groups, then the fleet: the narrower ones first.
    pub fn iter(&self) -> impl Iterator<Item = GroupIx> {
        let groups = self.0.into_iter().filter(|group| *group != GroupIx::NONE);
        groups.chain([GroupIx::FLEET])
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
    groups: Vec<(Group, [Count; 2])>,
    by_group: HashMap<Group, GroupIx>,
}

impl Census {
    /// Grouped by these labels' values (at most [`GROUP_LABELS`] of them), the narrowest first.
    pub fn new(labels: &[String]) -> Self {
        Self {
            labels: labels.iter().take(GROUP_LABELS).cloned().collect(),
            groups: vec![(Group::Fleet, Default::default())],
            by_group: HashMap::from([(Group::Fleet, GroupIx::FLEET)]),
        }
    }

    /// The groups of a box with these labels.
    pub fn memberships(&mut self, labels: &Labels) -> Memberships {
        let mut of = [GroupIx::NONE; GROUP_LABELS];
        for (slot, name) in of.iter_mut().zip(self.labels.clone()) {
            if let Some(value) = labels.get(&name) {
                let value = value.to_owned();
                *slot = self.intern(Group::Label { name, value });
            }
        }
        Memberships(of)
    }

    /// A box counts differently now, or beats at another pace.
    pub fn change(&mut self, of: Memberships, before: (Counts, Duration), after: (Counts, Duration)) {
        if before == after {
            return;
        }
        for group in of.iter() {
            let counts = &mut self.groups[group.0 as usize].1;
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
        let [quick, slow] = self.groups[group.0 as usize].1;
        if quick.expected >= floor { quick } else { slow }
    }

    /// All boxes of `group`, quick and slow.
    pub fn all(&self, group: GroupIx) -> Count {
        let [quick, slow] = self.groups[group.0 as usize].1;
        Count {
            expected: quick.expected + slow.expected,
            overdue: quick.overdue + slow.overdue,
        }
    }

    /// The groups by the first label, without the fleet.
    pub fn sites(&self) -> impl Iterator<Item = GroupIx> {
        let first = self.labels.first();
        self.groups
            .iter()
            .zip(0_u32..)
            .filter(move |((group, _), _)| match group {
                Group::Fleet => false,
                Group::Label { name, .. } => Some(name) == first,
            })
            .map(|(_, ix)| GroupIx(ix))
    }

    /// What `group` is.
    pub fn group(&self, group: GroupIx) -> &Group {
        &self.groups[group.0 as usize].0
    }

    /// Where `group` is counted.
    pub fn intern(&mut self, group: Group) -> GroupIx {
        let next = GroupIx(self.groups.len() as u32);
        let ix = *self.by_group.entry(group.clone()).or_insert(next);
        if ix == next {
            self.groups.push((group, Default::default()));
        }
        ix
    }
}

fn pace(every: Duration) -> usize {
    usize::from(every > QUICK)
}
