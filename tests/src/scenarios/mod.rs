//! The table of scenarios, a file per topic.
//!
//! To add one: write `pub const ALL: &[Scenario]` in a file here and name the file twice below.

use crate::scenario::Scenario;

pub mod away;
pub mod boxes;
pub mod dark;
pub mod delivery;
pub mod doubt;
pub mod fleet;
pub mod genuine;
pub mod monitoring;
pub mod remedies;
pub mod surroundings;

/// Every scenario.
pub fn all() -> Vec<Scenario> {
    [
        away::ALL,
        boxes::ALL,
        dark::ALL,
        delivery::ALL,
        doubt::ALL,
        genuine::ALL,
        monitoring::ALL,
        remedies::ALL,
        surroundings::ALL,
    ]
    .concat()
}
