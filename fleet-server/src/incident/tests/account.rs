//! What a box that is back says of its absence, and where that stands.

use protocol::account::{Account, Verdict};

use super::*;
use crate::liveness::event::StormWhy;

fn account(verdict: Verdict, summary: &str) -> Account {
    let mut account = Account::pending(at(0).wall, at(43_000).wall);
    account.pending = false;
    account.verdict = verdict;
    summary.clone_into(&mut account.summary);
    account
}

fn pending() -> Account {
    Account::pending(at(0).wall, at(43_000).wall)
}

#[test]
fn the_incident_ends_with_the_boxs_own_account() {
    let mut ledger = ledger();
    ledger.liveness(&dark(BOX, 6100));
    let said = "connect to 203.0.113.5:443 over IPv4 timed out for 41 s; it was alive all the while";
    assert!(
        ledger
            .account(BOX, Some(account(Verdict::NetworkPath, said).into()), at(200_000))
            .is_empty()
    );
    let end = ledger.liveness(&live(BOX, 200_000));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::BoxDark, Severity::Page, true)]
    );
    let incident = &end[0].incident;
    assert_eq!(
        incident.summary,
        format!("box-0 is back after 3m 20s: network path ({said})")
    );
    assert_eq!(incident.details["account"]["verdict"], "network_path");
    assert_eq!(end[0].entry.text, incident.summary);
}

#[test]
fn a_box_that_is_finding_out_holds_the_end_back_and_no_longer_than_ten_seconds() {
    for says in [true, false] {
        let mut ledger = ledger();
        ledger.liveness(&dark(BOX, 6100));
        ledger.account(BOX, Some(pending().into()), at(43_000));
        let held = ledger.liveness(&live(BOX, 43_000));
        assert_eq!(
            told(&held),
            [(EventKind::Updated, Kind::BoxDark, Severity::Page, false)]
        );
        assert!(
            held[0].entry.text.ends_with("it is finding out why"),
            "{}",
            held[0].entry.text
        );
        assert!(pass(&mut ledger, 43_000, 46_000).is_empty());
        let end = if says {
            ledger.account(
                BOX,
                Some(account(Verdict::Reboot, "off for 20 s").into()),
                at(46_000),
            )
        } else {
            pass(&mut ledger, 46_000, 53_100)
        };
        assert_eq!(
            told(&end),
            [(EventKind::Resolved, Kind::BoxDark, Severity::Page, true)],
            "{says}"
        );
        let summary = &end[0].incident.summary;
        let wanted = if says {
            "box-0 is back after 3m 20s: reboot (off for 20 s)"
        } else {
            "box-0 is back after 3m 20s; it has not said why it was not heard"
        };
        assert_eq!(summary, wanted);
        assert!(pass(&mut ledger, 53_100, 70_000).is_empty());
    }
}

#[test]
fn a_box_that_is_always_finding_out_anew_holds_no_longer() {
    let mut ledger = ledger();
    ledger.liveness(&dark(BOX, 6100));
    let mut ends = Vec::new();
    for ms in (43_000..60_000).step_by(4000) {
        ledger.account(BOX, Some(pending().into()), at(ms));
        let suspect = What::Suspect { closed: true };
        ledger.liveness(&moved(BOX, ms, suspect));
        ends.extend(ledger.liveness(&live(BOX, ms)));
        ends.extend(pass(&mut ledger, ms, ms + 4000));
    }
    ends.retain(|change| change.event == EventKind::Resolved);
    assert_eq!(ends.len(), 1);
    assert!(ends[0].entry.at <= at(53_500).wall, "{}", ends[0].entry.at);
}

#[test]
fn one_that_has_nothing_more_to_say_holds_nothing_back() {
    let mut ledger = ledger();
    ledger.liveness(&dark(BOX, 6100));
    ledger.account(BOX, Some(pending().into()), at(43_000));
    ledger.liveness(&live(BOX, 43_000));
    let end = ledger.account(BOX, None, at(44_000));
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::BoxDark, Severity::Page, true)]
    );
    assert_eq!(end[0].incident.summary, "box-0 is back after 3m 20s");
}

#[test]
fn gone_again_while_it_was_finding_out_is_the_same_incident_and_an_old_account_explains_nothing() {
    let mut ledger = ledger();
    let opened = ledger.liveness(&dark(BOX, 6100));
    ledger.account(BOX, Some(pending().into()), at(43_000));
    ledger.liveness(&live(BOX, 43_000));
    ledger.liveness(&dark(BOX, 50_000));
    assert!(pass(&mut ledger, 50_000, 70_000).is_empty(), "it is not back");
    let end = ledger.liveness(&live(BOX, 90_000));
    assert_eq!(end[0].incident.id, opened[0].incident.id);
    assert_eq!(end[0].incident.summary, "box-0 is back after 3m 20s");

    ledger.account(BOX, Some(account(Verdict::NetworkPath, "x").into()), at(91_000));
    ledger.liveness(&dark(BOX, 100_000));
    let end = ledger.liveness(&live(BOX, 120_000));
    assert_eq!(end[0].incident.summary, "box-0 is back after 3m 20s");
    assert!(end[0].incident.details.get("account").is_none());
}

