//! Backups that are files: the newest that a glob matches, or a stamp file. Blocks; runs on a thread with a deadline.
//!
//! What is still being written is no backup yet: hidden files (Hermes writes `.….partial` and renames) and the names
//! that tools give to unfinished work, unless the pattern asks for such a name itself.

use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use glob::{GlobError, Pattern};
use jiff::Timestamp;

use super::judge::{Backup, Flaw, Sighting, Unseen};
use crate::checks::deadline::Abandoned;

/// Matches looked at. More than a backup pattern ever matches, and a second's work.
const MATCHES: usize = 100_000;
/// Directories looked into for a reason why nothing matches.
const PROBED: usize = 1000;
/// How tools name what is not finished.
const PARTIAL_ENDS: [&str; 5] = [".partial", ".tmp", ".part", ".incomplete", "~"];

/// The newest file that `glob` matches.
pub fn newest(glob: &str, min_bytes: u64, now: Timestamp, abandoned: &Abandoned) -> Result<Sighting, Unseen> {
    let paths = glob::glob(glob).map_err(|e| Unseen::Error(format!("{glob} is no pattern: {e}")))?;
    let last = glob.rsplit('/').next().unwrap_or(glob);
    let mut sighting = Sighting::default();
    let (mut partials, mut others) = (0, 0);
    for (n, path) in paths.enumerate() {
        if n >= MATCHES {
            return Err(Unseen::Error(format!(
                "{glob} matches over {MATCHES} names; make it narrower"
            )));
        }
        if abandoned.get() {
            break;
        }
        match path {
            Ok(path) => match looked_at(&path, last) {
                Found::File(meta) => file(&mut sighting, &path, &meta, min_bytes, now),
                Found::Partial => partials += 1,
                Found::Other => others += 1,
                Found::Hidden => sighting.hidden = Some(closed_text(&path)),
                Found::Gone => {}
            },
            Err(e) => {
                if let Some(text) = hidden_by(&e) {
                    sighting.hidden = Some(text);
                }
            }
        }
    }
    if sighting.newest.is_none() && sighting.hidden.is_none() {
        sighting.hidden = closed_on_the_way(glob);
        sighting.hint = Some(instead(glob, partials, others));
    }
    Ok(sighting)
}

enum Found {
    File(Metadata),
    Partial,
    Other,
    Hidden,
    Gone,
}

fn looked_at(path: &Path, pattern: &str) -> Found {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_partial(&name, pattern) {
        return Found::Partial;
    }
    match fs::metadata(path) {
        Ok(meta) if meta.is_file() => Found::File(meta),
        Ok(_) => Found::Other,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Found::Hidden,
        // Rotated away in between, or a dangling symlink.
        Err(_) => Found::Gone,
    }
}

/// Whether `name` tells of unfinished work that `pattern` (its last part) does not ask for.
fn is_partial(name: &str, pattern: &str) -> bool {
    let hidden = name.starts_with('.') && !pattern.starts_with('.');
    let lower = name.to_lowercase();
    let asked = pattern.to_lowercase();
    hidden
        || PARTIAL_ENDS
            .iter()
            .any(|end| lower.ends_with(end) && !asked.ends_with(end))
}

fn file(sighting: &mut Sighting, path: &Path, meta: &Metadata, min_bytes: u64, now: Timestamp) {
    let Some(at) = modified(meta) else {
        return;
    };
    let backup = Backup {
        name: path.display().to_string(),
        at,
        bytes: Some(meta.len()),
    };
    if meta.len() < min_bytes {
        sighting.bad(backup, Flaw::TooSmall(min_bytes));
    } else {
        sighting.good(backup, now);
    }
}

fn modified(meta: &Metadata) -> Option<Timestamp> {
    Timestamp::try_from(meta.modified().ok()?).ok()
}

fn hidden_by(e: &GlobError) -> Option<String> {
    (e.error().kind() == ErrorKind::PermissionDenied).then(|| closed_text(e.path()))
}

