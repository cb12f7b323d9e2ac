//! The command line: what may be said, and nothing about how it is done.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Fleet Watchdog on this box: checks it, mends its gateway, tells the fleet server.
#[derive(Debug, Parser)]
#[command(
    name = "fleet-watchdog",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
pub struct Cli {
    /// Configuration [default: /etc/fleet-watchdog/config.toml, which may be missing]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all checks once, restart what has failed for long enough, keep and print the report.
    ///
    /// Exit status: 0 nothing is failing, 1 something is failing, 75 another run is under way, 78 the configuration is
    /// wrong. Every run counts, the timer's and one by hand; one with --no-act does not.
    Check(CheckArgs),
    /// Send a heartbeat every second until stopped (the resident part).
    Beat,
    /// Show the newest report and what is going on.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hold remedies back for a while; checks and heartbeats go on, but the server tells nobody of this box (for a day at
    /// most).
    Pause {
        /// How long: 30m, 2h, 1d; at most 30d.
        #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
        length: Duration,
        /// Why, in a line: it stands in every report.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// End a pause.
    Resume,
    /// Get this box's token with an enrolment code, and keep it in the token file.
    Enroll(EnrollArgs),
    /// Check a configuration file: exit status 0, or 78 with every mistake named.
    CheckConfig {
        /// The file [default: that of --config]
        file: Option<PathBuf>,
    },
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Print the report as JSON, as it goes over the wire.
    #[arg(long)]
    pub json: bool,
    /// Look and tell only: no restart, no counter, no stored report.
    #[arg(long)]
    pub no_act: bool,
}

/// `enroll`
#[derive(Debug, Args)]
pub struct EnrollArgs {
    /// The server, such as https://fleet.example.net [default: the first of the configuration]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    /// The enrolment code; "-" reads it from standard input, where no process list shows it.
    #[arg(
        long,
        value_name = "CODE",
        env = "FLEET_WATCHDOG_CODE",
        hide_env_values = true
    )]
    pub code: String,
    /// The box's name [default: that of the configuration, else the host name]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace an existing token.
    #[arg(long)]
    pub force: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_config_may_stand_before_or_after() {
        for line in [
            "fleet-watchdog --config /x check --json",
            "fleet-watchdog check --json --config /x",
        ] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.config, Some(PathBuf::from("/x")));
            assert!(matches!(
                cli.command,
                Command::Check(CheckArgs {
                    json: true,
                    no_act: false
                })
            ));
        }
    }
}
