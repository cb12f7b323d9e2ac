//! What the watchdog costs a box, measured on a real one with release builds: `./dev bench`.
//!
//! It measures and asserts nothing about speed; the table goes into the README by hand, with the machine named.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock::{pause, secs};
use crate::lab::{BoxSpec, HOST, Lab, TestBox, WatchdogSetup};
use crate::programs;
use crate::scenario::{Need, Scenario};
use crate::scenarios::fleet::GATEWAY;
use crate::server::FleetServer;

/// The measurements.
pub const ALL: &[Scenario] = &[Scenario::new("bench::watchdog", &[Need::Root], 120, watchdog).alone()];

/// Beats over which CPU is measured: enough for a millisecond's error to vanish.
const BEATS: u64 = 60;
/// Runs of a one-shot over which wall time is measured.
const RUNS: u32 = 50;

/// What a careful operator's cron job would do: the unit, the disk, the backup, Tailscale's state. It keeps no counters,
/// knows no hung gateway and tells nobody.
const SCRIPT: &str = r#"#!/bin/bash
state=$(busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1/unit/hermes_2dgateway_2eservice org.freedesktop.systemd1.Unit ActiveState)
[[ $state == *'"active"'* ]] || echo "gateway: $state"
curl -fsS -m 5 -o /dev/null http://127.0.0.1:8642/ || echo "gateway: no answer"
read -r pcent ipcent < <(df --output=pcent,ipcent / | tail -1)
[[ ${pcent%\%} -lt 90 && ${ipcent%\%} -lt 90 ]] || echo "disk: $pcent $ipcent"
newest=$(find /var/backups -maxdepth 1 -name 'fleet-*' -printf '%T@\n' | sort -n | tail -1)
(( $(date +%s) - ${newest%.*} < 180000 )) || echo "backup: old"
[[ ! -S /run/tailscale/tailscaled.sock ]] || curl -fsS -m 5 --unix-socket /run/tailscale/tailscaled.sock http://local-tailscaled.sock/localapi/v0/status | grep -q '"BackendState": *"Running"' || echo "tailscale: down"
"#;

const CONFIG: &str = r#"
[gateway]
unit = "hermes-gateway.service"
probe = { http = "http://127.0.0.1:8642/" }
[disk]
mounts = ["/"]
[backup]
newest = "/var/backups/fleet-*"
[tailscale]
enabled = false
"#;

fn watchdog(lab: &Lab) -> Result<()> {
    let (cert, key) = certificate(lab)?;
    let tls = format!("[tls]\ncert_file = {cert:?}\nkey_file = {key:?}\n");
    let server = FleetServer::start(lab, "")?;
    let token = server.add_box("box-1")?;
    server.stop()?;
    server.configure(&tls)?;
    server.start_listening()?;
    let url = server.url().replace("http://", "https://");
    let config = format!("[server]\nurls = [{url:?}]\nca_file = \"/etc/fleet-watchdog/ca.pem\"\n{CONFIG}");
    let made = lab.boot(
        BoxSpec::new("box-1")
            .unit("hermes-gateway.service", GATEWAY)
            .file("/etc/fleet-watchdog/ca.pem", 0o644, "root", std::fs::read(&cert)?)
            .file("/var/backups/fleet-1.tar", 0o644, "root", "x")
            .file("/usr/local/bin/checks.sh", 0o755, "root", SCRIPT)
            .watchdog(WatchdogSetup::new(config, token)),
    )?;
    made.wait_until(
        "journalctl -q -u fleet-watchdog-beat | grep -q . && ss -tnp | grep -q fleet-watchdog",
        secs(20),
    )?;
    resident(lab, &made)?;
    one_shot(lab, &made)?;
    let bytes = std::fs::metadata(programs::path("fleet-watchdog")?)?.len();
    lab.figure("binary", format!("{:.2} MiB", bytes as f64 / 1_048_576.0));
    Ok(())
}

fn resident(lab: &Lab, made: &TestBox) -> Result<()> {
    let pid = made.unit("fleet-watchdog-beat.service", "MainPID")?;
    pause(secs(10));
    let cpu = || -> Result<u64> {
        let schedstat = made.run_ok(&format!("cat /proc/{pid}/schedstat"))?;
        Ok(schedstat
            .split(' ')
            .next()
            .context("schedstat has a first field")?
            .parse()?)
    };
    let before = cpu()?;
    pause(Duration::from_secs(BEATS));
    let micros = (cpu()? - before) as f64 / 1e3;
    lab.figure(
        "beat: CPU",
        format!(
            "{:.0} µs a beat ({:.3} % of one core)",
            micros / BEATS as f64,
            micros / BEATS as f64 / 1e4
        ),
    );
    for (name, file, field) in [
        ("beat: resident", "status", "VmRSS"),
        ("beat: proportional", "smaps_rollup", "Pss"),
        ("beat: threads", "status", "Threads"),
    ] {
        let line = made.run_ok(&format!("grep '^{field}:' /proc/{pid}/{file}"))?;
        lab.figure(
            name,
            line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "),
        );
    }
    Ok(())
}

fn one_shot(lab: &Lab, made: &TestBox) -> Result<()> {
    let check = "STATE_DIRECTORY=/run/bench fleet-watchdog check --no-act";
    made.run_ok("mkdir -p /run/bench")?;
    for (name, line) in [
        ("one check", check),
        ("the same in bash", "/usr/local/bin/checks.sh"),
    ] {
        let timed = format!(
            "{line} >/dev/null; s=$(date +%s%N); for _ in $(seq {RUNS}); do {line} >/dev/null; done; e=$(date +%s%N); echo $(( (e-s)/{RUNS}/1000 ))"
        );
        let micros: f64 = made.run_within(&timed, secs(120))?.ok()?.trim().parse()?;
        lab.figure(name, format!("{:.1} ms wall", micros / 1e3));
    }
    Ok(())
}

/// A certificate for the lab's host, good for this run.
fn certificate(lab: &Lab) -> Result<(String, String)> {
    let dir = lab.host_dir("tls")?;
    let path = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let subject = format!("subjectAltName=IP:{HOST}");
    let args = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=fleet",
        "-addext",
        &subject,
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-keyout",
        &key,
        "-out",
        &cert,
    ];
    crate::exec::run(std::process::Command::new("openssl").args(args))?.ok()?;
    Ok((cert, key))
}
