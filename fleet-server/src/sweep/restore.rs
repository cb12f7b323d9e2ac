//! What the server starts from: liveness and books as the store remembers them.
//!
//! Where the two disagree (a crash came between a verdict and its memory), the incidents are right: they were written
//! with their notifications. A box remembered as dark without an incident that says so is judged again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::incident::{Incident, Kind};

use crate::incident::facts::BoxInfo;
use crate::incident::flap::is_held;
use crate::incident::group_of;
use crate::incident::ledger::{Key, Ledger};
use crate::incident::text::cause_word;
use crate::liveness::BoxIx;
use crate::liveness::event::{Cause, Group};
use crate::liveness::history::History;
use crate::liveness::judge::{Judge, OpenStorm};
use crate::liveness::record::Record;
use crate::liveness::time::Moment;
use crate::settings::Settings;
use crate::store::{BoxId, Loaded};

/// An open incident, with what it is about.
type Known = (Key, Incident);

/// Judge and books, as before the restart.
pub fn restore(settings: &Settings, boxes: Vec<BoxInfo>, loaded: Loaded, now: Moment) -> (Judge, Ledger) {
    let mut ledger = Ledger::new(loaded.next_incident_id, settings.public_url.clone())
        .with_rules(settings.incidents.clone());
    let mut reports: HashMap<BoxId, (Arc<_>, Timestamp)> = loaded
        .reports
        .into_iter()
        .map(|stored| (stored.id, (Arc::new(stored.report), stored.received_at)))
        .collect();
    for info in &boxes {
        ledger.add(info.clone(), reports.remove(&info.id));
    }
    for ended in &loaded.ended {
        ledger.remember(ended);
    }
    let open = loaded.incidents.into_iter().map(|stored| {
        let key = ledger.restore(stored.incident.clone(), stored.revision);
        ledger.restore_ack(stored.incident.id, stored.ack);
        (key, stored.incident)
    });
    // One that is only held open because it flaps says nothing of how things are now.
    let open: Vec<Known> = open.filter(|(_, incident)| !is_held(incident)).collect();
    let blind = open.iter().any(|(key, _)| key.kind == Kind::ServerBlind);
    let mut judge = Judge::new(&settings.liveness, &settings.group_by, now.mono, blind);

    let records = loaded
        .memories
        .into_iter()
        .map(|memory| (memory.id, memory.record));
    let mut records: HashMap<BoxId, Record> = records.collect();
    let mut storms = storms(&open);
    let sites: Vec<&Known> = open
        .iter()
        .filter(|(key, _)| key.kind == Kind::SiteDark)
        .collect();
    // Ten thousand boxes with as many incidents: each is asked about its own alone.
    let mut own: HashMap<BoxIx, Vec<&Known>> = HashMap::new();
    for each in &open {
        own.entry(each.0.about.unwrap_or(BoxIx(u32::MAX)))
            .or_default()
            .push(each);
    }
    for info in boxes {
        let own = own.get(&info.ix).map_or(&[][..], Vec::as_slice);
        let record = reconciled(&info, records.remove(&info.id), (own, &sites), &mut storms);
        judge.add(info.ix, &info.labels, record.as_ref(), now);
        if let Some(record) = &record {
            let state = judge.row(info.ix).map_or(record.state, |row| row.state);
            ledger.restore_state(info.ix, state, now);
        }
        if own.iter().any(|(key, _)| key.kind == Kind::DuplicateIdentity) {
            judge.restore_duplicate(info.ix, now.mono);
        }
    }
    for (subject, storm) in storms {
        ledger.restore_storm(&subject, storm.members.clone());
        judge.restore_storm(storm, now.mono);
    }
    (judge, ledger)
}

fn storms(open: &[Known]) -> BTreeMap<String, OpenStorm> {
    open.iter()
        .filter(|(key, _)| key.kind == Kind::SiteDark)
        .filter_map(|(key, incident)| {
            let peak = incident.details.get("peak").and_then(serde_json::Value::as_u64);
            let storm = OpenStorm {
                group: group_of(&key.subject)?,
                members: BTreeSet::new(),
                peak: peak.unwrap_or(0) as usize,
            };
            Some((key.subject.clone(), storm))
        })
        .collect()
}

fn reconciled(
    info: &BoxInfo,
    record: Option<Record>,
    (own, sites): (&[&Known], &[&Known]),
    storms: &mut BTreeMap<String, OpenStorm>,
) -> Option<Record> {
    let own = own.iter().find_map(|(key, incident)| match key.kind {
        Kind::BoxDark | Kind::PlannedOverdue => Some((Liveness::Dark, incident)),
        Kind::BoxSilent => Some((silent_or_dark(incident), incident)),
        Kind::SiteDark
        | Kind::ServerBlind
        | Kind::Gateway
        | Kind::Disk
        | Kind::Backup
        | Kind::Tailscale
        | Kind::ChecksStopped
        | Kind::RemedyGaveUp
        | Kind::DuplicateIdentity
        | Kind::ClockSkew
        | Kind::ReceiverFailing
        | Kind::Canary => None,
    });
    if let Some((state, incident)) = own {
        let record = record.unwrap_or_else(|| forgotten(incident));
        return Some(Record { state, ..record });
    }
    let mut record = record?;
    if matches!(record.state, Liveness::Dark | Liveness::Silent) {
        match storm_of(info, sites, storms) {
            Some(storm) => {
                storm.members.insert(info.ix);
            }
            None => record.state = Liveness::Live,
        }
    }
    Some(record)
}

/// A silent box whose host was lost later is dark by the same incident.
fn silent_or_dark(incident: &Incident) -> Liveness {
    let cause = incident.details.get("cause").and_then(serde_json::Value::as_str);
    if cause == Some(cause_word(Cause::HostLost)) {
        Liveness::Dark
    } else {
        Liveness::Silent
    }
}

/// The storm that names the box; else (its list is bounded) the first whose group it is in, the fleet's last.
fn storm_of<'a>(
    info: &BoxInfo,
    sites: &[&Known],
    storms: &'a mut BTreeMap<String, OpenStorm>,
) -> Option<&'a mut OpenStorm> {
    let names = |incident: &Incident| {
        let members = incident
            .details
            .get("members")
            .and_then(serde_json::Value::as_array);
        let name = info.name.as_str();
        members.is_some_and(|members| members.iter().any(|member| member.as_str() == Some(name)))
    };
    let named = sites.iter().find(|(_, incident)| names(incident));
    let subject = named.map(|(key, _)| key.subject.clone()).or_else(|| {
        let mut groups = storms.iter().filter(|(_, storm)| belongs(info, &storm.group));
        let first = groups.clone().find(|(_, storm)| storm.group != Group::Fleet);
        let (subject, _) = first.or_else(|| groups.next())?;
        Some(subject.clone())
    })?;
    storms.get_mut(&subject)
}

fn belongs(info: &BoxInfo, group: &Group) -> bool {
    match group {
        Group::Fleet => true,
        Group::Label { name, value } => info.labels.get(name) == Some(value),
    }
}

/// A box of which only its incident is left.
fn forgotten(incident: &Incident) -> Record {
    let seen = incident
        .details
        .get("last_seen")
        .and_then(serde_json::Value::as_str);
    Record {
        state: Liveness::Dark,
        since: Some(incident.opened_at),
        last_seen: seen.and_then(|seen| seen.parse().ok()),
        every_ms: Duration::from_secs(1).as_millis() as u64,
        last: None,
        away: None,
        history: History::default(),
    }
}
