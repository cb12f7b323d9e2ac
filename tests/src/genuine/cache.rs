//! Things that take minutes to build or download are made once and kept in the cache directory.
//!
//! A thing's directory carries a hash of all it was made from, so a change makes a new one. Old ones are not removed:
//! deleting the cache directory is always safe.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::programs;

/// The directory of the thing `kind` made from `ingredients`; `make` fills an empty one if it is not there yet.
///
/// It is published by a rename, so an interrupted build leaves nothing that looks finished.
pub fn once(kind: &str, ingredients: &[&[u8]], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = programs::cache_dir();
    let finished = cache.join(format!("{kind}-{}", key(ingredients)));
    if finished.is_dir() {
        return Ok(finished);
    }
    let making = cache.join(format!(".{kind}-making-{}", std::process::id()));
    let _ = fs::remove_dir_all(&making);
    fs::create_dir_all(&making).with_context(|| format!("cannot make {}", making.display()))?;
    let made = make(&making).and_then(|()| publish(&making, &finished));
    if made.is_err() {
        let _ = fs::remove_dir_all(&making);
    }
    made.map(|()| finished)
}

/// Another run may have been quicker; then its result is as good.
fn publish(making: &Path, finished: &Path) -> Result<()> {
    match fs::rename(making, finished) {
        Err(_) if finished.is_dir() => Ok(fs::remove_dir_all(making)?),
        other => other.with_context(|| format!("cannot rename to {}", finished.display())),
    }
}

fn key(ingredients: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in ingredients {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(6)
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_what_goes_where() {
        assert_ne!(key(&[b"ab", b"c"]), key(&[b"a", b"bc"]));
        assert_eq!(key(&[b"ab"]).len(), 12);
    }
}
