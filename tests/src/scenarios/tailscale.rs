//! The Tailscale check on a real box with a genuine tailscaled: each row of what it answers, told right.

use anyhow::{Context, Result};

use crate::checkup::{Checkup, Row as Answer};
use crate::clock::{self, secs};
use crate::genuine::tailscale::boxed::SOCKET;
use crate::genuine::tailscale::rows::{ROWS, Rig, Row};
use crate::lab::{BoxSpec, Lab, TestBox};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "tailscale::every_row_of_the_genuine_one",
        &[Need::Root, Need::Tailscale],
        70,
        every_row,
    ),
    Scenario::new(
        "tailscale::absent_and_odd_sockets",
        &[Need::Root],
        25,
        absent_and_odd_sockets,
    ),
];

const TABLE: &str = "[tailscale]\n";

/// What the check must say of each state.
const SAYS: &[(&str, &str, &str)] = &[
    ("working", "ok", "fine"),
    ("control_dead", "warning", "control_unreachable"),
    ("control_hung", "ok", "fine"),
    ("network_down", "failing", "network_down"),
    ("relay_dead", "warning", "relay_unreachable"),
    ("never_logged_in", "failing", "logged_out"),
    ("logged_out", "failing", "logged_out"),
    ("key_expired_told", "failing", "key_expired"),
    ("key_date_passed_untold", "failing", "key_expired"),
    ("key_expires_in_10_days", "warning", "key_expiring"),
    ("key_expires_in_1_day", "failing", "key_expiring"),
    ("not_approved", "failing", "needs_approval"),
    ("switched_off", "failing", "switched_off"),
    ("bad_key", "failing", "logged_out"),
    ("started_without_control", "warning", "starting"),
    ("daemon_terminated", "failing", "daemon_down"),
    ("daemon_killed", "failing", "daemon_down"),
    ("daemon_hung", "failing", "daemon_hung"),
];

fn every_row(lab: &Lab) -> Result<()> {
    assert_eq!(ROWS.len(), SAYS.len(), "a row without an answer");
    let checkup = Checkup::start()?;
    let mut rig = Rig::new(
        lab,
        &resource(Need::Tailscale)?,
        checkup.on(BoxSpec::new("box-1"), TABLE),
    )?;
    for (name, status, why) in SAYS {
        Row::named(name)?.bring(&mut rig)?;
        // With the cable out no beat arrives, and that is not the check's doing.
        let beats_arrive = *name != "network_down";
        if beats_arrive {
            checkup.wait_for_beats()?;
        }
        let start = clock::now();
        // tailscaled may still change its mind for a moment (a refused login does).
        let mut last = None;
        let right = clock::wait_until(name, secs(15), || {
            let row = checkup.run(rig.made()).and_then(|run| run.row("tailscale"));
            let right = row.as_ref().is_ok_and(|row| row.must_be(status, why).is_ok());
            last = Some(row);
            right
        });
        let row = last.context("it was asked")?;
        lab.say(&format!(
            "{name}: {}",
            row.as_ref()
                .map_or_else(|e| format!("{e:#}"), |r| r.summary().to_owned())
        ));
        right.with_context(|| format!("{name}: expected {status} ({why}), last {row:?}"))?;
        if beats_arrive {
            checkup.beats_went_on(start).with_context(|| (*name).to_owned())?;
        }
    }
    what_lasts_fails(&checkup, &mut rig)
}

/// A control plane out of reach is a warning, and failing once it has been so for long: told by what the run before kept.
fn what_lasts_fails(checkup: &Checkup, rig: &mut Rig<'_>) -> Result<()> {
    Row::named("control_dead")?.bring(rig)?;
    checkup.expect(rig.made(), "tailscale", "warning", "control_unreachable")?;
    rig.made().run_ok(
        "cd /var/lib/fleet-watchdog && python3 - <<'E'\n\
         import json\n\
         s = json.load(open('state.json'))\n\
         assert 'control_lost' in s['histories']['tailscale'], s\n\
         s['histories']['tailscale']['control_lost'] = '2026-01-01T00:00:00Z'\n\
         json.dump(s, open('state.json', 'w'))\n\
         E",
    )?;
    checkup
        .expect(rig.made(), "tailscale", "failing", "control_unreachable")
        .map(drop)
}

/// A socket that takes connections and does `WHAT` with them.
const SERVER: &str = r#"
import os, socket, sys, time
what, path = sys.argv[1], "/run/tailscale/tailscaled.sock"
os.makedirs("/run/tailscale", exist_ok=True)
if os.path.exists(path): os.unlink(path)
s = socket.socket(socket.AF_UNIX); s.bind(path); os.chmod(path, 0o666); s.listen(5)
held = []
while True:
    c, _ = s.accept()
    if what == "silent": held.append(c); continue
    c.recv(4096)
    if what == "garbage": c.sendall(b"\0\1\2" * 1000)
    if what == "huge":
        try:
            c.sendall(b"HTTP/1.0 200 OK\r\n\r\n{\"x\":\"")
            for n in range(64): c.sendall(b"y" * 1000000)
        except OSError: pass
    if what == "drip":
        held.append(c); c.sendall(b"HTTP/1.0 200 OK\r\n\r\n{"); continue
    c.close()
"#;

fn absent_and_odd_sockets(lab: &Lab) -> Result<()> {
    let checkup = Checkup::start()?;
    let spec = BoxSpec::new("box-1").file("/usr/local/lib/odd.py", 0o644, "root", SERVER);
    let made = checkup.boot(lab, spec, TABLE)?;
    // The machine under the box may have one of its own; what stays behind when it is removed is no installation.
    made.run_ok("rm -f $(find /usr /etc/systemd -name 'tailscaled*' -not -path '*/doc/*'); mkdir -p /var/lib/tailscale")?;
    let start = clock::now();
    let expect = |status: &str, why: &str| checkup.expect(&made, "tailscale", status, why);
    expect("unknown", "not_installed")?.must_say("enabled = false")?;
    checkup.configure(&made, "")?;
    expect("ok", "disabled")?;
    checkup.configure(&made, "# no [tailscale] table\n")?;
    expect("unknown", "not_configured")?.must_say("enabled = false")?;

    checkup.configure(&made, TABLE)?;
    for (what, status, why) in [
        ("silent", "failing", "daemon_hung"),
        ("drip", "failing", "daemon_hung"),
        ("garbage", "unknown", "check_error"),
        ("huge", "unknown", "check_error"),
        ("close", "unknown", "check_error"),
    ] {
        let row = with_odd_server(&made, what, || expect(status, why)).with_context(|| what.to_owned())?;
        lab.say(&format!("{what}: {}", row.summary()));
    }
    let left = expect("failing", "daemon_down")?;
    left.must_say("refuses connections")?;
    lab.figure(
        "longest gap between beats, s",
        format!("{:.2}", checkup.beats_went_on(start)?.as_secs_f64()),
    );
    Ok(())
}

fn with_odd_server(made: &TestBox, what: &str, ask: impl FnOnce() -> Result<Answer>) -> Result<Answer> {
    made.run_ok(&format!("rm -f {SOCKET}"))?;
    made.spawn("odd", &format!("/usr/bin/python3 /usr/local/lib/odd.py {what}"))?;
    made.wait_until(&format!("test -S {SOCKET}"), secs(10))?;
    let answer = ask();
    made.run_ok(
        "systemctl kill -s KILL odd.service; systemctl reset-failed odd.service 2>/dev/null || true",
    )?;
    made.wait_until("! systemctl is-active -q odd.service", secs(10))?;
    answer
}
