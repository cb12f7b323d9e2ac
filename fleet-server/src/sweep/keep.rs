//! What the sweep needs of the store: a small trait, so that tests can fail it on purpose.

use std::future::Future;
use std::sync::Arc;

use jiff::Timestamp;
use protocol::incident::Incident;
use protocol::names::BoxName;
use protocol::report::Report;

use crate::incident::change::Change;
use crate::liveness::record::Record;
use crate::notify::outbox::OutboxRow;

/// The store, as the sweep uses it.
pub trait Keep: Send + Sync + 'static {
    /// Writes changes and their outbox rows in one transaction, durably, or nothing of them.
    fn commit(
        &self,
        changes: Vec<Change>,
        rows: Vec<OutboxRow>,
    ) -> impl Future<Output = Result<(), KeepFailed>> + Send;

    /// Writes what is remembered of boxes. Newer ones replace older ones; a loss costs seconds of accuracy, no alarm.
    fn save_boxes(&self, boxes: Vec<BoxSave>) -> impl Future<Output = Result<(), KeepFailed>> + Send;
}

/// The store did not take it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct KeepFailed(pub String);

/// What is remembered of one box.
#[derive(Debug, Clone)]
pub struct BoxSave {
    /// Which.
    pub name: BoxName,
    /// Its liveness.
    pub record: Record,
    /// Its newest report and when that arrived, if it changed since the last save.
    pub report: Option<(Arc<Report>, Timestamp)>,
}

/// What the store gives back at the start, for one box.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// Which.
    pub name: BoxName,
    /// Its liveness, if it ever beat.
    pub record: Option<Record>,
    /// Its newest report and when that arrived.
    pub report: Option<(Arc<Report>, Timestamp)>,
}

/// An open incident as the store gives it back at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenIncident {
    /// As last changed.
    pub incident: Incident,
    /// The last change's revision.
    pub revision: u32,
}
