//! `[box]`, `[server]`, `[heartbeat]`, `[checks]`: who the box is, where it reports to, and how often.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::limits;
use protocol::names::{BoxName, Labels};
use url::Url;

use super::section::{Item, Section};
use crate::settings::{HeartbeatMode, HeartbeatSettings, RunSettings, ServerSettings};

/// The fewest milliseconds of a check's time-out: less than this calls a busy box broken.
const CHECK_TIMEOUT_MIN: Duration = Duration::from_millis(100);
/// The longest time-out of one check: all of them together end well within the unit's `TimeoutStartSec`.
pub(super) const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(120);
/// Servers to beat to.
const SERVERS: usize = 4;

/// The range of every time-out.
pub(super) fn timeouts() -> std::ops::RangeInclusive<Duration> {
    CHECK_TIMEOUT_MIN..=CHECK_TIMEOUT_MAX
}

pub(super) fn identity(section: Section<'_>, hostname: &str) -> Option<(BoxName, Labels)> {
    let name = match section.item("name") {
        Some(item) => item.text().and_then(|text| item.keep(BoxName::new(text))),
        None => BoxName::new(hostname)
            .map_err(|err| unusable(&section, hostname, &err.to_string()))
            .ok(),
    };
    let labels = match section.item("labels") {
        Some(item) => labels(&item),
        None => Some(Labels::default()),
    };
    section.finish();
    Some((name?, labels?))
}

fn unusable(section: &Section<'_>, hostname: &str, err: &str) {
    section.wrong_at(
        "name",
        format!("is not given, and the host name {hostname:?} cannot stand for it: it {err}"),
    );
}

fn labels(item: &Item<'_>) -> Option<Labels> {
    let Some(table) = item.value.get_ref().as_table() else {
        item.wrong("must be a table of texts, such as { site = \"fsn1\" }");
        return None;
    };
    let mut pairs = Vec::new();
    for (name, value) in table {
        let Some(text) = value.get_ref().as_str() else {
            item.wrong(format!(
                "label {:?} must have a text in quotes as its value",
                name.get_ref()
            ));
            return None;
        };
        pairs.push((name.get_ref().as_ref(), text));
    }
    item.keep(Labels::from_texts(pairs))
}

pub(super) fn server(section: Section<'_>, credentials: Option<&Path>) -> Option<ServerSettings> {
    let urls = section.item("urls");
    let token_file = section.path("token_file");
    let ca_file = section.path("ca_file");
    let there = section.is_there();
    let Some(urls) = urls else {
        if there && (section.has("token_file") || section.has("ca_file")) {
            section.wrong_at(
                "urls",
                "is missing; write urls = [\"https://fleet.example.net\"], or leave [server] out",
            );
        }
        section.finish();
        return None;
    };
    section.finish();
    let entries = urls.list()?;
    if entries.is_empty() || entries.len() > SERVERS {
        urls.wrong(format!(
            "must name 1 to {SERVERS} servers; to report to none, leave [server] out"
        ));
        return None;
    }
    let urls: Vec<Url> = entries.iter().filter_map(listed_url).collect();
    let default =
        || credentials.map_or_else(|| PathBuf::from("/etc/fleet-watchdog/token"), |d| d.join("token"));
    (urls.len() == entries.len()).then(|| ServerSettings {
        urls,
        token_file: token_file.unwrap_or_else(default),
        ca_file,
    })
}

/// `text` as the address of a server; the error says what would be right, and repeats nothing.
pub fn server_url(text: &str) -> Result<Url, BadUrl> {
    let url = Url::parse(text).map_err(BadUrl::Syntax)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(BadUrl::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(BadUrl::Query);
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if super::is_private(&url) => Ok(url),
        "http" => Err(BadUrl::Clear),
        scheme => Err(BadUrl::Scheme(scheme.to_owned())),
    }
}

/// Why a text is no server's address.
#[derive(Debug, thiserror::Error)]
pub enum BadUrl {
    /// Not a URL.
    #[error("is no URL ({0}); write it like \"https://fleet.example.net\"")]
    Syntax(url::ParseError),
    /// With a user or password in it.
    #[error("must not carry a user or password; the box's token belongs in token_file")]
    Credentials,
    /// With a query or fragment.
    #[error("must end with its host or path, without \"?…\" or \"#…\"; a token belongs in token_file")]
    Query,
    /// Unencrypted over a public network.
    #[error(
        "would send the box's token in the clear; write https://, or the server's address inside a tunnel"
    )]
    Clear,
    /// Neither https nor http.
    #[error("has the scheme {0:?}; it must be https://")]
    Scheme(String),
}

fn listed_url(item: &Item<'_>) -> Option<Url> {
    match server_url(item.text()?) {
        Ok(url) => Some(url),
        Err(err @ (BadUrl::Credentials | BadUrl::Query)) => {
            item.wrong_and_secret(err.to_string());
            None
        }
        Err(err @ (BadUrl::Syntax(_) | BadUrl::Clear | BadUrl::Scheme(_))) => {
            item.wrong(err.to_string());
            None
        }
    }
}

pub(super) fn heartbeat(section: Section<'_>) -> HeartbeatSettings {
    let every = limits::INTERVAL_MIN..=limits::INTERVAL_MAX;
    let settings = HeartbeatSettings {
        every: section.duration("every", Duration::from_secs(1), every),
        mode: match section.item("mode").and_then(|i| i.word(&["resident", "timer"])) {
            Some("timer") => HeartbeatMode::Timer,
            _ => HeartbeatMode::Resident,
        },
        back_within: section.duration(
            "back_within",
            Duration::from_secs(600),
            Duration::from_secs(10)..=limits::BACK_WITHIN_MAX,
        ),
    };
    section.finish();
    settings
}

pub(super) fn run(section: Section<'_>) -> RunSettings {
    let settings = RunSettings {
        every: section.duration(
            "every",
            Duration::from_secs(120),
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        ),
        check_timeout: section.duration("timeout", Duration::from_secs(20), timeouts()),
        evidence_keep: section.integer("evidence_keep", 20, 1..=1000) as usize,
    };
    section.finish();
    settings
}
