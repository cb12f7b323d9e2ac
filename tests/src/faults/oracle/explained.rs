//! No notification without a cause in what was done.
//!
//! A beat may have left up to an interval (and its jitter) before its box went, so a silence begins that much earlier
//! than the absence. A box that comes back is heard with its first beat; one whose cable comes back, when its client has
//! given up what it was waiting for.

use std::collections::BTreeMap;

use protocol::alert::Alert;
use protocol::incident::{EventKind, Incident, Kind};

use super::delivered::{members, silences};
use super::{Rule, Violation};
use crate::faults::history::{BoxTruth, Gone, History, Span, Told};

/// From the end of an absence to the first beat, at most, if the server takes it: a client waits a second for an answer
/// before it tries anew.
const RETURN_MS: i64 = 2500;
/// What clocks and threads may be apart.
const SLACK_MS: i64 = 60;
/// A silence begins and ends within so long of what its maker was told.
const SILENCE_MS: i64 = 200;
/// Boxes that are gone together before the server may doubt itself.
const DOUBT_MIN: usize = 3;
/// A goodbye that was given within so long of trouble with the server may not be on its disk.
const GOODBYE_MS: i64 = 1000;

pub(super) fn judge(history: &History) -> Vec<Violation> {
    let arrived = history.receivers.iter().flat_map(|receiver| &receiver.told);
    // Both receivers hear the same, and a repeat says it again.
    let once: BTreeMap<&str, &Told> = arrived
        .rev()
        .map(|told| (told.idempotency_key.as_str(), told))
        .collect();
    let strange = once.into_values().filter_map(|told| {
        let why = explained(history, &told.alert)
            .and_then(|()| unsilenced(history, told))
            .err()?;
        let (event, key, summary) = (told.alert.event, &told.alert.key, &told.alert.incident.summary);
        Some(Violation::new(
            Rule::Unexplained,
            format!("{event} {key} at {} ms: {why}; it says: {summary}", told.at_ms),
        ))
    });
    strange.collect()
}

/// What opened while its box was silenced is told when that is over, not before.
fn unsilenced(history: &History, told: &Told) -> Result<(), String> {
    let incident = &told.alert.incident;
    let opened_ms = history.ms_of(incident.opened_at);
    let mut surely = silences(history, incident).map(|(_, surely)| surely);
    let silenced = surely.find(|silence| {
        let (from_ms, to_ms) = (silence.from_ms + SILENCE_MS, silence.to_ms - SILENCE_MS);
        (from_ms..to_ms).contains(&opened_ms) && told.at_ms < to_ms
    });
    match silenced {
        Some(Span { from_ms, to_ms }) => Err(format!("it was silenced from {from_ms} to {to_ms} ms")),
        None => Ok(()),
    }
}

fn explained(history: &History, alert: &Alert) -> Result<(), String> {
    let incident = &alert.incident;
    match alert.event {
        EventKind::Opened | EventKind::Updated => began(history, incident),
        EventKind::Resolved => ended(history, incident),
    }
}

fn began(history: &History, incident: &Incident) -> Result<(), String> {
    let at_ms = history.ms_of(incident.opened_at);
    match incident.kind {
        Kind::BoxDark | Kind::BoxSilent => {
            let truth = truth_of(history, incident)?;
            if silent_at(history, truth, at_ms) {
                return Ok(());
            }
            Err(format!(
                "{} was not gone for long enough at {at_ms} ms; {}",
                truth.name,
                absences(truth)
            ))
        }
        Kind::PlannedOverdue => {
            let truth = truth_of(history, incident)?;
            let overdue = truth.gone.iter().any(|absence| match absence.why {
                Gone::Goodbye { back_secs } => {
                    let due_ms = absence.span.from_ms + back_secs as i64 * 1000;
                    due_ms - SLACK_MS <= at_ms && at_ms <= absence.span.to_ms.saturating_add(RETURN_MS)
                }
                Gone::Silent | Gone::Cut => false,
            });
            if overdue {
                return Ok(());
            }
            Err(format!(
                "{} had not promised to be back by {at_ms} ms; {}",
                truth.name,
                absences(truth)
            ))
        }
        Kind::SiteDark => group(history, incident, at_ms),
        Kind::ServerBlind => {
            let gone = history
                .boxes
                .iter()
                .filter(|truth| suspect_at(history, truth, at_ms))
                .count();
            if gone >= DOUBT_MIN {
                return Ok(());
            }
            Err(format!("only {gone} boxes were gone at {at_ms} ms"))
        }
        Kind::Disk | Kind::Backup => {
            let truth = truth_of(history, incident)?;
            let fails = |(check, span): &(protocol::report::CheckName, Span)| {
                check.as_str() == incident.kind.as_str() && span.from_ms - SLACK_MS <= at_ms
            };
            if truth.failing.iter().any(fails) {
                return Ok(());
            }
            Err(format!(
                "no check {} of {} failed by {at_ms} ms",
                incident.kind, truth.name
            ))
        }
        _ => Err("nothing of the kind was done".to_owned()),
    }
}

