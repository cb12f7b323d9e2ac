//! Every mistake is answered with file, line, key, value and what would be right.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::settings::{BackupSource, CheckSettings, HeartbeatMode, ProbeTarget, Scope};

fn around() -> Surroundings {
    Surroundings {
        hostname: "box-17".to_owned(),
        state_directory: None,
        runtime_directory: None,
        credentials_directory: None,
    }
}

fn read_text(text: &str) -> Result<Settings, ConfigError> {
    parse(Path::new("/etc/w.toml"), text.as_bytes(), &around())
}

/// The file's text, and what the one message about it must hold.
const MISTAKES: &[(&str, &[&str])] = &[
    (
        "[gateway]\nunit = \"a.service\"\nrestart_aftr = 2",
        &[":3:", "gateway.restart_aftr", "did you mean \"restart_after\"?"],
    ),
    (
        "[gatway]\nunit = \"a.service\"",
        &[":1:", "gatway", "did you mean \"gateway\"?"],
    ),
    (
        "[disk]\ncolour = \"red\"",
        &[":2:", "disk.colour", "no such key in [disk]", "mounts"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nrestart_after = \"three\"",
        &[":3:", "gateway.restart_after = \"three\"", "whole number"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nrestart_after = 0",
        &["gateway.restart_after = 0", "1 to 1000"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nmax_restarts = -1",
        &["gateway.max_restarts = -1", "0 to 100"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nrestart_window = \"0s\"",
        &["gateway.restart_window = \"0s\"", "1s to 7d"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nstartup_grace = \"soon\"",
        &["gateway.startup_grace = \"soon\"", "no duration", "\"90s\""],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nstartup_grace = 120",
        &["gateway.startup_grace = 120", "integer", "with its unit"],
    ),
    (
        "[gateway]\nunit = \"hermes-gateway\"",
        &["gateway.unit = \"hermes-gateway\"", "hermes-gateway.service"],
    ),
    ("[gateway]\nunit = \"../evil.service\"", &["gateway.unit", "'/'"]),
    (
        "[[gateway]]\nrestart_after = 3\n[[gateway]]\nmax_restarts = 1",
        &["gateway[1]", "hermes-gateway.service", "second time"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nunits = [\"b.service\"]",
        &["gateway.units", "one of the two"],
    ),
    (
        "[gateway]\nunits = [\"a.service\", \"b.service\"]\nprobe = { tcp = \"127.0.0.1:1\" }",
        &["gateway.probe", "[[gateway]]"],
    ),
    (
        "[[gateway]]\nunit = \"a.service\"\n[[gateway]]\nunit = \"a.service\"",
        &["gateway[1]", "a.service", "second time"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nscope = \"alice\"",
        &["gateway.scope = \"alice\"", "user:alice"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\npreset = \"openclaw\"",
        &["gateway.preset = \"openclaw\"", "hermes"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nhome = \"/home/agent/.hermes\"",
        &["gateway.home", "preset = \"hermes\""],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { http = \"http://127.0.0.1/\", tcp = \"127.0.0.1:80\" }",
        &["gateway.probe", "asks 2 things", "exactly one"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { timeout = \"5s\" }",
        &["gateway.probe", "asks 0 things"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = [{ tcp = \"localhost\" }]",
        &["gateway.probe[0].tcp = \"localhost\"", "127.0.0.1:8642"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { http = \"ftp://x/\" }",
        &["gateway.probe.http", "\"ftp\"", "http://"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { file = \"run/x\" }",
        &["gateway.probe.file = \"run/x\"", "absolute path"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { tcp = \"[::1]:1\", max_age = \"1h\" }",
        &["gateway.probe.max_age", "file probe"],
    ),
    (
        "[gateway]\nunit = \"a.service\"\nprobe = { tcp = \"[::1]:1\", timeout = \"1h\" }",
        &["gateway.probe.timeout = \"1h\"", "100ms to 2m"],
    ),
    ("[server]\nurls = []", &["server.urls = []", "1 to 4"]),
    (
        "[server]\nurls = \"https://fleet.example.net\"",
        &["server.urls", "a list"],
    ),
    (
        "[server]\ntoken_file = \"/etc/fleet-watchdog/token\"",
        &["server.urls", "missing", "https://"],
    ),
    (
        "[server]\nurls = [\"fleet.example.net\"]",
        &["server.urls[0] = \"fleet.example.net\"", "no URL", "https://"],
    ),
    (
        "[server]\nurls = [\"ws://fleet.example.net\"]",
        &["server.urls[0]", "\"ws\"", "https://"],
    ),
    (
        "[server]\nurls = [\"http://fleet.example.net\"]",
        &["server.urls[0]", "in the clear", "https://"],
    ),
    (
        "[server]\nurls = [\"http://203.0.113.9:8470\"]",
        &["server.urls[0]", "in the clear"],
    ),
    (
        "[server]\nurls = [\"https://box:hunter2@fleet.example.net\"]",
        &["server.urls[0]", "user or password", "token_file"],
    ),
    (
        "[server]\nurls = [\"https://fleet.example.net/?token=hunter2\"]",
        &["server.urls[0]", "token_file"],
    ),
    (
        "[server]\nurls = [\"https://f.example.net\"]\ntoken_file = \"token\"",
        &["server.token_file = \"token\"", "absolute"],
    ),
    (
        "[heartbeat]\nevery = \"10ms\"",
        &["heartbeat.every = \"10ms\"", "250ms to 1h"],
    ),
    (
        "[heartbeat]\nevery = \"0s\"",
        &["heartbeat.every = \"0s\"", "250ms to 1h"],
    ),
    (
        "[heartbeat]\nevery = \"-5s\"",
        &["heartbeat.every = \"-5s\"", "no duration"],
    ),
    (
        "[heartbeat]\nmode = \"cron\"",
        &["heartbeat.mode = \"cron\"", "resident, timer"],
    ),
    ("[box]\nname = \"box 17\"", &["box.name = \"box 17\"", "' '"]),
    (
        "[box]\nlabels = { box = \"x\" }",
        &["box.labels", "\"box\"", "reserved"],
    ),
    (
        "[box]\nlabels = { \"my-site\" = \"x\" }",
        &["box.labels", "\"my-site\"", "'-'"],
    ),
    (
        "[box]\nlabels = { site = 3 }",
        &["box.labels", "\"site\"", "text in quotes"],
    ),
    (
        "[disk]\nmounts = [\"home\"]",
        &["disk.mounts[0] = \"home\"", "absolute"],
    ),
    ("[disk]\nmounts = []", &["disk.mounts", "at least one"]),
    (
        "[disk]\nwarning_free_ratio = 10",
        &["disk.warning_free_ratio = 10", "ten per cent"],
    ),
    (
        "[disk]\nfailing_free_bytes = \"6GiB\"",
        &["disk", "failing_free_bytes", "over warning_free_bytes"],
    ),
    (
        "[disk]\nwarning_free_bytes = \"5 apples\"",
        &["disk.warning_free_bytes = \"5 apples\"", "5GiB"],
    ),
    (
        "[disk]\nrestart_after = 3",
        &["disk.restart_after", "restart = \"<unit>\""],
    ),
    (
        "[backup]\nnewest = \"/b/*\"\nwarning_after = \"60h\"\nfailing_after = \"50h\"",
        &["backup.warning_after = \"60h\"", "2days 2h", "less than"],
    ),
    (
        "[backup]\nnewest = \"~/hermes-backup-*.zip\"",
        &["backup.newest", "absolute", "not expanded"],
    ),
    ("[backup]\nnewest = \"/b/***\"", &["backup.newest", "no pattern"]),
    (
        "[backup]\nnewest = \"/b/*\"\nstamp = \"/b/stamp\"",
        &["backup.stamp", "newest and stamp", "exactly one"],
    ),
    (
        "[backup]\nwarning_after = \"26h\"",
        &["backup", "where one is", "newest"],
    ),
    (
        "[backup]\ncommand = \"restic snapshots\"\nformat = \"restic\"",
        &["backup.command", "list of words", "no shell"],
    ),
    (
        "[backup]\ncommand = [\"restic\", \"snapshots\"]",
        &["backup.format", "missing", "restic"],
    ),
    (
        "[backup]\ncommand = [\"x\"]\nformat = \"tar\"",
        &["backup.format = \"tar\"", "restic, borg"],
    ),
    (
        "[backup]\nstamp = \"/b/stamp\"\nmin_size = \"1MiB\"",
        &["backup.min_size", "belongs to newest"],
    ),
    (
        "[tailscale]\nsocket = 5",
        &["tailscale.socket = 5", "text in quotes"],
    ),
    (
        "[tailscale]\nkey_failing = \"20d\"",
        &["tailscale", "key_failing", "warning must come first"],
    ),
    (
        "[tailscale]\nenabled = \"no\"",
        &["tailscale.enabled = \"no\"", "true or false"],
    ),
    (
        "[checks]\ntimeout = \"0s\"",
        &["checks.timeout = \"0s\"", "100ms to 2m"],
    ),
    ("state_dir = \"var\"", &[":1:", "state_dir = \"var\"", "absolute"]),
    ("gateway = 5", &["gateway = 5", "a table"]),
    ("[gateway\nunit = \"a.service\"", &[":1:", "not valid TOML"]),
    ("[box]\nname = \"a\"\nname = \"b\"", &[":3:", "duplicate key"]),
];

#[test]
fn every_mistake_is_answered_with_file_key_value_and_fix() {
    assert!(MISTAKES.len() >= 25);
    for (text, wanted) in MISTAKES {
        let err = read_text(text).expect_err(text);
        let message = err.to_string();
        assert!(message.starts_with("/etc/w.toml"), "{message}");
        for part in *wanted {
            assert!(
                message.contains(part),
                "for\n{text}\nwanted {part:?} in\n{message}"
            );
        }
        assert_eq!(
            err.problems.len(),
            1,
            "for\n{text}\none mistake, one message, but\n{message}"
        );
        assert!(!message.contains("hunter2"), "a secret was repeated: {message}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_named_at_once_in_its_order() {
    let text =
        "[heartbeat]\nevery = \"1ms\"\n[disk]\nmounts = [\"x\"]\n[box]\nnmae = \"b\"\n[gateway]\nunit = 3\n";
    let err = read_text(text).unwrap_err();
    let lines: Vec<_> = err.problems.iter().map(|p| p.line).collect();
    assert_eq!(lines, [Some(2), Some(4), Some(6), Some(8)], "{err}");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_fix() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let message = load(Some(&missing), &around()).unwrap_err().to_string();
    assert!(
        message.contains("none.toml") && message.contains("no such file"),
        "{message}"
    );

    let latin = dir.path().join("latin.toml");
    std::fs::write(&latin, b"[box]\nname = \"b\xf6x\"\n").unwrap();
    let message = load(Some(&latin), &around()).unwrap_err().to_string();
    assert!(message.contains("line 2 is not UTF-8"), "{message}");

    let huge = dir.path().join("huge.toml");
    std::fs::write(&huge, vec![b'#'; 300 * 1024]).unwrap();
    let message = load(Some(&huge), &around()).unwrap_err().to_string();
    assert!(message.contains("over 262144 bytes"), "{message}");

    let message = load(Some(dir.path()), &around()).unwrap_err().to_string();
    assert!(message.contains("cannot be read"), "{message}");
}

#[test]
fn a_host_name_that_cannot_be_a_box_name_is_said() {
    let around = Surroundings {
        hostname: "(none)".to_owned(),
        ..around()
    };
    let message = parse(Path::new("w.toml"), b"", &around).unwrap_err().to_string();
    assert!(
        message.contains("box.name") && message.contains("(none)"),
        "{message}"
    );
}

#[test]
fn the_example_file_is_right_and_shows_the_defaults() {
    let example = include_str!("../../../deploy/etc/fleet-watchdog/config.toml");
    let shipped = read_text(example).unwrap();
    assert_eq!(shipped.gateways.len(), 1);
    assert!(shipped.gateways[0].hermes.is_some());
    assert!(matches!(shipped.backup, CheckSettings::NotConfigured));
    assert!(matches!(shipped.tailscale, CheckSettings::On(_)));

    // Every line that shows a default says the default: with all of them active, nothing changes.
    let shows = |line: &&str| {
        let key = line.strip_prefix("# ").and_then(|rest| rest.split_once(" = "));
        key.is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            && !line.contains("http")
    };
    let skipped = [
        "labels",
        "home",
        "scope",
        "mounts",
        "name",
        "ca_file",
        "token_file",
        "newest",
        "min_size",
        "stamp",
        "hermes_snapshots",
        "command",
        "format",
        "timeout = \"60s\"",
    ];
    let active: Vec<&str> = example
        .lines()
        .map(
            |line| match shows(&line) && !skipped.iter().any(|s| line[2..].starts_with(s)) {
                true => &line[2..],
                false if line.starts_with('#') => "",
                false => line,
            },
        )
        .collect();
    let mut active = active.join("\n");
    active = active.replace("[backup]", "[backup]\nstamp = \"/b\"");
    let same = read_text(&active).unwrap();
    assert_eq!(format!("{:?}", same.gateways), format!("{:?}", shipped.gateways));
    assert_eq!(
        format!("{:?}", same.heartbeat),
        format!("{:?}", shipped.heartbeat)
    );
    assert_eq!(format!("{:?}", same.run), format!("{:?}", shipped.run));
    assert_eq!(
        format!("{:?}", same.tailscale),
        format!("{:?}", shipped.tailscale)
    );
    let CheckSettings::On(backup) = &same.backup else {
        panic!("{:?}", same.backup)
    };
    assert_eq!(backup.failing_after, Duration::from_secs(50 * 3600));
}

#[test]
fn without_a_file_the_defaults_hold() {
    let settings = read_text("").unwrap();
    assert_eq!(settings.name.as_str(), "box-17");
    assert_eq!(settings.state_dir, Path::new("/var/lib/fleet-watchdog"));
    assert!(settings.server.is_none() && settings.gateways.is_empty() && !settings.gateway_disabled);
    assert_eq!(settings.heartbeat.every, Duration::from_secs(1));
    let CheckSettings::On(disk) = &settings.disk else {
        panic!()
    };
    assert_eq!(disk.mounts, [PathBuf::from("/")]);
    assert_eq!(disk.also, [PathBuf::from("/var/lib/fleet-watchdog")]);
    assert!(matches!(settings.backup, CheckSettings::NotConfigured));
    assert!(matches!(settings.tailscale, CheckSettings::NotConfigured));
}

#[test]
fn a_gateway_table_without_a_unit_means_the_usual_one() {
    let settings = read_text("[gateway]\nrestart_after = 5").unwrap();
    let gateway = &settings.gateways[0];
    assert_eq!(gateway.unit.as_str(), "hermes-gateway.service");
    assert_eq!(
        (gateway.restart.after, gateway.restart.unit.as_str()),
        (5, gateway.unit.as_str())
    );
    let none = read_text("[gateway]\nenabled = false").unwrap();
    assert!(none.gateways.is_empty() && none.gateway_disabled);
}

#[test]
fn the_whole_of_it_is_understood() {
    let text = r#"
state_dir = "/tmp/state"
[box]
name = "b1"
labels = { site = "fsn1" }
[server]
urls = ["https://a.example.net", "http://100.100.1.2:8470", "http://fleet.tail1234.ts.net"]
[heartbeat]
mode = "timer"
[[gateway]]
unit = "a.service"
restart_after = 2
max_restarts = 0
probe = [{ unix = "/run/a.sock" }, { file = "/run/a", max_age = "10s", timeout = "1s" }]
[[gateway]]
units = ["b.service", "c.service"]
scope = "user:alice"
[disk]
enabled = false
[backup]
newest = "/srv/b*/x-?.zip"
min_size = "1MiB"
warning_after = "30d"
restart = "b.service"
max_restarts = 1
[tailscale]
enabled = false
"#;
    let settings = read_text(text).unwrap();
    assert_eq!(settings.server.as_ref().unwrap().urls.len(), 3);
    assert_eq!(settings.heartbeat.mode, HeartbeatMode::Timer);
    let units: Vec<_> = settings.gateways.iter().map(|g| g.unit.as_str()).collect();
    assert_eq!(units, ["a.service", "b.service", "c.service"]);
    assert!(matches!(
        settings.gateways[0].probes[1].target,
        ProbeTarget::File { .. }
    ));
    assert_eq!(settings.gateways[2].scope, Scope::User("alice".to_owned()));
    assert!(matches!(settings.disk, CheckSettings::Disabled));
    let CheckSettings::On(backup) = &settings.backup else {
        panic!()
    };
    assert!(matches!(
        &backup.source,
        BackupSource::Newest {
            min_bytes: 1_048_576,
            ..
        }
    ));
    assert!(
        backup.failing_after > backup.warning_after,
        "a default never contradicts what was given"
    );
    assert_eq!(backup.restart.as_ref().unwrap().max, 1);
}

#[test]
fn a_backup_command_has_time_left_to_be_judged() {
    let text =
        "[backup]\ncommand = [\"restic\", \"snapshots\", \"--json\"]\nformat = \"restic\"\ntimeout = \"90s\"";
    let CheckSettings::On(backup) = read_text(text).unwrap().backup else {
        panic!()
    };
    let BackupSource::Command { timeout, .. } = backup.source else {
        panic!()
    };
    assert_eq!(timeout, Duration::from_secs(90));
    assert!(backup.timeout > timeout);
}

#[test]
fn the_watched_file_systems_follow_the_backups() {
    for (newest, place) in [
        ("/srv/b*/x.zip", "/srv"),
        ("/srv/b/x-*.zip", "/srv/b"),
        ("/*.zip", "/"),
    ] {
        let settings = read_text(&format!("[backup]\nnewest = \"{newest}\"")).unwrap();
        let CheckSettings::On(disk) = settings.disk else {
            panic!()
        };
        assert_eq!(disk.also[1], PathBuf::from(place));
    }
}

proptest::proptest! {
    /// No text crashes the reader, and a refusal always says something.
    #[test]
    fn any_text_is_answered(text in "[\\[\\]a-z_=\"{}., 0-9\n#-]{0,200}") {
        if let Err(err) = read_text(&text) {
            proptest::prop_assert!(!err.problems.is_empty());
        }
    }
}
