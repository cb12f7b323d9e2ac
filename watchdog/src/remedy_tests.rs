//! The policy, by example and by property.

use proptest::prelude::*;
use protocol::names::UnitName;
use protocol::report::CheckName;

use super::*;
use crate::checks::Hold;

const MINUTE: BootMs = 60_000;

fn policy() -> RestartPolicy {
    RestartPolicy {
        unit: UnitName::new("hermes-gateway.service").unwrap(),
        after: 3,
        max: 3,
        window: Duration::from_secs(3600),
        grace: Duration::from_secs(120),
    }
}

fn gateway(status: Status, held: Option<KnownWhy>) -> Finding {
    let mut finding = Finding::new(CheckName::Gateway, status, KnownWhy::ProbeTimedOut, "x");
    finding.hold = held.map(|why| Hold {
        why,
        summary: format!("held: {why}"),
    });
    finding
}

/// A box whose runs are played one after the other.
struct Played {
    policy: RestartPolicy,
    around: Circumstances,
    case: CaseMemory,
    unit: UnitMemory,
    now: BootMs,
    restarts: Vec<BootMs>,
}

impl Played {
    fn new() -> Self {
        Self {
            policy: policy(),
            around: Circumstances::default(),
            case: CaseMemory::default(),
            unit: UnitMemory::default(),
            now: 0,
            restarts: Vec::new(),
        }
    }

    /// A run, two minutes after the one before.
    fn run(&mut self, status: Status, held: Option<KnownWhy>) -> Decision {
        self.after(2 * MINUTE, &gateway(status, held))
    }

    fn after(&mut self, pause: BootMs, finding: &Finding) -> Decision {
        self.now += pause;
        self.around.runs_this_boot += 1;
        let now = (
            self.now,
            Timestamp::from_millisecond(1_800_000_000_000 + self.now).unwrap(),
        );
        let decision = decide(
            finding,
            &self.policy,
            &self.around,
            &mut self.case,
            &mut self.unit,
            now,
        );
        if matches!(decision, Decision::Restart { .. }) {
            self.restarts.push(self.now);
        }
        decision
    }

    fn fail(&mut self) -> Decision {
        self.run(Status::Failing, None)
    }
}

fn why(decision: &Decision) -> &'static str {
    match decision {
        Decision::Nothing => "nothing",
        Decision::HoldBack { why, .. } => why.as_str(),
        Decision::GiveUp { .. } => "gave_up",
        Decision::Restart { .. } => "restart",
    }
}

#[test]
fn the_third_failing_run_restarts_not_before() {
    let mut played = Played::new();
    let words: Vec<_> = (0..4).map(|_| why(&played.fail())).collect();
    assert_eq!(words, ["too_few_runs", "too_few_runs", "restart", "too_few_runs"]);
}

#[test]
fn within_the_grace_failing_is_shown_but_not_counted() {
    let mut played = Played::new();
    played.policy.grace = Duration::from_secs(600);
    let words: Vec<_> = (0..10).map(|_| why(&played.fail())).collect();
    assert_eq!(words[2], "restart");
    assert_eq!(
        words[3..7],
        ["startup_grace"; 4],
        "runs 2 to 8 minutes after the restart"
    );
    assert_eq!(words[7..], ["too_few_runs", "too_few_runs", "restart"]);
}

#[test]
fn a_gateway_that_fails_for_ever_gets_its_restarts_then_is_given_up_then_is_tried_again_after_the_window() {
    let mut played = Played::new();
    let words: Vec<_> = (0..120).map(|_| why(&played.fail())).collect();
    let gave_up = words.iter().position(|w| *w == "gave_up").unwrap();
    let before: Vec<_> = words[..gave_up].iter().filter(|w| **w == "restart").collect();
    assert_eq!(
        before.len(),
        3,
        "exactly max_restarts before it gives up: {words:?}"
    );
    let again = gave_up + words[gave_up..].iter().position(|w| *w == "restart").unwrap();
    assert!(
        words[gave_up..again].iter().all(|w| *w == "gave_up"),
        "it stays given up: {words:?}"
    );
    assert!(
        played.restarts[3] - played.restarts[2] >= 60 * MINUTE,
        "a whole window of rest"
    );
    assert!(
        played.restarts[3] - played.restarts[2] <= 64 * MINUTE,
        "and not much more"
    );
    assert!(
        words[again..].contains(&"gave_up"),
        "and given up again: {words:?}"
    );
}

