//! Who is told, and that it arrives.
//!
//! The way of a notification, in order: a [`Change`](crate::incident::change::Change) is planned ([`plan`], pure: who is told of what, when) into
//! rows that are stored in one transaction with it ([`outbox`]); each receiver's own [`worker`] takes its rows from
//! the store, puts each into words ([`template`], pure) and a request ([`receivers`], pure), sends it ([`net`]: [`http`],
//! [`smtp`], [`exec`]), and writes down that it arrived; [`courier`] shows that way in one function. What was not taken
//! is tried again ([`retry`], pure). A dead receiver delays no other.
//!
//! At most a repeat: between the receiver's 2xx and the store's commit a crash makes the same notification go out
//! again, with the same key. Nothing is ever lost: a row leaves the store's queue only after a 2xx.

pub mod plan;
pub mod outbox;
pub mod retry;
pub mod template;
pub mod receivers;
pub mod http;
pub mod smtp;
pub mod exec;
pub mod net;
pub mod courier;
pub mod standing;
pub mod worker;
pub mod desk;
pub mod metrics;
