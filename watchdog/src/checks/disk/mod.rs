//! The disk check: is there room on every listed mount, and can it be written?
//!
//! In the data's order: [`look`] asks the kernel (on threads with a deadline: a dead NFS server can hold a caller for
//! ever), [`mounts`] finds the mount that a path lies on, [`history`] keeps samples and [`forecast`] looks ahead,
//! [`space`] judges one file system, [`pressure`] tells whether tasks wait for the disk; here it comes together.
//!
//! What counts as what:
//! - A listed path that is no mount point is judged by the mount it lies on; one file system counts once.
//! - `failing` `not_mounted`: the path is not there; or `/etc/fstab` wants a mount at it, or above it, that is missing
//!   (what is written there fills another disk); or the mount is dead (its server or FUSE process is gone).
//! - A mount that does not answer is `unknown` (`check_timed_out`). It hides nothing: the others are judged, the worst
//!   gives the status, and the summary names all that is not fine.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde_json::{Map, Value, json};

use self::look::{Look, Tables};
use self::mounts::Mount;
use self::pressure::{NoPressure, Pressure};
use self::space::{Problem, Usage, bytes_text, percent_text, rank, worst_first};
use super::{Context, Finding};
use crate::settings::DiskSettings;

pub use self::history::DiskHistory;

pub mod look;
pub mod mounts;
pub mod history;
pub mod forecast;
pub mod space;
pub mod pressure;

/// How long one mount may take to answer. A healthy one takes a microsecond; an NFS server that restarts, seconds.
const MOUNT_DEADLINE: Duration = Duration::from_secs(5);
/// Mounts whose figures a report holds (`protocol::limits` has room for as many).
const ROWS: usize = 32;

/// One run.
pub async fn check(settings: &DiskSettings, history: DiskHistory, ctx: &Context) -> (Finding, DiskHistory) {
    // Within the check's own time-out, so that one mount that hangs does not cost the answer about the others.
    let deadline = MOUNT_DEADLINE.min(settings.timeout.mul_f64(0.6));
    let looks = look::at_all(&settings.mounts, &settings.also, &ctx.root, deadline).await;
    let tables = Tables::read(&ctx.root);
    judge(settings, &looks, &tables, pressure::read(&ctx.root), history, ctx)
}

/// One file system (or one path that could not be looked at), judged.
struct Row {
    name: String,
    paths: Vec<String>,
    problems: Vec<Problem>,
    usage: Option<Usage>,
    figures: Map<String, Value>,
}

impl Row {
    fn status(&self) -> Status {
        self.problems
            .iter()
            .map(|p| p.status)
            .max_by_key(|&s| rank(s))
            .unwrap_or(Status::Ok)
    }
}

/// What the looks mean. Pure.
fn judge(
    settings: &DiskSettings,
    looks: &[(&Path, Look)],
    tables: &Tables,
    pressure: Result<Pressure, NoPressure>,
    mut history: DiskHistory,
    ctx: &Context,
) -> (Finding, DiskHistory) {
    let mut rows: Vec<Row> = Vec::new();
    let mut counted: Vec<(String, u64, u64)> = Vec::new();
    for (path, look) in looks {
        let listed = path.display().to_string();
        let (real, usage) = match look {
            Look::Seen { real, usage } => (real, usage),
            Look::Absent => {
                let text = "is not there: mount it, or take it out of `[disk] mounts`";
                rows.push(bare_row(
                    listed,
                    Problem::new(Status::Failing, KnownWhy::NotMounted, text),
                ));
                continue;
            }
            Look::Unseen(problem) => {
                rows.push(bare_row(listed, problem.clone()));
                continue;
            }
        };
        let Some(mount) = mounts::holding(&tables.mounts, real) else {
            rows.push(unlisted_row(listed, usage, settings, tables));
            continue;
        };
        if let Some(problem) = missing(real, mount, tables) {
            rows.push(bare_row(listed, problem));
            continue;
        }
        // The same file system by its device and its sizes: with project quotas, one directory's sizes are its own.
        let key = (mount.device.clone(), usage.total_bytes, usage.total_inodes);
        if let Some(n) = counted.iter().position(|k| *k == key) {
            if let Some(row) = rows.iter_mut().filter(|r| r.usage.is_some()).nth(n) {
                row.paths.push(listed);
            }
            continue;
        }
        counted.push(key);
        rows.push(row(listed, mount, usage, settings, tables, &mut history, ctx));
    }
    history.prune(ctx.now);
    (finding(&rows, pressure), history)
}

