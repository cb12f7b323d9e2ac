//! The table of scenarios, a file per topic.
//!
//! To add one: write `pub const ALL: &[Scenario]` in a file here and name the file twice below.

use std::sync::Arc;

use anyhow::Result;

use crate::genuine::hermes;
use crate::lab::{BoxSpec, Lab, TestBox, WatchdogSetup};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

pub mod account;
pub mod away;
pub mod backup;
pub mod boxes;
pub mod dark;
pub mod delivery;
pub mod disk;
pub mod doubt;
pub mod fleet;
pub mod gateway;
pub mod genuine;
pub mod holds;
pub mod monitoring;
pub mod mutes;
pub mod remedies;
pub mod plain_gateway;
pub mod storms;
pub mod surroundings;
pub mod tailscale;
pub mod witnesses;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [
        account::ALL,
        away::ALL,
        backup::ALL,
        boxes::ALL,
        dark::ALL,
        delivery::ALL,
        disk::ALL,
        doubt::ALL,
        gateway::ALL,
        genuine::ALL,
        holds::ALL,
        monitoring::ALL,
        mutes::ALL,
        remedies::ALL,
        plain_gateway::ALL,
        storms::ALL,
        surroundings::ALL,
        tailscale::ALL,
        witnesses::ALL,
    ]
    .concat()
}

/// A booted box with a genuine, healthy Hermes gateway and the watchdog; `more` may add to the box.
fn hermes_box(
    lab: &Lab,
    name: &str,
    setup: &WatchdogSetup,
    more: impl FnOnce(BoxSpec) -> BoxSpec,
) -> Result<Arc<TestBox>> {
    let spec = more(hermes::with_hermes(BoxSpec::new(name), &resource(Need::Hermes)?));
    let made = lab.boot(spec)?;
    hermes::install_gateway(&made)?;
    made.shutdown()?;
    lab.install_watchdog(&made, setup)?;
    made.boot()?;
    hermes::wait_healthy(&made)?;
    Ok(made)
}
