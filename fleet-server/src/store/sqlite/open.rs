//! Opening the database: checked, a damaged one set aside, boxes and tokens recovered from the second copy.
//!
//! A server that cannot read its past must still watch: so nothing here but a full or read-only disk, a lock, or a
//! newer version keeps it from starting. What was lost is said in [`Loaded::notes`].

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::reserve::Reserve;
use super::rows::{STATEMENTS, classify};
use super::snapshot::Snapshot;
use super::{FILE, Failure, SNAPSHOT_FILE, SqliteStore, boxes, incidents, memory, schema, snapshot};
use crate::store::{Loaded, Note, StoreError};

/// How long to wait for somebody else's lock (a backup, an operator's shell).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Damaged databases that are kept for a look; older ones go.
const SET_ASIDE: usize = 5;

/// What was found at the database's place.
enum Found {
    /// It was used before, and is sound.
    Used(Connection),
    /// It is new: there was nothing.
    New(Connection),
}

impl SqliteStore {
    /// Opens `data_dir/fleet.db`, or makes it. Slow on a big database: every page is looked at.
    pub fn open(data_dir: &Path, now: Timestamp) -> Result<Self, StoreError> {
        let path = data_dir.join(FILE);
        let mut notes = Vec::new();
        let copy = read_copy(&data_dir.join(SNAPSHOT_FILE), now, &mut notes)?;
        let mut found = match open_sound(&path) {
            Err(StoreError::Corrupt { detail, .. }) => {
                let aside = set_aside(&path, now)?;
                notes.push(format!(
                    "the database {} was damaged ({detail}) and is set aside as {}; a new one is started. Incidents, \
                     notifications that still waited, and learnt margins are lost; boxes that are still dark are \
                     reported anew",
                    path.display(),
                    aside.display()
                ));
                open_sound(&path)?
            }
            other => other?,
        };
        recover(&path, &mut found, copy.as_ref(), &mut notes)?;
        let (Found::Used(db) | Found::New(db)) = found;
        let mut loaded = load(&db).map_err(|err| err.into_store(&path, "reading it"))?;
        loaded.notes = notes.into_iter().map(|text| Note { at: now, text }).collect();
        Ok(Self {
            db,
            path,
            reserve: Reserve::new(data_dir),
            loaded: Some(loaded),
            stale: true,
            copied_at: None,
            retained_at: None,
            level: "",
        })
    }
}

impl SqliteStore {
    /// A store in memory alone, for simulations: the same tables and rules, and nothing of it outlives the value. Not to be
    /// [`tidied`](crate::store::Store::tidy): it has no place for a second copy.
    pub fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from("memory");
        let fail = |err| classify(&path, "opening it", err);
        let mut db = Connection::open_in_memory().map_err(fail)?;
        keep_statements(&db).map_err(fail)?;
        db.execute_batch("PRAGMA foreign_keys = ON;").map_err(fail)?;
        schema::migrate(&mut db).map_err(fail)?;
        Ok(Self {
            db,
            reserve: Reserve::new(&path),
            path,
            loaded: None,
            stale: false,
            copied_at: None,
            retained_at: None,
            level: "",
        })
    }
}

/// Everything a server starts from, but the notes of this start.
pub(super) fn load(db: &Connection) -> Result<Loaded, Failure> {
    Ok(Loaded {
        boxes: boxes::all(db)?,
        operators: boxes::operators(db)?,
        memories: memory::all(db)?,
        reports: memory::all_reports(db)?,
        incidents: incidents::open(db)?,
        ended: Vec::new(),
        next_incident_id: schema::meta(db, schema::NEXT_INCIDENT)?.max(1),
        notes: Vec::new(),
    })
}

fn read_copy(path: &Path, now: Timestamp, notes: &mut Vec<String>) -> Result<Option<Snapshot>, StoreError> {
    match snapshot::read(path) {
        Ok(copy) => Ok(copy),
        Err(why) => {
            let aside = set_aside(path, now)?;
            notes.push(format!(
                "the second copy of boxes and tokens, {}, cannot be used ({why}) and is set aside as {}; a new one is \
                 written",
                path.display(),
                aside.display()
            ));
            Ok(None)
        }
    }
}

