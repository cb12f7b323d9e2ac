//! `[[receiver]]`: who can be told. And what `[[route]]` and its like share with it: lists of tables, matchers. How one
//! receiver is reached is read in [`receiver`](super::receiver).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use fleet_config::section::{Item, Section};
use protocol::names::{BoxPattern, LabelName, LabelValue, Labels, Word};

use super::receiver::receiver;
use crate::settings::{Matcher, Receiver};

/// Receivers: each has a worker and a row for every change.
const RECEIVERS: usize = 64;

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
