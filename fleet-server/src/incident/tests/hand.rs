//! In hand, given back, louder than before; and how loud an operator wants it.

use protocol::incident::Ack;
use protocol::matcher::Matcher;

use super::*;
use crate::incident::change::Audience;
use crate::incident::hand::steps_from;
use crate::settings::{IncidentRules, SeverityRule};

fn ack(by: &str) -> Ack {
    Ack {
        at: at(1000).wall,
        by: by.into(),
        note: "on it".into(),
    }
}

fn disk(id: u128, status: Status) -> Arc<Report> {
    let why = match status {
        Status::Ok => KnownWhy::Fine,
        Status::Warning | Status::Unknown => KnownWhy::FillingUp,
        Status::Failing => KnownWhy::BytesLow,
    };
    report(id, vec![row("disk", status, why)], vec![])
}

#[test]
fn in_hand_and_given_back_are_changes_that_are_told() {
    let mut ledger = ledger();
    let id = ledger.liveness(&dark(BOX, 0))[0].incident.id;
    let taken = ledger.acknowledge(id, ack("ann"), at(1000)).unwrap();
    assert_eq!(
        (taken.event, taken.notify, taken.revision),
        (EventKind::Updated, true, 2)
    );
    assert_eq!(
        (taken.entry.event.as_str(), taken.entry.text.as_str()),
        ("acknowledged", "by ann: on it")
    );
    assert_eq!(taken.ack, Some(ack("ann")));
    assert_eq!(ledger.acknowledge(id, ack("ann"), at(2000)), None, "said before");
    assert!(
        ledger.acknowledge(id, ack("bob"), at(2000)).is_some(),
        "in other hands"
    );
    let back = ledger.unacknowledge(id, "bob", "", at(3000)).unwrap();
    assert_eq!(
        (back.ack.clone(), back.entry.event.as_str()),
        (None, "unacknowledged")
    );
    assert_eq!(steps_from(&back.incident), at(3000).wall);
    assert_eq!(
        ledger.unacknowledge(id, "bob", "", at(4000)),
        None,
        "nobody has it"
    );
    let end = ledger.liveness(&live(BOX, 5000)).remove(0);
    assert_eq!((end.event, end.revision), (EventKind::Resolved, 5));
    assert_eq!(ledger.acknowledge(id, ack("ann"), at(6000)), None, "it is over");
}

#[test]
fn louder_than_what_was_acknowledged_is_nobodys_any_more() {
    let mut ledger = ledger();
    let id = hear(&mut ledger, 0, &disk(1, Status::Warning))[0].incident.id;
    ledger.acknowledge(id, ack("ann"), at(1000));
    let louder = hear(&mut ledger, 2000, &disk(2, Status::Failing)).remove(0);
    assert!(louder.notify && louder.ack.is_none());
    assert_eq!(steps_from(&louder.incident), at(2000).wall);
    assert!(
        louder
            .entry
            .text
            .starts_with("louder than when ann acknowledged it: box-0: disk"),
        "{}",
        louder.entry.text
    );
    // As loud as before: it stays in hand.
    ledger.acknowledge(id, ack("ann"), at(3000));
    let same = hear(
        &mut ledger,
        4000,
        &report(3, vec![row("disk", Status::Failing, KnownWhy::InodesLow)], vec![]),
    );
    assert_eq!(same[0].ack, Some(ack("ann")));
    assert_eq!(steps_from(&same[0].incident), at(2000).wall);
}

#[test]
fn said_again_it_has_a_revision_and_a_line() {
    let mut ledger = ledger();
    let id = ledger.liveness(&dark(BOX, 0))[0].incident.id;
    let to = Audience::Only(["phone".to_owned()].into());
    let again = ledger
        .again(
            id,
            EventKind::Opened,
            "nobody has acknowledged it".into(),
            at(1000),
            to.clone(),
        )
        .unwrap();
    assert_eq!((again.revision, again.notify, &again.to), (2, true, &to));
    assert_eq!(
        (again.entry.event.as_str(), again.entry.text.as_str()),
        ("notified", "nobody has acknowledged it")
    );
    assert!(
        again.incident.summary.starts_with("box-0 is dark"),
        "the incident is as it was"
    );
    assert_eq!(
        ledger.again(99, EventKind::Opened, String::new(), at(1000), to),
        None
    );
}

#[test]
fn an_operator_says_how_loud() {
    let rule = |text: &str, severity| SeverityRule {
        matcher: serde_json::from_str::<Matcher>(text).unwrap(),
        severity,
    };
    let mut ledger = ledger().with_rules(IncidentRules {
        severities: vec![
            rule(r#"{"kind":["disk"],"severity":["info"]}"#, Severity::Ticket),
            rule(r#"{"kind":["backup"],"labels":{"site":"fsn1"}}"#, Severity::Page),
            rule(
                r#"{"kind":["backup","tailscale"],"labels":{"site":"nbg1"}}"#,
                Severity::Info,
            ),
            rule(r#"{"kind":["box_dark"]}"#, Severity::Ticket),
        ],
        flapping: None,
    });
    let severity = |changes: Vec<Change>| changes[0].incident.severity;
    let said = |ledger: &mut Ledger, id, name, status| {
        let row = row(name, status, KnownWhy::CheckError);
        severity(ledger.report(
            BoxIx(id as u32 % 5),
            &report(id, vec![row], vec![]),
            at(0).wall,
            at(0),
        ))
    };
    assert_eq!(said(&mut ledger, 1, "backup", Status::Failing), Severity::Page);
    assert_eq!(
        said(&mut ledger, 2, "backup", Status::Warning),
        Severity::Info,
        "a warning is not what was meant"
    );
    assert_eq!(
        said(&mut ledger, 3, "disk", Status::Warning),
        Severity::Ticket,
        "meant by name"
    );
    assert_eq!(
        said(&mut ledger, 8, "disk", Status::Failing),
        Severity::Page,
        "louder, by the table"
    );
    assert_eq!(
        said(&mut ledger, 4, "tailscale", Status::Failing),
        Severity::Ticket,
        "other boxes' rule"
    );
    assert_eq!(severity(ledger.liveness(&dark(BOX, 0))), Severity::Ticket);
}