#[test]
fn restarts_that_come_too_slowly_for_the_window_are_given_up_all_the_same() {
    let mut played = Played::new();
    // Three runs and the restart itself take longer than the third part of the window.
    played.policy.window = Duration::from_secs(900);
    let words: Vec<_> = (0..60).map(|_| why(&played.fail())).collect();
    let gave_up = words
        .iter()
        .position(|w| *w == "gave_up")
        .expect("never given up");
    assert_eq!(words[..gave_up].iter().filter(|w| **w == "restart").count(), 3);
    assert!(
        played.restarts[3] - played.restarts[2] >= 15 * MINUTE,
        "{:?}",
        played.restarts
    );
    assert_eq!(
        words.iter().filter(|w| **w == "restart").count(),
        played.restarts.len()
    );
}

#[test]
fn the_spacing_grows_and_every_restart_fits_into_the_window() {
    for max in [1, 2, 3, 5, 10, 100] {
        let policy = RestartPolicy { max, ..policy() };
        let gaps: Vec<_> = (1..max).map(|done| spacing(&policy, done)).collect();
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert!(
            gaps.iter().sum::<Duration>() < policy.window / 2,
            "{max}: {gaps:?}"
        );
    }
    let minutes = |done| spacing(&policy(), done).as_secs_f64() / 60.0;
    assert!((minutes(1) - 7.5).abs() < 0.01 && (minutes(2) - 15.0).abs() < 0.01);
}

#[test]
fn unknown_neither_triggers_nor_launders_a_streak() {
    let mut played = Played::new();
    let mut say = |status| why(&played.run(status, None));
    assert_eq!(say(Status::Failing), "too_few_runs");
    assert_eq!(say(Status::Failing), "too_few_runs");
    assert_eq!(
        say(Status::Unknown),
        "nothing",
        "three runs, but the third could not look"
    );
    assert_eq!(say(Status::Failing), "restart", "the streak is still there");
}

#[test]
fn a_streak_that_nobody_could_confirm_for_long_begins_anew() {
    let mut played = Played::new();
    for status in [
        Status::Failing,
        Status::Failing,
        Status::Unknown,
        Status::Unknown,
        Status::Unknown,
    ] {
        played.run(status, None);
    }
    assert_eq!(why(&played.fail()), "too_few_runs");
}

#[test]
fn one_healthy_run_ends_a_streak() {
    for healthy in [Status::Ok, Status::Warning] {
        let mut played = Played::new();
        played.fail();
        played.fail();
        played.run(healthy, None);
        assert_eq!(why(&played.fail()), "too_few_runs");
    }
}

#[test]
fn every_hold_is_named_and_a_fence_makes_the_evidence_before_it_worthless() {
    let mut played = Played::new();
    played.fail();
    played.fail();
    assert_eq!(
        why(&played.run(Status::Failing, Some(KnownWhy::FenceUpdate))),
        "fence_update"
    );
    assert_eq!(
        why(&played.fail()),
        "too_few_runs",
        "not at once when the fence is gone"
    );
    played.fail();
    assert_eq!(why(&played.fail()), "restart");
}

#[test]
fn what_an_operator_stopped_is_left_alone_and_that_is_said() {
    let mut played = Played::new();
    played.fail();
    played.fail();
    let mut stopped = gateway(Status::Warning, Some(KnownWhy::OperatorStopped));
    stopped.why = KnownWhy::OperatorStopped;
    for _ in 0..5 {
        assert_eq!(why(&played.after(2 * MINUTE, &stopped)), "operator_stopped");
    }
    assert!(!is_healthy(&stopped) && played.case.healthy == 0);
    assert_eq!(
        why(&played.fail()),
        "too_few_runs",
        "what was seen before the stop is worth nothing"
    );
    let busy = gateway(Status::Warning, Some(KnownWhy::FenceBackup));
    assert_eq!(
        why(&played.after(MINUTE, &busy)),
        "nothing",
        "a fence that excuses nothing is not news"
    );
}

#[test]
fn a_transition_leaves_the_streak_as_it_is() {
    let mut played = Played::new();
    played.fail();
    played.fail();
    assert_eq!(
        why(&played.run(Status::Failing, Some(KnownWhy::InTransition))),
        "in_transition"
    );
    assert_eq!(why(&played.fail()), "restart");
}

