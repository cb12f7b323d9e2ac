//! The server's monotonic clock as a value. Reading it is a shell's business.

use std::time::Duration;

use jiff::Timestamp;

/// Microseconds on the server's monotonic clock. Never goes back, never jumps with the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Mono(u64);

impl Mono {
    /// The server's start. Not zero, so that moments before it can be written too.
    pub const START: Self = Self(3_600_000_000);
    /// No moment: later than every other.
    pub const NEVER: Self = Self(u64::MAX);

    /// `micros` after the clock's zero.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's zero.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// `self - earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Mono {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by.as_micros() as u64))
    }
}

impl std::ops::Sub<Duration> for Mono {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by.as_micros() as u64))
    }
}

/// One moment on both clocks. Judged by [`mono`](Moment::mono) alone; [`wall`](Moment::wall) is what people read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The clock that never jumps.
    pub mono: Mono,
    /// The clock on the wall.
    pub wall: Timestamp,
}

impl Moment {
    /// The wall-clock time of `then`, a moment of this process.
    pub fn wall_of(&self, then: Mono) -> Timestamp {
        if then > self.mono {
            self.wall.saturating_add(then.since(self.mono))
        } else {
            self.wall.saturating_sub(self.mono.since(then))
        }
        .unwrap_or(self.wall)
    }

    /// The monotonic time of `then`, as far as the wall clock can be trusted.
    pub fn mono_of(&self, then: Timestamp) -> Mono {
        let ahead = then.duration_since(self.wall);
        if ahead.is_negative() {
            self.mono - ahead.unsigned_abs()
        } else {
            self.mono + ahead.unsigned_abs()
        }
    }
}
