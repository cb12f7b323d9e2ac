//! Boxes that may be gone: no evidence for anything, and a fresh start when that is over.

use super::*;

fn gone(world: &World) -> usize {
    let gone = |(_, event): &&(f64, Event)| matches!(event, Event::Box(change) if matches!(change.what, What::Dark { .. } | What::Silent { .. }));
    world.log.iter().filter(gone).count()
}

fn together(world: &World) -> usize {
    let together =
        |(_, event): &&(f64, Event)| matches!(event, Event::StormOpened { .. } | Event::Blind { .. });
    world.log.iter().filter(together).count()
}

#[test]
fn a_maintenance_of_most_of_the_fleet_looks_neither_like_blindness_nor_like_a_storm() {
    let mut world = World::new(&[("fsn1", 30), ("nbg1", 10)]);
    world.run(SECOND * 30);
    for at in 0..30 {
        world.judge.excuse(BoxIx(at));
    }
    world.kill(0..30);
    world.run(SECOND * 60);
    assert_eq!((gone(&world), together(&world)), (30, 0));
    assert!(world.judge.ready(world.now));
    // And the others are judged as ever.
    world.kill(30..31);
    world.run(SECOND * 40);
    assert_eq!((gone(&world), together(&world)), (31, 0));
    assert_eq!(world.state(30), Liveness::Dark);
}

#[test]
fn the_servers_own_trouble_still_shows_in_the_boxes_that_are_expected() {
    let mut world = World::new(&[("fsn1", 10), ("nbg1", 10)]);
    world.run(SECOND * 30);
    for at in 0..10 {
        world.judge.excuse(BoxIx(at));
    }
    world.kill(0..20);
    world.run(SECOND * 30);
    let blind = world
        .log
        .iter()
        .filter(|(_, event)| matches!(event, Event::Blind { .. }))
        .count();
    assert_eq!(
        (blind, gone(&world)),
        (1, 0),
        "blind: nobody is judged, not even who may be gone"
    );
}

#[test]
fn at_its_end_a_live_box_has_a_full_deadline_and_a_dark_one_stays_dark() {
    let mut world = World::new(&[("fsn1", 10)]);
    world.run(SECOND * 30);
    for at in 0..3 {
        world.judge.excuse(BoxIx(at));
    }
    world.kill(0..2);
    world.run(SECOND * 60);
    assert_eq!(world.state(0), Liveness::Dark);
    world.revive(0..1);
    world.run(SECOND * 10);
    // Box 0 is back, box 1 is not, box 2 has just gone: its silence so far does not count.
    world.kill(2..3);
    world.run(SECOND * 3);
    let before = gone(&world);
    for at in 0..3 {
        world.judge.fresh_box(BoxIx(at), world.now);
    }
    let end = world.now.since(Mono::START).as_secs_f64();
    world.run(SECOND * 40);
    assert_eq!(
        (world.state(0), world.state(1), world.state(2)),
        (Liveness::Live, Liveness::Dark, Liveness::Dark)
    );
    let last = world.dark().last().copied().unwrap();
    assert_eq!((gone(&world), last.1), (before + 1, 2));
    assert!(last.0 - end > 2.9, "{} after the end", last.0 - end);
    // It counts again.
    world.kill(3..10);
    world.kill(0..1);
    world.run(SECOND * 20);
    assert_eq!(together(&world), 1);
}
