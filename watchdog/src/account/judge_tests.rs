//! One table: what happened, and the word that is said of it.

use protocol::account::Step;
use protocol::limits;

use super::super::record::tests::{at, record};
use super::super::silence::Silence;
use super::*;
use crate::clock::Moment;

const URL: &str = "https://fleet.example";
const SECOND: Duration = Duration::from_secs(1);

fn story(before: Before) -> Story {
    Story {
        boot_id: Uuid::from_u128(1),
        began: at(112),
        watchdog: Some(SECOND * 10),
        before,
        stalls: Stalls::default(),
    }
}

fn tried(step: Step, times: u64, from: u64, to: u64) -> Tried {
    Tried {
        step,
        address: Some("203.0.113.5:443".parse().unwrap()),
        detail: "timed out".to_owned(),
        times,
        first: at(from),
        last: at(to),
    }
}

const NOT_SEEN: &Around = &Around::new();

fn never_heard() -> Gap<'static> {
    Gap {
        taken: None,
        reached: None,
        tried: &[],
        around: NOT_SEEN,
    }
}

/// Of a new process, as of 120 s.
fn of(record: Record, how: How) -> Account {
    story(Before::Known(Box::new(record), Box::new(how)))
        .account(URL, never_heard(), at(120))
        .unwrap()
}

fn ended(result: &str, status: &str, uptime_secs: u64) -> Option<Ended> {
    Ended::parse(&format!("{result} killed {status} {uptime_secs}.0"))
}

