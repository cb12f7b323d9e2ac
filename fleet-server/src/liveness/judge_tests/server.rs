//! The server in trouble itself: it stops, is restarted, hears nobody.

use proptest::prelude::*;

use super::*;

#[test]
fn a_stopped_server_accuses_nobody_and_finds_who_died_meanwhile() {
    for pause in [300, 1000, 3000, 20_000, 120_000] {
        let mut world = World::new(&[("fsn1", 150), ("", 150)]);
        world.run(20 * SECOND);
        world.kill(7..8);
        world.stop(MS * pause);
        world.run(30 * SECOND);
        let dark: Vec<u32> = world.dark().iter().map(|dark| dark.1).collect();
        assert_eq!(dark, [7], "{pause} ms");
        assert_eq!(world.news(), Vec::<String>::new(), "{pause} ms");
    }
}

#[test]
fn a_restarted_server_accuses_nobody_and_finds_who_died_meanwhile() {
    for down in [1, 20, 600] {
        let mut world = World::new(&[("", 300)]);
        world.run(20 * SECOND);
        world.kill(7..8);
        let last_seen = world.judge.row(BoxIx(7)).unwrap().last_seen;
        world.restart(SECOND * down);
        assert!(!world.judge.ready(world.now));
        let start = world.now.since(Mono::START).as_secs_f64();
        world.run(30 * SECOND);
        assert!(world.judge.ready(world.now));
        let dark = world.dark();
        assert_eq!(dark.len(), 1, "{dark:?}");
        assert!((6.0..7.0).contains(&(dark[0].0 - start)), "{dark:?} {start}");
        let told = world.log.iter().find_map(|(_, event)| match event {
            Event::Box(change) if matches!(change.what, What::Dark { .. }) => Some(*change),
            _ => None,
        });
        assert_eq!(told.unwrap().last_seen, last_seen);
    }
}

#[test]
fn who_was_dark_before_a_restart_is_not_told_of_again() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    world.run(20 * SECOND);
    world.restart(5 * SECOND);
    world.run(60 * SECOND);
    assert_eq!(world.dark().len(), 1);
    assert_eq!(world.state(0), Liveness::Dark);
    world.revive(0..1);
    world.run(2 * SECOND);
    assert_eq!(world.state(0), Liveness::Live);
}

#[test]
fn all_cut_at_once_is_one_blindness() {
    for fleet in [4, 20, 300] {
        let mut world = World::new(&[("", fleet)]);
        world.run(20 * SECOND);
        world.kill(0..fleet);
        world.run(30 * SECOND);
        assert_eq!(
            (world.dark(), world.news()),
            (vec![], vec!["blind".to_owned()]),
            "{fleet}"
        );
        assert!(!world.judge.ready(world.now));
        world.revive(0..fleet);
        world.run(30 * SECOND);
        assert_eq!(
            (world.dark(), world.news()),
            (vec![], vec!["blind".into(), "sees again".into()])
        );
        assert!(world.judge.ready(world.now));
    }
}

#[test]
fn a_short_uplink_hiccup_tells_nobody() {
    let mut world = World::new(&[("", 100)]);
    world.run(20 * SECOND);
    let until = world.now + 4 * SECOND;
    world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
    world.run(30 * SECOND);
    assert_eq!((world.dark(), world.news()), (vec![], Vec::<String>::new()));
}

#[test]
fn a_long_outage_of_the_uplink_ends_without_a_storm() {
    for outage in [30, 90, 3600] {
        let mut world = World::new(&[("", 100)]);
        world.run(20 * SECOND);
        let until = world.now + outage * SECOND;
        world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
        world.run((outage + 60) * SECOND);
        assert_eq!(
            (world.dark(), world.news()),
            (vec![], vec!["blind".into(), "sees again".into()]),
            "{outage} s"
        );
    }
}

