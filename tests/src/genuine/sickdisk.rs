//! A disk that turns read-only under a running program, by a preloaded library; `tests/genuine/sickdisk/sickdisk.c` says
//! what it does and what it does not.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::cache;
use crate::{exec, programs};

/// In the repository.
const SOURCE: &str = "tests/genuine/sickdisk/sickdisk.c";

/// Compiles the library into the cache; gives the file.
pub fn prepare() -> Result<PathBuf> {
    ensure!(exec::installed("cc"), "cc is missing (package gcc)");
    let source = programs::repository().join(SOURCE);
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let dir = cache::once("sickdisk", &[&text], |dir| {
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(dir.join("sickdisk.so"));
        exec::run(cc.arg(&source).arg("-ldl"))?.ok().map(drop)
    })?;
    Ok(fs::canonicalize(dir.join("sickdisk.so"))?)
}
