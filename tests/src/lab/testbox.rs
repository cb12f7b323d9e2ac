//! A real booted machine: a systemd of its own, on a disk, a network port and a power supply that the test controls.
//!
//! Everything takes `&self`, so a box can be used from several threads. What runs in it: [`super::inside`].

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::cgroup::Cgroup;
use super::rootfs::RootFs;
use crate::clock::{self, secs};
use crate::exec;

/// A boot takes half a second on an idle machine; a crowded one gets this long.
const BOOT_LIMIT: Duration = secs(60);
/// The search path inside a box, as systemd sets it.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How a box's machine went off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It asks for another boot.
    Reboot,
    /// Powered off in order.
    PowerOff,
    /// Killed, or nspawn failed.
    Killed,
}

/// A box. The lab keeps it too, for its logs; all power goes off when the scenario ends.
#[derive(Debug)]
pub struct TestBox {
    hostname: String,
    address: String,
    machine: String,
    dir: PathBuf,
    pub(super) disk: RootFs,
    cgroup: Cgroup,
    nspawn_args: Vec<String>,
    power: Mutex<Option<Power>>,
}

#[derive(Debug)]
struct Power {
    nspawn: Child,
    /// The box's PID 1, in the harness's numbers.
    leader: u32,
}

impl TestBox {
    pub(super) fn new(
        (hostname, address, machine): (String, String, String),
        dir: PathBuf,
        disk: RootFs,
        cgroup: Cgroup,
        nspawn_args: Vec<String>,
    ) -> Self {
        Self {
            hostname,
            address,
            machine,
            dir,
            disk,
            cgroup,
            nspawn_args,
            power: Mutex::new(None),
        }
    }

    /// Its host name, which is also its name on a fleet server unless the test chose another.
    pub fn name(&self) -> &str {
        &self.hostname
    }

    /// Its address on the lab's network.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// All that its console said, over all boots.
    pub fn console(&self) -> String {
        fs::read(self.console_path())
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .unwrap_or_default()
    }

    /// The journal on its disk, readable alive or dead; `args` as for journalctl (`&["-u", "x.service"]`).
    pub fn journal(&self, args: &[&str]) -> Result<String> {
        let dir = self.disk.inside("/var/log/journal");
        let mut journalctl = Command::new("journalctl");
        journalctl
            .args(["--no-pager", "-q", "-o", "short-precise", "-D"])
            .arg(dir)
            .args(args);
        exec::run(&mut journalctl)?.ok()
    }

    // ---- power ----

    /// Whether it has power (it may be frozen, or on its way down).
    pub fn is_on(&self) -> bool {
        self.power()
            .as_mut()
            .is_some_and(|power| matches!(power.nspawn.try_wait(), Ok(None)))
    }

    /// Boots and waits until systemd says `running` (or `degraded`, which is logged); gives the time it took.
    pub fn boot(&self) -> Result<Duration> {
        let start = clock::now();
        let mut power = self.power();
        ensure!(power.is_none(), "{} is on already", self.hostname);
        // The kernel takes a dead box's port down in its own time.
        let _ = exec::run(Command::new("ip").args(["link", "del", &self.port()]));
        self.cgroup.ensure()?;
        let mut nspawn = self.nspawn().spawn().context("cannot start systemd-nspawn")?;
        let leader = Self::wait_for_leader(&mut nspawn);
        let leader = leader.map_err(|err| self.failed_to_boot(&err))?;
        *power = Some(Power { nspawn, leader });
        drop(power);
        self.wait_until_running()
            .map_err(|err| self.failed_to_boot(&err))?;
        Ok(start.elapsed())
    }

    /// Power loss: at the instant returned, nothing of the box runs or sends any more; no goodbye, no FIN, no RST.
    /// The disk is as it was.
    pub fn power_cut(&self) -> Result<Instant> {
        drop(self.on()?);
        let at = clock::now();
        // A process that is killed has its connections closed by the kernel, which the network would see; a box
        // without power sends nothing. So it is frozen and unplugged before it is killed.
        self.cgroup.freeze(true)?;
        self.unplug()?;
        self.cgroup.kill()?;
        self.wait_end(secs(20))?;
        self.cgroup.freeze(false)?;
        Ok(at)
    }

    /// The whole machine stops, its connections stay open.
    pub fn freeze(&self) -> Result<Instant> {
        let at = clock::now();
        self.cgroup.freeze(true)?;
        Ok(at)
    }

    /// The machine goes on.
    pub fn thaw(&self) -> Result<Instant> {
        self.cgroup.freeze(false)?;
        Ok(clock::now())
    }

    /// Reboots in order and waits until the box is up again.
    pub fn reboot(&self) -> Result<Duration> {
        let start = clock::now();
        self.begin("reboot")?;
        let end = self.wait_end(secs(120))?;
        ensure!(
            end == End::Reboot,
            "{} was told to reboot and ended as {end:?}",
            self.hostname
        );
        self.boot()?;
        Ok(start.elapsed())
    }

    /// Starts `systemctl reboot` (or poweroff, halt…) and returns at once; then [`TestBox::wait_end`].
    pub fn begin(&self, verb: &str) -> Result<Instant> {
        let at = clock::now();
        // Its own end may take the command along; what counts is how the machine ends.
        self.run(&format!("systemctl {verb}"))?;
        Ok(at)
    }

    /// Powers off in order.
    pub fn shutdown(&self) -> Result<()> {
        self.begin("poweroff")?;
        let end = self.wait_end(secs(120))?;
        ensure!(
            end == End::PowerOff,
            "{} was told to power off and ended as {end:?}",
            self.hostname
        );
        Ok(())
    }

