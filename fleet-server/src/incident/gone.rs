//! Boxes that went, alone or together, and the server's own blindness: one incident for what is one thing.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::incident::{Incident, Kind};
use protocol::names::Labels;
use serde_json::{Value, json};

use super::change::Change;
use super::checks::object;
use super::facts::WitnessWord;
use super::ledger::{Key, Ledger, Say, Tell};
use super::severity;
use super::text::{
    Details, MEMBERS_NAMED, cause_word, diagnosis, diagnosis_details, duration, moment, storm_word,
    witness_values,
};
use crate::liveness::BoxIx;
use crate::liveness::event::{BlindWhy, Cause, Event, Group, StormWhy, Transition, What};
use crate::liveness::time::Moment;

/// What says that a box is gone.
pub(super) const ABSENCES: [Kind; 3] = [Kind::BoxDark, Kind::BoxSilent, Kind::PlannedOverdue];
/// From this share on a group is dark as a whole.
const WHOLE: f64 = 0.9;

/// What is told of a storm, besides who is in it.
struct Storm {
    why: StormWhy,
    peak: usize,
    expected: u32,
    since: Timestamp,
}

impl Storm {
    /// As its incident has it.
    fn of(incident: &Incident) -> Self {
        let figure = |name: &str| incident.details.get(name).and_then(Value::as_u64).unwrap_or(0);
        let word = incident.details.get("cause").and_then(Value::as_str);
        Self {
            why: StormWhy::ALL
                .into_iter()
                .find(|why| word == Some(storm_word(*why)))
                .unwrap_or(StormWhy::Share),
            peak: figure("peak") as usize,
            expected: figure("expected") as u32,
            since: incident.opened_at,
        }
    }

    fn opened(&self, group: &Group) -> String {
        let (gone, expected) = (self.peak, self.expected);
        match self.why {
            StormWhy::Share | StormWhy::Settled => {
                let percent = (gone as f64 / f64::from(expected.max(1)) * 100.0).round();
                format!(
                    "{group}: {gone} of {expected} boxes dark ({percent} %), all at once. Look at what they share: \
                     site, uplink, provider."
                )
            }
            StormWhy::Absence => {
                format!(
                    "{group}: {gone} of {expected} boxes are still dark now that their maintenance or silence is over"
                )
            }
            StormWhy::Rate => format!(
                "{group}: more boxes go dark one by one than are told of alone in a minute; {gone} of {expected} so \
                 far, and all further ones, are told of here."
            ),
        }
    }

    fn goes_on(&self, group: &Group, gone: usize, now: Timestamp) -> String {
        let since = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        format!(
            "{group}: {gone} of {} boxes dark (at most {}), for {}",
            self.expected,
            self.peak,
            duration(since)
        )
    }
}

