//! What happened? Real boxes that go in seven ways, and what the resolved notification says when they are back.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fleet::{Fleet, GATEWAY, wait_state};
use crate::clock::{pause, secs, wait_for};
use crate::lab::{End, Lab, TestBox};
use crate::scenario::{Need, Scenario};
use crate::webhook::Arrival;

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("account::power_cut", &[Need::Root], 45, power_cut),
    Scenario::new("account::panic", &[Need::Root], 25, panic),
    Scenario::new("account::silent_partition", &[Need::Root], 40, silent_partition),
    Scenario::new("account::frozen_machine", &[Need::Root], 45, frozen_machine),
    Scenario::new("account::killed_beat", &[Need::Root], 25, killed_beat),
    Scenario::new(
        "account::gateway_out_of_memory",
        &[Need::Root],
        30,
        gateway_out_of_memory,
    ),
    Scenario::new("account::reboot_in_order", &[Need::Root], 45, reboot_in_order),
];

/// systemd must not start it anew, or there is nothing to explain.
const STAYS_DEAD: &str = "[Service]\nRestart=no\n";

/// The account in a resolved notification: of this verdict, with evidence that holds `evidence`.
fn explained(lab: &Lab, resolved: &Arrival, verdict: &str, evidence: &str) -> Result<Value> {
    lab.say(resolved.summary());
    let account = resolved.json["incident"]["details"]["account"].clone();
    lab.say(&format!("{account:#}"));
    ensure!(account["verdict"] == verdict, "not {verdict}: {account:#}");
    let lines: Vec<&str> = account["evidence"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    ensure!(
        lines.iter().any(|line| line.contains(evidence)),
        "no evidence {evidence:?} in {lines:#?}"
    );
    let summary = account["summary"].as_str().context("an account has a sentence")?;
    // The notification's own sentence is cut at a limit.
    let told = &summary[..summary.len().min(80)];
    ensure!(
        resolved.summary().contains(told),
        "the text does not say it: {}",
        resolved.summary()
    );
    lab.figure(verdict, summary);
    Ok(account)
}

/// Back → told why.
fn back(lab: &Lab, fleet: &Fleet, kind: &str, since: std::time::Instant) -> Result<Arrival> {
    let resolved = fleet.resolved(kind, secs(25))?;
    let took = resolved.at.duration_since(since);
    lab.figure(
        "back → resolved, with the account",
        format!("{:.2} s", took.as_secs_f64()),
    );
    Ok(resolved)
}

fn power_cut(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    pause(secs(2));
    fleet.made.power_cut()?;
    fleet.opened("box_dark", secs(12))?;
    pause(secs(4));
    fleet.made.boot()?;
    let resolved = back(lab, &fleet, "box_dark", crate::clock::now())?;
    let account = explained(
        lab,
        &resolved,
        "power_or_crash",
        "the old boot's journal ends with",
    )?;
    let off = seconds(&account)?;
    ensure!((8.0..40.0).contains(&off), "silent for {off} s");
    fleet.wait_live()?;
    fleet.hook.clear();
    pause(secs(2));

    // Again, and the journal does not answer: no beat waits for it, and the end of the incident not for long.
    // (systemd itself calls journalctl as it boots, and is answered.)
    let hangs =
        "#!/bin/sh\ncase \"$*\" in *_BOOT_ID=*) exec sleep 1000;; esac\nexec /usr/bin/journalctl \"$@\"\n";
    fleet
        .made
        .write_file("/usr/local/bin/journalctl", 0o755, "root", hangs)?;
    fleet.made.power_cut()?;
    fleet.opened("box_dark", secs(12))?;
    fleet.made.boot()?;
    let booted = crate::clock::now();
    let live = fleet.wait_live()?;
    ensure!(live < secs(3), "the first beat waited: {live:?}");
    let resolved = back(lab, &fleet, "box_dark", booted)?;
    ensure!(resolved.at - booted < secs(10), "{:?}", resolved.at - booted);
    explained(lab, &resolved, "power_or_crash", "it was not read within 6s").map(drop)
}

/// Everything dies at one blow, and the firmware kept the kernel's last words.
fn panic(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    pause(secs(2));
    kill_the_machine(&fleet.made)?;
    fleet.opened("box_dark", secs(12))?;
    let words = "Panic#1 Part1\n<0>[   93.1] Kernel panic - not syncing: Fatal exception in interrupt\n";
    fleet
        .made
        .write_file("/var/lib/systemd/pstore/1/dmesg.txt", 0o644, "root", words)?;
    fleet.made.boot()?;
    let resolved = back(lab, &fleet, "box_dark", crate::clock::now())?;
    explained(
        lab,
        &resolved,
        "power_or_crash",
        "Kernel panic - not syncing: Fatal exception in interrupt",
    )
    .map(drop)
}

fn silent_partition(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    fleet.made.partition()?;
    fleet.opened("box_dark", secs(12))?;
    pause(secs(16));
    let healed = fleet.made.heal()?;
    let resolved = back(lab, &fleet, "box_dark", healed)?;
    let account = explained(lab, &resolved, "network_path", "pressure")?;
    let attempts = account["attempts"].as_array().context("no attempts")?;
    let connect = attempts
        .iter()
        .find(|attempt| attempt["step"] == "connect")
        .context("no connect")?;
    assert_eq!(connect["family"], "ipv4");
    assert_eq!(
        connect["address"],
        fleet.server.url().trim_start_matches("http://")
    );
    ensure!(
        account["summary"]
            .as_str()
            .is_some_and(|text| text.ends_with("it was alive all the while"))
    );
    // The same silence as both sides see it.
    let (its, ours) = (seconds(&account)?, resolved.summary());
    ensure!(
        (18.0..32.0).contains(&its),
        "{its} s by its own count; we: {ours}"
    );
    Ok(())
}

/// Once for less than systemd's own watchdog takes, once for longer: then systemd, thawed, finds the beat dead.
fn frozen_machine(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    for freeze in [7, 14] {
        fleet.made.freeze()?;
        pause(secs(freeze));
        fleet.opened("box_dark", secs(12))?;
        let thawed = fleet.made.thaw()?;
        let resolved = back(lab, &fleet, "box_dark", thawed)?;
        explained(lab, &resolved, "machine_hung", "").with_context(|| format!("frozen for {freeze} s"))?;
        fleet.wait_live()?;
        fleet.hook.clear();
        pause(secs(2));
    }
    Ok(())
}

fn killed_beat(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| {
        setup.drop_in("fleet-watchdog-beat.service", STAYS_DEAD)
    })?;
    fleet
        .made
        .run_ok("systemctl kill --signal=KILL fleet-watchdog-beat")?;
    fleet.opened("box_dark", secs(12))?;
    pause(secs(3));
    let started = crate::clock::now();
    fleet.made.run_ok("systemctl start fleet-watchdog-beat")?;
    let resolved = back(lab, &fleet, "box_dark", started)?;
    explained(lab, &resolved, "watchdog_only", "signal, killed, status KILL").map(drop)
}

