//! The files between the resident part and the check run: reads `report.json` and `pause.json` when they changed,
//! writes `stops.json`.
//!
//! A disk that hangs must not hold back a beat: only a `stat` (of what the kernel has at hand) is done in the loop,
//! reading and writing go to a thread, one at a time, and whatever does not come back is simply missing.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use protocol::heartbeat::Paused;
use protocol::limits;
use protocol::report::Report;
use tokio::sync::mpsc;

use super::units::OperatorStop;
use crate::state_dir::{PAUSE_FILE, REPORT_FILE, STOPS_FILE, StateDir, StateDirError, open_plain};

/// Bytes of `pause.json` and `stops.json` that are read.
const SMALL_BYTES: u64 = 16 * 1024;
/// Bytes of `report.json` that are read; what is longer could not be sent.
const REPORT_BYTES: u64 = limits::HEARTBEAT_BODY_BYTES as u64;

/// What a thread brought.
#[derive(Debug)]
pub enum Brought {
    /// `report.json`; none: not there.
    Report(Result<Option<Box<Report>>, FileError>),
    /// `pause.json`; none: not there.
    Paused(Result<Option<Paused>, FileError>),
    /// `stops.json` was written, or not.
    StopsWritten(Result<(), FileError>),
}

/// A file that is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not to be read.
    #[error("cannot read {path}: {source}; it must be readable for the user that this runs as", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not to be written.
    #[error(transparent)]
    Write(#[from] StateDirError),
    /// Not what it should hold.
    #[error("{path} is not what the watchdog writes ({detail}); remove it, the next run writes it anew", path = path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// A file and when it last changed.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    /// Read instead of `path` while it is there.
    spare: Option<PathBuf>,
    stamp: Option<Stamp>,
    reading: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, i64, i64, u64);

/// Watches the state directory.
#[derive(Debug)]
pub struct Files {
    report: Watched,
    pause: Watched,
    dir: StateDir,
    unwritten: Option<Vec<OperatorStop>>,
    writing: bool,
    bring: mpsc::Sender<Brought>,
}

impl Files {
    /// In `state_dir` (a report in `spare_dir` is a newer one, which the state directory did not take); what threads
    /// read comes through `bring`, which has room for three.
    pub fn new(state_dir: &Path, spare_dir: Option<&Path>, bring: mpsc::Sender<Brought>) -> Self {
        let watched = |name| Watched {
            path: state_dir.join(name),
            spare: None,
            stamp: None,
            reading: false,
        };
        Self {
            report: Watched {
                spare: spare_dir.map(|dir| dir.join(REPORT_FILE)),
                ..watched(REPORT_FILE)
            },
            pause: watched(PAUSE_FILE),
            dir: StateDir::new(state_dir),
            unwritten: None,
            writing: false,
            bring,
        }
    }

    /// Looks whether anything changed, and has it read.
    pub fn look(&mut self) {
        self.report
            .look(&self.bring, |path| Brought::Report(read(path, REPORT_BYTES)));
        self.pause
            .look(&self.bring, |path| Brought::Paused(read(path, SMALL_BYTES)));
    }

    /// To be called with everything that was brought.
    pub fn brought(&mut self, what: &Brought) {
        match what {
            Brought::Report(_) => self.report.reading = false,
            Brought::Paused(_) => self.pause.reading = false,
            Brought::StopsWritten(_) => {
                self.writing = false;
                self.write_next();
            }
        }
    }

    /// Has `stops` written; the newest wins.
    pub fn write_stops(&mut self, stops: Vec<OperatorStop>) {
        self.unwritten = Some(stops);
        self.write_next();
    }

    fn write_next(&mut self) {
        if self.writing {
            return;
        }
        let Some(stops) = self.unwritten.take() else {
            return;
        };
        self.writing = true;
        let (dir, bring) = (self.dir.clone(), self.bring.clone());
        tokio::task::spawn_blocking(move || {
            let _ = bring.blocking_send(Brought::StopsWritten(write_stops(&dir, &stops)));
        });
    }
}

/// The stops that an earlier process left; a file that cannot be read counts as none.
pub fn read_stops(state_dir: &Path) -> Result<Vec<OperatorStop>, FileError> {
    read(&state_dir.join(STOPS_FILE), SMALL_BYTES).map(Option::unwrap_or_default)
}

