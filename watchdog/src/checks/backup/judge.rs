//! How old is the newest good backup, and is that all right? Pure.

use std::time::Duration;

use jiff::Timestamp;
use protocol::report::Status;
use protocol::why::KnownWhy;
use serde::{Deserialize, Serialize};

use crate::checks::disk::space::{bytes_text, rank};
use crate::checks::{Verdict, span_text};
use crate::settings::BackupSettings;

/// A backup dated up to this far ahead is one that was just made by a machine whose clock is a little fast.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// What it is called: a path, a snapshot's id, an archive's name.
    pub name: String,
    /// When it was made.
    pub at: Timestamp,
    /// Its size, where that is known.
    pub bytes: Option<u64>,
}

/// What is wrong with a backup that is no good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Flaw {
    /// Smaller than the wanted minimum, bytes.
    TooSmall(u64),
    /// It says itself that these parts failed.
    Incomplete(Vec<String>),
    /// What it says of itself cannot be read, and why.
    Unreadable(String),
}

/// What a source shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The newest good one that is not dated in the future.
    pub newest: Option<Backup>,
    /// The newest of those dated in the future.
    pub in_future: Option<Backup>,
    /// The newest that is no good.
    pub spoilt: Option<(Backup, Flaw)>,
    /// What could not be looked into, and the fix: something newer may be hidden there.
    pub hidden: Option<String>,
    /// Where there is no backup at all: what was found instead.
    pub hint: Option<String>,
}

impl Sighting {
    /// Counts a good one in.
    pub fn good(&mut self, backup: Backup, now: Timestamp) {
        let slot = if is_in_future(&backup, now) {
            &mut self.in_future
        } else {
            &mut self.newest
        };
        if slot.as_ref().is_none_or(|known| is_newer(&backup, known)) {
            *slot = Some(backup);
        }
    }

    /// Counts in one that is no good.
    pub fn bad(&mut self, backup: Backup, flaw: Flaw) {
        if self
            .spoilt
            .as_ref()
            .is_none_or(|(known, _)| is_newer(&backup, known))
        {
            self.spoilt = Some((backup, flaw));
        }
    }
}

/// The later one; at the same time the one whose name is later, so that the answer does not depend on the order.
fn is_newer(a: &Backup, b: &Backup) -> bool {
    (a.at, &a.name) > (b.at, &b.name)
}

fn is_in_future(backup: &Backup, now: Timestamp) -> bool {
    Duration::try_from(backup.at.duration_since(now)).is_ok_and(|ahead| ahead > CLOCK_TOLERANCE)
}

/// Why a source shows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unseen {
    /// Permission, form, I/O.
    Error(String),
    /// It took too long.
    TimedOut(String),
    /// The command did not do its work.
    CommandFailed(String),
}

/// What this check remembers from run to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupHistory {
    /// Which source it belongs to (a hash: a command may hold a password).
    pub source: u64,
    /// When the newest good backup that was ever seen there was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<Timestamp>,
}

/// Judges what was seen at `now`. `history` belongs to this source.
pub fn judge(
    seen: &Result<Sighting, Unseen>,
    settings: &BackupSettings,
    history: &BackupHistory,
    now: Timestamp,
) -> (Verdict, BackupHistory) {
    match seen {
        Ok(sighting) => {
            let confirmed = sighting.newest.as_ref().map(|b| b.at).or(history.confirmed);
            (
                sighted(sighting, settings, now),
                BackupHistory {
                    confirmed,
                    ..history.clone()
                },
            )
        }
        Err(unseen) => (unseen_verdict(unseen, settings, history, now), history.clone()),
    }
}

/// Failing to look is not failing. But when no backup could be confirmed for as long as would be failing, nobody may
/// rely on one any more, and that is what this check is for.
fn unseen_verdict(
    unseen: &Unseen,
    settings: &BackupSettings,
    history: &BackupHistory,
    now: Timestamp,
) -> Verdict {
    let (why, text) = match unseen {
        Unseen::Error(text) => (KnownWhy::CheckError, text),
        Unseen::TimedOut(text) => (KnownWhy::CheckTimedOut, text),
        Unseen::CommandFailed(text) => (KnownWhy::BackupCommandFailed, text),
    };
    match history.confirmed.map(|at| (at, age(at, now))) {
        Some((_, age)) if age > settings.failing_after => Verdict::new(
            Status::Failing,
            why,
            format!(
                "{text}; the newest backup that could be confirmed is {} old",
                span_text(age)
            ),
        ),
        Some((_, age)) => Verdict::new(
            Status::Unknown,
            why,
            format!("{text}; the newest backup seen before is {} old", span_text(age)),
        ),
        None => Verdict::new(Status::Unknown, why, text.as_str()),
    }
}

