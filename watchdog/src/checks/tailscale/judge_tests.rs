//! Each row of the table of what a genuine tailscaled answers.

use super::*;
use proptest::prelude::*;

const DAY: u64 = 86_400;

fn settings() -> TailscaleSettings {
    TailscaleSettings {
        socket: "/run/tailscale/tailscaled.sock".into(),
        key_warning: Duration::from_secs(14 * DAY),
        key_failing: Duration::from_secs(2 * DAY),
        restart: None,
        timeout: Duration::from_secs(20),
    }
}

fn now() -> Timestamp {
    "2026-11-21T20:00:00Z".parse().unwrap()
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() + days * DAY as i64).unwrap()
}

fn node(state: &str) -> NodeStatus {
    NodeStatus {
        state: Some(state.to_owned()),
        have_node_key: Some(true),
        online: Some(true),
        relay: Some("fra".to_owned()),
        dns_name: Some("box1.t.ts.net".to_owned()),
        ..NodeStatus::default()
    }
}

fn warning(code: &str) -> HealthWarning {
    HealthWarning {
        code: code.to_owned(),
        text: format!("text of {code}."),
        impacts_connectivity: false,
    }
}

fn ask(snapshot: &Snapshot) -> (Status, KnownWhy) {
    let v = judge(snapshot, &settings(), &TailscaleHistory::default(), now()).0;
    (v.status, v.why)
}

fn of(node: NodeStatus, codes: &[&str]) -> (Status, KnownWhy) {
    ask(&Snapshot::Answered {
        node,
        health: Some(codes.iter().map(|c| warning(c)).collect()),
    })
}

#[test]
fn the_table() {
    use KnownWhy::*;
    use Status::*;
    let offline = |state| NodeStatus {
        online: Some(false),
        ..node(state)
    };
    let expiring = |days| NodeStatus {
        key_expiry: Some(in_days(days)),
        ..node("Running")
    };
    let rows = [
        ("working", of(node("Running"), &[]), (Ok, Fine)),
        (
            "control plane unreachable",
            of(offline("Running"), &[]),
            (Warning, ControlUnreachable),
        ),
        (
            "out of sync",
            of(node("Running"), &["not-in-map-poll"]),
            (Warning, ControlUnreachable),
        ),
        (
            "network down",
            of(offline("Running"), &["network-status"]),
            (Failing, NetworkDown),
        ),
        (
            "relay trouble",
            of(node("Running"), &["no-derp-connection"]),
            (Warning, RelayUnreachable),
        ),
        (
            "never logged in",
            of(
                NodeStatus {
                    have_node_key: None,
                    ..offline("NeedsLogin")
                },
                &["wantrunning-false"],
            ),
            (Failing, LoggedOut),
        ),
        (
            "logged out",
            of(
                NodeStatus {
                    have_node_key: Some(false),
                    ..offline("NeedsLogin")
                },
                &[],
            ),
            (Failing, LoggedOut),
        ),
        (
            "expired, told by the control plane",
            of(
                NodeStatus {
                    key_expiry: Some(in_days(-1)),
                    ..node("NeedsLogin")
                },
                &[],
            ),
            (Failing, KeyExpired),
        ),
        (
            "date passed, not told",
            of(expiring(-1), &[]),
            (Failing, KeyExpired),
        ),
        ("about to expire", of(expiring(13), &[]), (Warning, KeyExpiring)),
        (
            "about to expire, soon",
            of(expiring(1), &[]),
            (Failing, KeyExpiring),
        ),
        ("not about to expire", of(expiring(15), &[]), (Ok, Fine)),
        (
            "not approved",
            of(node("NeedsMachineAuth"), &[]),
            (Failing, NeedsApproval),
        ),
        (
            "switched off",
            of(offline("Stopped"), &["wantrunning-false"]),
            (Failing, SwitchedOff),
        ),
        ("booting", of(offline("NoState"), &[]), (Warning, Starting)),
        (
            "starting",
            of(offline("Starting"), &["warming-up"]),
            (Warning, Starting),
        ),
        ("daemon down", ask(&Snapshot::NoSocket), (Failing, DaemonDown)),
        ("daemon killed", ask(&Snapshot::Refused), (Failing, DaemonDown)),
        (
            "daemon hung",
            ask(&Snapshot::Hung(Duration::from_secs(5))),
            (Failing, DaemonHung),
        ),
        (
            "not installed",
            ask(&Snapshot::NotInstalled),
            (Unknown, NotInstalled),
        ),
        (
            "another health warning",
            of(node("Running"), &["no-udp4-bind"]),
            (Warning, HealthWarning),
        ),
        (
            "what does not matter",
            of(node("Running"), &["update-available", "ip-forwarding-off"]),
            (Ok, Fine),
        ),
        (
            "a state of later versions",
            of(node("Dancing"), &[]),
            (Unknown, CheckError),
        ),
        (
            "nothing in the answer",
            of(NodeStatus::default(), &[]),
            (Unknown, CheckError),
        ),
        (
            "nothing but its state",
            of(
                NodeStatus {
                    state: Some("Running".into()),
                    ..NodeStatus::default()
                },
                &[],
            ),
            (Ok, Fine),
        ),
    ];
    for (name, got, want) in rows {
        assert_eq!(got, want, "{name}");
    }
}