fn same_boot(result: &str, status: &str, uptime_secs: u64, oom_kills: u64) -> Account {
    let how = How::SameBoot {
        ended: ended(result, status, uptime_secs),
        oom_kills,
    };
    of(record(), how)
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where reading may have failed")]
fn journal(lines: &[(&str, &str)]) -> Result<JournalEnd, String> {
    let mut end = JournalEnd::default();
    for (n, (identifier, message)) in lines.iter().enumerate() {
        let us = (at(80 + n as u64).wall.as_microsecond()).to_string();
        let transport = if *identifier == "kernel" {
            "kernel"
        } else {
            "journal"
        };
        end.take(
            &serde_json::json!({
                "__REALTIME_TIMESTAMP": us, "MESSAGE": message, "SYSLOG_IDENTIFIER": identifier, "_TRANSPORT": transport,
            })
            .to_string(),
        );
    }
    Ok(end)
}

fn another_boot(
    goodbye: Option<GoodbyeWhy>,
    journal: Result<JournalEnd, String>,
    panics: &[&str],
) -> Account {
    let record = Record {
        boot_id: Uuid::from_u128(9),
        goodbye,
        servers: vec![Heard {
            boot_id: Some(Uuid::from_u128(9)),
            ..record().servers[0].clone()
        }],
        ..record()
    };
    let how = How::NewBoot {
        up_ms: 105_000,
        journal,
        panics: panics.iter().map(|&line| line.to_owned()).collect(),
    };
    of(record, how)
}

#[test]
fn a_new_boot() {
    let reboot = [
        ("app", "x"),
        ("systemd", "Reached target reboot.target - System Reboot."),
    ];
    let oom = [
        ("kernel", "Out of memory: Killed process 7 (hermes) total-vm:1kB"),
        ("app", "x"),
    ];
    let limit = [
        (
            "kernel",
            "Memory cgroup out of memory: Killed process 7 (hermes) total-vm:1kB",
        ),
        (
            "systemd",
            "hermes.service: A process of this unit has been killed by the OOM killer.",
        ),
    ];
    let unread = || Err("it was not read within 6s".to_owned());
    let table = [
        (
            "clean reboot",
            Verdict::Reboot,
            another_boot(None, journal(&reboot), &[]),
        ),
        (
            "power cut",
            Verdict::PowerOrCrash,
            another_boot(None, journal(&[("app", "x")]), &[]),
        ),
        (
            "oom, then dead",
            Verdict::Oom,
            another_boot(None, journal(&oom), &[]),
        ),
        (
            "panic",
            Verdict::PowerOrCrash,
            another_boot(
                None,
                journal(&reboot[..1]),
                &["dmesg.txt: Kernel panic - not syncing: Fatal exception"],
            ),
        ),
        (
            "panic on oom",
            Verdict::Oom,
            another_boot(
                None,
                journal(&[("app", "x")]),
                &["dmesg.txt: Kernel panic - not syncing: Out of memory"],
            ),
        ),
        (
            "an oops long before, kept until the clean reboot",
            Verdict::Reboot,
            another_boot(None, journal(&reboot), &["dmesg.txt: Oops: 0002 [#1] SMP"]),
        ),
        (
            "a panic at the end of a shutdown",
            Verdict::PowerOrCrash,
            another_boot(
                None,
                journal(&reboot),
                &["dmesg.txt: Kernel panic - not syncing: x"],
            ),
        ),
        (
            "an oom kill that it survived, then a panic of another kind",
            Verdict::PowerOrCrash,
            another_boot(
                None,
                journal(&[("app", "x")]),
                &[
                    "dmesg.txt: Out of memory: Killed process 7 (x)",
                    "dmesg.txt: Kernel panic - not syncing: Fatal exception",
                ],
            ),
        ),
        (
            "a unit met its own limit, then the power went",
            Verdict::PowerOrCrash,
            another_boot(None, journal(&limit), &[]),
        ),
        (
            "a journal that keeps warnings only, goodbye",
            Verdict::Reboot,
            another_boot(Some(GoodbyeWhy::Reboot), journal(&[("app", "x")]), &[]),
        ),
        (
            "a shutdown planned for tonight, then the power went",
            Verdict::PowerOrCrash,
            another_boot(
                None,
                journal(&[
                    (
                        "systemd-logind",
                        "The system will reboot at Sun 2026-11-22 03:00:00 UTC!",
                    ),
                    ("app", "x"),
                ]),
                &[],
            ),
        ),
        (
            "no journal, goodbye",
            Verdict::Reboot,
            another_boot(Some(GoodbyeWhy::Reboot), unread(), &[]),
        ),
        (
            "no journal, no goodbye",
            Verdict::PowerOrCrash,
            another_boot(None, unread(), &[]),
        ),
        (
            "volatile journal",
            Verdict::PowerOrCrash,
            another_boot(None, journal(&[]), &[]),
        ),
        (
            "stopped by hand before, no journal",
            Verdict::Unknown,
            another_boot(Some(GoodbyeWhy::WatchdogStopped), unread(), &[]),
        ),
        (
            "stopped by hand before, power cut",
            Verdict::PowerOrCrash,
            another_boot(Some(GoodbyeWhy::WatchdogStopped), journal(&[("app", "x")]), &[]),
        ),
    ];
    for (case, verdict, account) in table {
        assert_eq!(account.verdict, verdict, "{case}: {account:#?}");
        assert!(
            !account.pending && account.summary.contains("it was off for"),
            "{case}: {}",
            account.summary
        );
        assert_eq!((account.from, account.to), (at(100).wall, at(120).wall), "{case}");
        account.validate("account").unwrap();
    }
    let cut = another_boot(None, journal(&[("app", "x")]), &[]);
    assert_eq!(
        cut.summary,
        "it went down without a shutdown: power cut, reset or crash; it was off for 5 s"
    );
    assert!(
        cut.evidence
            .contains(&"the old boot's journal ends with: app: x".to_owned()),
        "{cut:#?}"
    );
}

#[test]
fn a_new_process_of_the_same_boot() {
    let table = [
        (
            "kill -9",
            Verdict::WatchdogOnly,
            same_boot("signal", "KILL", 101, 0),
        ),
        (
            "crash",
            Verdict::WatchdogOnly,
            same_boot("core-dump", "SEGV", 101, 0),
        ),
        (
            "a hung process",
            Verdict::WatchdogOnly,
            same_boot("watchdog", "ABRT", 111, 0),
        ),
        (
            "a frozen machine",
            Verdict::MachineHung,
            same_boot("watchdog", "ABRT", 113, 0),
        ),
        (
            "systemd says oom",
            Verdict::Oom,
            same_boot("oom-kill", "KILL", 101, 1),
        ),
        (
            "the kernel counts an oom kill",
            Verdict::Oom,
            same_boot("signal", "KILL", 101, 1),
        ),
        (
            "an oom kill of something else",
            Verdict::WatchdogOnly,
            same_boot("signal", "SEGV", 101, 1),
        ),
    ];
    for (case, verdict, account) in table {
        assert_eq!(account.verdict, verdict, "{case}: {account:#?}");
        assert!(
            account.evidence[0].starts_with("systemd on fleet-watchdog-beat: "),
            "{case}: {account:#?}"
        );
        account.validate("account").unwrap();
    }
    let how = || How::SameBoot {
        ended: ended("success", "0", 101),
        oom_kills: 0,
    };
    for (goodbye, verdict) in [
        (GoodbyeWhy::Reboot, Verdict::Reboot),
        (GoodbyeWhy::WatchdogStopped, Verdict::WatchdogOnly),
    ] {
        let record = Record {
            goodbye: Some(goodbye),
            ..record()
        };
        assert_eq!(
            of(record, how()).verdict,
            verdict,
            "a container shares its host's boot: {goodbye}"
        );
    }
    let nothing = How::SameBoot {
        ended: None,
        oom_kills: 0,
    };
    assert_eq!(of(record(), nothing).verdict, Verdict::WatchdogOnly);
}

#[test]
fn a_restart_in_the_middle_of_a_partition_is_still_a_partition() {
    let mut before = record();
    before.servers[0].silent = true;
    before.servers[0].taken = Some(at(60));
    before.servers[0].tried = vec![tried(Step::Connect, 12, 62, 99)];
    let how = How::SameBoot {
        ended: ended("success", "0", 101),
        oom_kills: 0,
    };
    let account = of(before.clone(), how.clone());
    assert_eq!(
        (account.verdict, account.from),
        (Verdict::NetworkPath, at(60).wall)
    );
    assert_eq!(account.attempts[0].times, 12);
    before.servers[0].taken = Some(at(95));
    let account = of(before, how);
    assert_eq!(account.verdict, Verdict::WatchdogOnly, "the smaller part");
    assert!(
        account
            .evidence
            .iter()
            .any(|line| line.starts_with("beats had failed before"))
    );
}

#[test]
fn the_same_process_was_alive_or_nothing_ran() {
    let mut silence = Silence::new();
    silence.answered(at(113), SECOND, true);
    let address = Some("203.0.113.5:443".parse().unwrap());
    for n in 0..14 {
        silence.failed(at(115 + n * 3), Step::Connect, address, "timed out");
    }
    let mut story = story(Before::Nothing);
    let account = story
        .account(URL, silence.gap(at(156), SECOND).unwrap(), at(156))
        .unwrap();
    assert_eq!(account.verdict, Verdict::NetworkPath);
    assert_eq!(
        account.summary,
        "connect to 203.0.113.5:443 over IPv4 timed out for 43 s; it was alive all the while"
    );
    let attempt = &account.attempts[0];
    assert_eq!(
        (attempt.step.as_str(), attempt.times, attempt.url.as_str()),
        ("connect", 14, URL)
    );
    assert_eq!(attempt.family.as_ref().unwrap().as_str(), "ipv4");

    let moment = |secs: u64| Moment {
        wall: at(secs).wall,
        boot: Duration::from_secs(secs),
        monotonic: Duration::from_secs(secs),
    };
    story.stalls.ends(moment(114), SECOND);
    story.stalls.begins(moment(150));
    let account = story
        .account(URL, silence.gap(at(156), SECOND).unwrap(), at(156))
        .unwrap();
    assert_eq!(account.verdict, Verdict::MachineHung);
    assert_eq!(
        account.summary,
        "nothing ran on it for 36 s: frozen, paused or starved"
    );

    let nothing_tried = Gap {
        taken: Some(at(151)),
        reached: Some(at(155)),
        tried: &[],
        around: NOT_SEEN,
    };
    let account = story.account(URL, nothing_tried, at(170)).unwrap();
    assert_eq!(account.verdict, Verdict::NetworkPath, "the stall was before");
    assert_eq!((account.from, account.to), (at(151).wall, at(155).wall));
}

#[test]
fn while_it_is_finding_out_it_says_so_and_since_when() {
    let asking = story(Before::Asking(None))
        .account(URL, never_heard(), at(120))
        .unwrap();
    assert!(asking.pending);
    let known = Before::Asking(Some(Box::new(record())));
    let asking = story(known).account(URL, never_heard(), at(120)).unwrap();
    assert_eq!((asking.pending, asking.from), (true, at(100).wall));
}

#[test]
fn what_was_not_found_out_in_time_is_unknown_and_not_the_network() {
    let late = Before::Late(Some(Box::new(record())));
    let account = story(late).account(URL, never_heard(), at(120)).unwrap();
    assert_eq!((account.verdict, account.from), (Verdict::Unknown, at(100).wall));
    assert!(
        account
            .summary
            .starts_with("nothing is known of the time before the watchdog began ("),
        "{}",
        account.summary
    );
    assert!(
        story(Before::Late(None))
            .account(URL, never_heard(), at(113))
            .is_none()
    );
}

#[test]
fn a_clock_that_is_set_after_the_start_of_the_boot_tells_how_long_it_was_off() {
    let how = How::NewBoot {
        up_ms: 5000,
        journal: journal(&[("app", "x")]),
        panics: Vec::new(),
    };
    let record = Record {
        boot_id: Uuid::from_u128(9),
        ..record()
    };
    let mut story = story(Before::Known(Box::new(record), Box::new(how)));
    let of_boot = |secs: u64, wall: Timestamp| Stamp {
        wall,
        boot_ms: secs * 1000,
    };
    story.began = of_boot(12, Timestamp::UNIX_EPOCH + SECOND * 12);
    let unset = of_boot(20, Timestamp::UNIX_EPOCH + SECOND * 20);
    let account = story.account(URL, never_heard(), unset).unwrap();
    assert!(
        account
            .summary
            .ends_with("for a time that its clock does not tell"),
        "{}",
        account.summary
    );
    let set = of_boot(30, at(425).wall);
    let account = story.account(URL, never_heard(), set).unwrap();
    assert!(
        account.summary.ends_with("it was off for 5 min"),
        "{}",
        account.summary
    );
}

#[test]
fn a_server_that_never_heard_of_the_box_is_told_of_the_time_since_the_start() {
    let tried = [tried(Step::Dns, 3, 113, 119)];
    let gap = Gap {
        tried: &tried,
        ..never_heard()
    };
    let account = story(Before::Nothing).account(URL, gap, at(120)).unwrap();
    // It may have been booted anew; nothing is left that would tell.
    assert_eq!((account.verdict, account.from), (Verdict::Unknown, at(112).wall));
    assert!(
        account
            .summary
            .contains("since then: resolving the server's name timed out for"),
        "{}",
        account.summary
    );
}

#[test]
fn no_secret_and_no_endless_text_leaves_the_box() {
    let line = format!(
        "Out of memory: Killed process 7 password=hunter2 {}",
        "x".repeat(900)
    );
    let account = another_boot(
        None,
        journal(&[("kernel", &line)]),
        &["dmesg: token=abcdef Kernel panic"; 40],
    );
    account.validate("account").unwrap();
    let json = serde_json::to_string(&account).unwrap();
    assert!(!json.contains("hunter2") && !json.contains("abcdef"), "{json}");
    assert!(json.len() < 12 * 1024 && account.evidence.len() <= limits::ACCOUNT_LINES);
}

proptest::proptest! {
    /// Whatever others wrote: an account is within its bounds, and it is JSON that a server takes.
    #[test]
    fn any_text_makes_an_account_that_a_server_takes(
        message in "\\PC{0,400}", identifier in "(kernel|systemd|systemd-logind|[a-z]{1,9})", panic in "\\PC{0,400}",
        detail in "\\PC{0,400}",
    ) {
        let mut before = record();
        before.boot_id = Uuid::from_u128(9);
        before.servers[0].silent = true;
        before.servers[0].tried = vec![Tried { detail, ..tried(Step::Tls, 3, 62, 99) }];
        let how = How::NewBoot {
            up_ms: 105_000,
            journal: journal(&[(identifier.as_str(), message.as_str()); 9]),
            panics: vec![panic; 6],
        };
        let account = of(before, how);
        proptest::prop_assert!(account.validate("account").is_ok(), "{account:#?}");
        let json = serde_json::to_vec(&account).unwrap();
        proptest::prop_assert!(json.len() < 12 * 1024);
        proptest::prop_assert_eq!(serde_json::from_slice::<Account>(&json).unwrap(), account);
    }
}
