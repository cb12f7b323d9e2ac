//! Brings a box's genuine tailscaled into each state that the watchdog's check must tell apart.
//!
//! A [`Row`] waits until tailscaled itself shows the state, and judges nothing: what a check makes of it is the
//! scenario's question. Each row starts from a fresh daemon and a fresh control plane, so their order does not matter.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::boxed::{self, SOCKET, UNIT};
use super::control::{ControlPlane, Policy};
use super::local_api::{self, LocalApi, Status};
use crate::clock::{self, secs};
use crate::lab::{BoxSpec, Lab, TestBox};

/// tailscaled settles in a second; a crowded machine gets longer.
const SOON: Duration = secs(30);
/// It notices a dead relay only after its own time-outs, 20 to 30 s.
const RELAY_LIMIT: Duration = secs(90);
/// The key that the control plane asks for where a row is about keys.
const KEY: &str = "tskey-auth-right";

/// A box with tailscaled, and the control plane of the moment.
#[derive(Debug)]
pub struct Rig<'a> {
    lab: &'a Lab,
    programs: PathBuf,
    made: Arc<TestBox>,
    plane: Option<ControlPlane>,
    cable_is_out: bool,
}

/// One state.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// A word for it.
    pub name: &'static str,
    /// What it takes, in seconds, when the machine is idle.
    pub rough_secs: u32,
    bring: fn(&mut Rig<'_>) -> Result<()>,
}

/// Every row of the table, and the variants that must not be mixed up.
pub const ROWS: &[Row] = &[
    row("working", 2, working),
    row("control_dead", 5, control_dead),
    row("control_hung", 7, control_hung),
    row("network_down", 3, network_down),
    row("relay_dead", 30, relay_dead),
    row("never_logged_in", 1, never_logged_in),
    row("logged_out", 3, logged_out),
    row("key_expired_told", 3, key_expired_told),
    row("key_date_passed_untold", 7, key_date_passed_untold),
    row("key_expires_in_10_days", 3, key_expires_in_10_days),
    row("key_expires_in_1_day", 3, key_expires_in_1_day),
    row("not_approved", 3, not_approved),
    row("switched_off", 3, switched_off),
    row("bad_key", 6, bad_key),
    row("started_without_control", 3, started_without_control),
    row("daemon_terminated", 2, daemon_terminated),
    row("daemon_killed", 2, daemon_killed),
    row("daemon_hung", 2, daemon_hung),
];

const fn row(name: &'static str, rough_secs: u32, bring: fn(&mut Rig<'_>) -> Result<()>) -> Row {
    Row {
        name,
        rough_secs,
        bring,
    }
}

impl Row {
    /// Brings the box into this state.
    pub fn bring(&self, rig: &mut Rig<'_>) -> Result<()> {
        (self.bring)(rig).with_context(|| format!("row {}", self.name))
    }

    /// The row of this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        let found = ROWS.iter().find(|row| row.name == name);
        found.with_context(|| format!("no row is called {name}"))
    }
}

impl<'a> Rig<'a> {
    /// Boots `spec` with tailscaled added; `programs` is what [`super::build::prepare`] gave.
    pub fn new(lab: &'a Lab, programs: &Path, spec: BoxSpec) -> Result<Self> {
        let made = lab.boot(boxed::with_tailscale(spec, programs))?;
        Ok(Self {
            lab,
            programs: programs.to_owned(),
            made,
            plane: None,
            cable_is_out: false,
        })
    }

    /// The box.
    pub fn made(&self) -> &TestBox {
        &self.made
    }

    /// The daemon's socket.
    pub fn local_api(&self) -> Result<LocalApi> {
        local_api::of_box(&self.made)
    }

    /// The control plane of the row that was brought last.
    pub fn plane(&self) -> Result<&ControlPlane> {
        self.plane.as_ref().context("no row was brought yet")
    }

    /// A daemon that knows nothing yet, and a control plane that has seen nobody.
    fn fresh(&mut self, policy: &Policy) -> Result<()> {
        if std::mem::take(&mut self.cable_is_out) {
            self.made.cable_in()?;
        }
        self.plane = None;
        self.made.run_ok(&format!(
            "systemctl kill -s KILL {UNIT} 2>/dev/null; systemctl stop {UNIT}; systemctl reset-failed {UNIT}; \
             rm -rf /var/lib/tailscale /run/tailscale; systemctl start {UNIT}"
        ))?;
        self.plane = Some(ControlPlane::start(self.lab, &self.programs, policy)?);
        self.await_status("a fresh daemon", |status| status.state() == "NeedsLogin")
    }