/// Opens, checks every page, does the missing steps, and reads everything once: what it returns can be used.
fn open_sound(path: &Path) -> Result<Found, StoreError> {
    let fail = |err| classify(path, "opening it", err);
    let corrupt = |detail: String| StoreError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = Connection::open_with_flags(path, flags).map_err(fail)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(fail)?;
    keep_statements(&db).map_err(fail)?;
    db.execute_batch("PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;")
        .map_err(fail)?;
    let version = schema::version(&db).map_err(fail)?;
    if version > schema::VERSION {
        return Err(StoreError::Newer {
            path: path.to_owned(),
            found: version,
            known: schema::VERSION,
        });
    }
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(fail)?;
    let ours: i64 = db
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(fail)?;
    if (version == 0) != (tables == 0) || (version != 0 && ours != schema::APPLICATION_ID) {
        return Err(corrupt("it is not a database of this server".to_owned()));
    }
    let verdict: String = db
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(fail)?;
    if verdict != "ok" {
        return Err(corrupt(verdict));
    }
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA journal_size_limit = 67108864;")
        .map_err(fail)?;
    schema::migrate(&mut db).map_err(fail)?;
    load(&db).map_err(|err| err.into_store(path, "reading it"))?;
    Ok(if version == 0 {
        Found::New(db)
    } else {
        Found::Used(db)
    })
}

/// Statements stay compiled, whatever values are put into them next.
fn keep_statements(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map(drop)
}

/// Takes boxes and tokens from the second copy if the database has none of its own, or older ones.
fn recover(
    path: &Path,
    found: &mut Found,
    copy: Option<&Snapshot>,
    notes: &mut Vec<String>,
) -> Result<(), StoreError> {
    let fail = |err: Failure| err.into_store(path, "recovering boxes");
    let (db, new) = match found {
        Found::Used(db) => (db, false),
        Found::New(db) => (db, true),
    };
    let Some(copy) = copy else {
        if new && !notes.is_empty() {
            notes.push(
                "there is no second copy of boxes and tokens: every box must be added again".to_owned(),
            );
        }
        return Ok(());
    };
    let generation = schema::meta(db, schema::GENERATION).map_err(|err| fail(err.into()))?;
    if generation >= copy.generation {
        return Ok(());
    }
    let tx = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|err| fail(err.into()))?;
    snapshot::restore(&tx, copy).map_err(fail)?;
    tx.commit().map_err(|err| fail(err.into()))?;
    let why = if new {
        "was new"
    } else {
        "was older than their second copy"
    };
    notes.push(format!(
        "the database {} {why}: {} boxes with their tokens, operators and enrolment codes were taken from the copy of {}",
        path.display(),
        copy.boxes.len(),
        copy.written_at
    ));
    Ok(())
}

/// Moves a damaged file (and its `-wal` and `-shm`) out of the way, keeping the newest few such files.
fn set_aside(path: &Path, now: Timestamp) -> Result<PathBuf, StoreError> {
    let io = |doing| {
        move |source| StoreError::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let with = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    let stamp = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let free = (1..100).map(|n| {
        if n == 1 {
            stamp.clone()
        } else {
            format!("{stamp}-{n}")
        }
    });
    let aside = free
        .map(|stamp| with(&format!(".corrupt-{stamp}")))
        .find(|aside| !aside.exists())
        .unwrap_or_else(|| with(&format!(".corrupt-{stamp}")));
    fs::rename(path, &aside).map_err(io("is damaged and cannot be set aside"))?;
    for suffix in ["-wal", "-shm"] {
        let part = with(suffix);
        if part.exists() {
            fs::rename(&part, format!("{}{suffix}", aside.display()))
                .map_err(io("is damaged and its journal cannot be set aside"))?;
        }
    }
    forget_old(path);
    Ok(aside)
}

/// The stamp in the names sorts by time. What cannot be removed stays: it only costs room.
fn forget_old(path: &Path) {
    let Some((dir, name)) = path.parent().zip(path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let prefix = format!("{name}.corrupt-");
    let mut old: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| {
                name.starts_with(&prefix) && !name.ends_with("-wal") && !name.ends_with("-shm")
            })
        })
        .collect();
    old.sort();
    for path in old.iter().rev().skip(SET_ASIDE) {
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", path.display()));
        }
    }
}
