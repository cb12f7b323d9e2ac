//! A scenario's own small world: a network without a way out, boxes on it, and the host that a fleet server runs on.
//!
//! It exists inside the namespaces that [`crate::runner`] made for the scenario, so two scenarios never meet, fixed
//! addresses and ports are free, and everything ends with the scenario's process, however that ends.
//!
//! - [`spec`]: what a test wants of a box
//! - [`rootfs`]: the disk
//! - [`install`]: the watchdog on the disk
//! - [`cgroup`]: the power supply
//! - [`testbox`]: the box
//! - [`inside`]: what a test does in it

pub mod cgroup;
pub mod inside;
pub mod install;
pub mod rootfs;
pub mod spec;
pub mod testbox;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};

pub use cgroup::{remove_leftovers, usable as cgroup_usable};
pub use inside::must_be_refused;
pub use spec::{BoxSpec, WatchdogSetup};
pub use testbox::{End, TestBox};

use crate::clock;
use crate::exec;
use crate::runner::outcome::Skipped;
use cgroup::Cgroup;
use rootfs::RootFs;

/// The lab's switch.
const BRIDGE: &str = "br0";
/// A switch without power: a cable moved here keeps its carrier, and no frame passes. (A port on no switch at all would
/// not do: its frames reach the host's own network stack, which takes those for its addresses.)
const VOID: &str = "void0";
/// The host's address, where servers and receivers listen for the boxes.
pub const HOST: &str = "10.99.0.1";
/// The first box's last octet.
const FIRST_OCTET: u8 = 11;

/// One scenario's world. Cheap to share: everything takes `&self`.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    /// Unique among the harnesses of this machine: cgroups are not in a namespace.
    id: String,
    started: Instant,
    next_octet: AtomicU8,
    boxes: Mutex<Vec<Arc<TestBox>>>,
    logs: Mutex<Vec<(String, PathBuf)>>,
    figures: Mutex<Vec<(String, String)>>,
}

impl Lab {
    /// Makes the world; `dir` is an empty directory, which a tmpfs then covers in this mount namespace.
    pub fn new(dir: &Path, id: &str) -> Result<Self> {
        exec::ok("ip", &["link", "set", "lo", "up"])?;
        // A switch without an address of its own takes one of its cables', and another one when that is pulled out: then
        // nobody reaches the host for seconds.
        for (switch, address) in [(BRIDGE, "02:00:00:00:00:01"), (VOID, "02:00:00:00:00:02")] {
            exec::ok(
                "ip",
                &["link", "add", switch, "address", address, "type", "bridge"],
            )?;
        }
        exec::ok("ip", &["addr", "add", &format!("{HOST}/24"), "dev", BRIDGE])?;
        exec::ok("ip", &["link", "set", BRIDGE, "up"])?;
        let at = dir.to_string_lossy();
        exec::ok(
            "mount",
            &["-t", "tmpfs", "-o", "mode=755,size=80%", "fleet-tests", &at],
        )?;
        // nspawn keeps its locks here, and a daemon of the machine must not be found by accident.
        exec::ok(
            "mount",
            &["-t", "tmpfs", "-o", "mode=755,size=64M", "fleet-tests", "/run"],
        )?;
        Ok(Self {
            dir: dir.to_owned(),
            id: id.to_owned(),
            started: clock::now(),
            next_octet: AtomicU8::new(FIRST_OCTET),
            boxes: Mutex::default(),
            logs: Mutex::default(),
            figures: Mutex::default(),
        })
    }

