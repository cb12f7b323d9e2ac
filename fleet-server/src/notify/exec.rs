//! The shell that runs an operator's program: its own process group, an empty environment but for [`KEPT`], the
//! notification on its standard input, and a bounded look at what it writes.
//!
//! When it ends, is too slow, or nobody waits for it any more, its whole group is killed: nothing stays behind.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::receivers::CommandRequest;
use super::receivers::answer::{ExitAnswer, one_line};
use super::retry::SendError;

/// What of the server's environment a program sees. Not systemd's sockets: it must not speak for the server.
const KEPT: [&str; 4] = ["PATH", "HOME", "LANG", "TZ"];
/// How much of what it writes is kept, bytes; the rest is read and dropped, so that it never stands still.
const OUTPUT_BYTES: usize = 4096;
/// How long to wait for what is still in the pipes after it ended.
const DRAIN: std::time::Duration = std::time::Duration::from_millis(200);

/// Runs `request` to its end.
pub async fn run(request: &CommandRequest) -> Result<ExitAnswer, SendError> {
    let (mut child, _group) = start(request)?;
    let stdin = child.stdin.take();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read it may well be right.
            let _ = stdin.write_all(&request.stdin).await;
        }
    };
    let ended = {
        let read = async { tokio::join!(bounded(stdout, &mut out), bounded(stderr, &mut err), feed) };
        tokio::pin!(read);
        let whole = async {
            tokio::select! {
                status = child.wait() => {
                    // A grandchild may hold the pipes open.
                    let _ = tokio::time::timeout(DRAIN, &mut read).await;
                    status
                }
                _ = &mut read => child.wait().await,
            }
        };
        tokio::time::timeout(request.timeout, whole).await
    };
    let status = match ended {
        Ok(Ok(status)) => status,
        Ok(Err(err)) => return Err(SendError::unavailable(format!("cannot wait for it: {err}"))),
        Err(_) => {
            let limit = humantime::format_duration(request.timeout);
            let text = format!("did not end within {limit} and was killed, with all it had started");
            return Err(SendError::unavailable(text));
        }
    };
    let said = if err.is_empty() { &out } else { &err };
    Ok(ExitAnswer {
        code: status.code(),
        output: one_line(&String::from_utf8_lossy(said)),
    })
}

fn start(request: &CommandRequest) -> Result<(Child, Group), SendError> {
    let (program, arguments) = request
        .argv
        .split_first()
        .ok_or_else(|| SendError::unavailable("no program"))?;
    let kept = KEPT
        .iter()
        .filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(kept)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = child.map_err(|err| SendError::Denied {
        text: format!(
            "cannot be started: {err}; it must be there, and the server's user must be able to run it"
        ),
    })?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    Ok((child, Group(group)))
}

/// Reads to the end and keeps the start.
async fn bounded(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT_BYTES - into.len();
        into.extend_from_slice(&buffer[..n.min(room)]);
    }
}

/// A process group that does not outlive this value.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests;
