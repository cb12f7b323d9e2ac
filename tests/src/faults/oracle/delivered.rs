//! No incident without its notifications, and nobody who is gone without an incident.

use std::collections::BTreeSet;

use protocol::api::{IncidentDetail, Liveness};
use protocol::incident::{EventKind, Incident, Kind};
use protocol::names::BoxName;

use super::{Rule, Violation};
use crate::faults::history::{Books, BoxTruth, Done, Gone, History, ReceiverTruth, Span, Told};

/// A goodbye for longer than this is not over when a schedule ends.
const LONG_GOODBYE_SECS: u64 = 60;
/// Over the longest deadline: a verdict may be held this long so that a group can show, and a turn takes its time.
const VERDICT_MS: i64 = 2000;

/// While many come back, verdicts on the others wait: as many as this …
const RUSH_BOXES: usize = 5;
/// … within this before.
const RUSH_MS: i64 = 15_000;
/// A mute that is over is noticed within this.
const UNMUTED_MS: i64 = 1600;
/// Clocks and threads may be so far apart.
const SLACK_MS: i64 = 150;

/// What is not yet as it must be once every fault is over.
pub(in crate::faults) fn lacks(history: &History) -> Vec<String> {
    let (boxes, books) = (&history.boxes, &history.last);
    let mut lacks = Vec::new();
    for truth in boxes {
        lacks.extend(box_lacks(truth, books));
    }
    for one in &books.incidents {
        let incident = &one.incident;
        if incident.resolved_at.is_none() && !stands(incident, boxes) {
            lacks.push(format!("{} is open, and what it says is over", named(incident)));
        }
        for (ix, receiver) in history.receivers.iter().enumerate() {
            lacks.extend(untold(one, receiver, must_hear(history, one, ix)));
            lacks.extend(not_again(history, one, receiver));
        }
    }
    lacks
}

pub(super) fn judge(history: &History) -> Vec<Violation> {
    let unsettled = history.unsettled.iter().cloned();
    // With steps and silences not everybody hears everything.
    let everything =
        history.step_ms.is_none() && history.done.iter().all(|done| silenced_box(done).is_none());
    let gaps = history.receivers.iter().filter(|_| everything).flat_map(gaps);
    let unknown = history
        .receivers
        .iter()
        .flat_map(|receiver| unknown(receiver, &history.last));
    let missed = history.boxes.iter().flat_map(|truth| missed(history, truth));
    unsettled
        .chain(gaps)
        .chain(unknown)
        .chain(missed)
        .map(|text| Violation::new(Rule::Lost, text))
        .collect()
}

/// Whom a silence is about, when it may have been in force, and when it was for sure.
fn silenced_box(done: &Done) -> Option<(&str, Span, Span)> {
    match done {
        Done::Silenced {
            about: Some(about),
            asked_ms,
            at_ms,
            until_ms,
            ..
        } => {
            let perhaps = Span {
                from_ms: *asked_ms,
                to_ms: *until_ms,
            };
            let surely = Span {
                from_ms: *at_ms,
                to_ms: until_ms - (at_ms - asked_ms),
            };
            Some((about, perhaps, surely))
        }
        Done::Silenced { about: None, .. } | Done::Acknowledged { .. } | Done::Added { .. } => None,
    }
}

/// When the incident's box may have been silenced, and when it was for sure.
pub(super) fn silences<'a>(
    history: &'a History,
    incident: &'a Incident,
) -> impl Iterator<Item = (Span, Span)> + 'a {
    let about = incident.box_name.as_ref().map(BoxName::as_str);
    let silenced = history.done.iter().filter_map(silenced_box);
    silenced
        .filter(move |(name, ..)| Some(*name) == about)
        .map(|(_, perhaps, surely)| (perhaps, surely))
}

/// Whether the receiver must have heard of the incident. Where a silence, an acknowledgement or a step leaves it open,
/// only what is still so at the end is asked for.
fn must_hear(history: &History, one: &IncidentDetail, receiver: usize) -> bool {
    let incident = &one.incident;
    let opened_ms = history.ms_of(incident.opened_at);
    let step_ms = history.step_ms.filter(|_| receiver > 0);
    let long = |(perhaps, _): (Span, Span)| Span {
        from_ms: perhaps.from_ms - SLACK_MS,
        to_ms: perhaps.to_ms + UNMUTED_MS,
    };
    let silences: Vec<Span> = silences(history, incident).map(long).collect();
    let at_once = Span {
        from_ms: opened_ms,
        to_ms: opened_ms + 1,
    };
    if step_ms.is_none() && !silences.iter().any(|silence| silence.meets(at_once)) {
        return true;
    }
    let last_ms = silences
        .iter()
        .map(|silence| silence.to_ms)
        .fold(opened_ms, i64::max);
    let due_ms = last_ms + step_ms.unwrap_or(0) + UNMUTED_MS;
    incident.resolved_at.is_none() && one.ack.is_none() && due_ms < history.ended_ms
}

