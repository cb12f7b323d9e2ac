//! Reads the box's token, at the moment when something is to be sent with it.
//!
//! Lazily, because checks and remedies need none: a box that is not enrolled yet still mends itself.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::limits;
use protocol::secret::Secret;
use rustix::fs::OFlags;

use crate::settings::ServerSettings;

/// Why there is no token. The message names the file and the fix, never the token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not there.
    #[error(
        "there is no token file {0}; run `fleet-watchdog enroll --server URL --code CODE`, or write the token that `fleetctl box add` printed into it"
    )]
    Missing(PathBuf),
    /// There, but not for us.
    #[error(
        "cannot read the token file {0}: permission denied; `chgrp fleet-watchdog {0} && chmod 0640 {0}` lets the service read it"
    )]
    Denied(PathBuf),
    /// Another I/O error.
    #[error("cannot read the token file {0}")]
    Io(PathBuf, #[source] std::io::Error),
    /// Nothing in it, or not one word.
    #[error(
        "the token file {0} {1}; it must hold the token that `fleetctl box add` printed, and nothing else"
    )]
    Content(PathBuf, &'static str),
}

/// The token in `server.token_file`.
pub fn read_token(server: &ServerSettings) -> Result<Secret, TokenError> {
    read(&server.token_file)
}

fn read(path: &Path) -> Result<Secret, TokenError> {
    let file = open_text(path).map_err(|err| match err.kind() {
        ErrorKind::NotFound => TokenError::Missing(path.to_owned()),
        ErrorKind::PermissionDenied => TokenError::Denied(path.to_owned()),
        _ => TokenError::Io(path.to_owned(), err),
    })?;
    let mut text = String::new();
    let limit = limits::TOKEN_BYTES as u64 + 64;
    match file.take(limit).read_to_string(&mut text) {
        Ok(_) => {}
        Err(err) if err.kind() == ErrorKind::InvalidData => return Err(content(path, "is not text")),
        Err(err) => return Err(TokenError::Io(path.to_owned(), err)),
    }
    let token = Secret::new(&text);
    if token.is_empty() {
        return Err(content(path, "is empty"));
    }
    if token.expose().len() > limits::TOKEN_BYTES {
        return Err(content(path, "is longer than a token"));
    }
    // A token goes into a header: one word of visible ASCII.
    if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        return Err(content(path, "holds more than one word"));
    }
    Ok(token)
}

/// Not a pipe, which would hold the reader for ever. Links are followed: that is how some tools hand out secrets.
fn open_text(path: &Path) -> std::io::Result<std::fs::File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(std::io::Error::other("it is no ordinary file"))
    }
}

fn content(path: &Path, what: &'static str) -> TokenError {
    TokenError::Content(path.to_owned(), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let missing = read(&path).unwrap_err().to_string();
        assert!(missing.contains("enroll"), "{missing}");
        std::fs::write(&path, "fw_abc123\n").unwrap();
        assert_eq!(read(&path).unwrap().expose(), "fw_abc123");
        for bad in [&b""[..], b"\n", b"two words", b"\xff\xfe", &[b'x'; 500]] {
            std::fs::write(&path, bad).unwrap();
            let err = read(&path).unwrap_err().to_string();
            assert!(err.contains("token file") && !err.contains("two words"), "{err}");
        }
    }
}
