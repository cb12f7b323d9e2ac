//! However boxes go and come back: what a person is told of stays bounded in every minute, and nobody is lost.

use proptest::prelude::*;
use protocol::incident::{EventKind, Kind};
use protocol::names::BoxName;

use super::*;
use crate::incident::facts::BoxInfo;
use crate::incident::ledger::Ledger;
use crate::liveness::pace::PER_MINUTE;
use crate::store::BoxId;

/// A fleet, and the books over it.
struct Watched {
    world: World,
    books: Ledger,
    read: usize,
    /// When an incident about dark boxes was opened, seconds, and which.
    opened: Vec<(f64, Kind, String)>,
    resolved: usize,
}

impl Watched {
    fn new(sites: &[(&str, usize)]) -> Self {
        let world = World::new(sites);
        let mut books = Ledger::new(1, None);
        for ix in 0..world.boxes.len() as u32 {
            let info = BoxInfo {
                ix: BoxIx(ix),
                id: BoxId(i64::from(ix) + 1),
                name: BoxName::new(format!("box-{ix}")).unwrap(),
                labels: Labels::default(),
                witnesses: protocol::witness::Targets::default(),
            };
            books.add(info, None);
        }
        Self {
            world,
            books,
            read: 0,
            opened: Vec::new(),
            resolved: 0,
        }
    }

    /// Runs, and looks every second whether everybody who is gone is told of.
    fn run(&mut self, how_long: Duration) {
        let end = self.world.now + how_long;
        while self.world.now < end {
            self.world.run(SECOND.min(end.since(self.world.now)));
            for (at, event) in &self.world.log[self.read..] {
                for change in self.books.liveness(event) {
                    let about_dark = matches!(
                        change.incident.kind,
                        Kind::BoxDark | Kind::BoxSilent | Kind::SiteDark | Kind::PlannedOverdue
                    );
                    if about_dark && change.event == EventKind::Opened {
                        let name = change.incident.box_name.map_or_else(
                            || change.incident.details["subject"].as_str().unwrap().to_owned(),
                            |name| name.to_string(),
                        );
                        self.opened.push((*at, change.incident.kind, name));
                    }
                    self.resolved += usize::from(about_dark && change.event == EventKind::Resolved);
                }
            }
            self.read = self.world.log.len();
            assert_eq!(self.untold(), Vec::<String>::new());
        }
    }

    /// Who is gone, and neither has an incident nor is named by a storm's.
    fn untold(&self) -> Vec<String> {
        let own = self.own();
        let storms: Vec<_> = self
            .books
            .open_incidents()
            .filter(|incident| incident.kind == Kind::SiteDark)
            .filter_map(|incident| incident.details["members"].as_array())
            .flatten()
            .filter_map(serde_json::Value::as_str)
            .collect();
        self.gone()
            .into_iter()
            .filter(|name| !own.contains(name) && !storms.contains(&name.as_str()))
            .collect()
    }

    fn gone(&self) -> Vec<String> {
        let gone = |at: &usize| matches!(self.world.state(*at), Liveness::Dark | Liveness::Silent);
        (0..self.world.boxes.len())
            .filter(gone)
            .map(|at| format!("box-{at}"))
            .collect()
    }

    /// Those with an incident of their own.
    fn own(&self) -> Vec<String> {
        let names = self
            .books
            .open_incidents()
            .filter_map(|incident| incident.box_name.as_ref());
        let mut names: Vec<String> = names.map(ToString::to_string).collect();
        names.sort_by_key(|name| name[4..].parse::<usize>().unwrap());
        names
    }

    fn dead(&self) -> Vec<String> {
        let dead = self.world.boxes.iter().enumerate().filter(|(_, sim)| !sim.up);
        dead.map(|(at, _)| format!("box-{at}")).collect()
    }

    /// The most that were opened in any minute.
    fn fullest_minute(&self) -> usize {
        let within = |from: f64| {
            self.opened
                .iter()
                .filter(move |(at, _, _)| *at >= from && *at < from + 60.0)
        };
        self.opened
            .iter()
            .map(|(at, _, _)| within(*at).count())
            .max()
            .unwrap_or(0)
    }

    fn storms(&self) -> Vec<&str> {
        let storms = self.opened.iter().filter(|(_, kind, _)| *kind == Kind::SiteDark);
        storms.map(|(_, _, name)| name.as_str()).collect()
    }
}

#[test]
fn a_provider_of_two_sites_is_one_incident_and_not_two() {
    let mut fleet = Watched::new(&[("fsn1@hz", 20), ("nbg1@hz", 20), ("gra1@ovh", 40), ("", 60)]);
    fleet.run(20 * SECOND);
    fleet.world.kill(0..40);
    fleet.run(30 * SECOND);
    assert_eq!(fleet.storms(), ["provider=hz"]);
    assert_eq!(fleet.opened.len(), 1);
    fleet.world.revive(0..40);
    fleet.run(60 * SECOND);
    assert_eq!((fleet.opened.len(), fleet.resolved), (1, 1));
}

#[test]
fn one_site_of_a_provider_is_the_site() {
    let mut fleet = Watched::new(&[("fsn1@hz", 30), ("nbg1@hz", 10), ("gra1@ovh", 40)]);
    fleet.run(20 * SECOND);
    fleet.world.kill(0..30);
    fleet.run(30 * SECOND);
    assert_eq!(fleet.storms(), ["site=fsn1"]);
}