/// A mount that should be at `real` (or above it) and is not. `real` is without symlinks: one that leads out of a wanted
/// mount is judged where it leads.
fn missing(real: &Path, mount: &Mount, tables: &Tables) -> Option<Problem> {
    if mount.fs_type == "autofs" {
        let text = "is not mounted: the automount did not succeed";
        return Some(Problem::new(Status::Failing, KnownWhy::NotMounted, text));
    }
    let wanted = mounts::wanted_for(&tables.fstab, real)?;
    if mount.point.starts_with(&wanted.point) {
        return None;
    }
    let (point, holder) = (wanted.point.display(), mount.point.display());
    let text =
        format!("is not mounted: /etc/fstab wants {point} there, but what is written now goes to {holder}");
    Some(Problem::new(Status::Failing, KnownWhy::NotMounted, text))
}

fn bare_row(name: String, problem: Problem) -> Row {
    Row {
        paths: vec![name.clone()],
        name,
        problems: vec![problem],
        usage: None,
        figures: Map::new(),
    }
}

/// Without a mount table: room can be judged, read-only cannot.
fn unlisted_row(name: String, usage: &Usage, settings: &DiskSettings, tables: &Tables) -> Row {
    let none = history::Forecast {
        bytes: Err(forecast::NoForecast::TooFewSamples),
        inodes: Err(forecast::NoForecast::TooFewSamples),
    };
    let mut problems = space::judge(usage, &none, settings);
    let reason = tables
        .error
        .as_deref()
        .unwrap_or("it is on no mount of /proc/self/mountinfo");
    let text = format!("may be read-only for all that is known: {reason}");
    problems.push(Problem::new(Status::Unknown, KnownWhy::CheckError, text));
    Row {
        paths: vec![name.clone()],
        name,
        problems,
        usage: Some(*usage),
        figures: figures(usage),
    }
}

fn row(
    listed: String,
    mount: &Mount,
    usage: &Usage,
    settings: &DiskSettings,
    tables: &Tables,
    history: &mut DiskHistory,
    ctx: &Context,
) -> Row {
    let name = mount.point.display().to_string();
    let seen = history::Seen {
        point: &name,
        device: &mount.device,
        fs_type: &mount.fs_type,
        usage: *usage,
    };
    let forecast = history.record(seen, ctx.now, ctx.uptime_secs);
    let mut figures = figures(usage);
    figures.insert("fs_type".to_owned(), json!(mount.fs_type));
    figures.insert("read_only".to_owned(), json!(mount.is_read_only()));
    for (field, left) in [
        ("bytes_full_at", forecast.bytes),
        ("inodes_full_at", forecast.inodes),
    ] {
        if let Some(at) = left.ok().and_then(|left| hour(ctx.now, left)) {
            figures.insert(field.to_owned(), json!(at));
        }
    }
    let problems = if mount.is_hidden_by_sandbox() {
        let text = "is hidden from the watchdog by its unit's sandbox: use ProtectHome=read-only, or no InaccessiblePaths= there";
        vec![Problem::new(Status::Unknown, KnownWhy::CheckError, text)]
    } else if mount.is_image() {
        Vec::new()
    } else {
        let mut problems = space::judge(usage, &forecast, settings);
        let meant = tables.fstab.iter().any(|w| w.point == mount.point && w.read_only);
        if mount.is_read_only() && !meant {
            let text = "is read-only: nothing can be written (after a disk error? see `journalctl -k`)";
            problems.insert(0, Problem::new(Status::Failing, KnownWhy::ReadOnly, text));
        }
        problems
    };
    Row {
        name,
        paths: vec![listed],
        problems,
        usage: Some(*usage),
        figures,
    }
}

/// The time `left` from `now`, to the minute: a forecast knows no seconds.
fn hour(now: Timestamp, left: Duration) -> Option<Timestamp> {
    let at = now.checked_add(SignedDuration::try_from(left).ok()?).ok()?;
    Timestamp::from_second(at.as_second() / 60 * 60).ok()
}

