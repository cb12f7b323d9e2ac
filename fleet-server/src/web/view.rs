//! What the API, the page and `/metrics` read of the judging side: copies, taken in one go. They never call a stage.

use std::sync::Arc;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::{Paused, UnitState};
use protocol::incident::Incident;
use protocol::report::Report;

use super::metrics::BoxSample;
use crate::liveness::BoxIx;

/// One box as judged.
#[derive(Debug, Clone)]
pub struct BoxView {
    /// Its liveness.
    pub state: Liveness,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The server's time of the last beat.
    pub last_seen: Option<Timestamp>,
    /// Its gateway units, as of the last beat.
    pub units: Vec<UnitState>,
    /// Remedies are paused.
    pub paused: Option<Paused>,
    /// What its clock is ahead, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Its newest report and when that arrived.
    pub report: Option<(Arc<Report>, Timestamp)>,
}

/// The judging side as others see it.
pub trait View: Send + Sync {
    /// The boxes asked for, in that order; `None` for one that it does not know.
    fn boxes(&self, which: &[BoxIx]) -> Vec<Option<BoxView>>;
    /// All boxes, for `/metrics`.
    fn samples(&self) -> Vec<BoxSample>;
    /// Open incidents.
    fn open(&self) -> Vec<Incident>;
    /// Why the loop does not turn, if so (`/healthz`).
    fn stuck(&self) -> Option<String>;
    /// Why nobody is judged at the moment, if so (`/readyz`).
    fn not_judging(&self) -> Option<String>;
}