#[test]
fn a_rack_of_a_large_site_is_a_part_of_it() {
    let mut fleet = Watched::new(&[("fsn1", 100), ("nbg1", 300)]);
    fleet.run(20 * SECOND);
    fleet.world.kill(0..12);
    fleet.run(30 * SECOND);
    assert_eq!((fleet.storms(), fleet.opened.len()), (vec!["site=fsn1"], 1));
    let incident = fleet.books.open_incidents().next().unwrap();
    assert_eq!(incident.details["extent"], "partial");
    assert!(
        incident.summary.starts_with("fsn1: 12 of 100 boxes dark"),
        "{}",
        incident.summary
    );
}

#[test]
fn deaths_all_over_are_told_one_by_one_and_then_together() {
    // One box every two seconds, all over a large fleet.
    let mut fleet = Watched::new(&[("", 600)]);
    fleet.run(20 * SECOND);
    for at in 0..30 {
        fleet.world.kill(at..at + 1);
        fleet.run(2 * SECOND);
    }
    fleet.run(30 * SECOND);
    assert_eq!(fleet.own().len(), 8);
    assert_eq!(fleet.storms(), ["fleet"]);
    let storm = fleet
        .books
        .open_incidents()
        .find(|incident| incident.kind == Kind::SiteDark);
    let storm = storm.unwrap();
    assert_eq!(storm.details["cause"], "rate");
    assert_eq!(storm.details["members"].as_array().unwrap().len(), 22);
    // All but five of them come back: those are told of by themselves, slowly, and the storm ends.
    fleet.world.revive(5..30);
    fleet.run(300 * SECOND);
    assert_eq!(fleet.own(), fleet.dead());
    assert_eq!(fleet.storms(), ["fleet"]);
    assert!(fleet.fullest_minute() <= PER_MINUTE, "{}", fleet.fullest_minute());
}

#[test]
fn stragglers_of_a_site_are_told_of_slowly_and_all() {
    let mut fleet = Watched::new(&[("fsn1", 50), ("nbg1", 100)]);
    fleet.run(20 * SECOND);
    fleet.world.kill(0..50);
    fleet.run(30 * SECOND);
    fleet.world.revive(10..50);
    fleet.run(20 * SECOND);
    let early = fleet.own().len();
    assert!((1..=4).contains(&early), "{early}");
    fleet.run(200 * SECOND);
    assert_eq!(fleet.own(), fleet.dead());
    assert_eq!(fleet.resolved, 1, "the site's");
}

#[test]
fn who_is_late_while_everybody_comes_back_is_not_accused() {
    let mut fleet = Watched::new(&[("fsn1", 60), ("nbg1", 60)]);
    fleet.run(20 * SECOND);
    fleet.world.kill(0..60);
    fleet.run(30 * SECOND);
    // They all connect in the same seconds; a few are refused once more, after their first beat.
    fleet.world.revive(0..60);
    fleet.run(SECOND + 500 * MS);
    let until = fleet.world.now + 12 * SECOND;
    fleet.world.boxes[..4]
        .iter_mut()
        .for_each(|sim| sim.cut_until = until);
    fleet.run(60 * SECOND);
    assert_eq!(fleet.opened.len(), 1, "{:?}", fleet.opened);
    // And a death in such a moment is late, not lost.
    fleet.world.kill(3..4);
    fleet.run(60 * SECOND);
    assert_eq!(fleet.own(), ["box-3"]);
}

fn fates() -> impl Strategy<Value = Vec<(u8, usize, usize, u32)>> {
    prop::collection::vec((0..4_u8, 0..120_usize, 1..60_usize, 200..20_000_u32), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn nobody_is_lost_and_no_minute_is_too_full(seed in any::<u64>(), fates in fates(), left in 0..5_usize) {
        let sites = [("a@x", 30), ("b@x", 30), ("c@y", 30), ("", 30)];
        let mut fleet = Watched::new(&sites);
        fleet.world.random = seed;
        fleet.run(15 * SECOND);
        for (what, from, count, ms) in fates {
            let range = from..(from + count).min(120);
            match what {
                0 => fleet.world.kill(from..from + 1),
                1 => fleet.world.kill(range),
                2 => fleet.world.revive(range),
                _ => {
                    // All over: no group explains these.
                    for at in (from..120).step_by(7) {
                        fleet.world.kill(at..at + 1);
                    }
                }
            }
            fleet.run(MS * ms);
        }
        fleet.run(100 * SECOND);
        prop_assert_eq!(fleet.untold(), Vec::<String>::new());
        prop_assert!(fleet.fullest_minute() <= PER_MINUTE, "{} in a minute: {:?}", fleet.fullest_minute(), fleet.opened);
        if fleet.world.judge.ready(fleet.world.now) {
            prop_assert_eq!(fleet.gone(), fleet.dead());
        }
        // All but a few come back: each of those has its own incident in the end, and nothing else is open.
        for at in 0..120 {
            if at >= left {
                fleet.world.revive(at..at + 1);
            }
        }
        fleet.run(300 * SECOND);
        prop_assert_eq!(fleet.own(), fleet.dead());
        prop_assert_eq!(fleet.books.open_incidents().count(), fleet.dead().len());
        prop_assert!(fleet.fullest_minute() <= PER_MINUTE, "{} in a minute: {:?}", fleet.fullest_minute(), fleet.opened);
    }
}
