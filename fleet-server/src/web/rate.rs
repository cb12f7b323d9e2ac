//! How often a box may send and a stranger may try: the generic cell rate algorithm, one number a box.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use protocol::limits;

use crate::liveness::BoxIx;
use crate::liveness::time::Mono;

/// A box's beats may come in a burst of this many (a path that held them back, changes of units) …
const BEAT_BURST: u32 = 30;
/// … and otherwise at the shortest interval that the protocol allows.
const BEAT_EVERY: Duration = limits::INTERVAL_MIN;
/// Enrolments: a whole fleet may be switched on at once, a guesser may not hammer.
const ENROLL_BURST: u32 = 200;
/// See [`ENROLL_BURST`].
const ENROLL_EVERY: Duration = Duration::from_millis(20);

/// The limits in force.
#[derive(Debug, Default)]
pub struct Rates {
    beats: Mutex<Vec<Cell>>,
    enrolments: Mutex<Cell>,
}

/// When the next one would be in time, had all come evenly.
#[derive(Debug, Clone, Copy, Default)]
struct Cell(Mono);

impl Rates {
    /// One beat of `ix`; `Err`: come again after that.
    pub fn beat(&self, ix: BoxIx, now: Mono) -> Result<(), Duration> {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        if beats.len() <= ix.at() {
            beats.resize(ix.at() + 1, Cell::default());
        }
        match beats.get_mut(ix.at()) {
            Some(cell) => cell.take(now, BEAT_EVERY, BEAT_BURST),
            None => Ok(()),
        }
    }

    /// One enrolment by anybody.
    pub fn enrolment(&self, now: Mono) -> Result<(), Duration> {
        let mut cell = self.enrolments.lock().unwrap_or_else(PoisonError::into_inner);
        cell.take(now, ENROLL_EVERY, ENROLL_BURST)
    }
}

impl Cell {
    fn take(&mut self, now: Mono, every: Duration, burst: u32) -> Result<(), Duration> {
        let next = self.0.max(now) + every;
        let ahead = next.since(now);
        let allowed = every * burst;
        if ahead > allowed {
            return Err(ahead.saturating_sub(allowed));
        }
        self.0 = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_interval_holds() {
        let rates = Rates::default();
        let at = |ms: u64| Mono::from_micros(3_600_000_000 + ms * 1000);
        for _ in 0..BEAT_BURST {
            rates.beat(BoxIx(3), at(0)).unwrap();
        }
        let wait = rates.beat(BoxIx(3), at(0)).unwrap_err();
        assert_eq!(wait, BEAT_EVERY);
        assert!(rates.beat(BoxIx(2), at(0)).is_ok(), "another box is not touched");
        assert!(rates.beat(BoxIx(3), at(250)).is_ok());
        assert!(rates.beat(BoxIx(3), at(251)).is_err());
    }
}
