//! Pure: who is alive, by arrivals alone. No clock, no I/O; every method takes `now`. Deterministic: the same calls give
//! the same verdicts, so that a seeded simulation can drive this very code through thousands of box-years.
//!
//! In the data's order:
//! - [`time`]: both clocks as values
//! - [`beat`]: what an arrival tells, and what it is answered
//! - [`event`]: what comes of arrivals and of time
//! - [`identity`]: replays and clones
//! - [`history`]: what a box's own path has shown
//! - [`margin`]: how long a silence may be, given that history
//! - [`census`]: how many are overdue, by group and over all
//! - [`record`]: what survives a restart
//! - `cell`: one box: its state, and when it must be looked at
//! - [`tracker`]: the table of boxes and their states; proposes verdicts
//! - [`own_way`]: is it my own uplink?
//! - [`self_doubt`]: is it me?
//! - [`pace`]: how many dark boxes a person can be told of in a minute
//! - [`rush`]: does everybody come back at once?
//! - [`storm`]: is it all of them?
//! - [`judge`]: all of it, in the order in which it must be asked

pub mod time;
pub mod beat;
pub mod event;
pub mod identity;
pub mod history;
pub mod margin;
pub mod census;
pub mod record;
mod cell;
pub mod tracker;
pub mod own_way;
pub mod self_doubt;
pub mod pace;
pub mod rush;
pub mod storm;
pub mod judge;

/// A box's place in every table of this process: dense, from 0, counted up by the directory, and never given twice in a
/// process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxIx(pub u32);

impl BoxIx {
    /// As an index into a table.
    pub const fn at(self) -> usize {
        self.0 as usize
    }
}

/// A connection that beats arrive on, counted up by the listener; never given twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ConnId(pub u64);
