//! A real booted machine: a systemd of its own, on a disk, a network port and a power supply that the test controls.
//!
//! Everything takes `&self`, so a box can be used from several threads. Running inside goes through `nsenter`: such a
//! program sees the box, but is not in its cgroup, so it neither freezes with it nor counts as one of its services.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cgroup::Cgroup;
use super::rootfs::RootFs;
use crate::clock::{self, secs};
use crate::exec::{self, Done};

/// A boot takes half a second on an idle machine; a crowded one gets this long.
const BOOT_LIMIT: Duration = secs(60);
/// The search path inside a box, as systemd sets it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

    // ---- inside ----

    /// The running box's file tree as seen from the harness, /run and sockets included.
    pub fn root(&self) -> Result<PathBuf> {
        let leader = self.on()?.as_ref().map(|power| power.leader);
        let leader = leader.context("unreachable: it is on")?;
        Ok(PathBuf::from(format!("/proc/{leader}/root")))
    }

    /// A shell line as root inside, however it ends; killed after a minute.
    pub fn run(&self, line: &str) -> Result<Done> {
        self.run_within(line, exec::LIMIT)
    }

    /// [`TestBox::run`] with another limit.
    pub fn run_within(&self, line: &str, limit: Duration) -> Result<Done> {
        exec::run_with(
            self.inside(&["sh", "-c", line], limit)?.env("HOME", "/root"),
            &[],
            limit + secs(2),
        )
    }

    /// A shell line that must end with 0; its trimmed output.
    pub fn run_ok(&self, line: &str) -> Result<String> {
        self.run(line)?
            .ok()
            .with_context(|| format!("in {}", self.hostname))
    }

    /// A shell line as a user of the box (a plain process, no login session).
    pub fn run_as(&self, user: &str, line: &str) -> Result<Done> {
        let argv = [
            "setpriv",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--init-groups",
        ];
        let argv: Vec<&str> = argv.into_iter().chain(["sh", "-c", line]).collect();
        exec::run_with(
            self.inside(&argv, exec::LIMIT)?
                .env("HOME", format!("/home/{user}")),
            &[],
            exec::LIMIT,
        )
    }

    /// A shell line in the background, as a transient service `unit` of the box; it dies with the box.
    pub fn spawn(&self, unit: &str, line: &str) -> Result<()> {
        let run = self.inside(
            &["systemd-run", "-q", &format!("--unit={unit}"), "sh", "-c", line],
            exec::LIMIT,
        );
        exec::run(&mut run?)?.ok().map(drop)
    }

    /// Writes a file, running or not; `owner` as chown takes it.
    pub fn write_file(&self, path: &str, mode: u32, owner: &str, content: impl AsRef<[u8]>) -> Result<()> {
        if !self.is_on() {
            return self.disk.write(path, mode, owner, content.as_ref());
        }
        let script = r#"mkdir -p "$(dirname "$1")" && rm -f "$1" && (umask 077; cat >"$1") && chown "$3" "$1" && chmod "$2" "$1""#;
        let argv = ["sh", "-c", script, "write", path, &format!("{mode:o}"), owner];
        exec::run_with(
            &mut self.inside(&argv, exec::LIMIT)?,
            content.as_ref(),
            exec::LIMIT,
        )?
        .ok()
        .map(drop)
    }

    /// Reads a file of the running box.
    pub fn read_file(&self, path: &str) -> Result<String> {
        exec::run(&mut self.inside(&["cat", "--", path], exec::LIMIT)?)?.ok()
    }

    /// A property of a unit, as `systemctl show` prints it.
    pub fn unit(&self, unit: &str, property: &str) -> Result<String> {
        exec::run(&mut self.inside(&["systemctl", "show", "-P", property, unit], exec::LIMIT)?)?.ok()
    }

    /// Waits until the shell line ends with 0 inside.
    pub fn wait_until(&self, line: &str, limit: Duration) -> Result<Duration> {
        let what = format!("`{line}` in {}", self.hostname);
        clock::wait_until(&what, limit, || self.run(line).is_ok_and(|done| done.success()))
    }

    /// A path on its disk as seen from the harness (not under /run or /tmp).
    pub fn disk_path(&self, path: &str) -> PathBuf {
        self.disk.inside(path)
    }

    fn inside(&self, argv: &[&str], limit: Duration) -> Result<Command> {
        let leader = self
            .on()?
            .as_ref()
            .map(|power| power.leader)
            .context("unreachable: it is on")?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &leader.to_string(), "-a", "--"]);
        // nsenter forks to enter the PID namespace: killing it from outside would leave the program running inside.
        command
            .args(["timeout", "-s", "KILL", &limit.as_secs_f64().to_string()])
            .args(argv);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .current_dir("/");
        Ok(command)
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
        let state = clock::wait_for("the boot to finish", BOOT_LIMIT, || {
            if !self.is_on() {
                return Some(Err(anyhow::anyhow!("the machine went off while booting")));
            }
            let state = self
                .run("systemctl is-system-running --wait")
                .ok()?
                .stdout
                .trim()
                .to_owned();
            matches!(&*state, "running" | "degraded").then_some(Ok(state))
        })??;
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

/// `what` must be refused inside the box as this user.
pub fn must_be_refused(done: &Done) -> Result<()> {
    if done.success() {
        bail!("`{}` was allowed:\n{}", done.line, done.stdout);
    }
    Ok(())
}
