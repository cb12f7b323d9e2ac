//! `cargo xtask sim`: the detector over box-years of seeded weather.
//!
//! The dev profile's dependencies serve it as they are; only this workspace's own crates, in which all of its time is
//! spent, are built optimised beside them. So it is ready in a minute, not ten.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::stage::cargo;

/// What is optimised.
const OPTIMISED: [&str; 4] = [
    "fleet-detection",
    "fleet-server",
    "fleet-watchdog",
    "fleet-protocol",
];
/// How.
const HOW: [&str; 4] = [
    "opt-level=2",
    "debug-assertions=false",
    "overflow-checks=false",
    "debug=false",
];

/// Passed on as they are.
#[derive(Debug, clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// See `cargo xtask sim --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds it and runs it.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let rest: Vec<&str> = args.rest.iter().map(String::as_str).collect();
    let status = command(&rest).status().context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The command that builds and runs it.
pub(crate) fn command(args: &[&str]) -> std::process::Command {
    let mut command = cargo(&["run", "--quiet", "--package", "fleet-detection"]);
    for package in OPTIMISED {
        for how in HOW {
            command.args(["--config", &format!("profile.dev.package.{package}.{how}")]);
        }
    }
    command.arg("--").args(args);
    command
}
