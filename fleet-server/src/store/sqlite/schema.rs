//! The tables, and how an older database becomes the newest one: `PRAGMA user_version` counts the steps done.

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::rows::{one, run};

/// "FlWd": tells our file from somebody else's.
pub(super) const APPLICATION_ID: i64 = 0x466c_5764;
/// The key in `meta` that counts changes of boxes, tokens, operators and codes.
pub(super) const GENERATION: &str = "generation";
/// The key in `meta` of the next incident's id.
pub(super) const NEXT_INCIDENT: &str = "next_incident_id";

/// Each step in one transaction; a step that has shipped is never changed.
/// Times are nanoseconds since 1970, UTC.
const STEPS: [&str; 4] = [
    "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE boxes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    labels TEXT NOT NULL,
    declared TEXT NOT NULL,
    witness_tcp TEXT,
    added_at INTEGER NOT NULL
) STRICT;
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,
    box_id INTEGER NOT NULL REFERENCES boxes (id) ON DELETE CASCADE,
    created_at INTEGER NOT NULL,
    expires_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX tokens_of_box ON tokens (box_id, created_at);
CREATE TABLE operators (
    name TEXT PRIMARY KEY, role TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE enroll_codes (
    hash BLOB PRIMARY KEY, uses_left INTEGER NOT NULL, expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE memories (
    box_id INTEGER PRIMARY KEY REFERENCES boxes (id) ON DELETE CASCADE,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE reports (
    box_id INTEGER PRIMARY KEY REFERENCES boxes (id) ON DELETE CASCADE,
    received_at INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE TABLE incidents (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    box TEXT,
    resolved_at INTEGER,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    ack TEXT
) STRICT;
CREATE INDEX incidents_open ON incidents (id) WHERE resolved_at IS NULL;
CREATE INDEX incidents_resolved ON incidents (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX incidents_of_box ON incidents (box, id);
CREATE TABLE timeline (
    id INTEGER PRIMARY KEY,
    incident_id INTEGER NOT NULL REFERENCES incidents (id) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX timeline_once ON timeline (incident_id, at, event, text);
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver TEXT NOT NULL,
    incident_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    alert TEXT NOT NULL,
    queued_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    last_error TEXT,
    done_at INTEGER,
    outcome TEXT
) STRICT;
CREATE UNIQUE INDEX outbox_once ON outbox (receiver, key);
CREATE INDEX outbox_waiting ON outbox (receiver, incident_id, id) WHERE done_at IS NULL;
CREATE INDEX outbox_of_incident ON outbox (incident_id, receiver);
CREATE INDEX outbox_done ON outbox (done_at) WHERE done_at IS NOT NULL;
",
    "
CREATE TABLE mutes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    over_at INTEGER,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX mutes_over ON mutes (over_at);
",
    "
ALTER TABLE outbox ADD COLUMN thread TEXT;
",
    "
CREATE INDEX IF NOT EXISTS outbox_order ON outbox (receiver, id) WHERE done_at IS NULL;
",
];

/// The version that [`migrate`] ends with.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// The steps done on this database; 0: it is new.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Does the steps that are missing.
pub(super) fn migrate(db: &mut Connection) -> rusqlite::Result<()> {
    let done = usize::try_from(version(db)?).unwrap_or(0);
    for (at, step) in STEPS.iter().enumerate().skip(done) {
        let tx = db.transaction()?;
        tx.execute_batch(step)?;
        tx.pragma_update(None, "user_version", at as i64 + 1)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.commit()?;
    }
    Ok(())
}

/// A figure in `meta`; 0 if it was never put.
pub(super) fn meta(db: &Connection, key: &str) -> rusqlite::Result<i64> {
    let found = one(db, "SELECT value FROM meta WHERE key = ?1", [key], |row| {
        row.get(0)
    })
    .optional()?;
    Ok(found.unwrap_or(0))
}

/// Puts a figure into `meta`.
pub(super) fn put_meta(tx: &Transaction<'_>, key: &str, value: i64) -> rusqlite::Result<()> {
    run(
        tx,
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        params![key, value],
    )?;
    Ok(())
}

/// Adds one to a figure in `meta`.
pub(super) fn count_up(tx: &Transaction<'_>, key: &str) -> rusqlite::Result<()> {
    put_meta(tx, key, meta(tx, key)?.saturating_add(1))
}
