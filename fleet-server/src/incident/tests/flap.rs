//! What comes and goes: told with its count, held open, ended once.

use std::collections::BTreeMap;

use proptest::prelude::*;
use protocol::incident::Incident;

use super::*;
use crate::incident::flap::{Flap, is_held};
use crate::settings::{Flapping, IncidentRules};

const RULE: Flapping = Flapping {
    after: 3,
    within: Duration::from_secs(300),
    calm: Duration::from_secs(100),
};

fn rules() -> IncidentRules {
    IncidentRules {
        flapping: Some(RULE),
        ..IncidentRules::default()
    }
}

fn damped() -> Ledger {
    ledger().with_rules(rules())
}

/// Goes dark and comes back, `times` times, every 20 s from `from`; everything that was said.
fn flap(ledger: &mut Ledger, from: u64, times: u64) -> Vec<Change> {
    let mut changes = Vec::new();
    for n in 0..times {
        let at = (from + n * 20) * 1000;
        changes.extend(ledger.liveness(&dark(BOX, at)));
        changes.extend(ledger.liveness(&live(BOX, at + 10_000)));
    }
    changes
}

fn sent(changes: &[Change]) -> Vec<EventKind> {
    let sent = changes.iter().filter(|change| change.notify);
    sent.map(|change| change.event).collect()
}

#[test]
fn the_third_time_is_told_as_flapping_and_its_end_once() {
    use EventKind::{Opened, Resolved};
    let mut ledger = damped();
    pass(&mut ledger, 0, 61_000);
    let changes = flap(&mut ledger, 61, 8);
    assert_eq!(sent(&changes), [Opened, Resolved, Opened, Resolved, Opened]);
    let third = &changes[4].incident;
    assert!(
        third.summary.starts_with(
            "flapping, 3 times in 40.0 s (told of again when it has been calm for 1m 40s): box-0 is dark"
        ),
        "{}",
        third.summary
    );
    // Every opening and every end stands in its history.
    let lines: Vec<&str> = changes[5..]
        .iter()
        .map(|change| change.entry.text.as_str())
        .collect();
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[0], "well for now: box-0 is back after 3m 20s");
    assert!(lines[1].starts_with("flapping, 4 times in 1m 0s"), "{}", lines[1]);
    // Back since second 211: not over before 311, and over then.
    assert_eq!(pass(&mut ledger, 212_000, 310_900), vec![]);
    let end = pass(&mut ledger, 310_900, 320_000);
    assert_eq!(sent(&end), [Resolved]);
    assert_eq!(
        end[0].entry.text,
        "box-0 is back after 3m 20s; calm for 1m 40s since, after it flapped 8 times in 2m 30s"
    );
    assert_eq!(
        (end[0].incident.id, ledger.open_incidents().count()),
        (third.id, 0)
    );
}

#[test]
fn who_stays_dark_is_told_as_ever() {
    let mut ledger = damped();
    flap(&mut ledger, 0, 2);
    pass(&mut ledger, 40_000, 400_000);
    // Ages later: not one of many any more.
    let changes = ledger.liveness(&dark(BOX, 400_000));
    assert_eq!(sent(&changes), [EventKind::Opened]);
    assert!(changes[0].incident.summary.starts_with("box-0 is dark"));
    // One that flaps and then stays dark is open, and no longer held.
    flap(&mut ledger, 420, 3);
    let again = ledger.liveness(&dark(BOX, 500_000));
    assert!(!is_held(&again[0].incident));
    assert_eq!(pass(&mut ledger, 500_000, 900_000), vec![]);
    assert_eq!(ledger.open_incidents().count(), 1);
}

#[test]
fn what_flapped_lately_flaps_again_at_once_over_a_restart_too() {
    let mut ledger = damped();
    pass(&mut ledger, 0, 61_000);
    let changes = flap(&mut ledger, 61, 4);
    let ended = pass(&mut ledger, 131_000, 240_000).pop().unwrap().incident;
    assert_eq!(
        (ended.id, ended.resolved_at.is_some()),
        (changes[4].incident.id, true)
    );
    let mut after = damped();
    after.remember(&ended);
    for ledger in [&mut ledger, &mut after] {
        let again = ledger.liveness(&dark(BOX, 300_000)).remove(0);
        assert!(
            again.incident.summary.starts_with("flapping, 3 times in 3m 19s"),
            "{}",
            again.incident.summary
        );
    }
}

