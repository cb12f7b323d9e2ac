//! Does everybody come back at once? After an outage all boxes connect in the same seconds: handshakes, queues and
//! refusals make some of them late again, which says nothing about them.
//!
//! Pure. It counts returns by group; what is done about them is [`storm`](super::storm)'s.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use protocol::api::Liveness;

use super::census::GroupIx;
use super::event::{Event, What};
use super::time::Mono;
use super::tracker::Tracker;

/// Returns within this count together: thousands of handshakes take a small server that long.
const WINDOW: Duration = Duration::from_secs(15);
/// Share of a group that is a rush …
const SHARE: f64 = 0.1;
/// … and boxes of it.
const MIN: u32 = 5;

/// Who came back of late.
#[derive(Debug, Clone, Default)]
pub struct Rush {
    returns: VecDeque<(Mono, Vec<GroupIx>)>,
    by_group: HashMap<GroupIx, u32>,
}

impl Rush {
    /// Reads from the tracker's events who came back since the last tick.
    pub fn note(&mut self, tracker: &Tracker, now: Mono) {
        while let Some((at, _)) = self.returns.front()
            && now.since(*at) >= WINDOW
            && let Some((_, groups)) = self.returns.pop_front()
        {
            for group in groups {
                if let Some(count) = self.by_group.get_mut(&group) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_group.remove(&group);
                    }
                }
            }
        }
        for event in &tracker.events {
            if let Event::Box(change) = event
                && matches!(change.what, What::Live { first: false, .. })
                && matches!(change.from, Liveness::Suspect | Liveness::Dark | Liveness::Silent)
            {
                let groups: Vec<GroupIx> = tracker.groups_of(change.ix).collect();
                for group in &groups {
                    *self.by_group.entry(*group).or_default() += 1;
                }
                self.returns.push_back((now, groups));
            }
        }
    }

    /// Whether so many of `group` are coming back that verdicts on the others wait.
    pub fn is_on(&self, tracker: &Tracker, group: GroupIx) -> bool {
        let back = self.by_group.get(&group).copied().unwrap_or(0);
        back >= MIN && f64::from(back) >= SHARE * f64::from(tracker.census.all(group).expected)
    }
}
