//! What a box's own path has shown: how late its beats come, and the gaps they left.

use serde::{Deserialize, Serialize};

/// One box's history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Beats learnt from (counted up to the window's length).
    pub samples: u32,
    /// Mean lateness, seconds.
    pub mean_secs: f32,
    /// Variance of the lateness, seconds squared.
    pub var_secs2: f32,
}
