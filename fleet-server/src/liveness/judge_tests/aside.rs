//! The canary: judged like a box, and no part of anything.

use super::*;

/// A fleet with the canary as its last box.
fn with_canary(sites: &[(&str, usize)]) -> (World, usize) {
    let mut world = World::new(sites);
    let at = world.boxes.len();
    world.add("");
    world.judge.remove(BoxIx(at as u32));
    world.judge.add_aside(BoxIx(at as u32), moment(world.now));
    world.run(SECOND * 15);
    (world, at)
}

#[test]
fn its_death_is_judged_alone_and_changes_nobodys_count() {
    let (mut world, canary) = with_canary(&[("fsn1", 3)]);
    assert_eq!(world.state(canary), Liveness::Live);
    world.kill(canary..canary + 1);
    world.run(SECOND * 8);
    assert_eq!(world.state(canary), Liveness::Dark);
    let dark: Vec<u32> = world.dark().iter().map(|(_, ix, _)| *ix).collect();
    assert_eq!((dark, world.news().len()), (vec![canary as u32], 0));
}

/// Two of five is no collapse and three of six would be one; two of four is no half and three of five would be.
#[test]
fn dying_with_others_it_makes_neither_a_blindness_nor_a_storm() {
    for sites in [&[("fsn1", 5)][..], &[("fsn1", 4), ("hel1", 20)]] {
        let (mut world, canary) = with_canary(sites);
        world.kill(0..2);
        world.kill(canary..canary + 1);
        world.run(SECOND * 12);
        assert_eq!(world.news(), Vec::<String>::new());
        assert_eq!(world.dark().len(), 3);
    }
}

#[test]
fn a_storm_and_a_blindness_leave_it_out() {
    let (mut world, canary) = with_canary(&[("fsn1", 6), ("hel1", 20)]);
    world.kill(0..6);
    world.kill(canary..canary + 1);
    world.run(SECOND * 12);
    assert_eq!(world.news(), ["fsn1: 6 of 6"]);
    assert_eq!(
        world.dark().iter().map(|(_, ix, _)| *ix).collect::<Vec<_>>(),
        [canary as u32]
    );

    let (mut world, canary) = with_canary(&[("fsn1", 10)]);
    world.kill(0..canary + 1);
    world.run(SECOND * 12);
    assert_eq!(world.news(), ["blind"]);
    assert_eq!(world.state(canary), Liveness::Suspect, "blind, it judges nobody");
}

/// It beats from inside the server: that it is heard says nothing of the way to anybody else.
#[test]
fn its_beats_are_nobodys_who_is_outside() {
    let (mut world, canary) = with_canary(&[("", 2)]);
    world.judge.own_answered(world.now, true);
    let until = world.now + 60 * SECOND;
    world.boxes[..canary]
        .iter_mut()
        .for_each(|sim| sim.cut_until = until);
    server::run_with_own_way(&mut world, 30 * SECOND, false);
    assert_eq!(
        (world.dark(), world.news()),
        (vec![], vec!["no way out".to_owned()])
    );
}

#[test]
fn dying_a_hundred_times_teaches_it_nothing() {
    let (mut world, canary) = with_canary(&[]);
    for _ in 0..100 {
        world.kill(canary..canary + 1);
        world.run(SECOND * 8);
        assert_eq!(world.state(canary), Liveness::Dark);
        world.boxes[canary].session += 1000;
        world.boxes[canary].seq = 0;
        world.revive(canary..canary + 1);
        world.run(SECOND * 4);
    }
    assert_eq!(world.dark().len(), 100);
}
