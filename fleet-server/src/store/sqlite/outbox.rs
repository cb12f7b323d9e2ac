//! Notifications that wait, and those that went.

use jiff::{SignedDuration, Timestamp};
use protocol::incident::Incident;
use rusqlite::{Connection, Transaction, params};

use super::Failure;
use super::rows::{instant, json, nanos, one, run, time, to_json};
use crate::notify::outbox::OutboxRow;
use crate::store::{LastDelivery, Pending, Told, Unheard};

/// Bytes of an attempt's error that are kept.
const ERROR_BYTES: usize = 512;

/// The first undelivered row of each incident: later ones wait for it, whatever their own time. In their order by an
/// index of its own, so that a few of ten thousand cost no more than a few.
const HEADS: &str = "FROM outbox AS o INDEXED BY outbox_order WHERE o.receiver = ?1 AND o.done_at IS NULL AND NOT EXISTS (\
     SELECT 1 FROM outbox AS p WHERE p.receiver = o.receiver AND p.incident_id = o.incident_id \
     AND p.done_at IS NULL AND p.id < o.id)";

/// What the receiver called the first message that it took about the incident.
const FIRST_THREAD: &str = "SELECT t.thread FROM outbox AS t WHERE t.incident_id = o.incident_id \
     AND t.receiver = o.receiver AND t.thread IS NOT NULL ORDER BY t.id LIMIT 1";

/// Queues notifications in their order; one queued before (same receiver and key) is left as it is.
pub(super) fn put(tx: &Transaction<'_>, rows: &[OutboxRow]) -> Result<(), Failure> {
    let mut put = tx.prepare_cached(
        "INSERT OR IGNORE INTO outbox (receiver, incident_id, key, alert, queued_at, attempts, next_attempt_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for row in rows {
        put.execute(params![
            row.receiver,
            row.incident_id,
            row.alert.idempotency_key(),
            to_json(&row.alert)?,
            nanos(row.queued_at),
            row.attempts,
            nanos(row.next_attempt_at)
        ])?;
    }
    Ok(())
}

/// No wait is longer: what is due later than this was written before the wall clock was set back, and is due now.
const WAIT_MAX: SignedDuration = SignedDuration::from_secs(600);

/// Rows due, by id, and the ids of those that cannot be read.
pub(super) fn due(
    db: &Connection,
    receiver: &str,
    now: Timestamp,
    limit: u32,
) -> Result<(Vec<OutboxRow>, Vec<i64>), Failure> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT o.*, ({FIRST_THREAD}) AS first_thread {HEADS} AND (o.attempts = 0 OR o.next_attempt_at <= ?2 OR o.next_attempt_at > ?3) \
         ORDER BY o.id LIMIT ?4"
    ))?;
    let latest = now.saturating_add(WAIT_MAX).unwrap_or(now);
    let mut rows = statement.query(params![receiver, nanos(now), nanos(latest), limit])?;
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        match outbox_row(row) {
            Ok(row) => found.push(row),
            Err(Failure::Unreadable(_)) => unreadable.push(row.get("id")?),
            Err(other) => return Err(other),
        }
    }
    Ok((found, unreadable))
}

pub(super) fn next_due(db: &Connection, receiver: &str) -> Result<Option<Timestamp>, Failure> {
    let sql = format!("SELECT min(o.next_attempt_at) {HEADS}");
    let next: Option<i64> = one(db, &sql, [receiver], |row| row.get(0))?;
    next.map(instant).transpose()
}

/// What was given up (its receiver had left the configuration) was told to nobody: should it come back, it hears that the
/// incident is open.
pub(super) fn told(db: &Connection) -> Result<Vec<Told>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT o.incident_id, o.receiver, min(o.queued_at), max(o.queued_at) \
         FROM incidents AS i JOIN outbox AS o ON o.incident_id = i.id \
         WHERE i.resolved_at IS NULL AND o.outcome IS NOT 'abandoned' \
         GROUP BY o.incident_id, o.receiver ORDER BY o.incident_id, o.receiver",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Told {
            incident: row.get(0)?,
            receiver: row.get(1)?,
            first: instant(row.get(2)?)?,
            last: instant(row.get(3)?)?,
        });
    }
    Ok(found)
}

pub(super) fn firing(db: &Connection, receiver: &str, limit: u32) -> Result<Vec<Incident>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT i.body FROM incidents AS i WHERE i.resolved_at IS NULL \
         AND EXISTS (SELECT 1 FROM outbox AS o WHERE o.incident_id = i.id AND o.receiver = ?1) \
         AND NOT EXISTS (SELECT 1 FROM outbox AS o WHERE o.incident_id = i.id AND o.receiver = ?1 \
         AND o.done_at IS NULL) ORDER BY i.id LIMIT ?2",
    )?;
    let mut rows = statement.query(params![receiver, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(json(row, "body")?);
    }
    Ok(found)
}

