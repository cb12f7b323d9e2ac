//! Sentences and figures for the person who is woken: what happened, since when, who says so, what was tried.
//!
//! `details` of every incident carries `runbook` (the heading to read) and, where the incident is about one of several
//! things of a box, `subject` (the unit, the group, the receiver); `flapping` where it comes and goes ([`Flap`](super::flap::Flap)),
//! `steps_from` where a route's steps do not count from its opening. Besides, by kind:
//! - `box_dark` `box_silent` `planned_overdue`: `silent_for_secs`, `last_seen`, `cause` (`deadline`, `witness_confirmed`,
//!   `host_answers`, `connection_closed`, `group`, `host_lost`), `others_gone`, `witnesses` (each `name`, `answer`,
//!   `detail`, `age_secs`), `report` (`received_at`, `worst`, `not_ok`: check, status, why, summary), `last_remedy` (`at`, `unit`, `outcome`,
//!   `why`, `summary`), `goodbye` (its reason); when resolved `account` (what the box says of it, as on the wire)
//! - `site_dark`: `group`, `cause` (`share`, `rate`, `settled`), `gone`, `peak`, `expected`, `share` (0 to 1), `extent`
//!   (`full`, `partial`), `since`, `members` (the first [`MEMBERS_NAMED`] names), `accounts` (how many members say which
//!   verdict)
//! - `server_blind`: `cause` (`collapse`, `overload`, `no_way_out`), `overdue`, `expected`
//! - `gateway` `disk` `backup` `tailscale`: `check`, `status`, `why`, `consecutive`, `since`, `values`, `seen_by`
//!   (`report`, `units`), `last_remedy`; of a gateway `oom` (the kernel's OOM killer ended it: what says so)
//! - `remedy_gave_up`: `last_remedy`
//! - `checks_stopped`: `report_age_secs`; `clock_skew`: `ahead_ms`; `receiver_failing`: `receiver`, `error`
//! - `canary`: `stage` (`ingest`, `verdict`, `delivery`), `waited_secs`, `missing` (receivers), `error`; an incident of
//!   the canary's own box has `canary: true`

use std::time::Duration;

use jiff::Timestamp;
use protocol::incident::Kind;
use protocol::limits;
use protocol::report::{RemedyReport, Report, Status};
use serde_json::{Map, Value, json};

use super::facts::{Facts, WitnessWord};
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::event::{Cause, StormWhy};

/// Names of a storm's members that stand in its details.
pub const MEMBERS_NAMED: usize = 500;

/// What `details` holds.
pub type Details = Map<String, Value>;

/// The heading to read.
pub fn runbook(kind: Kind) -> String {
    format!("docs/runbook.md#{kind}")
}

/// `6.1 s`, `3m 20s`, `2h 5m`, `3d 4h`.
pub fn duration(took: Duration) -> String {
    let secs = took.as_secs();
    match secs {
        0..60 => format!("{:.1} s", took.as_secs_f64()),
        60..3600 => format!("{}m {}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {}m", secs / 3600, secs % 3600 / 60),
        _ => format!("{}d {}h", secs / 86_400, secs % 86_400 / 3600),
    }
}

/// `2026-11-21 20:00:00 UTC`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Cut to the limit of a sentence.
pub fn bounded(text: String) -> String {
    match text
        .char_indices()
        .find(|(at, c)| at + c.len_utf8() > limits::SUMMARY_BYTES - 3)
    {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The word for why a box was judged to be gone.
pub fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Deadline => "deadline",
        Cause::WitnessConfirmed => "witness_confirmed",
        Cause::HostAnswers => "host_answers",
        Cause::ConnectionClosed => "connection_closed",
        Cause::Group => "group",
        Cause::HostLost => "host_lost",
    }
}

/// The word for what makes a storm one incident.
pub fn storm_word(why: StormWhy) -> &'static str {
    match why {
        StormWhy::Share => "share",
        StormWhy::Rate => "rate",
        StormWhy::Settled => "settled",
        StormWhy::Absence => "unmuted",
    }
}

/// What is known of a box that went, as half-sentences for its summary.
pub fn diagnosis(facts: &Facts, others_gone: u32, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if !facts.witnesses.is_empty() {
        parts.push(witness_sentence(&facts.witnesses, now));
    }
    if let Some((report, received)) = &facts.report {
        let age = Duration::try_from(now.duration_since(*received)).unwrap_or_default();
        parts.push(format!(
            "last report {} before: {}",
            duration(age),
            report_sentence(report)
        ));
    }
    if let Some(remedy) = facts.last_remedy() {
        parts.push(format!("last remedy: {}", remedy_sentence(remedy)));
    }
    if others_gone > 0 {
        parts.push(format!(
            "{others_gone} other {} gone as well",
            if others_gone == 1 { "box is" } else { "boxes are" }
        ));
    }
    parts.join("; ")
}

