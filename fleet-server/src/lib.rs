//! The off-box program: takes heartbeats, judges liveness, opens incidents, tells on-call.
//!
//! In the data's order:
//! - `clock`: the one place that reads a clock
//! - `hours`: pure: hours of the week in a time zone
//! - `settings`: what the server runs by
//! - `config`: the file that says so, and what is wrong with it
//! - `liveness`: pure: who is alive, by arrivals alone
//! - `directory`: boxes, tokens, operators in memory
//! - `witness`: a second, independent opinion
//! - `incident`: pure: what is wrong, opened once and resolved once
//! - `mute`: pure: what is not to be told now
//! - `intake`: the door between ingest and judgement
//! - `notify`: who is told, and that it arrives
//! - `store`: what must survive
//! - `sweep`: the shell that ticks
//! - `ingest`: heartbeats as they arrive
//! - `web`: everything else over HTTP, and the listener
//! - `proof`: the server proves itself: the dead man's ping, the canary
//! - `data_dir`, `sd_notify`: the machine around
//! - `app`: all of it put together

pub mod clock;
pub mod hours;
pub mod settings;
pub mod config;
pub mod liveness;
pub mod directory;
pub mod witness;
pub mod incident;
pub mod mute;
pub mod intake;
pub mod notify;
pub mod store;
pub mod sweep;
pub mod ingest;
pub mod web;
pub mod proof;
pub mod data_dir;
pub mod sd_notify;
pub mod app;
