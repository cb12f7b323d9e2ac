//! An incident of every kind as it may stand in a notification: what a configuration's templates are tried on.

use jiff::Timestamp;
use protocol::alert::{Alert, VERSION};
use protocol::incident::{EventKind, Incident, Kind};
use protocol::names::{BoxName, Labels};
use serde_json::{Value, json};

use crate::incident::severity;
use crate::incident::text::runbook;

/// When the samples happened.
const AT: i64 = 1_763_755_200;

/// One alert for each kind of incident and each kind of event.
pub fn samples() -> Vec<Alert> {
    Kind::ALL
        .iter()
        .flat_map(|&kind| EventKind::ALL.iter().map(move |&event| sample(kind, event)))
        .collect()
}

fn sample(kind: Kind, event: EventKind) -> Alert {
    let opened_at = Timestamp::from_second(AT).unwrap_or_default();
    let mut details = details(kind).as_object().cloned().unwrap_or_default();
    details.insert("runbook".into(), runbook(kind).into());
    details.insert("link".into(), "https://fleet.example.net/v1/incidents/4".into());
    let resolved = event == EventKind::Resolved;
    if !resolved {
        // A box explains itself when it is back.
        details.remove("account");
    }
    Alert {
        version: VERSION,
        key: format!("{kind}:sample:4:1763755200000"),
        revision: 1,
        event,
        test: false,
        incident: Incident {
            id: 4,
            kind,
            severity: severity::of(kind),
            box_name: about_a_box(kind).then(|| BoxName::new("box-17").ok()).flatten(),
            labels: Labels::from_texts([("site", "fsn1"), ("customer", "acme")]).unwrap_or_default(),
            opened_at,
            resolved_at: resolved.then(|| Timestamp::from_second(AT + 200).unwrap_or_default()),
            summary: format!("a sample of {kind}"),
            details,
        },
        ack: None,
        note: String::new(),
    }
}

fn about_a_box(kind: Kind) -> bool {
    match kind {
        Kind::SiteDark | Kind::ServerBlind | Kind::ReceiverFailing | Kind::Canary => false,
        Kind::BoxDark
        | Kind::BoxSilent
        | Kind::PlannedOverdue
        | Kind::Gateway
        | Kind::Disk
        | Kind::Backup
        | Kind::Tailscale
        | Kind::ChecksStopped
        | Kind::RemedyGaveUp
        | Kind::DuplicateIdentity
        | Kind::ClockSkew => true,
    }
}

/// The figures of each kind, as `incident::text` lists them.
fn details(kind: Kind) -> Value {
    let at = "2025-11-21T19:59:53Z";
    let remedy = json!({ "at": at, "unit": "hermes-gateway.service", "outcome": "restarted", "why": "probe_timed_out", "summary": "" });
    match kind {
        Kind::BoxDark | Kind::BoxSilent | Kind::PlannedOverdue => json!({
            "silent_for_secs": 6.02, "last_seen": at, "cause": "witness_confirmed", "others_gone": 2, "goodbye": "reboot",
            "witnesses": [
                { "name": "10.0.0.17:22", "answer": "unreachable", "detail": "no answer in 1 s", "age_secs": 0.8 },
                { "name": "tailscale:box-17", "answer": "unknown", "detail": "no such socket", "age_secs": 0.3 } ],
            "account": { "verdict": "network_path", "from": at, "to": at, "summary": "up all the time; no way to the server",
                "attempts": [ { "url": "https://fleet.example.net/", "family": "ipv4", "step": "connect", "detail": "timed out", "times": 12 } ],
                "evidence": ["pressure: none"] },
            "report": { "received_at": at, "worst": "failing", "not_ok": [
                { "check": "disk", "status": "failing", "why": "full", "summary": "/ is 97 % full" } ] },
            "last_remedy": remedy,
        }),
        Kind::SiteDark => {
            json!({ "subject": "site=fsn1", "group": "site=fsn1", "gone": 41, "peak": 41, "expected": 43, "members": ["box-1", "box-2"] })
        }
        Kind::ServerBlind => json!({ "cause": "collapse", "overdue": 41, "expected": 43 }),
        Kind::Gateway | Kind::Disk | Kind::Backup | Kind::Tailscale => json!({
            "subject": "hermes-gateway.service", "check": kind.as_str(), "status": "failing", "why": "probe_timed_out",
            "consecutive": 3, "since": at, "values": {}, "seen_by": ["report"], "last_remedy": remedy,
        }),
        Kind::RemedyGaveUp => json!({ "subject": "hermes-gateway.service", "last_remedy": remedy }),
        Kind::ChecksStopped => json!({ "report_age_secs": 360 }),
        Kind::DuplicateIdentity | Kind::Canary => json!({}),
        Kind::ClockSkew => json!({ "ahead_ms": 120_000 }),
        Kind::ReceiverFailing => {
            json!({ "subject": "pager", "receiver": "pager", "error": "connection refused" })
        }
    }
}
