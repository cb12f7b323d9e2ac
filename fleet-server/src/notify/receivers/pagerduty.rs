//! PagerDuty's Events API v2: `POST /v2/enqueue`, `trigger`, `acknowledge` and `resolve` by one `dedup_key`.
//!
//! Limits as documented: `summary` 1024 characters, `dedup_key` 255, an event 512 KiB. A routing key has 32 characters.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::{EventKind, Severity};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::answer::{HttpAnswer, Taken};
use super::fit::{fit, plain};
use super::{Message, Request, below, link, post};
use crate::notify::retry::SendError;
use crate::settings::PagerDuty;

/// `payload.summary`.
const SUMMARY_CHARS: usize = 1024;
/// `dedup_key`.
const DEDUP_KEY_CHARS: usize = 255;
/// What of an incident's figures goes along, bytes as JSON: far under the event's limit.
const DETAILS_BYTES: usize = 64 * 1024;

/// The event for one notification.
pub fn request(pagerduty: &PagerDuty, message: &Message<'_>) -> Request {
    let alert = message.alert;
    let action = action(alert);
    let mut event = json!({
        "routing_key": pagerduty.routing_key.expose(),
        "event_action": action,
        "dedup_key": dedup_key(&alert.key),
    });
    if action == "trigger" {
        event["payload"] = payload(message);
        event["client"] = "Fleet Watchdog".into();
        if let Some(link) = link(alert) {
            event["client_url"] = link.into();
            event["links"] = json!([{ "href": link, "text": format!("Incident {}", alert.incident.id) }]);
        }
    }
    post(below(&pagerduty.url, "v2/enqueue"), vec![], &event)
}

/// 202 is taken; everything else is as usual.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let said = said(answer);
    // An event with a wrong key is an invalid event to PagerDuty (400), but no other event would fare better.
    let about_the_key = ["routing_key", "routing key"]
        .iter()
        .any(|word| said.to_lowercase().contains(word));
    if answer.status.as_u16() == 400 && about_the_key {
        let text = format!("answered {}: {said}; {FIX}", answer.status);
        return Err(SendError::Denied { text });
    }
    answer.usual(now, &said, None, FIX)
}

const FIX: &str =
    "put the integration key of an \"Events API V2\" integration of the service into routing_key_file";

/// `message` and every entry of `errors`.
fn said(answer: &HttpAnswer) -> String {
    let Some(body) = answer.json() else {
        return answer.said();
    };
    let errors = body["errors"].as_array().into_iter().flatten();
    let texts: Vec<&str> = std::iter::once(&body["message"])
        .chain(errors)
        .filter_map(Value::as_str)
        .collect();
    super::answer::one_line(&texts.join(": "))
}

/// What is said of one that somebody has in hand is that: a trigger would page again.
const fn action(alert: &Alert) -> &'static str {
    match (alert.event, &alert.ack) {
        (EventKind::Updated, Some(_)) => "acknowledge",
        (EventKind::Opened, _) | (EventKind::Updated, None) => "trigger",
        (EventKind::Resolved, _) => "resolve",
    }
}

/// The incident's key; one that is too long keeps its start and stays one of its own.
fn dedup_key(key: &str) -> String {
    if key.chars().count() <= DEDUP_KEY_CHARS {
        return key.to_owned();
    }
    let digest = hex::encode(Sha256::digest(key.as_bytes()));
    let start: String = key.chars().take(DEDUP_KEY_CHARS - 1 - digest.len()).collect();
    format!("{start}:{digest}")
}

fn payload(message: &Message<'_>) -> Value {
    let incident = &message.alert.incident;
    let mut payload = json!({
        "summary": fit(&message.rendered.title, SUMMARY_CHARS, plain),
        "source": incident.box_name.as_ref().map_or("fleet", |name| name.as_str()),
        "severity": severity(incident.severity),
        "timestamp": incident.opened_at.to_string(),
        "class": incident.kind.as_str(),
        "custom_details": details(message.alert, &message.rendered.text),
    });
    if let Some(subject) = incident.details.get("subject").and_then(Value::as_str) {
        payload["component"] = subject.into();
    }
    if let Some(site) = incident.labels.get("site") {
        payload["group"] = site.into();
    }
    payload
}

