//! The store on SQLite: one file, WAL, one connection on the store's own thread.
//!
//! Incidents and their notifications are one transaction with `synchronous=FULL`; what boxes were last seen doing is
//! written with `NORMAL`, which a crash of the server does not hurt. Opening, checking and setting a damaged file aside
//! is `open`; the small second copy of boxes and tokens is `snapshot`.

mod boxes;
mod incidents;
mod memory;
mod mutes;
mod open;
mod outbox;
mod reserve;
mod retain;
mod rows;
mod schema;
mod snapshot;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};
use protocol::incident::{Ack, Incident, TimelineEntry};
use protocol::mute::{MuteKind, MuteRecord};
use protocol::witness::Targets;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use self::reserve::Reserve;
use self::rows::classify;
use super::{
    BoxId, BoxMemory, BoxRecord, EnrollCode, IncidentFilter, KnownMutes, LastDelivery, Loaded, NewBox,
    OperatorRecord, Pending, Store, StoreError, StoredIncident, StoredReport, Told, Unheard,
};
use crate::directory::TokenHash;
use crate::incident::change::Change;
use crate::notify::outbox::OutboxRow;

/// The database's name in the data directory.
pub const FILE: &str = "fleet.db";
/// The second copy of boxes and tokens, in the data directory.
pub const SNAPSHOT_FILE: &str = "boxes.json";
/// The second copy's `last_seen` is at most this old: a box that died meanwhile is still paged after a loss.
const SNAPSHOT_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// How often what is over its time is forgotten.
const RETAIN_EVERY: SignedDuration = SignedDuration::from_secs(600);

/// The store on SQLite.
pub struct SqliteStore {
    db: Connection,
    path: PathBuf,
    reserve: Reserve,
    /// Read once while opening, given out by the first [`Store::load`].
    loaded: Option<Loaded>,
    /// The directory changed since the second copy was written.
    stale: bool,
    /// When the second copy was written.
    copied_at: Option<Timestamp>,
    /// When what is over its time was forgotten.
    retained_at: Option<Timestamp>,
    /// What `PRAGMA synchronous` was set to last.
    level: &'static str,
}

impl SqliteStore {
    /// One transaction. `sync`: it is on the disk when this returns; if there is no room, the next attempt has some.
    fn write<T>(
        &mut self,
        doing: &'static str,
        sync: bool,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let done = self.transact(doing, sync, work);
        if sync && matches!(done, Err(StoreError::Full { .. })) && self.reserve.give_up() {
            tracing::error!(
                "the disk of {} is full; its reserve is given up so that notifications go out; make room now",
                self.path.display()
            );
        }
        done
    }

