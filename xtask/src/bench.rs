//! `./dev bench`: builds as released and measures on a real booted box. Asserts nothing about speed.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::stage::cargo;

/// Runs the measurements; they print their own table.
pub(crate) fn run() -> Result<ExitCode> {
    eprintln!("building as released (fat LTO: some minutes)");
    let status = cargo(&["run", "--quiet", "--package", "fleet-tests", "--", "--bench"])
        .status()
        .context("cannot start cargo")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
