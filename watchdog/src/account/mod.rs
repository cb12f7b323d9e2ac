//! Why a box was not heard for a while: what the beat notes down, and what it makes of that once it is heard again.
//!
//! It sends nothing and judges no check. In the data's order:
//! - [`around`]: pressure and Tailscale's state while beats fail
//! - [`silence`] (pure): one server's silence as the box sees it: since when, and what was tried
//! - [`stalls`] (pure): stretches in which nothing ran
//! - [`record`]: what is kept for the next process: bounded, replaced whole
//! - [`keeper`]: writes it, without holding back a beat
//! - [`journal`] (pure): how a boot ended, by its last lines
//! - [`past`]: the shell that asks how the last process, or the last boot, ended
//! - [`tried`] (pure): what was tried, in words
//! - [`judge`] (pure): facts in, an account with its verdict out

pub mod around;
pub mod silence;
pub mod stalls;
pub mod record;
pub mod keeper;
pub mod journal;
pub mod past;
mod tried;
pub mod judge;
