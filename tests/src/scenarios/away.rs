//! A box that goes on purpose says so: a reboot wakes nobody, one that never comes back does.

use anyhow::{Result, ensure};

use super::fleet::{Fleet, detail, wait_state};
use crate::clock::{pause, secs};
use crate::lab::{End, Lab};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("away::reboot_wakes_nobody", &[Need::Root], 25, reboot),
    Scenario::new("away::never_back_is_overdue", &[Need::Root], 30, overdue),
    Scenario::new(
        "away::restart_of_the_watchdog",
        &[Need::Root],
        25,
        watchdog_restart,
    ),
];

fn reboot(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    for verb in ["reboot", "poweroff"] {
        fleet.made.begin(verb)?;
        let seen = wait_state(&fleet.server, "box-1", "away", secs(10))?;
        lab.figure(&format!("{verb} → away"), format!("{:.2} s", seen.as_secs_f64()));
        let end = fleet.made.wait_end(secs(60))?;
        ensure!(
            matches!((verb, end), ("reboot", End::Reboot) | ("poweroff", End::PowerOff)),
            "{verb}: {end:?}"
        );
        // Longer than it would take to call it dark.
        pause(secs(8));
        assert_eq!(detail(&fleet.server, "box-1")?["state"], "away");
        fleet.made.boot()?;
        fleet.wait_live()?;
    }
    pause(secs(1));
    let arrivals = fleet.hook.arrivals();
    ensure!(arrivals.is_empty(), "somebody was told: {arrivals:?}");
    Ok(())
}

fn overdue(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "[heartbeat]\nback_within = \"10s\"\n", |setup| setup)?;
    let at = fleet.made.begin("reboot")?;
    wait_state(&fleet.server, "box-1", "away", secs(10))?;
    fleet.made.wait_end(secs(60))?;
    let told = fleet.opened("planned_overdue", secs(30))?;
    let took = (told.at - at).as_secs_f64();
    lab.figure(
        "reboot that never ends → webhook (10 s announced)",
        format!("{took:.2} s"),
    );
    ensure!((10.0..14.0).contains(&took), "{took}");
    assert_eq!(told.json["incident"]["severity"], "page");
    fleet.made.boot()?;
    fleet.resolved("planned_overdue", secs(15))?;
    ensure!(
        !fleet.hook.arrivals().iter().any(|a| a.kind() == "box_dark"),
        "told twice"
    );
    Ok(())
}

/// An upgrade restarts the resident part: that is a goodbye too, and wakes nobody.
fn watchdog_restart(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    fleet.made.run_ok("systemctl restart fleet-watchdog-beat")?;
    fleet.wait_live()?;
    fleet.made.run_ok("systemctl stop fleet-watchdog-beat")?;
    wait_state(&fleet.server, "box-1", "away", secs(5))?;
    pause(secs(8));
    fleet.made.run_ok("systemctl start fleet-watchdog-beat")?;
    fleet.wait_live()?;
    // Killed by the kernel, systemd starts it anew within seconds: no time for anybody to be told.
    fleet
        .made
        .run_ok("systemctl kill --signal=KILL fleet-watchdog-beat")?;
    pause(secs(8));
    fleet.wait_live()?;
    let arrivals = fleet.hook.arrivals();
    ensure!(arrivals.is_empty(), "somebody was told: {arrivals:?}");
    Ok(())
}
