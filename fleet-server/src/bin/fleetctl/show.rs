//! What the server says, for people. Times are the server's, ages are by this machine's clock.

use std::fmt::Write as _;

use jiff::Timestamp;
use protocol::api::{
    BoxDetail, BoxPage, BoxRow, IncidentDetail, IncidentPage, Liveness, ReceiverList, ReceiverRow,
    ReceiverTest,
};
use protocol::incident::{Incident, Severity};
use protocol::names::Labels;
use protocol::report::Status;

use crate::table::{Cell, Tone, render};

pub(crate) fn boxes(page: &BoxPage, now: Timestamp) -> String {
    if page.boxes.is_empty() {
        return "no boxes\n".to_owned();
    }
    let row = |row: &BoxRow| {
        vec![
            Cell::plain(&row.name),
            state(row.state),
            Cell::plain(ago(row.last_seen, now)),
            status(row.worst),
            count(row.open_incidents),
            Cell::plain(labels(&row.labels)),
        ]
    };
    let rows: Vec<_> = page.boxes.iter().map(row).collect();
    let mut out = render(&["NAME", "STATE", "SEEN", "CHECKS", "INCIDENTS", "LABELS"], &rows);
    let shown = page.boxes.len() as u64;
    if shown < page.total {
        let _ = writeln!(out, "{shown} of {}", page.total);
    }
    out
}

pub(crate) fn one_box(detail: &BoxDetail, now: Timestamp) -> String {
    let row = &detail.row;
    let mut facts = vec![
        ("name", Cell::plain(&row.name)),
        ("state", state(row.state)),
        ("since", Cell::plain(ago(row.state_since, now))),
        ("last seen", Cell::plain(at(row.last_seen, now))),
        ("added", Cell::plain(at(Some(detail.added_at), now))),
        ("labels", Cell::plain(labels(&row.labels))),
        (
            "witness",
            Cell::plain(if detail.witnesses.is_empty() {
                "none".to_owned()
            } else {
                detail.witnesses.to_string()
            }),
        ),
    ];
    if row.canary {
        facts.push((
            "canary",
            Cell::plain("the server's own; it goes dark on a schedule"),
        ));
    }
    if let Some(ms) = detail.clock_skew_ms {
        facts.push(("clock", Cell::plain(format!("{ms:+} ms against the server"))));
    }
    if let Some(paused) = &row.paused {
        facts.push((
            "paused",
            Cell::toned(format!("until {}: {}", paused.until, paused.reason), Tone::Odd),
        ));
    }
    if let Some(by) = &detail.maintenance {
        facts.push(("may be gone", Cell::toned(by, Tone::Odd)));
    }
    for unit in &detail.units {
        let text = format!(
            "{} {} ({}), {} restarts",
            unit.name, unit.active, unit.sub, unit.restarts
        );
        facts.push(("unit", Cell::plain(text)));
    }
    let rows: Vec<_> = facts
        .into_iter()
        .map(|(name, cell)| vec![Cell::plain(name), cell])
        .collect();
    let mut out = render(&["", ""], &rows);
    out = out.trim_start().to_owned();
    if let Some(report) = &detail.report {
        let rows: Vec<_> = report
            .checks
            .iter()
            .map(|check| {
                let name = check
                    .subject
                    .as_ref()
                    .map_or_else(|| check.name.to_string(), |unit| format!("{} {unit}", check.name));
                vec![
                    Cell::plain(name),
                    status(Some(check.status)),
                    Cell::plain(&check.why),
                    Cell::plain(&check.summary),
                ]
            })
            .collect();
        let _ = write!(
            out,
            "\nreport of {}\n{}",
            at(detail.report_received_at, now),
            render(&["CHECK", "STATUS", "WHY", "SUMMARY"], &rows)
        );
    }
    if !detail.incidents.is_empty() {
        let rows: Vec<_> = detail
            .incidents
            .iter()
            .map(|incident| incident_row(incident, None, now))
            .collect();
        let _ = write!(out, "\n{}", render(&INCIDENT_HEAD, &rows));
    }
    out
}

const INCIDENT_HEAD: [&str; 7] = ["ID", "SEVERITY", "KIND", "BOX", "OPENED", "STATE", "SUMMARY"];

pub(crate) fn incidents(page: &IncidentPage, now: Timestamp) -> String {
    if page.incidents.is_empty() {
        return "no incidents\n".to_owned();
    }
    let row = |detail: &IncidentDetail| {
        incident_row(
            &detail.incident,
            detail.ack.as_ref().map(|ack| ack.by.as_str()),
            now,
        )
    };
    let rows: Vec<_> = page.incidents.iter().map(row).collect();
    let mut out = render(&INCIDENT_HEAD, &rows);
    let shown = page.incidents.len() as u64;
    if shown < page.total {
        let _ = writeln!(out, "{shown} of {}", page.total);
    }
    out
}

