//! What the person on call is told, for everything that can happen.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::{GoodbyeWhy, UnitState};
use protocol::incident::{EventKind, Kind, Severity};
use protocol::names::{BoxName, Labels, UnitName, Word as Name};
use protocol::report::{CheckReport, Host, Outcome, RemedyReport, Report, Status};
use protocol::why::KnownWhy;
use uuid::Uuid;

use super::change::Change;
use super::facts::{BoxInfo, WitnessWord, Word};
use super::ledger::Ledger;
use crate::liveness::BoxIx;
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::event::{Cause, Event, Group, Transition, What};
use crate::liveness::time::{Moment, Mono};
use crate::store::BoxId;

const GATEWAY: &str = "hermes-gateway.service";
const BOX: BoxIx = BoxIx(0);

fn at(ms: u64) -> Moment {
    Moment {
        mono: Mono::START + Duration::from_millis(ms),
        wall: Timestamp::from_second(1_763_755_200).unwrap() + Duration::from_millis(ms),
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1, None);
    for ix in 0..5 {
        let info = BoxInfo {
            ix: BoxIx(ix),
            id: BoxId(i64::from(ix) + 1),
            name: BoxName::new(format!("box-{ix}")).unwrap(),
            labels: Labels::from_texts([("site", "fsn1")]).unwrap(),
            witness_tcp: None,
        };
        ledger.add(info, None);
        ledger.restore_state(BoxIx(ix), Liveness::Live, at(0));
    }
    ledger
}

fn moved(ix: BoxIx, ms: u64, what: What) -> Event {
    Event::Box(Transition {
        ix,
        at: at(ms),
        from: Liveness::Dark,
        what,
        last_seen: Some(at(0).wall),
    })
}

fn dark(ix: BoxIx, ms: u64) -> Event {
    let what = What::Dark {
        cause: Cause::Deadline,
        silent_for: Duration::from_millis(6100),
    };
    moved(ix, ms, what)
}

fn live(ix: BoxIx, ms: u64) -> Event {
    let what = What::Live {
        after: Duration::from_secs(200),
        rebooted: false,
        first: false,
    };
    moved(ix, ms, what)
}

/// Event, kind, severity and whether receivers are told, of each change.
fn told(changes: &[Change]) -> Vec<(EventKind, Kind, Severity, bool)> {
    let line = |change: &Change| {
        (
            change.event,
            change.incident.kind,
            change.incident.severity,
            change.notify,
        )
    };
    changes.iter().map(line).collect()
}

fn row(name: &str, status: Status, why: KnownWhy) -> CheckReport {
    CheckReport {
        name: Name::new(name).unwrap(),
        subject: (name == "gateway").then(|| UnitName::new(GATEWAY).unwrap()),
        status,
        why: why.into(),
        summary: format!("{name} is {status}"),
        consecutive: 1,
        since: at(0).wall,
        values: serde_json::Map::new(),
    }
}

fn report(id: u128, checks: Vec<CheckReport>, remedies: Vec<RemedyReport>) -> Arc<Report> {
    Arc::new(Report {
        id: Uuid::from_u128(id),
        at: at(0).wall,
        took_ms: 10,
        checks,
        remedies,
        host: Host::default(),
        labels: Labels::default(),
    })
}

fn remedy(secs: u64, outcome: Outcome, why: KnownWhy) -> RemedyReport {
    RemedyReport {
        at: at(secs * 1000).wall,
        unit: UnitName::new(GATEWAY).unwrap(),
        outcome,
        why: why.into(),
        summary: format!("{outcome} after {secs} s"),
        evidence: None,
    }
}

fn hear(ledger: &mut Ledger, ms: u64, report: &Arc<Report>) -> Vec<Change> {
    ledger.report(BOX, report, at(ms).wall, at(ms))
}

fn unit(active: &str, sub: &str, restarts: u64, stopped_by_operator: bool) -> Word {
    Word {
        units: vec![UnitState {
            name: UnitName::new(GATEWAY).unwrap(),
            active: Name::new(active).unwrap(),
            sub: Name::new(sub).unwrap(),
            result: Some(Name::new("exit-code").unwrap()),
            restarts,
            stopped_by_operator,
        }],
        ..Word::default()
    }
}

/// Ticks from `from` to `to`, all changes.
fn pass(ledger: &mut Ledger, from: u64, to: u64) -> Vec<Change> {
    (from..to)
        .step_by(50)
        .flat_map(|ms| ledger.tick(at(ms)))
        .collect()
}

