//! One box: cut, back, away, killed, cloned, asked about by a witness.

use super::*;

#[test]
fn one_box_cut_is_dark_six_seconds_after_its_last_beat() {
    let mut worst = Duration::ZERO;
    for fleet in [1, 2, 20, 300] {
        for round in 0..20 {
            let mut world = World::new(&[("", fleet)]);
            world.random = 77 + round;
            world.run(20 * SECOND + MS * (round as u32 * 53));
            world.kill(0..1);
            let last = world.boxes[0].last;
            world.run(10 * SECOND);
            let dark = world.dark();
            assert_eq!(dark.len(), 1, "{fleet} {dark:?}");
            let took = dark[0].0 - last.since(Mono::START).as_secs_f64();
            // A few boxes: until one of the others was heard after it.
            let heard = if (4..50).contains(&fleet) { 0.25 } else { 0.0 };
            assert!((6.0..=6.1 + heard).contains(&took), "{fleet}: {took}");
            worst = worst.max(Duration::from_secs_f64(took - heard));
            assert_eq!(world.state(0), Liveness::Dark);
        }
    }
    assert!(worst <= Duration::from_millis(6100));
}

/// Between their beats nobody is heard for long, and that is no trouble of the server's.
#[test]
fn one_of_a_few_boxes_that_beat_slowly_is_found_in_the_time_of_its_pace() {
    for (fleet, every) in [(4, 5), (6, 5), (5, 30), (8, 120), (40, 120)] {
        let mut world = World::new(&[("", fleet)]);
        for at in 0..fleet {
            world.boxes[at].every = SECOND * every;
            world.boxes[at].next = world.now + MS * (at as u32 * every * 1000 / fleet as u32);
        }
        world.run(SECOND * every * 8);
        world.kill(0..1);
        let last = world.boxes[0].last;
        world.run(SECOND * every * 12);
        let dark = world.dark();
        assert_eq!(dark.len(), 1, "{fleet} boxes, each {every} s: {dark:?}");
        let took = dark[0].0 - last.since(Mono::START).as_secs_f64();
        assert!(
            took <= f64::from(every) * 7.5,
            "{fleet} boxes, each {every} s: {took} s"
        );
    }
}

#[test]
fn losses_of_four_seconds_alarm_nobody() {
    let mut world = World::new(&[("fsn1", 10), ("", 10)]);
    world.run(20 * SECOND);
    for at in 0..200_usize {
        let now = world.now;
        let long = MS * (500 + world.chance(3400));
        world.boxes[at % 20].cut_until = now + long;
        world.run(SECOND);
    }
    assert_eq!(world.dark(), vec![]);
    assert_eq!(world.news(), Vec::<String>::new());
}

#[test]
fn a_box_that_comes_back_is_live_and_says_how_long_it_was_gone() {
    let mut world = World::new(&[("", 1)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    world.run(20 * SECOND);
    world.revive(0..1);
    world.run(2 * SECOND);
    let back = world.log.iter().find_map(|(at, event)| match event {
        Event::Box(change) if *at > 30.0 => match change.what {
            What::Live {
                after,
                rebooted,
                first,
            } => Some((after, rebooted, first)),
            _ => None,
        },
        _ => None,
    });
    let (after, rebooted, first) = back.unwrap();
    assert!((19.0..22.0).contains(&after.as_secs_f64()) && !rebooted && !first);
}

#[test]
fn a_suspended_machine_teaches_nothing_about_its_path() {
    let mut world = World::new(&[("", 1)]);
    let mut earned = |goodbye: bool| {
        for _ in 0..3 {
            world.run(4000 * SECOND);
            if goodbye {
                world.boxes[0].seq += 1;
                let beat = Arrival {
                    goodbye: Some((GoodbyeWhy::Suspend, 600 * SECOND)),
                    ..world.boxes[0].beat(0)
                };
                world.judge.beat(BoxIx(0), moment(world.now), &beat).unwrap();
            }
            world.boxes[0].cut_until = world.now + 20 * SECOND;
            world.run(30 * SECOND);
        }
        world.judge.row(BoxIx(0)).unwrap().dark_after
    };
    assert_eq!(earned(true), 6 * SECOND);
    assert!(earned(false) > 20 * SECOND);
}

#[test]
fn a_witness_alone_makes_nobody_dark_before_it_was_asked_twice() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let last = world.boxes[0].last.since(Mono::START).as_secs_f64();
    world.judge.closed(BoxIx(0), ConnId(0), moment(world.now));
    world
        .judge
        .witness(BoxIx(0), world.now, world.now, WitnessAnswer::Unreachable);
    world.run(10 * SECOND);
    let dark = world.dark();
    assert_eq!((dark.len(), dark[0].2), (1, Cause::WitnessConfirmed));
    assert!((4.75..5.1).contains(&(dark[0].0 - last)), "{dark:?} {last}");
}

#[test]
fn a_goodbye_is_no_alarm_until_it_is_overdue() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.boxes[0].up = false;
    world.boxes[0].seq += 1;
    let goodbye = Arrival {
        goodbye: Some((GoodbyeWhy::Reboot, 60 * SECOND)),
        ..world.boxes[0].beat(0)
    };
    world.judge.beat(BoxIx(0), moment(world.now), &goodbye).unwrap();
    world.judge.closed(BoxIx(0), ConnId(0), moment(world.now));
    world.run(50 * SECOND);
    assert_eq!((world.state(0), world.dark()), (Liveness::Away, vec![]));
    world.restart(5 * SECOND);
    world.run(20 * SECOND);
    assert_eq!((world.state(0), world.dark()), (Liveness::Dark, vec![]));
    let overdue = world.log.iter().filter(
        |(_, event)| matches!(event, Event::Box(change) if matches!(change.what, What::Overdue { why: GoodbyeWhy::Reboot, .. })),
    );
    assert_eq!(overdue.count(), 1);
    world.boxes[0].boot = 99;
    world.boxes[0].session = 99;
    world.revive(0..1);
    world.run(2 * SECOND);
    assert_eq!(world.state(0), Liveness::Live);
}