/// The sentence, and the fix, for a path behind a closed directory.
fn closed_text(path: &Path) -> String {
    let closed = closed_directory(path).unwrap_or_else(|| path.to_owned());
    let closed = closed.display();
    format!(
        "cannot look into {closed}: permission denied; let the watchdog's user through (`setfacl -m u:fleet-watchdog:rx {closed}`), or use a stamp file"
    )
}

/// The directory on the way to `path` that does not let this user through.
fn closed_directory(path: &Path) -> Option<PathBuf> {
    let mut ways: Vec<&Path> = path.ancestors().collect();
    ways.reverse();
    let stopped = ways.iter().position(
        |way| matches!(fs::symlink_metadata(way), Err(e) if e.kind() == ErrorKind::PermissionDenied),
    );
    stopped.and_then(|n| n.checked_sub(1)).map(|n| ways[n].to_owned())
}

/// The pattern crate takes a name that it may not look up for one that does not exist. So where nothing matches, this
/// looks itself: at each step from a pattern's part to a plain name, is that name denied rather than absent?
fn closed_on_the_way(glob: &str) -> Option<String> {
    let parts: Vec<Component<'_>> = Path::new(glob).components().collect();
    for n in 1..=parts.len() {
        let so_far: PathBuf = parts[..n].iter().collect();
        let is_last = n == parts.len();
        let next_is_plain = parts
            .get(n)
            .is_some_and(|next| Pattern::escape(&text(next)) == text(next));
        if !is_last && !next_is_plain {
            // What a pattern part cannot list, the crate reports itself.
            continue;
        }
        let dirs = glob::glob(&so_far.to_string_lossy()).ok()?;
        for dir in dirs.take(PROBED).flatten() {
            let way = if is_last { dir } else { dir.join(parts[n]) };
            if matches!(fs::metadata(&way), Err(e) if e.kind() == ErrorKind::PermissionDenied) {
                return Some(closed_text(&way));
            }
        }
    }
    None
}

fn text(part: &Component<'_>) -> String {
    part.as_os_str().to_string_lossy().into_owned()
}

/// What was found where backups should be.
fn instead(glob: &str, partials: usize, others: usize) -> String {
    let fixed: PathBuf = Path::new(glob)
        .components()
        .take_while(|part| Pattern::escape(&text(part)) == text(part))
        .collect();
    let missing = fixed.ancestors().take_while(|dir| !dir.exists()).last();
    match (partials, others) {
        (0, 0) => match missing {
            Some(dir) if fixed != Path::new(glob) => format!("{} does not exist", dir.display()),
            Some(_) | None => format!("nothing matches {glob}"),
        },
        (0, _) => format!("{glob} matches directories only; name the files in them"),
        (_, _) => format!("{glob} matches only what is not finished ({partials} partial files)"),
    }
}