    /// Fresh, joined and up.
    fn joined(&mut self) -> Result<()> {
        self.fresh(&Policy::default())?;
        self.join(KEY)?;
        self.await_status("up", Status::is_up)
    }

    fn join(&self, key: &str) -> Result<()> {
        boxed::join(&self.made, self.plane()?, key)
    }

    fn await_status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<()> {
        self.local_api()?.wait_for(what, SOON, wanted).map(drop)
    }

    fn signal(&self, signal: &str) -> Result<()> {
        self.made
            .run_ok(&format!("systemctl kill -s {signal} {UNIT}"))
            .map(drop)
    }
}

fn working(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    let api = rig.local_api()?;
    clock::wait_until("no warning", SOON, || {
        api.warnings().is_ok_and(|all| all.is_empty())
    })
    .map(drop)
}

fn control_dead(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.cut()?;
    rig.await_status("offline", |status| {
        status.state() == "Running" && !status.online()
    })
}

/// Nothing shows it, for a long time.
fn control_hung(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.freeze()?;
    clock::pause(secs(5));
    rig.await_status("still running", |status| status.state() == "Running")
}

fn network_down(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.made.cable_out()?;
    rig.cable_is_out = true;
    rig.local_api()?.wait_for_warning("network-status", true, SOON)
}

fn relay_dead(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.cut_relay()?;
    rig.local_api()?
        .wait_for_warning("no-derp-connection", true, RELAY_LIMIT)
}

fn never_logged_in(rig: &mut Rig<'_>) -> Result<()> {
    rig.fresh(&Policy::default())
}

fn logged_out(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    boxed::command(&rig.made, "logout")?;
    rig.await_status("logged out", |status| {
        status.state() == "NeedsLogin" && !status.has_node_key()
    })
}

fn key_expired_told(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.key_expired_since(secs(60))?;
    rig.plane()?.expire_all()?;
    rig.await_status("key expired", |status| {
        status.state() == "NeedsLogin" && status.has_node_key()
    })
}

fn key_date_passed_untold(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.key_expires_in(secs(2))?;
    rig.await_status("a key expiry", |status| status.key_expiry().is_some())?;
    clock::pause(secs(4));
    Ok(())
}

fn key_expires_in_10_days(rig: &mut Rig<'_>) -> Result<()> {
    key_expires_in(rig, secs(10 * 86_400))
}

fn key_expires_in_1_day(rig: &mut Rig<'_>) -> Result<()> {
    key_expires_in(rig, secs(86_400))
}

fn key_expires_in(rig: &mut Rig<'_>, ahead: Duration) -> Result<()> {
    rig.joined()?;
    rig.plane()?.key_expires_in(ahead)?;
    rig.await_status("a key expiry", |status| status.key_expiry().is_some())
}

fn not_approved(rig: &mut Rig<'_>) -> Result<()> {
    rig.fresh(&Policy {
        require_approval: true,
        ..Policy::default()
    })?;
    rig.join(KEY)?;
    rig.await_status("waiting for approval", |status| {
        status.state() == "NeedsMachineAuth"
    })
}

fn switched_off(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    boxed::command(&rig.made, "down")?;
    rig.await_status("switched off", |status| status.state() == "Stopped")
}

/// Seen both in `NoState` and in `NeedsLogin` at first.
fn bad_key(rig: &mut Rig<'_>) -> Result<()> {
    rig.fresh(&Policy {
        auth_key: KEY.to_owned(),
        ..Policy::default()
    })?;
    rig.join("tskey-auth-wrong")?;
    rig.await_status("a refused login", |status| {
        status
            .health()
            .iter()
            .any(|text| text.contains("last login error"))
    })
}

/// A daemon that was up before, and starts again while nobody answers it.
fn started_without_control(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.plane()?.cut()?;
    rig.made.run_ok(&format!("systemctl restart {UNIT}"))?;
    rig.await_status("an answer", |_| true)
}

fn daemon_terminated(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.made.run_ok(&format!("systemctl stop {UNIT}"))?;
    await_socket(rig, false)
}

fn daemon_killed(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.signal("KILL")?;
    rig.made
        .wait_until(&format!("! systemctl is-active -q {UNIT}"), SOON)?;
    await_socket(rig, true)
}

fn daemon_hung(rig: &mut Rig<'_>) -> Result<()> {
    rig.joined()?;
    rig.signal("STOP")
}

fn await_socket(rig: &Rig<'_>, there: bool) -> Result<()> {
    let socket = rig.made.root()?.join(SOCKET.trim_start_matches('/'));
    let what = if there {
        "a socket left behind"
    } else {
        "no socket"
    };
    clock::wait_until(what, SOON, || fs::symlink_metadata(&socket).is_ok() == there).map(drop)
}
