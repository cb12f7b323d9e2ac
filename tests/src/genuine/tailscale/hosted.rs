//! tailscaled as a child process on the host's side of the lab, for what a fleet server asks its own tailscaled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{ControlPlane, LocalApi};
use crate::clock::{self, secs};
use crate::exec;
use crate::lab::Lab;

/// A route to somewhere is all that tailscaled wants; this one leads nowhere.
const NOWHERE: &str = "10.99.0.254";
/// Its socket is there in tens of milliseconds.
const START_LIMIT: Duration = secs(20);

/// A running tailscaled; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    programs: PathBuf,
    socket: PathBuf,
    // Where the socket is; removed with it.
    _socket_dir: TempDir,
}

impl Daemon {
    /// Starts one that nobody has logged in yet; `name` is unique in the lab.
    pub fn start(lab: &Lab, programs: &Path, name: &str) -> Result<Self> {
        exec::ok("ip", &["route", "replace", "default", "via", NOWHERE])?;
        let dir = lab.host_dir(&format!("tailscaled-{name}"))?;
        // A socket's path has room for 107 bytes; the lab's own directory may be deep already.
        let socket_dir = TempDir::with_prefix("fleet-ts-")?;
        let socket = socket_dir.path().join("tailscaled.sock");
        let log = dir.join("log");
        lab.watch_log(&format!("tailscaled {name}"), &log);
        let mut command = Command::new(programs.join("tailscaled"));
        command.args(["--tun=userspace-networking", "--port=0", "--no-logs-no-support"]);
        command
            .arg(format!("--statedir={}", dir.display()))
            .arg(format!("--socket={}", socket.display()));
        command
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let child = command.spawn().context("cannot start tailscaled")?;
        let daemon = Self {
            child,
            programs: programs.to_owned(),
            socket,
            _socket_dir: socket_dir,
        };
        let api = daemon.local_api();
        clock::wait_until("tailscaled to answer", START_LIMIT, || api.status().is_ok())?;
        Ok(daemon)
    }

    /// Joins `plane` as `hostname`.
    pub fn join(&self, plane: &ControlPlane, auth_key: &str, hostname: &str) -> Result<()> {
        let (server, key) = (plane.login_server(), auth_key);
        self.command(&[
            "up",
            "--timeout=10s",
            &format!("--login-server={server}"),
            &format!("--auth-key={key}"),
            &format!("--hostname={hostname}"),
        ])
        .map(drop)
    }

    /// Its command line.
    pub fn command(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join("tailscale"));
        exec::run(
            command
                .arg(format!("--socket={}", self.socket.display()))
                .args(args),
        )?
        .ok()
    }

    /// What it says of itself.
    pub fn local_api(&self) -> LocalApi {
        LocalApi::at(&self.socket)
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
