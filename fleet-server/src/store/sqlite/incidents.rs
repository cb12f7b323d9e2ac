//! Incidents and their timelines.

use jiff::Timestamp;
use protocol::incident::{Ack, Incident, TimelineEntry};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, Transaction, params, params_from_iter};

use super::rows::{instant, json, maybe_json, nanos, one, run, to_json};
use super::{Failure, schema};
use crate::incident::change::Change;
use crate::store::{IncidentFilter, StoreError, StoredIncident, TIMELINE_ENTRIES};

/// Lines at a timeline's beginning that are kept however long it grows.
const TIMELINE_FIRST: usize = 20;

/// Writes changes in their order; a change written before changes nothing.
pub(super) fn put(tx: &Transaction<'_>, changes: &[Change]) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT INTO incidents (id, kind, box, resolved_at, revision, body, ack) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) \
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, box = excluded.box, resolved_at = excluded.resolved_at, \
         revision = excluded.revision, body = excluded.body, ack = excluded.ack",
    )?;
    let mut next = schema::meta(tx, schema::NEXT_INCIDENT)?;
    for change in changes {
        let incident = &change.incident;
        put.execute(params![
            incident.id,
            incident.kind.as_str(),
            incident.box_name.as_ref().map(AsRef::<str>::as_ref),
            incident.resolved_at.map(nanos),
            change.revision,
            to_json(incident)?,
            change.ack.as_ref().map(to_json).transpose()?
        ])?;
        add_line(tx, incident.id, &change.entry)?;
        next = next.max(incident.id.saturating_add(1));
    }
    schema::put_meta(tx, schema::NEXT_INCIDENT, next)?;
    Ok(())
}

pub(super) fn add_timeline(tx: &Transaction<'_>, entries: &[(i64, TimelineEntry)]) -> Result<(), Failure> {
    for (id, entry) in entries {
        let known: bool = one(
            tx,
            "SELECT EXISTS (SELECT 1 FROM incidents WHERE id = ?1)",
            [id],
            |row| row.get(0),
        )?;
        // Its time in the store was over: nobody can read that line.
        if known {
            add_line(tx, *id, entry)?;
        }
    }
    Ok(())
}

pub(super) fn acknowledge(tx: &Transaction<'_>, id: i64, ack: &Ack) -> Result<StoredIncident, Failure> {
    let done = run(
        tx,
        "UPDATE incidents SET ack = ?2 WHERE id = ?1",
        params![id, to_json(ack)?],
    )?;
    if done == 0 {
        return Err(no_incident(id));
    }
    let note = if ack.note.is_empty() {
        String::new()
    } else {
        format!(": {}", ack.note)
    };
    let entry = TimelineEntry {
        at: ack.at,
        event: "acknowledged".to_owned(),
        text: format!("by {}{note}", ack.by),
    };
    add_line(tx, id, &entry)?;
    get(tx, id)?.ok_or_else(|| no_incident(id))
}

pub(super) fn get(db: &Connection, id: i64) -> Result<Option<StoredIncident>, Failure> {
    let mut statement = db.prepare_cached("SELECT * FROM incidents WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(|row| incident(db, row)).transpose()
}

/// All open ones, oldest first.
pub(super) fn open(db: &Connection) -> Result<Vec<StoredIncident>, Failure> {
    let mut statement = db.prepare_cached("SELECT * FROM incidents WHERE resolved_at IS NULL ORDER BY id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(incident(db, row)?);
    }
    Ok(found)
}

/// Those that ended after `since`, oldest first; one that cannot be read is left out.
pub(super) fn ended_since(db: &Connection, since: Timestamp, limit: u32) -> Result<Vec<Incident>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT body FROM incidents WHERE resolved_at > ?1 ORDER BY resolved_at DESC LIMIT ?2",
    )?;
    let mut rows = statement.query(params![nanos(since), limit])?;
    let mut found: Vec<Incident> = Vec::new();
    while let Some(row) = rows.next()? {
        match json(row, "body") {
            Ok(incident) => found.push(incident),
            Err(Failure::Unreadable(why)) => tracing::warn!(%why, "an incident that ended cannot be read"),
            Err(other) => return Err(other),
        }
    }
    found.reverse();
    Ok(found)
}

