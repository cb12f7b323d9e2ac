//! `[dead_man]` and `[canary]`: how the server proves itself.

use std::time::Duration;

use fleet_config::address::is_private;
use fleet_config::section::{Item, Section};
use protocol::names::Word;
use url::Url;

use super::secrets::{secret, url_in};
use crate::incident::canary;
use crate::settings::{CanarySettings, DeadMan, PingMethod, Receiver, SecretUrl};

/// How often the service outside is pinged.
const PING_EVERY: Duration = Duration::from_secs(60);
/// Longer than the longest wait that a receiver may ask for (5 min): one that asks for it is not nobody.
const UNHEARD_AFTER: Duration = Duration::from_secs(360);
/// How often the canary goes dark.
const CANARY_EVERY: Duration = Duration::from_secs(15 * 60);
/// How long after its deadline the canary's notification may take: a store that retries, a receiver that is slow once.
const CANARY_GRACE: Duration = Duration::from_secs(20);

pub(super) fn dead_man(section: Section<'_>) -> Option<DeadMan> {
    if section.is_there() && !section.has("url") && !section.has("url_file") {
        section.wrong(
            "has no url; write url_file = \"…\", a file with the address that the service gave you, or url = \"…\"",
        );
    }
    let url = one_url(&section, "url", "url_file");
    let fail_url = one_url(&section, "fail_url", "fail_url_file");
    let method = match section.item("method") {
        Some(item) => method(&item),
        None => Some(PingMethod::Get),
    };
    let every = section.duration(
        "every",
        PING_EVERY,
        Duration::from_secs(1)..=Duration::from_secs(3600),
    );
    let unheard_after = section.duration(
        "unheard_after",
        UNHEARD_AFTER,
        Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
    );
    section.finish();
    Some(DeadMan {
        url: url?,
        fail_url,
        method: method?,
        every,
        unheard_after,
    })
}

pub(super) fn canary(section: Section<'_>, receivers: &[Receiver]) -> Option<CanarySettings> {
    let there = section.is_there();
    let receiver = section
        .item("receiver")
        .and_then(|item| receiver(&item, receivers));
    let settings = CanarySettings {
        every: section.duration(
            "every",
            CANARY_EVERY,
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        ),
        grace: section.duration(
            "grace",
            CANARY_GRACE,
            Duration::from_secs(1)..=Duration::from_secs(600),
        ),
        receiver,
    };
    section.finish();
    there.then_some(settings)
}

/// The canary's sink stands among the receivers under this name.
pub(super) fn reserved(top: &Section<'_>, receivers: &[Receiver]) {
    if receivers.iter().any(|known| known.name.as_str() == canary::NAME) {
        top.wrong_at(
            "receiver",
            format!(
                "one is named {:?}, the name of the server's own canary; choose another",
                canary::NAME
            ),
        );
    }
}

fn receiver(item: &Item<'_>, receivers: &[Receiver]) -> Option<Word> {
    let name = item.keep(Word::new(item.text()?))?;
    if !receivers.iter().any(|known| known.name == name) {
        let names: Vec<&str> = receivers.iter().map(|known| known.name.as_str()).collect();
        let hint = if names.is_empty() {
            "there is no [[receiver]] in this file".to_owned()
        } else {
            format!("receivers are {}", names.join(", "))
        };
        item.wrong(format!("is no receiver of this file; {hint}"));
    }
    Some(name)
}

fn method(item: &Item<'_>) -> Option<PingMethod> {
    match item.text()? {
        "GET" => Some(PingMethod::Get),
        "POST" => Some(PingMethod::Post),
        _ => {
            item.wrong("must be \"GET\" or \"POST\"");
            None
        }
    }
}

/// A URL given as it is, or in a file; not both. It is a secret either way, and no message repeats it.
fn one_url(section: &Section<'_>, key: &'static str, file_key: &'static str) -> Option<SecretUrl> {
    match (section.item(key), section.item(file_key)) {
        (Some(_), Some(item)) => {
            item.wrong(format!("stands beside {key}; give only one of the two"));
            None
        }
        (Some(item), None) => open_url(&item),
        (None, Some(item)) => url_in(&item, &secret(&item, "the address that the service gave you")?),
        (None, None) => None,
    }
}

fn open_url(item: &Item<'_>) -> Option<SecretUrl> {
    let url = Url::parse(item.text()?).ok().filter(Url::has_host);
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        item.wrong_and_secret("is no web address; it begins with https:// and a host");
        return None;
    };
    if url.scheme() != "https" && !is_private(&url) {
        item.wrong_and_secret(
            "would be sent in the clear, and who reads it can ping in our place; use https://",
        );
        return None;
    }
    Some(SecretUrl::new(url))
}
