//! Turns the configuration file into [`Settings`]. Past this module no invalid value exists.
//!
//! Every mistake of the file is named at once. It reads the files that the configuration names as secrets, so that a
//! missing one is found before any port is bound; certificates are checked for being there, and parsed by `web::tls`.

mod doubt;
mod proof;
mod receiver;
mod receivers;
mod routes;
mod secrets;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fleet_config::file;
pub use fleet_config::problem::ConfigError;
use fleet_config::section::{Item, Section};
use protocol::limits;
use url::Url;

use crate::settings::{LivenessSettings, Settings, Tls};

/// Where the file stands unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/fleet-server/fleet-server.toml";
/// Where the store is kept unless the file says otherwise.
const DATA_DIR: &str = "/var/lib/fleet-server";
/// Loopback, unless the file says otherwise: nobody is served by accident.
const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8470);
/// The longest wait before a dark box is told: longer is no watchdog.
const DARK_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest time that nobody is judged after a start.
const WARM_UP_MAX: Duration = Duration::from_secs(600);

/// Reads `path`.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    match file::read(path) {
        Ok(bytes) => parse(path, &bytes),
        Err(err) => Err(file::unreadable(path, &err)),
    }
}

/// `bytes` as the content of `path`.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Settings, ConfigError> {
    file::parse(path, bytes, settings)
}

fn settings(top: &Section<'_>) -> Option<Settings> {
    let listen = match top.item("listen") {
        Some(item) => listen(&item),
        None => Some(LISTEN),
    };
    let data_dir = top.path("data_dir").unwrap_or_else(|| PathBuf::from(DATA_DIR));
    let public_url = top.item("public_url").and_then(|item| public_url(&item));
    let tls = tls(top.section("tls"));
    let (liveness, group_by) = liveness(top.section("liveness"));
    let receivers = receivers::read(top);
    let (routes, incidents) = routes::read(top, &receivers);
    let dead_man = proof::dead_man(top.section("dead_man"));
    let witness = doubt::witness(top.section("witness"), &receivers, dead_man.as_ref());
    let canary = proof::canary(top.section("canary"), &receivers);
    proof::reserved(top, &receivers);
    Some(Settings {
        listen: listen?,
        data_dir,
        public_url,
        tls,
        liveness,
        group_by,
        witness,
        receivers,
        routes,
        dead_man,
        canary,
        incidents,
    })
}

fn listen(item: &Item<'_>) -> Option<SocketAddr> {
    let wrong = |_| "is no address to listen on; write an IP address with a port, such as \"127.0.0.1:8470\" or \"[::]:8470\"";
    item.keep(item.text()?.parse().map_err(wrong))
}

fn public_url(item: &Item<'_>) -> Option<Url> {
    let url = web_url(item)?;
    if url.query().is_some() || url.fragment().is_some() {
        item.wrong("must end with its host or path, such as \"https://fleet.example.net\"");
        return None;
    }
    Some(url)
}

/// An `http` or `https` URL with a host and without a user or password.
fn web_url(item: &Item<'_>) -> Option<Url> {
    let url = match Url::parse(item.text()?) {
        Ok(url) => url,
        Err(err) => {
            item.wrong(format!(
                "is no URL ({err}); write it like \"https://fleet.example.net\""
            ));
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        item.wrong_and_secret("must not carry a user or password; give the secret in a file");
        return None;
    }
    if !matches!(url.scheme(), "http" | "https") {
        item.wrong(format!(
            "has the scheme {:?}; it must be http:// or https://",
            url.scheme()
        ));
        return None;
    }
    Some(url)
}

fn tls(section: Section<'_>) -> Option<Tls> {
    let there = section.is_there();
    let cert_file = section.item("cert_file").and_then(|item| present(&item));
    let key_file = section.item("key_file").and_then(|item| present(&item));
    for key in ["cert_file", "key_file"] {
        if there && !section.has(key) {
            section.wrong_at(key, "is missing; [tls] needs cert_file and key_file, both PEM");
        }
    }
    section.finish();
    Some(Tls {
        cert_file: cert_file?,
        key_file: key_file?,
    })
}

/// A path to a file that is there and can be read.
fn present(item: &Item<'_>) -> Option<PathBuf> {
    let path = item.path()?;
    match std::fs::File::open(&path) {
        Ok(_) => Some(path),
        Err(err) => {
            item.wrong(format!(
                "cannot be read: {err}; the server's user must be able to read it"
            ));
            None
        }
    }
}

fn liveness(section: Section<'_>) -> (LivenessSettings, Vec<String>) {
    let default = LivenessSettings::default();
    let every = section.duration(
        "every",
        default.every,
        limits::INTERVAL_MIN..=limits::INTERVAL_MAX,
    );
    // The defaults are for one beat a second; a slower fleet gets them in proportion.
    let factor = every.as_secs_f64().max(1.0) / default.every.as_secs_f64();
    let scaled = |by: Duration| by.mul_f64(factor).min(DARK_MAX);
    let dark_after = section.duration(
        "dark_after",
        scaled(default.dark_after),
        Duration::from_secs(1)..=DARK_MAX,
    );
    let dark_after_max = section.duration(
        "dark_after_max",
        scaled(default.dark_after_max).max(dark_after),
        Duration::from_secs(1)..=DARK_MAX,
    );
    let tolerance = section.duration(
        "tolerance",
        scaled(default.tolerance).min(dark_after),
        Duration::from_millis(250)..=DARK_MAX,
    );
    if tolerance > dark_after {
        section.wrong_at(
            "tolerance",
            format!(
                "must not be longer than dark_after ({}): after that the box is dark",
                humantime::format_duration(dark_after)
            ),
        );
    }
    if dark_after < every * 2 {
        section.wrong_at(
            "dark_after",
            format!(
                "must be at least two beats ({}): one lost packet is no dead box; make it longer, or `every` shorter",
                humantime::format_duration(every * 2)
            ),
        );
    }
    if dark_after_max < dark_after {
        section.wrong_at(
            "dark_after_max",
            format!(
                "must not be shorter than dark_after ({})",
                humantime::format_duration(dark_after)
            ),
        );
    }
    let false_alarms = section
        .item("false_alarms_per_box_year")
        .and_then(|item| item.number(0.001..=1000.0));
    let settings = LivenessSettings {
        every,
        tolerance,
        dark_after,
        dark_after_max,
        false_alarms_per_box_year: false_alarms.unwrap_or(default.false_alarms_per_box_year),
        warm_up: section.duration(
            "warm_up",
            dark_after.min(WARM_UP_MAX),
            Duration::ZERO..=WARM_UP_MAX,
        ),
    };
    let group_by = doubt::group_by(&section);
    section.finish();
    (settings, group_by)
}
