//! The watchdog as it is installed, on a real box without a server: what it restarts, when, and what it leaves alone.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::checkup::Checkup;
use crate::clock::{self, secs};
use crate::lab::{BoxSpec, Lab, TestBox, WatchdogSetup};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("remedies::a_hung_gateway", &[Need::Root], 40, a_hung_gateway),
    Scenario::new(
        "remedies::given_up_and_tried_again",
        &[Need::Root],
        140,
        given_up_and_tried_again,
    ),
    Scenario::new("remedies::left_alone", &[Need::Root], 60, left_alone),
    Scenario::new("remedies::nowhere_to_count", &[Need::Root], 50, nowhere_to_count),
    Scenario::new("remedies::told_at_once", &[Need::Root], 40, told_at_once),
    Scenario::new(
        "remedies::killed_in_the_middle",
        &[Need::Root],
        50,
        killed_in_the_middle,
    ),
];

const UNIT: &str = "hermes-gateway.service";
const GATEWAY: &str = "[Service]\nExecStart=/usr/bin/python3 -m http.server 8642\nRestart=always\nRestartSec=1\n\
                       [Install]\nWantedBy=multi-user.target\n";
const STATE: &str = "/var/lib/fleet-watchdog";
/// Seconds between two runs.
const EVERY: u32 = 3;

fn a_box(lab: &Lab, gateway: &str) -> Result<Arc<TestBox>> {
    let config = format!(
        "[gateway]\nunit = \"{UNIT}\"\nstartup_grace = \"4s\"\n{gateway}\n[checks]\nevery = \"{EVERY}s\"\n"
    );
    let setup = WatchdogSetup::new(config, "unused").check_every(EVERY);
    let spec = BoxSpec::new("box-1")
        .user("agent", 1000)
        .unit(UNIT, GATEWAY)
        .watchdog(setup);
    // As Hermes keeps its home: closed to everybody else.
    let made = lab.boot(spec.file("/home/agent/.hermes/stamp", 0o600, "agent", "x"))?;
    made.run_ok("chown -R agent: /home/agent && chmod 0700 /home/agent /home/agent/.hermes")?;
    // Without a server nobody listens to its heartbeats.
    made.run("systemctl stop fleet-watchdog-beat")?;
    Ok(made)
}

fn report(made: &TestBox) -> Option<Value> {
    serde_json::from_str(&made.run_ok(&format!("cat {STATE}/report.json")).ok()?).ok()
}

fn gateway(report: &Value) -> (&str, &str) {
    let row = report["checks"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["name"] == "gateway"));
    let word = |key: &str| row.and_then(|row| row[key].as_str()).unwrap_or_default();
    (word("status"), word("why"))
}