#[test]
fn a_reboot_in_time_is_quiet() {
    let mut world = World::new(&[("", 1)]);
    world.run(20 * SECOND);
    world.boxes[0].up = false;
    world.boxes[0].seq += 1;
    let goodbye = Arrival {
        goodbye: Some((GoodbyeWhy::Reboot, 600 * SECOND)),
        ..world.boxes[0].beat(0)
    };
    world.judge.beat(BoxIx(0), moment(world.now), &goodbye).unwrap();
    world.run(60 * SECOND);
    world.boxes[0].boot = 99;
    world.boxes[0].session = 99;
    world.boxes[0].seq = 0;
    world.revive(0..1);
    world.run(60 * SECOND);
    assert_eq!((world.state(0), world.dark()), (Liveness::Live, vec![]));
}

#[test]
fn a_killed_watchdog_is_found_by_its_closed_connection() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let killed = world.now.since(Mono::START).as_secs_f64();
    world.judge.closed(BoxIx(0), ConnId(0), moment(world.now));
    assert_eq!(world.state(0), Liveness::Suspect);
    world.run(10 * SECOND);
    let dark = world.dark();
    assert_eq!((dark.len(), dark[0].2), (1, Cause::ConnectionClosed));
    assert!((3.9..4.2).contains(&(dark[0].0 - killed)), "{dark:?}");
}

#[test]
fn a_watchdog_that_its_manager_restarts_alarms_nobody() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.boxes[0].up = false;
    world.judge.closed(BoxIx(0), ConnId(0), moment(world.now));
    world.run(2 * SECOND);
    world.boxes[0].session = 99;
    world.boxes[0].seq = 0;
    world.revive(0..1);
    world.run(20 * SECOND);
    assert_eq!((world.state(0), world.dark()), (Liveness::Live, vec![]));
}

#[test]
fn the_end_of_a_connection_that_is_not_kept_alive_means_nothing() {
    let mut judge = judge();
    judge.add(BoxIx(0), &Labels::default(), None, moment(Mono::START));
    let mut sim = World::new(&[("", 1)]).boxes.remove(0);
    for n in 0..5 {
        sim.seq += 1;
        let now = moment(Mono::START + SECOND * n);
        judge.beat(BoxIx(0), now, &sim.beat(n as usize)).unwrap();
        judge.closed(BoxIx(0), ConnId(u64::from(n)), now);
        assert_eq!(judge.row(BoxIx(0)).unwrap().state, Liveness::Live);
    }
}

#[test]
fn witnesses_make_it_faster_and_tell_silent_from_dark() {
    for (answer, cause, within) in [
        (WitnessAnswer::Unreachable, Cause::WitnessConfirmed, 5.1),
        (WitnessAnswer::Reachable, Cause::HostAnswers, 6.6),
        (WitnessAnswer::Unknown, Cause::Deadline, 6.6),
    ] {
        let mut world = World::new(&[("", 5)]);
        world.run(20 * SECOND);
        world.kill(0..1);
        let last = world.boxes[0].last;
        while world.state(0) == Liveness::Live {
            world.run(TICK);
        }
        let asked = world.now;
        let delay = if answer == WitnessAnswer::Unreachable {
            1500 * MS
        } else {
            10 * MS
        };
        world.run(delay);
        world.judge.witness(BoxIx(0), asked, world.now, answer);
        world.run(10 * SECOND);
        let dark = world.dark();
        assert_eq!((dark.len(), dark[0].2), (1, cause));
        let took = dark[0].0 - last.since(Mono::START).as_secs_f64();
        assert!(took <= within, "{answer:?}: {took}");
    }
}

#[test]
fn a_killed_watchdog_on_a_host_that_answers_is_silent_after_the_tolerance() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let (killed, last) = (world.now, world.boxes[0].last);
    world.judge.closed(BoxIx(0), ConnId(0), moment(killed));
    world
        .judge
        .witness(BoxIx(0), killed, killed, WitnessAnswer::Reachable);
    world.run(10 * SECOND);
    assert_eq!(world.state(0), Liveness::Silent);
    let dark = world.dark()[0].0;
    assert!(dark - last.since(Mono::START).as_secs_f64() >= 4.0, "{dark}");
    let took = dark - killed.since(Mono::START).as_secs_f64();
    assert!(took <= 4.2, "{took}");
}

