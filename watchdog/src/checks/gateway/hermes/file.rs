//! A small text file of somebody else's: bounded, and never a device or a pipe that would block the reader.
//!
//! It opens for reading only and takes no locks.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::OFlags;

/// The longest that is read. `gateway_state.json` with twenty platforms is under 8 KiB.
const BYTES: u64 = 64 * 1024;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its first 64 KiB.
    pub text: String,
    /// When it was last changed.
    pub modified: Timestamp,
}

/// A file or directory that is there and cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {}: {detail}", path.display())]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub detail: String,
}

/// The file at `path`; none: there is none (or something that is no file).
pub fn read(path: &Path) -> Result<Option<File>, Unreadable> {
    let broken = |error: std::io::Error| Unreadable {
        path: path.to_owned(),
        detail: error.to_string(),
    };
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(broken(error)),
    };
    let meta = file.metadata().map_err(broken)?;
    if !meta.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(BYTES).read_to_end(&mut bytes).map_err(broken)?;
    Ok(Some(File {
        text: String::from_utf8_lossy(&bytes).into_owned(),
        modified: meta
            .modified()
            .ok()
            .and_then(|at| Timestamp::try_from(at).ok())
            .unwrap_or_default(),
    }))
}

/// Whether `path` is a directory that can be looked into.
pub fn must_be_dir(path: &Path) -> Result<(), Unreadable> {
    std::fs::read_dir(path).map(drop).map_err(|error| Unreadable {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_and_pipes_do_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert_eq!(read(&path), Ok(None));
        std::fs::write(&path, vec![b'a'; 200_000]).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().text.len() as u64, BYTES);
        assert_eq!(read(&path.join("below")), Ok(None));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(read(&pipe), Ok(None));
        let missing = must_be_dir(&dir.path().join("no")).unwrap_err().to_string();
        assert!(missing.contains("/no: No such file"), "{missing}");
    }
}
