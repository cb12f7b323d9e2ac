//! Pure: which receivers are told of a change, and the outbox rows that say it.
//!
//! First match wins; no routes: every receiver gets everything. Whoever was told that an incident opened is told of
//! every later change of it too, whatever the routes say by then: nobody is left with an alert that never ends.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use protocol::alert::{Alert, VERSION};
use protocol::incident::{Incident, Kind};

use super::outbox::OutboxRow;
use crate::incident::change::Change;
use crate::settings::Route;

/// Turns changes into outbox rows. Remembers who was told of which open incident.
#[derive(Debug, Default)]
pub struct Planner {
    receivers: Vec<String>,
    routes: Vec<Route>,
    told: BTreeMap<i64, BTreeSet<String>>,
}

impl Planner {
    /// Over `receivers` and `routes` of the configuration. `told` is what the store knows of open incidents:
    /// `(incident, receiver)` of every row ever queued for them.
    pub fn new(
        receivers: Vec<String>,
        routes: Vec<Route>,
        told: impl IntoIterator<Item = (i64, String)>,
    ) -> Self {
        let mut planner = Self {
            receivers,
            routes,
            told: BTreeMap::new(),
        };
        for (incident, receiver) in told {
            planner.told.entry(incident).or_default().insert(receiver);
        }
        planner
    }

    /// The rows for `changes`, in their order.
    pub fn plan(&mut self, changes: &[Change]) -> Vec<OutboxRow> {
        changes
            .iter()
            .filter(|change| change.notify)
            .flat_map(|change| self.rows(change))
            .collect()
    }

    fn rows(&mut self, change: &Change) -> Vec<OutboxRow> {
        let recipients = self.recipients(change);
        let id = change.incident.id;
        if change.incident.resolved_at.is_some() {
            self.told.remove(&id);
        } else if !recipients.is_empty() {
            self.told
                .entry(id)
                .or_default()
                .extend(recipients.iter().cloned());
        }
        recipients
            .into_iter()
            .map(|receiver| row(change, receiver))
            .collect()
    }

    fn recipients(&self, change: &Change) -> BTreeSet<String> {
        let incident = &change.incident;
        let told = self.told.get(&incident.id).cloned().unwrap_or_default();
        // Its end concerns those who heard of it, and nobody else.
        let routed = if incident.resolved_at.is_some() {
            BTreeSet::new()
        } else {
            self.routed(incident)
        };
        // A receiver that left the configuration has no worker: a row for it would wait for ever.
        told.union(&routed)
            .filter(|name| self.receivers.contains(name))
            .cloned()
            .collect()
    }

    fn routed(&self, incident: &Incident) -> BTreeSet<String> {
        let takes_it = |name: &String| Some(name.as_str()) != failing_receiver(incident);
        if self.routes.is_empty() {
            return self
                .receivers
                .iter()
                .filter(|name| takes_it(name))
                .cloned()
                .collect();
        }
        // A route whose only receivers are the failing one itself cannot tell anybody: the next one is asked.
        self.routes
            .iter()
            .filter(|route| route.matcher.matches(incident))
            .map(|route| names(route).filter(takes_it).collect::<BTreeSet<_>>())
            .find(|names| !names.is_empty() || incident.kind != Kind::ReceiverFailing)
            .unwrap_or_else(|| self.fallback(incident))
    }

    /// That a receiver fails must reach somebody: where no route takes it, every other receiver.
    fn fallback(&self, incident: &Incident) -> BTreeSet<String> {
        match failing_receiver(incident) {
            Some(failing) => self
                .receivers
                .iter()
                .filter(|name| *name != failing)
                .cloned()
                .collect(),
            None => BTreeSet::new(),
        }
    }
}

fn names(route: &Route) -> impl Iterator<Item = String> {
    route.receivers.iter().map(ToString::to_string)
}

/// The receiver that a `receiver_failing` incident is about: nobody is told of his own deafness.
fn failing_receiver(incident: &Incident) -> Option<&str> {
    if incident.kind == Kind::ReceiverFailing {
        incident.details.get("receiver")?.as_str()
    } else {
        None
    }
}

/// The row that tells `receiver` of `change`.
pub(crate) fn row(change: &Change, receiver: String) -> OutboxRow {
    OutboxRow {
        id: 0,
        receiver,
        incident_id: change.incident.id,
        alert: Alert {
            version: VERSION,
            key: key(&change.incident),
            revision: change.revision,
            event: change.event,
            incident: change.incident.clone(),
        },
        queued_at: change.at,
        attempts: 0,
        next_attempt_at: change.at,
        last_error: None,
    }
}

/// The incident's key. The time is in it because ids start anew when a database is lost, and a receiver's memory
/// outlives a database.
pub fn key(incident: &Incident) -> String {
    let about = incident.box_name.as_ref().map_or("-", |name| name.as_str());
    format!(
        "{}:{about}:{}:{}",
        incident.kind,
        incident.id,
        opened_ms(incident.opened_at)
    )
}

fn opened_ms(at: Timestamp) -> i64 {
    at.as_millisecond()
}

#[cfg(test)]
mod tests {
    use protocol::incident::{EventKind, Severity, TimelineEntry};
    use protocol::names::{BoxName, Labels, Word};