#[test]
fn a_pause_stops_acting_and_the_restart_comes_when_it_ends() {
    let mut played = Played::new();
    played.around.paused = Some("paused until 12:00".to_owned());
    let words: Vec<_> = (0..5).map(|_| why(&played.fail())).collect();
    assert_eq!(words, ["paused"; 5]);
    played.around.paused = None;
    assert_eq!(why(&played.fail()), "restart");
}

#[test]
fn what_cannot_be_counted_is_not_done() {
    let mut played = Played::new();
    played.around.uncountable = Some("the disk is full".to_owned());
    let words: Vec<_> = (0..5).map(|_| why(&played.fail())).collect();
    assert_eq!(words, ["state_unwritable"; 5]);
}

#[test]
fn a_streak_of_another_boot_does_not_restart_in_this_one() {
    let mut played = Played::new();
    played.fail();
    played.fail();
    into_new_boot(
        &mut [&mut played.case],
        &mut played.unit,
        0,
        Timestamp::UNIX_EPOCH,
    );
    played.around.runs_this_boot = 0;
    assert_eq!(why(&played.fail()), "too_few_runs");
}

#[test]
fn a_reboot_does_not_refill_the_restarts_of_the_window() {
    let mut played = Played::new();
    while played.restarts.len() < 3 {
        played.fail();
    }
    let wall = |now| Timestamp::from_millisecond(1_800_000_000_000 + now).unwrap();
    let rebooted = wall(played.now + 5 * MINUTE);
    into_new_boot(&mut [&mut played.case], &mut played.unit, 30_000, rebooted);
    (played.now, played.around.runs_this_boot) = (30_000, 0);
    let words: Vec<_> = (0..4).map(|_| why(&played.fail())).collect();
    assert_eq!(words, ["too_few_runs", "too_few_runs", "gave_up", "gave_up"]);
}

#[test]
fn a_wall_clock_that_was_moved_back_over_a_reboot_blocks_for_one_window_at_most() {
    let mut played = Played::new();
    while played.restarts.len() < 3 {
        played.fail();
    }
    into_new_boot(
        &mut [&mut played.case],
        &mut played.unit,
        0,
        Timestamp::UNIX_EPOCH,
    );
    (played.now, played.around.runs_this_boot) = (0, 0);
    let words: Vec<_> = (0..40).map(|_| why(&played.fail())).collect();
    assert!(
        words.contains(&"gave_up") && words.contains(&"restart"),
        "{words:?}"
    );
}

#[test]
fn health_for_a_while_ends_the_giving_up_but_gives_no_restarts_back() {
    let mut played = Played::new();
    while why(&played.fail()) != "gave_up" {}
    for _ in 0..3 {
        played.run(Status::Ok, None);
    }
    assert_eq!(played.case.gave_up_until, None);
    let words: Vec<_> = (0..3).map(|_| why(&played.fail())).collect();
    assert_eq!(words, ["too_few_runs", "too_few_runs", "gave_up"]);
}

#[test]
fn zero_restarts_means_report_only() {
    let mut played = Played::new();
    played.policy.max = 0;
    assert!((0..10).all(|_| why(&played.fail()) == "nothing"));
}

#[test]
fn a_restart_under_way_is_waited_for_and_settled() {
    let mut played = Played::new();
    let at = Timestamp::UNIX_EPOCH;
    played.unit.pending = Some(Pending {
        at,
        boot_ms: 0,
        until: 30 * MINUTE,
        by: "gateway".to_owned(),
    });
    assert_eq!(why(&played.fail()), "restart_under_way");
    assert_eq!(
        settle(&mut played.unit, "gateway", false, &policy(), 29 * MINUTE),
        None
    );
    let overdue = settle(&mut played.unit.clone(), "gateway", false, &policy(), 30 * MINUTE);
    assert!(matches!(overdue, Some(Settled::Overdue(_))));
    let other = settle(&mut played.unit, "disk", true, &policy(), 5 * MINUTE);
    assert_eq!(
        other, None,
        "a healthy disk says nothing about the gateway's restart"
    );
    let healthy = settle(&mut played.unit, "gateway", true, &policy(), 5 * MINUTE);
    assert!(matches!(healthy, Some(Settled::Healthy(_))) && played.unit.pending.is_none());
}

