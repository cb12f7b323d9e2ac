//! What a person reads while and after the scenarios run, and the same as JSON for a program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::outcome::{Outcome, Verdict};
use crate::clock;
use crate::scenario::{Need, Scenario};

/// Collects the ends and prints a line for each; safe to use from every worker.
#[derive(Debug)]
pub struct Report {
    dir: PathBuf,
    total: usize,
    start: Instant,
    no_skips: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<&'static str, Instant>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    secs: f64,
    #[serde(flatten)]
    verdict: Verdict,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    passed: usize,
    failed: usize,
    skipped: usize,
    secs: f64,
    scenarios: &'a [Row],
}

impl Report {
    /// For a run of `scenarios` with logs below `dir`. With `CI=true` a skip is a failure.
    pub fn new(scenarios: &[Scenario], dir: &Path) -> Self {
        let no_skips = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
        Self {
            dir: dir.to_owned(),
            total: scenarios.len(),
            start: clock::now(),
            no_skips,
            state: Mutex::default(),
        }
    }

    /// Where a scenario's logs go.
    pub fn dir_of(&self, scenario: &Scenario) -> PathBuf {
        self.dir.join(scenario.name.replace("::", "."))
    }

    /// A scenario starts.
    pub fn started(&self, scenario: &Scenario) {
        self.state().running.insert(scenario.name, clock::now());
    }

    /// A scenario has ended: one line, and its log if it failed.
    pub fn ended(&self, scenario: &Scenario, verdict: Verdict, took: Duration) {
        let verdict = self.judged(verdict);
        let mut state = self.state();
        state.running.remove(scenario.name);
        let place = format!("{:>3}/{}", state.rows.len() + 1, self.total);
        let secs = took.as_secs_f64();
        match &verdict.outcome {
            Outcome::Passed => eprintln!("{place}  ok      {secs:6.1} s  {}", scenario.name),
            Outcome::Skipped { why } => eprintln!("{place}  skipped           {}: {why}", scenario.name),
            Outcome::Failed { why } => {
                let dir = self.dir_of(scenario);
                let log = fs::read(dir.join("scenario.log")).unwrap_or_default();
                eprintln!("{place}  FAILED  {secs:6.1} s  {}", scenario.name);
                eprintln!(
                    "{}\n    {}\n    all logs: {}",
                    String::from_utf8_lossy(&log).trim_end(),
                    why.lines().next().unwrap_or_default(),
                    dir.display()
                );
            }
        }
        for (name, value) in &verdict.figures {
            eprintln!("                          {name}: {value}");
        }
        Self::say_what_runs(&state);
        state.rows.push(Row {
            name: scenario.name,
            secs,
            verdict,
        });
    }

    /// The summary; the closing line is `N passed, N failed, N skipped`.
    pub fn finish(&self, json: bool) -> ExitCode {
        let state = self.state();
        let count = |wanted: fn(&Outcome) -> bool| {
            state
                .rows
                .iter()
                .filter(|row| wanted(&row.verdict.outcome))
                .count()
        };
        let passed = count(|outcome| matches!(outcome, Outcome::Passed));
        let failed = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
        let skipped = count(|outcome| matches!(outcome, Outcome::Skipped { .. }));
        for row in &state.rows {
            match &row.verdict.outcome {
                Outcome::Passed => {}
                Outcome::Failed { why } => {
                    eprintln!("failed: {}: {}", row.name, why.lines().next().unwrap_or_default());
                }
                Outcome::Skipped { why } => eprintln!("skipped: {}: {why}", row.name),
            }
        }
        let secs = self.start.elapsed().as_secs_f64();
        if json {
            let whole = Whole {
                passed,
                failed,
                skipped,
                secs,
                scenarios: &state.rows,
            };
            println!("{}", serde_json::to_string(&whole).unwrap_or_default());
        }
        eprintln!("in {secs:.0} s");
        eprintln!("{passed} passed, {failed} failed, {skipped} skipped");
        if failed == 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn judged(&self, verdict: Verdict) -> Verdict {
        match verdict.outcome {
            Outcome::Skipped { why } if self.no_skips => Verdict {
                outcome: Outcome::Failed {
                    why: format!("skipped: {why} (CI allows no skip)"),
                },
                ..verdict
            },
            Outcome::Passed | Outcome::Failed { .. } | Outcome::Skipped { .. } => verdict,
        }
    }

    fn say_what_runs(state: &State) {
        let waited_long = |since: &Instant| since.elapsed().as_secs() >= 30;
        let long = state.running.iter().filter(|(_, since)| waited_long(since));
        let names: Vec<String> = long
            .map(|(name, since)| format!("{name} ({} s)", since.elapsed().as_secs()))
            .collect();
        if !names.is_empty() {
            eprintln!("         still running: {}", names.join(", "));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line per scenario: its name, its rough seconds, its needs.
pub fn list(scenarios: &[Scenario]) {
    for scenario in scenarios {
        let needs: Vec<&str> = scenario.needs.iter().copied().map(Need::word).collect();
        println!(
            "{:<60} {:>4} s  {}",
            scenario.name,
            scenario.rough_secs,
            needs.join(" ")
        );
    }
}
