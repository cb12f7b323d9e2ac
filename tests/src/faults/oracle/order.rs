//! Of one incident, each receiver hears the beginning first and the end last, and each notification always says the same.

use std::collections::{BTreeMap, BTreeSet};

use protocol::alert::Alert;
use protocol::incident::EventKind;

use super::{Rule, Violation};
use crate::faults::history::{History, ReceiverTruth, Told};

pub(super) fn judge(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for receiver in &history.receivers {
        let keys: BTreeSet<&str> = receiver.told.iter().map(|told| told.alert.key.as_str()).collect();
        for key in keys {
            let of_key: Vec<&Told> = receiver
                .told
                .iter()
                .filter(|told| told.alert.key == key)
                .collect();
            found.extend(of_one(receiver, &of_key, &history.server.died_ms));
        }
    }
    found.extend(same_words(history));
    found
        .into_iter()
        .map(|text| Violation::new(Rule::Order, text))
        .collect()
}

fn of_one(receiver: &ReceiverTruth, told: &[&Told], died_ms: &[i64]) -> Vec<String> {
    let name = &receiver.name;
    let mut found = Vec::new();
    let mut newest: Option<&Told> = None;
    for (at, one) in told.iter().enumerate() {
        let (key, revision) = (&one.alert.key, one.alert.revision);
        let Some(before) = newest else {
            if one.alert.event != EventKind::Opened {
                found.push(format!("{name}: {key}/{revision} came before its beginning"));
            }
            newest = Some(one);
            continue;
        };
        let (newer, after_end) = (before.alert.revision, before.alert.event == EventKind::Resolved);
        if revision < newer && !late_copy(receiver, &told[..at], one, died_ms) {
            found.push(format!("{name}: {key}/{revision} came after {key}/{newer}"));
        }
        if revision > newer {
            if one.alert.event == EventKind::Opened {
                found.push(format!(
                    "{name}: {key}/{revision} begins what {key}/{newer} began"
                ));
            }
            if after_end {
                found.push(format!(
                    "{name}: {key}/{revision} came after the end, {key}/{newer}"
                ));
            }
            newest = Some(one);
        }
    }
    found
}

/// A copy that was on its way when its sender was killed: nobody can call it back.
fn late_copy(receiver: &ReceiverTruth, before: &[&Told], one: &Told, died_ms: &[i64]) -> bool {
    let copy = before
        .iter()
        .any(|told| told.idempotency_key == one.idempotency_key);
    let under_way = !receiver.cut.is_empty() || died_ms.iter().any(|died| *died <= one.at_ms);
    copy && under_way && before.iter().any(|told| told.connection > one.connection)
}

/// One notification says the same each time, and to everybody; but who hears of it first hears that it opened.
fn same_words(history: &History) -> Vec<String> {
    let mut said: BTreeMap<(&str, &str), &Alert> = BTreeMap::new();
    let mut to_all: BTreeMap<&str, Alert> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for receiver in &history.receivers {
        for told in &receiver.told {
            let key = told.idempotency_key.as_str();
            let first = *said.entry((&receiver.name, key)).or_insert(&told.alert);
            let apart = Alert {
                event: EventKind::Updated,
                ..told.alert.clone()
            };
            let others = to_all.entry(key).or_insert_with(|| apart.clone());
            if *first != told.alert || *others != apart {
                found.insert(format!("{key} says two things"));
            }
            if key != told.alert.idempotency_key() {
                found.insert(format!("{key} is not the key of what it says"));
            }
        }
    }
    found.into_iter().collect()
}
