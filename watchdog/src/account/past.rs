//! The shell that asks how the last process, or the last boot, ended. Bounded in time and size; no beat waits for it.
//!
//! It judges nothing. What it may not read (another user's files, a journal without the group `systemd-journal`) is
//! named instead.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use uuid::Uuid;

use super::around::{Sample, oom_kills};
use super::journal::{JournalEnd, LINES};
use super::record::{ALIVE_FILE, ENDED_FILE, Ended, LINE_BYTES, RECORD_BYTES, RECORD_FILE, Record};
use crate::checks::deadline::in_thread;
use crate::state_dir::open_plain;

/// How long the journal may take to answer.
pub const JOURNAL_LIMIT: Duration = Duration::from_secs(6);
/// How long the files may take.
const FILES_LIMIT: Duration = Duration::from_secs(3);
/// Bytes of the journal's answer: [`LINES`] of the longest messages that journalctl writes out (4096 bytes each; four
/// times that as a list of numbers). They are read one by one, and the end of a boot stands in the last.
const JOURNAL_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes of its complaint.
const COMPLAINT_BYTES: u64 = 1024;
/// Where a panic is kept, on a machine with a place for it.
const PSTORES: [&str; 2] = ["var/lib/systemd/pstore", "sys/fs/pstore"];
/// Entries of those that are looked at: a panic may be kept in fifty parts, and those of years stay.
const PSTORE_ENTRIES: usize = 1024;
/// How deep systemd-pstore puts them.
const PSTORE_DEPTH: usize = 3;
/// Bytes of an entry.
const PSTORE_BYTES: u64 = 64 * 1024;
/// Lines of panics that are kept.
const PANIC_LINES: usize = 4;
/// The kernel's word for the end.
pub const PANIC: &str = "Kernel panic";
/// A clock may have been set a little since.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What tasks and threads tell the loop.
#[derive(Debug)]
pub enum Told {
    /// The record that the last process left; none: there is none.
    Before(Option<Box<Record>>),
    /// How that ended.
    How(Box<How>),
    /// How the box is while beats fail.
    Sample(Sample),
    /// The record was written, or why not.
    Kept(Result<(), String>),
    /// What the kernel's log says of a unit's end.
    OomOf {
        /// The unit.
        unit: protocol::names::UnitName,
        /// The evidence.
        line: String,
    },
}

/// How the last process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// In this boot.
    SameBoot {
        /// systemd's word.
        ended: Option<Ended>,
        /// Processes that the OOM killer has ended since its last record.
        oom_kills: u64,
    },
    /// In another boot.
    NewBoot {
        /// When this boot's first process began: `CLOCK_BOOTTIME`, milliseconds. (The clock on the wall may not be set
        /// yet.)
        up_ms: u64,
        /// The end of that boot's journal, or why it cannot be read.
        journal: Result<JournalEnd, String>,
        /// Panics that the firmware kept.
        panics: Vec<String>,
    },
}

/// Reads the record that the last process left: the newer one of memory and disk, of this boot if there is one.
pub fn read(state_dir: &Path, spare_dir: Option<&Path>, boot_id: Uuid) -> Option<Record> {
    let of = |dir: &Path| Record::parse(&bytes(&dir.join(RECORD_FILE), RECORD_BYTES as u64)?);
    let in_memory = spare_dir.and_then(of).filter(|record| record.boot_id == boot_id);
    let mut record = in_memory.or_else(|| of(state_dir))?;
    let line = spare_dir.and_then(|dir| bytes(&dir.join(ALIVE_FILE), LINE_BYTES as u64));
    if let Some(line) = line {
        record.alive_by(&String::from_utf8_lossy(&line));
    }
    Some(record)
}

