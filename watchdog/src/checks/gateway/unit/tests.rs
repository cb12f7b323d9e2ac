//! Each state that systemd can be in, and what a report says of it.

use proptest::prelude::*;

use super::*;
use crate::systemd::{Job, Stamp};

const NOW: Duration = Duration::from_secs(10_000);
/// 2026-11-21T20:00:00Z, at monotonic zero.
const BOOT_US: u64 = 1_795_291_200_000_000;

fn unit() -> UnitName {
    UnitName::new("hermes-gateway.service").unwrap()
}

/// `secs` ago.
fn ago(secs: u64) -> Stamp {
    let monotonic_us = (NOW.as_secs() - secs) * 1_000_000;
    Stamp {
        realtime_us: BOOT_US + monotonic_us,
        monotonic_us,
    }
}

fn at(stamp: Stamp) -> Timestamp {
    Timestamp::from_microsecond(stamp.realtime_us as i64).unwrap()
}

/// The genuine Hermes unit, running for an hour.
fn running() -> UnitFacts {
    UnitFacts {
        load: LoadState::Loaded,
        active: ActiveState::Active,
        sub: "running".into(),
        result: "success".into(),
        file_state: "enabled".into(),
        main_pid: Some(700),
        main_start: ago(3600),
        active_enter: ago(3600),
        inactive_exit: ago(3600),
        state_change: ago(3600),
        restart: "always".into(),
        restart_delay: Duration::from_secs(5),
        restart_prevent: vec![78],
        timeout_start: Some(Duration::from_secs(90)),
        timeout_stop: Some(Duration::from_secs(70)),
        conditions_held: true,
        ..UnitFacts::default()
    }
}

/// The genuine unit after `systemctl stop`: it exits 1 on SIGTERM.
fn stopped_genuine() -> UnitFacts {
    UnitFacts {
        active: ActiveState::Failed,
        sub: "failed".into(),
        result: "exit-code".into(),
        exit_code: 1,
        exit_status: 1,
        main_pid: None,
        active_exit: ago(62),
        main_exit: ago(60),
        inactive_enter: ago(60),
        state_change: ago(60),
        ..running()
    }
}

/// A plain unit without Restart= whose process ended by itself with `status`.
fn fell_over(status: i32) -> UnitFacts {
    UnitFacts {
        restart: "no".into(),
        active: if status == 0 {
            ActiveState::Inactive
        } else {
            ActiveState::Failed
        },
        sub: if status == 0 { "dead" } else { "failed" }.into(),
        result: if status == 0 { "success" } else { "exit-code" }.into(),
        exit_status: status,
        restart_prevent: vec![],
        main_exit: ago(60),
        active_exit: ago(59),
        ..stopped_genuine()
    }
}

fn moment() -> Moment {
    Moment {
        monotonic: NOW,
        ..Moment::default()
    }
}

fn settled(facts: &UnitFacts, moment: &Moment) -> Answer {
    match judge(&unit(), facts, moment) {
        Judged::Settled(answer) => answer,
        Judged::Active { .. } => panic!("active: {facts:?}"),
    }
}

/// Status, why, and whether a restart is forbidden.
fn word(facts: &UnitFacts) -> (Status, KnownWhy, bool) {
    let answer = settled(facts, &moment());
    (answer.status, answer.why, answer.hold.is_some())
}

#[test]
fn an_active_unit_must_be_asked() {
    let judged = judge(&unit(), &running(), &moment());
    assert_eq!(
        judged,
        Judged::Active {
            up: Duration::from_secs(3600),
            hold: None
        }
    );
}

