//! The program as an operator calls it: exit status, what stands on which stream, what is left on the disk.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use protocol::report::{Report, Status};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    /// A configuration that looks at nothing of this machine but what it says.
    fn new(more: &str) -> Self {
        let place = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let state = place.state().display().to_string();
        let text = format!(
            "state_dir = {state:?}\n[box]\nname = \"box-1\"\n[disk]\nenabled = false\n[tailscale]\nenabled = false\n{more}\n"
        );
        std::fs::write(place.config(), text).unwrap();
        place
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn run(&self, args: &[&str]) -> Output {
        program()
            .arg("--config")
            .arg(self.config())
            .args(args)
            .output()
            .unwrap()
    }
}

fn program() -> Command {
    // What hangs is ended, with a status (124) that no test wants.
    let mut program = Command::new("timeout");
    program.args(["60", env!("CARGO_BIN_EXE_fleet-watchdog")]);
    program
        .stdin(Stdio::null())
        .env_remove("JOURNAL_STREAM")
        .env_remove("STATE_DIRECTORY");
    program
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_run_prints_all_four_checks_and_ends_with_0_when_nothing_fails() {
    let place = Place::new("");
    let output = place.run(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let text = out(&output);
    let names: Vec<_> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1))
        .collect();
    assert_eq!(names, ["gateway", "disk", "backup", "tailscale"], "{text}");
    assert!(
        text.contains("not_configured") && text.contains("add [backup] newest"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "colours in a pipe: {text:?}");
}

#[test]
fn the_json_is_the_report_as_on_the_wire_and_as_kept() {
    let place = Place::new("");
    let output = place.run(&["check", "--json"]);
    let printed: Report = serde_json::from_slice(&output.stdout).unwrap();
    printed.validate("report").unwrap();
    let kept = std::fs::read(place.state().join("report.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Report>(&kept).unwrap(), printed);
}

#[test]
fn something_failing_ends_with_1() {
    let old = tempfile::NamedTempFile::new().unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    old.as_file().set_modified(long_ago).unwrap();
    let place = Place::new(&format!("[backup]\nstamp = {:?}", old.path()));
    let output = place.run(&["check", "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report.worst(), Status::Failing);
}

#[test]
fn no_act_leaves_nothing() {
    let place = Place::new("");
    assert_eq!(place.run(&["check", "--no-act"]).status.code(), Some(0));
    assert!(!place.state().exists());
}

#[test]
fn a_wrong_configuration_ends_with_78_and_says_all_of_it_on_stderr() {
    let place = Place::new("[gateway]\nunit = \"hermes\"\nrestart_aftr = 3\n[heartbeat]\nevery = \"1ms\"");
    for args in [&["check"][..], &["beat"], &["status"], &["check-config"]] {
        let output = place.run(args);
        assert_eq!(output.status.code(), Some(78), "{args:?}");
        let text = err(&output);
        let file = place.config().display().to_string();
        assert_eq!(
            text.lines().filter(|line| line.starts_with(&file)).count(),
            3,
            "{text}"
        );
        assert!(
            text.contains("hermes.service") && text.contains("restart_after") && text.contains("250ms"),
            "{text}"
        );
        assert!(out(&output).is_empty());
    }
}

#[test]
fn a_configuration_that_is_named_and_missing_ends_with_78() {
    let output = program()
        .args(["--config", "/nonexistent/w.toml", "check"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(err(&output).contains("/nonexistent/w.toml"), "{}", err(&output));
}

#[test]
fn check_config_says_what_it_comes_to_and_misses_the_token() {
    let place = Place::new("[gateway]\nunits = [\"a.service\", \"b.service\"]");
    let output = place.run(&["check-config"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        out(&output).contains("b.service restarted after 3 failing runs"),
        "{}",
        out(&output)
    );

    let token = place.dir.path().join("token");
    let place = Place::new(&format!(
        "[server]\nurls = [\"https://f.example.net\"]\ntoken_file = {token:?}"
    ));
    let file = place.config().display().to_string();
    let output = program().args(["check-config", &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(
        err(&output).contains("server.token_file") && err(&output).contains("enroll"),
        "{}",
        err(&output)
    );
    assert_eq!(
        place.run(&["check"]).status.code(),
        Some(0),
        "a box without a token checks itself all the same"
    );
}

#[test]
fn beating_to_nobody_ends_with_78_instead_of_going_round() {
    let output = Place::new("").run(&["beat"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        err(&output).contains("no server is configured"),
        "{}",
        err(&output)
    );
}

#[test]
fn a_pause_is_shown_and_ended() {
    let place = Place::new("");
    place.run(&["check"]);
    let output = place.run(&["pause", "--for", "30m", "--reason", "disk swap"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&place.run(&["status"])).contains("disk swap"));
    let json: serde_json::Value = serde_json::from_slice(&place.run(&["status", "--json"]).stdout).unwrap();
    assert_eq!(json["paused"]["reason"], "disk swap");
    assert_eq!(json["report"]["checks"].as_array().unwrap().len(), 4);
    assert!(out(&place.run(&["resume"])).contains("go on"));
    assert!(out(&place.run(&["resume"])).contains("nothing was paused"));
    assert!(!out(&place.run(&["status"])).contains("disk swap"));
    for args in [["--for", "1y", "--reason", "x"], ["--for", "1h", "--reason", ""]] {
        let output = place.run(&[&["pause"][..], &args].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("--"), "{}", err(&output));
    }
}

#[test]
fn a_second_run_adds_up_with_the_first() {
    let place = Place::new("");
    place.run(&["check"]);
    let report: Report = serde_json::from_slice(&place.run(&["check", "--json"]).stdout).unwrap();
    assert!(
        report.checks.iter().all(|check| check.consecutive == 2),
        "{report:#?}"
    );
}

#[test]
fn an_enrolment_needs_a_server() {
    let output = Place::new("").run(&["enroll", "--code", "abc"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("--server URL"), "{}", err(&output));
    let output = Place::new("").run(&["enroll", "--code", "abc", "--server", "http://fleet.example.net"]);
    assert!(err(&output).contains("in the clear"), "{}", err(&output));
}