const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Page => "critical",
        Severity::Ticket => "warning",
        Severity::Info => "info",
    }
}

fn details(alert: &Alert, text: &str) -> Value {
    let incident = &alert.incident;
    let figures = Value::Object(incident.details.clone());
    let mut details = json!({ "text": text, "incident": incident.id, "labels": incident.labels });
    details["details"] = if figures.to_string().len() <= DETAILS_BYTES {
        figures
    } else {
        "too long for an event; see the incident".into()
    };
    details
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, answer, http, message, rendered};
    use super::*;

    fn pagerduty() -> PagerDuty {
        PagerDuty {
            url: "https://events.pagerduty.com".parse().unwrap(),
            routing_key: protocol::secret::Secret::new("e93facc04764012d7bfb002500d5d1a6"),
        }
    }

    fn sent(alert: &Alert) -> Value {
        let request = http(request(&pagerduty(), &message(alert)));
        assert_eq!(request.url.as_str(), "https://events.pagerduty.com/v2/enqueue");
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn a_trigger_has_the_diagnosis() {
        insta::assert_json_snapshot!(sent(&alert()));
    }

    #[test]
    fn the_end_has_the_same_key() {
        let mut end = alert();
        end.event = EventKind::Resolved;
        assert_eq!(
            sent(&end),
            json!({
                "routing_key": "e93facc04764012d7bfb002500d5d1a6", "event_action": "resolve",
                "dedup_key": sent(&alert())["dedup_key"],
            })
        );
    }

    #[test]
    fn an_acknowledgement_is_told_as_one() {
        let mut acked = alert();
        acked.event = EventKind::Updated;
        acked.ack = Some(protocol::incident::Ack {
            at: Timestamp::UNIX_EPOCH,
            by: "anna".into(),
            note: String::new(),
        });
        assert_eq!(sent(&acked)["event_action"], "acknowledge");
        assert_eq!(sent(&acked)["dedup_key"], sent(&alert())["dedup_key"]);
        acked.event = EventKind::Opened;
        assert_eq!(
            sent(&acked)["event_action"],
            "trigger",
            "the first it hears of it"
        );
    }

    #[test]
    fn a_long_key_is_cut_and_stays_its_own() {
        let long = |end: &str| dedup_key(&format!("box_dark:{}:{end}", "x".repeat(253)));
        assert_eq!(long("1").len(), DEDUP_KEY_CHARS);
        assert_ne!(long("1"), long("2"));
    }

    #[test]
    fn a_long_title_is_cut_and_huge_figures_are_left_out() {
        let mut big = alert();
        let names: Vec<String> = (0..500).map(|n| format!("{n:0>250}")).collect();
        big.incident.details.insert("members".into(), names.into());
        let long = super::super::tests::long_rendered();
        let message = Message {
            rendered: &long,
            ..message(&big)
        };
        let event: Value = serde_json::from_slice(&http(request(&pagerduty(), &message)).body).unwrap();
        let summary = event["payload"]["summary"].as_str().unwrap();
        assert_eq!(summary.chars().count(), SUMMARY_CHARS);
        assert!(event.to_string().len() < 512 * 1024);
        assert!(!rendered().title.is_empty());
    }

    #[test]
    fn a_wrong_key_is_named_with_the_fix() {
        let body = r#"{"status":"invalid event","message":"Event object is invalid",
            "errors":["Length of 'routing_key' is incorrect (should be 32 characters)"]}"#;
        let err = judge(&answer(400, body), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(err.word(), "denied");
        let text = err.to_string();
        for word in ["400", "should be 32 characters", "routing_key_file"] {
            assert!(text.contains(word), "{text}");
        }
        let other = r#"{"status":"invalid event","message":"Event object is invalid","errors":["'payload.severity' is invalid"]}"#;
        let err = judge(&answer(400, other), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(err.word(), "refused", "another event may be taken");
        assert_eq!(
            judge(&answer(429, ""), Timestamp::UNIX_EPOCH).unwrap_err().word(),
            "unavailable"
        );
    }
}
