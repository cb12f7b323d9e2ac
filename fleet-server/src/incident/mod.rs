//! Pure: what is wrong, opened once and resolved once. No clock, no store, no receiver: what happened goes in, changes
//! come out, and the shell commits them.
//!
//! In the data's order:
//! - [`change`]: a change of one incident, as it is committed
//! - [`facts`]: what is known of a box, to judge and to tell
//! - [`severity`]: how loud each kind is
//! - [`text`]: sentences and figures for the person who is woken
//! - [`ledger`]: the open incidents: one for each kind, box and subject
//! - [`flap`]: what comes and goes is held open and told of once
//! - [`hand`]: who has an incident in hand, and what is said of it again
//! - `gone`: boxes that went, alone or together
//! - `account`: what a box that is back says of its absence
//! - `checks`: what reports say
//! - `units`: what beats say of gateway units between two reports
//! - `others`: checks that stopped, clocks, receivers
//! - [`canary`]: the server's own canary: its mark, and the page if its way to a notification is broken

pub mod change;
pub mod facts;
pub mod severity;
pub mod text;
pub mod ledger;
pub mod flap;
pub mod hand;
mod gone;
mod account;
mod checks;
mod units;
mod others;
pub mod canary;

pub use gone::{group_of, subject_of};

#[cfg(test)]
mod tests;
