//! The oracle takes what a good server does, and finds each way in which one can be bad: histories made by hand, then
//! spoilt.

use jiff::Timestamp;
use protocol::alert::{Alert, VERSION};
use protocol::api::{BoxRow, IncidentDetail, Liveness};
use protocol::incident::{Ack, EventKind, Incident, Kind};
use protocol::names::Labels;
use serde_json::json;

use super::*;
use crate::faults::history::{
    Absence, Books, BoxTruth, Done, Gone, RULES, ReceiverTruth, Restart, ServerTruth, Span, Told,
};
use crate::faults::tamper::Tamper;

const END_MS: i64 = 30_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_763_755_200_000 + ms).unwrap()
}

fn span(from_ms: i64, to_ms: i64) -> Span {
    Span { from_ms, to_ms }
}

// By JSON, as a receiver and a client of the API see them: a field more is no matter of theirs.

fn incident(id: i64, kind: Kind, about: Option<&str>, opened_ms: i64, resolved_ms: Option<i64>) -> Incident {
    of_json(json!({
        "id": id, "kind": kind, "severity": "page", "box": about, "opened_at": at(opened_ms),
        "resolved_at": resolved_ms.map(at), "summary": format!("{kind}, resolved: {}", resolved_ms.is_some()),
    }))
}

fn of_json<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> T {
    serde_json::from_value(json).unwrap()
}

fn told(revision: u32, event: EventKind, incident: &Incident, at_ms: i64, answered: Option<u16>) -> Told {
    let alert: Alert = of_json(json!({
        "version": VERSION, "key": format!("{}:{}", incident.kind, incident.id), "revision": revision, "event": event,
        "incident": incident,
    }));
    Told {
        at_ms,
        answered,
        answered_ms: answered.map(|_| at_ms),
        idempotency_key: alert.idempotency_key(),
        connection: 1,
        alert,
    }
}

fn row(name: &str, state: Liveness) -> BoxRow {
    of_json(
        json!({ "name": name, "state": state, "state_since": at(0), "last_seen": at(0), "open_incidents": 0 }),
    )
}

fn detail(incident: &Incident) -> IncidentDetail {
    let mut json = json!(incident);
    json["ack"] = serde_json::Value::Null;
    of_json(json)
}

/// `a` was gone from 5 s to 10 s and dark from 6.4 s on, the server was killed at 15 s; `b` was well.
fn good() -> History {
    let opened = incident(1, Kind::BoxDark, Some("a"), 6400, None);
    let ended = incident(1, Kind::BoxDark, Some("a"), 6400, Some(10_200));
    let receiver = |name: &str| ReceiverTruth {
        name: name.to_owned(),
        cut: Vec::new(),
        told: vec![
            told(1, EventKind::Opened, &opened, 6450, Some(200)),
            told(2, EventKind::Resolved, &ended, 10_250, Some(200)),
        ],
        garbled: Vec::new(),
    };
    let truth = |name: &str, gone: Vec<Absence>| BoxTruth {
        name: name.to_owned(),
        site: "fsn1".to_owned(),
        gone,
        answered_ms: (0..100)
            .map(|n| n * 300)
            .filter(|at| name == "b" || !(5000..10_100).contains(at))
            .collect(),
        failing: Vec::new(),
    };
    let gone = Absence {
        span: span(5000, 10_000),
        why: Gone::Silent,
    };
    let books = |at_ms: i64| Books {
        at_ms,
        boxes: vec![row("a", Liveness::Live), row("b", Liveness::Live)],
        incidents: vec![detail(&ended)],
        silences: Vec::new(),
    };
    History {
        rules: RULES,
        boxes: vec![truth("a", vec![gone]), truth("b", Vec::new())],
        server: ServerTruth {
            serving: vec![span(0, 15_000), span(15_500, Span::OPEN)],
            died_ms: vec![15_000],
            ..ServerTruth::default()
        },
        step_ms: None,
        receivers: vec![receiver("hook-0"), receiver("hook-1")],
        restarts: vec![Restart {
            asked: false,
            before: books(14_990),
            after: books(15_510),
        }],
        done: Vec::new(),
        last: books(END_MS),
        refused: Vec::new(),
        unsettled: Vec::new(),
        zero: at(0),
        starved_ms: 0,
        starved_percent: 0,
        ended_ms: END_MS,
    }
}

