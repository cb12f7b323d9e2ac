//! A home made of files, and what is said of it.

use std::path::PathBuf;

use jiff::Timestamp;
use proptest::prelude::*;
use protocol::names::UnitName;

use super::*;
use crate::checks::gateway::hermes::file::File;
use crate::checks::gateway::hermes::heartbeat::Witness;
use crate::systemd::Stamp;

const NOW: i64 = 1_795_291_200;
const MONOTONIC: u64 = 10_000;

fn ctx(root: &Path) -> Context {
    Context {
        now: Timestamp::from_second(NOW).unwrap(),
        root: root.to_owned(),
        operator_stops: vec![],
        uptime_secs: MONOTONIC,
        monotonic: Duration::from_secs(MONOTONIC),
        boot_id: "boot-a".into(),
    }
}

fn settings(home: Option<PathBuf>) -> HermesSettings {
    HermesSettings {
        home,
        heartbeat_stale: Duration::from_secs(90),
        cron_stale: Duration::from_secs(180),
        cron_success_stale: Duration::from_secs(300),
    }
}

fn ago(secs: u64) -> Stamp {
    let monotonic_us = (MONOTONIC - secs) * 1_000_000;
    Stamp {
        realtime_us: (NOW as u64 - secs) * 1_000_000,
        monotonic_us,
    }
}

fn writer() -> Writer {
    Writer {
        in_unit: true,
        main: Some(700),
        main_start: ago(3600),
    }
}

/// Written `age` seconds ago by the clock that counts, `file_age` by the file's.
fn beat(age: f64, file_age: i64, more: &str) -> File {
    let text = format!(
        r#"{{"pid":700,"updated_at":"x","monotonic":{},"start_time":{}.5{more}}}"#,
        MONOTONIC as f64 - age,
        NOW - 3590
    );
    File {
        text,
        modified: Timestamp::from_second(NOW - file_age).unwrap(),
    }
}

fn pulse(file: &File, writer: &Writer) -> Pulse {
    heartbeat::judge(Some(file), writer, Duration::from_secs(90), &ctx(Path::new("/")))
}

#[test]
fn the_heartbeat_is_fresh_or_stale() {
    assert_eq!(pulse(&beat(30.0, 30, ""), &writer()).word(), "fresh");
    assert_eq!(
        pulse(&beat(-2.0, 0, ""), &writer()).word(),
        "fresh",
        "written after the run began"
    );
    let stale = pulse(&beat(91.0, 91, ""), &writer());
    assert_eq!(
        stale,
        Pulse::Stale {
            age: Duration::from_secs(91),
            pid: 700,
            witness: None
        }
    );
    assert_eq!(
        pulse(&beat(30.0, 7000, ""), &writer()).word(),
        "fresh",
        "a clock that jumps moves nothing"
    );
}

#[test]
fn a_file_that_is_not_bound_to_the_process_says_nothing() {
    let other = Writer {
        in_unit: false,
        ..writer()
    };
    assert_eq!(pulse(&beat(900.0, 900, ""), &other).word(), "another_process");
    let started_later = Writer {
        main_start: ago(100),
        ..writer()
    };
    assert_eq!(
        pulse(&beat(900.0, 900, ""), &started_later).word(),
        "earlier_process"
    );
    assert_eq!(
        pulse(&beat(-600.0, 900, ""), &writer()).word(),
        "earlier_process",
        "of another boot"
    );
    let without = |age| File {
        text: r#"{"pid":700}"#.into(),
        ..beat(0.0, age, "")
    };
    assert_eq!(pulse(&without(200), &writer()).word(), "stale");
    assert_eq!(pulse(&without(4000), &writer()).word(), "earlier_process");
    for bad in ["", "{}", "[]", "null", r#"{"pid":-1}"#, r#"{"pid":1e99}"#] {
        let file = File {
            text: bad.into(),
            ..beat(0.0, 0, "")
        };
        assert_eq!(pulse(&file, &writer()).word(), "unreadable", "{bad}");
    }
    let absent = heartbeat::judge(None, &writer(), Duration::from_secs(90), &ctx(Path::new("/")));
    assert_eq!(absent.word(), "absent");
}

