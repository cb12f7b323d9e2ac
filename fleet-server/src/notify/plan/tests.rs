//! Who is told of a change, without time: the first match, the end to those who were told, the failing receiver.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use protocol::incident::{Ack, EventKind, Kind, Severity, TimelineEntry};
use protocol::names::{BoxName, Labels, Word};

use super::*;
use crate::hours::{Hours, Window};
use crate::incident::change::Audience;
use crate::incident::ledger::MUTED_AT;
use crate::settings::{Matcher, Step};

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
        to: Audience::Routed,
        incident,
        ack: None,
        revision: 1,
        entry,
        at,
    }
}

fn rows(planner: &mut Planner, change: &Change) -> Vec<OutboxRow> {
    planner.plan(change, change.at)
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
        ..Route::default()
    }
}

fn planner(routes: Vec<Route>) -> Planner {
    Planner::new(vec!["am".into(), "hook".into(), "mail".into()], routes)
}

#[test]
fn no_routes_everybody() {
    let rows = rows(
        &mut planner(vec![]),
        &change(1, Kind::BoxDark, Severity::Page, EventKind::Opened),
    );
    assert_eq!(names(&rows), ["am", "hook", "mail"]);
}

#[test]
fn first_match_wins_and_no_match_is_nobody() {
    let mut planner = planner(vec![
        route(Some(Severity::Page), &["hook"]),
        route(Some(Severity::Ticket), &["mail"]),
    ]);
    let page = rows(
        &mut planner,
        &change(1, Kind::BoxDark, Severity::Page, EventKind::Opened),
    );
    let info = rows(
        &mut planner,
        &change(2, Kind::Disk, Severity::Info, EventKind::Opened),
    );
    assert_eq!((names(&page), names(&info)), (vec!["hook"], vec![]));
}

#[test]
fn who_was_told_of_the_opening_is_told_of_the_end() {
    let mut planner = planner(vec![
        route(Some(Severity::Page), &["hook"]),
        route(None, &["mail"]),
    ]);
    rows(
        &mut planner,
        &change(1, Kind::Gateway, Severity::Page, EventKind::Opened),
    );
    let update = rows(
        &mut planner,
        &change(1, Kind::Gateway, Severity::Ticket, EventKind::Updated),
    );
    assert_eq!(names(&update), ["hook", "mail"]);
    let end = rows(
        &mut planner,
        &change(1, Kind::Gateway, Severity::Ticket, EventKind::Resolved),
    );
    assert_eq!(names(&end), ["hook", "mail"]);
}

#[test]
fn who_was_never_told_is_not_told_of_the_end() {
    let mut planner = planner(vec![route(None, &["mail"])]);
    let end = rows(
        &mut planner,
        &change(9, Kind::BoxDark, Severity::Page, EventKind::Resolved),
    );
    assert_eq!(names(&end), Vec::<&str>::new());
}

#[test]
fn told_survives_a_restart() {
    let routes = vec![route(None, &["mail"])];
    let mut planner = Planner::new(vec!["hook".into(), "mail".into()], routes);
    let opened = change(7, Kind::BoxDark, Severity::Page, EventKind::Opened);
    let stored = store::StoredIncident {
        incident: opened.incident,
        revision: 1,
        ack: None,
        timeline: vec![],
    };
    let told = store::Told {
        incident: 7,
        receiver: "hook".into(),
        first: opened.at,
        last: opened.at,
    };
    planner.restore(&[stored], &[told]);
    let end = rows(
        &mut planner,
        &change(7, Kind::BoxDark, Severity::Page, EventKind::Resolved),
    );
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
    assert_eq!(names(&rows(&mut planner, &failing)), ["mail"]);
    let mut only = Planner::new(vec!["am".into(), "hook".into()], vec![route(None, &["hook"])]);
    assert_eq!(names(&rows(&mut only, &failing)), ["am"]);
}

#[test]
fn the_key_is_the_incidents_and_the_idempotency_key_the_notifications() {
    let mut planner = planner(vec![]);
    let opened = rows(
        &mut planner,
        &change(1, Kind::BoxDark, Severity::Page, EventKind::Opened),
    );
    let mut end = change(1, Kind::BoxDark, Severity::Page, EventKind::Resolved);
    end.revision = 2;
    let end = rows(&mut planner, &end);
    assert_eq!(opened[0].alert.key, end[0].alert.key);
    assert_ne!(opened[0].alert.idempotency_key(), end[0].alert.idempotency_key());
}

#[test]
fn a_quiet_change_is_not_sent() {
    let mut quiet = change(1, Kind::BoxDark, Severity::Page, EventKind::Updated);
    quiet.notify = false;
    assert!(rows(&mut planner(vec![]), &quiet).is_empty());
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_763_755_200 + secs).unwrap()
}