fn rules(history: &History) -> Vec<Rule> {
    let mut rules: Vec<Rule> = judge(history).iter().map(|violation| violation.rule).collect();
    rules.sort_unstable();
    rules.dedup();
    rules
}

/// The good history, changed.
fn with(change: impl FnOnce(&mut History)) -> Vec<Rule> {
    let mut history = good();
    change(&mut history);
    rules(&history)
}

#[test]
fn a_good_server_is_taken() {
    assert_eq!(judge(&good()), []);
}

#[test]
fn every_way_to_spoil_it_is_found() {
    let wanted = [
        (Tamper::Drop, Rule::Order),
        (Tamper::Repeat, Rule::Repeated),
        (Tamper::Reorder, Rule::Order),
        (Tamper::Invent, Rule::Unexplained),
        (Tamper::Forget, Rule::Lost),
    ];
    assert_eq!(wanted.map(|(way, _)| way), Tamper::ALL);
    for (way, rule) in wanted {
        let mut history = good();
        assert!(way.spoil(&mut history), "{way}");
        let found = rules(&history);
        assert!(found.contains(&rule), "{way}: {found:?}");
    }
}

#[test]
fn an_update_that_never_arrived_is_missed() {
    let skipped = |history: &mut History| {
        for told in &mut history.receivers[1].told {
            if told.alert.revision == 2 {
                told.alert.revision = 3;
                told.idempotency_key = told.alert.idempotency_key();
            }
        }
    };
    assert_eq!(with(skipped), [Rule::Lost]);
}

#[test]
fn a_box_that_was_gone_for_long_must_be_told_of() {
    let untold = |history: &mut History| {
        for receiver in &mut history.receivers {
            receiver.told.clear();
        }
        history.last.incidents.clear();
        history.restarts.clear();
    };
    assert_eq!(with(untold), [Rule::Lost]);
    // A server that stood still all the while could not know.
    let stood_still = |history: &mut History| {
        untold(history);
        history.server.hung.push(span(4000, 11_000));
    };
    assert_eq!(with(stood_still), []);
}

#[test]
fn a_page_before_its_time_or_after_the_return_is_not_explained() {
    for opened_ms in [4000, 5500, 6000, 14_000] {
        let found = with(|history| {
            for told in history
                .receivers
                .iter_mut()
                .flat_map(|receiver| &mut receiver.told)
            {
                told.alert.incident.opened_at = at(opened_ms);
            }
            history.last.incidents[0].incident.opened_at = at(opened_ms);
            history.restarts.clear();
        });
        assert!(found.contains(&Rule::Unexplained), "{opened_ms}: {found:?}");
    }
}

#[test]
fn an_end_without_a_return_is_not_explained() {
    let still_gone = |history: &mut History| history.boxes[0].gone[0].span.to_ms = 20_000;
    assert!(with(still_gone).contains(&Rule::Unexplained));
}

#[test]
fn a_blindness_needs_several_boxes_gone_and_a_group_its_members() {
    let also = |kind: Kind, members: &[&str]| {
        let mut strange = incident(2, kind, None, 7000, None);
        strange.details.insert("members".to_owned(), json!(members));
        with(|history| {
            for receiver in &mut history.receivers {
                receiver
                    .told
                    .push(told(1, EventKind::Opened, &strange, 7050, Some(200)));
            }
            history.last.incidents.push(detail(&strange));
        })
    };
    assert_eq!(also(Kind::ServerBlind, &[]), [Rule::Unexplained]);
    assert_eq!(also(Kind::SiteDark, &["a", "b"]), [Rule::Unexplained]);
}

