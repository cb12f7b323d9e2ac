//! A gateway that somebody stopped, masked, fenced or paused is left alone, and the report says why.

use anyhow::{Context, Result, ensure};

use super::hermes_box;
use crate::clock::{self, secs};
use crate::genuine::hermes::{self, UNIT};
use crate::lab::{Lab, TestBox, must_be_refused};
use crate::reports::{Reported, by_hand, run_now};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "holds::what_an_operator_did",
        &[Need::Root, Need::Hermes],
        120,
        operator,
    ),
    Scenario::new("holds::every_fence", &[Need::Root, Need::Hermes], 120, fences),
];

const CONFIG: &str = "[gateway]\nunit = \"hermes-gateway.service\"\npreset = \"hermes\"\nstartup_grace = \"1s\"\n\
    [disk]\nenabled = false\n[backup]\nenabled = false\n[tailscale]\nenabled = false\n";

/// More runs in a row than a restart takes.
const RUNS: usize = 5;

/// Runs the checks several times; the gateway must not be started by it. The last report.
fn left_alone(lab: &Lab, made: &TestBox, what: &str) -> Result<Reported> {
    let start = || made.unit(UNIT, "InvocationID");
    let before = start()?;
    let mut last = None;
    for _ in 0..RUNS {
        last = Some(run_now(made)?);
    }
    let last = last.context("no run")?;
    lab.say(&format!(
        "{what}: {} | {} | {}",
        last.gateway(),
        last.remedy(),
        last.check("gateway")["summary"]
    ));
    ensure!(start()? == before, "{what}: it was restarted");
    Ok(last)
}

fn expect(report: &Reported, what: &str, gateway: &str, remedy: &str) -> Result<()> {
    ensure!(
        report.gateway() == gateway && report.remedy() == remedy,
        "{what}: wanted {gateway:?} and {remedy:?}: {}",
        report.json()
    );
    Ok(())
}

/// Starts it again by hand and waits until it is fine, so that nothing of the last case is left.
fn back_to_health(made: &TestBox) -> Result<()> {
    // Hermes counts its starts there and waits longer and longer (to a minute) after many at once: it is not asked here.
    made.run_within(
        &format!(
            "rm -f {}/gateway-starts.log; systemctl restart {UNIT}",
            hermes::HOME
        ),
        secs(100),
    )?
    .ok()?;
    hermes::wait_healthy(made)?;
    clock::wait_until("the gateway to be fine", secs(30), || {
        run_now(made).is_ok_and(|report| report.gateway() == "ok fine")
    })
    .map(drop)
}

fn operator(lab: &Lab) -> Result<()> {
    let made = hermes_box(lab, "box-1", &by_hand(CONFIG), |spec| spec)?;
    back_to_health(&made)?;
    let stopped = ("warning operator_stopped", "held_back operator_stopped");

    // The genuine unit ends as `failed`, status 1, both times; on a crowded machine the signal may come before it
    // listens, and then it ends well.
    clock::pause(secs(5));
    made.run_within(&format!("systemctl stop {UNIT}"), secs(100))?;
    lab.say(&format!("after the stop: {}", made.unit(UNIT, "ActiveState")?));
    expect(
        &left_alone(lab, &made, "systemctl stop")?,
        "stop",
        stopped.0,
        stopped.1,
    )?;
    back_to_health(&made)?;
    hermes::admin_command(&made, "gateway stop --system")?.ok()?;
    expect(
        &left_alone(lab, &made, "hermes gateway stop")?,
        "hermes stop",
        stopped.0,
        stopped.1,
    )?;
    back_to_health(&made)?;

    // Nor without the resident part, which sees stop jobs.
    made.run_ok("systemctl stop fleet-watchdog-beat; rm -f /var/lib/fleet-watchdog/stops.json")?;
    made.run_within(&format!("systemctl stop {UNIT}"), secs(100))?;
    expect(
        &left_alone(lab, &made, "stop without beat")?,
        "unseen stop",
        stopped.0,
        stopped.1,
    )?;

    // Its unit lies in /etc, where a mask cannot stand beside it.
    made.run_ok(&format!(
        "mv /etc/systemd/system/{UNIT} /usr/lib/systemd/system/ && systemctl daemon-reload && systemctl mask {UNIT}"
    ))?;
    expect(
        &left_alone(lab, &made, "masked")?,
        "mask",
        "warning unit_masked",
        "held_back unit_masked",
    )?;
    made.run_ok(&format!("systemctl unmask {UNIT}"))?;
    back_to_health(&made)?;

    made.run_ok(&format!(
        "systemctl kill -s STOP {UNIT} && fleet-watchdog pause --for 30m --reason 'a look at it'"
    ))?;
    expect(
        &left_alone(lab, &made, "paused")?,
        "pause",
        "failing process_stopped",
        "held_back paused",
    )?;
    made.run_ok("fleet-watchdog resume")?;
    back_to_health(&made)?;

    let fatal = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'exit 78'\n";
    made.write_file(
        &format!("/etc/systemd/system/{UNIT}.d/fatal.conf"),
        0o644,
        "root",
        fatal,
    )?;
    made.run(&format!("systemctl daemon-reload; systemctl restart {UNIT}"))?;
    made.wait_until(&format!("systemctl is-failed {UNIT}"), secs(10))?;
    expect(
        &left_alone(lab, &made, "exit code 78")?,
        "fatal",
        "failing fatal_config",
        "held_back fatal_config",
    )?;

    let user = "fleet-watchdog";
    made.run_as(user, &format!("systemctl --no-ask-password reset-failed {UNIT}"))?
        .ok()?;
    made.run_as(user, &format!("systemctl --no-ask-password restart {UNIT}"))?
        .ok()?;
    for other in [
        "restart dbus",
        &format!("stop {UNIT}"),
        "restart fleet-watchdog-beat",
    ] {
        must_be_refused(&made.run_as(user, &format!("systemctl --no-ask-password {other}"))?)?;
    }
    Ok(())
}

