//! What reports say, and what the watchdog did.

use super::*;

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
fn a_clock_that_is_set_back_hides_no_remedy() {
    let mut ledger = ledger();
    let failing = || vec![row("gateway", Status::Failing, KnownWhy::LoopHung)];
    let in_a_year = remedy(365 * 86_400, Outcome::Restarted, KnownWhy::FailingInARow);
    hear(&mut ledger, 0, &report(1, failing(), vec![in_a_year.clone()]));
    let gave_up = remedy(340, Outcome::GaveUp, KnownWhy::RestartsUsedUp);
    let paged = hear(&mut ledger, 1, &report(2, failing(), vec![in_a_year, gave_up]));
    assert_eq!(
        told(&paged)[0],
        (EventKind::Opened, Kind::RemedyGaveUp, Severity::Page, true)
    );
    let told_of = paged.iter().filter(|change| change.notify);
    assert_eq!(told_of.count(), 1, "the restart is not told of again");
}
