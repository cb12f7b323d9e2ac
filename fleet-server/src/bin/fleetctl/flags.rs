//! The flags and commands.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use protocol::api::Liveness;
use protocol::incident::Kind;
use protocol::names::BoxName;
use protocol::witness::Target;
use url::Url;

use crate::mutes::{MaintenanceCommand, SilenceCommand};

const EXIT_HELP: &str = "Exit status: 0 done, 1 the server refused or there is no such thing, 2 wrong usage, \
                         3 the server cannot be reached or is in trouble, 4 the token is not good (enough).";

/// Adds boxes, looks at them, and takes incidents in hand.
#[derive(Parser)]
#[command(name = "fleetctl", version, after_help = EXIT_HELP)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) server: ServerFlags,
    /// Print JSON, as the server says it.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Args)]
pub(crate) struct ServerFlags {
    /// The server.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "FLEET_SERVER",
        default_value = "http://127.0.0.1:8470"
    )]
    pub(crate) server: Url,
    /// A file with an operator's token; the first one is <data_dir>/admin.token on the server.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "FLEET_TOKEN_FILE",
        default_value = "/var/lib/fleet-server/admin.token"
    )]
    pub(crate) token_file: PathBuf,
    /// A PEM file with further certificate authorities to trust.
    #[arg(long, global = true, value_name = "FILE", env = "FLEET_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long to wait for the server.
    #[arg(long, global = true, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Boxes and their tokens.
    #[command(subcommand)]
    Box(BoxCommand),
    /// Codes with which boxes get their token by themselves.
    #[command(subcommand)]
    EnrollCode(EnrollCodeCommand),
    /// What is and was wrong.
    #[command(subcommand)]
    Incident(IncidentCommand),
    /// What is told to nobody for a while.
    #[command(subcommand)]
    Silence(SilenceCommand),
    /// Boxes that may go for a while.
    #[command(subcommand)]
    Maintenance(MaintenanceCommand),
    /// Who may use this API.
    #[command(subcommand)]
    Operator(OperatorCommand),
    /// Who is told, and whether they take it.
    #[command(subcommand)]
    Receiver(ReceiverCommand),
}

#[derive(Subcommand)]
pub(crate) enum BoxCommand {
    /// Adds a box and prints its token, and nothing else.
    Add {
        /// Its name, as incidents will call it.
        name: BoxName,
        /// A label; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Whom the server asks when the box is silent, to tell a dead host from a dead watchdog: an address, or
        /// tailscale:NAME for a peer of the server's own tailscaled; may be given several times.
        #[arg(long = "witness", alias = "witness-tcp", value_name = "HOST:PORT")]
        witnesses: Vec<Target>,
    },
    /// Lists boxes.
    List {
        /// Only those in this state.
        #[arg(long)]
        state: Option<Liveness>,
        /// Only those with this label; may be given several times.
        #[arg(long = "label", value_name = "NAME=VALUE", value_parser = pair)]
        labels: Vec<(String, String)>,
        /// Only those with this text in their name.
        #[arg(value_name = "TEXT")]
        text: Option<String>,
    },
    /// Shows all that is known of a box.
    Show {
        /// Its name.
        name: BoxName,
    },
    /// Declares whom the server asks when the box is silent, instead of those declared so far; none: nobody.
    Witness {
        /// Its name.
        name: BoxName,
        /// An address, or tailscale:NAME for a peer of the server's own tailscaled.
        #[arg(value_name = "HOST:PORT")]
        witnesses: Vec<Target>,
    },
    /// Makes a new token and prints it, and nothing else; the old one stays good for a while.
    Rotate {
        /// Its name.
        name: BoxName,
        /// How long the old token stays good.
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
        overlap: Duration,
    },
    /// Takes all tokens of a box away; it stays listed.
    Revoke {
        /// Its name.
        name: BoxName,
    },
    /// Removes a box and all that is known of it; its incidents stay.
    Remove {
        /// Its name.
        name: BoxName,
    },
}

#[derive(Subcommand)]
pub(crate) enum EnrollCodeCommand {
    /// Makes a code and prints it, and nothing else.
    Create {
        /// How many boxes may use it.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it is good.
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
        expires: Duration,
    },
}

#[derive(Subcommand)]
pub(crate) enum IncidentCommand {
    /// Lists open incidents, newest first.
    List {
        /// Resolved ones too.
        #[arg(long)]
        all: bool,
        /// Only of this kind.
        #[arg(long)]
        kind: Option<Kind>,
        /// Only about this box.
        #[arg(long = "box", value_name = "NAME")]
        box_name: Option<BoxName>,
    },
    /// Shows an incident with its timeline.
    Show {
        /// Its number.
        id: i64,
    },
    /// Says that you have it in hand: nobody else is told, no reminder is sent.
    Ack {
        /// Its number.
        id: i64,
        /// A word about it.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Gives it back: the steps of its route begin anew.
    Unack {
        /// Its number.
        id: i64,
        /// A word about it.
        #[arg(long, default_value = "")]
        note: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum ReceiverCommand {
    /// Lists receivers with what waits for them and what they said last.
    List,
    /// Sends a marked test and shows the answer; exit status 1 if it was not taken.
    Test {
        /// Its name in the configuration.
        name: String,
    },
}

#[derive(Subcommand)]
pub(crate) enum OperatorCommand {
    /// Makes an operator's token and prints it, and nothing else.
    Add {
        /// Who.
        name: BoxName,
        /// What they may: viewer, operator or admin.
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
    },
    /// Lists operators' tokens.
    List,
    /// Takes an operator's token away.
    Remove {
        /// Who.
        name: String,
    },
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|err| format!("{err}; write it like 90s, 24h or 7d"))
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        Some(_) | None => Err("write it like site=fsn1".to_owned()),
    }
}
