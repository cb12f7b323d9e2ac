//! Hermes quick snapshots: `<home>/state-snapshots/<UTC stamp>[-label]/manifest.json`. Blocks; runs on a thread.
//!
//! Hermes writes the manifest last, so a directory without one is under way or was interrupted: it counts as nothing,
//! and the one before it is judged. Files are the agent's, which may be led astray: they are read bounded, and nothing
//! of them leaves but names of databases.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::judge::{Backup, Flaw, Sighting, Unseen};
use crate::checks::deadline::Abandoned;

/// Directory entries looked at. Hermes keeps 20 or so.
const ENTRIES: usize = 10_000;
/// Manifests read, the newest first.
const MANIFESTS: usize = 32;
/// A manifest is read up to here: a name and a size for each of some thousand files.
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// Names of failed databases that are told.
const NAMES: usize = 8;

/// The newest snapshots of the Hermes home `home`.
pub fn newest(home: &Path, now: Timestamp, abandoned: &Abandoned) -> Result<Sighting, Unseen> {
    let root = home.join("state-snapshots");
    let mut sighting = Sighting::default();
    let entries = match fs::read_dir(&root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            sighting.hint = Some(format!(
                "{} does not exist; `hermes backup --quick` makes one",
                root.display()
            ));
            return Ok(sighting);
        }
        Err(e) => {
            return Err(Unseen::Error(format!(
                "cannot look into {}: {e}{}",
                root.display(),
                fix(&e)
            )));
        }
    };
    let mut names: Vec<String> = entries
        .take(ENTRIES)
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.'))
        .collect();
    // Their names begin with the stamp, so this is the order of time.
    names.sort_unstable_by(|a, b| b.cmp(a));
    let mut unfinished = 0;
    for name in names.iter().take(MANIFESTS) {
        if abandoned.get() {
            break;
        }
        match manifest(&root.join(name).join("manifest.json")) {
            Manifest::Missing => unfinished += 1,
            Manifest::Unreadable(why) => {
                let at = stamp(name).unwrap_or(now);
                sighting.bad(
                    Backup {
                        name: name.clone(),
                        at,
                        bytes: None,
                    },
                    Flaw::Unreadable(why),
                );
            }
            Manifest::Read(value) => take_in(&mut sighting, name, &value, now),
        }
    }
    if unfinished > 0 {
        sighting.hint = Some(format!(
            "{unfinished} in {} have no manifest: interrupted, or under way",
            root.display()
        ));
    }
    Ok(sighting)
}

enum Manifest {
    Missing,
    Unreadable(String),
    Read(Value),
}

fn manifest(path: &Path) -> Manifest {
    let read = || {
        // Opening a FIFO would wait for a writer.
        if !fs::metadata(path)?.is_file() {
            return Err(std::io::Error::other("manifest.json is no file"));
        }
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(MANIFEST_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MANIFEST_BYTES => {
            Manifest::Unreadable(format!("its manifest is over {MANIFEST_BYTES} bytes"))
        }
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(value @ Value::Object(_)) => Manifest::Read(value),
            Ok(_) | Err(_) => Manifest::Unreadable("its manifest is no JSON object (cut off?)".to_owned()),
        },
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Manifest::Missing,
        Err(e) => Manifest::Unreadable(format!("its manifest cannot be read: {e}{}", fix(&e))),
    }
}

fn take_in(sighting: &mut Sighting, name: &str, manifest: &Value, now: Timestamp) {
    let told = manifest["timestamp"].as_str().and_then(stamp);
    let Some(at) = told.or_else(|| stamp(name)) else {
        let backup = Backup {
            name: name.to_owned(),
            at: now,
            bytes: None,
        };
        sighting.bad(
            backup,
            Flaw::Unreadable("its manifest has no timestamp of the form YYYYMMDD-HHMMSS".to_owned()),
        );
        return;
    };
    let backup = Backup {
        name: name.to_owned(),
        at,
        bytes: manifest["total_size"].as_u64(),
    };
    let failed = failed(&manifest["failed_dbs"]);
    if failed.is_empty() {
        sighting.good(backup, now);
    } else {
        sighting.bad(backup, Flaw::Incomplete(failed));
    }
}

/// What failed, by name, in whatever shape a version tells it.
fn failed(value: &Value) -> Vec<String> {
    let name = |v: &Value| match v {
        Value::String(s) => s.chars().take(64).collect(),
        Value::Object(o) => o
            .get("name")
            .or(o.get("path"))
            .and_then(Value::as_str)
            .unwrap_or("a database")
            .to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => "a database".to_owned(),
    };
    match value {
        Value::Null | Value::Bool(false) => Vec::new(),
        Value::Array(items) => items.iter().map(name).take(NAMES).collect(),
        Value::Object(map) => map
            .keys()
            .map(|k| k.chars().take(64).collect())
            .take(NAMES)
            .collect(),
        Value::String(s) if s.is_empty() => Vec::new(),
        Value::Number(n) if n.as_f64() == Some(0.0) => Vec::new(),
        Value::Number(n) => vec![format!("{n} databases")],
        other @ (Value::String(_) | Value::Bool(true)) => vec![name(other)],
    }
}

