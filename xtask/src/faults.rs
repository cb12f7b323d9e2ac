//! `cargo xtask faults`: builds with progress, then hands over to the fault driver of the `tests` crate.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::stage::cargo;

/// What the driver is told; it says itself what it takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// --seed N --count M [--jobs J] [--json] …; `-- --help` names them all
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the programs, and becomes the driver.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let built = cargo(&["build", "--workspace", "--bins"])
        .status()
        .context("cannot start cargo")?;
    ensure!(built.success(), "cargo could not build the programs, see above");
    let program = std::env::current_exe()?.with_file_name("fleet-faults");
    Err(Command::new(&program).args(&args.rest).exec())
        .with_context(|| format!("cannot start {}", program.display()))
}
