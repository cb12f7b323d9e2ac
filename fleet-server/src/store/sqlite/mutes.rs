//! Silences, maintenances and pauses, also those that are over: who muted what, when, and who ended it.
//!
//! It works out no window: `over_at` is what the record itself says.

use jiff::Timestamp;
use protocol::mute::{MuteKind, MuteRecord};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::Failure;
use super::rows::{json, nanos, to_json};
use crate::store::KnownMutes;

pub(super) fn put(tx: &Transaction<'_>, mutes: &[MuteRecord]) -> Result<(), Failure> {
    let mut put = tx.prepare(
        "INSERT INTO mutes (id, kind, over_at, body) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, over_at = excluded.over_at, body = excluded.body",
    )?;
    for mute in mutes {
        put.execute(params![
            mute.id,
            mute.kind.as_str(),
            mute.over_at().map(nanos),
            to_json(mute)?
        ])?;
    }
    Ok(())
}

/// Those that are not over at `then`, by number.
pub(super) fn since(db: &Connection, then: Timestamp) -> Result<KnownMutes, Failure> {
    let mut statement =
        db.prepare("SELECT body FROM mutes WHERE over_at IS NULL OR over_at > ?1 ORDER BY id")?;
    let mut rows = statement.query([nanos(then)])?;
    let mut mutes = Vec::new();
    while let Some(row) = rows.next()? {
        match json(row, "body") {
            Ok(mute) => mutes.push(mute),
            // Rather one page too many than a server that does not start.
            Err(Failure::Unreadable(why)) => tracing::error!(%why, "a mute cannot be read; it mutes nothing"),
            Err(other) => return Err(other),
        }
    }
    let last: Option<i64> = db
        .query_row(
            "SELECT seq FROM sqlite_sequence WHERE name = 'mutes'",
            [],
            |row| row.get(0),
        )
        .optional()?;
    Ok(KnownMutes {
        mutes,
        next_id: last.unwrap_or(0) + 1,
    })
}

pub(super) fn get(db: &Connection, id: i64) -> Result<Option<MuteRecord>, Failure> {
    let mut statement = db.prepare("SELECT body FROM mutes WHERE id = ?1")?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(|row| json(row, "body")).transpose()
}

/// Those of `kinds` that are over at `now`, the newest end first, with the count of all.
pub(super) fn over(
    db: &Connection,
    kinds: &[MuteKind],
    now: Timestamp,
    (offset, limit): (u64, u32),
) -> Result<(Vec<MuteRecord>, u64), Failure> {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    let kinds = to_json(&words)?;
    let count: i64 = db.query_row(
        "SELECT count(*) FROM mutes WHERE over_at <= ?1 AND kind IN (SELECT value FROM json_each(?2))",
        params![nanos(now), kinds],
        |row| row.get(0),
    )?;
    let mut statement = db.prepare(
        "SELECT body FROM mutes WHERE over_at <= ?1 AND kind IN (SELECT value FROM json_each(?2)) \
         ORDER BY over_at DESC, id DESC LIMIT ?4 OFFSET ?3",
    )?;
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![nanos(now), kinds, offset, limit])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match json(row, "body") {
            Ok(mute) => found.push(mute),
            Err(Failure::Unreadable(why)) => tracing::warn!(%why, "a mute that is over cannot be read"),
            Err(other) => return Err(other),
        }
    }
    Ok((found, count.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use protocol::matcher::Matcher;
    use protocol::mute::Signed;

    use super::*;
    use crate::store::sqlite::SqliteStore;
    use crate::store::{MUTES_ROWS, Store};

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_774_000_000 + secs).unwrap()
    }

    fn mute(id: i64, kind: MuteKind, until: Option<i64>) -> MuteRecord {
        MuteRecord {
            id,
            kind,
            matcher: Matcher::default(),
            reason: "new switch".into(),
            from: at(0),
            until: until.map(at),
            for_secs: None,
            every: None,
            said_until: None,
            created: Signed {
                by: "alice".into(),
                at: at(0),
            },
            ended: None,
        }
    }

    fn ids(mutes: &[MuteRecord]) -> Vec<i64> {
        mutes.iter().map(|mute| mute.id).collect()
    }

    #[test]
    fn what_is_over_is_history_and_what_is_not_comes_back_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), at(0)).unwrap();
        for (id, until) in [(1, Some(10)), (2, Some(100)), (3, None)] {
            store.put_mute(&mute(id, MuteKind::Silence, until)).unwrap();
        }
        store.put_pauses(&[mute(4, MuteKind::Pause, Some(20))]).unwrap();
        let ended = MuteRecord {
            ended: Some(Signed {
                by: "bob".into(),
                at: at(40),
            }),
            ..mute(3, MuteKind::Silence, None)
        };
        store.put_mute(&ended).unwrap();
        drop(store);
        let mut store = SqliteStore::open(dir.path(), at(50)).unwrap();
        let known = store.mutes_since(at(50)).unwrap();
        assert_eq!((ids(&known.mutes), known.next_id), (vec![2], 5));
        let silences = [MuteKind::Silence];
        let (over, count) = store.mutes_over(&silences, at(50), (0, 10)).unwrap();
        assert_eq!(
            (over, count),
            (vec![ended.clone(), mute(1, MuteKind::Silence, Some(10))], 2)
        );
        let (page, count) = store.mutes_over(&silences, at(50), (1, 1)).unwrap();
        assert_eq!((ids(&page), count), (vec![1], 2));
        assert_eq!(store.mute(3).unwrap(), Some(ended));
        assert_eq!(store.mute(9).unwrap(), None);
    }

    #[test]
    fn a_lost_database_leaves_nobody_unmuted() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(dir.path(), at(0)).unwrap();
        store.put_mute(&mute(1, MuteKind::Silence, Some(10))).unwrap();
        store
            .put_mute(&mute(2, MuteKind::Maintenance, Some(100)))
            .unwrap();
        store.tidy(at(20), true).unwrap();
        drop(store);
        std::fs::write(dir.path().join("fleet.db"), "no database").unwrap();
        let mut store = SqliteStore::open(dir.path(), at(21)).unwrap();
        assert_eq!(ids(&store.mutes_since(at(21)).unwrap().mutes), [2]);
    }

    #[test]
    fn history_is_bounded_and_a_database_without_mutes_gets_their_table() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path(), at(0)).unwrap();
        store
            .db
            .execute_batch("DROP TABLE mutes; ALTER TABLE outbox DROP COLUMN thread; PRAGMA user_version = 1")
            .unwrap();
        drop(store);
        let mut store = SqliteStore::open(dir.path(), at(0)).unwrap();
        let rows = i64::from(MUTES_ROWS);
        let many: Vec<MuteRecord> = (1..=rows + 10)
            .map(|id| mute(id, MuteKind::Pause, Some(id)))
            .collect();
        store.put_pauses(&many).unwrap();
        store.put_mute(&mute(rows + 11, MuteKind::Silence, None)).unwrap();
        store.retain(at(rows + 10)).unwrap();
        let (newest, count) = store
            .mutes_over(&[MuteKind::Pause], at(rows + 10), (0, 1))
            .unwrap();
        assert_eq!((ids(&newest), count), (vec![rows + 10], u64::from(MUTES_ROWS)));
        assert!(store.mute(rows + 11).unwrap().is_some());
        store.retain(at(500 * 86_400)).unwrap();
        assert_eq!(
            store
                .mutes_over(&[MuteKind::Pause], at(500 * 86_400), (0, 1))
                .unwrap()
                .1,
            0
        );
    }
}
