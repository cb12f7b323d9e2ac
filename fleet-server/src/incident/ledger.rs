//! The open incidents: at most one for each kind, box and subject. Opens, updates and resolves them, and numbers them.
//!
//! What happened comes in through the other files of this module; this one only keeps the books. It routes nothing and
//! writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use protocol::incident::{Ack, EventKind, Incident, Kind, Severity, TimelineEntry};
use protocol::names::{BoxName, Labels};
use protocol::report::Report;
use url::Url;

use super::account::{ACCOUNTS, Waiting};
use super::canary;
use super::change::{Audience, Change};
use super::checks::OOM;
use super::facts::{BoxInfo, Facts};
use super::flap::{FLAPPING, Flap, Openings};
use super::gone::group_labels;
use super::hand::STEPS_FROM;
use super::severity::{louder, ruled};
use super::text::{Details, bounded, runbook};
use crate::liveness::BoxIx;
use crate::liveness::time::Moment;
use crate::settings::IncidentRules;

/// The detail that says by what an incident is muted.
pub const MUTED_BY: &str = "muted_by";
/// The detail that says when it last began to be muted, also once it is not any more: whoever heard of the incident before
/// that is told again at the end.
pub const MUTED_AT: &str = "muted_at";

/// What an incident is about. Two of the same are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// What is wrong.
    pub kind: Kind,
    /// With which box.
    pub about: Option<BoxIx>,
    /// With which thing of it (unit), or which group or receiver; empty: with it as a whole.
    pub subject: String,
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    next_id: i64,
    link: Option<Url>,
    pub(super) rules: IncidentRules,
    pub(super) open: BTreeMap<Key, Open>,
    /// The key of each open incident, by its number.
    pub(super) ids: BTreeMap<i64, Key>,
    /// When what opened lately.
    pub(super) openings: Openings,
    pub(super) boxes: Vec<Option<Facts>>,
    /// Their places by name.
    names: BTreeMap<BoxName, BoxIx>,
    /// Boxes that are told of with their group, by the group's subject.
    pub(super) storms: BTreeMap<String, BTreeSet<BoxIx>>,
    /// Boxes with a unit that is not plainly well.
    pub(super) watching: BTreeSet<BoxIx>,
    /// Boxes that are heard again and are still finding out why they were not.
    pub(super) waiting: Waiting,
    /// Where the round over all boxes stands.
    pub(super) round: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) incident: Incident,
    pub(super) revision: u32,
    /// When receivers were last told of it.
    pub(super) told_at: Timestamp,
    /// Who has it in hand.
    pub(super) ack: Option<Ack>,
    /// It comes and goes, and is held open.
    pub(super) flap: Option<Flap>,
}

/// What is to be said of an incident.
#[derive(Debug, Clone)]
pub(super) struct Say {
    pub(super) severity: Severity,
    pub(super) summary: String,
    pub(super) details: Details,
}

/// Who hears of a change of an open incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tell {
    /// Receivers.
    Receivers,
    /// Its timeline only.
    Timeline,
    /// Nobody, until something else is told: a figure moved.
    Nobody,
}

impl Ledger {
    /// Empty books; the next incident's number is `next_id`. `link`: how people reach the server.
    pub fn new(next_id: i64, link: Option<Url>) -> Self {
        Self {
            next_id,
            link,
            ..Self::default()
        }
    }

    /// With the operator's rules: how loud what is, and what counts as flapping.
    #[must_use]
    pub fn with_rules(self, rules: IncidentRules) -> Self {
        Self { rules, ..self }
    }

    /// A box joins, or its labels change. `report`: its newest one, from the store.
    pub fn add(&mut self, info: BoxInfo, report: Option<(Arc<Report>, Timestamp)>) {
        let at = info.ix.at();
        if self.boxes.len() <= at {
            self.boxes.resize(at + 1, None);
        }
        if let Some(facts) = &self.boxes[at] {
            self.names.remove(&facts.info.name);
        }
        self.names.insert(info.name.clone(), info.ix);
        match &mut self.boxes[at] {
            Some(facts) => facts.info = info,
            slot => *slot = Some(Facts::new(info, report)),
        }
    }