/// A stamp file's modification time.
pub fn stamp(path: &Path, now: Timestamp) -> Result<Sighting, Unseen> {
    let mut sighting = Sighting::default();
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err(Unseen::Error(format!(
            "{} is a directory, no stamp file",
            path.display()
        ))),
        Ok(meta) => {
            let at =
                modified(&meta).ok_or_else(|| Unseen::Error(format!("{} has no date", path.display())))?;
            // The stamp has a date; the backup's size stands elsewhere.
            sighting.good(
                Backup {
                    name: path.display().to_string(),
                    at,
                    bytes: None,
                },
                now,
            );
            Ok(sighting)
        }
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            sighting.hint = Some(format!("the stamp file {} does not exist", path.display()));
            Ok(sighting)
        }
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Err(Unseen::Error(closed_text(path))),
        Err(e) => Err(Unseen::Error(format!("cannot look at {}: {e}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    fn now() -> Timestamp {
        "2026-11-21T20:00:00Z".parse().unwrap()
    }

    fn put(dir: &Path, name: &str, bytes: usize, age_hours: i64) -> PathBuf {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, vec![0; bytes]).unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs((now().as_second() - age_hours * 3600) as u64);
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(at)
            .unwrap();
        path
    }

    fn look(dir: &Path, pattern: &str) -> Sighting {
        let glob = format!("{}/{pattern}", dir.display());
        newest(&glob, 100, now(), &Abandoned::default()).unwrap()
    }

    fn name(backup: Option<&Backup>) -> Option<&str> {
        backup.map(|b| b.name.rsplit('/').next().unwrap())
    }

    #[test]
    fn the_newest_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        put(at, "a.zip", 500, 30);
        put(at, "b.zip", 500, 6);
        put(at, "c.zip", 50, 1);
        put(at, ".d.zip", 500, 0);
        put(at, "e.zip.partial", 500, 0);
        put(at, "f.txt", 500, 0);
        fs::create_dir(at.join("g.zip")).unwrap();
        let found = look(at, "*.zip*");
        assert_eq!(name(found.newest.as_ref()), Some("b.zip"));
        let (small, flaw) = found.spoilt.unwrap();
        assert_eq!((name(Some(&small)), flaw), (Some("c.zip"), Flaw::TooSmall(100)));
        assert_eq!(found.newest.unwrap().bytes, Some(500));
    }

    #[test]
    fn a_pattern_may_ask_for_hidden_and_odd_names() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), ".borg-2026", 500, 1);
        put(dir.path(), "old.tmp", 500, 2);
        assert_eq!(
            name(look(dir.path(), ".borg-*").newest.as_ref()),
            Some(".borg-2026")
        );
        assert_eq!(name(look(dir.path(), "*.tmp").newest.as_ref()), Some("old.tmp"));
        assert_eq!(look(dir.path(), "*").newest, None);
    }

    #[test]
    fn nothing_says_what_is_there_instead() {
        let dir = tempfile::tempdir().unwrap();
        let hint = |pattern: &str| look(dir.path(), pattern).hint.unwrap();
        assert!(
            hint("no/such/*.zip").ends_with("/no does not exist"),
            "{}",
            hint("no/such/*.zip")
        );
        assert!(hint("*.zip").contains("nothing matches"));
        put(dir.path(), "x.zip.part", 500, 1);
        assert!(hint("*.zip*").contains("not finished"));
        fs::create_dir(dir.path().join("daily.0")).unwrap();
        assert!(hint("daily.*").contains("directories only"));
    }

    #[test]
    fn a_symlink_is_what_it_points_to_and_a_dangling_one_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let real = put(dir.path(), "real.dat", 500, 3);
        std::os::unix::fs::symlink(real, dir.path().join("latest.zip")).unwrap();
        std::os::unix::fs::symlink("gone", dir.path().join("dangling.zip")).unwrap();
        assert_eq!(
            name(look(dir.path(), "*.zip").newest.as_ref()),
            Some("latest.zip")
        );
    }

    #[test]
    fn several_directories_deep() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "2026/11/20/full.tar", 500, 30);
        put(dir.path(), "2026/11/21/full.tar", 500, 3);
        assert!(look(dir.path(), "**/*.tar").newest.unwrap().name.contains("/21/"));
    }

    #[test]
    fn nobody_waits_for_a_huge_tree() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..50 {
            put(dir.path(), &format!("{n}.zip"), 1, 1);
        }
        let abandoned = Abandoned::default();
        abandoned.set();
        let glob = format!("{}/*.zip", dir.path().display());
        assert_eq!(
            newest(&glob, 1, now(), &abandoned).unwrap().newest,
            None,
            "it stops at the first step"
        );
    }

    #[test]
    fn a_stamp_has_a_date_or_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = put(dir.path(), "stamp", 0, 5);
        let at = Timestamp::from_second(now().as_second() - 5 * 3600).unwrap();
        assert_eq!(stamp(&path, now()).unwrap().newest.unwrap().at, at);
        let gone = stamp(&dir.path().join("gone"), now()).unwrap();
        assert!(gone.newest.is_none() && gone.hint.unwrap().contains("gone does not exist"));
        assert!(matches!(stamp(dir.path(), now()), Err(Unseen::Error(text)) if text.contains("directory")));
    }
}
