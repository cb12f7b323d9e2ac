//! The network and the disk of one schedule: a namespace with a cable of its own for each box and receiver, and a small
//! file system for the server's data that can be full or read-only.
//!
//! It exists inside the namespaces that [`crate::runner::isolate`] made, and ends with them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::exec;
use crate::lab::Lab;

/// The switch that [`Lab`] makes …
const SWITCH: &str = "br0";
/// … and the one without power: a cable moved there keeps its carrier, and no frame passes.
const VOID: &str = "void0";
/// What fills the disk.
const BALLAST: &str = "ballast";
/// Written at once while filling the last of it.
const CRUMB: usize = 4096;

/// Somebody's end of the network.
#[derive(Debug)]
pub(super) struct Place {
    name: String,
    address: String,
    /// Faults that hold its cable out.
    cut_by: u32,
}

impl Place {
    /// Makes places with these names; the n-th gets 10.99.0.(11+n).
    pub(super) fn make(names: &[String]) -> Result<Vec<Self>> {
        let places: Vec<Self> = names
            .iter()
            .enumerate()
            .map(|(n, name)| Self {
                name: name.clone(),
                address: format!("10.99.0.{}", n + 11),
                cut_by: 0,
            })
            .collect();
        let of = |place: &Self| {
            let name = &place.name;
            format!(
                "netns add {name}\nlink add c-{name} type veth peer name eth0 netns {name}\n\
                 link set c-{name} master {SWITCH} up\n"
            )
        };
        batch(None, &places.iter().map(of).collect::<String>())?;
        for place in &places {
            let inside = format!(
                "link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n",
                place.address
            );
            batch(Some(&place.name), &inside)?;
        }
        Ok(places)
    }

    /// Its address.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Runs `work` on a thread in there; threads and sockets that it makes are in there too.
    pub(super) fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new("/run/netns").join(&self.name);
        let enter = || -> Result<T> {
            let space = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&space), Some(LinkNameSpaceType::Network))?;
            work()
        };
        std::thread::scope(|scope| scope.spawn(enter).join())
            .map_err(|_| anyhow!("{}: it panicked", self.name))?
    }

    /// One more fault holds the cable out; whether it was in.
    pub(super) fn cut(&mut self) -> Result<bool> {
        self.cut_by += 1;
        if self.cut_by == 1 {
            self.plug(VOID)?;
        }
        Ok(self.cut_by == 1)
    }

    /// One fault fewer; whether the cable is in again.
    pub(super) fn heal(&mut self) -> Result<bool> {
        self.cut_by = self.cut_by.saturating_sub(1);
        if self.cut_by == 0 {
            self.plug(SWITCH)?;
        }
        Ok(self.cut_by == 0)
    }

    fn plug(&self, switch: &str) -> Result<()> {
        exec::ok(
            "ip",
            &["link", "set", &format!("c-{}", self.name), "master", switch],
        )
        .map(drop)
    }
}

fn batch(inside: Option<&str>, lines: &str) -> Result<()> {
    let mut ip = Command::new("ip");
    if let Some(name) = inside {
        ip.args(["-n", name]);
    }
    ip.args(["-batch", "-"]);
    exec::run_with(&mut ip, lines.as_bytes(), exec::LIMIT)?
        .ok()
        .map(drop)
}

/// The server's disk.
#[derive(Debug)]
pub(super) struct Disk {
    at: PathBuf,
    /// Writes fail while this is there (see `tests/genuine/sickdisk`).
    sick: PathBuf,
    full_by: u32,
    again_by: u32,
    sick_by: u32,
}

impl Disk {
    /// Of so many MiB, at `at`.
    pub(super) fn mount(lab: &Lab, at: &Path, mib: u32) -> Result<Self> {
        let size = format!("size={mib}m,mode=700");
        exec::ok(
            "mount",
            &["-t", "tmpfs", "-o", &size, "fleet-data", &at.to_string_lossy()],
        )?;
        Ok(Self {
            at: at.to_owned(),
            sick: lab.host_dir("etc")?.join("disk-is-sick"),
            full_by: 0,
            again_by: 0,
            sick_by: 0,
        })
    }

    /// What a program needs in its environment so that [`sicken`](Self::sicken) reaches it.
    pub(super) fn environment(&self, library: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        vec![
            ("LD_PRELOAD".to_owned(), text(library)),
            ("SICKDISK".to_owned(), text(&self.sick)),
            ("SICKDISK_DIR".to_owned(), text(&self.at)),
        ]
    }

    /// Full; `again`: what becomes free is filled at each [`tend`](Self::tend).
    pub(super) fn fill(&mut self, again: bool) -> Result<()> {
        self.full_by += 1;
        self.again_by += u32::from(again);
        self.stuff()
    }

    /// One fault fewer that fills it; the next [`tend`](Self::tend) makes room when none is left.
    pub(super) fn empty(&mut self, again: bool) {
        self.full_by = self.full_by.saturating_sub(1);
        self.again_by = self.again_by.saturating_sub(u32::from(again));
    }

    /// Fills what became free, where that is wanted; makes room where nobody fills it (unless it is read-only yet).
    pub(super) fn tend(&self) -> Result<()> {
        if self.full_by == 0 {
            let _ = fs::remove_file(self.at.join(BALLAST));
        }
        if self.again_by > 0 { self.stuff() } else { Ok(()) }
    }

    /// Whether writing can fail now.
    pub(super) fn is_ill(&self) -> bool {
        self.full_by > 0 || self.sick_by > 0
    }

    /// Every write fails.
    pub(super) fn sicken(&mut self) -> Result<()> {
        self.sick_by += 1;
        Ok(fs::write(&self.sick, "")?)
    }

    /// One fault fewer that makes writes fail.
    pub(super) fn cure(&mut self) -> Result<()> {
        self.sick_by = self.sick_by.saturating_sub(1);
        if self.sick_by == 0 {
            fs::remove_file(&self.sick)?;
        }
        Ok(())
    }

    /// Really read-only, which works only while nobody has a file of it open for writing.
    pub(super) fn read_only(&self, on: bool) -> Result<()> {
        let options = if on { "remount,ro" } else { "remount,rw" };
        exec::ok("mount", &["-o", options, &self.at.to_string_lossy()]).map(drop)
    }

    fn stuff(&self) -> Result<()> {
        let path = self.at.join(BALLAST);
        let mut file = match File::options().create(true).append(true).open(&path) {
            Ok(file) => file,
            // Read-only as well just now.
            Err(err) if err.kind() == std::io::ErrorKind::ReadOnlyFilesystem => return Ok(()),
            // Not a free inode or page.
            Err(err) if err.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(err) => return Err(err.into()),
        };
        let disk = statvfs(&self.at)?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free > 0 {
            let end = file.metadata()?.len();
            // The server may take some of it meanwhile.
            let _ = fallocate(&file, FallocateFlags::empty(), end, free);
        }
        while file.write_all(&[0; CRUMB]).is_ok() {}
        Ok(())
    }
}
