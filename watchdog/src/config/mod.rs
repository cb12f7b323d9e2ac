//! Turns the configuration file into [`Settings`]. Past this module no invalid value exists.
//!
//! The file is walked as a table of values with their places, not deserialised: so every mistake of a file is named at
//! once, with its line, its key, its value and what would be right. It reads one file and no clock; what depends on the
//! machine comes in as [`Surroundings`].

mod checks;
mod gateway;
mod problem;
mod scalar;
mod section;
mod server;
mod token;

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

pub use problem::{ConfigError, Problem};
pub use token::{TokenError, read_token};

use crate::settings::Settings;
use problem::Problems;
use section::Section;

/// Where the file stands unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/fleet-watchdog/config.toml";
/// Bytes of a configuration file: a hundred times what a long one takes.
const FILE_BYTES: u64 = 256 * 1024;

/// What the settings take from the machine and the environment.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The host name: the box's name unless the file says otherwise.
    pub hostname: String,
    /// `$STATE_DIRECTORY`.
    pub state_directory: Option<PathBuf>,
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
            credentials_directory: directory("CREDENTIALS_DIRECTORY").filter(|d| d.join("token").exists()),
        }
    }
}

/// Reads `file`, or the default file: which may be missing, and then every default holds.
pub fn load(file: Option<&Path>, around: &Surroundings) -> Result<Settings, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    match read(path) {
        Ok(bytes) => parse(path, &bytes, around),
        Err(err) if err.kind() == ErrorKind::NotFound && file.is_none() => parse(path, b"", around),
        Err(err) => Err(ConfigError::whole(path, unreadable(&err))),
    }
}

/// `bytes` as the content of `file`.
pub fn parse(file: &Path, bytes: &[u8], around: &Surroundings) -> Result<Settings, ConfigError> {
    let text = std::str::from_utf8(bytes).map_err(|err| {
        let line = bytes[..err.valid_up_to()].split(|&b| b == b'\n').count();
        ConfigError::whole(
            file,
            format!(
                "line {line} is not UTF-8 (byte {}); save the file as UTF-8",
                err.valid_up_to()
            ),
        )
    })?;
    let problems = Problems::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for err in errors {
        problems.add_syntax(err.span(), err.message());
    }
    // What a recovering parser makes of broken syntax would only give misleading errors about keys.
    if !problems.is_empty() {
        return Err(problems.into_error(file));
    }
    let top = Section::new("", 0..0, Some(table.get_ref()), &problems);
    let settings = settings(&top, around);
    top.finish();
    match settings {
        Some(settings) if problems.is_empty() => Ok(settings),
        _ => Err(problems.into_error(file)),
    }
}

fn settings(top: &Section<'_>, around: &Surroundings) -> Option<Settings> {
    let state_dir = top.path("state_dir");
    let state_dir = state_dir.or_else(|| around.state_directory.clone());
    let state_dir = state_dir.unwrap_or_else(|| PathBuf::from("/var/lib/fleet-watchdog"));
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

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(FILE_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES {
        let text = format!("it is over {FILE_BYTES} bytes long, which no configuration is");
        return Err(std::io::Error::new(ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

fn unreadable(err: &std::io::Error) -> String {
    match err.kind() {
        ErrorKind::NotFound => {
            "there is no such file; give an existing one, or leave --config out for the defaults".to_owned()
        }
        ErrorKind::PermissionDenied => {
            format!(
                "cannot be read: {err}; run as root, or make it readable (chmod 0644): it holds no secret"
            )
        }
        _ => format!("cannot be read: {err}"),
    }
}

#[cfg(test)]
mod tests;
