//! What templates can use, by name. Every name is always there; what an incident lacks is none.
//!
//! | name | what |
//! |---|---|
//! | `event` | `opened`, `updated`, `resolved` … |
//! | `kind` `severity` `id` `key` `summary` `test` `receiver` | of the incident and this notification |
//! | `note` | why this is sent: a reminder, an acknowledgement; often empty |
//! | `ack` | who has it in hand: `ack.by`, `ack.at`, `ack.note`; none |
//! | `box` | the box's name; none for a group or the server |
//! | `about` | the box with its unit, or the group, or the receiver |
//! | `labels` `label_list` | a map; `customer=acme, site=fsn1` |
//! | `opened_at` `resolved_at` `lasted` `last_seen` | `2026-11-21 20:00:00 UTC`, `3m 20s` |
//! | `witnesses` | a list of sentences, one a witness |
//! | `report` `remedy` `others_gone` `members` | the diagnosis, in words |
//! | `account` `evidence` | why a box that is back was silent: `reboot: …`; a list of lines |
//! | `link` `runbook` | where to read on |
//! | `details` | the incident's own figures and evidence, as the API has them |

use std::time::Duration;

use jiff::Timestamp;
use protocol::alert::Alert;
use serde_json::{Map, Value, json};

use crate::incident::text::{duration, moment};

/// Members of a group that are named in a text; the rest is a number.
const MEMBERS: usize = 20;

/// Lines of evidence that are shown.
const EVIDENCE: usize = 8;

/// The variables for `alert`.
pub(super) fn of(alert: &Alert, receiver: &str) -> Value {
    let incident = &alert.incident;
    let details = &incident.details;
    let lasted = incident.resolved_at.map(|end| {
        let took = Duration::try_from(end.duration_since(incident.opened_at)).unwrap_or_default();
        duration(took)
    });
    let label_list: Vec<String> = incident
        .labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    json!({
        "test": alert.test,
        "event": alert.event,
        "key": alert.key,
        "receiver": receiver,
        "id": incident.id,
        "kind": incident.kind,
        "severity": incident.severity,
        "summary": incident.summary,
        "note": alert.note,
        "ack": alert.ack,
        "box": incident.box_name,
        "about": about(alert),
        "labels": incident.labels,
        "label_list": label_list.join(", "),
        "opened_at": moment(incident.opened_at),
        "resolved_at": incident.resolved_at.map(moment),
        "lasted": lasted,
        "last_seen": time(details.get("last_seen")).map(moment),
        "witnesses": witnesses(details),
        "report": details.get("report").and_then(report),
        "remedy": details.get("last_remedy").and_then(remedy),
        "others_gone": details.get("others_gone"),
        "members": members(details),
        "account": details.get("account").and_then(account),
        "evidence": details.get("account").map(evidence).unwrap_or_default(),
        "link": details.get("link"),
        "runbook": details.get("runbook"),
        "details": details,
    })
}

fn about(alert: &Alert) -> Option<String> {
    let incident = &alert.incident;
    let subject = text(incident.details.get("subject"));
    match (&incident.box_name, subject) {
        (Some(name), Some(subject)) => Some(format!("{name} {subject}")),
        (Some(name), None) => Some(name.to_string()),
        (None, subject) => subject.map(str::to_owned),
    }
}

/// One witness or a list of them.
fn witnesses(details: &Map<String, Value>) -> Vec<String> {
    let several = details.get("witnesses").and_then(Value::as_array);
    let one = details.get("witness");
    several
        .into_iter()
        .flatten()
        .chain(one)
        .filter_map(witness)
        .collect()
}

fn witness(value: &Value) -> Option<String> {
    if let Some(sentence) = value.as_str() {
        return Some(sentence.to_owned());
    }
    let answer = value.get("answer")?.as_str()?;
    let mut said = match text(value.get("name")) {
        Some(name) => format!("{name} is {answer}"),
        None => answer.to_owned(),
    };
    if let Some(detail) = text(value.get("detail")) {
        said = format!("{said} ({detail})");
    }
    Some(match value.get("age_secs").and_then(Value::as_f64) {
        Some(secs) => format!("{said}, {secs} s before"),
        None => said,
    })
}

/// What a box that is back says of its silence: the verdict's word, and its sentence.
fn account(value: &Value) -> Option<String> {
    let verdict = text(value.get("verdict"))?;
    Some(match text(value.get("summary")) {
        Some(said) => format!("{verdict}: {said}"),
        None => verdict.to_owned(),
    })
}

/// What that rests on: its evidence, and what it had tried meanwhile.
fn evidence(value: &Value) -> Vec<String> {
    let list = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let attempt = |attempt: &Value| {
        let part = |name: &str| text(attempt.get(name)).unwrap_or("?").to_owned();
        let times = attempt.get("times").and_then(Value::as_u64).unwrap_or(0);
        let (url, step, detail) = (part("url"), part("step"), part("detail"));
        let way = text(attempt.get("family")).map(|family| format!(" over {family}"));
        format!("{times} times {url}{}: {step}, {detail}", way.unwrap_or_default())
    };
    let said = list("evidence")
        .into_iter()
        .filter_map(|line| line.as_str().map(str::to_owned));
    said.chain(list("attempts").iter().map(attempt))
        .take(EVIDENCE)
        .collect()
}

fn report(value: &Value) -> Option<String> {
    let received = time(value.get("received_at")).map(|at| format!("{}: ", moment(at)));
    let rows = value
        .get("not_ok")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let wrong: Vec<String> = rows
        .filter_map(|row| {
            let check = text(row.get("check"))?;
            let status = text(row.get("status"))?;
            let said = text(row.get("summary")).or_else(|| text(row.get("why")))?;
            Some(format!("{check} {status}, {said}"))
        })
        .collect();
    let said = if wrong.is_empty() {
        "all checks ok".to_owned()
    } else {
        wrong.join("; ")
    };
    Some(format!("{}{said}", received?))
}

fn remedy(value: &Value) -> Option<String> {
    let unit = text(value.get("unit"))?;
    let outcome = text(value.get("outcome"))?;
    let mut said = format!("{unit} {outcome}");
    if let Some(why) = text(value.get("summary")).or_else(|| text(value.get("why"))) {
        said = format!("{said}: {why}");
    }
    Some(match time(value.get("at")) {
        Some(at) => format!("{said} ({})", moment(at)),
        None => said,
    })
}

fn members(details: &Map<String, Value>) -> Option<String> {
    let names: Vec<&str> = details
        .get("members")?
        .as_array()?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let shown = names.iter().take(MEMBERS).copied().collect::<Vec<_>>().join(", ");
    let all = details
        .get("gone")
        .and_then(Value::as_u64)
        .unwrap_or(names.len() as u64);
    let rest = all.saturating_sub(names.len().min(MEMBERS) as u64);
    Some(if rest > 0 {
        format!("{shown} and {rest} more")
    } else {
        shown
    })
}

fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str().filter(|text| !text.is_empty())
}

fn time(value: Option<&Value>) -> Option<Timestamp> {
    value?.as_str()?.parse().ok()
}
