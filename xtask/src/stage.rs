//! One step of a longer run: its heading, its time, and what it counted; and the summary over all of them.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// What one stage found.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many held.
    pub passed: usize,
    /// Names of those that did not.
    pub failed: Vec<String>,
    /// Names, with the reason, of those that did not run.
    pub skipped: Vec<String>,
}

impl Tally {
    /// For a step that is one check: it held, or the line that mends it.
    pub(crate) fn single(held: bool, fix: &str) -> Self {
        if held {
            Self {
                passed: 1,
                ..Self::default()
            }
        } else {
            Self {
                failed: vec![fix.to_owned()],
                ..Self::default()
            }
        }
    }
}

/// A run of stages.
#[derive(Debug)]
pub(crate) struct Stages {
    start: Instant,
    done: Vec<(&'static str, Duration, Tally)>,
}

impl Stages {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            start: now(),
            done: Vec::new(),
        }
    }

    /// Runs a stage, with the seconds since the start in its heading.
    pub(crate) fn run(&mut self, name: &'static str, stage: impl FnOnce() -> anyhow::Result<Tally>) {
        eprintln!("\n== {name} (at {:.0} s)", self.start.elapsed().as_secs_f64());
        let start = now();
        let failed = |err: anyhow::Error| Tally {
            failed: vec![format!("{err:#}")],
            ..Tally::default()
        };
        let tally = stage().unwrap_or_else(failed);
        self.done.push((name, start.elapsed(), tally));
    }

    /// A table of the stages, every failure and skip by name, and the closing line `N passed, N failed, N skipped`.
    /// With `CI=true` a skip is a failure.
    pub(crate) fn finish(mut self) -> ExitCode {
        if std::env::var("CI").is_ok_and(|value| value == "true" || value == "1") {
            for (_, _, tally) in &mut self.done {
                let skipped = tally.skipped.drain(..);
                tally
                    .failed
                    .extend(skipped.map(|name| format!("{name} (skipped; CI allows no skip)")));
            }
        }
        eprintln!("\n== summary (at {:.0} s)", self.start.elapsed().as_secs_f64());
        for (name, took, tally) in &self.done {
            let word = if tally.failed.is_empty() {
                "ok    "
            } else {
                "FAILED"
            };
            let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
            let secs = took.as_secs_f64();
            eprintln!("{word} {secs:6.1} s  {name}: {passed} passed, {failed} failed, {skipped} skipped");
        }
        self.name_all("skipped", |tally| &tally.skipped);
        self.name_all("failed", |tally| &tally.failed);
        let sum =
            |count: fn(&Tally) -> usize| self.done.iter().map(|(_, _, tally)| count(tally)).sum::<usize>();
        let failed = sum(|tally| tally.failed.len());
        let (passed, skipped) = (sum(|tally| tally.passed), sum(|tally| tally.skipped.len()));
        println!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn name_all(&self, word: &str, names: fn(&Tally) -> &Vec<String>) {
        for (stage, _, tally) in &self.done {
            for name in names(tally) {
                eprintln!("{word}: {stage}: {name}");
            }
        }
    }
}

/// `cargo` with these arguments, at the root of the repository.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(repository());
    command
}

/// The root of the repository.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

#[expect(clippy::disallowed_methods, reason = "a chore shows how long its steps take")]
fn now() -> Instant {
    Instant::now()
}