/// `YYYYMMDD-HHMMSS` at the head of `text`, in UTC.
fn stamp(text: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y%m%d-%H%M%S", text.get(..15)?).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn fix(e: &std::io::Error) -> &'static str {
    match e.kind() {
        ErrorKind::PermissionDenied => {
            "; let the watchdog's user read it (`setfacl -R -m u:fleet-watchdog:rX …/state-snapshots`)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-21T20:00:00Z".parse().unwrap()
    }

    fn home(snapshots: &[(&str, Option<&str>)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, manifest) in snapshots {
            let at = dir.path().join("state-snapshots").join(name);
            fs::create_dir_all(&at).unwrap();
            if let Some(text) = manifest {
                fs::write(at.join("manifest.json"), text).unwrap();
            }
        }
        dir
    }

    fn look(snapshots: &[(&str, Option<&str>)]) -> Sighting {
        newest(home(snapshots).path(), now(), &Abandoned::default()).unwrap()
    }

    /// As hermes-agent 0.19.0 writes it.
    const GENUINE: &str = r#"{
  "id": "20261121-183000-pre", "timestamp": "20261121-183000", "label": "pre", "file_count": 2,
  "total_size": 4096, "files": {"state.db": 4000, "config.yaml": 96}
}"#;

    #[test]
    fn the_newest_by_its_own_stamp_in_utc() {
        let found = look(&[
            ("20261120-030000", Some("{\"timestamp\":\"20261120-030000\"}")),
            ("20261121-183000-pre", Some(GENUINE)),
        ]);
        let newest = found.newest.unwrap();
        assert_eq!(newest.at, "2026-11-21T18:30:00Z".parse().unwrap());
        assert_eq!(
            (newest.name.as_str(), newest.bytes),
            ("20261121-183000-pre", Some(4096))
        );
        assert_eq!(found.spoilt, None);
    }

    #[test]
    fn failed_databases_spoil_it() {
        for (failed, names) in [
            (r#"["state.db","kanban.db"]"#, &["state.db", "kanban.db"][..]),
            (r#"{"state.db":"locked"}"#, &["state.db"]),
            (r#"[{"name":"state.db"}]"#, &["state.db"]),
            ("2", &["2 databases"]),
            ("[]", &[]),
            ("{}", &[]),
            ("null", &[]),
            ("0", &[]),
        ] {
            let manifest = format!(r#"{{"timestamp":"20261121-183000","failed_dbs":{failed}}}"#);
            let found = look(&[
                ("20261121-183000", Some(&manifest)),
                ("20261120-030000", Some("{}")),
            ]);
            match found.spoilt {
                Some((_, Flaw::Incomplete(parts))) => assert_eq!(parts, names),
                None => assert!(names.is_empty(), "{failed}"),
                other => panic!("{failed}: {other:?}"),
            }
        }
    }

    #[test]
    fn without_a_manifest_it_is_not_there_yet() {
        let found = look(&[("20261121-190000", None), ("20261121-183000-pre", Some(GENUINE))]);
        assert_eq!(found.newest.unwrap().name, "20261121-183000-pre");
        let only = look(&[("20261121-190000", None)]);
        assert!(only.newest.is_none() && only.hint.unwrap().contains("no manifest"));
    }

    #[test]
    fn a_garbled_manifest_is_said() {
        for text in ["{\"timestamp\": \"2026", "[]", ""] {
            let found = look(&[("20261121-190000", Some(text)), ("20261120-030000", Some("{}"))]);
            assert!(matches!(found.spoilt, Some((_, Flaw::Unreadable(_)))), "{text}");
            assert_eq!(
                found.newest.unwrap().at,
                "2026-11-20T03:00:00Z".parse().unwrap(),
                "by its directory's name"
            );
        }
        let undated = look(&[("what", Some("{}"))]);
        assert!(matches!(undated.spoilt, Some((_, Flaw::Unreadable(why))) if why.contains("timestamp")));
    }

    #[test]
    fn no_home_is_no_backup() {
        let dir = tempfile::tempdir().unwrap();
        let found = newest(dir.path(), now(), &Abandoned::default()).unwrap();
        assert!(found.newest.is_none() && found.hint.unwrap().contains("hermes backup --quick"));
    }
}