pub(crate) fn one_incident(detail: &IncidentDetail, now: Timestamp) -> String {
    let row = incident_row(
        &detail.incident,
        detail.ack.as_ref().map(|ack| ack.by.as_str()),
        now,
    );
    let mut out = render(&INCIDENT_HEAD, &[row]);
    for (name, value) in &detail.incident.details {
        let _ = writeln!(out, "{name}: {value}");
    }
    let rows: Vec<_> = detail
        .timeline
        .iter()
        .map(|entry| {
            vec![
                Cell::plain(seconds(entry.at)),
                Cell::plain(&entry.event),
                Cell::plain(&entry.text),
            ]
        })
        .collect();
    let _ = write!(out, "\n{}", render(&["AT", "EVENT", "WHAT"], &rows));
    out
}

pub(crate) fn receivers(list: &ReceiverList, now: Timestamp) -> String {
    if list.receivers.is_empty() {
        return "no receivers: nobody is told of anything\n".to_owned();
    }
    let row = |row: &ReceiverRow| {
        let state = match (row.failing_since, row.last_success) {
            (Some(since), _) => Cell::toned(format!("failing since {}", ago(Some(since), now)), Tone::Bad),
            (None, Some(_)) => Cell::toned("ok", Tone::Good),
            (None, None) => Cell::plain("untried"),
        };
        let said = match (&row.last_error, row.last_error_at) {
            (Some(said), Some(at)) => format!("{}: {said}", ago(Some(at), now)),
            (Some(_) | None, _) => "-".to_owned(),
        };
        vec![
            Cell::plain(&row.name),
            Cell::plain(&row.kind),
            state,
            count(u32::try_from(row.pending).unwrap_or(u32::MAX)),
            Cell::plain(ago(row.last_success, now)),
            Cell::plain(&row.place),
            Cell::plain(said),
        ]
    };
    let rows: Vec<_> = list.receivers.iter().map(row).collect();
    let head = [
        "NAME",
        "KIND",
        "STATE",
        "WAITING",
        "LAST TAKEN",
        "WHERE",
        "LAST ERROR",
    ];
    render(&head, &rows)
}

pub(crate) fn receiver_test(test: &ReceiverTest) -> String {
    let row = |step: &protocol::api::TestStep| {
        let tone = if step.outcome == "delivered" {
            Tone::Good
        } else {
            Tone::Bad
        };
        vec![
            Cell::plain(step.event),
            Cell::toned(&step.outcome, tone),
            Cell::plain(format!("{} ms", step.took_ms)),
            Cell::plain(&step.answer),
        ]
    };
    let rows: Vec<_> = test.steps.iter().map(row).collect();
    let head = format!("{} ({}, {})\n", test.receiver, test.kind, test.place);
    head.replace(|c: char| c.is_control() && c != '\n', " ")
        + &render(&["SENT", "OUTCOME", "TOOK", "ANSWER"], &rows)
}

fn incident_row(incident: &Incident, ack: Option<&str>, now: Timestamp) -> Vec<Cell> {
    let severity = match incident.severity {
        Severity::Page => Tone::Bad,
        Severity::Ticket => Tone::Odd,
        Severity::Info => Tone::Plain,
    };
    let flapping = incident.details.get("flapping");
    let held = flapping.is_some_and(|flap| !flap["calm_since"].is_null());
    let standing = match (incident.resolved_at, ack) {
        (Some(_), _) => Cell::toned("resolved", Tone::Good),
        (None, Some(by)) => Cell::plain(format!("acked by {by}")),
        (None, None) if held => Cell::toned("well, flapping", Tone::Odd),
        (None, None) if incident.details.contains_key("muted_by") => Cell::toned("muted", Tone::Odd),
        (None, None) => Cell::toned("open", Tone::Bad),
    };
    vec![
        Cell::plain(incident.id),
        Cell::toned(incident.severity, severity),
        Cell::plain(incident.kind),
        Cell::plain(incident.box_name.as_ref().map_or("-", |name| name.as_str())),
        Cell::plain(ago(Some(incident.opened_at), now)),
        standing,
        Cell::plain(&incident.summary),
    ]
}

fn state(state: Liveness) -> Cell {
    let tone = match state {
        Liveness::Live => Tone::Good,
        Liveness::Unseen | Liveness::Away => Tone::Plain,
        Liveness::Suspect => Tone::Odd,
        Liveness::Dark | Liveness::Silent => Tone::Bad,
    };
    Cell::toned(state, tone)
}

fn status(status: Option<Status>) -> Cell {
    match status {
        None => Cell::plain("-"),
        Some(Status::Ok) => Cell::toned(Status::Ok, Tone::Good),
        Some(status @ (Status::Warning | Status::Unknown)) => Cell::toned(status, Tone::Odd),
        Some(Status::Failing) => Cell::toned(Status::Failing, Tone::Bad),
    }
}

fn count(open: u32) -> Cell {
    Cell::toned(open, if open > 0 { Tone::Bad } else { Tone::Plain })
}

fn labels(labels: &Labels) -> String {
    labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

fn at(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(
        || "never".to_owned(),
        |when| format!("{} ({})", seconds(when), ago(Some(when), now)),
    )
}

pub(crate) fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    let Some(at) = at else {
        return "never".to_owned();
    };
    let secs = now.duration_since(at).as_secs().max(0);
    match secs {
        0..=119 => format!("{secs}s ago"),
        120..=7199 => format!("{}m ago", secs / 60),
        7200..=172_799 => format!("{}h ago", secs / 3600),
        _ => format!("{}d ago", secs / 86_400),
    }
}

pub(crate) fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
