//! Runs a backup program that lists its backups: no shell, a process group of its own, bounded in time and output.
//!
//! When the time is up the whole group is ended, first kindly: restic and borg take their locks off the repository at
//! SIGTERM. Its environment is the watchdog's, with `TZ=UTC`, since borg 1 prints local times without a zone.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::judge::Unseen;
use crate::checks::span_text;
use crate::redact::redact;

/// What it may print: 4 MiB are about 8,000 snapshots.
const OUTPUT_BYTES: usize = 4 * 1024 * 1024;
/// What is kept of its errors, from the end.
const ERROR_BYTES: usize = 8 * 1024;
/// From SIGTERM to SIGKILL.
const KINDLY: Duration = Duration::from_secs(2);
/// After SIGKILL, or after its end while something of it still holds the pipes.
const AFTER_END: Duration = Duration::from_secs(1);
/// An error's last line in a summary.
const LINE_CHARS: usize = 200;

/// What a command left.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// Its last line of error, without secrets.
    pub last_error: Option<String>,
}

/// Ends the group when the run is given up from outside (the check's own time-out).
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // Gone already is as good.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Runs `argv` for at most `limit` (ending it takes up to three seconds more).
pub async fn run(argv: &[String], limit: Duration) -> Result<Output, Unseen> {
    let name = program(argv);
    let mut child = start(argv).map_err(|e| Unseen::CommandFailed(not_started(argv, &e)))?;
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let (mut out, mut err) = (Kept::head(OUTPUT_BYTES), Kept::tail(ERROR_BYTES));
    let ended = timeout(limit, finish(&mut child, &mut out, &mut err)).await;
    let Ok(ended) = ended else {
        end(&mut child, &mut group).await;
        let last = err
            .last_line()
            .map(|line| format!(" (its last words: {line})"))
            .unwrap_or_default();
        return Err(Unseen::TimedOut(format!(
            "{name} did not end within {} and was ended{last}",
            span_text(limit)
        )));
    };
    let failed = |text: String| Unseen::CommandFailed(format!("{name} {text}"));
    let (status, is_quiet) = match ended {
        Ok(ended) => ended,
        Err(e) => {
            end(&mut child, &mut group).await;
            return Err(failed(format!("could not be waited for: {e}")));
        }
    };
    if is_quiet {
        // The group's number may belong to somebody else from now on.
        group.0 = None;
    }
    if out.is_over {
        return Err(failed(format!(
            "printed over {OUTPUT_BYTES} bytes; list only the newest (`--latest 1`, `--last 1`)"
        )));
    }
    Ok(Output {
        status,
        stdout: out.bytes,
        last_error: err.last_line(),
    })
}

/// The program's name without its path; its arguments may hold secrets.
pub fn program(argv: &[String]) -> String {
    let first = argv.first().map_or("", String::as_str);
    Path::new(first)
        .file_name()
        .map_or_else(|| first.to_owned(), |n| n.to_string_lossy().into_owned())
}

fn start(argv: &[String]) -> io::Result<Child> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| io::Error::other("the command is empty"))?;
    Command::new(program)
        .args(arguments)
        .env("TZ", "UTC")
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn not_started(argv: &[String], e: &io::Error) -> String {
    let first = argv.first().map_or("", String::as_str);
    match e.kind() {
        io::ErrorKind::NotFound => {
            format!("cannot start {first}: not found; install it, or give its whole path")
        }
        io::ErrorKind::PermissionDenied => format!("cannot start {first}: permission denied"),
        _ => format!("cannot start {first}: {e}"),
    }
}

/// Waits for the end and reads meanwhile. False: it ended, but something of it still holds its pipes.
async fn finish(child: &mut Child, out: &mut Kept, err: &mut Kept) -> io::Result<(ExitStatus, bool)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(out.read(stdout), err.read(stderr)) };
    tokio::pin!(reading);
    tokio::select! {
        ((), ()) = &mut reading => Ok((child.wait().await?, true)),
        status = child.wait() => Ok((status?, timeout(AFTER_END, reading).await.is_ok())),
    }
}

async fn end(child: &mut Child, group: &mut Group) {
    group.signal(Signal::TERM);
    let went = timeout(KINDLY, child.wait()).await.is_ok();
    // Also when it went: something that it started may not have.
    group.signal(Signal::KILL);
    let went = went || timeout(AFTER_END, child.wait()).await.is_ok();
    if went {
        group.0 = None;
    }
}

/// What is kept of a stream; all of it is read, so that the writer never blocks.
struct Kept {
    bytes: Vec<u8>,
    limit: usize,
    keeps_tail: bool,
    is_over: bool,
}