/// Finds out how the process of `record` ended. Takes at most [`JOURNAL_LIMIT`].
pub async fn find(root: PathBuf, spare_dir: Option<PathBuf>, record: &Record, boot_id: Uuid) -> How {
    if record.boot_id == boot_id {
        let (began_ms, before) = (record.began.boot_ms, record.oom_kills);
        let same = in_thread(FILES_LIMIT, move |_| {
            same_boot(&root, spare_dir.as_deref(), began_ms, before)
        })
        .await;
        return same.unwrap_or(How::SameBoot {
            ended: None,
            oom_kills: 0,
        });
    }
    let since = record.alive.wall.checked_sub(CLOCK_SLACK);
    let since = since.unwrap_or(Timestamp::MIN);
    let up_ms = up_ms(&root);
    let panics = in_thread(FILES_LIMIT, move |_| panics(&root, since));
    let journal = tokio::time::timeout(JOURNAL_LIMIT, journal(record.boot_id));
    let (panics, journal) = tokio::join!(panics, journal);
    let late = || Err(format!("it was not read within {}s", JOURNAL_LIMIT.as_secs()));
    How::NewBoot {
        up_ms,
        journal: journal.unwrap_or_else(|_| late()),
        panics: panics.unwrap_or_default(),
    }
}

fn same_boot(root: &Path, spare_dir: Option<&Path>, began_ms: u64, before: Option<u64>) -> How {
    let line = spare_dir.and_then(|dir| bytes(&dir.join(ENDED_FILE), LINE_BYTES as u64));
    let ended = line.and_then(|line| Ended::parse(&String::from_utf8_lossy(&line)));
    // One from before that process is another one's.
    let ended = ended.filter(|ended| ended.uptime_ms.is_none_or(|at| at >= began_ms));
    // In a container the kernel counts for all of its host.
    let own = !root.join("run/systemd/container").exists();
    let grew = oom_kills(root)
        .filter(|_| own)
        .zip(before)
        .map(|(now, before)| now.saturating_sub(before));
    How::SameBoot {
        ended,
        oom_kills: grew.unwrap_or(0),
    }
}

async fn journal(boot_id: Uuid) -> Result<JournalEnd, String> {
    let mut command = Command::new("journalctl");
    command.arg(format!("_BOOT_ID={}", boot_id.simple()));
    command.args(["-n", &LINES.to_string(), "-o", "json", "--no-pager", "-q"]);
    command.arg("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_TRANSPORT");
    let mut end = JournalEnd::default();
    lines(command, |line| end.take(line)).await?;
    Ok(end)
}

/// The kernel's newest line about an OOM kill since then; takes at most [`JOURNAL_LIMIT`].
pub async fn kernel_oom(since: Timestamp) -> Option<String> {
    let mut command = Command::new("journalctl");
    command.args(["-k", "-b", "-n", "50", "-o", "json", "--no-pager", "-q"]);
    command.arg("--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_TRANSPORT");
    let mut end = JournalEnd::default();
    let _ = tokio::time::timeout(JOURNAL_LIMIT, lines(command, |line| end.take(line))).await;
    let kill = end.ooms.pop()?;
    (kill.at >= since).then_some(kill.line)
}

/// Runs `command` and hands its lines to `each`, one by one: only what is wanted of them is kept.
async fn lines(mut command: Command, mut each: impl FnMut(&str)) -> Result<(), String> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Whoever starts a program waits until the disk has given its first page: a thread waits, not the loop that beats.
    let spawned = tokio::task::spawn_blocking(move || command.spawn()).await;
    let spawned = spawned.map_err(std::io::Error::other).and_then(|spawned| spawned);
    let mut child = spawned.map_err(|error| format!("journalctl: {error}"))?;
    let (Some(out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("journalctl has no output".to_owned());
    };
    let mut any = false;
    let any_line = &mut any;
    let reading = async move {
        let mut out = BufReader::new(out.take(JOURNAL_BYTES));
        let mut line = Vec::new();
        while out
            .read_until(b'\n', &mut line)
            .await
            .map_err(|error| error.to_string())?
            > 0
        {
            *any_line = true;
            each(&String::from_utf8_lossy(&line));
            line.clear();
        }
        // What was cut off is the very end.
        if out.get_ref().limit() == 0 {
            return Err(format!(
                "its last {LINES} lines are over {JOURNAL_BYTES} bytes long"
            ));
        }
        Ok::<(), String>(())
    };
    let mut complaint = Vec::new();
    let complaining = async {
        let _ = (&mut err).take(COMPLAINT_BYTES).read_to_end(&mut complaint).await;
        // What nobody reads would hold it up.
        let _ = tokio::io::copy(&mut err, &mut tokio::io::sink()).await;
    };
    let (read, ()) = tokio::join!(reading, complaining);
    read?;
    let complaint = String::from_utf8_lossy(&complaint);
    match complaint.lines().map(str::trim).find(|line| !line.is_empty()) {
        Some(line) if !any => Err(format!("journalctl: {line}")),
        Some(_) | None => Ok(()),
    }
}