fn ended(history: &History, incident: &Incident) -> Result<(), String> {
    let opened_ms = history.ms_of(incident.opened_at);
    let Some(resolved_at) = incident.resolved_at else {
        return Err("it says resolved, and names no time".to_owned());
    };
    let resolved_ms = history.ms_of(resolved_at);
    match incident.kind {
        Kind::BoxDark | Kind::BoxSilent | Kind::PlannedOverdue => {
            let truth = truth_of(history, incident)?;
            if heard_between(truth, opened_ms, resolved_ms) {
                return Ok(());
            }
            Err(format!(
                "{} did not come back between {opened_ms} and {resolved_ms} ms; {}",
                truth.name,
                absences(truth)
            ))
        }
        Kind::Disk | Kind::Backup => {
            let truth = truth_of(history, incident)?;
            let mended = |(check, span): &(protocol::report::CheckName, Span)| {
                check.as_str() == incident.kind.as_str() && span.to_ms - SLACK_MS <= resolved_ms
            };
            if truth.failing.iter().any(mended) {
                return Ok(());
            }
            Err(format!(
                "no check {} of {} was mended by {resolved_ms} ms",
                incident.kind, truth.name
            ))
        }
        // Their beginning was explained; they end when enough of their boxes came back.
        Kind::SiteDark | Kind::ServerBlind => {
            let heard = |truth: &BoxTruth| heard_between(truth, opened_ms, resolved_ms);
            if history.boxes.iter().any(heard) {
                return Ok(());
            }
            Err(format!(
                "no box came back between {opened_ms} and {resolved_ms} ms"
            ))
        }
        _ => Err("nothing of the kind was done".to_owned()),
    }
}

/// Everybody whom the incident of a group names was gone, and more than one was.
fn group(history: &History, incident: &Incident, at_ms: i64) -> Result<(), String> {
    let named = members(incident);
    let of_group = history.boxes.iter().filter(|truth| named.contains(&truth.name));
    let well: Vec<&str> = of_group
        .filter(|truth| {
            !truth
                .gone
                .iter()
                .any(|absence| absence.span.to_ms.saturating_add(RETURN_MS) >= at_ms)
        })
        .map(|truth| truth.name.as_str())
        .collect();
    if !well.is_empty() {
        return Err(format!("{} had not gone", well.join(", ")));
    }
    let gone = history
        .boxes
        .iter()
        .filter(|truth| suspect_at(history, truth, at_ms))
        .count();
    if gone >= 2 {
        return Ok(());
    }
    Err(format!("only {gone} boxes were gone at {at_ms} ms"))
}

fn truth_of<'a>(history: &'a History, incident: &Incident) -> Result<&'a BoxTruth, String> {
    let name = incident.box_name.as_ref().ok_or("it names no box")?;
    let found = history.boxes.iter().find(|truth| truth.name == name.as_str());
    found.ok_or_else(|| format!("there is no box {name}"))
}

/// Whether the box may have been called dark at that moment.
fn silent_at(history: &History, truth: &BoxTruth, at_ms: i64) -> bool {
    let rules = history.rules;
    // The last beat came up to an interval before it went.
    let shortest = rules.dark_after_ms - rules.every_ms * 11 / 10 - SLACK_MS;
    absent(truth).into_iter().any(|span| {
        span.from_ms + shortest <= at_ms && at_ms <= span.to_ms && !said_goodbye(history, truth, span, at_ms)
    })
}