/// Who heard of an open incident before a silence, and has not since it is over, although nobody acknowledged it.
fn not_again(history: &History, one: &IncidentDetail, receiver: &ReceiverTruth) -> Option<String> {
    let incident = &one.incident;
    if incident.resolved_at.is_some() || one.ack.is_some() {
        return None;
    }
    // Of several the last to end: in between they may be one.
    let (perhaps, surely) = silences(history, incident).max_by_key(|(perhaps, _)| perhaps.to_ms)?;
    let told = || {
        let of_it = |told: &&Told| {
            let same = &told.alert.incident;
            told.taken() && same.id == incident.id && same.opened_at == incident.opened_at
        };
        receiver.told.iter().filter(of_it)
    };
    // Who heard more than once is told again only minutes later.
    let revisions: BTreeSet<u32> = told()
        .filter(|told| told.at_ms <= surely.to_ms)
        .map(|told| told.alert.revision)
        .collect();
    let before = told().any(|told| told.at_ms < perhaps.from_ms - SLACK_MS) && revisions.len() == 1;
    let since = told().any(|told| told.at_ms > surely.to_ms - SLACK_MS);
    let over = perhaps.to_ms + UNMUTED_MS < history.ended_ms;
    // A server that was away all the while never knew of it as muted.
    let noted = calm(history, surely);
    (before && !since && over && noted).then(|| {
        format!(
            "{}: {} was silenced until {} ms, and not told again",
            receiver.name,
            named(incident),
            perhaps.to_ms
        )
    })
}

/// A box that sends is live; one that is gone is told of.
fn box_lacks(truth: &BoxTruth, books: &Books) -> Option<String> {
    let name = &truth.name;
    let Some(row) = books.boxes.iter().find(|row| row.name.as_str() == name) else {
        return Some(format!("{name} is not in the books"));
    };
    let gone = truth
        .gone
        .iter()
        .rfind(|absence| absence.span.to_ms == Span::OPEN);
    let Some(gone) = gone else {
        return (row.state != Liveness::Live).then(|| format!("{name} sends, and is called {}", row.state));
    };
    if let Gone::Goodbye { back_secs } = gone.why
        && back_secs > LONG_GOODBYE_SECS
        && row.state == Liveness::Away
    {
        return None;
    }
    let open = books
        .incidents
        .iter()
        .filter(|one| one.incident.resolved_at.is_none());
    let told = open
        .map(|one| &one.incident)
        .any(|incident| tells_of(incident, name));
    (!told).then(|| {
        format!(
            "{name} is gone (and called {}), and no open incident says so",
            row.state
        )
    })
}

/// Whether the incident says that the box is gone.
fn tells_of(incident: &Incident, name: &str) -> bool {
    match incident.kind {
        Kind::BoxDark | Kind::BoxSilent | Kind::PlannedOverdue => incident
            .box_name
            .as_ref()
            .is_some_and(|about| about.as_str() == name),
        Kind::SiteDark => members(incident).contains(name),
        _ => false,
    }
}

/// Whether an open incident is still so.
fn stands(incident: &Incident, boxes: &[BoxTruth]) -> bool {
    let gone = |truth: &&BoxTruth| truth.gone.iter().any(|absence| absence.span.to_ms == Span::OPEN);
    let about = || {
        let name = incident.box_name.as_ref()?;
        boxes.iter().find(|truth| truth.name == name.as_str())
    };
    match incident.kind {
        Kind::BoxDark | Kind::BoxSilent | Kind::PlannedOverdue => about().is_some_and(|truth| gone(&truth)),
        Kind::SiteDark => {
            let members = members(incident);
            boxes
                .iter()
                .filter(gone)
                .any(|truth| members.contains(&truth.name))
        }
        // Who is gone cannot say that it is mended.
        Kind::Disk | Kind::Backup => about().is_some_and(|truth| {
            let fails = truth
                .failing
                .iter()
                .any(|(check, span)| check.as_str() == incident.kind.as_str() && span.to_ms == Span::OPEN);
            fails || gone(&truth)
        }),
        _ => false,
    }
}

/// The boxes that an incident of a group names.
pub(super) fn members(incident: &Incident) -> BTreeSet<String> {
    let named = incident
        .details
        .get("members")
        .and_then(|members| members.as_array());
    let text = |member: &serde_json::Value| member.as_str().map(ToOwned::to_owned);
    named.into_iter().flatten().filter_map(text).collect()
}

/// What of the incident the receiver has not taken.
fn untold(one: &IncidentDetail, receiver: &ReceiverTruth, must_hear: bool) -> Option<String> {
    let incident = &one.incident;
    let taken = |event: EventKind| {
        receiver.told.iter().any(|told| {
            let same = &told.alert.incident;
            told.taken()
                && told.alert.event == event
                && same.id == incident.id
                && same.opened_at == incident.opened_at
        })
    };
    let began = taken(EventKind::Opened);
    if must_hear && !began {
        return Some(format!(
            "{}: {} was never told to be open",
            receiver.name,
            named(incident)
        ));
    }
    (began && incident.resolved_at.is_some() && !taken(EventKind::Resolved))
        .then(|| format!("{}: {} was never told to be over", receiver.name, named(incident)))
}

