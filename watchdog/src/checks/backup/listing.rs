//! What backup programs print: `restic snapshots --json`, `borg list --json`. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::judge::Backup;
use crate::settings::BackupFormat;

/// The backups of a listing; an error says what is not as known.
pub fn parse(format: BackupFormat, text: &[u8]) -> Result<Vec<Backup>, String> {
    let entries = match format {
        BackupFormat::Restic => restic(text),
        BackupFormat::Borg => borg(text),
    };
    let entries = entries.map_err(|e| format!("its answer is no listing as known: {e}"))?;
    entries
        .into_iter()
        .map(|(name, time)| {
            let at = time.as_deref().and_then(moment);
            let at = at.ok_or_else(|| format!("its entry {name:?} has no time as known"))?;
            Ok(Backup {
                name,
                at,
                bytes: None,
            })
        })
        .collect()
}

type Entries = Vec<(String, Option<String>)>;

/// A snapshot, or (with `--group-by`) a group of them.
#[derive(Deserialize)]
struct ResticEntry {
    time: Option<String>,
    short_id: Option<String>,
    id: Option<String>,
    #[serde(default)]
    snapshots: Option<Vec<ResticEntry>>,
}

fn restic(text: &[u8]) -> serde_json::Result<Entries> {
    // An empty repository is `null` in some versions.
    let all: Option<Vec<ResticEntry>> = serde_json::from_slice(text)?;
    let flat = all.into_iter().flatten().flat_map(|entry| match entry.snapshots {
        Some(group) => group,
        // A group without members has a null there, and no time.
        None if entry.time.is_none() && entry.id.is_none() => Vec::new(),
        None => vec![entry],
    });
    Ok(flat
        .map(|e| (format!("snapshot {}", short(e.short_id.or(e.id))), e.time))
        .collect())
}

fn short(id: Option<String>) -> String {
    id.unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(64)
        .collect()
}

#[derive(Deserialize)]
struct BorgListing {
    archives: Vec<BorgArchive>,
}

#[derive(Deserialize)]
struct BorgArchive {
    name: Option<String>,
    archive: Option<String>,
    time: Option<String>,
    start: Option<String>,
}

fn borg(text: &[u8]) -> serde_json::Result<Entries> {
    let listing: BorgListing = serde_json::from_slice(text)?;
    let named = listing
        .archives
        .into_iter()
        .map(|a| (short(a.name.or(a.archive)), a.time.or(a.start)));
    // An interrupted `borg create` leaves a checkpoint; borg hides them unless asked.
    Ok(named
        .filter(|(name, _)| !name.ends_with(".checkpoint"))
        .map(|(n, t)| (format!("archive {n}"), t))
        .collect())
}

/// With an offset: as it says. Without one, as borg 1 prints: the command runs with `TZ=UTC`, so it is UTC.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let naive: DateTime = text.parse().ok()?;
        Some(naive.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn times(format: BackupFormat, text: &str) -> Vec<Timestamp> {
        parse(format, text.as_bytes())
            .unwrap()
            .into_iter()
            .map(|b| b.at)
            .collect()
    }

    #[test]
    fn restic_as_it_prints() {
        let text = r#"[{"time":"2026-11-21T03:00:04.123456789+01:00","tree":"x","paths":["/home"],"hostname":"box1",
            "username":"root","program_version":"restic 0.17.3","summary":{"total_bytes_processed":5},"id":"4bba","short_id":"4bba301e"},
            {"time":"2026-11-20T02:00:00Z","id":"abc"}]"#;
        assert_eq!(
            times(BackupFormat::Restic, text),
            [at("2026-11-21T02:00:04.123456789Z"), at("2026-11-20T02:00:00Z")]
        );
        assert_eq!(
            parse(BackupFormat::Restic, text.as_bytes()).unwrap()[0].name,
            "snapshot 4bba301e"
        );
        let grouped = r#"[{"group_key":{"hostname":"a"},"snapshots":[{"time":"2026-11-21T03:00:00Z","id":"1"}]},{"group_key":{},"snapshots":null}]"#;
        assert_eq!(times(BackupFormat::Restic, grouped), [at("2026-11-21T03:00:00Z")]);
        for empty in ["null", "[]", " []\n"] {
            assert_eq!(times(BackupFormat::Restic, empty), []);
        }
    }

    #[test]
    fn borg_with_and_without_an_offset() {
        let one = r#"{"archives":[{"archive":"a","barchive":"a","id":"1","name":"a","start":"2026-11-21T03:00:00.000000","time":"2026-11-21T03:00:00.000000"},
            {"name":"a.checkpoint","time":"2026-11-21T04:00:00.000000"}],"encryption":{"mode":"none"},"repository":{"last_modified":"x"}}"#;
        assert_eq!(times(BackupFormat::Borg, one), [at("2026-11-21T03:00:00Z")]);
        let two = r#"{"archives":[{"name":"a","start":"2026-11-21T03:00:00.123456+01:00"}]}"#;
        assert_eq!(
            times(BackupFormat::Borg, two),
            [at("2026-11-21T02:00:00.123456Z")]
        );
        assert_eq!(times(BackupFormat::Borg, r#"{"archives":[]}"#), []);
    }

    #[test]
    fn what_is_no_listing_is_said() {
        for (format, text) in [
            (BackupFormat::Restic, ""),
            (BackupFormat::Restic, "repository is locked"),
            (BackupFormat::Restic, "{}"),
            (BackupFormat::Restic, r#"[{"id":"1","time":"yesterday"}]"#),
            (BackupFormat::Restic, r#"[{"id":"1"}]"#),
            (BackupFormat::Borg, "[]"),
            (BackupFormat::Borg, r#"{"archives":[{"name":"a"}]}"#),
        ] {
            assert!(parse(format, text.as_bytes()).is_err(), "{format:?} {text}");
        }
    }
}
