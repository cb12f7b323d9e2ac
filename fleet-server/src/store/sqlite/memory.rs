//! What is known of boxes beyond their record: last seen, replay guard, goodbyes, what liveness learnt, reports.

use rusqlite::{Connection, Transaction, params};

use super::Failure;
use super::rows::{json, nanos, time, to_json};
use crate::store::{BoxId, BoxMemory, StoredReport};

/// Boxes removed meanwhile are left out.
pub(super) fn put(tx: &Transaction<'_>, memories: &[BoxMemory]) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT INTO memories (box_id, body) SELECT ?1, ?2 WHERE EXISTS (SELECT 1 FROM boxes WHERE id = ?1) \
         ON CONFLICT (box_id) DO UPDATE SET body = excluded.body",
    )?;
    for memory in memories {
        put.execute(params![memory.id.0, to_json(&memory.record)?])?;
    }
    Ok(())
}

/// Boxes removed meanwhile are left out.
pub(super) fn put_reports(tx: &Transaction<'_>, reports: &[StoredReport]) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT INTO reports (box_id, received_at, body) \
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM boxes WHERE id = ?1) \
         ON CONFLICT (box_id) DO UPDATE SET received_at = excluded.received_at, body = excluded.body",
    )?;
    for stored in reports {
        put.execute(params![
            stored.id.0,
            nanos(stored.received_at),
            to_json(&stored.report)?
        ])?;
    }
    Ok(())
}

/// All memories; one that cannot be read is left out (the box learns anew).
pub(super) fn all(db: &Connection) -> Result<Vec<BoxMemory>, Failure> {
    let mut statement = db.prepare_cached("SELECT * FROM memories ORDER BY box_id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match memory(row) {
            Ok(memory) => found.push(memory),
            Err(Failure::Unreadable(why)) => tracing::warn!(%why, "what was known of a box cannot be read"),
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

/// All reports; one that cannot be read is left out (the box is asked for it with its next beat).
pub(super) fn all_reports(db: &Connection) -> Result<Vec<StoredReport>, Failure> {
    let mut statement = db.prepare_cached("SELECT * FROM reports ORDER BY box_id")?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match report(row) {
            Ok(report) => found.push(report),
            Err(Failure::Unreadable(why)) => tracing::warn!(%why, "a stored report cannot be read"),
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

fn memory(row: &rusqlite::Row<'_>) -> Result<BoxMemory, Failure> {
    Ok(BoxMemory {
        id: BoxId(row.get("box_id")?),
        record: json(row, "body")?,
    })
}

fn report(row: &rusqlite::Row<'_>) -> Result<StoredReport, Failure> {
    Ok(StoredReport {
        id: BoxId(row.get("box_id")?),
        received_at: time(row, "received_at")?,
        report: json(row, "body")?,
    })
}