    /// An incident that was open when the server ended. One about a box that is no more is resolved by the next
    /// [`forget_removed`](Self::forget_removed).
    pub fn restore(&mut self, incident: Incident, revision: u32) -> Key {
        let flap = Flap::of(&incident);
        let key = self.key_of(&incident);
        if let Some(facts) = key.about.and_then(|ix| self.facts_mut(ix)) {
            facts.open += 1;
        }
        self.next_id = self.next_id.max(incident.id + 1);
        self.ids.insert(incident.id, key.clone());
        self.openings.restore(&key, &incident);
        let open = Open {
            told_at: incident.opened_at,
            incident,
            revision,
            ack: None,
            flap,
        };
        self.open.insert(key.clone(), open);
        key
    }

    /// Ends what is open about boxes that were removed while the server was down.
    pub fn forget_removed(&mut self, now: Moment) -> Vec<Change> {
        self.resolve_about(BoxIx(u32::MAX), now)
    }

    /// Nothing is expected of the box any more: what is open about it ends.
    pub fn remove(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let changes = self.resolve_about(ix, now);
        if let Some(facts) = self.boxes.get_mut(ix.at()).and_then(Option::take)
            && self.names.get(&facts.info.name) == Some(&ix)
        {
            self.names.remove(&facts.info.name);
        }
        self.watching.remove(&ix);
        self.forget_account(ix);
        for members in self.storms.values_mut() {
            members.remove(&ix);
        }
        changes
    }

    /// What is known of a box.
    pub fn facts(&self, ix: BoxIx) -> Option<&Facts> {
        self.boxes.get(ix.at())?.as_ref()
    }

    /// All boxes of which something is known.
    pub fn all_facts(&self) -> impl Iterator<Item = &Facts> {
        self.boxes.iter().flatten()
    }

    /// The open incidents.
    pub fn open_incidents(&self) -> impl Iterator<Item = &Incident> {
        self.open.values().map(|open| &open.incident)
    }

    pub(super) fn facts_mut(&mut self, ix: BoxIx) -> Option<&mut Facts> {
        self.boxes.get_mut(ix.at())?.as_mut()
    }

