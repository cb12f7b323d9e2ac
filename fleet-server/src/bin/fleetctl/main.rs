//! `fleetctl`: the operators' command line. Flags, one request, what it says; it keeps nothing and decides nothing.

mod client;
mod commands;
mod flags;
mod mutes;
mod show;
mod table;

use std::process::ExitCode;

use clap::Parser;

use crate::client::Client;
use crate::flags::Flags;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(err) => {
            eprintln!("fleetctl: cannot start: {err}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        let client = Client::new(&flags.server)?;
        commands::run(&client, flags.json, flags.command).await
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("fleetctl: {err}");
            err.exit_code()
        }
    }
}