    fn transact<T>(
        &mut self,
        doing: &'static str,
        sync: bool,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let path = &self.path;
        let fail = |err: Failure| err.into_store(path, doing);
        let level = if sync { "FULL" } else { "NORMAL" };
        if self.level != level {
            self.db
                .pragma_update(None, "synchronous", level)
                .map_err(|err| fail(err.into()))?;
            self.level = level;
        }
        let tx = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|err| fail(err.into()))?;
        let done = work(&tx).map_err(fail)?;
        tx.commit().map_err(|err| fail(err.into()))?;
        Ok(done)
    }

    /// A change of boxes, tokens, operators or codes: durable, and the second copy is due.
    fn change_directory<T>(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        let done = self.write(doing, true, |tx| {
            let done = work(tx)?;
            schema::count_up(tx, schema::GENERATION)?;
            Ok(done)
        })?;
        self.stale = true;
        Ok(done)
    }

    fn read<T>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Connection) -> Result<T, Failure>,
    ) -> Result<T, StoreError> {
        work(&self.db).map_err(|err| err.into_store(&self.path, doing))
    }
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        match self.loaded.take() {
            Some(loaded) => Ok(loaded),
            None => self.read("reading it", open::load),
        }
    }

    fn add_box(&mut self, new: &NewBox) -> Result<BoxRecord, StoreError> {
        self.change_directory("adding a box", |tx| boxes::add(tx, new))
    }

    fn enroll(&mut self, code: &TokenHash, new: &NewBox) -> Result<BoxRecord, StoreError> {
        self.change_directory("enrolling a box", |tx| {
            boxes::use_code(tx, code, new.at)?;
            boxes::add(tx, new)
        })
    }

    fn remove_box(&mut self, id: BoxId) -> Result<(), StoreError> {
        self.change_directory("removing a box", |tx| boxes::remove(tx, id))
    }

    fn rotate(
        &mut self,
        id: BoxId,
        token: &TokenHash,
        at: Timestamp,
        old_until: Timestamp,
    ) -> Result<BoxRecord, StoreError> {
        self.change_directory("rotating a token", |tx| {
            boxes::rotate(tx, id, token, at, old_until)
        })
    }

    fn set_witnesses(&mut self, id: BoxId, witnesses: &Targets) -> Result<BoxRecord, StoreError> {
        self.change_directory("declaring witnesses", |tx| {
            boxes::set_witnesses(tx, id, witnesses)
        })
    }

    fn revoke(&mut self, id: BoxId, _at: Timestamp) -> Result<BoxRecord, StoreError> {
        self.change_directory("revoking tokens", |tx| boxes::revoke(tx, id))
    }

    fn add_enroll_code(&mut self, code: &EnrollCode, now: Timestamp) -> Result<(), StoreError> {
        self.change_directory("adding an enrolment code", |tx| boxes::add_code(tx, code, now))
    }

    fn put_operator(&mut self, operator: &OperatorRecord) -> Result<(), StoreError> {
        self.change_directory("adding an operator", |tx| boxes::put_operator(tx, operator))
    }

    fn remove_operator(&mut self, name: &str) -> Result<(), StoreError> {
        self.change_directory("removing an operator", |tx| boxes::remove_operator(tx, name))
    }

    fn commit(&mut self, changes: &[Change], rows: &[OutboxRow]) -> Result<(), StoreError> {
        self.write("writing incidents", true, |tx| {
            incidents::put(tx, changes)?;
            outbox::put(tx, rows)
        })
    }

    fn add_timeline(&mut self, entries: &[(i64, TimelineEntry)]) -> Result<(), StoreError> {
        self.write("writing a timeline", true, |tx| {
            incidents::add_timeline(tx, entries)
        })
    }

    fn acknowledge(&mut self, id: i64, ack: &Ack) -> Result<StoredIncident, StoreError> {
        self.write("acknowledging", true, |tx| incidents::acknowledge(tx, id, ack))
    }

    fn incident(&mut self, id: i64) -> Result<Option<StoredIncident>, StoreError> {
        self.read("reading an incident", |db| incidents::get(db, id))
    }

    fn ended_since(&mut self, since: Timestamp, limit: u32) -> Result<Vec<Incident>, StoreError> {
        self.read("reading incidents that ended", |db| {
            incidents::ended_since(db, since, limit)
        })
    }

    fn incidents(&mut self, filter: &IncidentFilter) -> Result<(Vec<StoredIncident>, u64), StoreError> {
        self.read("reading incidents", |db| incidents::list(db, filter))
    }

    fn put_mute(&mut self, mute: &MuteRecord) -> Result<(), StoreError> {
        self.change_directory("writing a mute", |tx| mutes::put(tx, std::slice::from_ref(mute)))
    }

    fn put_pauses(&mut self, pauses: &[MuteRecord]) -> Result<(), StoreError> {
        // Boxes say them again: the second copy need not be written anew for each.
        self.write("writing pauses", true, |tx| mutes::put(tx, pauses))
    }

    fn mutes_since(&mut self, then: Timestamp) -> Result<KnownMutes, StoreError> {
        self.read("reading mutes", |db| mutes::since(db, then))
    }

    fn mute(&mut self, id: i64) -> Result<Option<MuteRecord>, StoreError> {
        self.read("reading a mute", |db| mutes::get(db, id))
    }

    fn mutes_over(
        &mut self,
        kinds: &[MuteKind],
        now: Timestamp,
        page: (u64, u32),
    ) -> Result<(Vec<MuteRecord>, u64), StoreError> {
        self.read("reading mutes that are over", |db| {
            mutes::over(db, kinds, now, page)
        })
    }

    fn due(&mut self, receiver: &str, now: Timestamp, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let (rows, unreadable) =
            self.read("reading the outbox", |db| outbox::due(db, receiver, now, limit))?;
        if !unreadable.is_empty() {
            tracing::error!(receiver, ids = ?unreadable, "notifications in the outbox cannot be read; given up");
            self.write("giving up notifications", true, |tx| {
                outbox::abandon(tx, &unreadable, now)
            })?;
        }
        Ok(rows)
    }

    fn next_due(&mut self, receiver: &str) -> Result<Option<Timestamp>, StoreError> {
        self.read("reading the outbox", |db| outbox::next_due(db, receiver))
    }

    fn told(&mut self) -> Result<Vec<Told>, StoreError> {
        self.read("reading the outbox", outbox::told)
    }

    fn firing(&mut self, receiver: &str, limit: u32) -> Result<Vec<Incident>, StoreError> {
        self.read("reading firing incidents", |db| {
            outbox::firing(db, receiver, limit)
        })
    }

    fn delivered(&mut self, id: i64, at: Timestamp, thread: Option<&str>) -> Result<(), StoreError> {
        self.write("marking a delivery", true, |tx| {
            outbox::delivered(tx, id, at, thread)
        })
    }

    fn attempt_failed(&mut self, id: i64, next: Timestamp, error: &str) -> Result<(), StoreError> {
        self.write("marking an attempt", false, |tx| {
            outbox::attempt_failed(tx, id, next, error)
        })
    }

    fn pending(&mut self) -> Result<Vec<Pending>, StoreError> {
        self.read("reading the outbox", outbox::pending)
    }

    fn last_deliveries(&mut self) -> Result<Vec<LastDelivery>, StoreError> {
        self.read("reading the outbox", outbox::last_deliveries)
    }

    fn unheard(&mut self, tried_since: Timestamp) -> Result<Vec<Unheard>, StoreError> {
        self.read("reading the outbox", |db| outbox::unheard(db, tried_since))
    }

    fn waiting_for(&mut self, incident: i64) -> Result<Vec<String>, StoreError> {
        self.read("reading the outbox", |db| outbox::waiting_for(db, incident))
    }

    fn abandon_others(&mut self, known: &[String], at: Timestamp) -> Result<u64, StoreError> {
        self.write("giving up notifications", true, |tx| {
            outbox::abandon_others(tx, known, at)
        })
    }

    fn remember(&mut self, memories: &[BoxMemory], sync: bool) -> Result<(), StoreError> {
        self.write("remembering boxes", sync, |tx| memory::put(tx, memories))
    }

    fn put_reports(&mut self, reports: &[StoredReport]) -> Result<(), StoreError> {
        self.write("storing reports", false, |tx| memory::put_reports(tx, reports))
    }

    fn retain(&mut self, now: Timestamp) -> Result<u64, StoreError> {
        self.write("forgetting what is over its time", false, |tx| {
            retain::retain(tx, now)
        })
    }

    fn ping(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.write("answering a ping", false, |tx| {
            schema::put_meta(tx, "ping", rows::nanos(now)).map_err(Failure::from)
        })
    }

    fn tidy(&mut self, now: Timestamp, last: bool) -> Result<(), StoreError> {
        let since = |at: Option<Timestamp>| at.map(|at| now.duration_since(at).abs());
        if since(self.retained_at).is_none_or(|since| since >= RETAIN_EVERY) {
            self.retained_at = Some(now);
            self.retain(now)?;
        }
        let old = since(self.copied_at).is_none_or(|since| since >= SNAPSHOT_EVERY);
        if !self.stale && !old && !last {
            return Ok(());
        }
        self.copied_at = Some(now);
        let copy = self.read("copying boxes and tokens", |db| snapshot::take(db, now))?;
        snapshot::save(&self.path.with_file_name(SNAPSHOT_FILE), &copy)?;
        self.stale = false;
        if !last {
            self.reserve.keep().map_err(|source| StoreError::Io {
                path: self.path.with_file_name(reserve::FILE),
                doing: "cannot be made",
                source,
            })?;
        }
        Ok(())
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        // Everything is in the WAL already; this only spares the next start reading it.
        let _ = self.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }
}

/// What a transaction's work may end with: the database's own error, a row that cannot be read, or a refusal.
enum Failure {
    Sqlite(rusqlite::Error),
    Unreadable(String),
    Refused(StoreError),
}

impl From<rusqlite::Error> for Failure {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(err)
    }
}

impl From<StoreError> for Failure {
    fn from(err: StoreError) -> Self {
        Self::Refused(err)
    }
}

impl Failure {
    fn into_store(self, path: &std::path::Path, doing: &'static str) -> StoreError {
        match self {
            Self::Sqlite(err) => classify(path, doing, err),
            Self::Unreadable(detail) => StoreError::Corrupt {
                path: path.to_owned(),
                detail,
            },
            Self::Refused(err) => err,
        }
    }
}
