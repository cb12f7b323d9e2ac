//! `[[receiver]]`: who can be told. And what `[[route]]` and its like share with it: lists of tables, matchers.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use fleet_config::section::{Item, Section};
use protocol::names::{BoxPattern, LabelName, LabelValue, Labels, Word};
use protocol::secret::Secret;

use super::web_url;
use crate::settings::{Alertmanager, Matcher, Receiver, ReceiverKind, Webhook};

/// Receivers: each has a worker and a row for every change.
const RECEIVERS: usize = 64;
/// URLs of one Alertmanager cluster.
const URLS: usize = 8;
/// Bytes of a secret.
const SECRET_BYTES: u64 = 4096;
/// What a receiver can be; one of them stands in each `[[receiver]]`.
const KINDS: [&str; 2] = ["webhook", "alertmanager"];

/// The list of the file.
pub(super) fn read(top: &Section<'_>) -> Vec<Receiver> {
    let receivers = tables(top, "receiver", RECEIVERS, receiver);
    let mut seen: Vec<&Word> = Vec::new();
    for (n, receiver) in receivers.iter().enumerate() {
        if seen.contains(&&receiver.name) {
            let text = format!(
                "two receivers are named {:?} (the second is receiver[{n}]); give each its own name",
                receiver.name.as_str()
            );
            top.wrong_at("receiver", text);
        }
        seen.push(&receiver.name);
    }
    receivers
}

/// The tables of `[[key]]`, at most `limit`.
pub(super) fn tables<T>(
    top: &Section<'_>,
    key: &'static str,
    limit: usize,
    read: impl Fn(Section<'_>) -> Option<T>,
) -> Vec<T> {
    let Some(item) = top.item(key) else {
        return Vec::new();
    };
    if item.value.get_ref().as_array().is_none() {
        item.wrong(format!(
            "must be a list of tables; write [[{key}]], with two brackets, above each"
        ));
        return Vec::new();
    }
    let entries = item.list().unwrap_or_default();
    if entries.len() > limit {
        item.wrong(format!(
            "has {} entries; at most {limit} are allowed",
            entries.len()
        ));
        return Vec::new();
    }
    entries
        .iter()
        .filter_map(Item::section)
        .filter_map(read)
        .collect()
}

fn receiver(section: Section<'_>) -> Option<Receiver> {
    let name = section.item("name");
    if name.is_none() {
        section.wrong("has no name; write name = \"…\", the word by which routes call it");
    }
    let name = name.and_then(|item| item.keep(Word::new(item.text()?)));
    let webhook = section.item("webhook");
    let alertmanager = section.item("alertmanager");
    let kind = match (webhook, alertmanager) {
        (Some(item), None) => item.section().and_then(webhook_of).map(ReceiverKind::Webhook),
        (None, Some(item)) => item
            .section()
            .and_then(alertmanager_of)
            .map(ReceiverKind::Alertmanager),
        (Some(_), Some(_)) => {
            section.wrong("is both webhook and alertmanager; make two receivers of it");
            None
        }
        (None, None) => {
            section.wrong(format!(
                "does not say how it is reached; write one of {}",
                KINDS.join(", ")
            ));
            None
        }
    };
    section.finish();
    Some(Receiver {
        name: name?,
        kind: kind?,
    })
}

fn webhook_of(section: Section<'_>) -> Option<Webhook> {
    let url = section.item("url");
    if url.is_none() {
        section.wrong("has no url; write webhook = { url = \"https://…\" }");
    }
    let url = url.and_then(|item| web_url(&item));
    let secret = match section.item("secret_file") {
        Some(item) => Some(secret(&item)?),
        None => None,
    };
    section.finish();
    Some(Webhook { url: url?, secret })
}

fn alertmanager_of(section: Section<'_>) -> Option<Alertmanager> {
    let Some(item) = section.item("urls") else {
        section.wrong("has no urls; write alertmanager = { urls = [\"http://127.0.0.1:9093\"] }");
        section.finish();
        return None;
    };
    section.finish();
    let entries = item.list()?;
    if entries.is_empty() || entries.len() > URLS {
        item.wrong(format!(
            "must name 1 to {URLS} Alertmanagers, all those of one cluster"
        ));
        return None;
    }
    let urls: Vec<_> = entries.iter().filter_map(web_url).collect();
    (urls.len() == entries.len()).then_some(Alertmanager { urls })
}

fn secret(item: &Item<'_>) -> Option<Secret> {
    let path = item.path()?;
    match read_secret(&path) {
        Ok(secret) => Some(secret),
        Err(why) => {
            item.wrong(why);
            None
        }
    }
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(SECRET_BYTES + 1).read_to_string(&mut text))
        .map_err(|err| format!("cannot be read: {err}; the server's user must be able to read it"))?;
    let secret = Secret::new(&text);
    if secret.is_empty() {
        return Err("is empty; put the secret that the receiver checks signatures with into it".to_owned());
    }
    if text.len() as u64 > SECRET_BYTES {
        return Err(format!("is over {SECRET_BYTES} bytes long; that is no secret"));
    }
    Ok(secret)
}

/// `match = { … }`.
pub(super) fn matcher(section: Section<'_>) -> Matcher {
    let matcher = Matcher {
        severity: words(&section, "severity"),
        kind: words(&section, "kind"),
        boxes: words::<BoxPattern>(&section, "box"),
        labels: section
            .item("labels")
            .map(|item| labels(&item))
            .unwrap_or_default(),
    };
    section.finish();
    matcher
}

/// One word or a list of words.
fn words<T: FromStr<Err: Display>>(section: &Section<'_>, key: &'static str) -> Vec<T> {
    let Some(item) = section.item(key) else {
        return Vec::new();
    };
    let entries = item.one_or_list();
    if entries.is_empty() {
        item.wrong("is an empty list, which would match nothing; leave it out to match all");
    }
    entries
        .iter()
        .filter_map(|entry| entry.keep(entry.text()?.parse::<T>().map_err(|err| err.to_string())))
        .collect()
}

fn labels(item: &Item<'_>) -> Labels {
    let Some(table) = item.value.get_ref().as_table() else {
        item.wrong("must be a table of texts, such as { site = \"fsn1\" }");
        return Labels::default();
    };
    let mut labels = BTreeMap::new();
    for (name, value) in table {
        let name = name.get_ref().as_ref();
        let checked = LabelName::new(name).map_err(|err| format!("label {name:?}: {err}"));
        let text = value
            .get_ref()
            .as_str()
            .ok_or_else(|| format!("label {name:?} must have a text in quotes as its value"));
        let value = text
            .and_then(|text| LabelValue::new(text).map_err(|err| format!("label {name:?}: its value {err}")));
        if let (Some(name), Some(value)) = (item.keep(checked), item.keep(value)) {
            labels.insert(name, value);
        }
    }
    item.keep(Labels::new(labels).map_err(|err| err.to_string()))
        .unwrap_or_default()
}
