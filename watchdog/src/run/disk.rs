//! The state directory behind a deadline: a disk that hangs costs the run one deadline, not one a file.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::checks::deadline::in_thread;
use crate::state_dir::{StateDir, StateDirError};

/// How long the state directory may take to be read or written.
pub(super) const DISK_WAIT: Duration = Duration::from_secs(10);

/// The directory, and whether it has hung in this run.
#[derive(Debug)]
pub(super) struct Disk {
    dir: StateDir,
    hung: AtomicBool,
}

impl Disk {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            dir: StateDir::new(path),
            hung: AtomicBool::new(false),
        }
    }

    /// Does `work` with the directory; the error is a sentence.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&StateDir) -> Result<T, StateDirError> + Send + 'static,
    ) -> Result<T, String> {
        let path: PathBuf = self.dir.path().to_owned();
        if self.hung.load(Ordering::Relaxed) {
            return Err(format!("the disk under {} hangs", path.display()));
        }
        let dir = self.dir.clone();
        match in_thread(DISK_WAIT, move |_| work(&dir)).await {
            Ok(done) => done.map_err(|err| err.to_string()),
            Err(err) => {
                self.hung.store(true, Ordering::Relaxed);
                Err(format!("the disk under {} hangs: {err}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_disk_that_hung_once_is_not_waited_for_again() {
        let temp = tempfile::tempdir().unwrap();
        let disk = Disk::new(temp.path());
        disk.hung.store(true, Ordering::Relaxed);
        let began = crate::clock::ticks();
        let err = disk.ask(|dir| dir.read("x")).await.unwrap_err();
        assert!(err.contains("hangs"), "{err}");
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
