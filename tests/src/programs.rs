//! Where the repository and its built programs are.
//!
//! The runner builds them and puts copies without debug information beside its logs, so that a rebuild during a run
//! changes nothing; a scenario asks [`path`].

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Set by the runner for its scenarios: the directory of the copies.
pub const DIR_VAR: &str = "FLEET_TESTS_PROGRAMS";
/// The product's programs.
const PROGRAMS: [&str; 3] = ["fleet-watchdog", "fleet-server", "fleetctl"];

/// One of the product's programs, as built for this run.
pub fn path(program: &str) -> Result<PathBuf> {
    let dir = std::env::var_os(DIR_VAR).map_or_else(built_dir, |dir| Ok(PathBuf::from(dir)))?;
    let path = dir.join(program);
    ensure!(
        path.is_file(),
        "{} is not built; `./dev test` builds it",
        path.display()
    );
    Ok(path)
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("/"))
}

/// Where downloads and built third-party parts are kept between runs.
pub fn cache_dir() -> PathBuf {
    std::env::var_os("FLEET_CACHE").map_or_else(|| repository().join(".cache"), PathBuf::from)
}

/// Builds the programs with the dev profile, or as they are released.
pub fn build(release: bool) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--bins"])
        .current_dir(repository());
    if release {
        // Each with the features it is shipped with.
        cargo.args(["--release", "-p", "fleet-watchdog", "-p", "fleet-server"]);
    } else {
        // With the features of the whole workspace, as `./dev test` builds them: dependencies are compiled once.
        cargo.arg("--workspace");
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build the programs");
    Ok(())
}

/// Builds server and simulated fleet with the profile `load`; where they lie.
pub fn build_for_load() -> Result<PathBuf> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--quiet",
            "--profile",
            "load",
            "-p",
            "fleet-server",
            "-p",
            "fleet-tests",
        ])
        .args(["--bin", "fleet-server", "--bin", "fleet-sim"])
        .current_dir(repository());
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo could not build the programs for load");
    Ok(built_dir()?.with_file_name("load"))
}

/// Copies the built programs to `dir`, without their debug information where `strip` is there.
pub fn copy_to(dir: &Path, release: bool) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    for program in PROGRAMS {
        let built = if release {
            built_dir()?.with_file_name("release")
        } else {
            built_dir()?
        };
        let (from, to) = (built.join(program), dir.join(program));
        let _ = std::fs::remove_file(&to);
        // What is measured is what is shipped.
        let strip = || Command::new("strip").arg("-o").arg(&to).arg(&from).status();
        if release || !strip().is_ok_and(|status| status.success()) {
            std::fs::copy(&from, &to).with_context(|| format!("{} is not built", from.display()))?;
        }
    }
    Ok(())
}

/// Cargo puts all binaries of a profile into one directory, this one too.
fn built_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().context("a program lies in a directory")?.to_owned())
}