/// Revisions of an incident that another receiver's or a later one shows to have been there.
fn gaps(receiver: &ReceiverTruth) -> Vec<String> {
    let keys: BTreeSet<&str> = receiver.told.iter().map(|told| told.alert.key.as_str()).collect();
    let gaps_of = |key: &str| -> Vec<String> {
        let of_key = receiver.told.iter().filter(|told| told.alert.key == key);
        let most = of_key.clone().map(|told| told.alert.revision).max().unwrap_or(0);
        let taken: BTreeSet<u32> = of_key
            .filter(|told| told.taken())
            .map(|told| told.alert.revision)
            .collect();
        (1..most)
            .filter(|revision| !taken.contains(revision))
            .map(|revision| {
                format!(
                    "{}: {key}/{revision} never arrived, {key}/{most} did",
                    receiver.name
                )
            })
            .collect()
    };
    keys.into_iter().flat_map(gaps_of).collect()
}

/// Told of, and not in the books.
fn unknown(receiver: &ReceiverTruth, last: &Books) -> Vec<String> {
    let known = |incident: &Incident| {
        last.incidents
            .iter()
            .any(|one| one.incident.id == incident.id && one.incident.opened_at == incident.opened_at)
    };
    let strange = receiver.told.iter().filter(|told| !known(&told.alert.incident));
    let texts: BTreeSet<String> = strange
        .map(|told| {
            format!(
                "{}: {} was told, and is not in the books",
                receiver.name, told.alert.key
            )
        })
        .collect();
    texts.into_iter().collect()
}

/// Absences that any server had to tell of: long enough, and nothing wrong with the server meanwhile.
fn missed(history: &History, truth: &BoxTruth) -> Vec<String> {
    let rules = history.rules;
    // A server whose own turns are late moves every deadline by that: it gets as little of the machine as this process.
    let verdict_ms = (rules.dark_after_max_ms + VERDICT_MS) * (100 + 2 * history.starved_percent) / 100;
    let long = truth.gone.iter().filter(|absence| {
        let Span { from_ms, to_ms } = absence.span;
        let needed = Span {
            from_ms: from_ms - rules.warm_up_ms.max(rules.dark_after_max_ms),
            to_ms: from_ms + verdict_ms,
        };
        let by_itself = matches!(absence.why, Gone::Silent | Gone::Cut);
        let alone = truth.gone.iter().filter(|other| other.span.meets(needed)).count() == 1;
        by_itself
            && alone
            && !rush(history, needed)
            && to_ms.min(history.ended_ms) >= needed.to_ms
            && calm(history, needed)
    });
    long.filter(|absence| !told_of(history, truth, absence.span))
        .map(|absence| {
            format!(
                "{} was gone from {} ms on, the server was well, and no incident says so",
                truth.name, absence.span.from_ms
            )
        })
        .collect()
}

/// So many may have come back of late that the server waits for the others. One that stood still or started anew hears
/// all of them again.
fn rush(history: &History, needed: Span) -> bool {
    let before = Span {
        from_ms: needed.from_ms - RUSH_MS,
        ..needed
    };
    let hung = history.server.hung.iter().any(|hung| hung.meets(before));
    let mut starts = history.server.serving.iter().skip(1);
    let started = starts.any(|serving| (before.from_ms..before.to_ms).contains(&serving.from_ms));
    let absences = history.boxes.iter().flat_map(|truth| &truth.gone);
    let back = absences.filter(|absence| (before.from_ms..before.to_ms).contains(&absence.span.to_ms));
    hung || started || back.count() >= RUSH_BOXES
}

/// The server ran and judged all the time, and could write down what it decided.
fn calm(history: &History, span: Span) -> bool {
    !history.server.disk_ill.iter().any(|ill| ill.meets(span))
        && history.server.serving.iter().any(|serving| serving.holds(span))
        && !history.server.hung.iter().any(|hung| hung.meets(span))
}

fn told_of(history: &History, truth: &BoxTruth, span: Span) -> bool {
    history
        .last
        .incidents
        .iter()
        .map(|one| &one.incident)
        .any(|incident| {
            let open = Span {
                from_ms: history.ms_of(incident.opened_at),
                to_ms: incident.resolved_at.map_or(Span::OPEN, |at| history.ms_of(at)),
            };
            open.meets(span)
                && match incident.kind {
                    // While it is blind it judges nobody, and says that.
                    Kind::ServerBlind => true,
                    // It names those who are gone now, not those who were.
                    Kind::SiteDark => incident.labels.get("site").is_none_or(|site| site == truth.site),
                    _ => tells_of(incident, &truth.name),
                }
        })
}

fn named(incident: &Incident) -> String {
    let about = incident.box_name.as_ref().map_or("-", |name| name.as_str());
    format!(
        "incident {} ({} {about}: {})",
        incident.id, incident.kind, incident.summary
    )
}