/// Judges `node` every two minutes for `minutes`.
fn every_two_minutes(node: &NodeStatus, codes: &[&str], minutes: i64) -> Verdict {
    let snapshot = Snapshot::Answered {
        node: node.clone(),
        health: Some(codes.iter().map(|c| warning(c)).collect()),
    };
    let mut history = TailscaleHistory::default();
    let mut last = None;
    for minute in (0..=minutes).step_by(2) {
        let at = Timestamp::from_second(now().as_second() + minute * 60).unwrap();
        let text = serde_json::to_string(&history).unwrap();
        let (verdict, next) = judge(&snapshot, &settings(), &serde_json::from_str(&text).unwrap(), at);
        (history, last) = (next, Some(verdict));
    }
    last.unwrap()
}

#[test]
fn what_is_harmless_when_short_fails_when_it_lasts() {
    use KnownWhy::{ControlUnreachable, LoggedOut, RelayUnreachable, Starting};
    let offline = NodeStatus {
        online: Some(false),
        ..node("Running")
    };
    let keyless = NodeStatus {
        have_node_key: None,
        ..node("NoState")
    };
    for (node, codes, short, long, why) in [
        (&node("NoState"), &[][..], 4, 6, Starting),
        (&keyless, &["login-state"], 4, 6, LoggedOut),
        (&node("NoState"), &["login-state"], 4, 6, ControlUnreachable),
        (&offline, &[], 30, 32, ControlUnreachable),
        (&node("Running"), &["no-derp-home"], 30, 32, RelayUnreachable),
    ] {
        assert_eq!(
            every_two_minutes(node, codes, short).status,
            Status::Warning,
            "{why} for {short} min"
        );
        let lasting = every_two_minutes(node, codes, long);
        assert_eq!(
            (lasting.status, lasting.why),
            (Status::Failing, why),
            "{}",
            lasting.summary
        );
        assert!(
            lasting.summary.contains(&format!("{long} min")),
            "{}",
            lasting.summary
        );
    }
}

#[test]
fn what_ended_begins_anew_and_a_daemon_that_was_not_heard_ends_nothing() {
    let offline = Snapshot::Answered {
        node: NodeStatus {
            online: Some(false),
            ..node("Running")
        },
        health: Some(Vec::new()),
    };
    let fine = Snapshot::Answered {
        node: node("Running"),
        health: Some(Vec::new()),
    };
    let (_, history) = judge(&offline, &settings(), &TailscaleHistory::default(), now());
    assert_eq!(
        judge(&fine, &settings(), &history, now()).1,
        TailscaleHistory::default()
    );
    assert_eq!(judge(&Snapshot::Refused, &settings(), &history, now()).1, history);
}

#[test]
fn the_worst_gives_the_word_and_all_are_said() {
    let both = NodeStatus {
        online: Some(false),
        key_expiry: Some(in_days(1)),
        ..node("Running")
    };
    let snapshot = Snapshot::Answered {
        node: both,
        health: Some(vec![warning("no-udp4-bind")]),
    };
    let v = judge(&snapshot, &settings(), &TailscaleHistory::default(), now()).0;
    assert_eq!((v.status, v.why), (Status::Failing, KnownWhy::KeyExpiring));
    for part in [
        "expires in 1 d, on 2026-11-22 20:00Z",
        "control plane",
        "text of no-udp4-bind",
    ] {
        assert!(v.summary.contains(part), "{part} in {}", v.summary);
    }
}

#[test]
fn an_old_daemon_has_texts_only() {
    let told = |text: &str| {
        let node = NodeStatus {
            health: vec![text.to_owned()],
            ..node("Running")
        };
        ask(&Snapshot::Answered { node, health: None })
    };
    assert_eq!(
        told("not connected to home DERP region 4"),
        (Status::Warning, KnownWhy::HealthWarning)
    );
    assert_eq!(
        told("An update from version 1.60 to 1.62 is available."),
        (Status::Ok, KnownWhy::Fine)
    );
}

#[test]
fn unreadable_structured_health_is_not_mistaken_for_none() {
    let sick = NodeStatus {
        health: vec!["sick".to_owned()],
        ..node("Running")
    };
    let by_bus = Snapshot::Answered {
        node: sick.clone(),
        health: Some(Vec::new()),
    };
    assert_eq!(
        ask(&by_bus),
        (Status::Ok, KnownWhy::Fine),
        "the bus has the last word"
    );
    assert_eq!(
        ask(&Snapshot::Answered {
            node: sick,
            health: None
        })
        .0,
        Status::Warning
    );
}

proptest! {
    #[test]
    fn a_key_is_never_called_fine_within_its_warning(days in -400i64..400, expired in proptest::option::of(any::<bool>())) {
        let node = NodeStatus { key_expiry: Some(in_days(days)), expired, ..node("Running") };
        let (status, _) = of(node, &[]);
        let want = match days {
            ..2 => Status::Failing,
            2..14 => Status::Warning,
            14.. => Status::Ok,
        };
        prop_assert_eq!(status, if expired == Some(true) { Status::Failing } else { want });
    }

    #[test]
    fn any_answer_is_judged(state in proptest::option::of("\\PC{0,20}"), codes in proptest::collection::vec("\\PC{0,20}", 0..4)) {
        let codes: Vec<&str> = codes.iter().map(String::as_str).collect();
        let _ = of(NodeStatus { state, ..NodeStatus::default() }, &codes);
    }
}
