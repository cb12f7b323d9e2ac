//! The test boxes themselves: what every other scenario rests on.

use std::io::{ErrorKind, Read};

use anyhow::{Result, ensure};

use crate::clock::{self, secs};
use crate::lab::{BoxSpec, End, HOST, Lab, WatchdogSetup, must_be_refused};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "boxes::boots_and_polkit_guards_units",
        &[Need::Root],
        4,
        boots_and_polkit_guards_units,
    ),
    Scenario::new(
        "boxes::watchdog_is_installed_as_shipped",
        &[Need::Root],
        4,
        watchdog_is_installed_as_shipped,
    ),
    Scenario::new("boxes::power_and_reboot", &[Need::Root], 8, power_and_reboot),
    Scenario::new(
        "boxes::power_cut_is_silent",
        &[Need::Root],
        6,
        power_cut_is_silent,
    ),
    Scenario::new("boxes::network_faults", &[Need::Root], 8, network_faults),
    Scenario::new(
        "boxes::several_and_a_clone",
        &[Need::Root],
        6,
        several_and_a_clone,
    )
    .boxes(4),
];

const GATEWAY: &str = "[Service]\nExecStart=/usr/bin/python3 -m http.server 8080\nRestart=on-failure\n";

const RULE: &str = r#"polkit.addRule(function (a, s) {
  if (a.id == "org.freedesktop.systemd1.manage-units" && s.user == "wdog" && a.lookup("unit") == "gateway.service" &&
      ["start", "restart", "reset-failed"].indexOf(a.lookup("verb")) >= 0) return polkit.Result.YES;
});
"#;

fn boots_and_polkit_guards_units(lab: &Lab) -> Result<()> {
    let spec = BoxSpec::new("box-1")
        .user("wdog", 950)
        .unit("gateway.service", GATEWAY);
    let made = lab.boot(spec.file("/etc/polkit-1/rules.d/50-wdog.rules", 0o644, "root", RULE))?;
    assert_eq!(made.run_ok("systemctl is-active gateway.service")?, "active");
    assert_eq!(made.run_ok("hostname")?, "box-1");
    assert_eq!(
        made.run_ok("ls -A /home /srv /usr/local/bin")?
            .matches("wdog")
            .count(),
        1,
        "the owner's files show"
    );

    made.run_as("wdog", "systemctl --no-ask-password restart gateway")?
        .ok()?;
    must_be_refused(&made.run_as("wdog", "systemctl --no-ask-password stop gateway")?)?;
    must_be_refused(&made.run_as("wdog", "systemctl --no-ask-password restart dbus")?)?;

    made.write_file("/run/note", 0o640, "wdog:wdog", "über")?;
    assert_eq!(
        made.run_ok("stat -c '%U %a' /run/note; cat /run/note")?,
        "wdog 640\nüber"
    );
    ensure!(
        made.run("ip route show default")?.stdout.is_empty(),
        "a box has a way out of the lab"
    );
    made.shutdown()
}

fn watchdog_is_installed_as_shipped(lab: &Lab) -> Result<()> {
    let setup = WatchdogSetup::new("[box]\nname = \"box-1\"\n", "token-of-box-1").check_every(5);
    let gateway = GATEWAY.replace("8080", "8642");
    let made = lab.boot(
        BoxSpec::new("box-1")
            .unit("hermes-gateway.service", &gateway)
            .watchdog(setup),
    )?;
    assert_eq!(
        made.run_ok("stat -c '%U:%G %a' /etc/fleet-watchdog/token")?,
        "root:fleet-watchdog 640"
    );
    made.run_ok("systemctl is-enabled fleet-watchdog.timer fleet-watchdog-beat.service")?;
    made.run_ok("systemctl is-active fleet-watchdog.timer")?;
    ensure!(
        made.unit("fleet-watchdog.timer", "TimersMonotonic")?
            .contains("OnUnitActiveUSec=5s"),
        "no drop-in"
    );
    ensure!(
        made.run_ok("/usr/bin/fleet-watchdog --version; echo ran")?
            .contains("ran")
    );

    let user = "fleet-watchdog";
    made.run_as(user, "systemctl --no-ask-password restart hermes-gateway")?
        .ok()?;
    must_be_refused(&made.run_as(user, "systemctl --no-ask-password stop hermes-gateway")?)?;
    must_be_refused(&made.run_as(user, "systemctl --no-ask-password restart systemd-logind")?)
}