#[test]
fn the_witness_is_found() {
    let offered = |more: &str| match pulse(&beat(100.0, 100, more), &writer()) {
        Pulse::Stale { witness, .. } => witness,
        Pulse::Beats { .. } | Pulse::NoWord(_) => panic!("{more}"),
    };
    assert_eq!(offered(r#","loop_tick_socket":true"#), Some(Witness::Socket));
    assert_eq!(
        offered(r#","loop_tick_socket":false,"loop_tick_tcp_port":4000"#),
        Some(Witness::Port(4000))
    );
    assert_eq!(
        offered(r#","loop_tick_socket":false,"loop_tick_tcp_port":99999"#),
        None
    );
}

proptest! {
    #[test]
    fn any_heartbeat_is_read_without_panic(text in ".{0,300}", monotonic in any::<f64>(), start in any::<f64>()) {
        let ctx = ctx(Path::new("/"));
        let stale = Duration::from_secs(90);
        for text in [text, format!(r#"{{"pid":700,"monotonic":{monotonic:e},"start_time":{start:e}}}"#)] {
            let file = File { text, modified: ctx.now };
            let _ = heartbeat::judge(Some(&file), &writer(), stale, &ctx);
            let _ = state::State::parse(&file.text);
            let _ = cron::epoch(&file.text);
        }
    }
}

#[tokio::test]
async fn the_loop_is_asked_and_answers_or_not() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("state")).unwrap();
    let ask = |witness| tick::ask(home.path(), 700, witness);
    assert_eq!(ask(None).await, Tick::NotOffered);
    assert_eq!(ask(Some(Witness::Socket)).await, Tick::Gone);

    let path = home.path().join("state/gateway.loop-tick.700.sock");
    let socket = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::time::pause();
    // Nobody accepts: the kernel connects all the same, and no byte comes.
    assert_eq!(ask(Some(Witness::Socket)).await, Tick::Mute);
    tokio::time::resume();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"1").await;
        }
    });
    assert_eq!(ask(Some(Witness::Socket)).await, Tick::Answered);
}

#[test]
fn a_stale_heartbeat_alone_and_with_its_witness() {
    let said = |secs, tick| match verdict(Duration::from_secs(secs), tick, Duration::from_secs(90)) {
        Verdict::Turns => "turns",
        Verdict::Hung(_) => "hung",
        Verdict::Unsure(_) => "unsure",
    };
    assert_eq!(said(91, Tick::NotOffered), "hung", "0.19 offers no witness");
    assert_eq!(said(91, Tick::Mute), "hung");
    assert_eq!(said(5000, Tick::Answered), "turns");
    assert_eq!(said(5000, Tick::Gone), "unsure");
    assert_eq!(said(91, Tick::Denied), "unsure");
    assert_eq!(said(271, Tick::Denied), "hung");
}

#[test]
fn the_scheduler_worries_only_when_it_had_time_to_tick() {
    let at = |age: i64| Timestamp::from_second(NOW - age).ok();
    let worry = |heartbeat, success, up| {
        let ticker = cron::Ticker { heartbeat, success };
        ticker.worry(
            &settings(None),
            Duration::from_secs(up),
            Timestamp::from_second(NOW).unwrap(),
        )
    };
    assert_eq!(worry(None, None, 9000), None);
    assert_eq!(worry(at(60), at(60), 9000), None);
    assert!(worry(at(181), at(181), 9000).unwrap().contains("3 min 1 s"));
    assert_eq!(worry(at(181), at(181), 100), None, "just started");
    assert!(
        worry(at(10), at(301), 9000)
            .unwrap()
            .contains("no tick has gone well")
    );
    assert_eq!(worry(at(-100), None, 9000), None);
    assert_eq!(
        cron::epoch("1795291200.5 700\n").unwrap().as_millisecond(),
        NOW * 1000 + 500
    );
    assert_eq!(cron::epoch("soon"), None);
}

fn facts() -> UnitFacts {
    UnitFacts {
        main_pid: Some(700),
        main_start: ago(3600),
        active_enter: ago(3600),
        user: "agent".into(),
        ..UnitFacts::default()
    }
}