/// The same as figures.
pub fn diagnosis_details(facts: &Facts, others_gone: u32, now: Timestamp) -> Details {
    let mut details = Details::new();
    details.insert("others_gone".into(), others_gone.into());
    if !facts.witnesses.is_empty() {
        details.insert("witnesses".into(), witness_values(&facts.witnesses, now));
    }
    if let Some((report, received)) = &facts.report {
        details.insert("report".into(), report_value(report, *received));
    }
    if let Some(remedy) = facts.last_remedy() {
        details.insert("last_remedy".into(), remedy_value(remedy));
    }
    details
}

/// A remedy in a sentence.
pub fn remedy_sentence(remedy: &RemedyReport) -> String {
    let said = if remedy.summary.is_empty() {
        remedy.why.as_str()
    } else {
        &remedy.summary
    };
    format!("{} {}: {said}", remedy.unit, remedy.outcome)
}

/// A remedy as figures. Its evidence stays in the report.
pub fn remedy_value(remedy: &RemedyReport) -> Value {
    json!({
        "at": remedy.at, "unit": remedy.unit, "outcome": remedy.outcome, "why": remedy.why, "summary": remedy.summary,
    })
}

/// What a witness found.
pub fn answer_word(answer: WitnessAnswer) -> &'static str {
    match answer {
        WitnessAnswer::Reachable => "reachable",
        WitnessAnswer::Unreachable => "unreachable",
        WitnessAnswer::Unknown => "unknown",
    }
}

/// Each witness's word, with its age.
fn witness_sentence(witnesses: &[WitnessWord], now: Timestamp) -> String {
    let one = |witness: &WitnessWord| {
        let found = match witness.answer {
            WitnessAnswer::Reachable => "the host answers",
            WitnessAnswer::Unreachable => "the host does not answer",
            WitnessAnswer::Unknown => "the witness could not ask",
        };
        let age = duration(age(witness, now));
        format!("{found} at {} ({}, {age} ago)", witness.asked, witness.detail)
    };
    witnesses.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// The same as figures.
pub fn witness_values(witnesses: &[WitnessWord], now: Timestamp) -> Value {
    let one = |witness: &WitnessWord| {
        json!({
            "name": witness.asked, "answer": answer_word(witness.answer), "detail": witness.detail,
            "age_secs": (age(witness, now).as_secs_f64() * 10.0).round() / 10.0,
        })
    };
    witnesses.iter().map(one).collect()
}

fn age(witness: &WitnessWord, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(witness.at)).unwrap_or_default()
}

fn report_sentence(report: &Report) -> String {
    let wrong: Vec<String> = report
        .checks
        .iter()
        .filter(|check| matches!(check.status, Status::Failing | Status::Warning))
        .map(|check| format!("{} {} ({})", check.name, check.status, check.why))
        .collect();
    if wrong.is_empty() {
        "nothing wrong".to_owned()
    } else {
        wrong.join(", ")
    }
}

fn report_value(report: &Report, received: Timestamp) -> Value {
    let not_ok: Vec<Value> = report
        .checks
        .iter()
        .filter(|check| check.status != Status::Ok)
        .map(|check| {
            json!({
                "check": check.name, "subject": check.subject, "status": check.status, "why": check.why,
                "summary": check.summary,
            })
        })
        .collect();
    json!({ "received_at": received, "worst": report.worst(), "not_ok": not_ok })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_heading_in_the_runbook() {
        let book = include_str!("../../../docs/runbook.md");
        for kind in Kind::ALL {
            let heading = format!("## {kind}");
            assert!(
                book.lines().any(|line| line == heading),
                "docs/runbook.md lacks {heading:?}"
            );
        }
    }

    #[test]
    fn durations_read_well() {
        let said = |ms| duration(Duration::from_millis(ms));
        assert_eq!(said(6_100), "6.1 s");
        assert_eq!(said(200_000), "3m 20s");
        assert_eq!(said(7_500_000), "2h 5m");
        assert_eq!(said(273_600_000), "3d 4h");
    }

    #[test]
    fn a_sentence_is_cut_at_a_character() {
        let cut = bounded("ä".repeat(400));
        assert!(cut.len() <= limits::SUMMARY_BYTES && cut.ends_with('…'));
        assert_eq!(bounded("short".into()), "short");
    }
}
