//! Room on the disk for the moment when there is none: a full disk must not keep a page from going out.
//!
//! A file of zeros beside the database. When what was decided cannot be written because the disk is full, the file goes,
//! and the next attempt has its room. It comes again when there is plenty. Room, not more: who fills the disk on gets that
//! as well.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// Its name in the data directory.
pub(super) const FILE: &str = "reserve";
/// Some thousand incidents with their notifications, and the journal's own growth.
const BYTES: u64 = 8 * 1024 * 1024;
/// So many times its size must be free before it is made: it is there to help with a full disk, not to fill one.
const FREE_TIMES: u64 = 4;

/// The file.
#[derive(Debug)]
pub(super) struct Reserve(PathBuf);

impl Reserve {
    /// In this data directory; nothing is made yet.
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Makes it, if it is missing and there is plenty of room.
    pub(super) fn keep(&self) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|meta| meta.len() >= BYTES) {
            return Ok(());
        }
        let dir = self.0.parent().unwrap_or(Path::new("."));
        let disk = statvfs(dir)?;
        if disk.f_bavail.saturating_mul(disk.f_frsize) < BYTES * FREE_TIMES {
            return Ok(());
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&self.0)?;
        fallocate(&file, FallocateFlags::empty(), 0, BYTES)?;
        Ok(())
    }

    /// Gives its room up; whether there was any.
    pub(super) fn give_up(&self) -> bool {
        fs::remove_file(&self.0).is_ok()
    }
}
