//! Running programs and touching files inside a box.
//!
//! It goes through `nsenter`: such a program sees the box, but is not in its cgroup, so it neither freezes with the box nor
//! counts as one of its services ([`TestBox::spawn`] does both).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::testbox::{PATH, TestBox};
use crate::clock::{self, secs};
use crate::exec::{self, Done};

impl TestBox {
    /// The running box's file tree as seen from the harness, /run and sockets included.
    pub fn root(&self) -> Result<PathBuf> {
        Ok(PathBuf::from(format!("/proc/{}/root", self.leader()?)))
    }

    /// A shell line as root inside, however it ends; killed after a minute.
    pub fn run(&self, line: &str) -> Result<Done> {
        self.run_within(line, exec::LIMIT)
    }

    /// [`TestBox::run`] with another limit.
    pub fn run_within(&self, line: &str, limit: Duration) -> Result<Done> {
        exec::run_with(
            self.inside(&["sh", "-c", line], limit)?.env("HOME", "/root"),
            &[],
            limit + secs(2),
        )
    }

    /// A shell line that must end with 0; its trimmed output.
    pub fn run_ok(&self, line: &str) -> Result<String> {
        self.run(line)?
            .ok()
            .with_context(|| format!("in {}", self.name()))
    }

    /// A shell line as a user of the box (a plain process, no login session).
    pub fn run_as(&self, user: &str, line: &str) -> Result<Done> {
        let argv = [
            "setpriv",
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--init-groups",
        ];
        let argv: Vec<&str> = argv.into_iter().chain(["sh", "-c", line]).collect();
        exec::run_with(
            self.inside(&argv, exec::LIMIT)?
                .env("HOME", format!("/home/{user}")),
            &[],
            exec::LIMIT,
        )
    }

    /// A shell line in the background, as a transient service `unit` of the box; it dies with the box.
    pub fn spawn(&self, unit: &str, line: &str) -> Result<()> {
        let run = self.inside(
            &["systemd-run", "-q", &format!("--unit={unit}"), "sh", "-c", line],
            exec::LIMIT,
        );
        exec::run(&mut run?)?.ok().map(drop)
    }

    /// Writes a file, running or not; `owner` as chown takes it.
    pub fn write_file(&self, path: &str, mode: u32, owner: &str, content: impl AsRef<[u8]>) -> Result<()> {
        if !self.is_on() {
            return self.disk.write(path, mode, owner, content.as_ref());
        }
        let script = r#"mkdir -p "$(dirname "$1")" && rm -f "$1" && (umask 077; cat >"$1") && chown "$3" "$1" && chmod "$2" "$1""#;
        let argv = ["sh", "-c", script, "write", path, &format!("{mode:o}"), owner];
        exec::run_with(
            &mut self.inside(&argv, exec::LIMIT)?,
            content.as_ref(),
            exec::LIMIT,
        )?
        .ok()
        .map(drop)
    }

    /// Reads a file of the running box.
    pub fn read_file(&self, path: &str) -> Result<String> {
        exec::run(&mut self.inside(&["cat", "--", path], exec::LIMIT)?)?.ok()
    }

    /// A property of a unit, as `systemctl show` prints it.
    pub fn unit(&self, unit: &str, property: &str) -> Result<String> {
        exec::run(&mut self.inside(&["systemctl", "show", "-P", property, unit], exec::LIMIT)?)?.ok()
    }

    /// Waits until the shell line ends with 0 inside.
    pub fn wait_until(&self, line: &str, limit: Duration) -> Result<Duration> {
        let what = format!("`{line}` in {}", self.name());
        clock::wait_until(&what, limit, || self.run(line).is_ok_and(|done| done.success()))
    }

    /// A path on its disk as seen from the harness (not under /run or /tmp).
    pub fn disk_path(&self, path: &str) -> PathBuf {
        self.disk.inside(path)
    }

    fn inside(&self, argv: &[&str], limit: Duration) -> Result<Command> {
        let leader = self.leader()?;
        let mut command = Command::new("nsenter");
        command.args(["-t", &leader.to_string(), "-a", "-r", "-w", "--"]);
        // nsenter forks to enter the PID namespace: killing it from outside would leave the program running inside.
        command
            .args(["timeout", "-s", "KILL", &limit.as_secs_f64().to_string()])
            .args(argv);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .current_dir("/");
        Ok(command)
    }
}

/// A command inside must have failed.
pub fn must_be_refused(done: &Done) -> Result<()> {
    ensure!(!done.success(), "`{}` was allowed:\n{}", done.line, done.stdout);
    Ok(())
}
