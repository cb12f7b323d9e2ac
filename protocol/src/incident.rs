//! One thing wrong, opened once and resolved once, as operators and receivers see it.
//!
//! It does not say when one opens or who is told: that is the server's `incident` and `notify`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::{BoxName, Labels};
use crate::words::words;

words! {
    /// What is wrong.
    pub enum Kind {
        /// Nothing answers from a box.
        BoxDark = "box_dark",
        /// The host answers a witness, the watchdog on it does not.
        BoxSilent = "box_silent",
        /// Many boxes of one group went dark together.
        SiteDark = "site_dark",
        /// The server itself may be the one in trouble.
        ServerBlind = "server_blind",
        /// A box said goodbye and has not come back in the time it named.
        PlannedOverdue = "planned_overdue",
        /// The gateway check fails or warns.
        Gateway = "gateway",
        /// The disk check fails or warns.
        Disk = "disk",
        /// The backup check fails or warns.
        Backup = "backup",
        /// The Tailscale check fails or warns.
        Tailscale = "tailscale",
        /// A live box whose report is older than two periods.
        ChecksStopped = "checks_stopped",
        /// The watchdog used up its restarts.
        RemedyGaveUp = "remedy_gave_up",
        /// Two machines speak with one box's token.
        DuplicateIdentity = "duplicate_identity",
        /// A box's clock is off.
        ClockSkew = "clock_skew",
        /// A receiver does not take notifications.
        ReceiverFailing = "receiver_failing",
        /// The server's own canary went dark on schedule, and its notification did not arrive.
        Canary = "canary",
    }
}

words! {
    /// How loud an incident is.
    pub enum Severity {
        /// Wake somebody.
        Page = "page",
        /// Somebody should look in office hours.
        Ticket = "ticket",
        /// For the record.
        Info = "info",
    }
}

words! {
    /// What happened to an incident, as a notification says it.
    pub enum EventKind {
        /// It began.
        Opened = "opened",
        /// Something about it changed (severity, members, summary).
        Updated = "updated",
        /// It ended.
        Resolved = "resolved",
    }
}

/// An incident, as the API and the webhook body carry it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Counts up; stable.
    pub id: i64,
    /// What is wrong.
    pub kind: Kind,
    /// How loud.
    pub severity: Severity,
    /// The box that it is about, as named at `box add`; none for a site or the server.
    #[serde(rename = "box")]
    pub box_name: Option<BoxName>,
    /// The box's labels, or those that the group shares.
    #[serde(default)]
    pub labels: Labels,
    /// When it opened, by the server's clock.
    pub opened_at: Timestamp,
    /// When it was resolved.
    pub resolved_at: Option<Timestamp>,
    /// A sentence for people, with the diagnosis.
    pub summary: String,
    /// Figures and evidence, by name.
    #[serde(default)]
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// Who has taken an incident in hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// When.
    pub at: Timestamp,
    /// Who (the token's name).
    pub by: String,
    /// In their words.
    #[serde(default)]
    pub note: String,
}

/// One line of an incident's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineEntry {
    /// When.
    pub at: Timestamp,
    /// What happened, in a word (`opened`, `updated`, `acknowledged`, `notified`, `resolved`, …).
    pub event: String,
    /// A sentence.
    #[serde(default)]
    pub text: String,
}