/// A gateway that eats all the memory that it is allowed, on command.
const EATER: &str = "[Service]\nMemoryMax=64M\nMemorySwapMax=0\n\
    ExecStart=/bin/sh -c 'while ! test -e /run/eat; do sleep 0.1; done; rm /run/eat; \
    exec python3 -c \"x = [bytearray(1 << 20) for _ in range(4096)]\"'\n";

fn gateway_out_of_memory(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(
        lab,
        0,
        "[gateway]\nunit = \"hermes-gateway.service\"\n",
        |setup| setup,
    )?;
    let made = &fleet.made;
    made.write_file("/etc/systemd/system/hermes-gateway.service", 0o644, "root", EATER)?;
    made.run_ok("systemctl daemon-reload; systemctl restart hermes-gateway")?;
    pause(secs(2));
    fleet.hook.clear();
    let bound = bind_by_first_version(made)?;
    lab.say(if bound {
        "memory is bound by the first version of cgroups"
    } else {
        "memory is bound by systemd"
    });
    made.run_ok("touch /run/eat")?;
    let opened = fleet.opened("gateway", secs(20)).inspect_err(|_| {
        if let Ok(known) = super::fleet::detail(&fleet.server, "box-1") {
            lab.say(&format!("{known:#}"));
        }
    })?;
    lab.say(opened.summary());
    ensure!(opened.summary().contains("oom"), "{}", opened.summary());
    let result = made.unit("hermes-gateway.service", "Result")?;
    ensure!(
        result == if bound { "signal" } else { "oom-kill" },
        "Result={result}"
    );
    made.write_file(
        "/etc/systemd/system/hermes-gateway.service",
        0o644,
        "root",
        GATEWAY,
    )?;
    made.run_ok("systemctl daemon-reload; systemctl start hermes-gateway")?;
    let resolved = fleet.resolved("gateway", secs(30))?;
    lab.say(resolved.summary());
    let oom = resolved.json["incident"]["details"]["oom"]
        .as_str()
        .context("no evidence")?
        .to_owned();
    lab.figure("oom", &oom);
    ensure!(oom.contains(&format!("Result={result}")), "{oom}");
    ensure!(
        resolved.summary().contains("killed for lack of memory (oom)"),
        "{}",
        resolved.summary()
    );
    Ok(())
}

