//! The genuine third-party programs by themselves. What they answer in each state is shown through our checks
//! (`tailscale`, `gateway`, `backup`); here only that the parts are there and speak to each other.

use anyhow::Result;

use crate::clock::{self, secs};
use crate::genuine::tailscale::boxed;
use crate::genuine::tailscale::hosted::Daemon;
use crate::genuine::tailscale::{ControlPlane, Policy, Status};
use crate::lab::{BoxSpec, Lab};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[Scenario::new(
    "genuine::tailscale_on_the_host",
    &[Need::Root, Need::Tailscale],
    5,
    tailscale_on_the_host,
)];

fn tailscale_on_the_host(lab: &Lab) -> Result<()> {
    let programs = resource(Need::Tailscale)?;
    let plane = ControlPlane::start(lab, &programs, &Policy::default())?;
    let made = lab.boot(boxed::with_tailscale(BoxSpec::new("box-1"), &programs))?;
    boxed::join(&made, &plane, "any")?;
    let daemon = Daemon::start(lab, &programs, "server")?;
    daemon.join(&plane, "any", "server")?;
    daemon.local_api().wait_for("up", secs(20), Status::is_up)?;
    let line = || daemon.command(&["ping", "--c=1", "--timeout=2s", "box-1"]);
    clock::wait_for("a ping through the tunnel", secs(20), || line().ok()).map(|said| lab.say(&said))
}
