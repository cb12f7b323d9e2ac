//! A notification as it waits in the store: one row per incident change and receiver.

use jiff::Timestamp;
use protocol::alert::Alert;

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
}
