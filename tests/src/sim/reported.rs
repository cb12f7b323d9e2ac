//! The report of a played box: four checks that are ok, or failing when told so.

use std::collections::BTreeSet;

use jiff::Timestamp;
use protocol::names::{Labels, UnitName, Word};
use protocol::report::{CheckName, CheckReport, Host, Report, Status};
use protocol::why::{KnownWhy, Why};
use serde_json::json;
use uuid::Uuid;

/// The unit that every played box has.
pub const UNIT: &str = "hermes-gateway.service";

/// What a box knows for its report.
#[derive(Debug, Clone)]
pub struct Condition {
    /// The checks that fail.
    pub failing: BTreeSet<CheckName>,
    /// When that last changed.
    pub since: Timestamp,
    /// Runs since then.
    pub runs: u32,
}

/// The report of one run.
pub fn report(id: Uuid, at: Timestamp, name: &str, labels: &Labels, condition: &Condition) -> Report {
    Report {
        id,
        at,
        took_ms: 12,
        checks: CheckName::ALL
            .iter()
            .map(|&check| row(check, condition))
            .collect(),
        remedies: Vec::new(),
        host: Host {
            hostname: Some(name.to_owned()),
            os: Some("Debian GNU/Linux 12 (bookworm)".to_owned()),
            cpus: Some(2),
            ..Host::default()
        },
        labels: labels.clone(),
    }
}

fn row(check: CheckName, condition: &Condition) -> CheckReport {
    let failing = condition.failing.contains(&check);
    let (why, summary, value) = if failing { wrong(check) } else { fine(check) };
    CheckReport {
        name: Word::new(check.as_str()).expect("a check's name is a word"),
        subject: (check == CheckName::Gateway).then(|| UnitName::new(UNIT).expect("a unit's name")),
        status: if failing { Status::Failing } else { Status::Ok },
        why: Why::Known(why),
        summary: summary.to_owned(),
        consecutive: condition.runs.max(1),
        since: condition.since,
        values: value.as_object().cloned().unwrap_or_default(),
    }
}

fn fine(check: CheckName) -> (KnownWhy, &'static str, serde_json::Value) {
    let (summary, value) = match check {
        CheckName::Gateway => (
            "active (running), health answers",
            json!({"main_pid": 811, "restarts": 0}),
        ),
        CheckName::Disk => (
            "/ 41 % used",
            json!({"mounts": [{"path": "/", "free_bytes": 12_884_901_888_u64}]}),
        ),
        CheckName::Backup => ("the newest is 7 h old", json!({"age_secs": 25_200})),
        CheckName::Tailscale => ("running, online", json!({"key_expires_in_secs": 7_776_000})),
    };
    (KnownWhy::Fine, summary, value)
}

fn wrong(check: CheckName) -> (KnownWhy, &'static str, serde_json::Value) {
    match check {
        CheckName::Gateway => (
            KnownWhy::LoopHung,
            "active (running), but its event loop is hung",
            json!({"main_pid": 811}),
        ),
        CheckName::Disk => (
            KnownWhy::BytesLow,
            "/ has 1 % left (200 MiB)",
            json!({"mounts": [{"path": "/", "free_bytes": 209_715_200}]}),
        ),
        CheckName::Backup => (
            KnownWhy::BackupStale,
            "the newest is 3 days old",
            json!({"age_secs": 259_200}),
        ),
        CheckName::Tailscale => (
            KnownWhy::KeyExpired,
            "the node key has expired",
            json!({"key_expires_in_secs": -60}),
        ),
    }
}
