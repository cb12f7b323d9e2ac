//! A few box-years of each kind with every build: what must hold of any run, and that a seed is a run. The hundreds are
//! `cargo xtask sim --quick`.

use fleet_detection::campaign::Campaign;
use fleet_detection::fleet::{Fleet, Setup};
use fleet_detection::invariants::broken;
use fleet_detection::profile::{DATACENTRE, HOME, PROFILES, Profile, SMALL};
use fleet_detection::qos::Wrong;
use fleet_detection::report::Outcome;
use fleet_detection::schedule::{Fault, What, draw};
use fleet_detection::shrink::{fewest, shrink};

const DAYS: f64 = 20.0;

fn campaign(profile: &Profile, witness: bool, seed: u64) -> Campaign<'_> {
    Campaign {
        profile,
        witness,
        own: true,
        seed,
        first: 0,
        fleets: 1,
        days: DAYS,
    }
}

#[test]
fn every_death_is_found_and_nobody_is_accused_by_the_servers_doing() {
    for profile in &PROFILES {
        for witness in [true, false] {
            let campaign = campaign(profile, witness, 7);
            let sum = campaign.run(|_| {});
            let few = profile.boxes_per_site < 3;
            assert!(few || sum.ours.found > 3, "{}", sum.ours.found);
            let outcome = Outcome { campaign, sum };
            assert_eq!(broken(&outcome), Vec::<String>::new());
            let accused = outcome.sum.baselines.iter().any(|qos| qos.of(Wrong::Server) > 0);
            assert!(few || accused);
        }
    }
}

#[test]
fn a_seed_is_a_run_and_its_report_the_same_byte_for_byte() {
    let report = |seed| {
        let campaign = campaign(&HOME, true, seed);
        let sum = campaign.run(|_| {});
        let outcome = Outcome { campaign, sum };
        (outcome.table(), outcome.json().to_string())
    };
    assert_eq!(report(3), report(3));
    assert_ne!(report(3), report(4));
}

/// Nothing but these faults happens.
fn only(faults: &[Fault], days: f64) -> fleet_detection::fleet::Record {
    Fleet::run(Setup {
        profile: &DATACENTRE,
        witness: false,
        own: true,
        seed: 5,
        fleet: 0,
        days,
        faults,
    })
}

#[test]
fn fair_weather_is_silent() {
    let record = only(&[], 3.0);
    assert_eq!((record.ours.mistakes(), record.ours.pages), (0, 0));
    assert!(record.baselines.iter().all(|qos| qos.mistakes() == 0));
}

#[test]
fn one_death_is_found_by_everybody_in_its_time() {
    let death = Fault {
        at_secs: 40_000.0,
        for_secs: 1800.0,
        what: What::Death(17),
    };
    let record = only(&[death], 1.0);
    assert_eq!((record.ours.found, record.ours.mistakes()), (1, 0));
    assert!((5.0..6.5).contains(&record.ours.detection_max_secs()));
    for qos in &record.baselines {
        assert_eq!((qos.found, qos.missed, qos.mistakes()), (1, 0, 0));
    }
}

/// Two boxes, and a server that does not ask whether its own way is open: what the default is there for.
#[test]
fn a_real_failure_is_made_small_and_the_default_is_what_cures_it() {
    let without = Campaign {
        own: false,
        fleets: 40,
        days: 60.0,
        ..campaign(&SMALL, true, 2)
    };
    let sum = without.run(|_| {});
    let by_server = |what: &str| what == "dark by the server's own doing";
    let failed = sum.strange.iter().find(|(_, one)| by_server(one.what));
    let (fleet, strange) = failed.expect("cuts of the server's own paths accuse its boxes");
    let faults = draw(&SMALL, without.seed, *fleet, without.days);
    let kept = shrink(&without, *fleet, &faults, strange);
    assert!(faults.len() > 20, "{}", faults.len());
    let cut = |one: &Fault| matches!(one.what, What::ServerCut | What::ServerHalfCut(_));
    assert!(kept.len() <= 2 && kept.iter().any(cut), "{kept:?}");

    let with = Campaign { own: true, ..without };
    assert_eq!(with.run(|_| {}).ours.of(Wrong::Server), 0);
}

#[test]
fn a_failing_schedule_is_made_small() {
    let faults = draw(&HOME, 11, 0, 6.0);
    let needed = [faults[faults.len() / 3], faults[faults.len() / 2]];
    let kept = fewest(faults.clone(), |faults| {
        needed.iter().all(|one| faults.contains(one))
    });
    assert!(faults.len() > 500, "{}", faults.len());
    assert_eq!(kept, needed);
}