#[test]
fn a_repeat_is_excused_by_what_kept_the_server_from_hearing_or_writing_and_by_nothing_else() {
    let repeated = |change: &dyn Fn(&mut History)| {
        with(|history| {
            let again = Told {
                at_ms: 8000,
                answered_ms: Some(8000),
                ..history.receivers[0].told[0].clone()
            };
            history.receivers[0].told.insert(1, again);
            change(history);
        })
    };
    assert_eq!(repeated(&|_| {}), [Rule::Repeated]);
    assert_eq!(repeated(&|history| history.server.died_ms.push(6460)), []);
    assert_eq!(
        repeated(&|history| history.server.died_ms.push(7900)),
        [Rule::Repeated]
    );
    assert_eq!(
        repeated(&|history| history.server.disk_ill.push(span(6000, 7000))),
        []
    );
    assert_eq!(
        repeated(&|history| history.server.disk_ill.push(span(2000, 6000))),
        [Rule::Repeated]
    );
    assert_eq!(
        repeated(&|history| history.receivers[0].cut.push(span(6440, 7000))),
        []
    );
    assert_eq!(
        repeated(&|history| history.receivers[1].cut.push(span(6440, 7000))),
        [Rule::Repeated]
    );
    let orphaned = |history: &mut History| {
        history.receivers[0].cut.push(span(1000, 6000));
        history.server.died_ms.push(3000);
    };
    assert_eq!(repeated(&orphaned), []);
    // What was answered 500, or not at all, must come again.
    assert_eq!(
        repeated(&|history| history.receivers[0].told[0].answered = Some(500)),
        []
    );
}

#[test]
fn what_comes_after_the_end_is_out_of_order() {
    let late = |history: &mut History| {
        let mut late = history.receivers[0].told[0].clone();
        late.alert.event = EventKind::Updated;
        late.alert.revision = 3;
        late.idempotency_key = late.alert.idempotency_key();
        late.at_ms = 11_000;
        history.receivers[0].told.push(late);
    };
    assert!(with(late).contains(&Rule::Order));
    let two_things =
        |history: &mut History| history.receivers[1].told[1].alert.incident.summary = "else".into();
    assert_eq!(with(two_things), [Rule::Order]);
}

#[test]
fn what_a_restart_forgets_is_found() {
    let after = |change: &dyn Fn(&mut Books)| with(|history| change(&mut history.restarts[0].after));
    assert_eq!(after(&|books| books.incidents.clear()), [Rule::Restart]);
    assert_eq!(
        after(&|books| books.incidents[0].incident.resolved_at = None),
        [Rule::Restart]
    );
    assert_eq!(after(&|books| drop(books.boxes.pop())), [Rule::Restart]);
    assert_eq!(
        after(&|books| books.boxes[1].state = Liveness::Dark),
        [Rule::Restart]
    );
    let labels = Labels::from_texts([("site", "moon")]).unwrap();
    assert_eq!(
        after(&|books| books.boxes[1].labels = labels.clone()),
        [Rule::Restart]
    );
    let unseen = |history: &mut History| {
        history.restarts[0].before.boxes[1].last_seen = Some(at(14_900));
        history.restarts[0].after.boxes[1].last_seen = Some(at(5000));
    };
    assert_eq!(with(unseen), [Rule::Restart]);
}