/// Where memory belongs to the first version of cgroups, systemd in a box cannot bind it, and is not told of a kill: the
/// gateway's process is put into a group of the machine's.
fn bind_by_first_version(made: &TestBox) -> Result<bool> {
    let root = Path::new("/sys/fs/cgroup/memory");
    if !root.join("memory.limit_in_bytes").exists() {
        return Ok(false);
    }
    let group = root.join(format!("fleet-tests-oom-{}", std::process::id()));
    std::fs::create_dir_all(&group)?;
    std::fs::write(group.join("memory.limit_in_bytes"), "67108864")?;
    // Without swap accounting there is no such file, and without swap no need of it.
    let _ = std::fs::write(group.join("memory.memsw.limit_in_bytes"), "67108864");
    let inside: u32 = made.unit("hermes-gateway.service", "MainPID")?.trim().parse()?;
    let pid = outside(inside).with_context(|| format!("process {inside} of the box is not found"))?;
    std::fs::write(group.join("cgroup.procs"), pid.to_string())?;
    Ok(true)
}

/// The number, here, of the process that is `inside` in its own PID namespace (and the only such one).
fn outside(inside: u32) -> Option<u32> {
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        let numbers: Vec<u32> = numbers
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect();
        (numbers.len() > 1 && numbers.last() == Some(&inside)).then_some(pid)
    })
}

/// One that the server knew of and that took too long; and one that nobody could be told of.
fn reboot_in_order(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "[heartbeat]\nback_within = \"10s\"\n", |setup| setup)?;
    fleet.made.begin("reboot")?;
    wait_state(&fleet.server, "box-1", "away", secs(10))?;
    fleet.made.wait_end(secs(60))?;
    fleet.opened("planned_overdue", secs(30))?;
    fleet.made.boot()?;
    let resolved = back(lab, &fleet, "planned_overdue", crate::clock::now())?;
    explained(lab, &resolved, "reboot", "journal: ")?;
    fleet.wait_live()?;
    fleet.hook.clear();
    pause(secs(2));

    fleet.made.partition()?;
    fleet.opened("box_dark", secs(12))?;
    fleet.made.begin("reboot")?;
    ensure!(fleet.made.wait_end(secs(60))? == End::Reboot);
    fleet.made.boot()?;
    let resolved = back(lab, &fleet, "box_dark", crate::clock::now())?;
    let account = explained(lab, &resolved, "reboot", "beats had failed before that")?;
    ensure!(!account["attempts"].as_array().context("no attempts")?.is_empty());
    Ok(())
}

fn seconds(account: &Value) -> Result<f64> {
    let at = |name: &str| -> Result<f64> {
        let text = account[name]
            .as_str()
            .with_context(|| format!("an account has {name}"))?;
        let at: jiff::Timestamp = text.parse()?;
        Ok(at.as_millisecond() as f64 / 1000.0)
    };
    Ok(at("to")? - at("from")?)
}

/// SIGKILL to its first process: the kernel ends all others with it, and closes their connections.
fn kill_the_machine(made: &TestBox) -> Result<()> {
    let root = made.root()?;
    let leader = root
        .iter()
        .nth(2)
        .and_then(|pid| pid.to_str())
        .context("no first process")?;
    crate::exec::ok("kill", &["-KILL", leader])?;
    wait_for("the machine to be gone", secs(20), || {
        (!Path::new("/proc").join(leader).exists()).then_some(())
    })?;
    made.wait_end(secs(20)).map(drop)
}
