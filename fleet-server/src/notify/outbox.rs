//! A notification as it waits in the store: one row per incident change and receiver.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::Incident;

use crate::store::StoreError;
use crate::store::handle::StoreHandle;

/// One notification. Rows of one `(receiver, incident)` are sent strictly in the order of their ids.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Counts up; zero until stored.
    pub id: i64,
    /// The receiver's name in the configuration.
    pub receiver: String,
    /// The incident.
    pub incident_id: i64,
    /// What is sent; its `key` is stable over repeats and restarts.
    pub alert: Alert,
    /// When it was put here, by the server's clock.
    pub queued_at: Timestamp,
    /// Attempts so far.
    pub attempts: u32,
    /// Not before this.
    pub next_attempt_at: Timestamp,
    /// What the last attempt said.
    pub last_error: Option<String>,
    /// What the receiver called the first message that it took about this incident, where it has threads.
    pub thread: Option<String>,
}

/// What the worker needs of the store.
pub trait Outbox: Send + Sync + 'static {
    /// The oldest undelivered row of each incident for `receiver` whose time has come, oldest first.
    fn due(
        &self,
        receiver: &str,
        now: Timestamp,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<OutboxRow>, StoreError>> + Send;
    /// Row `id` was taken at `at`; the receiver calls it `thread`.
    fn delivered(
        &self,
        id: i64,
        at: Timestamp,
        thread: Option<String>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Row `id` was not taken; not again before `next`.
    fn attempt_failed(
        &self,
        id: i64,
        next: Timestamp,
        error: &str,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Open incidents that `receiver` was told of.
    fn firing(&self, receiver: &str) -> impl Future<Output = Result<Vec<Incident>, StoreError>> + Send;
}

/// Firing incidents that are refreshed at most: far over what any fleet has open at once.
const FIRING: u32 = 10_000;

impl Outbox for StoreHandle {
    async fn due(&self, receiver: &str, now: Timestamp, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let receiver = receiver.to_owned();
        self.call("read due notifications", move |store| {
            store.due(&receiver, now, limit)
        })
        .await
    }

    async fn delivered(&self, id: i64, at: Timestamp, thread: Option<String>) -> Result<(), StoreError> {
        self.call("write down a delivery", move |store| {
            store.delivered(id, at, thread.as_deref())
        })
        .await
    }

    async fn attempt_failed(&self, id: i64, next: Timestamp, error: &str) -> Result<(), StoreError> {
        let error = error.to_owned();
        self.call("write down a failed attempt", move |store| {
            store.attempt_failed(id, next, &error)
        })
        .await
    }

    async fn firing(&self, receiver: &str) -> Result<Vec<Incident>, StoreError> {
        let receiver = receiver.to_owned();
        self.call("read firing incidents", move |store| {
            store.firing(&receiver, FIRING)
        })
        .await
    }
}