/// When the first process began: right in a container, too, whose kernel is older than it.
fn up_ms(root: &Path) -> u64 {
    const TICKS_A_SEC: u64 = 100;
    let stat = bytes(&root.join("proc/1/stat"), 4096);
    let stat = stat.map(|stat| String::from_utf8_lossy(&stat).into_owned());
    let ticks = stat.as_deref().and_then(|stat| {
        let (_, rest) = stat.rsplit_once(')')?;
        rest.split_whitespace().nth(19)?.parse::<u64>().ok()
    });
    ticks.map_or(0, |ticks| ticks.saturating_mul(1000 / TICKS_A_SEC))
}

/// What the firmware kept of panics since then.
fn panics(root: &Path, since: Timestamp) -> Vec<String> {
    let mut found = Vec::new();
    let mut entries = 0;
    for store in PSTORES {
        visit(&root.join(store), PSTORE_DEPTH, &mut entries, &mut |path, at| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if at >= since && name.starts_with("dmesg") && found.len() < PANIC_LINES {
                panic_lines(path, &name, &mut found);
            }
        });
    }
    found
}

fn visit(dir: &Path, depth: usize, entries: &mut usize, each: &mut impl FnMut(&Path, Timestamp)) {
    let Ok(listed) = std::fs::read_dir(dir) else {
        return;
    };
    for entry in listed.flatten() {
        *entries += 1;
        if *entries > PSTORE_ENTRIES {
            return;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth > 1 {
            visit(&entry.path(), depth - 1, entries, each);
        } else if meta.is_file() {
            each(
                &entry.path(),
                Timestamp::from_second(meta.mtime()).unwrap_or_default(),
            );
        }
    }
}

fn panic_lines(path: &Path, name: &str, found: &mut Vec<String>) {
    let Some(bytes) = bytes(path, PSTORE_BYTES) else {
        found.push(format!("{name} (not readable for this user)"));
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    const TELLING: [&str; 5] = [PANIC, "BUG:", "Oops", "Out of memory", "lockup"];
    // Some kernels keep their last words at an end in order, too.
    const IN_ORDER: [&str; 4] = ["Shutdown#", "Restart#", "Halt#", "Poweroff#"];
    let head = text.lines().next().unwrap_or_default().trim();
    if IN_ORDER.iter().any(|word| head.starts_with(word)) {
        return;
    }
    let telling = |line: &&str| TELLING.iter().any(|word| line.contains(word));
    let mut lines: Vec<&str> = text.lines().filter(telling).collect();
    // The panic itself stands last, and says most.
    lines.sort_by_key(|line| !line.contains(PANIC));
    if lines.is_empty() {
        lines.push(head);
    }
    let room = PANIC_LINES.saturating_sub(found.len());
    let lines = lines.into_iter().take(room);
    found.extend(lines.map(|line| format!("{name}: {}", line.trim())));
}

fn bytes(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = open_plain(path).ok()?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::record::alive_line;
    use super::super::record::tests::{at, record};
    use super::*;

    #[test]
    fn memory_wins_within_a_boot_and_the_disk_after_one() {
        let (disk, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let boot = record().boot_id;
        assert_eq!(read(disk.path(), Some(memory.path()), boot), None);
        let write = |dir: &tempfile::TempDir, secs| {
            let record = Record {
                alive: at(secs),
                ..record()
            };
            std::fs::write(dir.path().join(RECORD_FILE), serde_json::to_vec(&record).unwrap()).unwrap();
        };
        write(&disk, 100);
        assert_eq!(
            read(disk.path(), Some(memory.path()), boot).unwrap().alive,
            at(100)
        );
        write(&memory, 120);
        std::fs::write(memory.path().join(ALIVE_FILE), alive_line(boot, at(133))).unwrap();
        assert_eq!(
            read(disk.path(), Some(memory.path()), boot).unwrap().alive,
            at(133)
        );
        let other = Uuid::from_u128(77);
        std::fs::remove_file(memory.path().join(ALIVE_FILE)).unwrap();
        assert_eq!(
            read(disk.path(), Some(memory.path()), other).unwrap().alive,
            at(100)
        );
    }

    #[test]
    fn systemds_word_of_an_earlier_process_is_not_this_ones() {
        let (root, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(root.path().join("proc")).unwrap();
        std::fs::write(root.path().join("proc/vmstat"), "oom_kill 5\n").unwrap();
        let ended = |text: &str| {
            std::fs::write(memory.path().join(ENDED_FILE), text).unwrap();
            match same_boot(root.path(), Some(memory.path()), 10_000, Some(3)) {
                How::SameBoot { ended, oom_kills } => (ended.map(|ended| ended.result), oom_kills),
                How::NewBoot { .. } => panic!(),
            }
        };
        assert_eq!(ended("signal killed KILL 44.0"), (Some("signal".to_owned()), 2));
        assert_eq!(ended("signal killed KILL 4.0"), (None, 2));
        let marks = root.path().join("run/systemd");
        std::fs::create_dir_all(&marks).unwrap();
        std::fs::write(marks.join("container"), "lxc").unwrap();
        assert_eq!(
            ended("signal killed KILL 44.0").1,
            0,
            "the kernel counts for the whole host"
        );
    }

    #[test]
    fn a_panic_since_then_is_found_and_an_old_one_is_not() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("var/lib/systemd/pstore/1763755300");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join("dmesg.txt"),
            "Panic#1 Part1\n<0>[ 9.1] Kernel panic - not syncing: sysrq triggered crash\n<4>[ 9.2] x\n",
        )
        .unwrap();
        std::fs::write(dir.join("console.txt"), "Kernel panic\n").unwrap();
        let found = panics(root.path(), Timestamp::from_second(0).unwrap());
        assert_eq!(
            found,
            ["dmesg.txt: <0>[ 9.1] Kernel panic - not syncing: sysrq triggered crash"]
        );
        let words = format!(
            "Part1\n{}<0>[ 9.1] Kernel panic - not syncing: Fatal exception\n",
            "<4>[ 8.1] Out of memory: Killed process 7 (x)\n".repeat(9)
        );
        std::fs::write(dir.join("dmesg.txt"), words).unwrap();
        let found = panics(root.path(), Timestamp::UNIX_EPOCH);
        assert!(
            found.len() == PANIC_LINES && found[0].contains("Kernel panic"),
            "{found:?}"
        );
        std::fs::write(
            dir.join("dmesg.txt"),
            "Shutdown#1 Part1\n<6>[ 9.1] reboot: Power down\n",
        )
        .unwrap();
        assert!(panics(root.path(), Timestamp::UNIX_EPOCH).is_empty());
        assert!(panics(root.path(), Timestamp::MAX).is_empty());
        assert!(panics(Path::new("/nowhere"), Timestamp::UNIX_EPOCH).is_empty());
    }

    #[test]
    fn the_first_process_tells_since_when_it_is_up() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/1")).unwrap();
        assert_eq!(up_ms(root.path()), 0, "with the kernel");
        let stat = "1 (a b) c) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 499000 1 2 3";
        std::fs::write(root.path().join("proc/1/stat"), stat).unwrap();
        assert_eq!(up_ms(root.path()), 4_990_000);
    }

    #[tokio::test]
    async fn a_program_that_complains_and_says_nothing_is_an_error() {
        let run = async |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            let mut seen = Vec::new();
            let done = lines(command, |line| seen.push(line.trim().to_owned())).await;
            (done, seen)
        };
        assert_eq!(
            run("echo a; echo b; echo hint >&2").await,
            (Ok(()), vec!["a".to_owned(), "b".to_owned()])
        );
        let (error, _) = run("echo No journal files were opened >&2; exit 1").await;
        assert_eq!(error.unwrap_err(), "journalctl: No journal files were opened");
        assert_eq!(run("true").await, (Ok(()), vec![]), "a boot without a journal");
        // The longest lines of all, and a complaint that fills its pipe.
        let (done, seen) = run(
            "head -c 200000 /dev/zero >&2; for n in $(seq 200); do head -c 16000 /dev/zero | tr '\\0' x; echo; done; \
             echo the end",
        )
        .await;
        assert_eq!((done, seen.last().map(String::as_str)), (Ok(()), Some("the end")));
        let (error, _) = run("yes").await;
        assert!(
            error.unwrap_err().contains("are over"),
            "without its end it tells nothing"
        );
    }
}
