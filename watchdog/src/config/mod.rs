//! Turns the configuration file into [`Settings`]. Past this module no invalid value exists.
//!
//! The file is walked as a table of values with their places, not deserialised: so every mistake of a file is named at
//! once, with its line, its key, its value and what would be right. It reads one file and no clock; what depends on the
//! machine comes in as [`Surroundings`].

mod checks;
mod gateway;
mod server;
mod token;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use fleet_config::address::is_private;
pub use fleet_config::problem::{ConfigError, Problem};
use fleet_config::{file, scalar, section};
pub use server::{BadUrl, server_url};
pub use token::{TokenError, read_token};

use crate::settings::Settings;
use section::Section;

/// Where the file stands unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/fleet-watchdog/config.toml";

const DEFAULT_STATE_DIR: &str = "/var/lib/fleet-watchdog";
const DEFAULT_SPARE_DIR: &str = "/run/fleet-watchdog";

/// What the settings take from the machine and the environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The host name: the box's name unless the file says otherwise.
    pub hostname: String,
    /// `$STATE_DIRECTORY`.
    pub state_directory: Option<PathBuf>,
    /// `$RUNTIME_DIRECTORY`.
    pub runtime_directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, if it holds a token.
    pub credentials_directory: Option<PathBuf>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_this_process() -> Self {
        let directory = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|p| p.is_absolute())
        };
        Self {
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            state_directory: directory("STATE_DIRECTORY"),
            runtime_directory: directory("RUNTIME_DIRECTORY"),
            credentials_directory: directory("CREDENTIALS_DIRECTORY").filter(|d| d.join("token").exists()),
        }
    }
}

/// Reads `file`, or the default file: which may be missing, and then every default holds.
pub fn load(wanted: Option<&Path>, around: &Surroundings) -> Result<Settings, ConfigError> {
    let path = wanted.unwrap_or(Path::new(DEFAULT_FILE));
    match file::read(path) {
        Ok(bytes) => parse(path, &bytes, around),
        Err(err) if err.kind() == ErrorKind::NotFound && wanted.is_none() => parse(path, b"", around),
        Err(err) => Err(file::unreadable(path, &err)),
    }
}

/// `bytes` as the content of `file`.
pub fn parse(path: &Path, bytes: &[u8], around: &Surroundings) -> Result<Settings, ConfigError> {
    file::parse(path, bytes, |top| settings(top, around))
}

fn settings(top: &Section<'_>, around: &Surroundings) -> Option<Settings> {
    let state_dir = top.path("state_dir");
    let state_dir = state_dir.or_else(|| around.state_directory.clone());
    let state_dir = state_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_STATE_DIR));
    let usual = state_dir == Path::new(DEFAULT_STATE_DIR);
    let spare_dir = around.runtime_directory.clone();
    let spare_dir = spare_dir.or_else(|| usual.then(|| PathBuf::from(DEFAULT_SPARE_DIR)));
    let run = server::run(top.section("checks"));
    let identity = server::identity(top.section("box"), &around.hostname);
    let server = server::server(top.section("server"), around.credentials_directory.as_deref());
    let heartbeat = server::heartbeat(top.section("heartbeat"));
    let gateway = gateway::gateways(top.item("gateway"), run.check_timeout);
    let backup = checks::backup(top.section("backup"), run.check_timeout);
    let disk = checks::disk(top.section("disk"), run.check_timeout, &state_dir, &backup);
    let tailscale = checks::tailscale(top.section("tailscale"), run.check_timeout);
    let (name, labels) = identity?;
    Some(Settings {
        name,
        labels,
        state_dir,
        spare_dir,
        server,
        heartbeat,
        run,
        gateways: gateway.units,
        gateway_disabled: gateway.disabled,
        disk,
        backup,
        tailscale,
    })
}

#[cfg(test)]
mod tests;
