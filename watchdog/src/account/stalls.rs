//! Stretches in which this process did not run although it should have: the machine was frozen, paused, asleep or
//! starved. Pure: it is told when the loop came by and when it meant to.
//!
//! Evidence rule: the loop means to turn about once a second. Coming by more than [`LATE`] after it meant to is a stall.
//! Asleep is told from frozen by the two clocks: `CLOCK_BOOTTIME` runs on in sleep, `CLOCK_MONOTONIC` does not. A pause
//! in which both stood still (some virtual machines) leaves no trace here.

use std::time::Duration;

use super::silence::Stamp;
use crate::clock::Moment;

/// Later than this is a stall; a busy machine's delays are a tenth of it.
pub const LATE: Duration = Duration::from_secs(2);
/// Stalls that are kept, the newest ones.
const KEPT: usize = 8;

/// One stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// When it last ran before.
    pub from: Stamp,
    /// When it ran again.
    pub to: Stamp,
    /// The machine slept.
    pub asleep: bool,
}

/// Those of this process.
#[derive(Debug, Default)]
pub struct Stalls {
    last: Option<Turn>,
    kept: Vec<Stall>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Moment,
    wait: Duration,
}

impl Stalls {
    /// The loop comes by at `now`; whether it was held up.
    pub fn begins(&mut self, now: Moment) -> bool {
        let Some(turn) = self.last.take() else {
            return false;
        };
        let ran = now.boot.saturating_sub(turn.at.boot);
        if ran <= turn.wait + LATE {
            return false;
        }
        let awake = now.monotonic.saturating_sub(turn.at.monotonic);
        if self.kept.len() == KEPT {
            self.kept.remove(0);
        }
        self.kept.push(Stall {
            from: turn.at.into(),
            to: now.into(),
            asleep: awake + LATE < ran,
        });
        true
    }

    /// The loop is done at `now`, and means to come by again within `wait`.
    pub fn ends(&mut self, now: Moment, wait: Duration) {
        self.last = Some(Turn { at: now, wait });
    }

    /// All of them, oldest first.
    pub fn all(&self) -> &[Stall] {
        &self.kept
    }
}

impl Stall {
    /// How much of it lies between the two.
    pub fn within(&self, from: Stamp, to: Stamp) -> Duration {
        let (from, to) = (
            self.from.boot_ms.max(from.boot_ms),
            self.to.boot_ms.min(to.boot_ms),
        );
        Duration::from_millis(to.saturating_sub(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ms: u64, monotonic_ms: u64) -> Moment {
        Moment {
            wall: jiff::Timestamp::UNIX_EPOCH + Duration::from_millis(boot_ms),
            boot: Duration::from_millis(boot_ms),
            monotonic: Duration::from_millis(monotonic_ms),
        }
    }

    #[test]
    fn a_freeze_a_sleep_and_a_busy_second() {
        let mut stalls = Stalls::default();
        assert!(!stalls.begins(at(0, 0)));
        stalls.ends(at(1, 1), Duration::from_secs(1));
        assert!(!stalls.begins(at(2900, 2900)), "late, but no stall");
        stalls.ends(at(3000, 3000), Duration::from_secs(1));
        assert!(stalls.begins(at(23_000, 23_000)));
        stalls.ends(at(23_000, 23_000), Duration::from_secs(1));
        assert!(stalls.begins(at(83_000, 24_000)));
        let asleep: Vec<bool> = stalls.all().iter().map(|stall| stall.asleep).collect();
        assert_eq!(asleep, [false, true]);
        let freeze = stalls.all()[0];
        let (from, to) = (at(13_000, 0).into(), at(90_000, 0).into());
        assert_eq!(freeze.within(from, to), Duration::from_secs(10));
        assert_eq!(freeze.within(to, to), Duration::ZERO);
    }

    #[test]
    fn a_long_interval_is_no_stall_and_the_number_is_bounded() {
        let mut stalls = Stalls::default();
        stalls.ends(at(0, 0), Duration::from_secs(60));
        assert!(!stalls.begins(at(61_000, 61_000)));
        for n in 1..100 {
            stalls.ends(at(n * 100_000, n * 100_000), Duration::from_secs(1));
            stalls.begins(at(n * 100_000 + 5000, n * 100_000 + 5000));
        }
        assert_eq!(stalls.all().len(), KEPT);
    }
}
