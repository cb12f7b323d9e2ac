//! What the sweep needs of the store: a small trait, so that tests can fail it on purpose and run in paused time.

use std::future::Future;

use protocol::mute::MuteRecord;

use crate::incident::change::Change;
use crate::notify::outbox::OutboxRow;
use crate::store::handle::StoreHandle;
use crate::store::{BoxMemory, StoreError, StoredReport};

/// The store, as the sweep uses it.
pub trait Keep: Send + Sync + 'static {
    /// Writes changes and their outbox rows in one transaction, durably, or nothing of them. Done twice it is as done once.
    fn commit(
        &self,
        changes: Vec<Change>,
        rows: Vec<OutboxRow>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Remembers boxes and their newest reports. A loss costs seconds of accuracy after a restart, never an alarm.
    fn remember(
        &self,
        memories: Vec<BoxMemory>,
        reports: Vec<StoredReport>,
        sync: bool,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes boxes' pauses, durably.
    fn pauses(&self, pauses: Vec<MuteRecord>) -> impl Future<Output = Result<(), StoreError>> + Send;
}

impl Keep for StoreHandle {
    async fn commit(&self, changes: Vec<Change>, rows: Vec<OutboxRow>) -> Result<(), StoreError> {
        self.call("commit", move |store| store.commit(&changes, &rows))
            .await
    }

    async fn remember(
        &self,
        memories: Vec<BoxMemory>,
        reports: Vec<StoredReport>,
        sync: bool,
    ) -> Result<(), StoreError> {
        self.call("remember", move |store| {
            store.remember(&memories, sync)?;
            store.put_reports(&reports)
        })
        .await
    }

    async fn pauses(&self, pauses: Vec<MuteRecord>) -> Result<(), StoreError> {
        self.call("write pauses", move |store| store.put_pauses(&pauses))
            .await
    }
}
