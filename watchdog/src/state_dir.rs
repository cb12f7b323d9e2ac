//! The state directory: small files read with a bound and replaced whole, so that a reader, a crash or a full disk
//! never meets half of one.
//!
//! It knows names and bytes, not what stands in a file. Its calls block: a shell puts them on a thread with a deadline.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

/// What `fleet-watchdog check` keeps from run to run.
pub const STATE_FILE: &str = "state.json";
/// The newest report: the run writes it, the resident part sends it.
pub const REPORT_FILE: &str = "report.json";
/// `fleet-watchdog pause` writes it.
pub const PAUSE_FILE: &str = "pause.json";
/// Stops that the resident part saw.
pub const STOPS_FILE: &str = "stops.json";
/// Held by the run of checks.
pub const LOCK_FILE: &str = "check.lock";
/// Evidence saved before restarts.
pub const EVIDENCE_DIR: &str = "evidence";

/// Bytes of a file that is read back: fifty times what a full state takes.
pub const FILE_BYTES: u64 = 4 * 1024 * 1024;
/// Files set aside that are kept, the newest ones.
const SET_ASIDE_KEPT: usize = 5;
/// For the service's user and its group.
const MODE: u32 = 0o640;

/// The directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// What could not be done, with the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Not ours to read or write.
    #[error(
        "cannot {verb} {path}: permission denied; run as root (sudo) or as the service's user (fleet-watchdog)"
    )]
    Denied {
        /// `read`, `write`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// No room.
    #[error("cannot {verb} {path}: the disk is full; free some space")]
    Full {
        /// `write`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Over [`FILE_BYTES`].
    #[error("{0} is over {FILE_BYTES} bytes long, which none of ours is")]
    TooLong(PathBuf),
    /// A link, a pipe, a directory: none of ours is.
    #[error("{0} is no ordinary file, which all of ours are; remove it")]
    NotPlain(PathBuf),
    /// Anything else.
    #[error("cannot {verb} {path}: {source}")]
    Io {
        /// `read`, `write`, …
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl StateDirError {
    fn new(verb: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<NotPlain>())
            .is_some()
        {
            return Self::NotPlain(path);
        }
        match source.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                if source.raw_os_error() == Some(13) =>
            {
                Self::Denied { verb, path }
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full { verb, path },
            _ => Self::Io { verb, path, source },
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it is no ordinary file")]
struct NotPlain;

/// Opens a file of ours to read. A link is not followed and a pipe not waited for: the directory is the service's, and
/// root reads in it too.
pub fn open_plain(path: &Path) -> io::Result<File> {
    plain(OpenOptions::new().read(true), path)
}

fn plain(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = options
        .custom_flags(flags.bits().cast_signed())
        .open(path)
        .map_err(|err| {
            let no_file = [Errno::LOOP, Errno::NXIO, Errno::ISDIR].map(Errno::raw_os_error);
            if err.raw_os_error().is_some_and(|code| no_file.contains(&code)) {
                io::Error::other(NotPlain)
            } else {
                err
            }
        })?;
    let meta = file.metadata()?;
    // A second name could be that of a file of somebody else's.
    if meta.is_file() && meta.nlink() <= 1 {
        Ok(file)
    } else {
        Err(io::Error::other(NotPlain))
    }
}

/// The lock of the run of checks; let go when dropped, or when the process ends however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl StateDir {
    /// The directory at `path`; nothing is looked at yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The content of `name`; none: there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateDirError> {
        let path = self.path.join(name);
        let error = |source| StateDirError::new("read", &path, source);
        let file = match open_plain(&path) {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(error(err)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES + 1).read_to_end(&mut bytes).map_err(error)?;
        if bytes.len() as u64 > FILE_BYTES {
            return Err(StateDirError::TooLong(path));
        }
        Ok(Some(bytes))
    }

    /// Replaces `name` by `bytes`: written beside it, synced, renamed, and the directory synced.
    ///
    /// Written by root (an operator's `sudo fleet-watchdog …`), the file goes to the directory's owner: else the
    /// service could not read what root left.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateDirError> {
        self.create()?;
        let path = self.path.join(name);
        let fresh = self.path.join(format!(".{name}.new-{}", std::process::id()));
        let error = |source| StateDirError::new("write", &path, source);
        let written = write_synced(&fresh, bytes, &self.path).and_then(|()| std::fs::rename(&fresh, &path));
        if let Err(err) = written {
            // Best effort: what was written may be the very thing that fills the disk.
            let _ = std::fs::remove_file(&fresh);
            return Err(error(err));
        }
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(error)
    }

    /// Removes `name`; whether it was there.
    pub fn remove(&self, name: &str) -> Result<bool, StateDirError> {
        let path = self.path.join(name);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            Err(err) => Err(StateDirError::new("remove", &path, err)),
        }
    }

    /// Renames `name` to `name.corrupt-<time>` and keeps the newest few of those; gives the new name.
    pub fn set_aside(&self, name: &str, now: Timestamp) -> Result<String, StateDirError> {
        let (from, aside) = (self.path.join(name), aside_name(name, now));
        std::fs::rename(&from, self.path.join(&aside))
            .map_err(|err| StateDirError::new("set aside", &from, err))?;
        let mut old = self.names(&format!("{name}.corrupt-"));
        old.sort();
        for stale in old.iter().rev().skip(SET_ASIDE_KEPT) {
            // What cannot be removed now is tried again the next time.
            let _ = std::fs::remove_file(self.path.join(stale));
        }
        Ok(aside)
    }

    /// Takes the lock of the run of checks; none: another process holds it.
    pub fn try_lock(&self) -> Result<Option<Lock>, StateDirError> {
        self.create()?;
        let path = self.path.join(LOCK_FILE);
        let error = |source| StateDirError::new("lock", &path, source);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(MODE);
        let file = plain(&mut options, &path).map_err(error)?;
        give_to_owner(&file, &self.path).map_err(error)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(err) => Err(error(err.into())),
        }
    }

    /// Removes what a crash in the middle of [`Self::write`] left. Call it under the lock.
    pub fn sweep(&self) {
        for name in self.names(".") {
            let pid = name
                .rsplit_once(".new-")
                .and_then(|(_, pid)| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                let _ = std::fs::remove_file(self.path.join(&name));
            }
        }
    }

    fn create(&self) -> Result<(), StateDirError> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o750).create(&self.path);
        made.map_err(|err| StateDirError::new("create", &self.path, err))
    }

    /// The first few hundred names that start with `start`.
    fn names(&self, start: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.path) else {
            return Vec::new();
        };
        let names = entries
            .take(1000)
            .filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(start)).collect()
    }
}