#[test]
fn who_stays_away_after_a_blindness_is_told_of() {
    let mut world = World::new(&[("", 100)]);
    world.run(20 * SECOND);
    world.kill(0..100);
    world.run(30 * SECOND);
    world.revive(0..98);
    world.run(30 * SECOND);
    let dark: Vec<u32> = world.dark().iter().map(|dark| dark.1).collect();
    assert_eq!(dark, [98, 99]);
}

#[test]
fn half_of_a_fleet_without_sites_is_settled_after_a_minute() {
    let mut world = World::new(&[("", 100)]);
    world.run(20 * SECOND);
    world.kill(0..50);
    world.run(90 * SECOND);
    assert_eq!(world.dark(), vec![]);
    assert_eq!(world.news(), ["blind", "sees again", "the fleet: 50 of 100"]);
    assert!(world.judge.ready(world.now));
    world.kill(99..100);
    world.run(20 * SECOND);
    assert_eq!(world.state(99), Liveness::Dark);
}

#[test]
fn a_small_fleet_with_one_box_left_is_told_who_is_gone() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..4);
    world.run(90 * SECOND);
    assert_eq!(world.dark(), vec![]);
    assert_eq!(world.news(), ["blind", "sees again", "the fleet: 4 of 5"]);
}

#[test]
fn slow_fleets_are_blind_too() {
    let mut world = World::new(&[("", 100)]);
    for at in 0..100 {
        world.boxes[at].every = 120 * SECOND;
        world.boxes[at].next = Mono::START + SECOND * at as u32;
    }
    world.run(400 * SECOND);
    world.kill(0..100);
    world.run(600 * SECOND);
    assert_eq!((world.dark(), world.news()), (vec![], vec!["blind".to_owned()]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever mixture of losses up to 4 s, pauses and restarts of the server: nobody alive is told of.
    #[test]
    fn no_false_alarm(
        seed in any::<u64>(),
        happenings in prop::collection::vec((0_u8..4, 0_usize..12, 200_u32..4000), 1..40),
    ) {
        let mut world = World::new(&[("fsn1", 6), ("", 6)]);
        world.random = seed;
        world.run(10 * SECOND);
        for (what, at, ms) in happenings {
            match what {
                0 | 1 => world.boxes[at].cut_until = world.now + MS * ms,
                2 => world.stop(MS * ms * 5),
                _ => world.restart(MS * ms * 10),
            }
            world.run(MS * (ms / 2));
            // A loss on top of a loss would be a longer one.
            let rest = world.boxes[at].cut_until.since(world.now);
            world.run(rest + SECOND);
        }
        world.run(20 * SECOND);
        prop_assert_eq!(world.dark(), vec![]);
        prop_assert_eq!(world.news(), Vec::<String>::new());
    }

    /// A box that is cut is always told of, once, whatever the others do.
    #[test]
    fn no_death_is_missed(seed in any::<u64>(), others in 0_usize..30, pause_ms in 0_u32..30_000) {
        let mut world = World::new(&[("fsn1", 1), ("", others)]);
        world.random = seed;
        world.run(15 * SECOND);
        world.kill(0..1);
        world.run(2 * SECOND);
        world.stop(MS * pause_ms);
        world.run(20 * SECOND);
        let dark: Vec<u32> = world.dark().iter().map(|dark| dark.1).collect();
        prop_assert_eq!(dark, vec![0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A restart of the server changes nothing but the time of a verdict.
    #[test]
    fn a_restart_forgets_nobody(
        seed in any::<u64>(),
        dead in prop::collection::btree_set(0_usize..20, 0..4),
        before_ms in 0_u32..12_000,
        down_ms in 1_u32..60_000,
    ) {
        let mut world = World::new(&[("", 20)]);
        world.random = seed;
        world.run(15 * SECOND);
        for at in &dead {
            world.kill(*at..at + 1);
            world.run(2 * SECOND);
        }
        world.run(MS * before_ms);
        world.restart(MS * down_ms);
        world.run(30 * SECOND);
        let mut told: Vec<usize> = world.dark().iter().map(|dark| dark.1 as usize).collect();
        told.sort_unstable();
        // A verdict of the last moment before the end is given once more: what was remembered is older than it. The
        // ledger has that incident open already, and nobody is told twice.
        told.dedup();
        prop_assert_eq!(told, dead.iter().copied().collect::<Vec<_>>());
        for at in 0..20 {
            let wanted = if dead.contains(&at) { Liveness::Dark } else { Liveness::Live };
            prop_assert_eq!(world.state(at), wanted);
        }
    }
}

/// A starved server: it ticks when it can, and of what arrives it handles a part.
fn starve(world: &mut World, how_long: Duration, tick_ms: u32) {
    let end = world.now + how_long;
    while world.now < end {
        let tick = world.now + MS * tick_ms;
        let lost = world.chance(3) > 0;
        for sim in &mut world.boxes {
            sim.cut_until = if lost { tick } else { sim.cut_until };
        }
        world.arrivals(tick);
        world.now = tick;
        world.tick();
    }
}

#[test]
fn an_overloaded_server_judges_nobody_and_says_so() {
    let mut world = World::new(&[("fsn1", 100), ("", 200)]);
    world.run(20 * SECOND);
    starve(&mut world, 20 * SECOND, 130);
    assert!(!world.judge.ready(world.now) && world.judge.overloaded());
    assert_eq!(world.news(), Vec::<String>::new());
    starve(&mut world, 60 * SECOND, 130);
    world.kill(0..1);
    world.run(40 * SECOND);
    let dark: Vec<u32> = world.dark().iter().map(|dark| dark.1).collect();
    assert_eq!(
        (dark, world.news()),
        (vec![0], vec!["overloaded".into(), "sees again".into()])
    );
    assert!(world.judge.ready(world.now));
}

#[test]
fn ticks_that_are_a_little_late_move_the_deadlines() {
    let mut world = World::new(&[("", 20)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let last = world.boxes[0].last.since(Mono::START).as_secs_f64();
    let end = world.now + 20 * SECOND;
    while world.now < end {
        let tick = world.now + 80 * MS;
        world.arrivals(tick);
        world.now = tick;
        world.tick();
    }
    let dark = world.dark();
    assert!(
        dark.len() == 1 && (8.5..10.5).contains(&(dark[0].0 - last)),
        "{dark:?} {last}"
    );
}

/// The addresses declared for the server itself are asked every second while somebody is overdue, as the sweep does it.
pub(super) fn run_with_own_way(world: &mut World, how_long: Duration, open: bool) {
    let end = world.now + how_long;
    while world.now < end {
        let asked = world.now;
        if world.judge.overdue() > 0 || world.judge.blind() {
            world.judge.own_asked(asked);
            world.run(SECOND / 2);
            world.judge.own_answered(asked, open);
        }
        world.run(SECOND / 2);
    }
}

#[test]
fn a_small_fleet_is_not_accused_of_the_servers_own_uplink() {
    for fleet in 1..=3 {
        let mut world = World::new(&[("", fleet)]);
        world.judge.own_answered(world.now, true);
        run_with_own_way(&mut world, 20 * SECOND, true);
        let until = world.now + 60 * SECOND;
        world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
        run_with_own_way(&mut world, 57 * SECOND, false);
        assert_eq!(
            (world.dark(), world.news()),
            (vec![], vec!["no way out".to_owned()]),
            "{fleet}"
        );
        // The uplink is back, and one of them is not.
        world.kill(0..1);
        run_with_own_way(&mut world, 30 * SECOND, true);
        assert_eq!(world.news(), ["no way out", "sees again"]);
        assert_eq!(world.dark().len(), 1, "{fleet}");
    }
}

#[test]
fn a_server_that_is_let_out_nowhere_judges_all_the_same() {
    // Two boxes are heard: whatever the declared addresses say, the server is not cut off.
    let mut world = World::new(&[("", 3)]);
    world.judge.own_answered(world.now, true);
    world.run(20 * SECOND);
    world.kill(0..1);
    run_with_own_way(&mut world, 20 * SECOND, false);
    assert_eq!((world.dark().len(), world.news()), (1, vec![]));
}

#[test]
fn an_outage_of_the_server_teaches_nothing_about_the_boxes_paths() {
    for fleet in [1, 40] {
        let mut world = World::new(&[("", fleet)]);
        world.judge.own_answered(world.now, true);
        world.run(120 * SECOND);
        let before = world.judge.row(BoxIx(0)).unwrap().dark_after;
        let until = world.now + 25 * SECOND;
        world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
        run_with_own_way(&mut world, 22 * SECOND, false);
        run_with_own_way(&mut world, 60 * SECOND, true);
        assert_eq!(world.news().len(), 2, "{fleet}: {:?}", world.news());
        let after = world.judge.row(BoxIx(0)).unwrap().dark_after;
        assert!(after <= before, "{fleet}: {before:?} became {after:?}");
    }
}

#[test]
fn a_server_that_is_cut_off_calls_no_silent_box_dark() {
    let mut world = World::new(&[("", 20)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let killed = world.now;
    world.judge.closed(BoxIx(0), ConnId(0), moment(killed));
    let reached = WitnessAnswer::Reachable;
    world.judge.witness(BoxIx(0), killed, killed, reached);
    world.run(10 * SECOND);
    assert_eq!(world.state(0), Liveness::Silent);
    let until = world.now + 30 * SECOND;
    world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
    world.run(2 * SECOND);
    assert!(
        !world.judge.host_lost(BoxIx(0), moment(world.now)),
        "nobody is heard"
    );
    world.run(10 * SECOND);
    assert!(!world.judge.host_lost(BoxIx(0), moment(world.now)), "it is blind");
    world.run(60 * SECOND);
    assert_eq!(world.state(0), Liveness::Silent);
    assert_eq!(world.news(), ["blind", "sees again"]);
    assert!(world.judge.host_lost(BoxIx(0), moment(world.now)));
    assert_eq!(world.state(0), Liveness::Dark);
}

/// A way that loses most of what it carries makes dead air again and again: that puts nobody's death off for ever.
#[test]
fn a_death_is_found_although_who_is_left_is_heard_every_few_seconds() {
    for (fleet, dead) in [(2, 1), (3, 1), (3, 2), (4, 3)] {
        let mut world = World::new(&[("", fleet)]);
        world.run(20 * SECOND);
        world.kill(0..dead);
        let last = world.boxes[0].last.since(Mono::START).as_secs_f64();
        for _ in 0..200 {
            let next = world.now + 2200 * MS;
            world.boxes[dead..].iter_mut().for_each(|sim| sim.next = next);
            world.run(2200 * MS);
        }
        let found = world.log.iter().find(|(_, event)| match event {
            Event::Box(change) => change.ix.at() < dead && matches!(change.what, What::Dark { .. }),
            Event::Blind { .. } => true,
            _ => false,
        });
        let took = found.map(|(at, _)| at - last);
        assert!(
            took.is_some_and(|took| took <= 60.0),
            "{dead} of {fleet}: {took:?}"
        );
    }
}

/// A box is silent for 5.5 s of its own; then the server hears nobody for 2 s, in which the box would have come back.
#[test]
fn of_a_fleet_that_beats_every_two_seconds_nobody_is_dark_by_the_servers_doing() {
    let mut world = World::new(&[("", 40)]);
    for at in 0..40 {
        world.boxes[at].every = 2 * SECOND;
        world.boxes[at].next = world.now + MS * (at as u32 * 50);
    }
    world.run(60 * SECOND);
    while world.boxes[0].next.since(world.now) < 1900 * MS {
        world.run(TICK);
    }
    let last = world.boxes[0].last;
    world.boxes[0].cut_until = last + 5500 * MS;
    while world.now < last + 5200 * MS {
        world.run(TICK);
    }
    let until = last + 7200 * MS;
    world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
    world.run(30 * SECOND);
    assert_eq!((world.dark(), world.news()), (vec![], Vec::<String>::new()));
}
