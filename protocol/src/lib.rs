//! What a box and a server say to each other, and what a server says to operators: types, limits, golden messages.
//!
//! No I/O, no clock, no policy. Everything that comes off the wire is checked here, once, and bounded by [`limits`];
//! past this crate no invalid value exists. Unknown fields are ignored, so either side may be older than the other.
//!
//! In the data's order:
//! - [`limits`]: a named bound on everything that comes from outside, with its reason
//! - [`names`]: names of boxes, units, labels; words
//! - [`why`]: the closed enum of reasons that a check or a remedy gives
//! - [`witness`]: whom a server may ask about a box
//! - [`report`]: the outcome of one run of all checks
//! - [`account`]: a box's own account of a silence
//! - [`heartbeat`]: the small message every second, and its answer
//! - [`enroll`]: how a box gets its token
//! - [`problem`]: errors as RFC 9457 shapes them
//! - [`incident`]: one thing wrong, as operators and receivers see it
//! - [`matcher`]: which incidents are meant, by route, silence or maintenance
//! - [`weekly`]: windows that come again each week
//! - [`mute`]: silences, maintenances and pauses
//! - [`alert`]: the body of a webhook notification
//! - [`api`]: what `fleetctl` and the page ask
//! - [`secret`]: a text that cannot be printed

pub mod limits;
pub mod names;
pub mod why;
pub mod witness;
pub mod report;
pub mod account;
pub mod heartbeat;
pub mod enroll;
pub mod problem;
pub mod incident;
pub mod matcher;
pub mod weekly;
pub mod mute;
pub mod alert;
pub mod api;
pub mod secret;
mod words;