impl Ledger {
    /// What liveness found, in its order.
    pub fn liveness(&mut self, event: &Event) -> Vec<Change> {
        match event {
            Event::Box(change) => self.moved(change),
            Event::StormOpened {
                group,
                why,
                members,
                expected,
                at,
            } => self.storm_opened((group, *why), members, *expected, *at),
            Event::StormChanged {
                group,
                members,
                grew,
                at,
            } => self.storm_changed(group, members, *grew, *at),
            Event::Straggler { group, ix, at } => self.straggler(*ix, group, *at).into_iter().collect(),
            Event::StormOver {
                group,
                stragglers,
                at,
            } => self.storm_over(group, stragglers, *at).into_iter().collect(),
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

    /// What its witnesses said last, one word each: kept for the text, and put into what is open about the box.
    pub fn witnesses(&mut self, ix: BoxIx, words: Vec<WitnessWord>, now: Moment) {
        let figure = witness_values(&words, now.wall);
        if let Some(facts) = self.facts_mut(ix) {
            facts.witnesses = words;
        }
        for kind in [Kind::BoxDark, Kind::BoxSilent] {
            let figure = Some(("witnesses", figure.clone()));
            self.note(&about(kind, ix), String::new(), figure, Tell::Nobody, now);
        }
    }

    /// The host of a dark box answers a witness again; its watchdog is still not heard.
    pub fn host_back(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let said = format!(
            "the host of {} answers its witnesses again; its watchdog is still not heard",
            self.name(ix)
        );
        [Kind::BoxDark, Kind::BoxSilent]
            .into_iter()
            .filter_map(|kind| self.note(&about(kind, ix), said.clone(), None, Tell::Timeline, now))
            .collect()
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
        if facts.is_gone() {
            self.forget_account(ix);
        }
        let Some(facts) = self.facts_mut(ix) else {
            return Vec::new();
        };
        match change.what {
            What::Suspect { .. } => {
                // A witness's word is of one suspicion.
                facts.witnesses.clear();
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
                self.heard_again(ix, said, at)
            }
            What::Dark {
                cause: Cause::HostLost,
                silent_for,
            } if self.is_open(&about(Kind::BoxSilent, ix)) => {
                self.host_lost(ix, silent_for, change.last_seen, at)
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
            What::Overdue { .. } if self.is_told_with_its_group(ix) => Vec::new(),
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
        self.heard_again(change.ix, said, change.at)
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
        if self.is_told_with_its_group(ix) {
            return Vec::new();
        }
        let mut say = self.absence(ix, silent_for, last_seen, now, |name| sentence(name, kind, cause));
        say.details.insert("cause".into(), cause_word(cause).into());
        self.say(about(kind, ix), say, Tell::Timeline, now)
            .into_iter()
            .collect()
    }

    /// The one incident goes on: who was woken by it hears that it is worse.
    fn host_lost(
        &mut self,
        ix: BoxIx,
        silent_for: Duration,
        last_seen: Option<Timestamp>,
        now: Moment,
    ) -> Vec<Change> {
        let mut say = self.absence(ix, silent_for, last_seen, now, |name| {
            format!("{name} is dark now: its host has stopped answering as well, no heartbeat for")
        });
        say.details
            .insert("cause".into(), cause_word(Cause::HostLost).into());
        self.say(about(Kind::BoxSilent, ix), say, Tell::Receivers, now)
            .into_iter()
            .collect()
    }

    /// The open incident that says that the box is gone.
    pub fn absence_of(&self, ix: BoxIx) -> Option<&Incident> {
        ABSENCES
            .into_iter()
            .find_map(|kind| self.incident(&about(kind, ix)))
    }

    /// The open storms, with who is gone in each.
    pub fn open_storms(&self) -> impl Iterator<Item = (&Incident, &BTreeSet<BoxIx>)> {
        self.storms.iter().filter_map(|(subject, members)| {
            let key = storm_key(&group_of(subject)?);
            Some((self.incident(&key)?, members))
        })
    }

    /// A storm tells of the box from now on, together with others.
    pub fn told_with_others(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let said = format!(
            "{} is still gone now that it is not muted any more; told of with the others that are",
            self.name(ix)
        );
        let ended = ABSENCES
            .into_iter()
            .filter_map(|kind| self.end(&about(kind, ix), said.clone(), now));
        ended.collect()
    }

    /// Members of a storm are told of with it.
    fn is_told_with_its_group(&self, ix: BoxIx) -> bool {
        self.storms.values().any(|members| members.contains(&ix))
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
            details = diagnosis_details(facts, others, now.wall);
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

    fn storm_opened(
        &mut self,
        (group, why): (&Group, StormWhy),
        members: &[BoxIx],
        expected: u32,
        now: Moment,
    ) -> Vec<Change> {
        let key = storm_key(group);
        self.storms
            .insert(key.subject.clone(), members.iter().copied().collect());
        let storm = Storm {
            why,
            peak: members.len(),
            expected,
            since: now.wall,
        };
        let say = Say {
            severity: severity::of(Kind::SiteDark),
            summary: storm.opened(group),
            details: self.storm_details(group, &storm, members),
        };
        self.say(key, say, Tell::Receivers, now).into_iter().collect()
    }

    fn storm_changed(&mut self, group: &Group, members: &[BoxIx], grew: bool, now: Moment) -> Vec<Change> {
        let key = storm_key(group);
        self.storms
            .insert(key.subject.clone(), members.iter().copied().collect());
        let Some(incident) = self.incident(&key) else {
            return Vec::new();
        };
        let mut storm = Storm::of(incident);
        storm.peak = storm.peak.max(members.len());
        storm.expected = storm.expected.max(members.len() as u32);
        let say = Say {
            severity: incident.severity,
            summary: storm.goes_on(group, members.len(), now.wall),
            details: self.storm_details(group, &storm, members),
        };
        let tell = if grew { Tell::Receivers } else { Tell::Timeline };
        self.say(key, say, tell, now).into_iter().collect()
    }

    fn storm_over(&mut self, group: &Group, stragglers: &[BoxIx], now: Moment) -> Option<Change> {
        let key = storm_key(group);
        self.storms.remove(&key.subject);
        let accounts = self.accounts_of(&key);
        let said = match stragglers.len() {
            0 => format!("{group}: all boxes are back"),
            1 => format!(
                "{group}: the boxes are back, except {}, which has its own incident",
                self.name(stragglers[0])
            ),
            left => format!("{group}: the boxes are back, except {left} with their own incidents"),
        };
        self.resolve(&key, format!("{said}{accounts}"), now)
    }

    fn straggler(&mut self, ix: BoxIx, group: &Group, now: Moment) -> Option<Change> {
        if let Some(members) = self.storms.get_mut(&subject_of(group)) {
            members.remove(&ix);
        }
        let mut details = Details::new();
        let mut summary = format!(
            "{} went dark with others of {group} and has not come back with them",
            self.name(ix)
        );
        let mut kind = Kind::BoxDark;
        if let Some(facts) = self.facts(ix) {
            if facts.state == Liveness::Silent {
                kind = Kind::BoxSilent;
            }
            let others = self.gone_besides(ix);
            details = diagnosis_details(facts, others, now.wall);
            let more = diagnosis(facts, others, now.wall);
            if !more.is_empty() {
                summary = format!("{summary}; {more}");
            }
        }
        details.insert("cause".into(), cause_word(Cause::Group).into());
        let say = Say {
            severity: severity::of(kind),
            summary,
            details,
        };
        self.say(about(kind, ix), say, Tell::Timeline, now)
    }

    fn storm_details(&self, group: &Group, storm: &Storm, members: &[BoxIx]) -> Details {
        let named: Vec<String> = members
            .iter()
            .take(MEMBERS_NAMED)
            .map(|ix| self.name(*ix))
            .collect();
        let share = members.len() as f64 / f64::from(storm.expected.max(1));
        object(json!({
            "group": group.to_string(), "cause": storm_word(storm.why), "gone": members.len(), "peak": storm.peak,
            "expected": storm.expected, "share": (share * 1000.0).round() / 1000.0, "since": storm.since,
            "extent": if share >= WHOLE { "full" } else { "partial" }, "members": named,
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
            BlindWhy::NoWayOut => (
                "no_way_out",
                "none of the addresses declared for this server itself ([witness] self) answers and no box is heard, so \
                 its own uplink is the likelier cause. Nobody is judged until one answers or a box is heard."
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

fn storm_key(group: &Group) -> Key {
    Key {
        kind: Kind::SiteDark,
        about: None,
        subject: subject_of(group),
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
        Cause::HostLost => format!("{name} is dark: its host does not answer either, no heartbeat for"),
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