#[test]
fn what_the_gateway_admits() {
    let platforms = r#"{"telegram":{"state":"fatal","updated_at":"2026-11-21T19:30:00Z"},
        "slack":{"state":"connected"},"old":{"state":"fatal","updated_at":"2026-11-21T10:00:00Z"},
        "theirs":{"state":"fatal","writer_pid":699},"disc ord\u001b":{"state":"retrying","needs_attention":true}}"#;
    let parse = |word: &str, platforms: &str| {
        let text = format!(
            r#"{{"pid":700,"start_time":55,"gateway_state":"{word}","updated_at":"2026-11-21T10:00:00Z","active_agents":2,"platforms":{platforms}}}"#
        );
        state::State::parse(&text).unwrap()
    };
    let up = Duration::from_secs(3600);
    assert_eq!(
        parse("running", "{}").worries(&facts(), up),
        [],
        "idle for ten hours, and nothing to say"
    );
    let told = parse("running", platforms).worries(&facts(), up);
    assert_eq!(
        told,
        [(
            KnownWhy::Degraded,
            "its platform discord, telegram needs attention".to_owned()
        )]
    );
    assert!(
        parse("startup_failed", "{}").worries(&facts(), up)[0]
            .1
            .contains("startup_failed")
    );
    assert_eq!(parse("starting", "{}").worries(&facts(), up).len(), 1);
    assert_eq!(
        parse("starting", "{}").worries(&facts(), Duration::from_secs(60)),
        []
    );
    let going = |word: &str, at: &str| parse(word, "{}").going(at.parse().unwrap());
    let drain = |at: &str| going("draining", at);
    assert!(going("stopped", "2026-11-21T10:01:59Z").is_some());
    assert_eq!(
        going("stopped", "2026-11-21T10:02:01Z"),
        None,
        "its end is wedged"
    );
    assert_eq!(going("running", "2026-11-21T10:00:00Z"), None);
    assert_eq!(drain("2026-11-21T10:30:00Z").unwrap().why, KnownWhy::FenceDrain);
    assert_eq!(drain("2026-11-21T10:32:00Z"), None, "no drain takes that long");
}

#[test]
fn the_home_is_found() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let passwd = "root:x:0:0::/root:/bin/sh\nagent:x:1001:1001::/home/agent:/bin/sh\n";
    std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
    let at = |settings: &HermesSettings, scope: &Scope, facts: &UnitFacts| {
        home(settings, scope, facts, root.path())
            .map(|home| format!("/{}", home.strip_prefix(root.path()).unwrap().display()))
    };
    let system = Scope::System;
    assert_eq!(
        at(&settings(Some("/srv/h".into())), &system, &facts()).unwrap(),
        "/srv/h"
    );
    let told = UnitFacts {
        hermes_home: Some("/opt/data".into()),
        ..facts()
    };
    assert_eq!(at(&settings(None), &system, &told).unwrap(), "/opt/data");
    assert_eq!(
        at(&settings(None), &system, &facts()).unwrap(),
        "/home/agent/.hermes"
    );
    let no_user = UnitFacts {
        user: String::new(),
        ..facts()
    };
    assert_eq!(at(&settings(None), &system, &no_user).unwrap(), "/root/.hermes");
    assert_eq!(
        at(&settings(None), &Scope::User("agent".into()), &no_user).unwrap(),
        "/home/agent/.hermes"
    );
    let nobody = UnitFacts {
        user: "ghost".into(),
        ..facts()
    };
    let error = at(&settings(None), &system, &nobody).unwrap_err();
    assert!(
        error.contains("ghost") && error.contains("[gateway] home"),
        "{error}"
    );
}

#[tokio::test]
async fn a_home_that_cannot_be_read_is_unsure() {
    let home = tempfile::tempdir().unwrap();
    let there = settings(Some(home.path().join("no")));
    let opinion = look(&there, &Scope::System, &facts(), &ctx(Path::new("/"))).await;
    assert!(
        opinion
            .unsure
            .as_ref()
            .is_some_and(|text| text.contains("/no") && text.contains("CAP_DAC_READ_SEARCH")),
        "{opinion:?}"
    );
    assert!(UnitName::new("x.service").is_ok() && opinion.hung.is_none());
}