fn figures(usage: &Usage) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("total_bytes".to_owned(), json!(usage.total_bytes));
    map.insert("used_bytes".to_owned(), json!(usage.used_bytes));
    map.insert("free_bytes".to_owned(), json!(usage.free_bytes));
    if let Some(ratio) = usage.free_ratio() {
        map.insert("free_ratio".to_owned(), json!(rounded(ratio)));
    }
    if let Some(ratio) = usage.free_inode_ratio() {
        map.insert("free_inodes".to_owned(), json!(usage.free_inodes));
        map.insert("total_inodes".to_owned(), json!(usage.total_inodes));
        map.insert("free_inode_ratio".to_owned(), json!(rounded(ratio)));
    }
    map
}

/// Four digits say all there is to say, in a report that has limits.
fn rounded(ratio: f64) -> f64 {
    (ratio * 10_000.0).round() / 10_000.0
}

/// All rows and the pressure in one answer.
fn finding(rows: &[Row], pressure: Result<Pressure, NoPressure>) -> Finding {
    let mut all: Vec<(String, Problem)> = rows
        .iter()
        .flat_map(|r| r.problems.iter().map(|p| (r.name.clone(), p.clone())))
        .collect();
    if let Some(high) = pressure.as_ref().ok().filter(|p| p.is_high()) {
        let text = format!(
            "is slow: for {:.0} % of the last minute all tasks waited for it",
            high.full_avg60_percent
        );
        all.push((
            "the disk".to_owned(),
            Problem::new(Status::Warning, KnownWhy::IoPressure, text),
        ));
    }
    // Stable: what is equally bad stays in the configuration's order.
    all.sort_by_key(|(_, p)| worst_first(p));
    let (status, why) = all
        .first()
        .map_or((Status::Ok, KnownWhy::Fine), |(_, p)| (p.status, p.why));
    let summary = if all.is_empty() {
        fine_text(rows)
    } else {
        wrong_text(&all, rows)
    };
    Finding::new(CheckName::Disk, status, why, summary).with(values(rows, pressure))
}

fn wrong_text(all: &[(String, Problem)], rows: &[Row]) -> String {
    let mut parts: Vec<String> = all.iter().map(|(name, p)| format!("{name} {}", p.text)).collect();
    match rows.iter().filter(|r| r.status() == Status::Ok).count() {
        0 => {}
        1 => parts.push("the other mount is fine".to_owned()),
        n => parts.push(format!("{n} other mounts are fine")),
    }
    parts.join("; ")
}

fn fine_text(rows: &[Row]) -> String {
    let tightest = rows
        .iter()
        .filter_map(|r| Some((r, r.usage?, r.usage?.free_ratio()?)))
        .min_by(|a, b| a.2.total_cmp(&b.2));
    match (rows.len(), tightest) {
        (_, None) => "nothing to run out of".to_owned(),
        (1, Some((row, usage, ratio))) => {
            format!(
                "{} has {} free ({})",
                row.name,
                bytes_text(usage.free_bytes),
                percent_text(ratio)
            )
        }
        (n, Some((row, usage, ratio))) => format!(
            "{n} file systems are fine; the least room has {}: {} free ({})",
            row.name,
            bytes_text(usage.free_bytes),
            percent_text(ratio)
        ),
    }
}

fn values(rows: &[Row], pressure: Result<Pressure, NoPressure>) -> Map<String, Value> {
    let mut mounts = Map::new();
    for row in rows.iter().take(ROWS) {
        let mut figures = row.figures.clone();
        figures.insert("status".to_owned(), json!(row.status()));
        figures.insert(
            "why".to_owned(),
            json!(row.problems.first().map_or(KnownWhy::Fine, |p| p.why)),
        );
        if row.paths.iter().any(|p| *p != row.name) {
            figures.insert(
                "listed_as".to_owned(),
                json!(row.paths.iter().map(|p| super::sentence(p)).collect::<Vec<_>>()),
            );
        }
        mounts.insert(super::sentence(&row.name), Value::Object(figures));
    }
    let mut values = Map::new();
    values.insert("mounts".to_owned(), Value::Object(mounts));
    match pressure {
        Ok(p) => {
            values.insert("io_full_avg60_percent".to_owned(), json!(p.full_avg60_percent));
            values.insert("io_full_avg300_percent".to_owned(), json!(p.full_avg300_percent));
        }
        Err(e) => {
            values.insert("io_pressure_unknown".to_owned(), json!(e.to_string()));
        }
    }
    values
}

#[cfg(test)]
mod tests;
