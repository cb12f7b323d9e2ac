//! Writes the record, without holding back a beat and without wearing out a disk.
//!
//! - In memory (`/run`): a line of fixed length, overwritten in place each second. That is one system call, on a file
//!   that never grows and lies in no disk's cache.
//! - The record itself, by a thread, replaced whole: when something changed (in memory at once, on disk no more often
//!   than [`CHANGE_GAP`]), and on disk every [`DISK_EVERY`] besides: what a power cut leaves is less than a minute old.
//! - A disk that takes nothing, or hangs, is not waited for.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::past::Told;
use super::record::{ALIVE_FILE, RECORD_FILE, Record, alive_line};
use crate::clock::Moment;
use crate::state_dir::StateDir;

/// The disk's copy is written again after this, though nothing changed.
pub const DISK_EVERY: Duration = Duration::from_secs(45);
/// Between two writes to disk for a change.
pub const CHANGE_GAP: Duration = Duration::from_secs(5);
/// For the service's user and its group.
const MODE: u32 = 0o640;

/// Keeps the record.
#[derive(Debug)]
pub struct Keeper {
    disk: StateDir,
    memory: Option<StateDir>,
    alive: Option<File>,
    boot_id: Uuid,
    /// What was written last, as a figure that changes with what matters.
    in_memory: Option<u64>,
    on_disk: Option<u64>,
    disk_at: Duration,
    writing: bool,
    tell: mpsc::Sender<Told>,
}

impl Keeper {
    /// On disk in `state_dir`, in memory in `spare_dir`; threads tell `tell` when they are done.
    pub fn new(state_dir: &Path, spare_dir: Option<&Path>, boot_id: Uuid, tell: mpsc::Sender<Told>) -> Self {
        Self {
            disk: StateDir::new(state_dir),
            memory: spare_dir.map(StateDir::new),
            alive: None,
            boot_id,
            in_memory: None,
            on_disk: None,
            disk_at: Duration::ZERO,
            writing: false,
            tell,
        }
    }

    /// "Alive". To be called about once a second.
    pub fn alive(&mut self, now: Moment) {
        let Some(memory) = &self.memory else { return };
        if self.alive.is_none() {
            let mut options = File::options();
            options.write(true).create(true).truncate(false).mode(MODE);
            // A link is not followed, and a pipe not waited for.
            options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
            self.alive = options.open(memory.path().join(ALIVE_FILE)).ok();
        }
        if let Some(file) = &self.alive {
            // What cannot be noted down is not worth a word each second.
            let _ = file.write_all_at(alive_line(self.boot_id, now.into()).as_bytes(), 0);
        }
    }

    /// Has the record written where it is due. `state` changes with what matters; `urgent`: the machine may go any
    /// moment.
    pub fn keep(&mut self, now: Moment, state: u64, urgent: bool, record: impl FnOnce() -> Record) {
        if self.writing {
            return;
        }
        let changed = self.on_disk != Some(state);
        let since = now.boot.saturating_sub(self.disk_at);
        let first = self.on_disk.is_none();
        let to_disk = since >= DISK_EVERY || (changed && (urgent || first || since >= CHANGE_GAP));
        let to_memory = self.memory.is_some() && (to_disk || self.in_memory != Some(state));
        if !to_disk && !to_memory {
            return;
        }
        // A record of names, numbers and bounded texts always encodes.
        let json = serde_json::to_vec(&record()).unwrap_or_default();
        if to_disk {
            self.on_disk = Some(state);
            self.disk_at = now.boot;
        }
        self.in_memory = Some(state);
        self.writing = true;
        let disk = to_disk.then(|| self.disk.clone());
        let memory = self.memory.clone().filter(|_| to_memory);
        let tell = self.tell.clone();
        tokio::task::spawn_blocking(move || {
            // Memory first: it does not hang.
            let in_memory = memory.map_or(Ok(()), |dir| dir.write(RECORD_FILE, &json));
            let on_disk = disk.map_or(Ok(()), |dir| dir.write(RECORD_FILE, &json));
            let done = in_memory.and(on_disk).map_err(|error| error.to_string());
            let _ = tell.blocking_send(Told::Kept(done));
        });
    }

    /// A thread is at work.
    pub fn is_writing(&self) -> bool {
        self.writing
    }

    /// A thread is done.
    pub fn kept(&mut self) {
        self.writing = false;
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::LINE_BYTES;
    use super::super::record::tests::record;
    use super::*;

    fn at(secs: u64) -> Moment {
        Moment {
            wall: jiff::Timestamp::from_second(1_763_755_200).unwrap() + Duration::from_secs(secs),
            boot: Duration::from_secs(secs),
            monotonic: Duration::from_secs(secs),
        }
    }

    async fn done(keeper: &mut Keeper, told: &mut mpsc::Receiver<Told>) -> Result<(), String> {
        match told.recv().await {
            Some(Told::Kept(done)) => {
                keeper.kept();
                done
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_calm_hour_writes_the_disk_once_in_45_s_and_the_alive_line_in_place() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (tell, mut told) = mpsc::channel(4);
        let mut keeper = Keeper::new(disk.path(), Some(memory.path()), Uuid::from_u128(1), tell);
        let mut writes = 0;
        for secs in 100..3700 {
            keeper.alive(at(secs));
            keeper.keep(at(secs), 7, false, record);
            if keeper.writing {
                writes += 1;
                done(&mut keeper, &mut told).await.unwrap();
            }
        }
        assert_eq!(writes, 3600 / 45);
        let line = std::fs::read_to_string(memory.path().join(ALIVE_FILE)).unwrap();
        assert!(line.len() <= LINE_BYTES && line.lines().count() == 1, "{line}");
        let mut found = Record::parse(&std::fs::read(disk.path().join(RECORD_FILE)).unwrap()).unwrap();
        found.alive_by(&line);
        assert_eq!(found.alive, at(3699).into());
        assert!(memory.path().join(RECORD_FILE).exists());
    }

    #[tokio::test]
    async fn changes_are_in_memory_at_once_and_on_disk_at_a_bounded_pace_but_a_goodbye_at_once() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (tell, mut told) = mpsc::channel(4);
        let mut keeper = Keeper::new(disk.path(), Some(memory.path()), Uuid::from_u128(1), tell);
        let written = |dir: &tempfile::TempDir| {
            let json = std::fs::read(dir.path().join(RECORD_FILE)).ok()?;
            Some(Record::parse(&json)?.alive.boot_ms)
        };
        let as_of = |secs: u64| {
            move || Record {
                alive: at(secs).into(),
                ..record()
            }
        };
        for secs in 100..104 {
            keeper.keep(at(secs), secs, false, as_of(secs));
            done(&mut keeper, &mut told).await.unwrap();
        }
        assert_eq!((written(&memory), written(&disk)), (Some(103_000), Some(100_000)));
        keeper.keep(at(104), 104, true, as_of(104));
        done(&mut keeper, &mut told).await.unwrap();
        assert_eq!(written(&disk), Some(104_000));
    }

    #[tokio::test]
    async fn a_disk_that_takes_nothing_leaves_the_memorys_copy() {
        let memory = tempfile::tempdir().unwrap();
        let (tell, mut told) = mpsc::channel(4);
        let nowhere = Path::new("/proc/nowhere");
        let mut keeper = Keeper::new(nowhere, Some(memory.path()), Uuid::from_u128(1), tell);
        keeper.keep(at(100), 1, false, record);
        let error = done(&mut keeper, &mut told).await.unwrap_err();
        assert!(error.contains("/proc/nowhere"), "{error}");
        assert!(memory.path().join(RECORD_FILE).exists());
    }
}