pub(super) fn delivered(
    tx: &Transaction<'_>,
    id: i64,
    at: Timestamp,
    thread: Option<&str>,
) -> Result<(), Failure> {
    run(
        tx,
        "UPDATE outbox SET done_at = ?2, outcome = 'delivered', attempts = attempts + 1, last_error = NULL, \
         thread = ?3 WHERE id = ?1 AND done_at IS NULL",
        params![id, nanos(at), thread],
    )?;
    Ok(())
}

pub(super) fn attempt_failed(
    tx: &Transaction<'_>,
    id: i64,
    next: Timestamp,
    error: &str,
) -> Result<(), Failure> {
    run(
        tx,
        "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = ?2, last_error = ?3 \
         WHERE id = ?1 AND done_at IS NULL",
        params![id, nanos(next), cut(error)],
    )?;
    Ok(())
}

pub(super) fn abandon(tx: &Transaction<'_>, ids: &[i64], at: Timestamp) -> Result<(), Failure> {
    for id in ids {
        run(
            tx,
            "UPDATE outbox SET done_at = ?2, outcome = 'abandoned' WHERE id = ?1",
            params![id, nanos(at)],
        )?;
    }
    Ok(())
}

pub(super) fn abandon_others(tx: &Transaction<'_>, known: &[String], at: Timestamp) -> Result<u64, Failure> {
    let count = run(
        tx,
        "UPDATE outbox SET done_at = ?2, outcome = 'abandoned' \
         WHERE done_at IS NULL AND receiver NOT IN (SELECT value FROM json_each(?1))",
        params![to_json(&known)?, nanos(at)],
    )?;
    Ok(count as u64)
}

pub(super) fn pending(db: &Connection) -> Result<Vec<Pending>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT receiver, count(*), min(queued_at) FROM outbox WHERE done_at IS NULL GROUP BY receiver ORDER BY receiver",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let count: i64 = row.get(1)?;
        found.push(Pending {
            receiver: row.get(0)?,
            count: count.unsigned_abs(),
            oldest: instant(row.get(2)?)?,
        });
    }
    Ok(found)
}

/// Only the first undelivered row of each incident: the later ones wait for it. A failing receiver that somebody was told
/// of keeps nobody from hearing what waits there: they know where to look. A receiver at which nothing is
/// tried does not fail, its worker does: there it does not count that another one took the same.
pub(super) fn unheard(db: &Connection, tried_since: Timestamp) -> Result<Vec<Unheard>, Failure> {
    let mut statement = db.prepare_cached(
        "WITH known AS (SELECT DISTINCT json_extract(i.body, '$.details.receiver') AS receiver \
         FROM incidents AS i JOIN outbox AS d ON d.incident_id = i.id \
         WHERE i.resolved_at IS NULL AND i.kind = 'receiver_failing' AND d.outcome = 'delivered'), \
         tried AS (SELECT DISTINCT receiver FROM outbox WHERE done_at IS NULL AND attempts > 0 \
         AND next_attempt_at >= ?1) \
         SELECT o.receiver, min(o.queued_at) FROM outbox AS o WHERE o.done_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM outbox AS p WHERE p.receiver = o.receiver \
         AND p.incident_id = o.incident_id AND p.done_at IS NULL AND p.id < o.id) \
         AND o.receiver NOT IN (SELECT receiver FROM known WHERE receiver IS NOT NULL) \
         AND NOT (o.receiver IN (SELECT receiver FROM tried) AND EXISTS (SELECT 1 FROM outbox AS d \
         WHERE d.incident_id = o.incident_id AND d.key = o.key AND d.outcome = 'delivered')) \
         GROUP BY o.receiver ORDER BY o.receiver",
    )?;
    let mut rows = statement.query([nanos(tried_since)])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(Unheard {
            receiver: row.get(0)?,
            oldest: instant(row.get(1)?)?,
        });
    }
    Ok(found)
}

pub(super) fn waiting_for(db: &Connection, incident: i64) -> Result<Vec<String>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT DISTINCT receiver FROM outbox WHERE incident_id = ?1 AND done_at IS NULL ORDER BY receiver",
    )?;
    let rows = statement.query_map([incident], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(super) fn last_deliveries(db: &Connection) -> Result<Vec<LastDelivery>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT receiver, max(done_at) FROM outbox WHERE outcome = 'delivered' GROUP BY receiver ORDER BY receiver",
    )?;
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(LastDelivery {
            receiver: row.get(0)?,
            at: instant(row.get(1)?)?,
        });
    }
    Ok(found)
}

fn outbox_row(row: &rusqlite::Row<'_>) -> Result<OutboxRow, Failure> {
    Ok(OutboxRow {
        id: row.get("id")?,
        receiver: row.get("receiver")?,
        incident_id: row.get("incident_id")?,
        alert: json(row, "alert")?,
        queued_at: time(row, "queued_at")?,
        attempts: row.get("attempts")?,
        next_attempt_at: time(row, "next_attempt_at")?,
        last_error: row.get("last_error")?,
        thread: row.get("first_thread")?,
    })
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
