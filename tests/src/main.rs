//! The runner's command line; see `fleet_tests::runner`.

use std::process::ExitCode;

use clap::Parser;
use fleet_tests::runner;

fn main() -> anyhow::Result<ExitCode> {
    runner::main(&runner::Args::parse())
}