/// Whether a box that could be called suspect was gone around that moment.
fn suspect_at(history: &History, truth: &BoxTruth, at_ms: i64) -> bool {
    let early = history.rules.every_ms;
    absent(truth)
        .iter()
        .any(|span| span.from_ms + early <= at_ms && at_ms <= span.to_ms)
}

/// When nothing of it could be heard: absences that touch are one, and the way back is in it.
fn absent(truth: &BoxTruth) -> Vec<Span> {
    let mut spans: Vec<Span> = truth.gone.iter().map(|absence| absence.span).collect();
    spans.sort_by_key(|span| span.from_ms);
    let mut whole: Vec<Span> = Vec::new();
    for span in spans {
        let back_ms = first_answer(truth, span.to_ms).min(span.to_ms.saturating_add(RETURN_MS));
        match whole.last_mut().filter(|before| before.to_ms >= span.from_ms) {
            Some(before) => before.to_ms = before.to_ms.max(back_ms),
            None => whole.push(Span {
                from_ms: span.from_ms,
                to_ms: back_ms,
            }),
        }
    }
    whole
}

fn first_answer(truth: &BoxTruth, after_ms: i64) -> i64 {
    let answer = truth.answered_ms.iter().find(|at| **at > after_ms);
    answer.map_or(i64::MAX, |at| at + SLACK_MS)
}

/// It went with a goodbye that must have been heard and kept: then it is away, not dark.
fn said_goodbye(history: &History, truth: &BoxTruth, span: Span, at_ms: i64) -> bool {
    let mut goodbyes = truth.gone.iter().filter(|absence| {
        matches!(absence.why, Gone::Goodbye { .. }) && absence.span.from_ms == span.from_ms
    });
    let Some(goodbye) = goodbyes.next() else {
        return false;
    };
    let given = Span {
        from_ms: span.from_ms - SLACK_MS,
        to_ms: span.from_ms + GOODBYE_MS,
    };
    let until_told = Span {
        to_ms: at_ms.max(given.to_ms),
        ..given
    };
    let server = &history.server;
    let heard = server.serving.iter().any(|serving| serving.holds(given))
        && !server.hung.iter().any(|hung| hung.meets(given))
        && !truth
            .gone
            .iter()
            .any(|other| other.why == Gone::Cut && other.span.meets(given));
    // On a disk that takes nothing it is kept in memory, until the server ends.
    let kept = !server.disk_ill.iter().any(|ill| ill.meets(until_told));
    heard && kept && goodbye.span.to_ms > given.to_ms
}

/// Whether a beat of it may have arrived in between. A beat that was under way when the cable was pulled out, or that
/// waited in the socket of a server that stood still, arrives later than it was sent.
fn heard_between(truth: &BoxTruth, opened_ms: i64, resolved_ms: i64) -> bool {
    let came_back = |absence: &crate::faults::history::Absence| {
        let back_ms = absence.span.to_ms;
        back_ms <= resolved_ms + SLACK_MS && back_ms + RETURN_MS * 2 >= opened_ms
    };
    // A box that goes with a goodbye speaks once more.
    let spoke = |absence: &crate::faults::history::Absence| {
        matches!(absence.why, Gone::Goodbye { .. })
            && (opened_ms..=resolved_ms + SLACK_MS).contains(&absence.span.from_ms)
    };
    truth
        .gone
        .iter()
        .any(|absence| came_back(absence) || spoke(absence))
}

fn absences(truth: &BoxTruth) -> String {
    let texts: Vec<String> = truth
        .gone
        .iter()
        .map(|absence| {
            let Span { from_ms, to_ms } = absence.span;
            let to = if to_ms == Span::OPEN {
                "the end".to_owned()
            } else {
                to_ms.to_string()
            };
            format!("{:?} from {from_ms} to {to}", absence.why)
        })
        .collect();
    if texts.is_empty() {
        "it never was".to_owned()
    } else {
        format!("it was {}", texts.join(", "))
    }
}