#[test]
fn a_dark_box_is_one_page_with_its_diagnosis_and_one_end() {
    let mut ledger = ledger();
    hear(
        &mut ledger,
        0,
        &report(1, vec![row("disk", Status::Warning, KnownWhy::BytesLow)], vec![]),
    );
    ledger.liveness(&dark(BoxIx(1), 5000));
    ledger.witness(
        BOX,
        WitnessWord {
            asked: "10.0.0.1:22".into(),
            answer: WitnessAnswer::Unreachable,
            detail: "no answer within 1.5 s".into(),
            at: at(4500).wall,
        },
    );
    let opened = ledger.liveness(&dark(BOX, 6100));
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::BoxDark, Severity::Page, true)]
    );
    let incident = &opened[0].incident;
    assert_eq!(
        incident.summary,
        "box-0 is dark: no heartbeat for 6.1 s (last seen 2025-11-21 20:00:00 UTC); the host does not answer at \
         10.0.0.1:22 (no answer within 1.5 s); last report 6.1 s before: disk warning (bytes_low); 1 other box is \
         gone as well"
    );
    assert_eq!(incident.details["cause"], "deadline");
    assert_eq!(incident.details["runbook"], "docs/runbook.md#box_dark");
    assert_eq!(incident.details["witness"]["answer"], "unreachable");
    assert_eq!(incident.details["report"]["not_ok"][0]["why"], "bytes_low");
    assert_eq!(
        (opened[0].revision, incident.labels.get("site")),
        (1, Some("fsn1"))
    );

    assert_eq!(
        told(&ledger.liveness(&dark(BOX, 7000))),
        [(EventKind::Updated, Kind::BoxDark, Severity::Page, false)]
    );
    let end = ledger.liveness(&live(BOX, 206_000));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::BoxDark, Severity::Page, true)]
    );
    assert_eq!(end[0].incident.summary, "box-0 is back after 3m 20s");
    assert_eq!((end[0].incident.id, end[0].revision), (incident.id, 2));
    assert!(ledger.liveness(&live(BOX, 207_000)).is_empty());
}

#[test]
fn suspicion_a_first_beat_and_a_goodbye_tell_nobody() {
    let mut ledger = ledger();
    let first = What::Live {
        after: Duration::ZERO,
        rebooted: false,
        first: true,
    };
    let away = What::Away {
        why: GoodbyeWhy::Reboot,
        back_within: Duration::from_secs(600),
    };
    for what in [first, What::Suspect { closed: true }, away] {
        assert!(ledger.liveness(&moved(BOX, 1, what)).is_empty());
    }
    assert!(ledger.liveness(&live(BOX, 60_000)).is_empty());
}

#[test]
fn an_overdue_box_is_one_incident_and_not_also_a_dark_one() {
    let mut ledger = ledger();
    let overdue = What::Overdue {
        why: GoodbyeWhy::Reboot,
        silent_for: Duration::from_secs(600),
    };
    let opened = ledger.liveness(&moved(BOX, 600_000, overdue));
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::PlannedOverdue, Severity::Page, true)]
    );
    assert!(
        opened[0].incident.summary.contains("goodbye (reboot)"),
        "{}",
        opened[0].incident.summary
    );
    let end = ledger.liveness(&live(BOX, 700_000));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::PlannedOverdue, Severity::Page, true)]
    );
}

#[test]
fn a_silent_box_says_that_its_host_answers() {
    let mut ledger = ledger();
    let what = What::Silent {
        silent_for: Duration::from_secs(3),
    };
    let opened = ledger.liveness(&moved(BOX, 3000, what));
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::BoxSilent, Severity::Page, true)]
    );
    assert!(opened[0].incident.summary.contains("its host answers"));
}

