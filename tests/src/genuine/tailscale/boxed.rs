//! tailscaled as a service of a box, and its command line there.
//!
//! The unit is the Debian package's in what counts (notify, runtime and state directory), but it is not restarted and
//! keeps its runtime directory, so that a killed daemon leaves its socket behind for a test to look at. Traffic goes
//! through user-space networking: no device, no routes, so `TUN` is false.

use std::path::Path;

use anyhow::Result;

use super::ControlPlane;
use crate::lab::{BoxSpec, TestBox};

/// LocalAPI's socket inside the box.
pub const SOCKET: &str = "/run/tailscale/tailscaled.sock";
/// The service.
pub const UNIT: &str = "tailscaled.service";
/// The command line inside the box.
const CLI: &str = "/opt/tailscale/tailscale";

const UNIT_TEXT: &str = "[Unit]
Description=Tailscale node agent
After=network-online.target
Wants=network-online.target
[Service]
Type=notify
ExecStart=/opt/tailscale/tailscaled --tun=userspace-networking --state=/var/lib/tailscale/tailscaled.state --socket=/run/tailscale/tailscaled.sock --port=0 --no-logs-no-support
RuntimeDirectory=tailscale
RuntimeDirectoryPreserve=yes
StateDirectory=tailscale
StateDirectoryMode=0700
";

/// Without a route to somewhere tailscaled says that the network is down. This one leads nowhere.
const ROUTE: &str = "[Network]\nGateway=10.99.0.254\n";

/// Adds tailscaled to a box, started at boot; `programs` is what [`super::build::prepare`] gave.
#[must_use]
pub fn with_tailscale(spec: BoxSpec, programs: &Path) -> BoxSpec {
    spec.read_only(programs, "/opt/tailscale")
        .unit(UNIT, UNIT_TEXT)
        .file(
            "/etc/systemd/network/10-host0.network.d/route.conf",
            0o644,
            "root",
            ROUTE,
        )
}

/// Joins `plane` under the box's own name, with the key `auth_key` (any text where the plane asks for none).
///
/// It does not wait until tailscaled is up: see [`super::LocalApi::wait_for`]. Changing the policy beforehand gives
/// the refused and the unapproved.
pub fn join(made: &TestBox, plane: &ControlPlane, auth_key: &str) -> Result<()> {
    let line = format!(
        "{CLI} up --timeout=5s --login-server={} --auth-key={auth_key} --hostname={}",
        plane.login_server(),
        made.name()
    );
    // Its exit status only says whether it was up within the time-out.
    let done = made.run(&line)?;
    println!(
        "{}: tailscale up ended with {} {}",
        made.name(),
        done.code(),
        done.stderr.trim()
    );
    Ok(())
}

/// A command such as `down` or `logout`.
pub fn command(made: &TestBox, words: &str) -> Result<String> {
    made.run_ok(&format!("{CLI} {words}"))
}
