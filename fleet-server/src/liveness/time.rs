//! The server's monotonic clock as a value. Reading it is a shell's business.

use std::time::Duration;

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
