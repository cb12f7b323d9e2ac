//! Runs the scenarios: several at once, each bounded, with a line per scenario and one summary.
//!
//! - [`isolate`]: a scenario as a process in namespaces of its own
//! - [`needs`]: what this machine can offer
//! - [`debian`]: programs out of Debian packages that are not installed
//! - [`schedule`]: which runs when
//! - [`outcome`]: how one ended
//! - [`report`]: what a person, or a program, reads

pub mod debian;
pub mod isolate;
pub mod needs;
pub mod outcome;
pub mod report;
pub mod schedule;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::scenario::Scenario;
use crate::{bench, lab, programs, scenarios};
use report::Report;

/// Runs the product's programs on real booted machines.
#[derive(Debug, Parser)]
#[command(name = "fleet-tests")]
pub struct Args {
    /// Only scenarios whose name contains this (may be given again).
    #[arg(long)]
    filter: Vec<String>,
    /// How many run at once; default: four for each processor, since most of them mostly wait.
    #[arg(long)]
    jobs: Option<usize>,
    /// Names them, with what they need, and runs none.
    #[arg(long)]
    list: bool,
    /// One JSON object on standard output at the end; progress goes to standard error.
    #[arg(long)]
    json: bool,
    /// The programs are built already.
    #[arg(long)]
    no_build: bool,
    /// The measurements instead, on release builds.
    #[arg(long)]
    bench: bool,
    #[arg(long, hide = true, requires = "dir")]
    inner: Option<String>,
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
}

/// The whole of it.
pub fn main(args: &Args) -> Result<ExitCode> {
    let all = [scenarios::all(), bench::ALL.to_vec()].concat();
    if let (Some(name), Some(dir)) = (&args.inner, &args.dir) {
        let scenario = all
            .into_iter()
            .find(|scenario| scenario.name == name)
            .context("no such scenario")?;
        return isolate::inner(scenario, dir);
    }
    let chosen: Vec<Scenario> = all
        .into_iter()
        .filter(|scenario| scenario.name.starts_with("bench::") == args.bench)
        .filter(|scenario| {
            args.filter.is_empty() || args.filter.iter().any(|part| scenario.name.contains(&**part))
        })
        .collect();
    if args.list {
        report::list(&chosen);
        return Ok(ExitCode::SUCCESS);
    }
    if !args.no_build {
        programs::build(args.bench)?;
    }
    let dir = log_dir()?;
    let copies = dir.join("programs");
    programs::copy_to(&copies, args.bench)?;
    lab::remove_leftovers();
    let offer = needs::prepare(&chosen);
    let jobs = args.jobs.unwrap_or_else(default_jobs);
    let environment = (
        programs::DIR_VAR.to_owned(),
        copies.to_string_lossy().into_owned(),
    );
    let report = Report::new(&chosen, &dir);
    schedule::run(chosen, &offer, &[environment], jobs.max(1), &report)?;
    lab::remove_leftovers();
    Ok(report.finish(args.json))
}

/// Four for each processor: most scenarios mostly wait. (Their boxes have a limit of their own, see [`schedule`].)
fn default_jobs() -> usize {
    4 * std::thread::available_parallelism().map_or(2, usize::from)
}

/// `target/fleet-tests`, emptied: the logs of the last run.
fn log_dir() -> Result<PathBuf> {
    let dir = std::env::current_exe()?
        .parent()
        .and_then(|profile| profile.parent())
        .context("cargo's layout")?
        .join("fleet-tests");
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("cannot empty {}", dir.display()))?;
    }
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