#[test]
fn an_operators_stop_is_no_failure_and_forbids_a_restart() {
    let stopped = (Status::Warning, KnownWhy::OperatorStopped, true);
    assert_eq!(word(&stopped_genuine()), stopped);
    let text = settled(&stopped_genuine(), &moment()).summary;
    assert!(
        text.contains("stopped by an operator 1 min ago")
            && text.contains("status 1")
            && text.contains("systemctl start"),
        "{text}"
    );
    // Stopped while it waited for its automatic restart, in a crash loop that never got active.
    let in_a_loop = UnitFacts {
        exit_status: 200,
        active_enter: Stamp::default(),
        active_exit: Stamp::default(),
        ..stopped_genuine()
    };
    assert_eq!(word(&in_a_loop), stopped);
    // SIGKILLed at the end of its TimeoutStopSec.
    let hung = UnitFacts {
        result: "timeout".into(),
        exit_code: 2,
        exit_status: 9,
        ..stopped_genuine()
    };
    assert_eq!(word(&hung), stopped);
}

#[test]
fn a_stop_is_told_from_a_fall_by_the_order_of_things() {
    let stopped = |facts: UnitFacts| word(&facts).1 == KnownWhy::OperatorStopped;
    for status in [0, 1] {
        let fell = fell_over(status);
        assert!(!stopped(fell.clone()), "status {status}");
        assert!(
            stopped(UnitFacts {
                active_exit: ago(61),
                ..fell.clone()
            }),
            "status {status}"
        );
        // The activity that ended so was one before this start: this start failed by itself.
        let earlier = UnitFacts {
            active_exit: ago(90),
            inactive_exit: ago(80),
            ..fell
        };
        assert!(!stopped(earlier), "status {status}");
    }
    let by_watchdog = UnitFacts {
        active_exit: ago(61),
        result: "watchdog".into(),
        ..fell_over(1)
    };
    assert_eq!(word(&by_watchdog).1, KnownWhy::UnitFailed);
    let clean_exit = UnitFacts {
        restart: "on-failure".into(),
        ..fell_over(0)
    };
    assert_eq!(
        word(&clean_exit).1,
        KnownWhy::Inactive,
        "ended with 0 by itself: nobody stopped it"
    );
}

#[test]
fn a_stop_that_was_seen_counts_until_the_next_start() {
    let fell = fell_over(1);
    let seen = |stop: Stamp| {
        let moment = Moment {
            stop_seen: Some(at(stop)),
            ..moment()
        };
        settled(&fell, &moment).why
    };
    assert_eq!(seen(ago(60)), KnownWhy::OperatorStopped);
    assert_eq!(
        seen(ago(3700)),
        KnownWhy::UnitFailed,
        "it was started again since, and fell"
    );
}

#[test]
fn never_started_is_not_stopped() {
    let fresh = UnitFacts {
        active: ActiveState::Inactive,
        sub: "dead".into(),
        main_pid: None,
        main_start: Stamp::default(),
        active_enter: Stamp::default(),
        inactive_exit: Stamp::default(),
        state_change: Stamp::default(),
        ..running()
    };
    assert_eq!(word(&fresh), (Status::Failing, KnownWhy::NeverStarted, false));
    let disabled = UnitFacts {
        file_state: "disabled".into(),
        ..fresh.clone()
    };
    assert_eq!(word(&disabled), (Status::Failing, KnownWhy::UnitDisabled, true));
    let queued = UnitFacts {
        job: Some(Job {
            id: 7,
            kind: "start".into(),
        }),
        ..fresh.clone()
    };
    assert_eq!(word(&queued), (Status::Unknown, KnownWhy::InTransition, true));
    let ran_before = Moment {
        seen_active: true,
        ..moment()
    };
    assert_eq!(
        settled(&fresh, &ran_before).why,
        KnownWhy::OperatorStopped,
        "stopped, and forgotten"
    );
}

#[test]
fn a_fall_is_failing_and_may_be_mended() {
    assert_eq!(
        word(&fell_over(1)),
        (Status::Failing, KnownWhy::UnitFailed, false)
    );
    assert_eq!(word(&fell_over(0)), (Status::Failing, KnownWhy::Inactive, false));
    let limit = UnitFacts {
        result: "start-limit-hit".into(),
        ..stopped_genuine()
    };
    assert_eq!(word(&limit), (Status::Failing, KnownWhy::UnitFailed, false));
}

