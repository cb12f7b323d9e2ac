//! A box that comes back says why it was not heard: its account stands in what ends. Pure.
//!
//! Rules:
//! - The account comes before the news that the box is heard again (`sweep` sees to that), so the incident ends at once,
//!   with it.
//! - A box that says it is still finding out (it was booted anew, and reads its old journal) holds the end of its own
//!   incidents back, [`HOLD`] at most. One that says nothing of the kind holds nothing back.
//! - An account is of one absence: what was said of an earlier one is forgotten when the box goes again.
//! - Members of a storm have no incident of their own: what they say is counted in the group's, by verdict, and the first
//!   [`TOLD`] lines stand in its history.
//!
//! Nothing is judged by an account: a box that says nonsense only explains itself badly.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::account::Account;
use protocol::incident::Kind;
use serde_json::{Map, Value, json};

use super::change::Change;
use super::gone::{ABSENCES, about};
use super::ledger::{Key, Ledger, Tell};
use crate::liveness::BoxIx;
use crate::liveness::time::{Moment, Mono};

/// How long the end of an incident waits for the account of a box that is still finding out. (It takes a box eight
/// seconds at most.)
const HOLD: Duration = Duration::from_secs(10);
/// Accounts of a storm's members that stand in its history, a line each.
const TOLD: u64 = 20;
/// The detail that counts verdicts.
pub(super) const ACCOUNTS: &str = "accounts";

/// Boxes that are heard again and have not said why they were not.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    ends: BTreeMap<BoxIx, End>,
    /// Members of a storm, by its subject.
    members: BTreeMap<BoxIx, String>,
}

impl Waiting {
    /// Whether nothing is held back.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.members.is_empty()
    }
}

/// An end that is held back.
#[derive(Debug)]
struct End {
    said: String,
    since: Mono,
}

impl Ledger {
    /// What a box says of its silence (`None`: it has nothing to say any more).
    pub fn account(&mut self, ix: BoxIx, account: Option<Box<Account>>, now: Moment) -> Vec<Change> {
        let Some(facts) = self.facts_mut(ix) else {
            return Vec::new();
        };
        let pending = account.as_ref().is_some_and(|account| account.pending);
        facts.account = account;
        let mut changes: Vec<Change> = self.member_says(ix, now).into_iter().collect();
        if !pending && let Some(end) = self.waiting.ends.remove(&ix) {
            changes.extend(self.absence_ends(ix, &end.said, now));
        }
        changes
    }

    /// The box is heard again: whatever said that it is gone ends, with its account.
    pub(super) fn heard_again(&mut self, ix: BoxIx, said: String, now: Moment) -> Vec<Change> {
        let account = self.facts(ix).and_then(|facts| facts.account.as_ref());
        let pending = account.is_some_and(|account| account.pending);
        let open: Vec<Key> = absences(ix).filter(|key| self.is_open(key)).collect();
        if !pending || open.is_empty() {
            return self.absence_ends(ix, &said, now);
        }
        let line = format!("{said}; it is finding out why");
        // Heard again and again (its watchdog ends and starts): the time runs from the first.
        let since = self.waiting.ends.get(&ix).map_or(now.mono, |end| end.since);
        self.waiting.ends.insert(ix, End { said, since });
        open.iter()
            .filter_map(|key| self.note(key, line.clone(), None, Tell::Timeline, now))
            .collect()
    }

    /// The box is gone (again), or is removed: what it said was of an earlier absence.
    pub(super) fn forget_account(&mut self, ix: BoxIx) {
        self.waiting.ends.remove(&ix);
        self.waiting.members.remove(&ix);
        if let Some(facts) = self.facts_mut(ix) {
            facts.account = None;
        }
    }

    /// Ends that were held back for long enough.
    pub(super) fn held_ends(&mut self, now: Moment) -> Vec<Change> {
        let late = |end: &End| now.mono.since(end.since) >= HOLD;
        if !self.waiting.ends.values().any(late) {
            return Vec::new();
        }
        let due: Vec<BoxIx> = self
            .waiting
            .ends
            .iter()
            .filter(|(_, end)| late(end))
            .map(|(ix, _)| *ix)
            .collect();
        let mut changes = Vec::new();
        for ix in due {
            if let Some(end) = self.waiting.ends.remove(&ix) {
                let said = format!("{}; it has not said why it was not heard", end.said);
                changes.extend(self.absence_ends(ix, &said, now));
            }
        }
        changes
    }

    /// What the boxes of a storm said, in half a sentence; empty: nothing.
    pub(super) fn accounts_of(&self, key: &Key) -> String {
        let counts = self
            .incident(key)
            .and_then(|incident| incident.details.get(ACCOUNTS));
        let Some(Value::Object(counts)) = counts else {
            return String::new();
        };
        let mut rows: Vec<(&String, u64)> = counts
            .iter()
            .map(|(word, n)| (word, n.as_u64().unwrap_or(0)))
            .collect();
        rows.sort_by_key(|(word, n)| (std::cmp::Reverse(*n), word.as_str()));
        let rows: Vec<String> = rows.iter().map(|(word, n)| format!("{n} {word}")).collect();
        format!("; what they say it was: {}", rows.join(", "))
    }

    fn absence_ends(&mut self, ix: BoxIx, said: &str, now: Moment) -> Vec<Change> {
        let account = self.facts(ix).and_then(|facts| facts.account.clone());
        let account = account.filter(|account| !account.pending);
        let said = account
            .as_ref()
            .map_or_else(|| said.to_owned(), |account| explained(said, account));
        let value = account.and_then(|account| serde_json::to_value(account).ok());
        let mut changes = Vec::new();
        for key in absences(ix) {
            if let Some(value) = &value {
                let figure = Some(("account", value.clone()));
                self.note(&key, String::new(), figure, Tell::Nobody, now);
            }
            changes.extend(self.resolve(&key, said.clone(), now));
        }
        changes
    }

    fn member_says(&mut self, ix: BoxIx, now: Moment) -> Option<Change> {
        let member_of = self.storms.iter().find(|(_, members)| members.contains(&ix));
        let subject = member_of
            .map(|(subject, _)| subject.clone())
            .or(self.waiting.members.remove(&ix))?;
        let account = self.facts(ix)?.account.as_ref()?;
        if account.pending {
            self.waiting.members.insert(ix, subject);
            return None;
        }
        let verdict = account.verdict;
        let line = explained(&format!("{} is heard again", self.name(ix)), account);
        let key = Key {
            kind: Kind::SiteDark,
            about: None,
            subject,
        };
        let counts = self.incident(&key)?.details.get(ACCOUNTS);
        let mut counts: Map<String, Value> = counts.and_then(Value::as_object).cloned().unwrap_or_default();
        let so_far: u64 = counts.values().filter_map(Value::as_u64).sum();
        let of_this = counts.get(verdict.as_str()).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(verdict.as_str().to_owned(), json!(of_this + 1));
        let tell = if so_far < TOLD {
            Tell::Timeline
        } else {
            Tell::Nobody
        };
        self.note(&key, line, Some((ACCOUNTS, counts.into())), tell, now)
    }
}

fn absences(ix: BoxIx) -> impl Iterator<Item = Key> {
    ABSENCES.into_iter().map(move |kind| about(kind, ix))
}

/// `box-1 is back after 43.2 s: network path (connect to … timed out for 41 s; it was alive all the while)`.
fn explained(said: &str, account: &Account) -> String {
    let phrase = account.verdict.phrase();
    if account.summary.is_empty() {
        return format!("{said}: {phrase}");
    }
    format!("{said}: {phrase} ({})", account.summary)
}
