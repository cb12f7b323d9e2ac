//! The control plane as a child process, and its knobs.
//!
//! What the knobs do is in `tests/genuine/tailscale/`; that program ends when this one's handle is dropped.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::http;
use crate::lab::{HOST, Lab};

/// Whom the control plane lets in.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// A node must bring this key; empty: any node may come.
    pub auth_key: String,
    /// New nodes wait for [`ControlPlane::approve`].
    pub require_approval: bool,
}

/// A running control plane with one relay and one STUN server, on the lab's host address.
#[derive(Debug)]
pub struct ControlPlane {
    child: Child,
    addresses: Addresses,
}

/// The program's first line.
#[derive(Debug, Deserialize)]
struct Addresses {
    login: String,
    knobs: SocketAddr,
}

impl ControlPlane {
    /// Starts it; its log shows when the scenario fails.
    pub fn start(lab: &Lab, programs: &Path, policy: &Policy) -> Result<Self> {
        let log = lab.host_dir("log")?.join("tailscale-control.log");
        if !log.exists() {
            lab.watch_log("tailscale control plane", &log);
        }
        let mut command = Command::new(programs.join("tailscale-control"));
        command.args(["-ip", HOST, "-auth-key", &policy.auth_key]);
        if policy.require_approval {
            command.arg("-require-approval");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&log)?);
        let mut child = command.spawn().context("cannot start tailscale-control")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("unreachable: it is piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let addresses = serde_json::from_str(&line)
            .with_context(|| format!("tailscale-control said {line:?}; see {}", log.display()))?;
        Ok(Self { child, addresses })
    }

    /// For `tailscale up --login-server`.
    pub fn login_server(&self) -> &str {
        &self.addresses.login
    }

    /// Tells every node a key expiry `ahead` of now.
    pub fn key_expires_in(&self, ahead: Duration) -> Result<()> {
        self.turn(&format!("/expiry?in={}s", ahead.as_secs()))
    }

    /// Tells every node a key expiry that lies `ago` back.
    pub fn key_expired_since(&self, ago: Duration) -> Result<()> {
        self.turn(&format!("/expiry?in=-{}s", ago.as_secs()))
    }

    /// Tells every node that its key never expires.
    pub fn key_never_expires(&self) -> Result<()> {
        self.turn("/expiry?in=never")
    }

    /// Tells every node that its key has expired, without a date.
    pub fn expire_all(&self) -> Result<()> {
        self.turn("/expire-all")
    }

    /// Takes [`ControlPlane::expire_all`] back.
    pub fn unexpire_all(&self) -> Result<()> {
        self.turn("/unexpire-all")
    }

    /// Approves every node that waits.
    pub fn approve(&self) -> Result<()> {
        self.turn("/approve")
    }

    /// The control server dies: its port refuses, its connections are closed. The knobs and the relay go on.
    pub fn cut(&self) -> Result<()> {
        self.turn("/control/cut")
    }

    /// The control server is back at the same address.
    pub fn heal(&self) -> Result<()> {
        self.turn("/control/heal")
    }

    /// The relay dies.
    pub fn cut_relay(&self) -> Result<()> {
        self.turn("/relay/cut")
    }

    /// The relay is back.
    pub fn heal_relay(&self) -> Result<()> {
        self.turn("/relay/heal")
    }

    /// Control server, relay and knobs hang: connections stay open and nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// They go on.
    pub fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn turn(&self, path: &str) -> Result<()> {
        let answer = http::send(
            "POST",
            &format!("http://{}{path}", self.addresses.knobs),
            &[],
            &[],
        )?;
        ensure!(
            answer.status == 204,
            "tailscale-control {path}: {} {}",
            answer.status,
            answer.body
        );
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