    /// A directory of the host's, on the lab's tmpfs; made if it is not there.
    pub fn host_dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.dir.join("host").join(name);
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// A file of the host's in [`Lab::host_dir`] `etc`.
    pub fn host_file(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.host_dir("etc")?.join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// Makes a box and boots it.
    pub fn boot(&self, spec: BoxSpec) -> Result<Arc<TestBox>> {
        let made = self.create(spec)?;
        let took = made.boot()?;
        self.say(&format!("{} booted in {:.2} s", made.name(), took.as_secs_f64()));
        Ok(made)
    }

    /// Makes and boots several boxes at once, in the order given.
    pub fn boot_all(&self, specs: Vec<BoxSpec>) -> Result<Vec<Arc<TestBox>>> {
        std::thread::scope(|scope| {
            let booting: Vec<_> = specs
                .into_iter()
                .map(|spec| scope.spawn(|| self.boot(spec)))
                .collect();
            let join = |handle: std::thread::ScopedJoinHandle<'_, Result<_>>| {
                handle
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("booting a box panicked")))
            };
            booting.into_iter().map(join).collect()
        })
    }

    /// Makes a box that is off.
    pub fn create(&self, spec: BoxSpec) -> Result<Arc<TestBox>> {
        let (address, machine, dir) = self.place(spec.last_octet)?;
        let disk = RootFs::create(dir.join("disk"), &spec.hostname, &address)?;
        for (name, uid) in &spec.users {
            disk.add_user(name, *uid)?;
        }
        for file in &spec.files {
            disk.write(&file.path, file.mode, &file.owner, &file.content)?;
        }
        for (path, target) in &spec.links {
            disk.link(path, target)?;
        }
        if let Some(setup) = &spec.watchdog {
            install::watchdog(&disk, setup).context("cannot install the watchdog")?;
        }
        let mut args = spec.nspawn_args;
        for mount in &spec.mounts {
            args.push(mount_arg(mount, &dir)?);
        }
        self.enter(spec.hostname, address, machine, (dir, disk, args))
    }

    /// A second machine from a copy of the first's disk (machine-id, token and all) under another name, not booted.
    pub fn clone_as(&self, original: &TestBox, hostname: &str) -> Result<Arc<TestBox>> {
        let (address, machine, dir) = self.place(None)?;
        let disk = RootFs::copy_of(&original.disk, dir.join("disk"), hostname, &address)?;
        self.enter(hostname.to_owned(), address, machine, (dir, disk, Vec::new()))
    }

    /// Installs the watchdog on a box that is off.
    pub fn install_watchdog(&self, on: &TestBox, setup: &WatchdogSetup) -> Result<()> {
        anyhow::ensure!(
            !on.is_on(),
            "the watchdog is installed while {} is off; then boot it",
            on.name()
        );
        install::watchdog(&on.disk, setup)
    }

    /// A line in the scenario's log, with the seconds since its start.
    pub fn say(&self, text: &str) {
        println!("[{:8.3}] {text}", self.started.elapsed().as_secs_f64());
    }

    /// A measured value, shown beside the scenario's result.
    pub fn figure(&self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        self.say(&format!("{name}: {value}"));
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((name.to_owned(), value));
    }

    /// For `return Err(lab.skip("why"))`: what the scenario needs cannot be had here.
    pub fn skip(&self, reason: &str) -> anyhow::Error {
        anyhow::Error::new(Skipped(reason.to_owned()))
    }

    /// A log file to be shown when the scenario fails.
    pub fn watch_log(&self, title: &str, path: &Path) {
        self.logs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((title.to_owned(), path.to_owned()));
    }

    /// All figures so far.
    pub fn figures(&self) -> Vec<(String, String)> {
        self.figures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Saves consoles, journals and logs to `dir`, and prints the end of each.
    pub fn dump(&self, dir: &Path) {
        for (title, path) in self.logs.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            show(dir, title, &fs::read_to_string(path).unwrap_or_default(), 80);
        }
        for made in self.boxes.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            show(dir, &format!("{} console", made.name()), &made.console(), 30);
            let all = made.journal(&[]).unwrap_or_default();
            let _ = fs::write(dir.join(format!("{}-journal.log", made.name())), &all);
            let ours = |line: &&str| {
                ["fleet-watchdog", "gateway", "tailscaled"]
                    .iter()
                    .any(|word| line.contains(word))
            };
            let ours = all.lines().filter(ours).collect::<Vec<_>>().join("\n");
            show(dir, &format!("{} journal of our units", made.name()), &ours, 120);
        }
    }

    fn place(&self, octet: Option<u8>) -> Result<(String, String, PathBuf)> {
        let octet = octet.unwrap_or_else(|| self.next_octet.fetch_add(1, Ordering::Relaxed));
        let machine = format!("b{octet}");
        let dir = self.dir.join(&machine);
        fs::create_dir(&dir).with_context(|| format!("the address 10.99.0.{octet} is taken"))?;
        Ok((format!("10.99.0.{octet}"), machine, dir))
    }

    fn enter(
        &self,
        hostname: String,
        address: String,
        machine: String,
        (dir, disk, args): (PathBuf, RootFs, Vec<String>),
    ) -> Result<Arc<TestBox>> {
        let cgroup = Cgroup::create(&format!("{}-{machine}", self.id))?;
        let made = Arc::new(TestBox::new(
            (hostname, address, machine),
            dir,
            disk,
            cgroup,
            args,
        ));
        self.boxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&made));
        Ok(made)
    }

    /// Cuts every box's power, so that nothing runs on while logs are read.
    pub fn power_off(&self) {
        for made in self
            .boxes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            let _ = made.power_cut();
        }
    }
}

fn mount_arg(mount: &spec::Mount, dir: &Path) -> Result<String> {
    Ok(match mount {
        spec::Mount::ReadOnly { from, at } => format!("--bind-ro={}:{at}", from.display()),
        spec::Mount::Shared { from, at } => format!("--bind={}:{at}", from.display()),
        spec::Mount::Overlay { from, at } => {
            let upper = dir
                .join("overlay")
                .join(at.trim_start_matches('/').replace('/', "-"));
            fs::create_dir_all(&upper)?;
            format!("--overlay={}:{}:{at}", from.display(), upper.display())
        }
    })
}

fn show(dir: &Path, title: &str, text: &str, last_lines: usize) {
    let _ = fs::write(dir.join(format!("{}.log", title.replace(' ', "-"))), text);
    let lines: Vec<&str> = text.lines().collect();
    println!("--- {title} ({} lines, the last {last_lines})", lines.len());
    for line in &lines[lines.len().saturating_sub(last_lines)..] {
        println!("{line}");
    }
}

/// Whether the tools that a box needs are there; the error names the first that is not.
pub fn tools_present() -> Result<()> {
    for (program, package) in [
        ("systemd-nspawn", "systemd-container"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
    ] {
        anyhow::ensure!(
            exec::installed(program),
            "{program} is missing (package {package})"
        );
    }
    for (path, package) in [
        ("/usr/bin/dbus-daemon", "dbus"),
        ("/usr/share/polkit-1/actions", "polkitd"),
    ] {
        anyhow::ensure!(Path::new(path).exists(), "{path} is missing (package {package})");
    }
    exec::run(Command::new("systemctl").arg("--version"))?
        .ok()
        .map(drop)
}
