//! Pure: who is alive, by arrivals alone. No clock, no I/O; every method takes `now`.
//!
//! In the data's order:
//! - [`time`]: the monotonic clock as a value
//! - [`history`]: what a box's own path has shown
//! - [`record`]: what survives a restart
//! - [`beat`]: what an arrival tells, what it is answered, what it changes

pub mod beat;
pub mod history;
pub mod record;
pub mod time;

/// A box's place in every table of this process. Given by the directory, counted up, never given twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxIx(pub u32);

impl BoxIx {
    /// As an index.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A connection that beats arrive on, counted up by the listener; never given twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConnId(pub u64);
