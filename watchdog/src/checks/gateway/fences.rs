//! Fences: while one of these holds, nobody else should restart the gateway. Hermes writes them; they are read, and
//! never touched. Each has its own validity, so that one left behind by a crash does not hold for ever.
//!
//! | fence | valid |
//! |---|---|
//! | `.hermes-update-in-progress` | its pid lives, at most 20 min |
//! | `.update-incomplete` in the checkout | at most 1 h: no install takes longer, and the next start finishes it |
//! | `fleet_restart_pending` | at most 35 min: the longest drain before the restart that is owed |
//! | `.gateway-planned-stop.json`, `.gateway-takeover.json` | 60 s, while no other process than its target is the main one |
//! | `.drain_request.json` | 1 h, and of this boot |
//! | `.backup.lock` | while it is locked, as `/proc/locks` shows: trying the lock could make a backup fail |
//!
//! While most of them hold, a gateway may be slow for a good reason, and is not called hung ([`Fence::excuses`]). An
//! interrupted install is no such reason.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use protocol::why::KnownWhy;
use serde_json::Value;

use super::hermes::file::{self, File, Unreadable};
use super::process;
use crate::checks::{Context, span_text};
use crate::systemd::UnitFacts;

const UPDATE: Duration = Duration::from_secs(20 * 60);
const UPDATE_INCOMPLETE: Duration = Duration::from_secs(3600);
const RESTART_PENDING: Duration = Duration::from_secs(35 * 60);
const MARKER: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(3600);
/// Lines of `/proc/locks` looked at.
const LOCKS: usize = 10_000;

/// A fence that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Which.
    pub why: KnownWhy,
    /// In a sentence.
    pub text: String,
    /// Whether it is also a good reason to be slow.
    pub excuses: bool,
}

impl Fence {
    /// One that excuses a gateway which does not answer.
    pub fn excusing(why: KnownWhy, text: String) -> Self {
        Self {
            why,
            text,
            excuses: true,
        }
    }
}

/// What a fence is judged by.
pub struct World<'a> {
    /// The wall clock: the stamps in these files are its.
    pub now: Timestamp,
    /// The unit's main process.
    pub main_pid: Option<u32>,
    /// Whether a process lives.
    pub alive: Box<dyn Fn(u32) -> bool + 'a>,
    /// The names that this boot goes by.
    pub boots: Vec<String>,
    /// Field 22 of `/proc/1/stat`.
    pub init_start: Option<u64>,
}

impl<'a> World<'a> {
    /// As it is.
    pub fn read(root: &'a Path, facts: &UnitFacts, ctx: &Context) -> Self {
        // Inside a container the two can differ.
        let of_kernel =
            std::fs::read_to_string(root.join("proc/sys/kernel/random/boot_id")).unwrap_or_default();
        Self {
            now: ctx.now,
            main_pid: facts.main_pid,
            alive: Box::new(|pid| process::alive(root, pid)),
            boots: vec![of_kernel.trim().to_owned(), ctx.boot_id.clone()],
            init_start: process::read(root, 1).map(|process| process.start_ticks),
        }
    }
}

/// The fences in `home` that hold.
pub fn read(home: &Path, facts: &UnitFacts, world: &World<'_>) -> Result<Vec<Fence>, Unreadable> {
    let mut found = Vec::new();
    let mut judge = |name: &str, judge: fn(&File, &World<'_>) -> Option<Fence>| {
        file::read(&home.join(name)).map(|file| {
            found.extend(file.and_then(|file| judge(&file, world)));
        })
    };
    judge(".hermes-update-in-progress", update)?;
    judge("hermes-agent/.update-incomplete", update_incomplete)?;
    judge("fleet_restart_pending", restart_pending)?;
    judge(".gateway-planned-stop.json", |file, world| {
        marker(
            file,
            world,
            KnownWhy::FencePlannedStop,
            "announced a planned stop",
        )
    })?;
    judge(".gateway-takeover.json", |file, world| {
        marker(
            file,
            world,
            KnownWhy::FenceTakeover,
            "is taken over by another Hermes",
        )
    })?;
    judge(".drain_request.json", drain)?;
    let checkout = Path::new(&facts.working_directory);
    if checkout.is_absolute() && checkout != home && checkout != home.join("hermes-agent") {
        // Outside the home, nobody promised that it can be read.
        let marker = file::read(&checkout.join(".update-incomplete")).ok().flatten();
        found.extend(marker.and_then(|file| update_incomplete(&file, world)));
    }
    if locked(&home.join(".backup.lock")) {
        found.push(Fence::excusing(
            KnownWhy::FenceBackup,
            "Hermes makes a backup".to_owned(),
        ));
    }
    Ok(found)
}

