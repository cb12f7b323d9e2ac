//! The body of a webhook notification, and the headers that sign it.

use serde::{Deserialize, Serialize};

use crate::incident::{EventKind, Incident};

/// The version of [`Alert`]'s shape.
pub const VERSION: u32 = 1;
/// `t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`, when the receiver has a secret.
pub const SIGNATURE_HEADER: &str = "fleet-signature";
/// The alert's key, so that a receiver can drop a repeat without reading the body.
pub const KEY_HEADER: &str = "idempotency-key";

/// What a webhook receiver gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// [`VERSION`].
    pub version: u32,
    /// The same for every repeat of this notification, and for no other one.
    pub key: String,
    /// What happened.
    pub event: EventKind,
    /// To which incident.
    pub incident: Incident,
}
