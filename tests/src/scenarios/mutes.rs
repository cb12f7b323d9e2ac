//! What a pause on a box means to the server: nobody is told of that box until its end, and then at once.

use anyhow::{Result, ensure};

use super::fleet::Fleet;
use crate::clock::{now, secs, wait_until};
use crate::lab::Lab;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[Scenario::new(
    "mutes::dies_in_its_own_pause",
    &[Need::Root],
    45,
    dies_in_its_own_pause,
)];

fn dies_in_its_own_pause(lab: &Lab) -> Result<()> {
    let fleet = Fleet::start(lab, 0, "", |setup| setup)?;
    let list = |all: &[&str]| -> Result<String> {
        let args = [&["maintenance", "list"][..], all].concat();
        fleet.server.ctl(&args)?.ok()
    };
    let paused = now();
    fleet
        .made
        .run_ok("fleet-watchdog pause --for 25s --reason 'disk swap'")?;
    wait_until("the pause to be known to the server", secs(5), || {
        list(&[]).is_ok_and(|text| text.contains("box-1 (its own pause)") && text.contains("active"))
    })?;
    fleet.made.power_cut()?;
    let told = fleet.opened("box_dark", secs(45))?.at - paused;
    lab.figure(
        "died in a pause of 25 s → webhook",
        format!("{:.2} s after the pause began", told.as_secs_f64()),
    );
    ensure!(told >= secs(24) && told < secs(30), "told after {told:?}");
    let history = list(&["--all"])?;
    ensure!(
        history.contains("expired") && history.contains("disk swap"),
        "{history}"
    );
    Ok(())
}
