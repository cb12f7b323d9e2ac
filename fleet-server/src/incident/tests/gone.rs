//! Boxes that went, the server's blindness, and the rest that no check finds.

use super::*;

#[test]
fn a_dark_box_is_one_page_with_its_diagnosis_and_one_end() {
    let mut ledger = ledger();
    hear(
        &mut ledger,
        0,
        &report(1, vec![row("disk", Status::Warning, KnownWhy::BytesLow)], vec![]),
    );
    ledger.liveness(&dark(BoxIx(1), 5000));
    let word = |asked: &str, answer, detail: &str, ms| WitnessWord {
        asked: asked.into(),
        answer,
        detail: detail.into(),
        at: at(ms).wall,
    };
    let words = vec![
        word(
            "10.0.0.1:22",
            WitnessAnswer::Unreachable,
            "no answer within 1.5 s",
            4500,
        ),
        word("tailscale:box-0", WitnessAnswer::Unknown, "no such peer", 5900),
    ];
    ledger.witnesses(BOX, words, at(5950));
    let opened = ledger.liveness(&dark(BOX, 6100));
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::BoxDark, Severity::Page, true)]
    );
    let incident = &opened[0].incident;
    assert_eq!(
        incident.summary,
        "box-0 is dark: no heartbeat for 6.1 s (last seen 2025-11-21 20:00:00 UTC); the host does not answer at \
         10.0.0.1:22 (no answer within 1.5 s, 1.6 s ago), the witness could not ask at tailscale:box-0 (no such peer, 0.2 s ago); last report 6.1 s before: disk warning (bytes_low); 1 other box is \
         gone as well"
    );
    assert_eq!(incident.details["cause"], "deadline");
    assert_eq!(incident.details["runbook"], "docs/runbook.md#box_dark");
    assert_eq!(
        incident.details["witnesses"],
        serde_json::json!([
            {"name": "10.0.0.1:22", "answer": "unreachable", "detail": "no answer within 1.5 s", "age_secs": 1.6},
            {"name": "tailscale:box-0", "answer": "unknown", "detail": "no such peer", "age_secs": 0.2},
        ])
    );
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
        why: StormWhy::Share,
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
    let figures =
        ["gone", "share", "extent", "cause", "since"].map(|name| incident.details[name].to_string());
    assert_eq!(
        figures,
        ["4", "0.8", "\"partial\"", "\"share\"", "\"2025-11-21T20:00:06Z\""]
    );
    for ix in &members {
        let what = What::Dark {
            cause: Cause::Group,
            silent_for: Duration::from_secs(6),
        };
        assert!(ledger.liveness(&moved(*ix, 6000, what)).is_empty());
    }
    assert!(ledger.liveness(&live(BoxIx(0), 60_000)).is_empty());
    let mut changed = |gone: &[u32], grew, ms| {
        ledger.liveness(&Event::StormChanged {
            group: group.clone(),
            members: gone.iter().copied().map(BoxIx).collect(),
            grew,
            at: at(ms),
        })
    };
    let fewer = changed(&[1, 2], false, 61_000);
    assert_eq!(
        told(&fewer),
        [(EventKind::Updated, Kind::SiteDark, Severity::Page, false)]
    );
    assert_eq!(
        fewer[0].incident.summary,
        "fsn1: 2 of 5 boxes dark (at most 4), for 55.0 s"
    );
    let grew = changed(&[1, 2, 3, 4], true, 62_000);
    assert_eq!(
        told(&grew),
        [(EventKind::Updated, Kind::SiteDark, Severity::Page, true)]
    );
    changed(&[1], false, 65_000);
    let own = ledger.liveness(&Event::Straggler {
        group: group.clone(),
        ix: BoxIx(1),
        at: at(70_000),
    });
    assert_eq!(
        told(&own),
        [(EventKind::Opened, Kind::BoxDark, Severity::Page, true)]
    );
    assert!(own[0].incident.summary.contains("with others of fsn1"));
    let over = ledger.liveness(&Event::StormOver {
        group,
        stragglers: vec![BoxIx(1)],
        at: at(70_000),
    });
    assert_eq!(
        told(&over),
        [(EventKind::Resolved, Kind::SiteDark, Severity::Page, true)]
    );
    assert!(over[0].incident.summary.contains("except box-1"));
    assert_eq!(told(&ledger.liveness(&live(BoxIx(1), 80_000))).len(), 1);
}

#[test]
fn a_silent_box_whose_host_is_lost_is_the_same_incident_grown_worse() {
    let mut ledger = ledger();
    let silent = What::Silent {
        silent_for: Duration::from_secs(3),
    };
    ledger.liveness(&moved(BOX, 3000, silent));
    let lost = What::Dark {
        cause: Cause::HostLost,
        silent_for: Duration::from_secs(30),
    };
    let worse = ledger.liveness(&moved(BOX, 30_000, lost));
    assert_eq!(
        told(&worse),
        [(EventKind::Updated, Kind::BoxSilent, Severity::Page, true)]
    );
    assert!(
        worse[0].incident.summary.contains("dark now"),
        "{}",
        worse[0].incident.summary
    );
    assert_eq!(worse[0].incident.details["cause"], "host_lost");
    let back = ledger.host_back(BOX, at(60_000));
    assert_eq!(
        told(&back),
        [(EventKind::Updated, Kind::BoxSilent, Severity::Page, false)]
    );
    assert!(back[0].entry.text.contains("answers its witnesses again"));
    assert_eq!(told(&ledger.liveness(&live(BOX, 70_000))).len(), 1);
}

#[test]
fn blindness_and_clones_open_and_end() {
    let mut ledger = ledger();
    let blind = Event::Blind {
        why: BlindWhy::Collapse,
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
