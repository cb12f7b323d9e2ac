//! Alertmanager: `POST /api/v2/alerts`, to every URL of a cluster.
//!
//! An alert there lives until its `endsAt`; while an incident is open it is sent again every [`REFRESH`] with an
//! `endsAt` three refreshes ahead, so that one lost refresh, or a restart of this server, never resolves it.
//!
//! The label set is an alert's identity there, and the severity has to be in it, because Alertmanager's routes go by
//! labels. So when an incident's severity changes, the alert of the other severities is ended in the same request.

use std::time::Duration;

use jiff::Timestamp;
use protocol::incident::{EventKind, Incident, Kind, Severity};
use serde_json::{Map, Value, json};

use super::answer::{HttpAnswer, Taken};
use super::{Message, Request, below, link, post};
use crate::notify::retry::SendError;
use crate::settings::Alertmanager;

/// Between two sendings of a firing alert.
pub const REFRESH: Duration = Duration::from_secs(60);
/// How far ahead `endsAt` of a firing alert lies.
const ENDS_AHEAD: Duration = Duration::from_secs(180);
/// Alerts in one request: far under Alertmanager's own body limit.
pub const BATCH: usize = 200;

/// One request to each member for one notification.
pub fn requests(cluster: &Alertmanager, message: &Message<'_>, now: Timestamp) -> Vec<Request> {
    let incident = &message.alert.incident;
    let mut alerts = vec![entry(message, incident.severity, ends_at(incident, now))];
    if message.alert.event == EventKind::Updated {
        let others = Severity::ALL
            .iter()
            .filter(|&&severity| severity != incident.severity);
        alerts.extend(others.map(|&severity| entry(message, severity, now)));
    }
    to_all(cluster, &alerts)
}

/// One request to each member that keeps open incidents firing. At most [`BATCH`] of them.
pub fn refresh(cluster: &Alertmanager, open: &[Message<'_>], now: Timestamp) -> Vec<Request> {
    let alerts: Vec<Value> = open
        .iter()
        .map(|message| {
            let incident = &message.alert.incident;
            entry(message, incident.severity, ends_at(incident, now))
        })
        .collect();
    to_all(cluster, &alerts)
}

/// Any 2xx is taken.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let fix = "does the url lead to an Alertmanager (its path prefix, --web.route-prefix), past every proxy?";
    answer.usual(now, &answer.said(), None, fix)
}

fn to_all(cluster: &Alertmanager, alerts: &[Value]) -> Vec<Request> {
    let body = Value::from(alerts);
    cluster
        .urls
        .iter()
        .map(|url| post(below(url, "api/v2/alerts"), vec![], &body))
        .collect()
}

fn ends_at(incident: &Incident, now: Timestamp) -> Timestamp {
    incident.resolved_at.unwrap_or(now + ENDS_AHEAD)
}

fn entry(message: &Message<'_>, severity: Severity, ends_at: Timestamp) -> Value {
    let incident = &message.alert.incident;
    let mut entry = json!({
        "labels": labels(message, severity),
        "annotations": { "summary": incident.summary, "description": message.rendered.text },
        // An alert may not end before it starts: a clock set back in between must not make the request invalid.
        "startsAt": incident.opened_at.min(ends_at).to_string(),
        "endsAt": ends_at.to_string(),
    });
    if let Some(link) = link(message.alert) {
        entry["generatorURL"] = link.into();
    }
    entry
}

/// The alert's identity: what never changes while the incident is open, and the severity.
fn labels(message: &Message<'_>, severity: Severity) -> Map<String, Value> {
    let incident = &message.alert.incident;
    let mut labels: Map<String, Value> = incident
        .labels
        .iter()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    labels.insert("alertname".into(), alert_name(incident.kind).into());
    labels.insert("kind".into(), incident.kind.as_str().into());
    labels.insert("severity".into(), severity.as_str().into());
    labels.insert("incident".into(), incident.id.to_string().into());
    if let Some(name) = &incident.box_name {
        labels.insert("box".into(), name.as_str().into());
    }
    if message.alert.test {
        labels.insert("test".into(), "true".into());
    }
    labels
}

/// The kind in Alertmanager's custom: `box_dark` is `FleetBoxDark`.
fn alert_name(kind: Kind) -> String {
    let words = kind.as_str().split('_').map(|word| {
        let mut letters = word.chars();
        letters
            .next()
            .map(|first| first.to_ascii_uppercase())
            .into_iter()
            .chain(letters)
            .collect::<String>()
    });
    std::iter::once("Fleet".to_owned()).chain(words).collect()
}

#[cfg(test)]
mod tests {
    use protocol::alert::Alert;
    use url::Url;

    use super::super::tests::{alert, http, message};
    use super::*;

    fn cluster() -> Alertmanager {
        let urls = ["http://127.0.0.1:9093", "http://127.0.0.1:9094/am/"];
        Alertmanager {
            urls: urls.map(|url| Url::parse(url).unwrap()).to_vec(),
        }
    }

    fn sent(alert: &Alert, now: Timestamp) -> Vec<Value> {
        let first = http(requests(&cluster(), &message(alert), now).swap_remove(0));
        serde_json::from_slice(&first.body).unwrap()
    }

    #[test]
    fn every_url_gets_the_alert_below_its_prefix() {
        let now = Timestamp::from_second(1_763_755_210).unwrap();
        let alert = alert();
        let requests = requests(&cluster(), &message(&alert), now);
        let to: Vec<String> = requests
            .into_iter()
            .map(|request| http(request).url.to_string())
            .collect();
        assert_eq!(
            to,
            [
                "http://127.0.0.1:9093/api/v2/alerts",
                "http://127.0.0.1:9094/am/api/v2/alerts"
            ]
        );
        insta::assert_json_snapshot!(sent(&alert, now));
    }

    #[test]
    fn a_change_of_severity_ends_the_alerts_of_the_others() {
        let now = Timestamp::from_second(1_763_755_210).unwrap();
        let updated = Alert {
            event: EventKind::Updated,
            ..alert()
        };
        let alerts = sent(&updated, now);
        let ended: Vec<_> = alerts
            .iter()
            .filter(|alert| alert["endsAt"] == now.to_string().as_str())
            .map(|alert| alert["labels"]["severity"].as_str().unwrap())
            .collect();
        assert_eq!(ended, ["ticket", "info"]);
    }

    #[test]
    fn resolved_ends_when_it_was_resolved() {
        let mut resolved = Alert {
            event: EventKind::Resolved,
            ..alert()
        };
        let end = Timestamp::from_second(1_763_755_205).unwrap();
        resolved.incident.resolved_at = Some(end);
        let now = Timestamp::from_second(1_763_755_999).unwrap();
        assert_eq!(sent(&resolved, now)[0]["endsAt"], end.to_string().as_str());
    }

    #[test]
    fn a_test_says_so_in_a_label() {
        let test = Alert {
            test: true,
            ..alert()
        };
        assert_eq!(sent(&test, Timestamp::UNIX_EPOCH)[0]["labels"]["test"], "true");
    }

    #[test]
    fn names_are_alertmanagers_custom() {
        assert_eq!(alert_name(Kind::BoxDark), "FleetBoxDark");
        assert_eq!(alert_name(Kind::RemedyGaveUp), "FleetRemedyGaveUp");
    }
}
