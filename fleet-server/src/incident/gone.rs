//! Boxes that went, alone or together, and the server's own blindness: one incident for what is one thing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::api::Liveness;
use protocol::incident::Kind;
use protocol::names::Labels;
use serde_json::{Value, json};

use super::change::Change;
use super::checks::object;
use super::facts::WitnessWord;
use super::ledger::{Key, Ledger, Say, Tell};
use super::severity;
use super::text::{Details, MEMBERS_NAMED, cause_word, diagnosis, diagnosis_details, duration, moment};
use crate::liveness::BoxIx;
use crate::liveness::event::{BlindWhy, Cause, Event, Group, Transition, What};
use crate::liveness::time::Moment;

/// A storm that grew by more than this share is told of again.
const GREW: f64 = 0.1;
/// A storm that nothing was told of for so long is not told of in a burst: each box that joins it is news.
const QUIET: SignedDuration = SignedDuration::from_secs(60);

impl Ledger {
    /// What liveness found, in its order.
    pub fn liveness(&mut self, event: &Event) -> Vec<Change> {
        match event {
            Event::Box(change) => self.moved(change),
            Event::StormOpened {
                group,
                members,
                expected,
                at,
            } => self.storm_opened(group, members, *expected, *at),
            Event::StormChanged { group, members, at } => self.storm_changed(group, members, *at),
            Event::StormOver {
                group,
                stragglers,
                at,
            } => self.storm_over(group, stragglers, *at),
            Event::Blind {
                why,
                overdue,
                expected,
                at,
            } => self.blind(*why, (*overdue, *expected), *at).into_iter().collect(),
            Event::SeesAgain { after, at } => {
                let said = format!("the server judges again after {}", duration(*after));
                self.resolve(&plain(Kind::ServerBlind), said, *at)
                    .into_iter()
                    .collect()
            }
            Event::Duplicate { ix, at } => self.duplicate(*ix, *at).into_iter().collect(),
            Event::DuplicateOver { ix, at } => {
                let said = format!("only one machine speaks as {} any more", self.name(*ix));
                self.resolve(&about(Kind::DuplicateIdentity, *ix), said, *at)
                    .into_iter()
                    .collect()
            }
        }
    }

    /// What a witness said: kept for the text, and added to what is open about the box.
    pub fn witness(&mut self, ix: BoxIx, word: WitnessWord) {
        if let Some(facts) = self.facts_mut(ix) {
            facts.witness = Some(word);
        }
    }

    /// The state of a box as it was before the start, without a change.
    pub fn restore_state(&mut self, ix: BoxIx, state: Liveness, now: Moment) {
        if let Some(facts) = self.facts_mut(ix) {
            facts.state = state;
            facts.report_since = now.mono;
        }
    }

    /// Members of a storm that goes on from before the start.
    pub fn restore_storm(&mut self, subject: &str, members: BTreeSet<BoxIx>) {
        self.storms.insert(subject.to_owned(), members);
    }

    fn moved(&mut self, change: &Transition) -> Vec<Change> {
        let (ix, at) = (change.ix, change.at);
        let Some(facts) = self.facts_mut(ix) else {
            return Vec::new();
        };
        facts.state = state(change.what);
        match change.what {
            What::Suspect { .. } => {
                // A witness's word is of one suspicion.
                facts.witness = None;
                Vec::new()
            }
            What::Live {
                after,
                rebooted,
                first,
            } => {
                if change.from != Liveness::Suspect {
                    facts.report_since = at.mono;
                }
                if first {
                    Vec::new()
                } else {
                    self.back(change, after, rebooted)
                }
            }
            What::Away { why, .. } => {
                self.watching.remove(&ix);
                let said = format!("{} is back, and has said goodbye ({why})", self.name(ix));
                self.present(ix, &said, at)
            }
            What::Dark { cause, silent_for } => {
                self.gone(ix, Kind::BoxDark, cause, silent_for, change.last_seen, at)
            }
            What::Silent { silent_for } => self.gone(
                ix,
                Kind::BoxSilent,
                Cause::HostAnswers,
                silent_for,
                change.last_seen,
                at,
            ),
            What::Overdue { why, silent_for } => {
                let mut say = self.absence(ix, silent_for, change.last_seen, at, |name| {
                    format!(
                        "{name} said goodbye ({why}) and has not come back in the time it named: gone for"
                    )
                });
                say.details.insert("goodbye".into(), why.as_str().into());
                self.say(about(Kind::PlannedOverdue, ix), say, Tell::Timeline, at)
                    .into_iter()
                    .collect()
            }
        }
    }

    fn back(&mut self, change: &Transition, after: Duration, rebooted: bool) -> Vec<Change> {
        let rebooted = if rebooted {
            " and was rebooted meanwhile"
        } else {
            ""
        };
        let said = format!(
            "{} is back after {}{rebooted}",
            self.name(change.ix),
            duration(after)
        );
        self.present(change.ix, &said, change.at)
    }

