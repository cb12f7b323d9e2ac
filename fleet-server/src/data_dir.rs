//! The data directory: private, and of one server alone; and the first operator's token in it.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use protocol::limits;
use protocol::secret::Secret;
use rustix::fs::{FlockOperation, flock};

/// The file that a running server holds locked.
const LOCK_FILE: &str = "lock";
/// The first operator's token; whoever can read it may do everything.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// The directory, locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why it cannot be used. The text names the file and the fix.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another server runs on it.
    #[error("data_dir {}: another fleet-server{} runs on it; stop that one, or give this one its own data_dir", .path.display(), .holder)]
    Taken {
        /// The directory.
        path: PathBuf,
        /// " (pid 17)", if known.
        holder: String,
    },
    /// A file of it.
    #[error("{}: {doing}; the directory must belong to the server's user", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The token's file holds something else.
    #[error("{}: is no token; remove it, and a new one is written at the next start", .path.display())]
    NoToken {
        /// The file.
        path: PathBuf,
    },
}

impl DataDir {
    /// Makes it if it is missing, closes it to others, and locks it.
    pub fn open(path: &Path) -> Result<Self, DataDirError> {
        let io = |doing| {
            move |source| DataDirError::Io {
                path: path.to_owned(),
                doing,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(io("cannot be made"))?;
        let mode = fs::metadata(path)
            .map_err(io("cannot be read"))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(path, Permissions::from_mode(0o700))
                .map_err(io("cannot be closed to others"))?;
        }
        let lock = lock(path)?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token in `admin.token`, if that file is there.
    pub fn admin_token(&self) -> Result<Option<Secret>, DataDirError> {
        let path = self.path.join(ADMIN_TOKEN_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(err) if err.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::NoToken { path });
            }
            Err(source) => {
                return Err(DataDirError::Io {
                    path,
                    doing: "cannot be read",
                    source,
                });
            }
        };
        let token = Secret::new(&text);
        let good = token.expose().len() >= 32 && token.expose().len() <= limits::TOKEN_BYTES;
        if good {
            Ok(Some(token))
        } else {
            Err(DataDirError::NoToken { path })
        }
    }

    /// Writes `admin.token`, readable by the server's user alone; it is on the disk when this returns.
    pub fn write_admin_token(&self, token: &Secret) -> Result<PathBuf, DataDirError> {
        let path = self.path.join(ADMIN_TOKEN_FILE);
        let write = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            writeln!(file, "{}", token.expose())?;
            file.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(path),
            Err(source) => Err(DataDirError::Io {
                path,
                doing: "cannot be written",
                source,
            }),
        }
    }
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK_FILE);
    let io = |doing| {
        let path = path.clone();
        move |source| DataDirError::Io { path, doing, source }
    };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(io("cannot be opened"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            let holder = pid
                .trim()
                .parse::<u32>()
                .map_or_else(|_| String::new(), |pid| format!(" (pid {pid})"));
            return Err(DataDirError::Taken {
                path: dir.to_owned(),
                holder,
            });
        }
        Err(err) => return Err(io("cannot be locked")(err.into())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io("cannot be written"))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_server_a_directory_and_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let second = DataDir::open(&path).unwrap_err().to_string();
        assert!(
            second.contains(&format!("pid {}", std::process::id())),
            "{second}"
        );
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn the_admin_token_is_private_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert!(data.admin_token().unwrap().is_none());
        let token = Secret::new("fwo_0123456789abcdef0123456789abcdef");
        let path = data.write_admin_token(&token).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(data.admin_token().unwrap(), Some(token));
        fs::write(&path, "x\n").unwrap();
        let err = data.admin_token().unwrap_err().to_string();
        assert!(err.contains("admin.token") && err.contains("remove it"), "{err}");
    }
}
