//! What is saved before a restart destroys it: the unit's last journal lines, its processes, memory and pressure.
//!
//! The bundle stays on the box (`<state_dir>/evidence/`, 0700/0600, a bounded number); only the redacted, bounded digest
//! leaves it. It decides nothing, and a part that cannot be had is named instead.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::names::UnitName;
use rustix::fs::OFlags;

use crate::checks::Context;
use crate::checks::deadline::in_thread;
use crate::settings::Scope;
use crate::state_dir::{EVIDENCE_DIR, give_to_owner};
use crate::systemd::ServiceManager;

mod digest;
mod gather;

/// Each part has this long; first the unit and its journal side by side, then the rest.
const PART_LIMIT: Duration = Duration::from_secs(3);
/// `20261121T200000Z`, at the head of a bundle's name.
const STAMP_BYTES: usize = 16;
/// Writing them, and clearing old ones away.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// What was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Where; none: nothing could be written, and the digest says why.
    pub dir: Option<PathBuf>,
    /// Redacted, at most `protocol::limits::EVIDENCE_BYTES`.
    pub digest: String,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    name: &'static str,
    text: String,
}

/// Saves evidence about `unit`, keeping the newest `keep` bundles. Takes at most 10 s and never fails.
pub async fn save(
    state_dir: &Path,
    keep: usize,
    unit: &UnitName,
    scope: &Scope,
    ctx: &Context,
    manager: &impl ServiceManager,
) -> Evidence {
    let parts = gather(unit, scope, ctx, manager).await;
    let digest = digest::of(&parts);
    let dir = state_dir.join(EVIDENCE_DIR);
    let name = format!("{}-{unit}", ctx.now.strftime("%Y%m%dT%H%M%SZ"));
    let written = in_thread(WRITE_LIMIT, move |_| write(&dir, &name, &parts, keep.max(1))).await;
    let problem = match written {
        Ok(Ok(dir)) => {
            return Evidence {
                dir: Some(dir),
                digest,
            };
        }
        Ok(Err(error)) => error.to_string(),
        Err(overrun) => overrun.to_string(),
    };
    tracing::warn!(%unit, %problem, "the evidence could not be saved on this box");
    Evidence {
        dir: None,
        digest: digest::bounded(&format!("(not saved on the box: {problem})\n{digest}")),
    }
}

async fn gather(unit: &UnitName, scope: &Scope, ctx: &Context, manager: &impl ServiceManager) -> Vec<Part> {
    let facts = tokio::time::timeout(PART_LIMIT, manager.unit(unit));
    let (facts, journal) = tokio::join!(facts, gather::journal(unit, scope, PART_LIMIT));
    let facts = facts.map_err(|_| "the service manager did not answer".to_owned());
    let facts = facts.and_then(|facts| facts.map_err(|error| error.to_string()));
    let unit_text = match &facts {
        Ok(facts) => serde_json::to_string_pretty(facts).unwrap_or_else(|error| error.to_string()),
        Err(problem) => format!("(not readable: {problem})"),
    };
    let facts = facts.unwrap_or_default();
    let pids = gather::pids(&ctx.root, &facts);
    let (root, of) = (ctx.root.clone(), pids.clone());
    let processes = in_thread(PART_LIMIT, move |gone| gather::processes(&root, &of, gone));
    let root = ctx.root.clone();
    // By itself: reading a hung process' command line can hang, too.
    let commands = in_thread(PART_LIMIT, move |gone| gather::commands(&root, &pids, gone));
    let root = ctx.root.clone();
    let machine = in_thread(PART_LIMIT, move |_| gather::machine(&root));
    let (processes, commands, machine) = tokio::join!(processes, commands, machine);
    let text = |part: Result<String, _>| part.unwrap_or_else(|error| format!("(not readable: {error})"));
    vec![
        Part {
            name: "unit.json",
            text: unit_text,
        },
        Part {
            name: "processes.txt",
            text: text(processes),
        },
        Part {
            name: "commands.txt",
            text: text(commands),
        },
        Part {
            name: "machine.txt",
            text: text(machine),
        },
        Part {
            name: "journal.txt",
            text: journal,
        },
    ]
}

/// Clears away old bundles until there is room for one of `keep`, then writes it: a full disk may so get room, and
/// does not gather halves. Written by root, it belongs to the state directory's owner, who makes the next one.
fn write(dir: &Path, name: &str, parts: &[Part], keep: usize) -> io::Result<PathBuf> {
    let state_dir = dir.parent().unwrap_or(dir);
    make_dir(dir, state_dir)?;
    let bundle = dir.join(name);
    if bundle.symlink_metadata().is_ok() {
        // A second bundle of one second replaces the first.
        std::fs::remove_dir_all(&bundle)?;
    }
    clear(dir, keep - 1)?;
    make_dir(&bundle, state_dir)?;
    for part in parts {
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(bundle.join(part.name))?;
        give_to_owner(&file, state_dir)?;
        io::Write::write_all(&mut file, part.text.as_bytes())?;
    }
    Ok(bundle)
}

/// A directory of ours, and no link to one of somebody else's: root clears it, too.
fn make_dir(dir: &Path, state_dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(dir)?;
    give_to_owner(&opened, state_dir)
}

/// The names sort by time; what is not named like a bundle is somebody's own.
fn clear(dir: &Path, keep: usize) -> io::Result<()> {
    let ours = |name: &std::ffi::OsString| {
        let name = name.as_encoded_bytes();
        name.len() > STAMP_BYTES && name[..8].iter().all(u8::is_ascii_digit) && name[STAMP_BYTES] == b'-'
    };
    let mut names: Vec<_> = std::fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.file_name())
        .filter(ours)
        .collect();
    names.sort_unstable();
    for name in names.iter().rev().skip(keep) {
        std::fs::remove_dir_all(dir.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
