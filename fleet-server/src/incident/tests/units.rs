//! What beats say of gateway units.

use super::*;

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