#[test]
fn an_answer_of_an_earlier_suspicion_counts_for_nothing() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    let asked = world.now;
    world.kill(0..1);
    world.run(4 * SECOND);
    world
        .judge
        .witness(BoxIx(0), asked, world.now, WitnessAnswer::Unreachable);
    world.run(SECOND);
    assert_eq!(world.state(0), Liveness::Suspect);
}

#[test]
fn clones_are_an_incident_and_the_box_stays_live() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    let mut twin = SimBox {
        session: 500,
        boot: 500,
        seq: 0,
        ..World::new(&[("", 1)]).boxes.remove(0)
    };
    for _ in 0..20 {
        twin.seq += 1;
        let _ = world.judge.beat(BoxIx(0), moment(world.now), &twin.beat(9));
        let sim = &mut world.boxes[0];
        sim.seq += 1;
        let _ = world.judge.beat(BoxIx(0), moment(world.now), &sim.beat(0));
        sim.next = world.now + 10_000 * SECOND;
        world.run(SECOND);
    }
    assert_eq!(
        (world.state(0), world.news()),
        (Liveness::Live, vec!["duplicate 0".to_owned()])
    );
    for _ in 0..90 {
        twin.seq += 1;
        world
            .judge
            .beat(BoxIx(0), moment(world.now), &twin.beat(9))
            .unwrap();
        world.run(SECOND);
    }
    assert_eq!(world.news(), ["duplicate 0", "duplicate 0 over"]);
}

#[test]
fn a_removed_box_is_expected_no_more() {
    let mut world = World::new(&[("fsn1", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    world.judge.remove(BoxIx(0));
    world.run(20 * SECOND);
    assert_eq!(world.dark(), vec![]);
    let beat = world.boxes[0].beat(0);
    let refused = world.judge.beat(BoxIx(0), moment(world.now), &beat);
    assert_eq!(refused, Err(Refused::Removed));
}

#[test]
fn unseen_boxes_alarm_nobody() {
    let mut world = World::new(&[("", 0)]);
    for at in 0..10 {
        world
            .judge
            .add(BoxIx(at), &Labels::default(), None, moment(Mono::START));
    }
    world.run(100 * SECOND);
    assert_eq!(world.log, vec![]);
}

#[test]
fn a_timer_box_has_its_own_pace() {
    let mut world = World::new(&[("", 1)]);
    world.boxes[0].every = 120 * SECOND;
    world.run(600 * SECOND);
    world.kill(0..1);
    let last = world.boxes[0].last.since(Mono::START).as_secs_f64();
    world.run(300 * SECOND);
    let dark = world.dark();
    assert!(
        dark.len() == 1 && (264.0..264.2).contains(&(dark[0].0 - last)),
        "{dark:?} {last}"
    );
}

#[test]
fn a_host_that_answers_again_is_given_time_to_be_heard() {
    let mut world = World::new(&[("", 20)]);
    world.run(20 * SECOND);
    let last = world.boxes[0].last;
    world.boxes[0].cut_until = last + 5200 * MS;
    world.run(3300 * MS);
    let asked = world.now;
    world
        .judge
        .witness(BoxIx(0), asked, world.now, WitnessAnswer::Unreachable);
    world.run(400 * MS);
    world
        .judge
        .witness(BoxIx(0), asked + SECOND, world.now, WitnessAnswer::Reachable);
    world.run(20 * SECOND);
    assert_eq!((world.dark(), world.state(0)), (vec![], Liveness::Live));
}

#[test]
fn answers_that_change_all_the_time_put_nothing_off_for_ever() {
    let mut world = World::new(&[("", 20)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let last = world.boxes[0].last.since(Mono::START).as_secs_f64();
    for n in 0..60 {
        let answer = if n % 2 == 0 {
            WitnessAnswer::Reachable
        } else {
            WitnessAnswer::Unreachable
        };
        let now = world.now;
        world.judge.witness(BoxIx(0), now, now, answer);
        world.run(900 * MS);
    }
    let dark = world.dark();
    assert!(dark.len() == 1 && dark[0].0 - last <= 31.0, "{dark:?} {last}");
}

#[test]
fn nobody_heard_for_a_while_is_no_single_boxs_silence() {
    // The box is silent for 2.5 s; then the server hears nobody for 2 s, in which the box would have come back.
    let mut world = World::new(&[("fsn1", 10), ("", 10)]);
    world.run(20 * SECOND);
    world.boxes[0].cut_until = world.now + 4500 * MS;
    world.run(2500 * MS);
    let until = world.now + 2 * SECOND;
    world.boxes.iter_mut().for_each(|sim| sim.cut_until = until);
    for _ in 0..40 {
        let now = world.now;
        world
            .judge
            .witness(BoxIx(0), now, now, WitnessAnswer::Unreachable);
        world.run(100 * MS);
    }
    world.run(30 * SECOND);
    assert_eq!((world.dark(), world.news()), (vec![], Vec::<String>::new()));
}
