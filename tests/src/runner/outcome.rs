//! How a scenario ended, as its process tells the runner through a file.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The file in a scenario's log directory.
const FILE: &str = "outcome.json";

/// Passed, failed or skipped, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "outcome")]
pub enum Outcome {
    /// Everything it asserts holds.
    Passed,
    /// Something does not.
    Failed {
        /// The error or panic, in short.
        why: String,
    },
    /// It could not run here.
    Skipped {
        /// What is missing.
        why: String,
    },
}

/// An error that means [`Outcome::Skipped`].
#[derive(Debug)]
pub struct Skipped(pub String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// What one scenario's process leaves behind.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Verdict {
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it measured: name and value.
    #[serde(default)]
    pub figures: Vec<(String, String)>,
}

impl Verdict {
    /// Without figures.
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            figures: Vec::new(),
        }
    }

    /// Leaves it in `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        Ok(fs::write(dir.join(FILE), serde_json::to_vec(self)?)?)
    }

    /// What the process left in `dir`; one that left nothing has failed.
    pub fn read(dir: &Path, otherwise: &str) -> Self {
        let read = fs::read(dir.join(FILE))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok());
        read.unwrap_or_else(|| {
            Self::of(Outcome::Failed {
                why: otherwise.to_owned(),
            })
        })
    }
}
