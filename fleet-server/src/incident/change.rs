//! A change of one incident: what the store writes and `notify` routes, as one unit.

use jiff::Timestamp;
use protocol::incident::{EventKind, Incident, TimelineEntry};

/// One change, decided. Written in one transaction with its outbox rows, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happened.
    pub event: EventKind,
    /// Whether receivers are told (a change of a figure only is stored, not sent).
    pub notify: bool,
    /// The incident after the change, whole.
    pub incident: Incident,
    /// Counts up by one for each notified change of this incident: part of the notification's key.
    pub revision: u32,
    /// The line for its history.
    pub entry: TimelineEntry,
    /// When it was decided, by the server's clock.
    pub at: Timestamp,
}