    /// Waits until the machine is off, and says how it went; after that [`TestBox::boot`] boots the same disk.
    pub fn wait_end(&self, limit: Duration) -> Result<End> {
        let what = format!("{} to go off", self.hostname);
        let status = clock::wait_for(&what, limit, || match self.power().as_mut() {
            Some(power) => power.nspawn.try_wait().transpose(),
            None => Some(Ok(ExitStatus::from_raw(9))),
        })??;
        *self.power() = None;
        // What nspawn left behind when it was killed itself.
        self.cgroup.kill()?;
        Ok(match status.code() {
            Some(133) => End::Reboot,
            Some(0) => End::PowerOff,
            _ => End::Killed,
        })
    }

    // ---- network ----

    /// Silent partition: no packet passes either way, and the box's carrier stays.
    pub fn partition(&self) -> Result<Instant> {
        let at = clock::now();
        self.unplug()?;
        Ok(at)
    }

    /// Ends a partition.
    pub fn heal(&self) -> Result<Instant> {
        exec::ok("ip", &["link", "set", &self.port(), "master", super::BRIDGE])?;
        Ok(clock::now())
    }

    /// The cable is out: the box sees that its carrier is lost.
    pub fn cable_out(&self) -> Result<Instant> {
        let at = clock::now();
        exec::ok("ip", &["link", "set", &self.port(), "down"])?;
        Ok(at)
    }

    /// The cable is in again.
    pub fn cable_in(&self) -> Result<Instant> {
        exec::ok("ip", &["link", "set", &self.port(), "up"])?;
        Ok(clock::now())
    }

    fn unplug(&self) -> Result<()> {
        exec::ok("ip", &["link", "set", &self.port(), "master", super::VOID]).map(drop)
    }

    /// The harness's end of its cable, as nspawn names it.
    fn port(&self) -> String {
        format!("vb-{}", self.machine)
    }

    // ---- how it is done ----

    fn power(&self) -> MutexGuard<'_, Option<Power>> {
        self.power.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn leader(&self) -> Result<u32> {
        self.on()?
            .as_ref()
            .map(|power| power.leader)
            .context("unreachable: it is on")
    }

    fn on(&self) -> Result<MutexGuard<'_, Option<Power>>> {
        let power = self.power();
        ensure!(power.is_some(), "{} is off", self.hostname);
        Ok(power)
    }

    pub(super) fn console_path(&self) -> PathBuf {
        self.dir.join("console.log")
    }

    /// A shell puts itself into the cgroup and becomes nspawn, so that no process of the box is ever outside of it.
    fn nspawn(&self) -> Command {
        let script =
            r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1"; shift; n=$((n-1)); done; exec "$@""#;
        let files: Vec<PathBuf> = self.cgroup.procs_files().collect();
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "nspawn", &files.len().to_string()])
            .args(&files);
        command
            .args(["setsid", "systemd-nspawn", "-q", "-b", "-D"])
            .arg(self.disk.path());
        command.args(["-M", &self.machine, &format!("--hostname={}", self.hostname)]);
        command.args([
            "--register=no",
            "--keep-unit",
            &format!("--network-bridge={}", super::BRIDGE),
        ]);
        command.args([
            "--console=pipe",
            "--link-journal=no",
            "--resolv-conf=off",
            "--timezone=off",
        ]);
        command.args(&self.nspawn_args);
        let log = || {
            File::options()
                .create(true)
                .append(true)
                .open(self.console_path())
        };
        let output = || log().map_or_else(|_| Stdio::null(), Stdio::from);
        command.stdin(Stdio::null()).stdout(output()).stderr(output());
        command.env_clear().env("PATH", PATH);
        command
    }

    fn wait_for_leader(nspawn: &mut Child) -> Result<u32> {
        let parent = nspawn.id();
        clock::wait_for("the box's PID 1", BOOT_LIMIT, || match nspawn.try_wait() {
            Ok(None) => child_called(parent, "systemd").map(Ok),
            Ok(Some(status)) => Some(Err(anyhow::anyhow!("systemd-nspawn ended with {status}"))),
            Err(err) => Some(Err(err.into())),
        })?
    }

    fn failed_to_boot(&self, err: &anyhow::Error) -> anyhow::Error {
        anyhow::anyhow!(
            "{} does not boot: {err:#}; its console:\n{}",
            self.hostname,
            self.console()
        )
    }

    fn wait_until_running(&self) -> Result<()> {
        let mut last = String::new();
        let booted = clock::wait_for("the boot to finish", BOOT_LIMIT, || {
            if !self.is_on() {
                return Some(Err(anyhow::anyhow!("the machine went off while booting")));
            }
            match self.run("systemctl is-system-running --wait") {
                Ok(done) if ["running", "degraded"].contains(&done.stdout.trim()) => {
                    Some(Ok(done.stdout.trim().to_owned()))
                }
                Ok(done) => {
                    last = done.stdout + &done.stderr;
                    None
                }
                Err(err) => {
                    last = format!("{err:#}");
                    None
                }
            }
        });
        let state = booted.map_err(|err| anyhow::anyhow!("{err:#}; systemctl last said: {last}"))??;
        if state == "degraded" {
            let failed = self
                .run("systemctl list-units --failed --plain --no-legend")?
                .stdout;
            println!("{}: booted, but degraded:\n{failed}", self.hostname);
        }
        Ok(())
    }
}

impl Drop for TestBox {
    fn drop(&mut self) {
        if let Some(mut power) = self.power().take() {
            let _ = self.cgroup.kill();
            let _ = power.nspawn.wait();
        }
    }
}

/// The child process of `parent` that runs a program of this name.
fn child_called(parent: u32, program: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
        let ppid: u32 = rest.split_whitespace().nth(1)?.parse().ok()?;
        (name == program && ppid == parent).then_some(pid)
    })
}