impl Kept {
    fn head(limit: usize) -> Self {
        Self {
            bytes: Vec::new(),
            limit,
            keeps_tail: false,
            is_over: false,
        }
    }

    fn tail(limit: usize) -> Self {
        Self {
            keeps_tail: true,
            ..Self::head(limit)
        }
    }

    async fn read(&mut self, from: Option<impl AsyncRead + Unpin>) {
        let Some(mut from) = from else {
            return;
        };
        let mut buffer = vec![0; 16 * 1024];
        // A broken pipe ends the reading like an end does; the exit status tells the rest.
        while let Ok(n @ 1..) = from.read(&mut buffer).await {
            self.take(&buffer[..n]);
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.is_over |= self.bytes.len() + bytes.len() > self.limit;
        if self.keeps_tail {
            self.bytes.extend_from_slice(bytes);
            self.bytes.drain(..self.bytes.len().saturating_sub(self.limit));
        } else {
            let room = self.limit - self.bytes.len();
            self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// The last line with something on it, without secrets.
    fn last_line(&self) -> Option<String> {
        let text = redact(&String::from_utf8_lossy(&self.bytes));
        let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
        Some(
            line.chars()
                .filter(|c| !c.is_control())
                .take(LINE_CHARS)
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(str::to_owned).to_vec()
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn output_status_and_last_error() {
        let left = run(
            &sh("echo out; echo first >&2; echo 'password=hunter2 wrong' >&2; echo >&2; exit 12"),
            LONG,
        )
        .await
        .unwrap();
        assert_eq!(left.stdout, b"out\n");
        assert_eq!(left.status.code(), Some(12));
        assert_eq!(left.last_error.as_deref(), Some("password=[redacted] wrong"));
    }

    #[tokio::test]
    async fn times_are_printed_in_utc_and_nothing_is_asked() {
        let left = run(&sh("date +%Z; cat"), LONG).await.unwrap();
        assert_eq!(left.stdout, b"UTC\n");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_ended_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        // Neither of the two heeds SIGTERM.
        let script = format!(
            "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ >>{0}; while :; do sleep 1; done' & echo $$ >>{0}; echo waiting for lock >&2; while :; do sleep 1; done",
            pids.display()
        );
        let late = run(&sh(&script), Duration::from_millis(500)).await;
        assert!(
            matches!(&late, Err(Unseen::TimedOut(text)) if text.contains("500 ms") && text.contains("waiting for lock")),
            "{late:?}"
        );
        let pids = std::fs::read_to_string(pids).unwrap();
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines() {
            // What was killed dies when it next gets the processor.
            let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let gone = |stat: &str| stat.is_empty() || stat.contains(") Z ");
            for _ in 0..1000 {
                if gone(&stat()) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(gone(&stat()), "{pid} still runs: {}", stat());
        }
    }

    #[tokio::test]
    async fn giving_up_the_run_ends_the_command() {
        let dir = tempfile::tempdir().unwrap();
        let pid = dir.path().join("pid");
        let argv = sh(&format!(
            "echo $$ >{0}.new; mv {0}.new {0}; exec sleep 300",
            pid.display()
        ));
        let running = run(&argv, LONG);
        tokio::select! {
            _ = running => panic!("it ended"),
            () = async { while !pid.exists() { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
        }
        let number = std::fs::read_to_string(pid).unwrap();
        let stat = format!("/proc/{}/stat", number.trim());
        for _ in 0..200 {
            if std::fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z ")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it still runs");
    }

    #[tokio::test]
    async fn a_child_that_keeps_the_pipes_open_is_not_waited_for() {
        let left = run(&sh("sleep 300 & echo done"), LONG).await.unwrap();
        assert_eq!(
            (left.stdout.as_slice(), left.status.code()),
            (&b"done\n"[..], Some(0))
        );
    }

    #[tokio::test]
    async fn too_much_output_is_said() {
        let much = run(&sh("head -c 6000000 /dev/zero; echo"), LONG).await;
        assert!(
            matches!(&much, Err(Unseen::CommandFailed(text)) if text.contains("--latest 1")),
            "{much:?}"
        );
        let errors = run(&sh("head -c 3000000 /dev/zero >&2; echo last >&2"), LONG)
            .await
            .unwrap();
        assert!(errors.last_error.unwrap().ends_with("last"));
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_said() {
        let none = run(&["/no/such/restic".to_owned()], LONG).await;
        assert!(
            matches!(&none, Err(Unseen::CommandFailed(text)) if text.contains("not found")),
            "{none:?}"
        );
    }
}