#[test]
fn a_storm_is_one_incident_and_its_stragglers_get_their_own() {
    let mut ledger = ledger();
    let group = Group::Label {
        name: "site".into(),
        value: "fsn1".into(),
    };
    let members: Vec<BoxIx> = (0..4).map(BoxIx).collect();
    let opened = ledger.liveness(&Event::StormOpened {
        group: group.clone(),
        members: members.clone(),
        expected: 5,
        at: at(6000),
    });
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::SiteDark, Severity::Page, true)]
    );
    let incident = &opened[0].incident;
    assert!(
        incident.summary.starts_with("fsn1: 4 of 5 boxes dark"),
        "{}",
        incident.summary
    );
    assert_eq!(
        (incident.labels.get("site"), &incident.box_name),
        (Some("fsn1"), &None)
    );
    assert_eq!(incident.details["members"][3], "box-3");
    for ix in &members {
        let what = What::Dark {
            cause: Cause::Group,
            silent_for: Duration::from_secs(6),
        };
        assert!(ledger.liveness(&moved(*ix, 6000, what)).is_empty());
    }
    assert!(ledger.liveness(&live(BoxIx(0), 60_000)).is_empty());
    let fewer = ledger.liveness(&Event::StormChanged {
        group: group.clone(),
        members: vec![BoxIx(1)],
        at: at(61_000),
    });
    assert_eq!(
        told(&fewer),
        [(EventKind::Updated, Kind::SiteDark, Severity::Page, false)]
    );
    let over = ledger.liveness(&Event::StormOver {
        group,
        stragglers: vec![BoxIx(1)],
        at: at(70_000),
    });
    assert_eq!(
        told(&over),
        [
            (EventKind::Resolved, Kind::SiteDark, Severity::Page, true),
            (EventKind::Opened, Kind::BoxDark, Severity::Page, true)
        ]
    );
    assert_eq!(told(&ledger.liveness(&live(BoxIx(1), 80_000))).len(), 1);
}

#[test]
fn blindness_and_clones_open_and_end() {
    let mut ledger = ledger();
    let blind = Event::Blind {
        overdue: 300,
        expected: 300,
        at: at(0),
    };
    assert_eq!(
        told(&ledger.liveness(&blind)),
        [(EventKind::Opened, Kind::ServerBlind, Severity::Page, true)]
    );
    let sees = Event::SeesAgain {
        after: Duration::from_secs(60),
        at: at(60_000),
    };
    assert_eq!(told(&ledger.liveness(&sees)).len(), 1);
    assert!(ledger.liveness(&sees).is_empty());
    let twice = Event::Duplicate { ix: BOX, at: at(0) };
    assert_eq!(
        told(&ledger.liveness(&twice)),
        [(EventKind::Opened, Kind::DuplicateIdentity, Severity::Page, true)]
    );
    let over = Event::DuplicateOver { ix: BOX, at: at(0) };
    assert_eq!(told(&ledger.liveness(&over)).len(), 1);
}

#[test]
fn severities_of_checks() {
    for (name, status, kind, severity) in [
        ("gateway", Status::Failing, Kind::Gateway, Severity::Page),
        ("disk", Status::Failing, Kind::Disk, Severity::Page),
        ("backup", Status::Failing, Kind::Backup, Severity::Ticket),
        ("tailscale", Status::Failing, Kind::Tailscale, Severity::Ticket),
        ("gateway", Status::Warning, Kind::Gateway, Severity::Info),
        ("backup", Status::Warning, Kind::Backup, Severity::Info),
    ] {
        let mut ledger = ledger();
        let opened = hear(
            &mut ledger,
            0,
            &report(1, vec![row(name, status, KnownWhy::CheckError)], vec![]),
        );
        assert_eq!(
            told(&opened),
            [(EventKind::Opened, kind, severity, true)],
            "{name} {status}"
        );
    }
    for status in [Status::Ok, Status::Unknown] {
        let opened = hear(
            &mut ledger(),
            0,
            &report(1, vec![row("disk", status, KnownWhy::Fine)], vec![]),
        );
        assert!(opened.is_empty());
    }
}

#[test]
fn a_check_gets_louder_and_ends_only_when_it_is_well() {
    let mut ledger = ledger();
    let disk = |id, status, why| report(id, vec![row("disk", status, why)], vec![]);
    hear(&mut ledger, 0, &disk(1, Status::Warning, KnownWhy::BytesLow));
    let same = hear(&mut ledger, 1, &disk(2, Status::Warning, KnownWhy::BytesLow));
    assert!(same.is_empty(), "{same:?}");
    let louder = hear(&mut ledger, 2, &disk(3, Status::Failing, KnownWhy::ReadOnly));
    assert_eq!(
        told(&louder),
        [(EventKind::Updated, Kind::Disk, Severity::Page, true)]
    );
    let softer = hear(&mut ledger, 3, &disk(4, Status::Warning, KnownWhy::BytesLow));
    assert_eq!(
        told(&softer),
        [(EventKind::Updated, Kind::Disk, Severity::Page, false)]
    );
    let unknown = hear(&mut ledger, 4, &disk(5, Status::Unknown, KnownWhy::CheckTimedOut));
    assert_eq!(
        told(&unknown),
        [(EventKind::Updated, Kind::Disk, Severity::Page, false)]
    );
    assert_eq!(unknown[0].incident.details["status"], "unknown");
    assert!(hear(&mut ledger, 5, &disk(6, Status::Unknown, KnownWhy::CheckTimedOut)).is_empty());
    let end = hear(&mut ledger, 6, &disk(7, Status::Ok, KnownWhy::Fine));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Disk, Severity::Page, true)]
    );
    assert_eq!(end[0].revision, 3);
}

