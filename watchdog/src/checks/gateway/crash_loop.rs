//! Whether a unit crashes again and again without ever reaching `failed`. Pure.
//!
//! # The evidence rule
//! systemd counts its automatic restarts (`NRestarts`) from the last start by hand. Between two runs of the check that
//! count grows by the crashes in between; the growths of the last [`WINDOW`] are kept.
//! - Floor: fewer than [`FLOOR`] crashes in the window are no loop. One crash that recovered never is one.
//! - Still going on: the unit is down now, or has been up for less than [`STEADY`], or for less than three times the
//!   mean time between those crashes (a gateway that dies every four minutes has not recovered after five).
//! - Recovery: up for longer than that. The old crashes stay in the window, and count again if it crashes once more.
//! - Cold start: the first run of a boot sees a count and no growth, and says nothing; the count may be months old.
//! - A count that shrank means a start by hand: what was before is forgotten, the new count is all growth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far back crashes count. Upstream's slowest own pace (`RestartSec=60`) gives about eight in it.
pub const WINDOW: Duration = Duration::from_secs(600);
/// Crashes in the window from which on it is a loop.
pub const FLOOR: u32 = 3;
/// Up for less than this is not yet up again.
pub const STEADY: Duration = Duration::from_secs(30);
/// Growths kept; with the usual two minutes between runs there are five in a window.
const GROWTHS: usize = 64;

/// The count as seen by earlier runs of this boot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restarts {
    last: Option<Seen>,
    growths: Vec<Growth>,
}

/// One run's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// `CLOCK_MONOTONIC`, milliseconds.
    at_ms: u64,
    count: u32,
}

/// Crashes between two runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Growth {
    from_ms: u64,
    to_ms: u64,
    crashes: u32,
}

/// A loop, in figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashLoop {
    /// Crashes in the window.
    pub crashes: u32,
    /// The time that they were seen in.
    pub within: Duration,
}

impl Restarts {
    /// Takes in this run's count.
    pub fn observe(&mut self, count: u32, now: Duration) {
        let at_ms = now.as_millis() as u64;
        if let Some(last) = self.last
            && last.at_ms <= at_ms
        {
            let by_hand = count < last.count;
            if by_hand {
                self.growths.clear();
            }
            let crashes = if by_hand { count } else { count - last.count };
            if crashes > 0 {
                self.growths.push(Growth {
                    from_ms: last.at_ms,
                    to_ms: at_ms,
                    crashes,
                });
            }
        } else {
            self.growths.clear();
        }
        let oldest = at_ms.saturating_sub(WINDOW.as_millis() as u64);
        self.growths.retain(|growth| growth.to_ms >= oldest);
        let surplus = self.growths.len().saturating_sub(GROWTHS);
        self.growths.drain(..surplus);
        self.last = Some(Seen { at_ms, count });
    }

    /// The crashes seen in the window.
    pub fn crashes(&self) -> u32 {
        self.growths
            .iter()
            .fold(0, |sum, growth| sum.saturating_add(growth.crashes))
    }

    /// The loop that goes on now, if one does. `up`: how long the unit has been active; none: it is not.
    pub fn going_on(&self, up: Option<Duration>, now: Duration) -> Option<CrashLoop> {
        let crashes = self.crashes();
        let first = self.growths.first()?;
        let within = now.saturating_sub(Duration::from_millis(first.from_ms));
        let recovered = up.is_some_and(|up| up >= STEADY.max(within / crashes.max(1) * 3));
        (crashes >= FLOOR && !recovered).then_some(CrashLoop { crashes, within })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn seen(runs: &[(u64, u32)]) -> Restarts {
        let mut restarts = Restarts::default();
        for &(at, count) in runs {
            restarts.observe(count, secs(at));
        }
        restarts
    }

    #[test]
    fn the_genuine_loop_is_found_at_the_second_run() {
        let restarts = seen(&[(100, 7), (220, 31)]);
        let found = restarts.going_on(None, secs(220)).expect("a loop");
        assert_eq!((found.crashes, found.within), (24, secs(120)));
        assert!(
            restarts.going_on(Some(secs(3)), secs(220)).is_some(),
            "active between two crashes"
        );
    }

    #[test]
    fn a_slow_loop_and_quick_runs_are_found_too() {
        // RestartSec=60: two crashes between two runs.
        assert!(
            seen(&[(0, 0), (120, 2), (240, 4)])
                .going_on(Some(secs(20)), secs(240))
                .is_some()
        );
        // Runs quicker than crashes.
        let quick: Vec<_> = (0..10).map(|n| (n * 2, (n / 2) as u32)).collect();
        assert!(seen(&quick).going_on(None, secs(18)).is_some());
    }

    #[test]
    fn one_crash_that_recovered_is_no_loop() {
        assert_eq!(seen(&[(0, 4), (120, 5)]).going_on(Some(secs(5)), secs(120)), None);
        assert_eq!(seen(&[(0, 4), (120, 5)]).going_on(None, secs(120)), None);
    }

    #[test]
    fn an_old_count_says_nothing() {
        assert_eq!(seen(&[(0, 900)]).going_on(None, secs(0)), None);
        assert_eq!(seen(&[(0, 900), (120, 900)]).going_on(None, secs(120)), None);
    }

    #[test]
    fn it_recovers_when_up_for_long_enough() {
        let mended = seen(&[(0, 0), (120, 24)]);
        assert!(mended.going_on(Some(secs(29)), secs(149)).is_some());
        assert_eq!(mended.going_on(Some(secs(31)), secs(151)), None);
        // Every two minutes once: not recovered after five minutes.
        let slow = seen(&[(0, 0), (120, 1), (240, 2), (360, 3), (480, 4)]);
        assert!(slow.going_on(Some(secs(300)), secs(500)).is_some());
        // And the window forgets.
        let mut later = mended;
        later.observe(24, secs(800));
        assert_eq!(later.going_on(None, secs(800)), None);
    }

    #[test]
    fn a_start_by_hand_forgets_what_was_before() {
        assert_eq!(
            seen(&[(0, 40), (120, 64), (240, 0)]).going_on(None, secs(240)),
            None
        );
        assert!(
            seen(&[(0, 40), (120, 5)]).going_on(None, secs(120)).is_some(),
            "and counts what came after"
        );
    }

    proptest! {
        #[test]
        fn any_history_is_bounded_and_never_loops_under_the_floor(
            runs in prop::collection::vec((0_u64..5000, 0_u32..50), 0..200),
            up in prop::option::of(0_u64..10_000),
        ) {
            let restarts = seen(&runs);
            let now = secs(runs.last().map_or(0, |run| run.0));
            prop_assert!(restarts.growths.len() <= GROWTHS);
            if let Some(found) = restarts.going_on(up.map(secs), now) {
                prop_assert!(found.crashes >= FLOOR);
                prop_assert!(up.is_none_or(|up| secs(up) < STEADY.max(found.within * 3)));
            }
        }
    }
}
