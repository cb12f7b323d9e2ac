//! The body of a webhook notification, and the headers that sign it.

use serde::{Deserialize, Serialize};

use crate::incident::{Ack, EventKind, Incident};

/// The version of [`Alert`]'s shape.
pub const VERSION: u32 = 1;
/// `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, when the receiver has a secret.
pub const SIGNATURE_HEADER: &str = "fleet-signature";
/// [`Alert::idempotency_key`], so that a receiver can drop a repeat without reading the body.
pub const KEY_HEADER: &str = "idempotency-key";

/// What a webhook receiver gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// [`VERSION`].
    pub version: u32,
    /// The incident's key: the same in its `opened`, every `updated`, its `resolved`, and every repeat of them, over
    /// restarts of the server too; no other incident ever has it. What PagerDuty calls a `dedup_key`.
    pub key: String,
    /// Counts up over the notified changes of this incident; with `key` it names this one notification.
    #[serde(default)]
    pub revision: u32,
    /// What happened. What a receiver hears first of an incident is always `opened`, whenever that is.
    pub event: EventKind,
    /// An operator tries the receiver, or the server's canary does; nothing is wrong.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// To which incident.
    pub incident: Incident,
    /// Who has it in hand by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ack: Option<Ack>,
    /// Why this is sent, where the incident's summary does not say it: acknowledged, not acknowledged in time, a
    /// reminder. One line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Alert {
    /// Names this one notification: the same for every repeat of it, and for no other one.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.key, self.revision)
    }
}
