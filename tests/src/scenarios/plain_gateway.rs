//! Gateways that are plain units, of the system's manager or a user's: stopped, killed, ended; and what the server makes
//! of one that hangs. (Giving up is shown in `remedies`.)

use anyhow::{Result, ensure};

use super::fleet::Fleet;
use super::gateway::{OTHERS_OFF, config, span};
use crate::clock::{self, secs};
use crate::genuine::hermes::{HEALTH, UNIT};
use crate::lab::{BoxSpec, Lab};
use crate::reports::{RUN, Reported, by_hand, run_now, wait_report};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("plain_gateway::plain_unit", &[Need::Root], 60, plain_unit),
    Scenario::new("plain_gateway::incident_and_its_end", &[Need::Root], 40, incident),
    Scenario::new("plain_gateway::users_manager", &[Need::Root], 20, users_manager),
];

const PLAIN: &str = "[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/bin/python3 -m http.server 8642\n\
    [Install]\nWantedBy=multi-user.target\n";

/// SIGSTOP, SIGKILL and a clean exit of a unit that systemd itself would never restart.
fn plain_unit(lab: &Lab) -> Result<()> {
    let setup = by_hand(&config(
        "startup_grace = \"1s\"\nmax_restarts = 10\nrestart_window = \"5s\"\n",
    ));
    let spec = BoxSpec::new("box-1").unit(UNIT, PLAIN);
    let made = lab.boot(spec.watchdog(setup))?;
    for (signal, wanted) in [
        ("STOP", "failing process_stopped"),
        ("KILL", "failing unit_failed"),
    ] {
        clock::wait_until("the gateway to be fine", secs(30), || {
            run_now(&made).is_ok_and(|report| report.gateway() == "ok fine")
        })?;
        let before = made.unit(UNIT, "InvocationID")?;
        made.run_ok(&format!("systemctl kill -s {signal} {UNIT}"))?;
        for n in 1..=3 {
            ensure!(
                made.unit(UNIT, "InvocationID")? == before,
                "{signal}: restarted before run {n}"
            );
            let report = run_now(&made)?;
            lab.say(&format!(
                "{signal} {n}: {} | {}",
                report.gateway(),
                report.remedy()
            ));
            ensure!(
                n == 3 || report.gateway() == wanted,
                "{signal}: {}",
                report.json()
            );
        }
        ensure!(
            made.unit(UNIT, "InvocationID")? != before,
            "{signal}: not restarted by the third run"
        );
        assert_eq!(made.unit(UNIT, "ActiveState")?, "active");
        clock::pause(secs(6));
    }
    // A process that ends by itself, well or not, was stopped by nobody.
    made.run_ok(&format!(
        "mkdir -p /run/systemd/system/{UNIT}.d; printf '[Service]\\nExecStart=\\nExecStart=/bin/sleep 1\\n' \
         >/run/systemd/system/{UNIT}.d/short.conf; systemctl daemon-reload; systemctl restart {UNIT}; sleep 1.5"
    ))?;
    let report = run_now(&made)?;
    ensure!(report.gateway() == "failing inactive", "{}", report.json());
    Ok(())
}

/// What the server makes of it: one page that says what hangs, which ends by itself after the restart.
fn incident(lab: &Lab) -> Result<()> {
    let gateway = format!("startup_grace = \"3s\"\nprobe = {{ http = {HEALTH:?}, timeout = \"1s\" }}\n");
    let fleet = Fleet::start(lab, 0, &config(&gateway), |setup| {
        setup
            .check_every(3)
            .drop_in(RUN, "[Unit]\nStartLimitIntervalSec=0\n")
    })?;
    let made = &fleet.made;
    // Any page of this plain server will do as its health.
    made.run_ok("mkdir -p /run/www && : >/run/www/health")?;
    made.run_ok(&format!(
        "mkdir -p /run/systemd/system/{UNIT}.d; printf '[Service]\\nWorkingDirectory=/run/www\\n' \
         >/run/systemd/system/{UNIT}.d/www.conf; systemctl daemon-reload; systemctl restart {UNIT}"
    ))?;
    wait_report(made, "fine", secs(30), |_| {}, |r| r.gateway() == "ok fine")?;
    clock::pause(secs(4));
    fleet.hook.clear();
    let start = clock::now();
    made.run_ok(&format!("systemctl kill -s STOP {UNIT}"))?;
    let opened = fleet.opened("gateway", secs(30))?;
    lab.figure("hung → page", span(opened.at - start));
    lab.say(&opened.body);
    assert_eq!(opened.json["incident"]["severity"], "page");
    ensure!(opened.summary().contains(UNIT), "{}", opened.summary());
    let resolved = fleet.resolved("gateway", secs(60))?;
    lab.figure("hung → resolved", span(resolved.at - start));
    lab.say(&resolved.body);
    assert_eq!(opened.json["incident"]["id"], resolved.json["incident"]["id"]);
    let again = fleet
        .hook
        .arrivals()
        .iter()
        .filter(|arrival| arrival.is("opened", "gateway", "box-1"))
        .count();
    assert_eq!(again, 1, "one thing, one page");
    Ok(())
}

/// A unit of a user's own manager: found and mended as that user, and nobody else gets in, not even root.
fn users_manager(lab: &Lab) -> Result<()> {
    let config = format!(
        "state_dir = \"/home/alice/state\"\n[gateway]\nunit = \"bot.service\"\nscope = \"user:alice\"\n\
         startup_grace = \"1s\"\n{OTHERS_OFF}"
    );
    let unit = "[Service]\nExecStart=/bin/sleep infinity\n";
    let spec = BoxSpec::new("box-1")
        .user("alice", 1100)
        .file("/var/lib/systemd/linger/alice", 0o644, "root", "")
        .file(
            "/home/alice/.config/systemd/user/bot.service",
            0o644,
            "alice",
            unit,
        )
        .file("/home/alice/watchdog.toml", 0o644, "alice", &config)
        .watchdog(by_hand("[gateway]\nenabled = false\n"));
    let made = lab.boot(spec)?;
    let check = "fleet-watchdog --config /home/alice/watchdog.toml check --json";
    let bus = "XDG_RUNTIME_DIR=/run/user/1100 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/1100/bus";
    let systemctl = |words: &str| {
        made.run_as("alice", &format!("{bus} systemctl --user {words}"))?
            .ok()
    };
    made.wait_until("test -S /run/user/1100/bus", secs(20))?;
    made.run_ok("chown -R alice: /home/alice")?;
    systemctl("start bot")?;
    let run = || -> Result<Reported> { Reported::parse(&made.run_as("alice", check)?.stdout) };
    clock::wait_until("the gateway to be fine", secs(20), || {
        run().is_ok_and(|report| report.gateway() == "ok fine")
    })?;
    let before = systemctl("show -P InvocationID bot")?;
    systemctl("kill -s STOP bot")?;
    for _ in 0..2 {
        assert_eq!(run()?.gateway(), "failing process_stopped");
        assert_eq!(systemctl("show -P InvocationID bot")?, before);
    }
    let mended = run()?;
    lab.say(&format!("{} | {}", mended.gateway(), mended.remedy()));
    ensure!(
        systemctl("show -P InvocationID bot")? != before,
        "not restarted: {}",
        mended.json()
    );
    systemctl("stop bot")?;
    assert_eq!(run()?.gateway(), "warning operator_stopped");

    let by_root = Reported::parse(&made.run(&format!("{check} --no-act"))?.stdout)?;
    lab.say(&format!("as root: {}", by_root.check("gateway")));
    ensure!(by_root.gateway() == "unknown not_permitted", "{}", by_root.json());
    Ok(())
}
