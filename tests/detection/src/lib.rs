//! How good the detector is, by number: fleets in virtual time, with the server's real liveness, storm, incident,
//! planning and outbox code and the watchdog's real plan of sending, in weather drawn from a seed.
//!
//! In the data's order:
//! - [`dice`]: chance that is the same everywhere
//! - [`profile`]: what the weather is made of, and where its figures come from
//! - [`schedule`]: what happens to one fleet, as a list
//! - [`path`]: what becomes of a message on its way
//! - [`calm`]: beats in fair weather, in bulk
//! - [`client`]: one box's watchdog, played out
//! - [`desk`]: who is told: the planner, and the outbox in memory
//! - [`post`]: receivers, and how they are told
//! - [`server`]: judge, books and desk, as their shell drives them
//! - [`baseline`]: the detectors that ours is compared with
//! - [`qos`]: what is counted
//! - [`truth`]: what really was the matter
//! - [`fleet`]: all of it, through the years; [`campaign`]: many fleets
//! - [`report`], [`svg`], [`docs`]: what people read; [`invariants`]: what must hold
//! - [`shrink`]: a failing schedule, made small

pub mod dice;
pub mod profile;
pub mod schedule;
pub mod path;
pub mod calm;
pub mod client;
pub mod desk;
pub mod post;
pub mod server;
pub mod baseline;
pub mod qos;
pub mod truth;
pub mod fleet;
pub mod campaign;
pub mod report;
pub mod invariants;
pub mod shrink;
pub mod svg;
pub mod docs;
