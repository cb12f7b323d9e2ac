//! Alertmanager: `POST /api/v2/alerts`, to every URL of a cluster.
//!
//! An alert there lives until its `endsAt`; while an incident is open it is sent again every [`REFRESH`] with an
//! `endsAt` three refreshes ahead, so that one lost refresh, or a restart of this server, never resolves it.
//!
//! The label set is an alert's identity there, and the severity has to be in it, because Alertmanager's routes go by
//! labels. So when an incident's severity changes, the alert of the other severities is ended in the same request.

use std::time::Duration;

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::{EventKind, Incident, Kind, Severity};
use serde_json::{Map, Value, json};
use url::Url;

use super::Request;

/// Between two sendings of a firing alert.
pub const REFRESH: Duration = Duration::from_secs(60);
/// How far ahead `endsAt` of a firing alert lies.
const ENDS_AHEAD: Duration = Duration::from_secs(180);
/// Alerts in one request: far under Alertmanager's own body limit.
pub const BATCH: usize = 200;

/// One request to each of `urls` for one notification.
pub fn requests(urls: &[Url], alert: &Alert, now: Timestamp) -> Vec<Request> {
    let incident = &alert.incident;
    let mut alerts = vec![entry(incident, incident.severity, ends_at(incident, now))];
    if alert.event == EventKind::Updated {
        let others = Severity::ALL
            .iter()
            .filter(|&&severity| severity != incident.severity);
        alerts.extend(others.map(|&severity| entry(incident, severity, now)));
    }
    post(urls, &alerts)
}

/// One request to each of `urls` that keeps `open` incidents firing. At most [`BATCH`] of them.
pub fn refresh(urls: &[Url], open: &[Incident], now: Timestamp) -> Vec<Request> {
    let alerts: Vec<Value> = open
        .iter()
        .map(|incident| entry(incident, incident.severity, ends_at(incident, now)))
        .collect();
    post(urls, &alerts)
}

fn post(urls: &[Url], alerts: &[Value]) -> Vec<Request> {
    let body = serde_json::to_vec(alerts).expect("JSON values have only string keys");
    urls.iter()
        .map(|url| Request {
            url: endpoint(url),
            headers: vec![],
            body: body.clone(),
        })
        .collect()
}

/// `url`, with the API's path behind whatever prefix it has.
fn endpoint(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/api/v2/alerts", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

fn ends_at(incident: &Incident, now: Timestamp) -> Timestamp {
    incident.resolved_at.unwrap_or(now + ENDS_AHEAD)
}

fn entry(incident: &Incident, severity: Severity, ends_at: Timestamp) -> Value {
    json!({
        "labels": labels(incident, severity),
        "annotations": { "summary": incident.summary },
        // An alert may not end before it starts: a clock set back in between must not make the request invalid.
        "startsAt": incident.opened_at.min(ends_at).to_string(),
        "endsAt": ends_at.to_string(),
    })
}

/// The alert's identity: what never changes while the incident is open, and the severity.
fn labels(incident: &Incident, severity: Severity) -> Map<String, Value> {
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
    use super::super::tests::alert;
    use super::*;

    fn urls() -> Vec<Url> {
        ["http://127.0.0.1:9093", "http://127.0.0.1:9094/am/"]
            .map(|url| Url::parse(url).unwrap())
            .to_vec()
    }

    fn body(request: &Request) -> Vec<Value> {
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn every_url_gets_the_alert_below_its_prefix() {
        let now = Timestamp::from_second(1_763_755_210).unwrap();
        let requests = requests(&urls(), &alert(), now);
        let to: Vec<&str> = requests.iter().map(|request| request.url.as_str()).collect();
        assert_eq!(
            to,
            [
                "http://127.0.0.1:9093/api/v2/alerts",
                "http://127.0.0.1:9094/am/api/v2/alerts"
            ]
        );
        insta::assert_json_snapshot!(body(&requests[0]));
    }

    #[test]
    fn a_change_of_severity_ends_the_alerts_of_the_others() {
        let now = Timestamp::from_second(1_763_755_210).unwrap();
        let updated = Alert {
            event: EventKind::Updated,
            ..alert()
        };
        let alerts = body(&requests(&urls(), &updated, now)[0]);
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
        assert_eq!(
            body(&requests(&urls(), &resolved, now)[0])[0]["endsAt"],
            end.to_string().as_str()
        );
    }

    #[test]
    fn names_are_alertmanagers_custom() {
        assert_eq!(alert_name(Kind::BoxDark), "FleetBoxDark");
        assert_eq!(alert_name(Kind::RemedyGaveUp), "FleetRemedyGaveUp");
    }
}