    /// Whether it is said to be wrong now: one that is only held open because it flaps is not.
    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.open.get(key).is_some_and(|open| !open.is_held())
    }

    pub(super) fn incident(&self, key: &Key) -> Option<&Incident> {
        self.open.get(key).map(|open| &open.incident)
    }

    pub(super) fn keys_about(&self, ix: BoxIx) -> Vec<Key> {
        let about = |key: &&Key| key.about == Some(ix);
        self.open.keys().filter(about).cloned().collect()
    }

    pub(super) fn keys_of(&self, kind: Kind) -> Vec<Key> {
        self.open.keys().filter(|key| key.kind == kind).cloned().collect()
    }

    /// Opens the incident, or says something new of the open one. Louder is always told to receivers, and starts its
    /// steps anew: an acknowledgement was of something quieter.
    pub(super) fn say(&mut self, key: Key, say: Say, tell: Tell, now: Moment) -> Option<Change> {
        let Some(open) = self.open.get_mut(&key) else {
            return Some(self.open(key, say, now));
        };
        let came_again = open.is_held();
        if came_again {
            open.comes_again(self.openings.add(&key, now.wall, &self.rules));
        }
        let severity = louder(
            open.incident.severity,
            ruled(&self.rules.severities, &open.incident, say.severity),
        );
        let louder = severity != open.incident.severity;
        let bigger = open.bigger(&say);
        let kept = kept(&open.incident.details);
        open.incident.severity = severity;
        open.incident.details = kept.into_iter().chain(say.details).collect();
        let calm = self.rules.calm();
        open.incident.summary = bounded(open.with_flapping(say.summary, calm, now.wall));
        let lapsed = if louder { open.starts_anew(now.wall) } else { None };
        // Of one that flaps only what is new is told: louder, or bigger than ever.
        let tell = match tell {
            Tell::Receivers if open.flap.is_some() && !bigger => Tell::Timeline,
            Tell::Nobody if came_again => Tell::Timeline,
            Tell::Receivers | Tell::Timeline | Tell::Nobody => tell,
        };
        match tell {
            Tell::Nobody if !louder => None,
            Tell::Nobody | Tell::Timeline | Tell::Receivers => {
                let notify = louder || tell == Tell::Receivers;
                let mut text = open.incident.summary.clone();
                if let Some(ack) = lapsed {
                    text = bounded(format!("louder than when {} acknowledged it: {text}", ack.by));
                }
                Some(open.change(EventKind::Updated, notify, text, now.wall))
            }
        }
    }

    /// A line for the open incident's history, and a figure for its details.
    pub(super) fn note(
        &mut self,
        key: &Key,
        text: String,
        figure: Option<(&str, serde_json::Value)>,
        tell: Tell,
        now: Moment,
    ) -> Option<Change> {
        let open = self.open.get_mut(key)?;
        if let Some((name, value)) = figure {
            open.incident.details.insert(name.to_owned(), value);
        }
        let tell = match tell {
            Tell::Receivers if open.flap.is_some() => Tell::Timeline,
            Tell::Receivers | Tell::Timeline | Tell::Nobody => tell,
        };
        match tell {
            Tell::Nobody => None,
            Tell::Timeline => Some(open.change(EventKind::Updated, false, bounded(text), now.wall)),
            Tell::Receivers => {
                open.incident.summary = bounded(text.clone());
                Some(open.change(EventKind::Updated, true, bounded(text), now.wall))
            }
        }
    }

    /// By what the open incident is muted, or that it is not any more: for its history, and for whoever looks at it.
    pub fn muted(&mut self, id: i64, by: Option<String>, now: Moment) -> Option<Change> {
        let open = self.open.get_mut(self.ids.get(&id)?)?;
        let details = &mut open.incident.details;
        let before = match &by {
            Some(by) => details.insert(MUTED_BY.into(), by.clone().into()),
            None => details.remove(MUTED_BY),
        };
        if before.is_none() && by.is_some() {
            details.insert(MUTED_AT.into(), now.wall.to_string().into());
        }
        let before = before.as_ref().and_then(|by| by.as_str()).unwrap_or("anything");
        let (event, text) = by.map_or_else(
            || ("unmuted", format!("no longer muted by {before}")),
            |by| ("muted", format!("told to nobody while muted by {by}")),
        );
        let mut change = open.change(EventKind::Updated, false, bounded(text), now.wall);
        event.clone_into(&mut change.entry.event);
        Some(change)
    }

    /// Ends the incident, if it is open; one that flaps is held open until it has been calm for a while.
    pub(super) fn resolve(&mut self, key: &Key, summary: String, now: Moment) -> Option<Change> {
        if self.open.get(key)?.flap.is_some() {
            return self.hold(key, &summary, now);
        }
        self.end(key, summary, now)
    }

    /// Ends the incident, whether it flaps or not.
    pub(super) fn end(&mut self, key: &Key, summary: String, now: Moment) -> Option<Change> {
        let mut open = self.open.remove(key)?;
        self.ids.remove(&open.incident.id);
        self.openings.forget(key);
        if let Some(facts) = key.about.and_then(|ix| self.facts_mut(ix)) {
            facts.open = facts.open.saturating_sub(1);
        }
        open.incident.resolved_at = Some(now.wall);
        open.incident.summary = bounded(summary);
        let text = open.incident.summary.clone();
        Some(open.change(EventKind::Resolved, true, text, now.wall))
    }

    pub(super) fn name(&self, ix: BoxIx) -> String {
        self.facts(ix)
            .map_or_else(|| format!("box {}", ix.0), |facts| facts.info.name.to_string())
    }

    fn open(&mut self, key: Key, say: Say, now: Moment) -> Change {
        let id = self.next_id;
        self.next_id += 1;
        let mut details = say.details;
        details.insert("runbook".into(), runbook(key.kind).into());
        if !key.subject.is_empty() {
            details.insert("subject".into(), key.subject.clone().into());
        }
        if let Some(link) = self.link(id) {
            details.insert("link".into(), link.into());
        }
        if key.about.is_some_and(|ix| self.is_canary(ix)) {
            details.insert(canary::MARK.into(), true.into());
        }
        let facts = key.about.and_then(|ix| self.facts_mut(ix));
        let (box_name, labels) = match facts {
            Some(facts) => {
                facts.open += 1;
                (Some(facts.info.name.clone()), facts.info.labels.clone())
            }
            None if key.kind == Kind::SiteDark => (None, group_labels(&key.subject)),
            None => (None, Labels::default()),
        };
        let mut incident = Incident {
            id,
            kind: key.kind,
            severity: say.severity,
            box_name,
            labels,
            opened_at: now.wall,
            resolved_at: None,
            summary: bounded(say.summary),
            details,
        };
        incident.severity = ruled(&self.rules.severities, &incident, say.severity);
        // The canary goes dark on purpose, again and again.
        let flap = if canary::is_canarys(&incident) {
            None
        } else {
            self.openings.add(&key, now.wall, &self.rules)
        };
        let mut open = Open {
            incident,
            revision: 0,
            told_at: now.wall,
            ack: None,
            flap,
        };
        let calm = self.rules.calm();
        open.incident.summary = bounded(open.with_flapping(open.incident.summary.clone(), calm, now.wall));
        self.ids.insert(id, key.clone());
        let text = open.incident.summary.clone();
        let change = open.change(EventKind::Opened, true, text, now.wall);
        self.open.insert(key, open);
        change
    }

    fn link(&self, id: i64) -> Option<String> {
        let link = self.link.as_ref()?.join(&format!("v1/incidents/{id}")).ok()?;
        Some(link.to_string())
    }

    fn resolve_about(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let keys = self.keys_about(ix);
        let name = self.name(ix);
        keys.iter()
            .filter_map(|key| self.end(key, format!("{name} was removed"), now))
            .collect()
    }

    pub(super) fn key_of(&self, incident: &Incident) -> Key {
        let about = incident.box_name.as_ref().map(|name| self.ix_of(name));
        let subject = incident
            .details
            .get("subject")
            .and_then(|subject| subject.as_str());
        Key {
            kind: incident.kind,
            about: about.map(|ix| ix.unwrap_or(BoxIx(u32::MAX))),
            subject: subject.unwrap_or_default().to_owned(),
        }
    }

    fn ix_of(&self, name: &BoxName) -> Option<BoxIx> {
        self.names.get(name).copied()
    }
}

impl Open {
    pub(super) fn change(&mut self, event: EventKind, notify: bool, text: String, at: Timestamp) -> Change {
        if notify {
            self.revision += 1;
            self.told_at = at;
        }
        Change {
            event,
            notify,
            to: Audience::Routed,
            incident: self.incident.clone(),
            ack: self.ack.clone(),
            revision: self.revision,
            entry: TimelineEntry {
                at,
                event: event.to_string(),
                text,
            },
            at,
        }
    }
}

/// Details that outlive what is newly said.
fn kept(details: &Details) -> Details {
    const KEPT: [&str; 11] = [
        "runbook",
        "subject",
        "link",
        "last_remedy",
        ACCOUNTS,
        OOM,
        canary::MARK,
        FLAPPING,
        STEPS_FROM,
        MUTED_BY,
        MUTED_AT,
    ];
    details
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
