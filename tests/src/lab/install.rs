//! Installs the watchdog into a box as an operator would: copies `deploy/`, the program, a config and a token.
//!
//! It runs what an installation runs (sysusers, tmpfiles, enabling the units) and knows no unit's content.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::rootfs::RootFs;
use super::spec::WatchdogSetup;
use crate::exec;
use crate::programs;

/// What the watchdog's installation starts.
const UNITS: [&str; 2] = ["fleet-watchdog.timer", "fleet-watchdog-beat.service"];

/// Puts the watchdog on the disk of a box that is off.
pub(super) fn watchdog(disk: &RootFs, setup: &WatchdogSetup) -> Result<()> {
    for (path, source) in deployed()? {
        if path.contains("fleet-watchdog") {
            disk.write(&path, 0o644, "root", &fs::read(&source)?)?;
        }
    }
    disk.write(
        "/usr/bin/fleet-watchdog",
        0o755,
        "root",
        &fs::read(programs::path("fleet-watchdog")?)?,
    )?;
    let root = format!("--root={}", disk.path().display());
    exec::ok("systemd-sysusers", &[&root])?;
    exec::ok(
        "systemd-tmpfiles",
        &[
            &root,
            "--create",
            "--prefix=/etc/fleet-watchdog",
            "--prefix=/var/lib/fleet-watchdog",
        ],
    )?;
    disk.write(
        "/etc/fleet-watchdog/config.toml",
        0o644,
        "root",
        setup.config.as_bytes(),
    )?;
    if let Some(token) = &setup.token {
        disk.write(
            "/etc/fleet-watchdog/token",
            0o640,
            "root:fleet-watchdog",
            format!("{}\n", token.trim()).as_bytes(),
        )?;
    }
    for (unit, text) in &setup.drop_ins {
        let path = format!("/etc/systemd/system/{unit}.d/50-test.conf");
        disk.write(&path, 0o644, "root", text.as_bytes())?;
    }
    for unit in UNITS {
        exec::ok("systemctl", &[&root, "enable", unit]).with_context(|| format!("cannot enable {unit}"))?;
    }
    Ok(())
}

/// Every file of `deploy/` that mirrors the target's file system: its path there, and where it lies here.
fn deployed() -> Result<Vec<(String, PathBuf)>> {
    let deploy = programs::repository().join("deploy");
    let mut files = Vec::new();
    for top in ["etc", "usr", "lib", "var"] {
        collect(&deploy.join(top), &format!("/{top}"), &mut files)?;
    }
    ensure!(
        !files.is_empty(),
        "{} has no usr/lib/… tree to install",
        deploy.display()
    );
    Ok(files)
}

fn collect(from: &Path, at: &str, files: &mut Vec<(String, PathBuf)>) -> Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let at = format!("{at}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &at, files)?;
        } else {
            files.push((at, entry.path()));
        }
    }
    Ok(())
}