impl Watched {
    fn look(&mut self, bring: &mpsc::Sender<Brought>, get: impl FnOnce(&Path) -> Brought + Send + 'static) {
        if self.reading {
            return;
        }
        let spare = self.spare.as_ref();
        let spare = spare.and_then(|path| Some((path, fs::metadata(path).ok()?)));
        let (path, found) = match spare {
            Some((path, found)) => (path, Some(found)),
            None => (&self.path, fs::metadata(&self.path).ok()),
        };
        let stamp = found.map(|m| Stamp(m.ino(), m.mtime(), m.mtime_nsec(), m.len()));
        if stamp == self.stamp {
            return;
        }
        self.stamp = stamp;
        self.reading = true;
        let (path, bring) = (path.clone(), bring.clone());
        tokio::task::spawn_blocking(move || {
            let _ = bring.blocking_send(get(&path));
        });
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path, limit: u64) -> Result<Option<T>, FileError> {
    let io = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let corrupt = |detail: String| FileError::Corrupt {
        path: path.to_owned(),
        detail,
    };
    let file = match open_plain(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > limit {
        return Err(corrupt(format!("longer than {limit} bytes")));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| corrupt(error.to_string()))
}

fn write_stops(dir: &StateDir, stops: &[OperatorStop]) -> Result<(), FileError> {
    // Units and times always encode.
    let json = serde_json::to_vec(stops).unwrap_or_else(|_| b"[]".to_vec());
    Ok(dir.write(STOPS_FILE, &json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn bring(files: &mut Files, brought: &mut mpsc::Receiver<Brought>) -> Brought {
        let what = brought.recv().await.unwrap();
        files.brought(&what);
        what
    }

    #[tokio::test]
    async fn a_changed_report_is_read_once_and_a_corrupt_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (send, mut brought) = mpsc::channel(3);
        let mut files = Files::new(dir.path(), None, send);
        files.look();
        assert!(brought.try_recv().is_err(), "no file is no news");

        let report = crate::beat::body::tests::report();
        let path = dir.path().join("report.json");
        fs::write(&path, serde_json::to_vec(&report).unwrap()).unwrap();
        files.look();
        files.look();
        match bring(&mut files, &mut brought).await {
            Brought::Report(Ok(Some(read))) => assert_eq!(read, report),
            other => panic!("{other:?}"),
        }
        files.look();
        assert!(brought.try_recv().is_err());

        fs::write(&path, "{\"id\":").unwrap();
        files.look();
        match bring(&mut files, &mut brought).await {
            Brought::Report(Err(error)) => assert!(error.to_string().contains("report.json"), "{error}"),
            other => panic!("{other:?}"),
        }
        fs::remove_file(&path).unwrap();
        fs::write(
            dir.path().join("pause.json"),
            r#"{"until":"2026-11-21T20:00:00Z","reason":"x"}"#,
        )
        .unwrap();
        files.look();
        let mut both = [
            bring(&mut files, &mut brought).await,
            bring(&mut files, &mut brought).await,
        ];
        both.sort_by_key(|what| matches!(what, Brought::Paused(_)));
        assert!(
            matches!(both, [Brought::Report(Ok(None)), Brought::Paused(Ok(Some(_)))]),
            "{both:?}"
        );
    }

    #[tokio::test]
    async fn a_spare_report_is_the_newest_and_a_pipe_holds_nobody() {
        let (dir, spare) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (send, mut brought) = mpsc::channel(3);
        let mut files = Files::new(dir.path(), Some(spare.path()), send);
        let path = dir.path().join("report.json");
        let fifo = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, 0o600.into(), 0).unwrap();
        files.look();
        match bring(&mut files, &mut brought).await {
            Brought::Report(Err(error)) => assert!(error.to_string().contains("ordinary"), "{error}"),
            other => panic!("{other:?}"),
        }
        let report = crate::beat::body::tests::report();
        let newest = spare.path().join("report.json");
        fs::write(&newest, serde_json::to_vec(&report).unwrap()).unwrap();
        files.look();
        assert!(
            matches!(bring(&mut files, &mut brought).await, Brought::Report(Ok(Some(read))) if read == report)
        );
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"{}").unwrap();
        fs::remove_file(&newest).unwrap();
        files.look();
        let again = bring(&mut files, &mut brought).await;
        assert!(
            matches!(again, Brought::Report(Err(_))),
            "the usual place counts again: {again:?}"
        );
    }

    #[tokio::test]
    async fn stops_come_back_as_written_and_the_newest_wins() {
        let dir = tempfile::tempdir().unwrap();
        let (send, mut brought) = mpsc::channel(3);
        let mut files = Files::new(dir.path(), None, send);
        assert_eq!(read_stops(dir.path()).unwrap(), []);
        let stop = OperatorStop {
            unit: "gateway.service".parse().unwrap(),
            at: "2026-11-21T20:00:00Z".parse().unwrap(),
            boot_id: uuid::Uuid::from_u128(1),
        };
        files.write_stops(vec![stop.clone()]);
        files.write_stops(vec![]);
        files.write_stops(vec![stop.clone()]);
        for _ in 0..2 {
            let what = bring(&mut files, &mut brought).await;
            assert!(matches!(what, Brought::StopsWritten(Ok(()))), "{what:?}");
        }
        assert_eq!(read_stops(dir.path()).unwrap(), [stop]);
        fs::write(dir.path().join("stops.json"), "x".repeat(20_000)).unwrap();
        assert!(read_stops(dir.path()).is_err());
    }
}
