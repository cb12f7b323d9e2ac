//! Runs one program to its end, within a limit, and keeps all it said.
//!
//! No shell unless the caller asks for one; output goes through files, so that a grandchild which keeps a pipe open
//! cannot hang the harness.

use std::io::{Read, Seek, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock;

/// Unless a caller says otherwise.
pub const LIMIT: Duration = clock::secs(60);

/// How a program ended.
#[derive(Debug)]
pub struct Done {
    /// What was run, for messages.
    pub line: String,
    /// Its end.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Done {
    /// Exit status 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// Exit code; -1 when a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }

    /// Its trimmed standard output if it ended with 0; otherwise an error that shows everything.
    pub fn ok(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout.trim().to_owned());
        }
        bail!(
            "`{}` ended with {}\n{}{}",
            self.line,
            self.status,
            self.stdout,
            self.stderr
        )
    }
}

/// Runs `command` with `stdin` as its input; kills it after `limit`, which is an error.
pub fn run_with(command: &mut Command, stdin: &[u8], limit: Duration) -> Result<Done> {
    let line = spoken(command);
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut input = tempfile::tempfile()?;
    input.write_all(stdin)?;
    input.rewind()?;
    command
        .stdin(input)
        .stdout(Stdio::from(out.try_clone()?))
        .stderr(Stdio::from(err.try_clone()?));
    let start = clock::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let ended = clock::wait_for(&line, limit, || child.try_wait().transpose());
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let took = start.elapsed();
    let (stdout, stderr) = (text_of(&mut out)?, text_of(&mut err)?);
    match ended {
        Ok(status) => Ok(Done {
            line,
            status: status?,
            stdout,
            stderr,
            took,
        }),
        Err(late) => Err(late.context(format!("it had said:\n{stdout}{stderr}"))),
    }
}

/// [`run_with`] without input, within [`LIMIT`].
pub fn run(command: &mut Command) -> Result<Done> {
    run_with(command, &[], LIMIT)
}

/// A program by name and arguments; its trimmed output, or an error that shows everything.
pub fn ok(program: &str, args: &[&str]) -> Result<String> {
    run(Command::new(program).args(args))?.ok()
}

/// Whether a program of this name is on the search path (or in the sbin directories that a user's path leaves out).
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin"])
        .any(|dir| std::path::Path::new(dir).join(program).is_file())
}

fn spoken(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

fn text_of(file: &mut std::fs::File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
