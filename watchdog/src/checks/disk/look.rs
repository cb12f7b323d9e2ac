//! The disk check's eyes: statvfs on a thread with a deadline for each listed path, and the kernel's mount table.
//!
//! It judges nothing but why a path could not be looked at.

use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use protocol::report::Status;
use protocol::why::KnownWhy;
use rustix::io::Errno;

use super::mounts::{self, Mount, Wanted};
use super::space::{Problem, Usage};
use crate::checks::deadline::{Overrun, in_thread};
use crate::checks::span_text;

/// A mount table is read up to here: 10,000 mounts of a container host take about 2 MiB.
const TABLE_BYTES: u64 = 8 * 1024 * 1024;

/// What a look at one path gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Look {
    /// Its numbers.
    Seen {
        /// The path without symlinks.
        real: PathBuf,
        /// Its file system's numbers.
        usage: Usage,
    },
    /// Nothing of that name.
    Absent,
    /// None, and why.
    Unseen(Problem),
}

/// The kernel's mount table, and fstab.
#[derive(Debug, Default)]
pub struct Tables {
    /// Empty when it could not be read.
    pub mounts: Vec<Mount>,
    /// Why it could not be read.
    pub error: Option<String>,
    /// Empty when there is none.
    pub fstab: Vec<Wanted>,
}

impl Tables {
    /// Reads both under `root`.
    pub fn read(root: &Path) -> Self {
        let fstab = read_bounded(&root.join("etc/fstab"))
            .map(|text| mounts::parse_fstab(&text))
            .unwrap_or_default();
        match read_bounded(&root.join("proc/self/mountinfo")) {
            Ok(text) => Self {
                mounts: mounts::parse_mountinfo(&text),
                error: None,
                fstab,
            },
            Err(e) => Self {
                mounts: Vec::new(),
                error: Some(format!("cannot read /proc/self/mountinfo: {e}")),
                fstab,
            },
        }
    }
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::fs::File::open(path)?
        .take(TABLE_BYTES)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// Looks at all `paths` at once, each within `deadline`; and at `also`, as far as they exist.
pub async fn at_all<'a>(
    paths: &'a [PathBuf],
    also: &'a [PathBuf],
    root: &Path,
    deadline: Duration,
) -> Vec<(&'a Path, Look)> {
    let mounts = Arc::new(Tables::read(root).mounts);
    let all = paths.iter().chain(also).map(|path| {
        let mounts = Arc::clone(&mounts);
        async move {
            let asked = path.clone();
            let answer = in_thread(deadline, move |_| at(&asked, &mounts)).await;
            (
                path.as_path(),
                answer.unwrap_or_else(|overrun| Look::Unseen(not_in_time(&overrun))),
            )
        }
    });
    let mut looks = join_all(all).await;
    let mut listed = paths.len();
    looks.retain(|(_, look)| {
        let by_name = listed > 0;
        listed = listed.saturating_sub(1);
        by_name || *look != Look::Absent
    });
    looks
}

fn not_in_time(overrun: &Overrun) -> Problem {
    match overrun {
        Overrun::Late(limit) => {
            let text = format!(
                "did not answer within {} (its server or FUSE process hangs?)",
                span_text(*limit)
            );
            Problem::new(Status::Unknown, KnownWhy::CheckTimedOut, text)
        }
        Overrun::Lost | Overrun::NoThread(_) => Problem::new(
            Status::Unknown,
            KnownWhy::CheckError,
            format!("could not be looked at: {overrun}"),
        ),
    }
}

/// Blocks for as long as the file system wishes.
fn at(path: &Path, mounts: &[Mount]) -> Look {
    let real = std::fs::canonicalize(path);
    let answer = real.and_then(|real| {
        let usage = Usage::from_statvfs(&rustix::fs::statvfs(&real)?);
        Ok((real, usage))
    });
    match answer {
        Ok((real, usage)) => Look::Seen { real, usage },
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Look::Absent,
        // Below a directory that is closed to the watchdog. The mount's own root usually is not.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => {
            let point = mounts::holding(mounts, path).map(|m| &m.point);
            match point.and_then(|point| rustix::fs::statvfs(point).ok()) {
                Some(numbers) => Look::Seen {
                    real: path.to_owned(),
                    usage: Usage::from_statvfs(&numbers),
                },
                None => Look::Unseen(refused(&e)),
            }
        }
        Err(e) => Look::Unseen(refused(&e)),
    }
}

fn refused(e: &io::Error) -> Problem {
    // A FUSE process or an NFS export that is gone leaves a mount behind that answers so.
    let dead = [Errno::NOTCONN, Errno::STALE, Errno::HOSTDOWN, Errno::NODEV].map(|e| Some(e.raw_os_error()));
    if dead.contains(&e.raw_os_error()) {
        let text = format!("is not mounted any more ({e}): unmount it (`umount -l`) and mount it again");
        return Problem::new(Status::Failing, KnownWhy::NotMounted, text);
    }
    match e.kind() {
        ErrorKind::PermissionDenied => Problem::new(
            Status::Unknown,
            KnownWhy::CheckError,
            "cannot be looked at: permission denied; list its mount point instead, or let the watchdog's user through",
        ),
        _ => Problem::new(
            Status::Unknown,
            KnownWhy::CheckError,
            format!("cannot be looked at: {e}"),
        ),
    }
}
