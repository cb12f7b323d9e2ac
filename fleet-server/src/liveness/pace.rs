//! How many dark boxes a person can be told of in a minute.
//!
//! Pure. It only counts; what happens to those that are too many is [`storm`](super::storm)'s.

use std::collections::VecDeque;
use std::time::Duration;

use super::time::Mono;

/// The minute.
const WINDOW: Duration = Duration::from_secs(60);
/// Boxes that are told of alone in a minute. The next ones join one incident for all that are too many.
pub(super) const ALONE: usize = 8;
/// Boxes in a minute that stayed dark when their group came back.
const STRAGGLERS: usize = 4;
/// Groups in a minute. The next ones join the same incident.
const GROUPS: usize = 4;
/// Incidents over the whole fleet in a minute: there is one at a time, but it may end and begin again.
const FLEETS: usize = 2;
/// Incidents about dark boxes that are opened in any minute, at most.
pub const PER_MINUTE: usize = ALONE + STRAGGLERS + GROUPS + FLEETS;

/// What was told in the last minute.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    alone: Spent,
    stragglers: Spent,
    groups: Spent,
    fleets: Spent,
}

impl Pace {
    /// Whether a box may be told of alone; if so it is counted.
    pub fn alone(&mut self, now: Mono) -> bool {
        self.alone.spend(now, ALONE)
    }

    /// Whether a straggler may be told of; if so it is counted.
    pub fn straggler(&mut self, now: Mono) -> bool {
        self.stragglers.spend(now, STRAGGLERS)
    }

    /// Whether a group may be told of; if so it is counted.
    pub fn group(&mut self, now: Mono) -> bool {
        self.groups.spend(now, GROUPS)
    }

    /// Whether the fleet may be told of; if so it is counted.
    pub fn fleet(&mut self, now: Mono) -> bool {
        self.fleets.spend(now, FLEETS)
    }
}

/// The moments of one kind.
#[derive(Debug, Clone, Default)]
struct Spent(VecDeque<Mono>);

impl Spent {
    fn spend(&mut self, now: Mono, limit: usize) -> bool {
        while self.0.front().is_some_and(|at| now.since(*at) >= WINDOW) {
            self.0.pop_front();
        }
        let room = self.0.len() < limit;
        if room {
            self.0.push_back(now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_holds_more_wherever_it_begins() {
        let mut pace = Pace::default();
        let told: Vec<u64> = (0..600)
            .filter(|tenths| pace.alone(Mono::START + Duration::from_millis(tenths * 700)))
            .collect();
        assert_eq!(told.len(), 8 * 7);
        let mut windows = told.windows(ALONE + 1);
        assert!(windows.all(|w| (w[ALONE] - w[0]) * 700 >= 60_000));
    }
}