fn power_and_reboot(lab: &Lab) -> Result<()> {
    let made = lab.boot(BoxSpec::new("box-1").unit("gateway.service", GATEWAY))?;
    let boot_id = made.run_ok("cat /proc/sys/kernel/random/boot_id")?;
    made.write_file("/var/kept", 0o600, "root", "kept")?;

    let cut = made.power_cut()?;
    lab.figure(
        "power cut until the machine is gone",
        format!("{:.0} ms", cut.elapsed().as_secs_f64() * 1e3),
    );
    ensure!(!made.is_on());
    ensure!(made.run("true").is_err(), "a box without power answers");
    let took = made.boot()?;
    lab.figure("boot", format!("{:.2} s", took.as_secs_f64()));
    assert_eq!(made.read_file("/var/kept")?, "kept");
    ensure!(
        made.run_ok("cat /proc/sys/kernel/random/boot_id")? != boot_id,
        "the second boot has the first one's id"
    );
    ensure!(
        made.journal(&["--list-boots"])?.lines().count() == 2,
        "the journal of the first boot is lost"
    );

    made.spawn("ticker", "while sleep 0.05; do echo tick >>/var/ticks; done")?;
    made.wait_until("test -s /var/ticks", secs(5))?;
    made.freeze()?;
    let ticks = || std::fs::read(made.disk_path("/var/ticks")).map(|text| text.len());
    let before = ticks()?;
    clock::pause(secs(1));
    assert_eq!(ticks()?, before, "a frozen box goes on");
    made.thaw()?;
    clock::wait_until("the thawed box to go on", secs(5), || {
        ticks().is_ok_and(|now| now > before)
    })?;

    lab.figure("reboot", format!("{:.2} s", made.reboot()?.as_secs_f64()));
    made.begin("poweroff")?;
    assert_eq!(made.wait_end(secs(60))?, End::PowerOff);
    Ok(())
}

fn power_cut_is_silent(lab: &Lab) -> Result<()> {
    let made = lab.boot(BoxSpec::new("box-1"))?;
    let listener = std::net::TcpListener::bind((HOST, 9000))?;
    let connected = |unit: &str| {
        made.spawn(
            unit,
            &format!("exec bash -c 'exec 3<>/dev/tcp/{HOST}/9000; echo x >&3; exec sleep 1000'"),
        )?;
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(secs(2)))?;
        (&stream).read_exact(&mut [0; 2])?;
        anyhow::Ok(stream)
    };
    let killed = connected("killed")?;
    made.run_ok("systemctl kill -s KILL killed")?;
    assert_eq!(
        (&killed).read(&mut [0])?,
        0,
        "a killed process closes its connection"
    );
    let cut = connected("cut")?;
    made.power_cut()?;
    let silence = (&cut).read(&mut [0]);
    ensure!(
        silence
            .as_ref()
            .is_err_and(|err| err.kind() == ErrorKind::WouldBlock),
        "it said {silence:?} as it died"
    );
    Ok(())
}

fn network_faults(lab: &Lab) -> Result<()> {
    let made = lab.boot(BoxSpec::new("box-1").unit("gateway.service", GATEWAY))?;
    let reach = format!("timeout 1 bash -c 'echo >/dev/tcp/{HOST}/9000' 2>&1");
    let listener = std::net::TcpListener::bind((HOST, 9000))?;
    let carrier = "cat /sys/class/net/host0/carrier";
    made.run_ok(&reach)?;
    listener.accept()?;
    made.spawn(
        "talker",
        &format!("exec bash -c 'exec 3<>/dev/tcp/{HOST}/9000; while echo x >&3; do sleep 0.1; done'"),
    )?;
    let (talker, _) = listener.accept()?;
    talker.set_read_timeout(Some(secs(2)))?;
    (&talker).read_exact(&mut [0; 2])?;

    made.partition()?;
    ensure!(!made.run(&reach)?.success(), "a partitioned box reaches the host");
    assert_eq!(made.run_ok(carrier)?, "1", "the partition is not silent");
    // What came before it, if anything.
    let _ = (&talker).read(&mut [0; 4096]);
    ensure!(
        (&talker).read(&mut [0; 4096]).is_err(),
        "bytes come through the partition on an open connection"
    );
    made.heal()?;
    made.wait_until(&reach, secs(10))?;

    made.cable_out()?;
    made.wait_until(&format!("test \"$({carrier} 2>/dev/null)\" != 1"), secs(5))?;
    ensure!(
        !made.run(&reach)?.success(),
        "a box without its cable reaches the host"
    );
    made.cable_in()?;
    made.wait_until(&reach, secs(10))?;
    Ok(())
}

fn several_and_a_clone(lab: &Lab) -> Result<()> {
    let spec = |name| BoxSpec::new(name).unit("gateway.service", GATEWAY);
    let boxes = lab.boot_all(vec![spec("box-1"), spec("box-2"), spec("box-3")])?;
    let id = |of: &crate::lab::TestBox| of.run_ok("cat /etc/machine-id");
    ensure!(id(&boxes[0])? != id(&boxes[1])?);

    let clone = lab.clone_as(&boxes[0], "clone")?;
    clone.boot()?;
    assert_eq!(id(&clone)?, id(&boxes[0])?);
    assert_eq!(
        clone.run_ok("hostname; systemctl is-active gateway")?,
        "clone\nactive"
    );
    assert_ne!(clone.address(), boxes[0].address());
    clone.run_ok(&format!("bash -c 'echo >/dev/tcp/{}/8080'", boxes[0].address()))?;
    Ok(())
}