fn sighted(sighting: &Sighting, settings: &BackupSettings, now: Timestamp) -> Verdict {
    if let Some(ahead) = &sighting.in_future {
        let text = format!(
            "{} is dated {} in the future: this box's clock, or that of whoever made it, is wrong; {}",
            ahead.name,
            span_text(Duration::try_from(ahead.at.duration_since(now)).unwrap_or_default()),
            before_text(sighting.newest.as_ref(), now)
        );
        return Verdict::new(Status::Unknown, KnownWhy::BackupInFuture, text);
    }
    let newest = sighting.newest.as_ref();
    let found = match (&sighting.spoilt, newest) {
        (Some((bad, flaw)), good) if good.is_none_or(|good| is_newer(bad, good)) => {
            spoilt(bad, flaw, good, settings, now)
        }
        (_, Some(good)) => by_age(good, settings, now),
        (_, None) => {
            let hint = sighting
                .hint
                .as_deref()
                .map(|h| format!(": {h}"))
                .unwrap_or_default();
            Verdict::new(
                Status::Failing,
                KnownWhy::NoBackup,
                format!("there is no backup{hint}"),
            )
        }
    };
    match &sighting.hidden {
        Some(hidden) if found.status != Status::Ok => Verdict::new(
            Status::Unknown,
            KnownWhy::CheckError,
            format!("{hidden}; as far as can be seen: {}", found.summary),
        ),
        Some(_) | None => found,
    }
}

fn by_age(good: &Backup, settings: &BackupSettings, now: Timestamp) -> Verdict {
    let age = age(good.at, now);
    let text = format!("the newest backup, {}, is {} old", good.name, span_text(age));
    if age > settings.failing_after {
        let text = format!("{text}; {} are allowed", span_text(settings.failing_after));
        return Verdict::new(Status::Failing, KnownWhy::BackupStale, text);
    }
    if age > settings.warning_after {
        let text = format!("{text}; it should be under {}", span_text(settings.warning_after));
        return Verdict::new(Status::Warning, KnownWhy::BackupStale, text);
    }
    let size = good
        .bytes
        .map(|b| format!(" ({})", bytes_text(b)))
        .unwrap_or_default();
    Verdict::new(Status::Ok, KnownWhy::Fine, format!("{text}{size}"))
}

/// The newest one is no good: it is judged by its flaw and by the age of the good one before it; both are said.
fn spoilt(
    bad: &Backup,
    flaw: &Flaw,
    good: Option<&Backup>,
    settings: &BackupSettings,
    now: Timestamp,
) -> Verdict {
    let before = before_text(good, now);
    let by_age = good.map_or(Status::Failing, |good| by_age(good, settings, now).status);
    let (name, old) = (&bad.name, span_text(age(bad.at, now)));
    match flaw {
        Flaw::TooSmall(min) => {
            let bytes = bytes_text(bad.bytes.unwrap_or(0));
            let text = format!(
                "the newest backup, {name} ({old} old), has only {bytes} of at least {}; {before}",
                bytes_text(*min)
            );
            let status = if rank(by_age) > rank(Status::Warning) {
                by_age
            } else {
                Status::Warning
            };
            Verdict::new(status, KnownWhy::BackupTooSmall, text)
        }
        Flaw::Incomplete(parts) => {
            let text = format!(
                "the newest backup, {name} ({old} old), says that it is incomplete: {} failed; {before}",
                parts.join(", ")
            );
            Verdict::new(Status::Failing, KnownWhy::BackupIncomplete, text)
        }
        Flaw::Unreadable(why) => {
            let text = format!("the newest backup, {name}, cannot be judged: {why}; {before}");
            match (by_age, good) {
                (Status::Failing, Some(_)) => Verdict::new(Status::Failing, KnownWhy::BackupStale, text),
                (_, Some(_) | None) => Verdict::new(Status::Unknown, KnownWhy::CheckError, text),
            }
        }
    }
}

fn before_text(good: Option<&Backup>, now: Timestamp) -> String {
    match good {
        Some(good) => format!(
            "the last good one before it, {}, is {} old",
            good.name,
            span_text(age(good.at, now))
        ),
        None => "there is no good one before it".to_owned(),
    }
}

/// How old; what lies a little ahead is new.
pub fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
