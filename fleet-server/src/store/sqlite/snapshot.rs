//! The second copy of boxes, tokens, operators, codes and mutes: `boxes.json`, one small file beside the database.
//!
//! Boxes cannot get their tokens again by themselves, so this one thing must not be lost with a damaged database.
//! It holds no incident and no report.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use protocol::mute::MuteRecord;
use rusqlite::{Connection, Transaction, params};
use serde::{Deserialize, Serialize};

use super::rows::to_json;
use super::{Failure, boxes, memory, mutes, schema};
use crate::liveness::record::Record;
use crate::store::{BoxRecord, EnrollCode, OperatorRecord, StoreError};

/// The version of the file's shape.
const VERSION: u32 = 1;
/// Bytes of the file that are read: the most boxes that a server takes, with full labels.
const BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Incident numbers left out after a loss: the copy is some seconds old, and a number must not mean two incidents.
const INCIDENT_GAP: i64 = 10_000;

/// What the second copy holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Snapshot {
    version: u32,
    /// When it was made.
    pub(super) written_at: Timestamp,
    /// The database's count of directory changes at that time.
    pub(super) generation: i64,
    next_incident_id: i64,
    /// All boxes.
    pub(super) boxes: Vec<Copied>,
    #[serde(default)]
    operators: Vec<OperatorRecord>,
    #[serde(default)]
    enroll_codes: Vec<EnrollCode>,
    /// Those that were not over.
    #[serde(default)]
    mutes: Vec<MuteRecord>,
}

/// A box with what a server must know to page for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Copied {
    #[serde(flatten)]
    record: BoxRecord,
    /// At most a minute old: enough to page for a box that died meanwhile.
    #[serde(default)]
    liveness: Option<Record>,
}

/// Reads it all from the database.
pub(super) fn take(db: &Connection, now: Timestamp) -> Result<Snapshot, Failure> {
    let mut known: HashMap<_, _> = memory::all(db)?
        .into_iter()
        .map(|memory| (memory.id, memory.record))
        .collect();
    let copied = |record: BoxRecord| Copied {
        liveness: known.remove(&record.id),
        record,
    };
    Ok(Snapshot {
        version: VERSION,
        written_at: now,
        generation: schema::meta(db, schema::GENERATION)?,
        next_incident_id: schema::meta(db, schema::NEXT_INCIDENT)?,
        boxes: boxes::all(db)?.into_iter().map(copied).collect(),
        operators: boxes::operators(db)?,
        enroll_codes: boxes::codes(db)?,
        mutes: mutes::since(db, now)?.mutes,
    })
}

/// Writes it beside the old one and puts it in its place, so that one whole copy is always there.
pub(super) fn save(path: &Path, snapshot: &Snapshot) -> Result<(), StoreError> {
    let io = |doing| {
        move |source| StoreError::Io {
            path: path.to_owned(),
            doing,
            source,
        }
    };
    let text = serde_json::to_vec(snapshot).map_err(|err| io("cannot be encoded")(err.into()))?;
    let new = path.with_extension("json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .map_err(io("cannot be written"))?;
    file.write_all(&text).map_err(io("cannot be written"))?;
    file.sync_all().map_err(io("cannot be synced"))?;
    fs::rename(&new, path).map_err(io("cannot be put in place"))?;
    let dir = path.parent().unwrap_or(Path::new("."));
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(io("its directory cannot be synced"))
}

/// Reads it; `None` if there is none, an error in words if it cannot be used.
pub(super) fn read(path: &Path) -> Result<Option<Snapshot>, String> {
    let size = match fs::metadata(path) {
        Ok(meta) => meta.len(),
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(err) => return Err(err.to_string()),
    };
    if size > BYTES_MAX {
        return Err(format!("is {size} bytes long; at most {BYTES_MAX} are read"));
    }
    let text = fs::read(path).map_err(|err| err.to_string())?;
    let snapshot: Snapshot = serde_json::from_slice(&text).map_err(|err| err.to_string())?;
    if snapshot.version != VERSION {
        return Err(format!(
            "has version {}; this server knows {VERSION}",
            snapshot.version
        ));
    }
    Ok(Some(snapshot))
}

/// Puts it in the place of the database's own boxes, tokens, operators and codes.
pub(super) fn restore(tx: &Transaction<'_>, snapshot: &Snapshot) -> Result<(), Failure> {
    let records: Vec<BoxRecord> = snapshot
        .boxes
        .iter()
        .map(|copied| copied.record.clone())
        .collect();
    boxes::replace_all(tx, &records, &snapshot.operators, &snapshot.enroll_codes)?;
    mutes::put(tx, &snapshot.mutes)?;
    let mut remember = tx.prepare("INSERT OR IGNORE INTO memories (box_id, body) VALUES (?1, ?2)")?;
    for copied in &snapshot.boxes {
        if let Some(liveness) = &copied.liveness {
            remember.execute(params![copied.record.id.0, to_json(liveness)?])?;
        }
    }
    let next = schema::meta(tx, schema::NEXT_INCIDENT)?;
    if next < snapshot.next_incident_id {
        schema::put_meta(
            tx,
            schema::NEXT_INCIDENT,
            snapshot.next_incident_id.saturating_add(INCIDENT_GAP),
        )?;
    }
    let generation = schema::meta(tx, schema::GENERATION)?.max(snapshot.generation);
    schema::put_meta(tx, schema::GENERATION, generation)?;
    Ok(())
}