#[test]
fn a_check_that_is_not_made_any_more_ends() {
    for next in [
        report(2, vec![], vec![]),
        report(
            2,
            vec![row("backup", Status::Unknown, KnownWhy::Disabled)],
            vec![],
        ),
    ] {
        let mut ledger = ledger();
        hear(
            &mut ledger,
            0,
            &report(
                1,
                vec![row("backup", Status::Failing, KnownWhy::NoBackup)],
                vec![],
            ),
        );
        let end = hear(&mut ledger, 1, &next);
        assert_eq!(
            told(&end),
            [(EventKind::Resolved, Kind::Backup, Severity::Ticket, true)]
        );
    }
}

#[test]
fn the_same_report_twice_changes_nothing() {
    let mut ledger = ledger();
    let bad = report(1, vec![row("disk", Status::Failing, KnownWhy::ReadOnly)], vec![]);
    assert_eq!(hear(&mut ledger, 0, &bad).len(), 1);
    assert!(hear(&mut ledger, 1, &bad).is_empty());
}

#[test]
fn a_restart_is_told_in_the_incident_that_it_ends() {
    let mut ledger = ledger();
    let failing = || vec![row("gateway", Status::Failing, KnownWhy::LoopHung)];
    hear(&mut ledger, 0, &report(1, failing(), vec![]));
    let restarted = remedy(200, Outcome::Restarted, KnownWhy::FailingInARow);
    let told_of = hear(
        &mut ledger,
        200_000,
        &report(2, failing(), vec![restarted.clone()]),
    );
    assert_eq!(
        told(&told_of),
        [(EventKind::Updated, Kind::Gateway, Severity::Page, true)]
    );
    assert!(
        told_of[0].incident.summary.contains("restarted after 200 s"),
        "{}",
        told_of[0].incident.summary
    );
    assert_eq!(told_of[0].incident.details["last_remedy"]["outcome"], "restarted");
    assert!(
        hear(
            &mut ledger,
            210_000,
            &report(3, failing(), vec![restarted.clone()])
        )
        .is_empty()
    );
    let well = report(
        4,
        vec![row("gateway", Status::Ok, KnownWhy::Fine)],
        vec![restarted],
    );
    assert_eq!(
        told(&hear(&mut ledger, 300_000, &well)),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
}

#[test]
fn held_back_is_noted_once_and_giving_up_pages() {
    let mut ledger = ledger();
    let failing = || vec![row("gateway", Status::Failing, KnownWhy::LoopHung)];
    let held = |secs| remedy(secs, Outcome::HeldBack, KnownWhy::Paused);
    hear(&mut ledger, 0, &report(1, failing(), vec![]));
    let noted = hear(&mut ledger, 1, &report(2, failing(), vec![held(100)]));
    assert_eq!(
        told(&noted),
        [(EventKind::Updated, Kind::Gateway, Severity::Page, false)]
    );
    assert!(hear(&mut ledger, 2, &report(3, failing(), vec![held(100), held(220)])).is_empty());
    let gave_up = remedy(340, Outcome::GaveUp, KnownWhy::RestartsUsedUp);
    let paged = hear(&mut ledger, 3, &report(4, failing(), vec![gave_up]));
    assert_eq!(
        told(&paged)[0],
        (EventKind::Opened, Kind::RemedyGaveUp, Severity::Page, true)
    );
    let well = report(5, vec![row("gateway", Status::Ok, KnownWhy::Fine)], vec![]);
    let end = hear(&mut ledger, 4, &well);
    let ended: Vec<Kind> = end.iter().map(|change| change.incident.kind).collect();
    assert_eq!(ended, [Kind::Gateway, Kind::RemedyGaveUp]);
}

#[test]
fn a_crashed_gateway_shows_within_a_second_and_ends_when_it_runs() {
    let mut ledger = ledger();
    ledger.word(BOX, unit("active", "running", 0, false), at(0));
    assert!(pass(&mut ledger, 0, 5000).is_empty());
    assert!(
        ledger
            .word(BOX, unit("failed", "failed", 0, false), at(5000))
            .is_empty()
    );
    let opened = pass(&mut ledger, 5000, 6000);
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::Gateway, Severity::Page, true)]
    );
    assert!(opened[0].incident.summary.contains("has failed (exit-code)"));
    assert_eq!(opened[0].incident.details["subject"], GATEWAY);

    // The report sees the same: the same incident, and it does not end before both are content.
    let failing = report(
        1,
        vec![row("gateway", Status::Failing, KnownWhy::UnitFailed)],
        vec![],
    );
    assert!(hear(&mut ledger, 7000, &failing).is_empty());
    assert!(
        ledger
            .word(BOX, unit("active", "running", 0, false), at(8000))
            .is_empty()
    );
    assert!(pass(&mut ledger, 8000, 20_000).is_empty());
    let well = report(2, vec![row("gateway", Status::Ok, KnownWhy::Fine)], vec![]);
    let end = hear(&mut ledger, 20_000, &well);
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
}

