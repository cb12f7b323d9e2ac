//! `./dev test`: every check there is, cheapest first, and one summary over all of them.
//!
//! It goes on after a failure, so that one run shows everything that is wrong.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::sim;
use crate::stage::{Stages, Tally, cargo};

/// By what name the schedules of faults are asked for alone.
const FAULTS: &str = "faults";
/// The same seeds each time; more, and others, by `cargo xtask faults`.
const FAULT_ARGS: [&str; 5] = ["--seed", "1", "--count", "20", "--json"];

/// The stage of the simulated years; `cargo xtask sim` for more of them.
const SIMULATION: &str = "detector over box-years";

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without the scenarios on booted machines
    #[arg(long)]
    quick: bool,
    /// Only tests and scenarios whose name contains this; without format and lints
    filter: Option<String>,
}

/// Runs the stages.
pub(crate) fn run(args: &Args) -> ExitCode {
    let mut stages = Stages::new();
    let filter = args.filter.as_deref();
    if filter.is_none() {
        stages.run("format", || {
            one(
                &["fmt", "--all", "--check"],
                "the format is not rustfmt's; mend by: cargo fmt --all",
            )
        });
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        stages.run("lints", || one(&clippy, "clippy complains, see above"));
    }
    stages.run("unit and integration tests", || unit_tests(filter));
    if !args.quick {
        if filter.is_none_or(|filter| SIMULATION.contains(filter)) {
            stages.run(SIMULATION, simulation);
        }
        if filter.is_none_or(|filter| FAULTS.contains(filter)) {
            stages.run("schedules of faults", || rows("fleet-faults", &FAULT_ARGS));
        }
        stages.run("scenarios on booted machines", || scenarios(filter));
    }
    stages.finish()
}

/// A few hundred box-years, always the same.
fn simulation() -> Result<Tally> {
    let status = sim::command(&["--quick"]).stdout(Stdio::null()).status();
    let fix =
        "an invariant of the detector does not hold; see: cargo xtask sim --quick --shrink failing.json";
    Ok(Tally::single(
        status.context("cannot start cargo")?.success(),
        fix,
    ))
}

/// A cargo command that either holds or does not.
fn one(args: &[&str], fix: &str) -> Result<Tally> {
    let status = cargo(args).status().context("cannot start cargo")?;
    Ok(Tally::single(status.success(), fix))
}

fn unit_tests(filter: Option<&str>) -> Result<Tally> {
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
    command.args(filter);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("its output is piped")?).lines() {
        let line = line?;
        if !count(&line, &mut tally) && worth_showing(&line) {
            eprintln!("{line}");
        }
    }
    if !child.wait()?.success() && tally.failed.is_empty() {
        tally
            .failed
            .push("cargo test failed before it ran all tests, see above".to_owned());
    }
    Ok(tally)
}

/// Counts a line of libtest's; whether it was one that only says `ok`.
fn count(line: &str, tally: &mut Tally) -> bool {
    let Some((name, result)) = line
        .strip_prefix("test ")
        .and_then(|rest| rest.rsplit_once(" ... "))
    else {
        return false;
    };
    if result == "ok" {
        tally.passed += 1;
    } else if let Some(reason) = result.strip_prefix("ignored") {
        tally.skipped.push(format!("{name}{}", reason.replace(',', ":")));
    } else {
        tally.failed.push(name.to_owned());
        return false;
    }
    true
}

fn worth_showing(line: &str) -> bool {
    !line.is_empty() && line != "running 0 tests" && !line.starts_with("test result: ok. 0 passed")
}

#[derive(Debug, Deserialize)]
struct Whole {
    scenarios: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    name: String,
    outcome: String,
    why: Option<String>,
}

/// The scenarios whose name contains `filter`.
fn scenarios(filter: Option<&str>) -> Result<Tally> {
    let mut args = vec!["--json", "--no-build"];
    if let Some(filter) = filter {
        args.extend(["--filter", filter]);
    }
    rows("fleet-tests", &args)
}

/// A program of the `tests` crate that shows its own progress, and tells its results as JSON.
fn rows(program: &str, args: &[&str]) -> Result<Tally> {
    // All of the workspace's programs at once: each package alone would build the dependencies anew with its own features.
    if !cargo(&["build", "--workspace", "--bins"]).status()?.success() {
        return Ok(Tally::single(
            false,
            "cargo could not build the programs, see above",
        ));
    }
    let runner = std::env::current_exe()?.with_file_name(program);
    // It ends with this process, however that ends, and its machines with it.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(&runner).args(args);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {}", runner.display()))?;
    let whole: Whole =
        serde_json::from_slice(&output.stdout).context("the runner ended without a result, see above")?;
    let mut tally = Tally::default();
    for row in whole.scenarios {
        let why = row.why.unwrap_or_default();
        let why = why.lines().next().unwrap_or_default();
        match &*row.outcome {
            "passed" => tally.passed += 1,
            "skipped" => tally.skipped.push(format!("{}: {why}", row.name)),
            _ => tally.failed.push(format!("{}: {why}", row.name)),
        }
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_counted_by_name() {
        let mut tally = Tally::default();
        let lines = [
            "running 4 tests",
            "test a::b ... ok",
            "test a::c - should panic ... ok",
            "test a::d ... ignored, needs a network",
            "test a::e ... FAILED",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored",
        ];
        let silent: Vec<bool> = lines.iter().map(|line| count(line, &mut tally)).collect();
        assert_eq!(silent, [false, true, true, true, false, false]);
        assert_eq!(tally.passed, 2);
        assert_eq!(tally.failed, ["a::e"]);
        assert_eq!(tally.skipped, ["a::d: needs a network"]);
    }
}
