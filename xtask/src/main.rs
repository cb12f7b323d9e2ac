//! Project chores: `cargo xtask COMMAND`, or `./dev COMMAND`, which installs what is missing first.
//!
//! - [`stage`]: one step of a longer run: a heading, its time, what it counted
//! - [`test`]: everything that must hold
//!
//! Only the dev profile is built here, except where a measurement is the point.

mod stage;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "./dev", about = "Fleet Watchdog's chores")]
struct Args {
    #[command(subcommand)]
    chore: Option<Chore>,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Format, lints, unit and integration tests, then the scenarios on real booted machines
    Test(test::Args),
}

fn main() -> Result<ExitCode> {
    match Args::parse().chore {
        Some(Chore::Test(args)) => Ok(test::run(&args)),
        None => {
            <Args as clap::CommandFactory>::command().print_help()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
