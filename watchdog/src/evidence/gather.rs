//! The parts of a bundle: the journal, the unit's processes, the machine. Every read is bounded, and what is missing is
//! said in its place. The environment of a process is never read.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use protocol::names::UnitName;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use crate::checks::deadline::Abandoned;
use crate::settings::Scope;
use crate::systemd::UnitFacts;

/// Lines of the journal.
const JOURNAL_LINES: &str = "200";
/// Bytes of them.
const JOURNAL_BYTES: u64 = 512 * 1024;
/// Processes of the unit.
const PROCESSES: usize = 16;
/// Threads of a process.
const THREADS: usize = 64;
/// Open files of a process that are named; all are counted up to the second number.
const FILES_NAMED: usize = 64;
const FILES_COUNTED: usize = 65_536;
/// Bytes of one file below `/proc`.
const PROC_BYTES: u64 = 8 * 1024;

/// The unit's last journal lines.
pub(super) async fn journal(unit: &UnitName, scope: &Scope, limit: Duration) -> String {
    let mut command = Command::new("journalctl");
    if *scope != Scope::System {
        command.arg("--user");
    }
    command
        .args([
            "-u",
            unit.as_str(),
            "-n",
            JOURNAL_LINES,
            "-o",
            "short-iso",
            "--no-pager",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    match tokio::time::timeout(limit, output(command)).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => format!("(not readable: journalctl: {error})"),
        Err(_) => "(not readable: journalctl did not end in time)".to_owned(),
    }
}

async fn output(mut command: Command) -> std::io::Result<String> {
    let mut child = command.spawn()?;
    let (mut told, mut complained) = (Vec::new(), Vec::new());
    let out = child.stdout.take().expect("it is piped");
    let err = child.stderr.take().expect("it is piped");
    let (mut out, mut err) = (out.take(JOURNAL_BYTES), err.take(PROC_BYTES));
    tokio::try_join!(out.read_to_end(&mut told), err.read_to_end(&mut complained))?;
    let told = String::from_utf8_lossy(&told);
    let complained = String::from_utf8_lossy(&complained);
    Ok(if complained.trim().is_empty() {
        told.into_owned()
    } else {
        format!("{told}({})\n", complained.trim().replace('\n', " "))
    })
}

/// The unit's processes, the main one first.
pub(super) fn pids(root: &Path, facts: &UnitFacts) -> Vec<u32> {
    let group = facts.control_group.trim_start_matches('/');
    let of_group = ["sys/fs/cgroup", "sys/fs/cgroup/systemd", "sys/fs/cgroup/unified"]
        .iter()
        .find_map(|mount| text(&root.join(mount).join(group).join("cgroup.procs")).ok())
        .filter(|_| !group.is_empty())
        .unwrap_or_default();
    let others = of_group
        .lines()
        .filter_map(|line| line.parse().ok())
        .filter(|&pid| facts.main_pid != Some(pid));
    facts.main_pid.into_iter().chain(others).take(PROCESSES).collect()
}

/// States, threads, what they wait for, open files.
pub(super) fn processes(root: &Path, pids: &[u32], gone: &Abandoned) -> String {
    let mut out = String::new();
    for pid in pids.iter().take_while(|_| !gone.get()) {
        let at = root.join(format!("proc/{pid}"));
        let _ = writeln!(out, "== process {pid}");
        for name in ["status", "wchan", "stack", "limits"] {
            let _ = writeln!(
                out,
                "-- {name}\n{}",
                text(&at.join(name)).unwrap_or_else(missing).trim_end()
            );
        }
        let _ = writeln!(out, "-- threads\n{}", threads(&at));
        let _ = writeln!(out, "-- open files\n{}", files(&at));
    }
    if out.is_empty() {
        out.push_str("(no process)\n");
    }
    out
}

fn threads(process: &Path) -> String {
    let listed = match std::fs::read_dir(process.join("task")) {
        Ok(listed) => listed,
        Err(error) => return missing(error),
    };
    let mut out = String::new();
    for task in listed.flatten().take(THREADS) {
        let stat = text(&task.path().join("stat")).unwrap_or_default();
        let state = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.trim_start().chars().next())
            .unwrap_or('?');
        let name = text(&task.path().join("comm")).unwrap_or_default();
        let waits = text(&task.path().join("wchan")).unwrap_or_default();
        let id = task.file_name();
        let _ = writeln!(
            out,
            "{} {state} {} {}",
            id.display(),
            name.trim_end(),
            waits.trim_end()
        );
    }
    out
}

fn files(process: &Path) -> String {
    let listed = match std::fs::read_dir(process.join("fd")) {
        Ok(listed) => listed,
        Err(error) => return missing(error),
    };
    let mut out = String::new();
    let mut count = 0;
    for file in listed.flatten().take(FILES_COUNTED) {
        count += 1;
        if count <= FILES_NAMED
            && let Ok(target) = std::fs::read_link(file.path())
        {
            let _ = writeln!(out, "{} {}", file.file_name().display(), target.display());
        }
    }
    let _ = writeln!(out, "{count} in all");
    out
}

/// Command lines, without their environment.
pub(super) fn commands(root: &Path, pids: &[u32], gone: &Abandoned) -> String {
    pids.iter()
        .take_while(|_| !gone.get())
        .fold(String::new(), |mut out, pid| {
            let line = text(&root.join(format!("proc/{pid}/cmdline")))
                .map_or_else(missing, |line| line.replace('\0', " "));
            let _ = writeln!(out, "{pid} {}", line.trim_end());
            out
        })
}

/// Memory, load and pressure of the whole machine.
pub(super) fn machine(root: &Path) -> String {
    let mut out = String::new();
    for name in [
        "loadavg",
        "meminfo",
        "pressure/cpu",
        "pressure/io",
        "pressure/memory",
    ] {
        let of = text(&root.join("proc").join(name)).unwrap_or_else(missing);
        let _ = writeln!(out, "-- {name}\n{}", of.trim_end());
    }
    out
}

fn text(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(PROC_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what a failed read hands over"
)]
fn missing(error: std::io::Error) -> String {
    format!("(not readable: {error})")
}
