//! What operators ask and are told: the JSON API's bodies, shared by the server, `fleetctl` and the page.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::heartbeat::{Paused, UnitState};
use crate::incident::{Ack, EventKind, Incident, TimelineEntry};
use crate::names::{BoxName, Labels};
use crate::report::{Report, Status};
use crate::witness::Targets;
use crate::words::words;

words! {
    /// The liveness of a box, as shown.
    pub enum Liveness {
        /// Has never sent a beat.
        Unseen = "unseen",
        /// Beats arrive.
        Live = "live",
        /// The next beat is overdue.
        Suspect = "suspect",
        /// Nothing answers.
        Dark = "dark",
        /// The host answers a witness, the watchdog does not.
        Silent = "silent",
        /// Said goodbye; expected back.
        Away = "away",
    }
}

/// A row of `GET /v1/boxes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxRow {
    /// Its name.
    pub name: BoxName,
    /// Its liveness.
    pub state: Liveness,
    /// Since when it has been in that state.
    pub state_since: Option<Timestamp>,
    /// The server's time of the last beat.
    pub last_seen: Option<Timestamp>,
    /// Labels, the server's over the box's.
    #[serde(default)]
    pub labels: Labels,
    /// The worst status of the newest report.
    pub worst: Option<Status>,
    /// Open incidents about it.
    pub open_incidents: u32,
    /// Remedies are paused.
    pub paused: Option<Paused>,
    /// It is the server's own canary, and nobody's machine.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
}

/// `GET /v1/boxes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxPage {
    /// This page's rows, by name.
    pub boxes: Vec<BoxRow>,
    /// All rows that match.
    pub total: u64,
    /// The next page's number, if any.
    pub next_page: Option<u32>,
}

/// `GET /v1/boxes/{name}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoxDetail {
    /// As in the listing.
    #[serde(flatten)]
    pub row: BoxRow,
    /// When it was added.
    pub added_at: Timestamp,
    /// The newest report.
    pub report: Option<Report>,
    /// When that arrived.
    pub report_received_at: Option<Timestamp>,
    /// The gateway units, as of the last beat.
    #[serde(default)]
    pub units: Vec<UnitState>,
    /// What the box's clock is ahead of the server's, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Whom the server may ask about it, declared by an operator.
    #[serde(default, alias = "witness_tcp")]
    pub witnesses: Targets,
    /// By which maintenance or pause it may be gone now, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// Open incidents.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

/// `POST /v1/boxes`: add a box.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBox {
    /// Its name.
    pub name: BoxName,
    /// Labels set by the operator: they win over the box's own.
    #[serde(default)]
    pub labels: Labels,
    /// Whom the server may ask about it (never what the box declares): one `host:port` or several.
    #[serde(default, alias = "witness_tcp", skip_serializing_if = "Targets::is_empty")]
    pub witnesses: Targets,
}

/// `POST /v1/boxes/{name}/witnesses`: these instead of those declared so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclareWitnesses {
    /// All of them; none: nobody is asked.
    pub witnesses: Targets,
}

/// `POST /v1/boxes/{name}/rotate`: a new token; the old one stays good for the overlap.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateBox {
    /// Seconds that the old token stays good; 1 hour unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap_secs: Option<u64>,
}

/// A token, given once.
#[derive(Debug, Deserialize)]
pub struct NewToken {
    /// The box.
    pub name: BoxName,
    /// Its token.
    pub token: crate::secret::Secret,
}

/// `POST /v1/enroll-codes`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateEnrollCode {
    /// How often it can be used; once unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// Seconds that it is good for; a day unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_secs: Option<u64>,
}

/// An incident with what operators did about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentDetail {
    /// The incident.
    #[serde(flatten)]
    pub incident: Incident,
    /// Who has it in hand.
    pub ack: Option<Ack>,
    /// What happened, oldest first.
    #[serde(default)]
    pub timeline: Vec<TimelineEntry>,
}

/// `GET /v1/incidents`, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentPage {
    /// This page's rows.
    pub incidents: Vec<IncidentDetail>,
    /// All rows that match.
    pub total: u64,
    /// The next page's number, if any.
    pub next_page: Option<u32>,
}

/// `POST /v1/incidents/{id}/ack` and `…/unack`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckIncident {
    /// In the operator's words.
    #[serde(default)]
    pub note: String,
}

/// `GET /v1/receivers`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiverList {
    /// In the configuration's order.
    pub receivers: Vec<ReceiverRow>,
}

/// One receiver, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiverRow {
    /// Its name in the configuration.
    pub name: String,
    /// `pagerduty`, `slack` …
    pub kind: String,
    /// Where notifications go: host and channel, never a secret.
    pub place: String,
    /// Notifications that wait.
    pub pending: u64,
    /// When the oldest of them was queued.
    pub oldest_pending: Option<Timestamp>,
    /// Since when nothing is taken; none: the last attempt went well.
    pub failing_since: Option<Timestamp>,
    /// When a notification was last taken.
    pub last_success: Option<Timestamp>,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// When.
    pub last_error_at: Option<Timestamp>,
}

/// `POST /v1/receivers/{name}/test`: what came of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReceiverTest {
    /// Its name.
    pub receiver: String,
    /// `pagerduty`, `slack` …
    pub kind: String,
    /// Where the test went.
    pub place: String,
    /// Whether it took all of it.
    pub delivered: bool,
    /// What was sent, in order: the beginning, and where a receiver keeps state also the end.
    pub steps: Vec<TestStep>,
}

/// One thing sent in a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TestStep {
    /// What.
    pub event: EventKind,
    /// `delivered`, `refused`, `denied` or `unavailable`.
    pub outcome: String,
    /// What the receiver said, or what went wrong and what to do.
    pub answer: String,
    /// How long it took.
    pub took_ms: u64,
}
