//! What is forgotten, and when.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{Transaction, params};

use super::Failure;
use super::rows::nanos;
use crate::incident::canary;
use crate::store::{DELIVERED_KEEP, MUTES_KEEP, MUTES_ROWS, RESOLVED_KEEP, RESOLVED_ROWS};

/// Rows taken at once, so that no call holds the store for long; the rest goes with the next call.
const AT_ONCE: u32 = 5000;

/// Forgets what is over its time or count; how many rows.
pub(super) fn retain(tx: &Transaction<'_>, now: Timestamp) -> Result<u64, Failure> {
    let before = |keep: std::time::Duration| {
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        nanos(now.checked_sub(keep).unwrap_or(Timestamp::MIN))
    };
    // Of an open incident the rows stay: they say who must hear of its end.
    let mut gone = tx.execute(
        "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox AS o WHERE o.done_at < ?1 AND NOT EXISTS \
         (SELECT 1 FROM incidents AS i WHERE i.id = o.incident_id AND i.resolved_at IS NULL) LIMIT ?2)",
        params![before(DELIVERED_KEEP), AT_ONCE],
    )?;
    // The canary's own incidents prove something for a week, and would crowd out people's.
    gone += tx.execute(
        "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents AS i WHERE box = ?1 AND resolved_at < ?2 \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE incident_id = i.id AND done_at IS NULL) LIMIT ?3)",
        params![canary::NAME, before(DELIVERED_KEEP), AT_ONCE],
    )?;
    // Of what was told again and again of one that stays open, the first and the newest say all that.
    gone += tx.execute(
        "DELETE FROM outbox WHERE id IN (SELECT o.id FROM outbox AS o WHERE o.done_at < ?1 AND EXISTS \
         (SELECT 1 FROM outbox AS p WHERE p.incident_id = o.incident_id AND p.receiver = o.receiver AND p.id < o.id) \
         AND EXISTS \
         (SELECT 1 FROM outbox AS p WHERE p.incident_id = o.incident_id AND p.receiver = o.receiver AND p.id > o.id) \
         LIMIT ?2)",
        params![before(DELIVERED_KEEP), AT_ONCE],
    )?;
    // One whose notification still waits stays: the receiver may ask for it.
    gone += tx.execute(
        "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents AS i WHERE resolved_at < ?1 AND NOT EXISTS \
         (SELECT 1 FROM outbox WHERE incident_id = i.id AND done_at IS NULL) LIMIT ?2)",
        params![before(RESOLVED_KEEP), AT_ONCE],
    )?;
    gone += tx.execute(
        "DELETE FROM incidents WHERE id IN (SELECT id FROM incidents AS i WHERE resolved_at IS NOT NULL \
         AND NOT EXISTS (SELECT 1 FROM outbox WHERE incident_id = i.id AND done_at IS NULL) \
         ORDER BY resolved_at DESC LIMIT ?2 OFFSET ?1)",
        params![RESOLVED_ROWS, AT_ONCE],
    )?;
    gone += tx.execute("DELETE FROM mutes WHERE over_at < ?1", [before(MUTES_KEEP)])?;
    gone += tx.execute(
        "DELETE FROM mutes WHERE id IN (SELECT id FROM mutes WHERE over_at <= ?3 ORDER BY over_at DESC, id DESC \
         LIMIT ?2 OFFSET ?1)",
        params![MUTES_ROWS, AT_ONCE, nanos(now)],
    )?;
    gone += tx.execute("DELETE FROM tokens WHERE expires_at <= ?1", [nanos(now)])?;
    Ok(gone as u64)
}
