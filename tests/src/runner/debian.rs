//! Programs of Debian packages whose installation would start and enable a daemon: the package is fetched and unpacked
//! into the cache, not installed.
//!
//! Nothing of the machine changes: package lists are read where they are, or fetched into the cache when they are not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::clock::secs;
use crate::exec;
use crate::programs;

/// Package lists are some 10 MB, a package up to 60 MB.
const FETCH_LIMIT: Duration = secs(600);
static FETCHING: Mutex<()> = Mutex::new(());

/// The directory that holds `programs`: the installed ones', or the unpacked ones' of `package`.
pub fn bin_dir(package: &str, programs: &[&str]) -> Result<PathBuf> {
    let complete = |dir: &Path| programs.iter().all(|name| dir.join(name).is_file());
    let installed = Path::new("/usr/bin");
    if complete(installed) {
        return Ok(installed.to_owned());
    }
    let home = programs::cache_dir().join("debian").join(package);
    let unpacked = home.join("usr/bin");
    if !complete(&unpacked) {
        fetch(package, &home).with_context(|| format!("cannot fetch the Debian package {package}"))?;
        ensure!(
            complete(&unpacked),
            "the package {package} lacks one of {programs:?}"
        );
    }
    Ok(unpacked)
}

fn fetch(package: &str, home: &Path) -> Result<()> {
    ensure!(
        exec::installed("apt-get") && exec::installed("dpkg-deb"),
        "not a Debian; install {package} yourself"
    );
    // They share the package lists.
    let _one_at_a_time = FETCHING.lock().unwrap_or_else(PoisonError::into_inner);
    eprintln!("fetching the Debian package {package} into {}", home.display());
    let scratch = programs::cache_dir().join("debian/fetch");
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir_all(&scratch)?;
    if download(&scratch, &[], package).is_err() {
        let lists = programs::cache_dir().join("debian/lists");
        fs::create_dir_all(lists.join("partial"))?;
        let own = [format!(
            "Dir::State::Lists={}",
            fs::canonicalize(&lists)?.display()
        )];
        apt_get(&scratch, &own, &["update", "-q"])?;
        download(&scratch, &own, package)?;
    }
    let entries = fs::read_dir(&scratch)?.flatten().map(|entry| entry.path());
    let deb = entries
        .into_iter()
        .find(|path| path.extension().is_some_and(|suffix| suffix == "deb"));
    let deb = deb.context("apt-get left no package")?;
    fs::create_dir_all(home)?;
    exec::ok(
        "dpkg-deb",
        &["-x", &deb.to_string_lossy(), &home.to_string_lossy()],
    )?;
    Ok(fs::remove_dir_all(&scratch)?)
}

fn download(into: &Path, options: &[String], package: &str) -> Result<()> {
    apt_get(into, options, &["download", "-q", package])
}

fn apt_get(at: &Path, options: &[String], args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    for option in options {
        command.args(["-o", option]);
    }
    // As root, apt would drop to a user of its own, which cannot write into the cache.
    command
        .args(["-o", "APT::Sandbox::User=root"])
        .args(args)
        .current_dir(at);
    exec::run_with(&mut command, &[], FETCH_LIMIT)?.ok().map(drop)
}
