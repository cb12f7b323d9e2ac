//! `cargo xtask sim`: runs the simulation and prints its report. What it prints on standard output is the same byte for
//! byte for the same seed and size; progress and clock time go to standard error.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use fleet_detection::campaign::{Campaign, FLEET_DAYS};
use fleet_detection::fleet::{Fleet, Setup};
use fleet_detection::profile::{MAIN, PROFILES, Profile};
use fleet_detection::report::Outcome;
use fleet_detection::schedule::{Fault, draw};
use fleet_detection::shrink::shrink;
use fleet_detection::{docs, invariants};
use serde::{Deserialize, Serialize};

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask sim",
    about = "The detector over box-years of seeded weather"
)]
struct Args {
    /// All chance comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Box-years of each profile, with a witness and without one each
    #[arg(long, default_value_t = 1200)]
    box_years: u64,
    /// datacentre, home, mixed (lines that differ), small (two boxes), or all
    #[arg(long, default_value = "all")]
    profile: String,
    /// Only with a witness, or only without one
    #[arg(long)]
    witness: Option<bool>,
    /// The server does not ask for its own way out ([witness] self = [])
    #[arg(long)]
    no_own: bool,
    /// Only this fleet of each profile, as the report names it
    #[arg(long)]
    fleet: Option<u64>,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// A few hundred box-years
    #[arg(long)]
    quick: bool,
    /// Replays one schedule from a file
    #[arg(long)]
    schedule: Option<PathBuf>,
    /// Shortens the schedule of the first thing that should not have been, and writes it to this file
    #[arg(long)]
    shrink: Option<PathBuf>,
    /// Brings the figures and plots of docs/detection.md up to date (in the directory of the repository)
    #[arg(long)]
    write_docs: bool,
}

/// A schedule as written down.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    profile: String,
    witness: bool,
    own: bool,
    seed: u64,
    fleet: u64,
    days: f64,
    faults: Vec<Fault>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(path) = &args.schedule {
        return replay(path);
    }
    let profiles: Vec<&Profile> = PROFILES
        .iter()
        .filter(|profile| args.profile == "all" || args.profile == profile.name)
        .collect();
    anyhow::ensure!(
        !profiles.is_empty(),
        "no profile {:?}; there are datacentre, home, mixed, small, all",
        args.profile
    );
    let mut outcomes = Vec::new();
    for profile in profiles {
        for witness in [true, false] {
            // The two others show one thing each; both together only if asked for.
            let default = witness || MAIN.contains(profile);
            if args.witness.map_or(default, |only| only == witness) {
                outcomes.push(run(&args, profile, witness));
            }
        }
    }
    print(&args, &outcomes)?;
    if args.write_docs {
        docs::write(Path::new("."), &outcomes)?;
    }
    if let Some(path) = &args.shrink {
        shorten(path, &outcomes)?;
    }
    let broken: Vec<String> = outcomes.iter().flat_map(invariants::broken).collect();
    for line in &broken {
        eprintln!("broken: {line}");
    }
    Ok(if broken.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell that says how long a run took"
)]
fn run<'a>(args: &Args, profile: &'a Profile, witness: bool) -> Outcome<'a> {
    let box_years = if args.quick { 120 } else { args.box_years };
    let boxes = u64::from(profile.sites * profile.boxes_per_site);
    let campaign = Campaign {
        profile,
        witness,
        own: !args.no_own,
        seed: args.seed,
        first: args.fleet.unwrap_or(0),
        fleets: args.fleet.map_or(box_years.div_ceil(boxes), |_| 1),
        days: FLEET_DAYS,
    };
    let began = Instant::now();
    let done = AtomicU64::new(0);
    let sum = campaign.run(|_| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        eprint!(
            "\r{}{}: {done} of {} fleets, {:.0} s ",
            profile.name,
            if witness { " with a witness" } else { "" },
            campaign.fleets,
            began.elapsed().as_secs_f64()
        );
    });
    let secs = began.elapsed().as_secs_f64();
    let per_minute = (campaign.fleets * boxes) as f64 / secs * 60.0;
    eprintln!("done: {per_minute:.0} box-years a minute");
    Outcome { campaign, sum }
}

fn print(args: &Args, outcomes: &[Outcome<'_>]) -> Result<()> {
    if args.json {
        let all: Vec<_> = outcomes.iter().map(Outcome::json).collect();
        println!("{}", serde_json::to_string_pretty(&all)?);
        return Ok(());
    }
    for outcome in outcomes {
        println!("## {}\n\n{}", outcome.heading(), outcome.table());
        let mut kinds: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (fleet, one) in &outcome.sum.strange {
            let place = format!("fleet {fleet} box {} at {:.3} s", one.of, one.at_secs);
            kinds.entry(one.what).or_default().push(place);
        }
        for (what, places) in kinds {
            println!(
                "- {what}: {} ({})",
                places.len(),
                places[..places.len().min(3)].join("; ")
            );
        }
        println!(
            "- allowed silence at the end of the year, by boxes: {}\n",
            allowed(&outcome.sum.allowed_secs)
        );
    }
    Ok(())
}

fn allowed(by_secs: &[u64]) -> String {
    let mut text = String::new();
    for (secs, boxes) in by_secs.iter().enumerate().filter(|(_, boxes)| **boxes > 0) {
        let _ = write!(text, "{secs} s: {boxes}; ");
    }
    text
}

fn shorten(path: &Path, outcomes: &[Outcome<'_>]) -> Result<()> {
    let first = outcomes.iter().find_map(|outcome| {
        outcome
            .sum
            .strange
            .first()
            .map(|(fleet, one)| (outcome, *fleet, one))
    });
    let Some((outcome, fleet, strange)) = first else {
        eprintln!("nothing strange to shorten");
        return Ok(());
    };
    let campaign = &outcome.campaign;
    let all = draw(campaign.profile, campaign.seed, fleet, campaign.days);
    let faults = shrink(campaign, fleet, &all, strange);
    eprintln!(
        "{}: {} faults of {} are enough",
        strange.what,
        faults.len(),
        all.len()
    );
    let written = Written {
        profile: campaign.profile.name.to_owned(),
        witness: campaign.witness,
        own: campaign.own,
        seed: campaign.seed,
        fleet,
        days: (strange.at_secs + 3600.0) / fleet_detection::schedule::DAY_SECS,
        faults,
    };
    std::fs::write(path, serde_json::to_string_pretty(&written)?)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn replay(path: &Path) -> Result<ExitCode> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let written: Written =
        serde_json::from_str(&text).with_context(|| format!("{} is no schedule", path.display()))?;
    let profile = PROFILES.iter().find(|profile| profile.name == written.profile);
    let record = Fleet::run(Setup {
        profile: profile.context("no such profile")?,
        witness: written.witness,
        own: written.own,
        seed: written.seed,
        fleet: written.fleet,
        days: written.days,
        faults: &written.faults,
    });
    for fault in &written.faults {
        println!(
            "{:12.3} s for {:8.3} s: {:?}",
            fault.at_secs, fault.for_secs, fault.what
        );
    }
    for one in &record.strange {
        println!("{:12.3} s: box {}: {}", one.at_secs, one.of, one.what);
    }
    Ok(if record.strange.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