/// As systemd 252 leaves a unit whose automatic restarts are used up: the result is that of the last crash.
#[test]
fn a_used_up_start_limit_is_told_from_a_stop_by_time() {
    let went_down = |after_exit: u64, restart: &str| UnitFacts {
        start_limited: true,
        restart: restart.into(),
        main_exit: ago(40),
        active_exit: ago(39),
        inactive_enter: ago(40 - after_exit),
        inactive_exit: ago(50),
        ..stopped_genuine()
    };
    for restart in ["always", "on-failure"] {
        let limit = went_down(5, restart);
        assert_eq!(
            word(&limit),
            (Status::Failing, KnownWhy::UnitFailed, false),
            "{restart}"
        );
        assert!(settled(&limit, &moment()).summary.contains("start limit"));
        assert_eq!(
            word(&went_down(4, restart)).1,
            KnownWhy::OperatorStopped,
            "{restart}: stopped while it waited for its automatic restart"
        );
        let unlimited = UnitFacts {
            start_limited: false,
            ..went_down(5, restart)
        };
        assert_eq!(word(&unlimited).1, KnownWhy::OperatorStopped, "{restart}");
    }
}

#[test]
fn a_fatal_configuration_is_failing_and_left_alone() {
    for (status, prevent) in [(78, vec![78]), (78, vec![]), (3, vec![3])] {
        let facts = UnitFacts {
            exit_status: status,
            restart_prevent: prevent,
            ..stopped_genuine()
        };
        assert_eq!(word(&facts), (Status::Failing, KnownWhy::FatalConfig, true));
    }
    let signal_78 = UnitFacts {
        exit_code: 2,
        exit_status: 78,
        ..stopped_genuine()
    };
    assert_ne!(word(&signal_78).1, KnownWhy::FatalConfig);
}

#[test]
fn a_masked_unit_is_left_alone() {
    let masked = |active| UnitFacts {
        load: LoadState::Masked,
        active,
        ..running()
    };
    let held = (Status::Warning, KnownWhy::UnitMasked, true);
    assert_eq!(word(&masked(ActiveState::Inactive)), held);
    assert_eq!(word(&masked(ActiveState::Failed)), held);
    let still_running = judge(&unit(), &masked(ActiveState::Active), &moment());
    assert!(
        matches!(still_running, Judged::Active { hold: Some(hold), .. } if hold.why == KnownWhy::UnitMasked)
    );
}

#[test]
fn no_such_unit_and_a_broken_one() {
    let gone = UnitFacts::default();
    assert_eq!(word(&gone), (Status::Failing, KnownWhy::UnitNotFound, true));
    assert!(settled(&gone, &moment()).summary.contains("list-unit-files"));
    let broken = UnitFacts {
        load: LoadState::Broken("bad-setting".into()),
        ..gone
    };
    assert_eq!(word(&broken), (Status::Failing, KnownWhy::UnitBroken, true));
    let removed_while_running = UnitFacts {
        load: LoadState::NotFound,
        ..running()
    };
    assert!(matches!(
        judge(&unit(), &removed_while_running, &moment()),
        Judged::Active { .. }
    ));
}

#[test]
fn transitions_have_their_own_time() {
    let stopping = |secs| UnitFacts {
        active: ActiveState::Deactivating,
        sub: "stop-sigterm".into(),
        state_change: ago(secs),
        ..running()
    };
    let within = (Status::Unknown, KnownWhy::InTransition, true);
    let stuck = (Status::Failing, KnownWhy::TransitionStuck, false);
    assert_eq!(word(&stopping(69)), within);
    assert_eq!(word(&stopping(85)), within);
    assert_eq!(word(&stopping(86)), stuck);
    let endless = |secs| UnitFacts {
        timeout_stop: None,
        ..stopping(secs)
    };
    assert_eq!(
        word(&endless(1815)),
        within,
        "the longest legitimate drain upstream"
    );
    assert_eq!(word(&endless(3700)), stuck);
    let starting = UnitFacts {
        active: ActiveState::Activating,
        sub: "start-pre".into(),
        ..stopping(60)
    };
    assert_eq!(word(&starting), within);
}

