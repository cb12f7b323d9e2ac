//! A box's own cgroup: the switch that cuts its power or freezes the whole machine.
//!
//! Works on the unified hierarchy and on the hybrid one; not on a machine with the first version alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;

const ROOT: &str = "/sys/fs/cgroup";
/// Names start with this, so that leftovers of a killed run are found and removed.
const PREFIX: &str = "fleet-tests-";

/// One group in every hierarchy that a booted system needs.
#[derive(Debug)]
pub struct Cgroup {
    dirs: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes the group; `name` is unique among the running harnesses.
    pub fn create(name: &str) -> Result<Self> {
        let dirs: Vec<PathBuf> = hierarchies()?
            .iter()
            .map(|dir| dir.join(format!("{PREFIX}{name}")))
            .collect();
        let group = Self { dirs };
        group.ensure()?;
        Ok(group)
    }

    /// Makes it again where it is gone: while the box is off it is empty, and another run's [`remove_leftovers`] takes
    /// it for a leftover.
    pub fn ensure(&self) -> Result<()> {
        for dir in &self.dirs {
            fs::create_dir_all(dir).with_context(|| format!("cannot make the cgroup {}", dir.display()))?;
        }
        Ok(())
    }

    /// The files that take a process in.
    pub fn procs_files(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.dirs.iter().map(|dir| dir.join("cgroup.procs"))
    }

    /// SIGKILL to every process in it, at once.
    pub fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Stops (or lets go on) every process in it; returns when the kernel says that it is so.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        self.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
        let events = self.second_version().join("cgroup.events");
        let wanted = format!("frozen {}", u8::from(frozen));
        clock::wait_until("the cgroup to freeze or thaw", Duration::from_secs(5), || {
            fs::read_to_string(&events).is_ok_and(|text| text.lines().any(|line| line == wanted))
        })?;
        Ok(())
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.second_version().join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    fn second_version(&self) -> &Path {
        self.dirs.last().map_or(Path::new(ROOT), PathBuf::as_path)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for dir in &self.dirs {
            remove_tree(dir);
        }
    }
}

/// Whether boxes can have groups here; the error says what is missing.
pub fn usable() -> Result<()> {
    let probe = Cgroup::create(&format!("probe-{}", std::process::id()))?;
    if !probe.second_version().join("cgroup.kill").exists() {
        bail!("the kernel has no cgroup.kill (5.14 and later have it)");
    }
    Ok(())
}

/// Removes the groups that runs which are gone left behind; those in use stay, the kernel sees to that.
pub fn remove_leftovers() {
    for dir in hierarchies().unwrap_or_default() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                remove_tree(&entry.path());
            }
        }
    }
}

/// The one that can kill and freeze comes last.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let (named, unified) = (root.join("systemd"), root.join("unified"));
    if !unified.join("cgroup.controllers").exists() {
        bail!("{ROOT} has no unified hierarchy (cgroup version 2)");
    }
    Ok(if named.exists() {
        vec![named, unified]
    } else {
        vec![unified]
    })
}

/// Only empty groups can be removed, so this never disturbs a running one.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(dir);
}
