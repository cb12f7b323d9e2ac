//! Boxes that go together, and boxes that do not.

use super::*;

#[test]
fn three_boxes_are_judged_one_by_one() {
    let mut world = World::new(&[("", 3)]);
    world.run(20 * SECOND);
    world.kill(0..2);
    world.run(20 * SECOND);
    assert_eq!(world.dark().len(), 2);
    assert_eq!(world.news(), Vec::<String>::new());
}

#[test]
fn a_site_that_goes_is_one_incident_and_its_stragglers_are_told_of_afterwards() {
    let mut world = World::new(&[("fsn1", 43), ("nbg1", 60)]);
    world.run(20 * SECOND);
    world.kill(0..41);
    let cut = world.now.since(Mono::START).as_secs_f64();
    world.run(30 * SECOND);
    assert_eq!(
        (world.dark(), world.news()),
        (vec![], vec!["fsn1: 41 of 43".to_owned()])
    );
    let opened = world
        .log
        .iter()
        .find(|(_, event)| matches!(event, Event::StormOpened { .. }));
    assert!(opened.unwrap().0 - cut <= 6.2);
    world.revive(0..39);
    world.run(30 * SECOND);
    assert_eq!(world.news().last().unwrap(), "fsn1 over, 2 left");
    assert_eq!(
        (world.state(39), world.state(0)),
        (Liveness::Dark, Liveness::Live)
    );
}

#[test]
fn most_of_the_fleet_in_whole_sites_is_no_blindness() {
    let mut world = World::new(&[("a", 30), ("b", 30), ("c", 30)]);
    world.run(20 * SECOND);
    world.kill(0..60);
    world.run(30 * SECOND);
    assert_eq!(world.dark(), vec![]);
    let mut news = world.news();
    news.sort();
    assert_eq!(news, ["a: 30 of 30", "b: 30 of 30"]);
}

#[test]
fn a_site_that_goes_within_seconds_is_still_one_incident() {
    let mut world = World::new(&[("fsn1", 10), ("nbg1", 30)]);
    world.boxes[..2].iter_mut().for_each(|sim| sim.next = Mono::START);
    let half_a_beat_later = Mono::START + 500 * MS;
    world.boxes[2..6]
        .iter_mut()
        .for_each(|sim| sim.next = half_a_beat_later);
    world.run(20 * SECOND);
    world.kill(0..2);
    world.run(2900 * MS);
    world.kill(2..6);
    world.run(20 * SECOND);
    assert_eq!((world.dark(), world.news().len()), (vec![], 1));
}

#[test]
fn who_comes_back_leaves_the_storm() {
    let mut world = World::new(&[("fsn1", 40), ("nbg1", 60)]);
    world.run(20 * SECOND);
    world.kill(0..40);
    world.run(20 * SECOND);
    world.revive(0..10);
    world.run(20 * SECOND);
    let left = world.log.iter().rev().find_map(|(_, event)| match event {
        Event::StormChanged { members, .. } => Some(members.len()),
        _ => None,
    });
    assert_eq!(left, Some(30));
    world.kill(0..3);
    world.run(20 * SECOND);
    assert_eq!((world.dark(), world.news().len()), (vec![], 1));
}

#[test]
fn a_single_box_of_a_site_is_not_held_back() {
    let mut world = World::new(&[("fsn1", 40), ("nbg1", 40)]);
    world.run(20 * SECOND);
    world.kill(3..4);
    let last = world.boxes[3].last.since(Mono::START).as_secs_f64();
    world.run(10 * SECOND);
    let dark = world.dark();
    assert!(dark.len() == 1 && dark[0].0 - last <= 6.1, "{dark:?}");
}

#[test]
fn boxes_dying_one_after_the_other_are_told_of_one_by_one() {
    let mut world = World::new(&[("fsn1", 10), ("nbg1", 20)]);
    world.run(20 * SECOND);
    for at in 0..9 {
        world.kill(at..at + 1);
        world.run(30 * SECOND);
    }
    assert_eq!(world.dark().len(), 9);
    assert_eq!(world.news(), Vec::<String>::new());
}

#[test]
fn the_census_adds_up_whatever_happens() {
    let mut world = World::new(&[("a", 20), ("b", 20), ("", 20)]);
    for round in 0..60 {
        let at = world.chance(60) as usize;
        match round % 5 {
            0 | 1 => world.kill(at..at + 1),
            2 => world.revive(0..60),
            3 => world
                .judge
                .add(BoxIx(at as u32), &labels("c"), None, moment(world.now)),
            _ => world.stop(MS * 400),
        }
        world.run(7 * SECOND);
    }
    world.revive(0..60);
    world.run(60 * SECOND);
    let all = world.judge.tracker.census.all(GroupIx::FLEET);
    assert_eq!((all.expected, all.overdue), (60, 0));
}

#[test]
fn a_box_that_declares_another_site_each_second_leaves_nothing_behind() {
    let mut world = World::new(&[("fsn1", 3)]);
    for at in 0..1000 {
        let labels = labels(&format!("site-{at}"));
        world.judge.add(BoxIx(0), &labels, None, moment(world.now));
        world.run(TICK);
    }
    assert_eq!(
        world.judge.tracker.census.groups(),
        3,
        "the fleet, fsn1 and the last one"
    );
    world.judge.remove(BoxIx(0));
    assert_eq!(world.judge.tracker.census.groups(), 2);
}
