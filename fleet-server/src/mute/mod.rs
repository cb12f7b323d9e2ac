//! Pure: what is not to be told now, and until when. Silences and maintenances of operators, pauses of boxes.
//!
//! No clock, no store: every question takes `now` (the wall clock: that is what operators mean), and the answer follows
//! from `now` and the records alone. So a restart, or a clock that was set, cannot leave anything muted for ever.
//!
//! - A *silence* mutes what its matcher matches: incidents are opened and shown, and told to nobody.
//! - A *maintenance* mutes everything about its boxes, and their absence is expected besides: it is no evidence against
//!   this server, a site or the fleet.
//! - A *pause* is a maintenance of one box by its own word, for [`PAUSE_MUTES_MAX`](protocol::limits::PAUSE_MUTES_MAX) at most.
//!
//! When one ends, nothing is done here: who plans notifications asks again, and tells what is still open and no longer
//! muted.
//!
//! - [`schedule`]: the windows of one mute
//! - [`book`]: all of them

pub mod schedule;
pub mod book;

pub use book::{Ended, MUTES, MutedBy, Mutes, OVER_KEEP};

#[cfg(test)]
mod tests;