#[test]
fn a_crash_loop_is_failing_wherever_it_stands() {
    let found = CrashLoop {
        crashes: 24,
        within: Duration::from_secs(120),
    };
    let looping = Moment {
        crash_loop: Some(found),
        ..moment()
    };
    let waiting = UnitFacts {
        active: ActiveState::Activating,
        sub: "auto-restart".into(),
        result: "exit-code".into(),
        exit_code: 1,
        exit_status: 200,
        ..running()
    };
    assert_eq!(word(&waiting), (Status::Warning, KnownWhy::AutoRestart, false));
    for facts in [waiting, running()] {
        let answer = settled(&facts, &looping);
        assert_eq!(
            (answer.status, answer.why, answer.hold),
            (Status::Failing, KnownWhy::CrashLoop, None)
        );
        assert!(
            answer.summary.contains("24 times within 2 min"),
            "{}",
            answer.summary
        );
    }
    assert_eq!(
        settled(&stopped_genuine(), &looping).why,
        KnownWhy::OperatorStopped,
        "stopped in the middle of it"
    );
}

fn any_facts() -> impl Strategy<Value = UnitFacts> {
    let states = prop::sample::select(vec![
        "active",
        "inactive",
        "failed",
        "activating",
        "deactivating",
        "odd",
    ]);
    let loads = prop::sample::select(vec!["loaded", "not-found", "masked", "bad-setting"]);
    let subs = prop::sample::select(vec!["running", "dead", "auto-restart", "start", "stop-sigkill"]);
    let results = prop::sample::select(vec![
        "success",
        "exit-code",
        "signal",
        "timeout",
        "start-limit-hit",
    ]);
    let restarts = prop::sample::select(vec!["no", "always", "on-failure"]);
    let stamps = prop::array::uniform5(prop::option::of(0_u64..9000));
    (
        states,
        loads,
        subs,
        results,
        restarts,
        (0_i32..4, prop::sample::select(vec![0, 1, 9, 15, 78, 200])),
        stamps,
    )
        .prop_map(|(active, load, sub, result, restart, (code, status), stamps)| {
            let [inactive_exit, active_enter, active_exit, main_exit, state_change] =
                stamps.map(|secs| secs.map_or_else(Stamp::default, ago));
            UnitFacts {
                active: ActiveState::from(active),
                load: LoadState::from(load),
                sub: sub.into(),
                result: result.into(),
                restart: restart.into(),
                exit_code: code,
                exit_status: status,
                inactive_exit,
                active_enter,
                active_exit,
                main_exit,
                state_change,
                ..running()
            }
        })
}

proptest! {
    /// The invariants that matter more than any single row.
    #[test]
    fn whatever_systemd_says(facts in any_facts(), seen in any::<bool>()) {
        let moment = Moment { stop_seen: seen.then(|| at(ago(0))), ..moment() };
        match judge(&unit(), &facts, &moment) {
            Judged::Active { .. } => prop_assert!(facts.active == ActiveState::Active),
            Judged::Settled(answer) => {
                prop_assert!(answer.status != Status::Ok, "nothing but a running gateway is ok");
                prop_assert!(!answer.summary.is_empty());
                // A warning of a gateway that does not run always says why it is left alone, but for one under systemd's care.
                prop_assert!(answer.status != Status::Warning || answer.hold.is_some() || answer.why == KnownWhy::AutoRestart);
                let down = matches!(facts.active, ActiveState::Inactive | ActiveState::Failed);
                let known = matches!(facts.load, LoadState::Loaded | LoadState::Masked);
                if seen && down && known {
                    prop_assert!(answer.hold.is_some(), "a stop that was seen is never undone");
                }
                if facts.restart == "always" && down && known && facts.result != "start-limit-hit" && !facts.inactive_exit.never() {
                    prop_assert!(answer.hold.is_some());
                }
            }
        }
    }
}
