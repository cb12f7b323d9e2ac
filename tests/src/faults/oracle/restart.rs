//! The books after an end of the server's process are the books before it, but for what happened meanwhile.

use protocol::api::{BoxRow, IncidentDetail, Liveness};

use super::{Rule, Violation};
use crate::faults::history::{Books, BoxTruth, Done, History, Restart, Span};

/// How old what is remembered of a box may be after a kill, if the server had lived for so long.
const MEMORY_MS: i64 = 6000;
/// The same after an end as asked.
const LAST_WORDS_MS: i64 = 500;
/// A server whose disk takes something again writes what waited within this.
const WRITTEN_MS: i64 = 6000;
/// What happened just before the end may be decided and not written: nobody was told of it.
const UNWRITTEN_MS: i64 = 500;

pub(super) fn judge(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for restart in &history.restarts {
        found.extend(incidents(&restart.before, &restart.after));
        found.extend(boxes(history, restart));
        found.extend(silences(&restart.before, &restart.after));
    }
    // What was answered with 2xx is kept for ever.
    for restart in &history.restarts {
        found.extend(done(history, &restart.after));
    }
    found.extend(done(history, &history.last));
    found.extend(
        history
            .refused
            .iter()
            .map(|name| format!("{name}: its token is not taken any more")),
    );
    found
        .into_iter()
        .map(|text| Violation::new(Rule::Restart, text))
        .collect()
}

/// Whatever was in the books is in them still, and what had ended has not begun again.
fn incidents(before: &Books, after: &Books) -> Vec<String> {
    let mut found = Vec::new();
    for was in &before.incidents {
        let id = was.incident.id;
        let Some(is) = after.incidents.iter().find(|one| one.incident.id == id) else {
            found.push(format!("incident {id} is gone after a restart"));
            continue;
        };
        found
            .extend(differences(was, is).map(|what| format!("incident {id}: {what} changed over a restart")));
    }
    found
}

fn differences(was: &IncidentDetail, is: &IncidentDetail) -> impl Iterator<Item = &'static str> {
    let (a, b) = (&was.incident, &is.incident);
    let ended = a.resolved_at.is_some();
    let differ = [
        ("its kind", a.kind != b.kind),
        ("its box", a.box_name != b.box_name),
        ("when it opened", a.opened_at != b.opened_at),
        ("its end", ended && a.resolved_at != b.resolved_at),
        ("its summary", ended && a.summary != b.summary),
        ("its acknowledgement", was.ack.is_some() && was.ack != is.ack),
        ("its history", !is.timeline.starts_with(&was.timeline)),
    ];
    differ
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(what, _)| what)
}

fn silences(before: &Books, after: &Books) -> Vec<String> {
    let lost = before
        .silences
        .iter()
        .filter(|was| !after.silences.iter().any(|is| is.record == was.record));
    lost.map(|was| {
        format!(
            "silence {} is gone after a restart, or another one",
            was.record.id
        )
    })
    .collect()
}

fn boxes(history: &History, restart: &Restart) -> Vec<String> {
    let mut found = Vec::new();
    for was in &restart.before.boxes {
        let name = was.name.as_str();
        let Some(is) = restart.after.boxes.iter().find(|row| row.name == was.name) else {
            found.push(format!("{name} is gone after a restart"));
            continue;
        };
        if was.labels != is.labels {
            found.push(format!("{name}: its labels changed over a restart"));
        }
        found.extend(memory(history, restart, was, is));
        if let Some(truth) = history.boxes.iter().find(|truth| truth.name == name) {
            found.extend(state(history, restart, truth, was, is));
        }
    }
    found
}

fn memory(history: &History, restart: &Restart, was: &BoxRow, is: &BoxRow) -> Option<String> {
    let seen = history.ms_of(was.last_seen?);
    let allowed = if restart.asked { LAST_WORDS_MS } else { MEMORY_MS };
    let whole = Span {
        from_ms: restart.before.at_ms - MEMORY_MS,
        to_ms: restart.after.at_ms,
    };
    // A disk that took nothing holds what it held before.
    if history.server.disk_ill.iter().any(|ill| ill.meets(whole)) {
        return None;
    }
    let lived = |serving: &Span| serving.from_ms <= whole.from_ms && restart.before.at_ms <= serving.to_ms;
    if !restart.asked && !history.server.serving.iter().any(lived) {
        return None;
    }
    let remembered = is.last_seen.map_or(0, |at| history.ms_of(at));
    (remembered + allowed < seen).then(|| {
        format!(
            "{}: last seen at {seen} ms before a restart, and at {remembered} ms after it",
            was.name
        )
    })
}

/// Who was gone all the time is called so; who was well all the time is not called gone.
fn state(
    history: &History,
    restart: &Restart,
    truth: &BoxTruth,
    was: &BoxRow,
    is: &BoxRow,
) -> Option<String> {
    let whole = Span {
        from_ms: restart.before.at_ms - UNWRITTEN_MS,
        to_ms: restart.after.at_ms,
    };
    let gone = |state: Liveness| matches!(state, Liveness::Dark | Liveness::Silent);
    let all_the_time = truth.gone.iter().any(|absence| absence.span.holds(whole));
    let never = !truth.gone.iter().any(|absence| absence.span.meets(whole));
    // Decided, and not written yet (the disk takes nothing): nobody was told of it.
    let written = was.state_since.is_some_and(|since| {
        let decided = Span {
            from_ms: history.ms_of(since) - UNWRITTEN_MS,
            to_ms: restart.after.at_ms,
        };
        decided.from_ms + UNWRITTEN_MS * 2 <= restart.before.at_ms
            && !history.server.disk_ill.iter().any(|ill| ill.meets(decided))
    });
    if gone(was.state) && written && all_the_time && !gone(is.state) {
        return Some(format!(
            "{}: {} before a restart, {} after it",
            was.name, was.state, is.state
        ));
    }
    // That it came back was decided, and not written yet.
    let unwritten = history.server.disk_ill.iter().any(|ill| {
        Span {
            to_ms: ill.to_ms.saturating_add(WRITTEN_MS),
            ..*ill
        }
        .meets(whole)
    });
    // Heard just before the end, that it is back may be decided and not written either.
    let long = was
        .state_since
        .is_some_and(|since| history.ms_of(since) + UNWRITTEN_MS <= restart.before.at_ms);
    (was.state == Liveness::Live && never && long && !unwritten && gone(is.state))
        .then(|| format!("{}: well, and called {} after a restart", was.name, is.state))
}

/// What operators were told that it is done.
fn done(history: &History, books: &Books) -> Vec<String> {
    let mut found = Vec::new();
    for done in &history.done {
        match done {
            Done::Acknowledged { at_ms, id, note } if *at_ms < books.at_ms => {
                let ack = books
                    .incidents
                    .iter()
                    .find(|one| one.incident.id == *id)
                    .map(|one| &one.ack);
                if ack.is_none_or(Option::is_none) {
                    found.push(format!(
                        "incident {id}: the acknowledgement {note:?} is forgotten"
                    ));
                }
            }
            Done::Added { at_ms, name } if *at_ms < books.at_ms => {
                if !books.boxes.iter().any(|row| row.name.as_str() == name) {
                    found.push(format!("{name} was added, and is forgotten"));
                }
            }
            Done::Silenced { at_ms, id, .. } if *at_ms < books.at_ms => {
                if !books.silences.iter().any(|silence| silence.record.id == *id) {
                    found.push(format!("silence {id} was made, and is forgotten"));
                }
            }
            Done::Acknowledged { .. } | Done::Added { .. } | Done::Silenced { .. } => {}
        }
    }
    found
}