#[test]
fn an_overdue_reboot_and_a_silent_box_are_explained_too() {
    let mut ledger = ledger();
    let overdue = What::Overdue {
        why: GoodbyeWhy::Reboot,
        silent_for: Duration::from_secs(600),
    };
    ledger.liveness(&moved(BOX, 600_000, overdue));
    let silent = What::Silent {
        silent_for: Duration::from_secs(3),
    };
    ledger.liveness(&moved(BoxIx(1), 600_000, silent));
    for (ix, kind) in [(BOX, Kind::PlannedOverdue), (BoxIx(1), Kind::BoxSilent)] {
        ledger.account(
            ix,
            Some(account(Verdict::WatchdogOnly, "it was down").into()),
            at(700_000),
        );
        let end = ledger.liveness(&live(ix, 700_000));
        assert_eq!(told(&end), [(EventKind::Resolved, kind, Severity::Page, true)]);
        assert!(end[0].incident.summary.ends_with(": watchdog only (it was down)"));
    }
}

#[test]
fn a_storms_members_are_counted_by_what_they_say() {
    let mut ledger = ledger();
    let group = Group::Label {
        name: "site".into(),
        value: "fsn1".into(),
    };
    let members: Vec<BoxIx> = (0..5).map(BoxIx).collect();
    ledger.liveness(&Event::StormOpened {
        group: group.clone(),
        why: StormWhy::Share,
        members: members.clone(),
        expected: 5,
        at: at(8000),
    });
    let mut lines = Vec::new();
    for ix in 0..4 {
        lines.extend(ledger.account(
            BoxIx(ix),
            Some(account(Verdict::NetworkPath, "x").into()),
            at(40_000),
        ));
        assert!(ledger.liveness(&live(BoxIx(ix), 40_000)).is_empty());
    }
    ledger.account(BoxIx(4), Some(pending().into()), at(40_000));
    ledger.liveness(&Event::StormChanged {
        group: group.clone(),
        members: vec![BoxIx(4)],
        grew: false,
        at: at(41_000),
    });
    lines.extend(ledger.account(
        BoxIx(4),
        Some(account(Verdict::PowerOrCrash, "y").into()),
        at(42_000),
    ));
    assert_eq!(lines.len(), 5);
    assert!(
        lines
            .iter()
            .all(|line| !line.notify && line.incident.kind == Kind::SiteDark)
    );
    assert_eq!(lines[0].entry.text, "box-0 is heard again: network path (x)");
    let over = ledger.liveness(&Event::StormOver {
        group,
        stragglers: vec![],
        at: at(43_000),
    });
    let incident = &over[0].incident;
    assert_eq!(incident.details["accounts"]["network_path"], 4);
    assert!(
        incident
            .summary
            .ends_with("what they say it was: 4 network_path, 1 power_or_crash"),
        "{}",
        incident.summary
    );
}

#[test]
fn a_gateway_killed_for_lack_of_memory_says_so_when_it_opens_and_when_it_ends() {
    let mut ledger = ledger();
    let killed = |active: &str, sub: &str| {
        let mut word = unit(active, sub, 0, false);
        word.units[0].result = Some(Name::new("oom-kill").unwrap());
        word.units[0].oom = Some("systemd: Result=oom-kill".to_owned());
        word
    };
    ledger.word(BOX, unit("active", "running", 0, false), at(0));
    ledger.word(BOX, killed("failed", "failed"), at(1000));
    let opened = pass(&mut ledger, 1000, 3000);
    assert_eq!(
        told(&opened),
        [(EventKind::Opened, Kind::Gateway, Severity::Page, true)]
    );
    let line = "killed for lack of memory (oom): systemd: Result=oom-kill";
    assert!(
        opened[0].incident.summary.ends_with(line),
        "{}",
        opened[0].incident.summary
    );
    ledger.word(BOX, killed("active", "running"), at(4000));
    let end = pass(&mut ledger, 4000, 10_000);
    assert_eq!(
        told(&end),
        [(EventKind::Resolved, Kind::Gateway, Severity::Page, true)]
    );
    assert!(
        end[0].incident.summary.ends_with(line),
        "{}",
        end[0].incident.summary
    );
    assert_eq!(end[0].incident.details["oom"], "systemd: Result=oom-kill");
}