    /// Whatever said that it is gone ends.
    fn present(&mut self, ix: BoxIx, said: &str, now: Moment) -> Vec<Change> {
        [Kind::BoxDark, Kind::BoxSilent, Kind::PlannedOverdue]
            .into_iter()
            .filter_map(|kind| self.resolve(&about(kind, ix), said.to_owned(), now))
            .collect()
    }

    fn gone(
        &mut self,
        ix: BoxIx,
        kind: Kind,
        cause: Cause,
        silent_for: Duration,
        last_seen: Option<Timestamp>,
        now: Moment,
    ) -> Vec<Change> {
        // Members of a storm are told of with it.
        if self.storms.values().any(|members| members.contains(&ix)) {
            return Vec::new();
        }
        let mut say = self.absence(ix, silent_for, last_seen, now, |name| sentence(name, kind, cause));
        say.details.insert("cause".into(), cause_word(cause).into());
        self.say(about(kind, ix), say, Tell::Timeline, now)
            .into_iter()
            .collect()
    }

    fn absence(
        &self,
        ix: BoxIx,
        silent_for: Duration,
        last_seen: Option<Timestamp>,
        now: Moment,
        head: impl Fn(&str) -> String,
    ) -> Say {
        let mut summary = format!("{} {}", head(&self.name(ix)), duration(silent_for));
        if let Some(seen) = last_seen {
            summary = format!("{summary} (last seen {})", moment(seen));
        }
        let mut details = Details::new();
        if let Some(facts) = self.facts(ix) {
            let others = self.gone_besides(ix);
            let more = diagnosis(facts, others, now.wall);
            if !more.is_empty() {
                summary = format!("{summary}; {more}");
            }
            details = diagnosis_details(facts, others);
        }
        details.insert("silent_for_secs".into(), json!(silent_for.as_secs_f64()));
        details.insert("last_seen".into(), json!(last_seen));
        Say {
            severity: severity::of(Kind::BoxDark),
            summary,
            details,
        }
    }

    fn gone_besides(&self, ix: BoxIx) -> u32 {
        let others = self
            .all_facts()
            .filter(|facts| facts.info.ix != ix && facts.is_gone() && !facts.info.id.is_canary());
        others.count() as u32
    }

    fn storm_opened(&mut self, group: &Group, members: &[BoxIx], expected: u32, now: Moment) -> Vec<Change> {
        let subject = subject_of(group);
        self.storms
            .insert(subject.clone(), members.iter().copied().collect());
        let say = Say {
            severity: severity::of(Kind::SiteDark),
            summary: format!(
                "{group}: {} of {expected} boxes dark, all at once; the others are heard. {}",
                members.len(),
                "Look at what they share: site, uplink, provider."
            ),
            details: self.storm_details(group, members, members.len(), expected),
        };
        let key = Key {
            kind: Kind::SiteDark,
            about: None,
            subject,
        };
        self.say(key, say, Tell::Receivers, now).into_iter().collect()
    }

    fn storm_changed(&mut self, group: &Group, members: &[BoxIx], now: Moment) -> Vec<Change> {
        let subject = subject_of(group);
        let before = self
            .storms
            .insert(subject.clone(), members.iter().copied().collect());
        let joined = members
            .iter()
            .any(|ix| before.as_ref().is_none_or(|before| !before.contains(ix)));
        let key = Key {
            kind: Kind::SiteDark,
            about: None,
            subject,
        };
        let quiet = self
            .told_at(&key)
            .is_none_or(|told| now.wall.duration_since(told) >= QUIET);
        let Some(incident) = self.incident(&key) else {
            return Vec::new();
        };
        let figure = |name: &str| incident.details.get(name).and_then(Value::as_u64).unwrap_or(0);
        let told_peak = figure("peak") as usize;
        let expected = figure("expected").max(members.len() as u64) as u32;
        let grew = joined && (quiet || members.len() as f64 > told_peak as f64 * (1.0 + GREW));
        let peak = told_peak.max(members.len());
        let say = Say {
            severity: incident.severity,
            summary: format!(
                "{group}: {} of {expected} boxes dark (at most {peak})",
                members.len()
            ),
            details: self.storm_details(group, members, if grew { peak } else { told_peak }, expected),
        };
        let tell = if grew { Tell::Receivers } else { Tell::Timeline };
        self.say(key, say, tell, now).into_iter().collect()
    }

    fn storm_over(&mut self, group: &Group, stragglers: &[BoxIx], now: Moment) -> Vec<Change> {
        let subject = subject_of(group);
        self.storms.remove(&subject);
        let key = Key {
            kind: Kind::SiteDark,
            about: None,
            subject,
        };
        let said = if stragglers.is_empty() {
            format!("{group}: all boxes are back")
        } else {
            format!(
                "{group}: the boxes are back, except {} told of one by one",
                stragglers.len()
            )
        };
        let mut changes: Vec<Change> = self.resolve(&key, said, now).into_iter().collect();
        for ix in stragglers {
            let say = self.straggler(*ix, group, now);
            changes.extend(self.say(about(Kind::BoxDark, *ix), say, Tell::Timeline, now));
        }
        changes
    }

