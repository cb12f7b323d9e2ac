//! Plays fault schedules; see `fleet_tests::faults`.

use std::process::ExitCode;

use clap::Parser;
use fleet_tests::faults::run;

fn main() -> anyhow::Result<ExitCode> {
    run::main(&run::Args::parse())
}
