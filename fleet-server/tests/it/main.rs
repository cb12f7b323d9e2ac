//! The server as a box, an operator and a script see it: over real HTTP on loopback, on a real store.

#![allow(missing_docs, reason = "a test binary has no readers of its API")]
#![allow(
    clippy::unnecessary_debug_formatting,
    reason = "a path in quotes is what TOML wants"
)]

mod beats;
mod binary;
mod boxes;
mod fixture;
mod mutes;
mod on_call;
mod proof;
mod receivers;
mod tls;