    fn straggler(&self, ix: BoxIx, group: &Group, now: Moment) -> Say {
        let mut details = Details::new();
        let mut summary = format!(
            "{} went dark with {group} and has not come back with it",
            self.name(ix)
        );
        if let Some(facts) = self.facts(ix) {
            let others = self.gone_besides(ix);
            details = diagnosis_details(facts, others);
            let more = diagnosis(facts, others, now.wall);
            if !more.is_empty() {
                summary = format!("{summary}; {more}");
            }
        }
        details.insert("cause".into(), cause_word(Cause::Group).into());
        Say {
            severity: severity::of(Kind::BoxDark),
            summary,
            details,
        }
    }

    fn storm_details(&self, group: &Group, members: &[BoxIx], peak: usize, expected: u32) -> Details {
        let named: Vec<String> = members
            .iter()
            .take(MEMBERS_NAMED)
            .map(|ix| self.name(*ix))
            .collect();
        object(json!({
            "group": group.to_string(), "gone": members.len(), "peak": peak, "expected": expected, "members": named,
        }))
    }

    fn blind(&mut self, why: BlindWhy, (overdue, expected): (u32, u32), now: Moment) -> Option<Change> {
        let (word, sentence) = match why {
            BlindWhy::Collapse => (
                "collapse",
                format!(
                    "{overdue} of {expected} boxes stopped being heard at once, so this server or its uplink is the \
                     likelier cause. Nobody is judged until they are heard again."
                ),
            ),
            BlindWhy::Overload => (
                "overload",
                "this server does not get round to its work; it lacks CPU. Nobody is judged until it does."
                    .to_owned(),
            ),
        };
        let say = Say {
            severity: severity::of(Kind::ServerBlind),
            summary: format!("I may be blind: {sentence}"),
            details: Details::from_iter([
                ("cause".to_owned(), word.into()),
                ("overdue".to_owned(), overdue.into()),
                ("expected".to_owned(), expected.into()),
            ]),
        };
        self.say(plain(Kind::ServerBlind), say, Tell::Timeline, now)
    }

    fn duplicate(&mut self, ix: BoxIx, now: Moment) -> Option<Change> {
        let say = Say {
            severity: severity::of(Kind::DuplicateIdentity),
            summary: format!(
                "two machines speak with the token of {}: a cloned disk image, a restored snapshot, or a stolen token. \
                 Give each machine a token of its own.",
                self.name(ix)
            ),
            details: Details::new(),
        };
        self.say(about(Kind::DuplicateIdentity, ix), say, Tell::Timeline, now)
    }
}

/// The subject of a group's incident, and what it is stored by.
pub fn subject_of(group: &Group) -> String {
    match group {
        Group::Fleet => "fleet".to_owned(),
        Group::Label { name, value } => format!("{name}={value}"),
    }
}

/// The group of a stored subject.
pub fn group_of(subject: &str) -> Option<Group> {
    if subject == "fleet" {
        return Some(Group::Fleet);
    }
    let (name, value) = subject.split_once('=')?;
    Some(Group::Label {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

/// The labels that a group shares.
pub(super) fn group_labels(subject: &str) -> Labels {
    match group_of(subject) {
        Some(Group::Label { name, value }) => Labels::from_texts([(name, value)]).unwrap_or_default(),
        Some(Group::Fleet) | None => Labels::default(),
    }
}

fn sentence(name: &str, kind: Kind, cause: Cause) -> String {
    if kind == Kind::BoxSilent {
        return format!("{name} is silent: its host answers, its watchdog has not for");
    }
    match cause {
        Cause::WitnessConfirmed => format!("{name} is dark: nothing answers, no heartbeat for"),
        Cause::ConnectionClosed => {
            format!("{name} is dark: its connection was closed without a goodbye, no heartbeat for")
        }
        Cause::Deadline | Cause::HostAnswers | Cause::Group => format!("{name} is dark: no heartbeat for"),
    }
}

fn state(what: What) -> Liveness {
    match what {
        What::Live { .. } => Liveness::Live,
        What::Suspect { .. } => Liveness::Suspect,
        What::Dark { .. } | What::Overdue { .. } => Liveness::Dark,
        What::Silent { .. } => Liveness::Silent,
        What::Away { .. } => Liveness::Away,
    }
}

pub(super) fn about(kind: Kind, ix: BoxIx) -> Key {
    Key {
        kind,
        about: Some(ix),
        subject: String::new(),
    }
}

pub(super) fn plain(kind: Kind) -> Key {
    Key {
        kind,
        about: None,
        subject: String::new(),
    }
}