/// Of `open` incidents that all opened together, with a step and reminders.
fn crowd(open: i64) -> Planner {
    let hours = Hours::new(
        [Weekday::Monday],
        vec![Window {
            from: Time::midnight(),
            to: Time::midnight(),
        }],
        TimeZone::get("Europe/Berlin").unwrap(),
    );
    let mut route = route(Some(Severity::Page), &["hook"]);
    route.steps = vec![Step {
        after: Duration::from_secs(300),
        receivers: vec![Word::new("mail").unwrap()],
    }];
    route.remind = Some(Duration::from_secs(3600));
    let mut monday = route.clone();
    monday.when = Some(hours);
    let mut planner = planner(vec![monday, route]);
    for id in 1..=open {
        let mut change = change(id, Kind::BoxDark, Severity::Page, EventKind::Opened);
        change.at = at(0);
        change.incident.opened_at = at(0);
        planner.plan(&change, at(0));
    }
    planner
}

/// Says what is due again, as the sweep does.
fn say(planner: &mut Planner, now: Timestamp) -> usize {
    let due = planner.due(now);
    for nudge in &due {
        let mut again = change(nudge.incident, Kind::BoxDark, Severity::Page, nudge.event);
        again.incident.opened_at = at(0);
        again.at = now;
        again.to = Audience::Only(nudge.to.clone());
        assert_eq!(planner.plan(&again, now).len(), nudge.to.len());
    }
    due.len()
}

#[test]
fn what_is_due_at_once_is_said_at_a_bounded_pace_and_nothing_is_left_out() {
    let mut planner = crowd(1200);
    let said = |from: i64, planner: &mut Planner| -> Vec<usize> {
        (from..from + 4).map(|secs| say(planner, at(secs))).collect()
    };
    assert_eq!(said(1, &mut planner), [0, 0, 0, 0]);
    assert_eq!(said(300, &mut planner), [500, 500, 200, 0]);
    assert_eq!(said(3600, &mut planner), [500, 500, 200, 0]);
}

#[test]
fn a_receiver_new_in_the_configuration_is_told_of_what_is_open() {
    let opened = change(7, Kind::BoxDark, Severity::Page, EventKind::Opened);
    let stored = store::StoredIncident {
        incident: opened.incident,
        revision: 1,
        ack: None,
        timeline: vec![],
    };
    let told = store::Told {
        incident: 7,
        receiver: "gone".into(),
        first: opened.at,
        last: opened.at,
    };
    let mut planner = Planner::new(vec!["new".into()], vec![]);
    planner.restore(&[stored], &[told]);
    assert_eq!(say(&mut planner, at(60)), 1);
    let end = rows(
        &mut planner,
        &change(7, Kind::BoxDark, Severity::Page, EventKind::Resolved),
    );
    assert_eq!(names(&end), ["new"]);
    assert_eq!(say(&mut planner, at(61)), 0);
}

#[test]
fn who_heard_before_it_was_muted_hears_at_its_end_unless_somebody_has_it() {
    let told = |acked: bool| -> Vec<(i64, EventKind)> {
        let mut planner = crowd(1);
        let mut muted = change(1, Kind::BoxDark, Severity::Page, EventKind::Updated);
        (muted.notify, muted.at, muted.incident.opened_at) = (false, at(20), at(0));
        muted
            .incident
            .details
            .insert(MUTED_AT.into(), at(20).to_string().into());
        if acked {
            muted.ack = Some(Ack {
                at: at(10),
                by: "ann".into(),
                note: String::new(),
            });
        }
        planner.plan(&muted, at(20));
        let mut told = Vec::new();
        for secs in 21..120 {
            for nudge in planner.due(at(secs)) {
                assert_eq!(nudge.text, "not muted any more, and still open");
                told.push((secs, nudge.event));
                let mut again = muted.clone();
                (again.notify, again.event, again.at) = (true, nudge.event, at(secs));
                again.to = Audience::Only(nudge.to);
                assert_eq!(names(&planner.plan(&again, at(secs))), ["hook"]);
            }
        }
        told
    };
    assert_eq!(told(false), [(21, EventKind::Updated)]);
    assert_eq!(told(true), []);
}

#[test]
fn a_clock_that_is_set_back_by_a_day_keeps_nobody_waiting_for_a_day() {
    let mut planner = crowd(1);
    let day = 24 * 3600;
    let back: Vec<usize> = (1 - day..6 - day)
        .map(|secs| say(&mut planner, at(secs)))
        .collect();
    assert_eq!(back, [2, 0, 0, 0, 0], "the step, and a reminder");
    let hour: usize = (6 - day..3700 - day)
        .map(|secs| say(&mut planner, at(secs)))
        .sum();
    assert_eq!(hour, 1, "reminders go on, by the clock as it is now");
    // Nor where it is a crowd that is told at a bounded pace.
    let mut planner = crowd(1200);
    let back: usize = (1 - day..20 - day).map(|secs| say(&mut planner, at(secs))).sum();
    assert_eq!(back, 2400);
    // A second or two are no such thing.
    let mut planner = crowd(1);
    assert_eq!([say(&mut planner, at(-2)), say(&mut planner, at(-1))], [0, 0]);
}

