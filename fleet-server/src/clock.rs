//! The one place of this program that reads a clock. Everything that decides takes the values it gives.

use jiff::Timestamp;

use crate::liveness::time::Mono;

/// Both clocks: one that never jumps, to judge by; one that people read.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: tokio::time::Instant,
    wall: Wall,
}

#[derive(Debug, Clone, Copy)]
enum Wall {
    System,
    /// Tests in paused time: this moment at the origin.
    From(Timestamp),
}

impl Clock {
    /// The machine's clocks; the monotonic one starts at one hour, so that "before the start" can be written too.
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's clock: everything else is given its values"
    )]
    pub fn system() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            wall: Wall::System,
        }
    }

    /// A wall clock that runs with tokio's (possibly paused) time, from `wall` on.
    pub fn starting_at(wall: Timestamp) -> Self {
        Self {
            wall: Wall::From(wall),
            ..Self::system()
        }
    }

    /// The monotonic clock.
    pub fn mono(&self) -> Mono {
        Mono::START + self.origin.elapsed()
    }

    /// The wall clock: to show, never to judge by.
    #[expect(
        clippy::disallowed_methods,
        reason = "the program's clock: everything else is given its values"
    )]
    pub fn wall(&self) -> Timestamp {
        match self.wall {
            Wall::System => Timestamp::now(),
            Wall::From(start) => start + self.origin.elapsed(),
        }
    }
}