fn fences(lab: &Lab) -> Result<()> {
    let made = hermes_box(lab, "box-1", &by_hand(CONFIG), |spec| spec)?;
    let home = hermes::HOME;
    let in_home = |name: &str| format!("{home}/{name}");
    let marker =
        |now: &str, pid: &str| format!(r#"{{"target_pid":{pid},"written_at":"{now}","stopper_pid":1}}"#);
    // Its file, what stands in it, and its name in the report.
    type Fence<'a> = (&'a str, &'a dyn Fn(&str, &str) -> String, &'a str);
    let epoch = |_: &str, _: &str| {
        let now = made.run_ok("date +%s").unwrap_or_default();
        format!("1\n{now}\n")
    };
    let all: [Fence<'_>; 6] = [
        (".hermes-update-in-progress", &epoch, "fence_update"),
        (
            "hermes-agent/.update-incomplete",
            &|_, _| "pid=1\n".to_owned(),
            "fence_update_incomplete",
        ),
        (
            "fleet_restart_pending",
            &|_, _| "pid=1\n".to_owned(),
            "fence_restart_pending",
        ),
        (".gateway-planned-stop.json", &marker, "fence_planned_stop"),
        (".gateway-takeover.json", &marker, "fence_takeover"),
        (
            ".drain_request.json",
            &|now, _| format!(r#"{{"action":"drain","requested_at":"{now}"}}"#),
            "fence_drain",
        ),
    ];
    for (name, text, why) in all {
        back_to_health(&made)?;
        made.run_ok(&format!("systemctl kill -s STOP {UNIT}"))?;
        let now = made.run_ok("date -u +%Y-%m-%dT%H:%M:%S+00:00")?;
        let text = text(&now, &made.unit(UNIT, "MainPID")?);
        made.write_file(&in_home(name), 0o600, hermes::USER, text)?;
        let report = left_alone(lab, &made, name)?;
        expect(
            &report,
            name,
            "failing process_stopped",
            &format!("held_back {why}"),
        )?;
        made.run_ok(&format!("rm {}", in_home(name)))?;
    }
    back_to_health(&made)?;
    made.run_ok(&format!("systemctl kill -s STOP {UNIT}"))?;
    let lock = in_home(".backup.lock");
    made.spawn("backup", &format!("flock -x {lock} sleep 600"))?;
    made.wait_until(&format!("! flock -n {lock} true"), secs(5))?;
    let report = left_alone(lab, &made, "a lock that is held")?;
    expect(
        &report,
        "lock",
        "failing process_stopped",
        "held_back fence_backup",
    )?;
    // Given up, the lock file stays and is no fence: three runs later it is mended.
    made.run_ok("systemctl stop backup")?;
    let before = made.unit(UNIT, "InvocationID")?;
    for n in 1..=3 {
        ensure!(
            made.unit(UNIT, "InvocationID")? == before,
            "restarted before run {n}"
        );
        run_now(&made)?;
    }
    ensure!(
        made.unit(UNIT, "InvocationID")? != before,
        "not restarted by the third run: {}",
        Reported::newest(&made)?.json()
    );
    Ok(())
}
