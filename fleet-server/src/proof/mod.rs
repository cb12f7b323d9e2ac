//! The server proves itself: to a service outside that it is alive ([`dead_man`]), and to itself that a death becomes a
//! notification ([`canary`]).
//!
//! - [`healthy`]: pure: whether loop, store and outbox work
//! - [`dead_man`]: the shell that pings while they do, and stops when they do not
//! - [`rounds`]: pure: when the canary goes dark, and what came of it
//! - [`rows`]: pure: who is told of the canary's own incidents: its sink, and nobody else without being asked for
//! - [`sink`]: the receiver that the canary's notifications go to, over real HTTP
//! - [`canary`]: the shell that beats, falls silent, and waits for the sink
//! - [`metrics`]: what all of them count
//!
//! The two see different things. The dead man sees what stops the whole server, the canary's page included. The canary
//! sees that what works does the right thing. Neither restarts or mends anything.

pub mod healthy;
pub mod dead_man;
pub mod rounds;
pub mod rows;
pub mod sink;
pub mod canary;
pub mod metrics;

#[cfg(test)]
mod tests;