#[test]
fn a_crash_between_two_reports_ends_by_itself() {
    let mut ledger = ledger();
    hear(
        &mut ledger,
        0,
        &report(1, vec![row("gateway", Status::Ok, KnownWhy::Fine)], vec![]),
    );
    ledger.word(BOX, unit("failed", "failed", 0, false), at(0));
    assert_eq!(pass(&mut ledger, 0, 2000).len(), 1);
    ledger.word(BOX, unit("active", "running", 0, false), at(2000));
    let end = pass(&mut ledger, 2000, 7000);
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
}

#[test]
fn an_operators_stop_and_a_planned_restart_page_nobody() {
    let mut ledger = ledger();
    ledger.word(BOX, unit("failed", "failed", 0, true), at(0));
    assert!(pass(&mut ledger, 0, 10_000).is_empty());
    // A restart passes through failed for moments.
    ledger.word(BOX, unit("failed", "failed", 0, false), at(10_000));
    assert!(pass(&mut ledger, 10_000, 10_300).is_empty());
    ledger.word(BOX, unit("activating", "start", 0, false), at(10_300));
    ledger.word(BOX, unit("active", "running", 0, false), at(10_400));
    assert!(pass(&mut ledger, 10_300, 30_000).is_empty());
    // One crash that the service manager mends at once.
    ledger.word(BOX, unit("activating", "auto-restart", 0, false), at(30_000));
    ledger.word(BOX, unit("active", "running", 1, false), at(31_000));
    assert!(pass(&mut ledger, 31_000, 60_000).is_empty());
}

#[test]
fn a_page_for_what_turns_out_to_be_an_operators_stop_ends_with_that() {
    let mut ledger = ledger();
    ledger.word(BOX, unit("failed", "failed", 0, false), at(0));
    assert_eq!(pass(&mut ledger, 0, 2000).len(), 1);
    let stopped = |id| {
        report(
            id,
            vec![row("gateway", Status::Warning, KnownWhy::OperatorStopped)],
            vec![],
        )
    };
    let end = hear(&mut ledger, 3000, &stopped(1));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
    assert!(pass(&mut ledger, 3000, 10_000).is_empty());
    let info = hear(&mut ledger, 11_000, &stopped(2));
    assert_eq!(
        told(&info),
        [(EventKind::Opened, Kind::Gateway, Severity::Info, true)]
    );
    assert!(pass(&mut ledger, 11_000, 20_000).is_empty());
}

#[test]
fn a_crash_loop_that_never_fails_is_found() {
    let mut ledger = ledger();
    let mut changes = Vec::new();
    for n in 0..8 {
        changes.extend(ledger.word(BOX, unit("activating", "auto-restart", n, false), at(n * 5000)));
        changes.extend(pass(&mut ledger, n * 5000, n * 5000 + 4000));
        changes.extend(ledger.word(BOX, unit("active", "running", n + 1, false), at(n * 5000 + 4000)));
        changes.extend(pass(&mut ledger, n * 5000 + 4000, n * 5000 + 5000));
    }
    assert_eq!(
        told(&changes),
        [(EventKind::Opened, Kind::Gateway, Severity::Page, true)]
    );
    assert_eq!(changes[0].incident.details["why"], "crash_loop");
    let end = pass(&mut ledger, 40_000, 300_000);
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
}

