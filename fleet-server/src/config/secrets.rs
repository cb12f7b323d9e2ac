//! Secrets that stand in files of their own: tokens, passwords, and URLs that let everybody in who knows them. What a
//! file holds is never repeated in a message.

use std::io::Read;
use std::path::Path;

use fleet_config::address::is_private;
use fleet_config::section::{Item, Section};
use protocol::secret::Secret;
use url::Url;

use super::web_url;
use crate::settings::SecretUrl;

/// Bytes of a secret.
const SECRET_BYTES: u64 = 4096;

/// The content of the file that `item` names; `what` says what belongs into it.
pub(super) fn secret(item: &Item<'_>, what: &str) -> Option<Secret> {
    let path = item.path()?;
    item.keep(read(&path, what))
}

/// The file that `key` names, which must be given.
pub(super) fn needed(section: &Section<'_>, key: &'static str, what: &str) -> Option<Secret> {
    let Some(item) = section.item(key) else {
        section.wrong(format!(
            "has no {key}; write {key} = \"/etc/fleet-server/…\", a file that holds {what}"
        ));
        return None;
    };
    secret(&item, what)
}

/// A URL that is a secret, from the file that `url_file` names; one in the open is refused.
pub(super) fn secret_url(section: &Section<'_>, what: &str) -> Option<SecretUrl> {
    if let Some(item) = section.item("url") {
        item.wrong_and_secret(format!(
            "is {what}, a secret: put it into a file and write url_file = \"/etc/fleet-server/…\""
        ));
        return None;
    }
    let secret = needed(section, "url_file", what)?;
    let item = section.item("url_file")?;
    url_in(&item, &secret)
}

/// A URL in the open (`url`) or in a file (`url_file`).
pub(super) fn any_url(section: &Section<'_>, example: &str) -> Option<SecretUrl> {
    match (section.item("url"), section.item("url_file")) {
        (Some(item), None) => web_url(&item).map(SecretUrl::new),
        (None, Some(item)) => url_in(&item, &secret(&item, "a URL")?),
        (Some(_), Some(_)) => {
            section.wrong("has both url and url_file; keep one");
            None
        }
        (None, None) => {
            section.wrong(format!("has no url; write {example}"));
            None
        }
    }
}

/// Whether `url` may carry a token: encrypted, or to where nobody else reads.
pub(super) fn carries_secrets(item: &Item<'_>, url: Url) -> Option<Url> {
    if url.scheme() == "https" || is_private(&url) {
        return Some(url);
    }
    item.wrong("would send the secret in the clear; use https://");
    None
}

/// The URL that `secret`, the content of the file of `item`, is.
pub(super) fn url_in(item: &Item<'_>, secret: &Secret) -> Option<SecretUrl> {
    let url = Url::parse(secret.expose()).ok().filter(Url::has_host);
    let Some(url) = url.filter(|url| matches!(url.scheme(), "http" | "https")) else {
        item.wrong("must name a file that holds one URL, https://…, and nothing else");
        return None;
    };
    carries_secrets(item, url).map(SecretUrl::new)
}

fn read(path: &Path, what: &str) -> Result<Secret, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES + 1).read_to_string(&mut text))
        .map_err(|err| format!("cannot be read: {err}; the server's user must be able to read it"))?;
    let secret = Secret::new(&text);
    if secret.is_empty() {
        return Err(format!("is empty; put {what} into it"));
    }
    if text.len() as u64 > SECRET_BYTES {
        return Err(format!("is over {SECRET_BYTES} bytes long; that is no secret"));
    }
    if secret.expose().chars().any(char::is_control) {
        return Err(format!(
            "has more than one line; put {what} into it, and nothing else"
        ));
    }
    Ok(secret)
}
