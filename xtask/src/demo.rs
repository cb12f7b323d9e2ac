//! `./dev demo`: builds with progress, then hands over to the demo program of the `tests` crate.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::stage::cargo;

/// How the demo runs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ends after the alert and its end instead of going on until Ctrl-C
    #[arg(long)]
    once: bool,
}

/// Builds everything that the demo starts, and becomes it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    eprintln!("building (the first time: two minutes or so)");
    let packages = ["-p", "fleet-watchdog", "-p", "fleet-server", "-p", "fleet-tests"];
    let built = cargo(&[&["build", "--bins"][..], &packages[..]].concat())
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "cargo could not build the programs, see above");
    let program = std::env::current_exe()?.with_file_name("fleet-demo");
    let mut demo = std::process::Command::new(&program);
    if args.once {
        demo.arg("--once");
    }
    // In place of this process: Ctrl-C reaches the demo alone, and it cleans up behind itself.
    Err(demo.exec()).with_context(|| format!("cannot start {}", program.display()))
}