fn aside_name(name: &str, now: Timestamp) -> String {
    format!("{name}.corrupt-{}", now.strftime("%Y%m%dT%H%M%S%.3fZ"))
}

fn write_synced(path: &Path, bytes: &[u8], dir: &Path) -> io::Result<()> {
    // What a crash left under this name; and never through a link that somebody put there.
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != ErrorKind::NotFound => return Err(err),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(MODE).open(path)?;
    // The umask may have taken away what the group needs.
    file.set_permissions(std::fs::Permissions::from_mode(MODE))?;
    give_to_owner(&file, dir)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// As root, hands `file` to the owner of `dir`.
pub(crate) fn give_to_owner(file: &File, dir: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(dir)?;
    std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, StateDir) {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path().join("state"));
        (temp, dir)
    }

    #[test]
    fn a_file_is_replaced_whole_and_belongs_to_the_directorys_owner() {
        let (_temp, dir) = dir();
        assert!(dir.read(STATE_FILE).unwrap().is_none());
        dir.write(STATE_FILE, b"one").unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(dir.path(), Some(4711), Some(4712)).unwrap();
        }
        dir.write(STATE_FILE, b"two").unwrap();
        assert_eq!(dir.read(STATE_FILE).unwrap().unwrap(), b"two");
        let (file, owner) = (
            std::fs::metadata(dir.path().join(STATE_FILE)).unwrap(),
            std::fs::metadata(dir.path()).unwrap(),
        );
        assert_eq!(
            (file.uid(), file.gid(), file.mode() & 0o777),
            (owner.uid(), owner.gid(), 0o640)
        );
        assert_eq!(dir.names("").len(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let (_temp, dir) = dir();
        dir.write(STATE_FILE, b"old").unwrap();
        // A directory in the place of the fresh file: the write cannot succeed, not even for root.
        let fresh = dir
            .path()
            .join(format!(".{STATE_FILE}.new-{}", std::process::id()));
        std::fs::create_dir(&fresh).unwrap();
        let err = dir.write(STATE_FILE, b"new").unwrap_err().to_string();
        assert!(err.contains("cannot write") && err.contains(STATE_FILE), "{err}");
        assert_eq!(dir.read(STATE_FILE).unwrap().unwrap(), b"old");
    }

    #[test]
    fn what_is_set_aside_is_kept_to_a_bounded_number() {
        let (_temp, dir) = dir();
        for second in 0..9 {
            dir.write(STATE_FILE, b"{").unwrap();
            dir.set_aside(
                STATE_FILE,
                Timestamp::from_second(1_800_000_000 + second).unwrap(),
            )
            .unwrap();
        }
        let mut kept = dir.names("state.json.corrupt-");
        kept.sort();
        assert_eq!(kept.len(), SET_ASIDE_KEPT, "{kept:?}");
        assert!(kept[4].ends_with("T080008.000Z"), "the newest is kept: {kept:?}");
    }

    #[test]
    fn two_runs_never_hold_the_lock() {
        let (_temp, dir) = dir();
        let held = dir.try_lock().unwrap();
        assert!(held.is_some() && dir.try_lock().unwrap().is_none());
        drop(held);
        assert!(dir.try_lock().unwrap().is_some());
    }

    #[test]
    fn what_a_crash_left_is_swept_and_a_living_writers_file_is_not() {
        let (_temp, dir) = dir();
        dir.write(STATE_FILE, b"x").unwrap();
        let (dead, living) = (
            ".state.json.new-4194305",
            format!(".pause.json.new-{}", std::process::id()),
        );
        for name in [dead, &living] {
            std::fs::write(dir.path().join(name), b"half").unwrap();
        }
        dir.sweep();
        let mut left = dir.names("");
        left.sort();
        assert_eq!(left, [living.as_str(), STATE_FILE]);
    }

    #[test]
    fn what_is_no_ordinary_file_is_neither_waited_for_nor_followed() {
        let (temp, dir) = dir();
        dir.write(STATE_FILE, b"x").unwrap();
        let theirs = temp.path().join("theirs");
        std::fs::write(&theirs, b"precious").unwrap();
        let path = |name: &str| dir.path().join(name);
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, path(PAUSE_FILE), fifo, 0o600.into(), 0).unwrap();
        std::os::unix::fs::symlink(&theirs, path(REPORT_FILE)).unwrap();
        std::os::unix::fs::symlink(&theirs, path(LOCK_FILE)).unwrap();
        std::fs::create_dir(path(STOPS_FILE)).unwrap();
        for name in [PAUSE_FILE, REPORT_FILE, STOPS_FILE] {
            let err = dir.read(name).unwrap_err();
            assert!(matches!(err, StateDirError::NotPlain(_)), "{err}");
        }
        assert!(matches!(dir.try_lock().unwrap_err(), StateDirError::NotPlain(_)));
        // A link in the place of the file that is about to be written, as an attacker would put it there.
        let fresh = path(&format!(".{REPORT_FILE}.new-{}", std::process::id()));
        std::os::unix::fs::symlink(&theirs, &fresh).unwrap();
        dir.write(REPORT_FILE, b"ours").unwrap();
        assert_eq!(dir.read(REPORT_FILE).unwrap().unwrap(), b"ours");
        assert_eq!(std::fs::read(&theirs).unwrap(), b"precious");
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let (_temp, dir) = dir();
        dir.write(STATE_FILE, b"x").unwrap();
        File::options()
            .write(true)
            .open(dir.path().join(STATE_FILE))
            .unwrap()
            .set_len(FILE_BYTES + 1)
            .unwrap();
        assert!(matches!(dir.read(STATE_FILE), Err(StateDirError::TooLong(_))));
    }
}
