//! A change of one incident: what the store writes and `notify` routes, as one unit.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::incident::{Ack, EventKind, Incident, TimelineEntry};

/// One change, decided. Written in one transaction with its outbox rows, or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What happened.
    pub event: EventKind,
    /// Whether receivers are told (a change of a figure only is stored, not sent).
    pub notify: bool,
    /// Which receivers.
    pub to: Audience,
    /// The incident after the change, whole.
    pub incident: Incident,
    /// Who has it in hand after the change.
    pub ack: Option<Ack>,
    /// Counts up by one for each notified change of this incident: part of the notification's key.
    pub revision: u32,
    /// The line for its history.
    pub entry: TimelineEntry,
    /// When it was decided, by the server's clock.
    pub at: Timestamp,
}

/// Who is told of a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Audience {
    /// Those that the routes name, and those who were told before; nobody new once it is acknowledged, nobody at all
    /// while it is muted. Of its end: exactly those who were told.
    #[default]
    Routed,
    /// These receivers, by name, whatever the routes say.
    Only(BTreeSet<String>),
}
