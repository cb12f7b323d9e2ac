//! How long it takes until somebody is told that a box is gone, on real boxes with default settings.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::fleet::{self, Fleet};
use crate::clock::{pause, secs, wait_until};
use crate::lab::{Lab, TestBox};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new("dark::power_cut_20_times", &[Need::Root], 75, power_cuts).boxes(4),
    Scenario::new("dark::silent_partition_20_times", &[Need::Root], 75, partitions).boxes(4),
    Scenario::new("dark::killed_beat_is_silent", &[Need::Root], 20, killed_beat),
    Scenario::new("dark::frozen_machine", &[Need::Root], 20, frozen_machine),
];

/// Fleets side by side, each a server and a box of its own, so that the cuts of one are no storm of another.
const FLEETS: u16 = 4;
/// Faults of each.
const ROUNDS: u32 = 5;

fn power_cuts(lab: &Lab) -> Result<()> {
    twenty(lab, "cut → webhook", |fleet| {
        let cut = fleet.made.power_cut()?;
        let told = fleet.opened("box_dark", secs(12))?;
        fleet.made.boot()?;
        Ok(told.at - cut)
    })
}

fn partitions(lab: &Lab) -> Result<()> {
    twenty(lab, "partition → webhook", |fleet| {
        let cut = fleet.made.partition()?;
        let told = fleet.opened("box_dark", secs(12))?;
        fleet.made.heal()?;
        Ok(told.at - cut)
    })
}

/// Runs `fault` [`ROUNDS`] times in each of [`FLEETS`] fleets; it heals the box again.
fn twenty(lab: &Lab, what: &str, fault: fn(&Fleet) -> Result<Duration>) -> Result<()> {
    let one = |n: u16| -> Result<Vec<Duration>> {
        let fleet = Fleet::start(lab, n, "", |config| config)?;
        let mut took = Vec::new();
        for round in 0..ROUNDS {
            // Not in step with the box's own beat: the fault comes at another moment of its second each time.
            pause(Duration::from_millis(
                1500 + u64::from(round) * 230 + u64::from(n) * 57,
            ));
            took.push(fault(&fleet).with_context(|| format!("fleet {n}, round {round}"))?);
            fleet.resolved("box_dark", secs(15))?;
            fleet.wait_live()?;
            fleet.hook.clear();
        }
        Ok(took)
    };
    let results: Vec<Result<Vec<Duration>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..FLEETS).map(|n| scope.spawn(move || one(n))).collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))
            })
            .collect()
    });
    let mut took: Vec<f64> = Vec::new();
    for result in results {
        took.extend(result?.iter().map(Duration::as_secs_f64));
    }
    took.sort_by(f64::total_cmp);
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    lab.figure(
        what,
        format!(
            "{} times: best {:.2} s, median {median:.2} s, worst {worst:.2} s",
            took.len(),
            took[0]
        ),
    );
    assert_eq!(took.len(), usize::from(FLEETS) * ROUNDS as usize);
    ensure!(
        median <= 6.0 && worst <= 8.0,
        "median {median:.2} s (at most 6), worst {worst:.2} s (at most 8)"
    );
    Ok(())
}

/// Restarting it by hand is what an operator does; here systemd must not, or there is nothing to find.
const STAYS_DEAD: &str = "[Service]\nRestart=no\n";

fn killed_beat(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| {
        setup.drop_in("fleet-watchdog-beat.service", STAYS_DEAD)
    })?;
    let kill = |made: &Arc<TestBox>| -> Result<_> {
        let at = crate::clock::now();
        made.run_ok("systemctl kill --signal=KILL fleet-watchdog-beat")?;
        Ok(at)
    };

    let at = kill(&fleet.made)?;
    let dark = fleet.opened("box_dark", secs(12))?.at - at;
    fleet.made.run_ok("systemctl start fleet-watchdog-beat")?;
    fleet.resolved("box_dark", secs(10))?;
    fleet.wait_live()?;

    // The same box again, with a witness: its host answers on this port, with a refusal.
    let witness = format!("{}:22", fleet.made.address());
    fleet.server.ctl(&["box", "remove", "box-1"])?.ok()?;
    let token = fleet
        .server
        .ctl(&["box", "add", "box-1", "--witness", &witness])?
        .ok()?;
    fleet.made.write_file(
        "/etc/fleet-watchdog/token",
        0o640,
        "root:fleet-watchdog",
        format!("{token}\n"),
    )?;
    fleet.made.run_ok("systemctl restart fleet-watchdog-beat")?;
    fleet.wait_live()?;
    fleet.hook.clear();
    pause(secs(3));
    let at = kill(&fleet.made)?;
    let silent = fleet.opened("box_silent", secs(12))?.at - at;
    lab.figure(
        "killed beat, no witness → box_dark",
        format!("{:.2} s", dark.as_secs_f64()),
    );
    lab.figure(
        "killed beat, witness → box_silent",
        format!("{:.2} s", silent.as_secs_f64()),
    );
    ensure!(silent < secs(5), "{silent:?}: not faster than a power cut");
    ensure!(
        !fleet.hook.arrivals().iter().any(|a| a.kind() == "box_dark"),
        "named dark too"
    );
    Ok(())
}

fn frozen_machine(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    let at = fleet.made.freeze()?;
    let told = fleet.opened("box_dark", secs(12))?;
    lab.figure(
        "frozen → webhook",
        format!("{:.2} s", (told.at - at).as_secs_f64()),
    );
    fleet.made.thaw()?;
    fleet.resolved("box_dark", secs(10))?;
    wait_until("the box to be live again", secs(10), || {
        fleet::state(&fleet.server, "box-1").is_ok_and(|s| s == "live")
    })?;
    Ok(())
}
