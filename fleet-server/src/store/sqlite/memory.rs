//! What is known of boxes beyond their record: last seen, replay guard, goodbyes, what liveness learnt, reports.

use rusqlite::{Connection, Transaction, params};
use uuid::Uuid;

use super::Failure;
use super::rows::{json, maybe_json, maybe_time, nanos, time, to_json};
use crate::store::{BoxId, BoxMemory, Guard, HISTORY_BYTES, StoredReport};

/// Boxes removed meanwhile are left out.
pub(super) fn put(tx: &Transaction<'_>, memories: &[BoxMemory]) -> Result<(), Failure> {
    let mut put = tx.prepare(
        "INSERT INTO memories (box_id, last_seen, boot_id, session, seq, away, every_ms, history) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE EXISTS (SELECT 1 FROM boxes WHERE id = ?1) \
         ON CONFLICT (box_id) DO UPDATE SET last_seen = excluded.last_seen, boot_id = excluded.boot_id, \
         session = excluded.session, seq = excluded.seq, away = excluded.away, every_ms = excluded.every_ms, \
         history = excluded.history",
    )?;
    for memory in memories {
        let away = memory.away.as_ref().map(to_json).transpose()?;
        let history = if memory.history.len() > HISTORY_BYTES { &[] } else { memory.history.as_slice() };
        put.execute(params![
            memory.id.0,
            memory.last_seen.map(nanos),
            memory.guard.map(|guard| guard.boot_id.into_bytes()),
            memory.guard.map(|guard| guard.session.into_bytes()),
            memory.guard.map(|guard| guard.seq as i64),
            away,
            memory.every_ms.map(|ms| ms as i64),
            history
        ])?;
    }
    Ok(())
}

/// Boxes removed meanwhile are left out.
pub(super) fn put_reports(tx: &Transaction<'_>, reports: &[StoredReport]) -> Result<(), Failure> {
    let mut put = tx.prepare(
        "INSERT INTO reports (box_id, received_at, body) \
         SELECT ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM boxes WHERE id = ?1) \
         ON CONFLICT (box_id) DO UPDATE SET received_at = excluded.received_at, body = excluded.body",
    )?;
    for stored in reports {
        put.execute(params![stored.id.0, nanos(stored.received_at), to_json(&stored.report)?])?;
    }
    Ok(())
}

/// All memories; one that cannot be read is left out (the box learns anew).
pub(super) fn all(db: &Connection) -> Result<Vec<BoxMemory>, Failure> {
    let mut statement = db.prepare("SELECT * FROM memories ORDER BY box_id")?;
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
    let mut statement = db.prepare("SELECT * FROM reports ORDER BY box_id")?;
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
    let boot_id: Option<[u8; 16]> = row.get("boot_id")?;
    let session: Option<[u8; 16]> = row.get("session")?;
    let seq: Option<i64> = row.get("seq")?;
    let guard = match (boot_id, session, seq) {
        (Some(boot_id), Some(session), Some(seq)) => Some(Guard {
            boot_id: Uuid::from_bytes(boot_id),
            session: Uuid::from_bytes(session),
            seq: seq.unsigned_abs(),
        }),
        _ => None,
    };
    let every_ms: Option<i64> = row.get("every_ms")?;
    Ok(BoxMemory {
        id: BoxId(row.get("box_id")?),
        last_seen: maybe_time(row, "last_seen")?,
        guard,
        away: maybe_json(row, "away")?,
        every_ms: every_ms.map(i64::unsigned_abs),
        history: row.get("history")?,
    })
}

fn report(row: &rusqlite::Row<'_>) -> Result<StoredReport, Failure> {
    Ok(StoredReport {
        id: BoxId(row.get("box_id")?),
        received_at: time(row, "received_at")?,
        report: json(row, "body")?,
    })
}