/// Line 1 the pid, line 2 the time. A file without them counts by its own time.
fn update(file: &File, world: &World<'_>) -> Option<Fence> {
    let mut lines = file.text.lines().map(str::trim);
    let pid: Option<u32> = lines.next().and_then(|line| line.parse().ok());
    let at = lines.next().and_then(epoch).unwrap_or(file.modified);
    if pid.is_some_and(|pid| !(world.alive)(pid)) {
        return None;
    }
    let age = within(at, world.now, UPDATE)?;
    let text = format!("Hermes is being updated since {}", span_text(age));
    Some(Fence::excusing(KnownWhy::FenceUpdate, text))
}

/// `started=<epoch>`, `pid=<pid>`.
fn update_incomplete(file: &File, world: &World<'_>) -> Option<Fence> {
    let age = within(started(file), world.now, UPDATE_INCOMPLETE)?;
    Some(Fence {
        why: KnownWhy::FenceUpdateIncomplete,
        text: format!("Hermes has an interrupted install of {} ago", span_text(age)),
        excuses: false,
    })
}

fn restart_pending(file: &File, world: &World<'_>) -> Option<Fence> {
    let age = within(started(file), world.now, RESTART_PENDING)?;
    let text = format!("Hermes owes itself a restart since {}", span_text(age));
    Some(Fence::excusing(KnownWhy::FenceRestartPending, text))
}

/// `target_pid`, `written_at`. Upstream calls one without a readable time stale.
fn marker(file: &File, world: &World<'_>, why: KnownWhy, what: &str) -> Option<Fence> {
    let value: Value = serde_json::from_str(&file.text).ok()?;
    let at = value.get("written_at")?.as_str()?.parse().ok()?;
    let age = within(at, world.now, MARKER)?;
    let target = value.get("target_pid").and_then(Value::as_u64);
    let replaced = |target| world.main_pid.is_some_and(|main| u64::from(main) != target);
    if target.is_some_and(replaced) {
        return None;
    }
    Some(Fence::excusing(
        why,
        format!("the gateway {what} {} ago", span_text(age)),
    ))
}

/// `requested_at`, `epoch` = `<boot id>:<start of pid 1>`. Without an epoch it holds, as upstream reads it.
fn drain(file: &File, world: &World<'_>) -> Option<Fence> {
    let value: Value = serde_json::from_str(&file.text).unwrap_or_default();
    let at = value
        .get("requested_at")
        .and_then(Value::as_str)
        .and_then(|at| at.parse().ok())
        .unwrap_or(file.modified);
    let age = within(at, world.now, DRAIN)?;
    let epoch = value.get("epoch").and_then(Value::as_str).unwrap_or_default();
    if let Some((boot, init)) = epoch.split_once(':') {
        let other_boot = !boot.is_empty() && !world.boots.iter().any(|known| known == boot);
        let other_init = matches!((init.parse::<u64>(), world.init_start), (Ok(a), Some(b)) if a != b);
        if other_boot || other_init {
            return None;
        }
    }
    let text = format!("Hermes was asked to drain {} ago", span_text(age));
    Some(Fence::excusing(KnownWhy::FenceDrain, text))
}

/// The age, while it is within `valid`. A stamp in the future counts as now: clocks differ, and the file will age.
fn within(at: Timestamp, now: Timestamp, valid: Duration) -> Option<Duration> {
    let age = Duration::try_from(now.duration_since(at)).unwrap_or_default();
    (age <= valid).then_some(age)
}

fn started(file: &File) -> Timestamp {
    file.text
        .lines()
        .find_map(|line| line.strip_prefix("started="))
        .and_then(epoch)
        .unwrap_or(file.modified)
}

fn epoch(text: &str) -> Option<Timestamp> {
    super::hermes::cron::epoch(text)
}

/// Whether somebody holds a lock on the file at `path`.
fn locked(path: &Path) -> bool {
    let Ok(meta) = std::fs::metadata(path) else {
        return false;
    };
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    locks
        .lines()
        .take(LOCKS)
        .any(|line| names(line, device, meta.ino()))
}

/// `1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF`. Overlay and btrfs show another device there than in `stat`
/// (both unnamed, major 0), so for them the inode's number must do.
fn names(line: &str, (major, minor): (u32, u32), inode: u64) -> bool {
    let found = line
        .split_whitespace()
        .find(|field| field.matches(':').count() == 2);
    let Some(mut parts) = found.map(|field| field.split(':')) else {
        return false;
    };
    let hex = |part: Option<&str>| part.and_then(|part| u32::from_str_radix(part, 16).ok());
    let (Some(lock_major), Some(lock_minor)) = (hex(parts.next()), hex(parts.next())) else {
        return false;
    };
    let same_inode = parts.next().and_then(|part| part.parse().ok()) == Some(inode);
    let same_device = (lock_major, lock_minor) == (major, minor) || major == 0;
    same_inode && same_device && !line.contains("->")
}

#[cfg(test)]
mod tests;