#[test]
fn it_is_never_calm_while_the_server_is_blind_or_the_box_gone() {
    let mut ledger = damped();
    flap(&mut ledger, 0, 4);
    let blind = Event::Blind {
        why: BlindWhy::Collapse,
        overdue: 5,
        expected: 5,
        at: at(80_000),
    };
    ledger.liveness(&blind);
    assert_eq!(pass(&mut ledger, 80_000, 400_000), vec![]);
    let sees = Event::SeesAgain {
        after: Duration::from_secs(320),
        at: at(400_000),
    };
    ledger.liveness(&sees);
    assert_eq!(pass(&mut ledger, 400_000, 459_000), vec![]);
    assert_eq!(sent(&pass(&mut ledger, 459_000, 462_000)), [EventKind::Resolved]);
}

#[test]
fn a_removed_box_and_rules_that_are_gone_end_it_at_once() {
    let mut ledger = damped();
    flap(&mut ledger, 0, 4);
    assert_eq!(sent(&ledger.remove(BOX, at(90_000))), [EventKind::Resolved]);
    let mut ledger = damped();
    flap(&mut ledger, 0, 4);
    let mut ledger = ledger.with_rules(IncidentRules::default());
    assert_eq!(sent(&ledger.tick(at(90_000))), [EventKind::Resolved]);
}

#[test]
fn a_flapping_gateway_is_not_told_of_each_restart_but_of_getting_louder() {
    let mut ledger = damped();
    let mut all = Vec::new();
    for n in 0..6_u128 {
        let secs = n as u64 * 20;
        let failing = report(
            2 * n + 1,
            vec![row("gateway", Status::Failing, KnownWhy::UnitFailed)],
            vec![remedy(secs, Outcome::Restarted, KnownWhy::FailingInARow)],
        );
        all.extend(hear(&mut ledger, secs * 1000, &failing));
        let well = report(
            2 * n + 2,
            vec![row("gateway", Status::Ok, KnownWhy::Fine)],
            vec![],
        );
        all.extend(hear(&mut ledger, secs * 1000 + 10_000, &well));
    }
    use EventKind::{Opened, Resolved, Updated};
    assert_eq!(
        sent(&all),
        [Opened, Updated, Resolved, Opened, Updated, Resolved, Opened],
        "of the third on only that it flaps"
    );
    let mut ledger = damped();
    for n in 0..4_u128 {
        let secs = n as u64 * 20_000;
        let warning = report(
            100 + 2 * n,
            vec![row("disk", Status::Warning, KnownWhy::FillingUp)],
            vec![],
        );
        hear(&mut ledger, secs, &warning);
        let well = report(101 + 2 * n, vec![row("disk", Status::Ok, KnownWhy::Fine)], vec![]);
        hear(&mut ledger, secs + 10_000, &well);
    }
    let failing = report(
        200,
        vec![row("disk", Status::Failing, KnownWhy::BytesLow)],
        vec![],
    );
    let louder = hear(&mut ledger, 80_000, &failing);
    assert_eq!(told(&louder), [(Updated, Kind::Disk, Severity::Page, true)]);
}

#[derive(Debug, Clone)]
enum Op {
    Dark(u64),
    Live(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => (1_u64..60).prop_map(Op::Dark),
        5 => (1_u64..60).prop_map(Op::Live),
        1 => (60_u64..500).prop_map(Op::Live),
        2 => Just(Op::Restart),
    ]
}

/// The store: incidents as they are, and every notified change.
#[derive(Default)]
struct Kept {
    incidents: BTreeMap<i64, (Incident, u32)>,
    sent: Vec<(u64, i64, EventKind)>,
}