    use super::*;
    use crate::settings::Matcher;

    fn change(id: i64, kind: Kind, severity: Severity, event: EventKind) -> Change {
        let at = Timestamp::from_second(1_763_755_200 + id).unwrap();
        let incident = Incident {
            id,
            kind,
            severity,
            box_name: Some(BoxName::new("box-1").unwrap()),
            labels: Labels::from_texts([("site", "fsn1")]).unwrap(),
            opened_at: at,
            resolved_at: (event == EventKind::Resolved).then_some(at),
            summary: String::new(),
            details: serde_json::Map::new(),
        };
        let entry = TimelineEntry {
            at,
            event: event.to_string(),
            text: String::new(),
        };
        Change {
            event,
            notify: true,
            incident,
            revision: 1,
            entry,
            at,
        }
    }

    fn names(rows: &[OutboxRow]) -> Vec<&str> {
        rows.iter().map(|row| row.receiver.as_str()).collect()
    }

    fn route(severity: Option<Severity>, receivers: &[&str]) -> Route {
        let matcher = Matcher {
            severity: severity.into_iter().collect(),
            ..Matcher::default()
        };
        Route {
            matcher,
            receivers: receivers.iter().map(|name| Word::new(*name).unwrap()).collect(),
        }
    }

    fn planner(routes: Vec<Route>) -> Planner {
        Planner::new(vec!["am".into(), "hook".into(), "mail".into()], routes, [])
    }

    #[test]
    fn no_routes_everybody() {
        let rows = planner(vec![]).plan(&[change(1, Kind::BoxDark, Severity::Page, EventKind::Opened)]);
        assert_eq!(names(&rows), ["am", "hook", "mail"]);
    }

    #[test]
    fn first_match_wins_and_no_match_is_nobody() {
        let mut planner = planner(vec![
            route(Some(Severity::Page), &["hook"]),
            route(Some(Severity::Ticket), &["mail"]),
        ]);
        let page = planner.plan(&[change(1, Kind::BoxDark, Severity::Page, EventKind::Opened)]);
        let info = planner.plan(&[change(2, Kind::Disk, Severity::Info, EventKind::Opened)]);
        assert_eq!((names(&page), names(&info)), (vec!["hook"], vec![]));
    }

    #[test]
    fn who_was_told_of_the_opening_is_told_of_the_end() {
        let mut planner = planner(vec![
            route(Some(Severity::Page), &["hook"]),
            route(None, &["mail"]),
        ]);
        planner.plan(&[change(1, Kind::Gateway, Severity::Page, EventKind::Opened)]);
        let update = planner.plan(&[change(1, Kind::Gateway, Severity::Ticket, EventKind::Updated)]);
        assert_eq!(names(&update), ["hook", "mail"]);
        let end = planner.plan(&[change(1, Kind::Gateway, Severity::Ticket, EventKind::Resolved)]);
        assert_eq!(names(&end), ["hook", "mail"]);
    }

    #[test]
    fn who_was_never_told_is_not_told_of_the_end() {
        let mut planner = planner(vec![route(None, &["mail"])]);
        let end = planner.plan(&[change(9, Kind::BoxDark, Severity::Page, EventKind::Resolved)]);
        assert_eq!(names(&end), Vec::<&str>::new());
    }

    #[test]
    fn told_survives_a_restart() {
        let routes = vec![route(None, &["mail"])];
        let mut planner = Planner::new(vec!["hook".into(), "mail".into()], routes, [(7, "hook".into())]);
        let end = planner.plan(&[change(7, Kind::BoxDark, Severity::Page, EventKind::Resolved)]);
        assert_eq!(names(&end), ["hook"]);
    }

    #[test]
    fn a_failing_receiver_is_told_to_the_next_route() {
        let mut failing = change(3, Kind::ReceiverFailing, Severity::Page, EventKind::Opened);
        failing.incident.details.insert("receiver".into(), "hook".into());
        let mut planner = planner(vec![
            route(Some(Severity::Page), &["hook"]),
            route(None, &["mail"]),
        ]);
        assert_eq!(names(&planner.plan(std::slice::from_ref(&failing))), ["mail"]);
        let mut only = Planner::new(vec!["am".into(), "hook".into()], vec![route(None, &["hook"])], []);
        assert_eq!(names(&only.plan(&[failing])), ["am"]);
    }

    #[test]
    fn the_key_is_the_incidents_and_the_idempotency_key_the_notifications() {
        let mut planner = planner(vec![]);
        let opened = planner.plan(&[change(1, Kind::BoxDark, Severity::Page, EventKind::Opened)]);
        let mut end = change(1, Kind::BoxDark, Severity::Page, EventKind::Resolved);
        end.revision = 2;
        let end = planner.plan(&[end]);
        assert_eq!(opened[0].alert.key, end[0].alert.key);
        assert_ne!(opened[0].alert.idempotency_key(), end[0].alert.idempotency_key());
    }

    #[test]
    fn a_quiet_change_is_not_sent() {
        let mut quiet = change(1, Kind::BoxDark, Severity::Page, EventKind::Updated);
        quiet.notify = false;
        assert!(planner(vec![]).plan(&[quiet]).is_empty());
    }
}
