//! The backup check: how old is the newest good backup?
//!
//! A source shows what there is ([`files`], [`snapshots`], or a [`command`] whose [`listing`] is read); [`judge`] says
//! what that means. It never restores one: that a backup is there does not prove that it can be read back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::Timestamp;
use protocol::report::CheckName;
use serde_json::{Map, Value, json};

use self::judge::{Sighting, Unseen, judge};
use super::deadline::{Abandoned, Overrun, in_thread};
use super::{Context, Finding, span_text};
use crate::settings::{BackupFormat, BackupSettings, BackupSource};

pub use self::judge::BackupHistory;

pub mod files;
pub mod snapshots;
pub mod command;
pub mod listing;
pub mod judge;

/// What the check's time-out must leave for ending a command (see [`command::run`]) and for saying so.
const COMMAND_MARGIN: Duration = Duration::from_secs(4);

/// One run.
pub async fn check(
    settings: &BackupSettings,
    history: BackupHistory,
    ctx: &Context,
) -> (Finding, BackupHistory) {
    let source = fingerprint(&settings.source);
    let history = if history.source == source {
        history
    } else {
        BackupHistory {
            source,
            confirmed: None,
        }
    };
    let seen = look(settings, ctx.now).await;
    let (verdict, history) = judge(&seen, settings, &history, ctx.now);
    let finding = Finding::new(CheckName::Backup, verdict.status, verdict.why, verdict.summary);
    (finding.with(values(&seen, &history, ctx.now)), history)
}

/// Which source a history belongs to: what another source once showed proves nothing of this one.
fn fingerprint(source: &BackupSource) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{source:?}").hash(&mut hasher);
    hasher.finish()
}

async fn look(settings: &BackupSettings, now: Timestamp) -> Result<Sighting, Unseen> {
    match settings.source.clone() {
        BackupSource::Newest { glob, min_bytes } => {
            let what = glob.clone();
            blocking(settings, &what, move |abandoned| {
                files::newest(&glob, min_bytes, now, abandoned)
            })
            .await
        }
        BackupSource::Stamp(path) => {
            let what = path.display().to_string();
            blocking(settings, &what, move |_| files::stamp(&path, now)).await
        }
        BackupSource::HermesSnapshots(home) => {
            let what = home.display().to_string();
            blocking(settings, &what, move |abandoned| {
                snapshots::newest(&home, now, abandoned)
            })
            .await
        }
        BackupSource::Command {
            argv,
            format,
            timeout,
        } => {
            let limit = timeout.min(
                settings
                    .timeout
                    .saturating_sub(COMMAND_MARGIN)
                    .max(settings.timeout / 2),
            );
            listed(&argv, format, limit, now).await
        }
    }
}

/// Runs `work` on a thread, within the check's own time-out.
async fn blocking(
    settings: &BackupSettings,
    what: &str,
    work: impl FnOnce(&Abandoned) -> Result<Sighting, Unseen> + Send + 'static,
) -> Result<Sighting, Unseen> {
    match in_thread(settings.timeout.mul_f64(0.8), work).await {
        Ok(seen) => seen,
        Err(Overrun::Late(limit)) => Err(Unseen::TimedOut(format!(
            "looking for {what} did not end within {} (a huge directory, or a file system that hangs?)",
            span_text(limit)
        ))),
        Err(e @ (Overrun::Lost | Overrun::NoThread(_))) => {
            Err(Unseen::Error(format!("cannot look for {what}: {e}")))
        }
    }
}

async fn listed(
    argv: &[String],
    format: BackupFormat,
    limit: Duration,
    now: Timestamp,
) -> Result<Sighting, Unseen> {
    let output = command::run(argv, limit).await?;
    let name = command::program(argv);
    let listing = listing::parse(format, &output.stdout);
    let has_worked = match (format, output.status.code()) {
        (_, Some(0)) => true,
        // Borg ends so when it had something to warn of; the listing is whole all the same.
        (BackupFormat::Borg, Some(1 | 100..=127)) => listing.is_ok(),
        (BackupFormat::Restic | BackupFormat::Borg, _) => false,
    };
    if !has_worked {
        let how = output
            .status
            .code()
            .map_or_else(|| output.status.to_string(), |code| format!("exit status {code}"));
        let said = output
            .last_error
            .map(|line| format!(": {line}"))
            .unwrap_or_default();
        return Err(Unseen::CommandFailed(format!("{name} ended with {how}{said}")));
    }
    let backups = listing.map_err(|e| Unseen::CommandFailed(format!("{name} ended well, but {e}")))?;
    let mut sighting = Sighting {
        hint: Some(format!("{name} lists none")),
        ..Sighting::default()
    };
    for backup in backups {
        sighting.good(backup, now);
    }
    Ok(sighting)
}

fn values(seen: &Result<Sighting, Unseen>, history: &BackupHistory, now: Timestamp) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            map.insert(name.to_owned(), value);
        }
    };
    match seen {
        Ok(sighting) => {
            if let Some(newest) = &sighting.newest {
                put("newest", json!(super::sentence(&newest.name)));
                put("newest_at", json!(newest.at));
                put("age_secs", json!(judge::age(newest.at, now).as_secs()));
                put("size_bytes", json!(newest.bytes));
            }
            put(
                "spoilt",
                json!(
                    sighting
                        .spoilt
                        .as_ref()
                        .map(|(bad, _)| super::sentence(&bad.name))
                ),
            );
            put(
                "in_future",
                json!(sighting.in_future.as_ref().map(|b| super::sentence(&b.name))),
            );
        }
        Err(_) => put("confirmed_at", json!(history.confirmed)),
    }
    map
}

#[cfg(test)]
mod tests;