fn remedies(report: &Value) -> Vec<(String, String)> {
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = report["remedies"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    rows.iter()
        .map(|row| (word(row, "outcome"), word(row, "why")))
        .collect()
}

fn count(report: &Value, outcome: &str) -> usize {
    remedies(report)
        .iter()
        .filter(|(word, _)| word == outcome)
        .count()
}

/// Waits for a report that `shows` it.
fn wait_for(made: &TestBox, what: &str, limit_secs: u64, shows: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = clock::wait_for(what, secs(limit_secs), || report(made).filter(&shows));
    found.with_context(|| format!("the last report: {:#}", report(made).unwrap_or_default()))
}

fn main_pid(made: &TestBox) -> Result<String> {
    made.unit(UNIT, "MainPID")
}

/// A process that is stopped, while systemd says `active (running)`.
fn a_hung_gateway(lab: &Lab) -> Result<()> {
    let made = a_box(
        lab,
        "probe = { http = \"http://127.0.0.1:8642/\", timeout = \"1s\" }",
    )?;
    wait_for(&made, "a healthy gateway", 30, |r| gateway(r).0 == "ok")?;
    let pid = main_pid(&made)?;
    let hung = clock::now();
    made.run_ok(&format!("systemctl kill -s STOP {UNIT}"))?;
    let failing = wait_for(&made, "the hang to be found", 20, |r| gateway(r).0 == "failing")?;
    lab.figure("hang to found", format!("{:.1} s", hung.elapsed().as_secs_f64()));
    ensure!(
        count(&failing, "restarted") == 0,
        "restarted before the third run: {failing:#}"
    );
    let mended = wait_for(&made, "the restart", 40, |r| {
        count(r, "restarted") == 1 && gateway(r).0 == "ok"
    })?;
    lab.figure(
        "hang to healthy again",
        format!("{:.1} s", hung.elapsed().as_secs_f64()),
    );
    let row = mended["remedies"]
        .as_array()
        .and_then(|rows| rows.last().cloned())
        .unwrap_or_default();
    let summary = row["summary"].as_str().unwrap_or_default().to_owned();
    ensure!(summary.contains("3 failing runs in a row"), "{summary}");
    ensure!(main_pid(&made)? != pid, "it is still the same process");
    let digest = row["evidence"].as_str().unwrap_or_default();
    ensure!(
        digest.contains("python3"),
        "the evidence does not name the process: {digest}"
    );
    let modes = made.run_ok(&format!(
        "stat -c '%U %a' {STATE}/evidence; ls {STATE}/evidence | wc -l"
    ))?;
    ensure!(modes == "fleet-watchdog 700\n1", "{modes}");
    let owners = made.run_ok(&format!("stat -c '%U %a' {STATE}/state.json {STATE}/report.json"))?;
    ensure!(owners == "fleet-watchdog 640\nfleet-watchdog 640", "{owners}");
    ensure!(
        made.unit("fleet-watchdog.service", "Result")? == "success",
        "failing is an answer, not a failure"
    );

    // What an operator runs as root, the service can still read and write.
    made.run("fleet-watchdog check")?;
    let owners = made.run_ok(&format!("stat -c %U {STATE}/state.json"))?;
    ensure!(owners == "fleet-watchdog", "root's run left {owners}'s file");
    made.shutdown()
}

/// Nothing ever answers: exactly `max_restarts` in the window, then it gives up, then it tries again.
fn given_up_and_tried_again(lab: &Lab) -> Result<()> {
    let made = a_box(
        lab,
        "restart_window = \"60s\"\nprobe = { tcp = \"127.0.0.1:9\", timeout = \"1s\" }",
    )?;
    let given_up = wait_for(&made, "the giving up", 90, |r| count(r, "gave_up") == 1)?;
    let tried = |r: &Value| count(r, "restarted") + count(r, "failed");
    ensure!(tried(&given_up) == 3, "not exactly three restarts: {given_up:#}");
    let starts = made.run_ok(&format!("journalctl -u {UNIT} -o cat | grep -c '^Started '"))?;
    lab.figure("starts of the unit until given up", &starts);
    ensure!(
        starts == "4",
        "once by the boot and three times by us, not {starts}"
    );
    let since = clock::now();
    wait_for(&made, "another try after the window", 90, |r| tried(r) == 4)?;
    lab.figure(
        "given up until the next try",
        format!("{:.0} s", since.elapsed().as_secs_f64()),
    );
    made.shutdown()
}

/// What somebody wanted so.
fn left_alone(lab: &Lab) -> Result<()> {
    let made = a_box(lab, "restart_after = 2")?;
    wait_for(&made, "a healthy gateway", 30, |r| gateway(r).0 == "ok")?;
    let held = |r: &Value, why: &str| {
        remedies(r)
            .last()
            .is_some_and(|(o, w)| o == "held_back" && w == why)
    };

    made.run_ok(&format!("systemctl stop {UNIT}"))?;
    wait_for(&made, "the operator's stop", 20, |r| held(r, "operator_stopped"))?;
    clock::pause(secs(3 * u64::from(EVERY)));
    ensure!(
        made.unit(UNIT, "ActiveState")? == "inactive",
        "a stopped gateway was started"
    );

    made.run_ok(&format!("rm /etc/systemd/system/{UNIT}; systemctl mask {UNIT}"))?;
    wait_for(&made, "the mask", 20, |r| held(r, "unit_masked"))?;
    made.run_ok(&format!("systemctl unmask {UNIT}"))?;
    made.write_file(&format!("/etc/systemd/system/{UNIT}"), 0o644, "root", GATEWAY)?;
    made.run_ok(&format!("systemctl daemon-reload; systemctl start {UNIT}"))?;
    wait_for(&made, "a healthy gateway", 20, |r| gateway(r).0 == "ok")?;

    made.run_ok("fleet-watchdog pause --for 10m --reason 'disk swap'")?;
    made.run_ok(&format!("systemctl kill -s STOP {UNIT}"))?;
    wait_for(&made, "the pause", 20, |r| held(r, "paused"))?;
    clock::pause(secs(3 * u64::from(EVERY)));
    let paused = report(&made).unwrap_or_default();
    ensure!(
        count(&paused, "restarted") == 0,
        "restarted in a pause: {paused:#}"
    );
    ensure!(
        made.run_ok("fleet-watchdog status")?.contains("disk swap"),
        "status does not say it"
    );
    made.run_ok("fleet-watchdog resume")?;
    wait_for(&made, "the restart after the pause", 30, |r| {
        count(r, "restarted") == 1
    })?;

    let fatal = GATEWAY.replace("/usr/bin/python3 -m http.server 8642", "/bin/sh -c 'exit 78'");
    let fatal = fatal.replace("RestartSec=1", "RestartSec=1\nRestartPreventExitStatus=78");
    made.write_file(&format!("/etc/systemd/system/{UNIT}"), 0o644, "root", &fatal)?;
    made.run(&format!("systemctl daemon-reload; systemctl restart {UNIT}"))?;
    wait_for(&made, "the fatal configuration", 30, |r| held(r, "fatal_config"))?;
    made.shutdown()
}

/// The state directory cannot be written: the box still reports, and restarts nothing that it could not count.
fn nowhere_to_count(lab: &Lab) -> Result<()> {
    let made = a_box(
        lab,
        "restart_after = 2\nprobe = { tcp = \"127.0.0.1:9\", timeout = \"1s\" }\nmax_restarts = 1",
    )?;
    wait_for(&made, "a report", 30, |_| true)?;
    made.run_ok("systemctl stop fleet-watchdog.timer; systemctl stop fleet-watchdog.service")?;
    // Full to the last byte, and ours.
    made.run_ok(&format!(
        "mount -t tmpfs -o size=64k,uid=$(id -u fleet-watchdog),mode=750 tmpfs {STATE} && \
         {{ head -c 1M /dev/zero >{STATE}/filler || true; }}"
    ))?;
    let pid = main_pid(&made)?;
    for _ in 0..4 {
        let done =
            made.run("systemd-run -q --pipe --wait -p User=fleet-watchdog fleet-watchdog check --json")?;
        ensure!(done.code() == 1, "{}: {}", done.code(), done.stderr);
        let report: Value = serde_json::from_str(&done.stdout)?;
        ensure!(
            count(&report, "restarted") + count(&report, "failed") == 0,
            "restarted: {report:#}"
        );
        ensure!(
            done.stderr.contains("disk is full"),
            "it is not said: {}",
            done.stderr
        );
    }
    ensure!(main_pid(&made)? == pid, "restarted after all");

    made.run_ok(&format!("rm {STATE}/filler"))?;
    made.write_file(
        &format!("{STATE}/state.json"),
        0o640,
        "fleet-watchdog:fleet-watchdog",
        "{\"version\":1,\"bo",
    )?;
    let text = made
        .run("systemd-run -q --pipe --wait -p User=fleet-watchdog fleet-watchdog check")?
        .stdout;
    ensure!(text.contains("set aside as state.json.corrupt-"), "{text}");
    made.shutdown()
}

/// The run is killed while its restart is under way: the next ones know of it, and do not restart once more.
fn killed_in_the_middle(lab: &Lab) -> Result<()> {
    let made = a_box(
        lab,
        "probe = { http = \"http://127.0.0.1:8642/\", timeout = \"1s\" }",
    )?;
    // Deaf to SIGTERM, and after `/run/hang` was made, without a sign of life once.
    let stubborn = GATEWAY.replace(
        "ExecStart=/usr/bin/python3 -m http.server 8642",
        "TimeoutStopSec=10\nExecStart=/bin/sh -c 'trap \"\" TERM; if rm /run/hang 2>/dev/null; then while :; do sleep 1; done; fi; \
         exec /usr/bin/python3 -m http.server 8642'",
    );
    made.write_file(&format!("/etc/systemd/system/{UNIT}"), 0o644, "root", &stubborn)?;
    made.run_ok(&format!("systemctl daemon-reload; systemctl restart {UNIT}"))?;
    wait_for(&made, "a healthy gateway", 40, |r| gateway(r).0 == "ok")?;
    made.run_ok(&format!("touch /run/hang; systemctl kill -s KILL {UNIT}"))?;
    let pending = || {
        let state = made.run_ok(&format!("cat {STATE}/state.json")).ok()?;
        let state: Value = serde_json::from_str(&state).ok()?;
        let stopping = made.unit(UNIT, "ActiveState").ok()? == "deactivating";
        (stopping && state["units"][UNIT]["pending"].is_object()).then_some(())
    };
    clock::wait_for("the restart to be under way", secs(40), pending)?;
    made.run_ok("systemctl kill -s KILL fleet-watchdog.service")?;
    let mended = wait_for(&made, "the next runs to see it through", 40, |r| {
        gateway(r).0 == "ok" && remedies(r).contains(&("restarted".to_owned(), "failing_in_a_row".to_owned()))
    })?;
    ensure!(count(&mended, "restarted") == 1, "{mended:#}");
    let state: Value = serde_json::from_str(&made.run_ok(&format!("cat {STATE}/state.json"))?)?;
    let attempts = state["units"][UNIT]["attempts"].as_array().map_or(0, Vec::len);
    ensure!(attempts == 1, "counted {attempts} times: {state:#}");
    made.shutdown()
}

/// A crash is told at once, whatever happened to the manager and its bus before, and after a burst of changes.
fn told_at_once(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let slow = format!("[Unit]\nStartLimitIntervalSec=0\n{GATEWAY}").replace("RestartSec=1", "RestartSec=3");
    let spec = BoxSpec::new("box-1").unit(UNIT, &slow);
    let made = checkup.boot(lab, spec, &format!("[gateway]\nunit = \"{UNIT}\"\n"))?;
    let mut worst = secs(0);
    for before in [
        "true",
        "systemctl daemon-reload",
        "systemctl daemon-reexec",
        "systemctl restart dbus.service",
        "for n in $(seq 30); do systemctl restart hermes-gateway.service; done",
    ] {
        made.run(before)?;
        made.run_ok(&format!("systemctl start {UNIT}"))?;
        let up = clock::now();
        checkup
            .called(UNIT, "active", up)
            .with_context(|| format!("after {before}"))?;
        // The bus is found again within a moment; what counts is what comes after.
        clock::wait_until("the beat's own bus", secs(20), || {
            let status = made.unit("fleet-watchdog-beat.service", "StatusText");
            status.is_ok_and(|text| !text.contains("bus"))
        })?;
        let crash = clock::now();
        made.run_ok(&format!("systemctl kill -s KILL {UNIT}"))?;
        let told = checkup
            .called(UNIT, "activating", crash)
            .with_context(|| format!("after {before}"))?;
        worst = worst.max(told);
    }
    lab.figure("crash to told, worst", format!("{:.2} s", worst.as_secs_f64()));
    ensure!(worst < secs(2), "told after {worst:?}");
    let pid = made.unit("fleet-watchdog-beat.service", "NRestarts")?;
    ensure!(pid == "0", "the resident part was restarted {pid} times");
    Ok(())
}