#[test]
fn a_receiver_that_fails_for_a_day_is_reminded_once_when_it_is_back() {
    let mut planner = crowd(1);
    let mut failing = change(2, Kind::ReceiverFailing, Severity::Page, EventKind::Opened);
    failing.incident.details.insert("receiver".into(), "hook".into());
    rows(&mut planner, &failing);
    let reminded = |planner: &mut Planner, range: std::ops::Range<i64>| -> usize {
        let mut hook = 0;
        for secs in range.step_by(60) {
            for nudge in planner
                .due(at(secs))
                .into_iter()
                .filter(|nudge| nudge.incident == 1)
            {
                hook += usize::from(nudge.event == EventKind::Updated && nudge.to.contains("hook"));
                let mut again = change(1, Kind::BoxDark, Severity::Page, nudge.event);
                again.incident.opened_at = at(0);
                again.at = at(secs);
                again.to = Audience::Only(nudge.to);
                planner.plan(&again, at(secs));
            }
        }
        hook
    };
    assert_eq!(reminded(&mut planner, 60..86_400), 0);
    failing.event = EventKind::Resolved;
    failing.incident.resolved_at = Some(at(86_400));
    rows(&mut planner, &failing);
    assert_eq!(reminded(&mut planner, 86_400..86_460), 1);
    assert_eq!(reminded(&mut planner, 86_460..90_000), 0);
    assert_eq!(reminded(&mut planner, 90_000..90_120), 1, "each hour, as ever");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn a_crowd_of_open_incidents_costs_little_where_nothing_is_due() {
    let mut planner = crowd(10_000);
    assert_eq!(say(&mut planner, at(1)), 0);
    let mut look = |secs: i64| {
        let start = std::time::Instant::now();
        assert_eq!(say(&mut planner, at(secs)), 0);
        start.elapsed()
    };
    let took = (2..12).map(&mut look).min().unwrap();
    println!("a look at 10,000 open incidents: {took:?}");
    // 2 ms in a build without optimisation; a loaded machine may take its time.
    assert!(took < Duration::from_millis(200), "{took:?}");
}

/// Plans what is due from `from` to `to`; the seconds in which somebody was told.
fn told_again(planner: &mut Planner, muted: &Change, range: std::ops::Range<i64>) -> Vec<i64> {
    let mut told = Vec::new();
    for secs in range {
        for nudge in planner.due(at(secs)) {
            told.push(secs);
            let mut again = muted.clone();
            (again.notify, again.event, again.at) = (true, nudge.event, at(secs));
            again.to = Audience::Only(nudge.to);
            planner.plan(&again, at(secs));
        }
    }
    told
}

fn noted_as_muted(secs: i64) -> Change {
    let mut muted = change(1, Kind::BoxDark, Severity::Page, EventKind::Updated);
    (muted.notify, muted.at, muted.incident.opened_at) = (false, at(secs), at(0));
    let since = at(secs).to_string();
    muted.incident.details.insert(MUTED_AT.into(), since.into());
    muted
}

#[test]
fn a_clock_that_is_set_back_a_little_in_a_mute_tells_its_end_once() {
    let mut planner = crowd(1);
    let muted = noted_as_muted(100);
    planner.plan(&muted, at(100));
    // The clock was set back by 45 s; the mute was ended, and a mute that is over is told.
    let told = told_again(&mut planner, &muted, 60..200);
    assert!(told.len() <= 2, "{} times: {told:?}", told.len());
    // Told after its end; then the clock was set back to just before its beginning.
    let mut planner = crowd(1);
    planner.plan(&muted, at(100));
    assert_eq!(told_again(&mut planner, &muted, 180..190), [180]);
    // (A reminder among them: it goes by the clock as it is now.)
    let told = told_again(&mut planner, &muted, 60..170);
    assert!(told.len() <= 2, "{} times: {told:?}", told.len());
}

/// A box says that it is paused and that it is not, again and again.
#[test]
fn mutes_that_come_and_go_all_the_time_tell_nobody_all_the_time() {
    let mut planner = crowd(1);
    let mut told = 0;
    for round in 1..150 {
        let muted = noted_as_muted(round * 2);
        planner.plan(&muted, at(round * 2));
        told += told_again(&mut planner, &muted, round * 2 + 1..round * 2 + 2).len();
    }
    assert!(told <= 3, "told {told} times in five minutes");
}