impl Kept {
    fn commit(&mut self, now: u64, changes: Vec<Change>) {
        for change in changes {
            let id = change.incident.id;
            if change.notify {
                self.sent.push((now, id, change.event));
            }
            self.incidents.insert(id, (change.incident, change.revision));
        }
    }

    fn ledger(&self, now: u64) -> Ledger {
        let next = self.incidents.keys().max().map_or(1, |id| id + 1);
        let mut ledger = Ledger::new(next, None).with_rules(rules());
        let fresh = super::ledger();
        for facts in fresh.all_facts() {
            ledger.add(facts.info.clone(), None);
            ledger.restore_state(facts.info.ix, Liveness::Live, at(now * 1000));
        }
        for (incident, revision) in self.incidents.values() {
            if incident.resolved_at.is_some() {
                ledger.remember(incident);
            } else {
                ledger.restore(incident.clone(), *revision);
            }
        }
        ledger
    }

    fn open(&self) -> Vec<&Incident> {
        let incidents = self.incidents.values().map(|(incident, _)| incident);
        incidents
            .filter(|incident| incident.resolved_at.is_none())
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn however_it_flaps_it_is_bounded_ends_once_and_the_books_are_true(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut kept = Kept::default();
        let mut ledger = kept.ledger(0);
        let (mut now, mut is_dark, mut openings) = (100_u64, false, Vec::new());
        for op in &ops {
            let (event, wait) = match op {
                Op::Dark(wait) if !is_dark => {
                    is_dark = true;
                    openings.push(at(now * 1000).wall);
                    (Some(dark(BOX, now * 1000)), *wait)
                }
                Op::Live(wait) if is_dark => {
                    is_dark = false;
                    (Some(live(BOX, now * 1000)), *wait)
                }
                Op::Dark(wait) | Op::Live(wait) => (None, *wait),
                Op::Restart => {
                    ledger = kept.ledger(now);
                    (None, 1)
                }
            };
            let changes = event.map_or_else(Vec::new, |event| ledger.liveness(&event));
            prop_assert!(changes.len() <= 1);
            kept.commit(now, changes);
            for _ in 0..wait {
                now += 1;
                let changes = ledger.tick(at(now * 1000));
                kept.commit(now, changes);
                let open = kept.open();
                prop_assert!(open.len() <= 1);
                // Dark: it is open, and said to be wrong. Live: closed, or held for its flapping.
                let wrong = open.iter().any(|incident| !is_held(incident));
                prop_assert_eq!(wrong, is_dark);
                if let Some(flap) = open.first().and_then(|incident| Flap::of(incident)) {
                    let since = flap.since;
                    let count = openings.iter().filter(|at| **at >= since).count();
                    prop_assert_eq!(flap.count as usize, count, "the count is the truth");
                }
            }
        }
        // In the end it is well, and stays so.
        if is_dark {
            let changes = ledger.liveness(&live(BOX, now * 1000));
            kept.commit(now, changes);
        }
        for _ in 0..RULE.calm.as_secs() + 62 {
            now += 1;
            let changes = ledger.tick(at(now * 1000));
            kept.commit(now, changes);
        }
        prop_assert_eq!(kept.open().len(), 0);
        // Each was opened once and ended once, one after the other.
        for pair in kept.sent.chunks(2) {
            prop_assert_eq!(pair.len(), 2);
            prop_assert_eq!((pair[0].2, pair[1].2), (EventKind::Opened, EventKind::Resolved));
            prop_assert_eq!(pair[0].1, pair[1].1);
        }
        // Bounded in any window: pairs before it is one that flaps, and then at most an end and an opening per calm.
        let (within, calm) = (RULE.within.as_secs(), RULE.calm.as_secs());
        let bound = 2 * (u64::from(RULE.after) - 1) + 2 * (within / calm + 1) + 1;
        for (at, ..) in &kept.sent {
            let sent = kept.sent.iter().filter(|(other, ..)| (*at..at + within).contains(other)).count() as u64;
            prop_assert!(sent <= bound, "{sent} in {within} s");
        }
    }
}