#[test]
fn a_restart_that_was_not_carried_out_is_decided_again() {
    let mut played = Played::new();
    while why(&played.fail()) != "restart" {}
    take_back(&played.policy, &mut played.case, &mut played.unit);
    assert!(played.unit.attempts.is_empty());
    assert_eq!(why(&played.fail()), "restart");
}

#[test]
fn two_checks_that_share_a_unit_share_its_restarts() {
    let mut played = Played::new();
    let mut other = CaseMemory {
        failing: 10,
        ..CaseMemory::default()
    };
    while why(&played.fail()) != "restart" {}
    std::mem::swap(&mut played.case, &mut other);
    let disk = Finding::new(CheckName::Disk, Status::Failing, KnownWhy::ReadOnly, "x");
    assert_eq!(
        why(&played.after(0, &disk)),
        "startup_grace",
        "the unit was restarted in this very run"
    );
}

/// One run of a played box: milliseconds since the last, what was found, and what held.
fn step() -> impl Strategy<Value = (BootMs, Status, Option<KnownWhy>, bool)> {
    let status = prop_oneof![6 => Just(Status::Failing), 1 => Just(Status::Ok), 1 => Just(Status::Unknown),
        1 => Just(Status::Warning)];
    let held = prop_oneof![6 => Just(None), 1 => Just(Some(KnownWhy::InTransition)),
        1 => Just(Some(KnownWhy::FenceBackup)), 1 => Just(Some(KnownWhy::OperatorStopped))];
    (0..20 * MINUTE, status, held, proptest::bool::weighted(0.1))
}

proptest! {
    #[test]
    fn never_more_than_max_restarts_in_any_window_and_never_under_a_hold(
        after in 1..5_u32, max in 0..5_u32, window_mins in 1..180_u64, grace_secs in 0..600_u64,
        steps in prop::collection::vec(step(), 1..200),
    ) {
        let mut played = Played::new();
        let (window, grace) = (Duration::from_secs(window_mins * 60), Duration::from_secs(grace_secs));
        played.policy = RestartPolicy { after, max, window, grace, ..policy() };
        let mut in_a_row = 0;
        for (pause, status, held, paused) in steps {
            played.around.paused = paused.then(|| "paused".to_owned());
            in_a_row = match status {
                Status::Failing => in_a_row + 1,
                Status::Unknown => in_a_row,
                Status::Ok | Status::Warning => 0,
            };
            let (case, unit) = (played.case.clone(), played.unit.clone());
            let decision = played.after(pause, &gateway(status, held));
            if matches!(decision, Decision::Restart { .. }) {
                prop_assert!(held.is_none() && !paused && status == Status::Failing);
                prop_assert!(in_a_row >= after);
                in_a_row = 0;
            }
            // The same again is decided the same way.
            let (after_case, after_unit) = (played.case.clone(), played.unit.clone());
            (played.case, played.unit) = (case, unit);
            played.around.runs_this_boot -= 1;
            let count = played.restarts.len();
            prop_assert_eq!(&played.after(0, &gateway(status, held)), &decision);
            played.restarts.truncate(count);
            prop_assert_eq!((&played.case, &played.unit), (&after_case, &after_unit));
        }
        for (n, first) in played.restarts.iter().enumerate() {
            let end = first + window.as_millis() as BootMs;
            let inside = played.restarts[n..].iter().filter(|&&r| r < end).count();
            prop_assert!(inside <= max as usize, "{inside} of {max} in {window:?}: {:?}", played.restarts);
        }
    }

    #[test]
    fn failing_without_a_hold_always_leads_to_a_restart(
        after in 1..5_u32, max in 1..5_u32, window_mins in 1..180_u64, grace_secs in 0..600_u64,
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut played = Played::new();
        let (window, grace) = (Duration::from_secs(window_mins * 60), Duration::from_secs(grace_secs));
        played.policy = RestartPolicy { after, max, window, grace, ..policy() };
        for (pause, status, held, _) in steps {
            played.after(pause, &gateway(status, held));
        }
        // Whatever happened before: a window, a grace and the counted runs later, there was a restart.
        let (before, began) = (played.restarts.len(), played.now);
        let bound = window.as_millis() as BootMs + grace.as_millis() as BootMs + BootMs::from(after + 2) * 2 * MINUTE;
        while played.now - began <= bound {
            played.fail();
        }
        prop_assert!(played.restarts.len() > before);
    }
}