#[test]
fn a_silence_excuses_what_opened_in_it_and_nothing_else() {
    let silence = |at_ms: i64, until_ms: i64| Done::Silenced {
        asked_ms: at_ms,
        at_ms,
        id: 1,
        about: Some("a".to_owned()),
        until_ms,
    };
    let untold = |silenced: Option<Done>| {
        let mut history = good();
        for receiver in &mut history.receivers {
            receiver.told.clear();
        }
        history.done.extend(silenced);
        lacks(&history).len()
    };
    assert_eq!(untold(None), 2, "each receiver lacks it");
    assert_eq!(
        untold(Some(silence(5000, 10_000))),
        0,
        "it was over before the silence was"
    );
    assert_eq!(
        untold(Some(silence(7000, 10_000))),
        2,
        "it opened before the silence"
    );
    let told_all_the_same = |history: &mut History| history.done.push(silence(5000, 9000));
    assert!(with(told_all_the_same).contains(&Rule::Unexplained));
}

#[test]
fn who_knew_before_a_silence_must_hear_after_it_unless_somebody_has_it_in_hand() {
    let lacking = |change: &dyn Fn(&mut History)| {
        let mut history = good();
        history.last.incidents[0].incident.resolved_at = None;
        history.boxes[0].gone[0].span.to_ms = Span::OPEN;
        history.done.push(Done::Silenced {
            asked_ms: 8000,
            at_ms: 8000,
            id: 1,
            about: Some("a".to_owned()),
            until_ms: 12_000,
        });
        for receiver in &mut history.receivers {
            receiver.told.pop();
        }
        change(&mut history);
        lacks(&history).len()
    };
    assert_eq!(lacking(&|_| {}), 2, "neither heard of it again");
    let again = lacking(&|history| {
        let opened = incident(1, Kind::BoxDark, Some("a"), 6400, None);
        for receiver in &mut history.receivers {
            let row = told(2, EventKind::Updated, &opened, 12_400, Some(200));
            receiver.told.push(row);
        }
    });
    assert_eq!(again, 0);
    let in_hand = lacking(&|history| {
        history.last.incidents[0].ack = Some(Ack {
            at: at(9000),
            by: "admin".into(),
            note: String::new(),
        });
    });
    assert_eq!(in_hand, 0);
    let away = lacking(&|history| history.server.hung.push(span(7900, 12_100)));
    assert_eq!(away, 0, "it never knew of the silence");
}

#[test]
fn a_step_that_is_due_must_be_told_and_one_that_is_not_need_not() {
    let second_untold = |change: &dyn Fn(&mut History)| {
        let mut history = good();
        history.step_ms = Some(1000);
        history.receivers[1].told.clear();
        change(&mut history);
        lacks(&history).len()
    };
    assert_eq!(second_untold(&|_| {}), 0, "it was over");
    let goes_on = |history: &mut History| {
        history.last.incidents[0].incident.resolved_at = None;
        history.boxes[0].gone[0].span.to_ms = Span::OPEN;
    };
    let due = second_untold(&goes_on);
    let in_hand = second_untold(&|history| {
        goes_on(history);
        history.last.incidents[0].ack = Some(Ack {
            at: at(6500),
            by: "admin".into(),
            note: String::new(),
        });
    });
    assert_eq!((due, in_hand), (1, 0));
}

#[test]
fn what_an_operator_was_told_is_done_stays_done() {
    let acknowledged = |ack: Option<Ack>| {
        with(|history| {
            history.done.push(Done::Acknowledged {
                at_ms: 9000,
                id: 1,
                note: "seen".into(),
            });
            let books = history
                .restarts
                .iter_mut()
                .flat_map(|one| [&mut one.before, &mut one.after]);
            for books in books.chain([&mut history.last]) {
                books.incidents[0].ack.clone_from(&ack);
            }
        })
    };
    assert_eq!(acknowledged(None), [Rule::Restart]);
    let ack = Ack {
        at: at(9000),
        by: "admin".into(),
        note: "seen".into(),
    };
    assert_eq!(acknowledged(Some(ack)), []);
    let added = |history: &mut History| {
        history.done.push(Done::Added {
            at_ms: 9000,
            name: "extra".into(),
        });
    };
    assert_eq!(with(added), [Rule::Restart]);
}