/// Those that match, newest first, and how many there are in all.
pub(super) fn list(db: &Connection, filter: &IncidentFilter) -> Result<(Vec<StoredIncident>, u64), Failure> {
    let mut conditions = vec!["1"];
    let mut values = Vec::new();
    match filter.open {
        Some(true) => conditions.push("resolved_at IS NULL"),
        Some(false) => conditions.push("resolved_at IS NOT NULL"),
        None => {}
    }
    if let Some(kind) = filter.kind {
        conditions.push("kind = ?");
        values.push(Value::Text(kind.as_str().to_owned()));
    }
    if let Some(name) = &filter.box_name {
        conditions.push("box = ?");
        values.push(Value::Text(name.as_str().to_owned()));
    }
    if let Some(name) = &filter.except_box {
        conditions.push("box IS NOT ?");
        values.push(Value::Text(name.as_str().to_owned()));
    }
    let conditions = conditions.join(" AND ");
    let total: i64 = one(
        db,
        &format!("SELECT count(*) FROM incidents WHERE {conditions}"),
        params_from_iter(&values),
        |row| row.get(0),
    )?;
    values.push(Value::Integer(i64::from(filter.limit)));
    values.push(Value::Integer(i64::try_from(filter.offset).unwrap_or(i64::MAX)));
    let mut statement = db.prepare_cached(&format!(
        "SELECT * FROM incidents WHERE {conditions} ORDER BY id DESC LIMIT ? OFFSET ?"
    ))?;
    let mut rows = statement.query(params_from_iter(&values))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(incident(db, row)?);
    }
    Ok((found, total.unsigned_abs()))
}

fn incident(db: &Connection, row: &Row<'_>) -> Result<StoredIncident, Failure> {
    let id: i64 = row.get("id")?;
    Ok(StoredIncident {
        incident: json(row, "body")?,
        revision: row.get("revision")?,
        ack: maybe_json(row, "ack")?,
        timeline: timeline(db, id)?,
    })
}

fn timeline(db: &Connection, id: i64) -> Result<Vec<TimelineEntry>, Failure> {
    let mut statement =
        db.prepare_cached("SELECT at, event, text FROM timeline WHERE incident_id = ?1 ORDER BY at, id")?;
    let mut rows = statement.query([id])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(TimelineEntry {
            at: instant(row.get(0)?)?,
            event: row.get(1)?,
            text: row.get(2)?,
        });
    }
    Ok(found)
}

fn add_line(tx: &Transaction<'_>, id: i64, entry: &TimelineEntry) -> Result<(), Failure> {
    run(
        tx,
        "INSERT OR IGNORE INTO timeline (incident_id, at, event, text) VALUES (?1, ?2, ?3, ?4)",
        params![id, nanos(entry.at), entry.event, entry.text],
    )?;
    let lines: usize = one(
        tx,
        "SELECT count(*) FROM timeline WHERE incident_id = ?1",
        [id],
        |row| row.get::<_, u32>(0),
    )? as usize;
    if lines > TIMELINE_ENTRIES {
        run(
            tx,
            "DELETE FROM timeline WHERE id IN (SELECT id FROM timeline WHERE incident_id = ?1 \
             ORDER BY id LIMIT ?2 OFFSET ?3)",
            params![id, (lines - TIMELINE_ENTRIES) as i64, TIMELINE_FIRST as i64],
        )?;
    }
    Ok(())
}

fn no_incident(id: i64) -> Failure {
    StoreError::NotFound {
        what: format!("incident {id}"),
    }
    .into()
}
