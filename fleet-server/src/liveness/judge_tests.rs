//! Fleets in virtual time: what an operator would be told, and when.

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;
use protocol::names::Labels;
use uuid::Uuid;

use super::*;
use crate::liveness::event::{Cause, What};
use crate::liveness::self_doubt::TICK;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A fleet that beats, and a server that ticks.
struct World {
    judge: Judge,
    now: Mono,
    boxes: Vec<SimBox>,
    /// Events with their times, seconds after the start.
    log: Vec<(f64, Event)>,
    random: u64,
}

struct SimBox {
    next: Mono,
    last: Mono,
    every: Duration,
    session: u128,
    boot: u128,
    seq: u64,
    up: bool,
    /// Beats up to this moment are lost on the way.
    cut_until: Mono,
}

impl World {
    fn new(sites: &[(&str, usize)]) -> Self {
        let mut world = Self {
            judge: judge(),
            now: Mono::START,
            boxes: Vec::new(),
            log: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        for (site, count) in sites {
            for _ in 0..*count {
                world.add(site);
            }
        }
        world
    }

    fn add(&mut self, site: &str) {
        let ix = BoxIx(self.boxes.len() as u32);
        let offset = self.chance(1000);
        self.judge.add(ix, &labels(site), None, moment(self.now));
        self.boxes.push(SimBox {
            next: self.now + MS * offset,
            last: self.now,
            every: SECOND,
            session: u128::from(ix.0) + 1,
            boot: u128::from(ix.0) + 1,
            seq: 0,
            up: true,
            cut_until: Mono::default(),
        });
    }

    fn chance(&mut self, below: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.random >> 33) % u64::from(below.max(1))) as u32
    }

    fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        while self.now < end {
            let tick = self.now + TICK;
            self.arrivals(tick);
            self.now = tick;
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.judge.tick(moment(self.now));
        let at = self.now.since(Mono::START).as_secs_f64();
        let events = self.judge.take_events();
        self.log.extend(events.into_iter().map(|event| (at, event)));
    }

    /// The server does nothing for so long; the boxes go on, and what they sent waits in sockets.
    fn stop(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        for sim in &mut self.boxes {
            while sim.up && sim.next < end {
                sim.next = sim.next + sim.every;
                sim.seq += 1;
            }
        }
        self.now = end;
        self.tick();
    }

    fn arrivals(&mut self, until: Mono) {
        for at in 0..self.boxes.len() {
            let jitter = MS * self.chance(50);
            let sim = &mut self.boxes[at];
            if !sim.up || sim.next > until {
                continue;
            }
            let arrives = sim.next;
            sim.seq += 1;
            sim.next = arrives + sim.every - 25 * MS + jitter;
            if arrives > sim.cut_until {
                sim.last = arrives;
                let beat = sim.beat(at);
                self.judge.beat(BoxIx(at as u32), moment(arrives), &beat).unwrap();
            }
        }
    }

    fn kill(&mut self, boxes: std::ops::Range<usize>) {
        self.boxes[boxes].iter_mut().for_each(|sim| sim.up = false);
    }

    fn revive(&mut self, boxes: std::ops::Range<usize>) {
        let now = self.now;
        for sim in &mut self.boxes[boxes] {
            sim.up = true;
            sim.next = sim.next.max(now);
        }
    }

    fn state(&self, at: usize) -> Liveness {
        self.judge.row(BoxIx(at as u32)).unwrap().state
    }

    /// Verdicts that would be told of one by one.
    fn dark(&self) -> Vec<(f64, u32, Cause)> {
        self.log
            .iter()
            .filter_map(|(at, event)| match event {
                Event::Box(change) => match change.what {
                    What::Dark { cause, .. } if cause != Cause::Group => Some((*at, change.ix.0, cause)),
                    What::Silent { .. } => Some((*at, change.ix.0, Cause::HostAnswers)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    /// All other news: words in order.
    fn news(&self) -> Vec<String> {
        self.log
            .iter()
            .filter_map(|(_, event)| match event {
                Event::StormOpened {
                    group,
                    members,
                    expected,
                    ..
                } => Some(format!("{group}: {} of {expected}", members.len())),
                Event::StormOver {
                    group, stragglers, ..
                } => Some(format!("{group} over, {} left", stragglers.len())),
                Event::Blind { .. } => Some("blind".to_owned()),
                Event::SeesAgain { .. } => Some("sees again".to_owned()),
                Event::Duplicate { ix, .. } => Some(format!("duplicate {}", ix.0)),
                Event::DuplicateOver { ix, .. } => Some(format!("duplicate {} over", ix.0)),
                Event::Box(_) | Event::StormChanged { .. } => None,
            })
            .collect()
    }

    /// The server's process ends and starts again after `down`; what it saved it still knows.
    fn restart(&mut self, down: Duration) {
        let saved: Vec<_> = (0..self.boxes.len() as u32)
            .map(|at| self.judge.memory(BoxIx(at), moment(self.now)).unwrap())
            .collect();
        self.stop(down);
        self.judge = Judge::new(&LivenessSettings::default(), &["site".into()], self.now, false);
        for (at, memory) in saved.iter().enumerate() {
            self.judge.add(
                BoxIx(at as u32),
                &Labels::default(),
                Some(memory),
                moment(self.now),
            );
        }
    }
}

impl SimBox {
    fn beat(&self, conn: usize) -> Arrival {
        Arrival {
            conn: ConnId(conn as u64),
            session: Uuid::from_u128(self.session),
            boot_id: Uuid::from_u128(self.boot),
            seq: self.seq,
            every: self.every,
            goodbye: None,
        }
    }
}

fn judge() -> Judge {
    Judge::new(&LivenessSettings::default(), &["site".into()], Mono::START, false)
}

fn labels(site: &str) -> Labels {
    if site.is_empty() {
        Labels::default()
    } else {
        Labels::from_texts([("site", site)]).unwrap()
    }
}

fn moment(mono: Mono) -> Moment {
    let start = Timestamp::from_second(1_763_755_200).unwrap();
    Moment {
        mono,
        wall: start + mono.since(Mono::default()),
    }
}

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
            assert!((6.0..=6.1).contains(&took), "{fleet}: {took}");
            worst = worst.max(Duration::from_secs_f64(took));
            assert_eq!(world.state(0), Liveness::Dark);
        }
    }
    assert!(worst <= Duration::from_millis(6100));
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
        (WitnessAnswer::Unreachable, Cause::WitnessConfirmed, 4.6),
        (WitnessAnswer::Reachable, Cause::HostAnswers, 5.2),
        (WitnessAnswer::Unknown, Cause::Deadline, 6.1),
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
fn a_killed_watchdog_on_a_host_that_answers_is_silent_within_three_seconds() {
    let mut world = World::new(&[("", 5)]);
    world.run(20 * SECOND);
    world.kill(0..1);
    let killed = world.now;
    world.judge.closed(BoxIx(0), ConnId(0), moment(killed));
    world
        .judge
        .witness(BoxIx(0), killed, killed, WitnessAnswer::Reachable);
    world.run(10 * SECOND);
    assert_eq!(world.state(0), Liveness::Silent);
    let took = world.dark()[0].0 - killed.since(Mono::START).as_secs_f64();
    assert!(took <= 3.1, "{took}");
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
    let all = world
        .judge
        .tracker
        .census
        .all(crate::liveness::census::GroupIx::FLEET);
    assert_eq!((all.expected, all.overdue), (60, 0));
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
        prop_assert_eq!(told, dead.iter().copied().collect::<Vec<_>>());
        for at in 0..20 {
            let wanted = if dead.contains(&at) { Liveness::Dark } else { Liveness::Live };
            prop_assert_eq!(world.state(at), wanted);
        }
    }
}