#[test]
fn units_of_a_box_that_says_goodbye_say_nothing() {
    let mut ledger = ledger();
    let away = What::Away {
        why: GoodbyeWhy::Reboot,
        back_within: Duration::from_secs(600),
    };
    ledger.liveness(&moved(BOX, 0, away));
    ledger.word(BOX, unit("failed", "failed", 0, false), at(0));
    assert!(pass(&mut ledger, 0, 10_000).is_empty());
}

#[test]
fn checks_that_stopped_are_a_ticket_until_a_report_comes() {
    for word in [
        Word {
            check_every: Some(Duration::from_secs(120)),
            ..Word::default()
        },
        Word {
            report_stale_secs: Some(300),
            ..Word::default()
        },
    ] {
        let mut ledger = ledger();
        let first = What::Live {
            after: Duration::ZERO,
            rebooted: false,
            first: true,
        };
        ledger.liveness(&moved(BOX, 0, first));
        hear(&mut ledger, 0, &report(1, vec![], vec![]));
        ledger.word(BOX, word.clone(), at(1));
        let by_word = word.report_stale_secs.is_some();
        assert_eq!(pass(&mut ledger, 1000, 299_000).len(), usize::from(by_word));
        let opened = if by_word {
            vec![]
        } else {
            pass(&mut ledger, 299_000, 303_000)
        };
        if !by_word {
            assert_eq!(
                told(&opened),
                [(EventKind::Opened, Kind::ChecksStopped, Severity::Ticket, true)]
            );
        }
        let end = hear(&mut ledger, 310_000, &report(2, vec![], vec![]));
        assert_eq!(
            told(&end),
            [(EventKind::Resolved, Kind::ChecksStopped, Severity::Ticket, true)]
        );
        assert!(pass(&mut ledger, 310_000, 400_000).is_empty());
    }
}

#[test]
fn clocks_and_receivers() {
    let mut ledger = ledger();
    let off = Word {
        clock_off_ms: Some(-90_000),
        ..Word::default()
    };
    let opened = ledger.word(BOX, off, at(0));
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::ClockSkew, Severity::Ticket, true)]
    );
    assert!(opened[0].incident.summary.contains("1m 30s behind"));
    assert_eq!(told(&ledger.word(BOX, Word::default(), at(1))).len(), 1);

    let failing = ledger
        .receiver("hook", Some("connection refused"), at(0))
        .unwrap();
    assert_eq!(failing.incident.details["receiver"], "hook");
    assert!(ledger.receiver("hook", Some("HTTP 500"), at(1)).is_none());
    assert_eq!(
        ledger.receiver("hook", None, at(2)).unwrap().event,
        EventKind::Resolved
    );
    ledger.receiver("old", Some("gone"), at(3));
    assert_eq!(ledger.known_receivers(&["hook".into()], at(4)).len(), 1);
}

#[test]
fn a_removed_box_takes_its_incidents_along() {
    let mut ledger = ledger();
    ledger.liveness(&dark(BOX, 0));
    hear(
        &mut ledger,
        0,
        &report(1, vec![row("disk", Status::Failing, KnownWhy::ReadOnly)], vec![]),
    );
    let end = ledger.remove(BOX, at(1));
    assert_eq!(end.len(), 2);
    assert!(end.iter().all(|change| change.event == EventKind::Resolved));
    assert!(ledger.liveness(&dark(BOX, 2)).is_empty());
}

#[test]
fn after_a_restart_the_books_go_on() {
    let mut before = ledger();
    let opened = before.liveness(&dark(BOX, 0));
    let failing = report(
        1,
        vec![row("gateway", Status::Failing, KnownWhy::LoopHung)],
        vec![],
    );
    let gateway = hear(&mut before, 0, &failing);
    let mut after = ledger();
    for change in opened.iter().chain(&gateway) {
        after.restore(change.incident.clone(), change.revision);
    }
    assert_eq!(after.facts(BOX).unwrap().open, 2);
    let end = after.liveness(&live(BOX, 1));
    assert_eq!((end[0].incident.id, end[0].revision), (opened[0].incident.id, 2));
    let well = report(2, vec![row("gateway", Status::Ok, KnownWhy::Fine)], vec![]);
    let end = hear(&mut after, 2, &well);
    assert_eq!(
        (end[0].incident.id, end[0].incident.kind),
        (gateway[0].incident.id, Kind::Gateway)
    );
    let next = after.liveness(&dark(BOX, 3));
    assert!(next[0].incident.id > gateway[0].incident.id);
}
