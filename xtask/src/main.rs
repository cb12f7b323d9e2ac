//! Project chores: `cargo xtask COMMAND`, or `./dev COMMAND`, which installs what is missing first.
//!
//! - [`stage`]: one step of a longer run: a heading, its time, what it counted
//! - [`test`]: everything that must hold
//! - [`bench`]: what the watchdog costs a box
//! - [`sim`]: the detector over box-years of seeded weather
//! - [`demo`]: the main job, played on this machine
//! - [`faults`]: the real server under random schedules of faults
//!
//! Only the dev profile is built here, except where a measurement is the point.

mod bench;
mod demo;
mod faults;
mod sim;
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
    /// What the watchdog costs a box, measured on a real one with release builds
    Bench,
    /// The detector over box-years of seeded weather, beside fixed time-outs and phi-accrual
    Sim(sim::Args),
    /// The main job on this machine: a server, 20 played boxes, one goes dark; Ctrl-C ends it
    Demo(demo::Args),
    /// The real server under random seeded schedules of faults, judged from outside
    Faults(faults::Args),
}

fn main() -> Result<ExitCode> {
    match Args::parse().chore {
        Some(Chore::Test(args)) => Ok(test::run(&args)),
        Some(Chore::Bench) => bench::run(),
        Some(Chore::Sim(args)) => sim::run(&args),
        Some(Chore::Demo(args)) => demo::run(&args),
        Some(Chore::Faults(args)) => faults::run(&args),
        None => {
            <Args as clap::CommandFactory>::command().print_help()?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
