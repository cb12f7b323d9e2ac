//! Many schedules beside each other, each a process of its own in namespaces of its own; a line for each, and what a
//! failed one was, made small.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::{Deserialize, Serialize};

use super::history::History;
use super::oracle::{self, Rule, Violation};
use super::schedule::Schedule;
use super::shrink::shrink;
use super::tamper::Tamper;
use super::{driver, history};
use crate::clock::{self, secs};
use crate::genuine::sickdisk;
use crate::lab;
use crate::programs;
use crate::runner::isolate;

/// A schedule's process is ended after this.
const LIMIT: Duration = secs(180);
/// A process that did not get round to its work for so long proves nothing: it is played again …
const STARVED_MS: i64 = 250;
/// … or for such a share of its time …
const STARVED_PERCENT: i64 = 30;
/// … so often.
const AGAIN: u32 = 3;
/// Failed schedules that are made small; the others are only named.
const SHRUNK: u64 = 2;

/// Plays random schedules of faults against the real server, and judges what was seen from outside.
#[derive(Debug, Parser)]
#[command(name = "fleet-faults")]
pub struct Args {
    /// The first schedule's seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many schedules, of this seed and those after it
    #[arg(long, default_value_t = 20)]
    count: u64,
    /// So many at once; default: five for each processor, since they mostly wait
    #[arg(long)]
    jobs: Option<usize>,
    /// One JSON object on standard output at the end; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Plays this schedule (as a failed one's directory holds it) instead of a seed's
    #[arg(long, value_name = "FILE")]
    schedule: Option<PathBuf>,
    /// Do not make failed schedules small
    #[arg(long)]
    no_shrink: bool,
    /// Spoil what was seen before it is judged, to see that it is found
    #[arg(long, hide = true)]
    tamper: Option<Tamper>,
    #[arg(long, hide = true, requires_all = ["dir", "library"])]
    inner: Option<PathBuf>,
    #[arg(long, hide = true)]
    dir: Option<PathBuf>,
    #[arg(long, hide = true)]
    library: Option<PathBuf>,
}

/// What one schedule's process leaves behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Outcome {
    violations: Vec<Violation>,
    /// It could not be played.
    broken: Option<String>,
    starved_ms: i64,
    starved_percent: i64,
    incidents: usize,
    notifications: usize,
    repeats: usize,
    restarts: usize,
    secs: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    outcome: &'static str,
    why: Option<String>,
    schedule: String,
    secs: f64,
}

#[derive(Debug, Default, Serialize)]
struct Whole {
    passed: usize,
    failed: usize,
    skipped: usize,
    played_again: u64,
    incidents: usize,
    notifications: usize,
    repeats: usize,
    restarts: usize,
    secs: f64,
    scenarios: Vec<Row>,
}

/// What every schedule's process needs.
struct Rig {
    dir: PathBuf,
    program: PathBuf,
    library: PathBuf,
    tamper: Option<Tamper>,
    places: AtomicU64,
    again: AtomicU64,
}

/// The whole of it.
pub fn main(args: &Args) -> Result<ExitCode> {
    if let (Some(schedule), Some(dir), Some(library)) = (&args.inner, &args.dir, &args.library) {
        return inner(schedule, dir, library, args.tamper);
    }
    let schedules = schedules(args)?;
    let start = clock::now();
    let mut whole = match usable() {
        Ok(()) => play_all(args, &schedules)?,
        Err(err) => skipped(&schedules, &format!("{err:#}")),
    };
    whole.secs = start.elapsed().as_secs_f64();
    if args.json {
        println!("{}", serde_json::to_string(&whole)?);
    }
    eprintln!(
        "{} incidents, {} notifications, {} repeats with a reason, {} restarts; {} schedules played again because this \
         machine had no time",
        whole.incidents, whole.notifications, whole.repeats, whole.restarts, whole.played_again
    );
    eprintln!("in {:.0} s", whole.secs);
    eprintln!(
        "{} passed, {} failed, {} skipped",
        whole.passed, whole.failed, whole.skipped
    );
    Ok(if whole.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn schedules(args: &Args) -> Result<Vec<Schedule>> {
    if let Some(path) = &args.schedule {
        let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let one: Schedule = serde_json::from_slice(&text).context("it is no schedule")?;
        return Ok((0..args.count).map(|_| one.clone()).collect());
    }
    Ok((args.seed..args.seed + args.count).map(Schedule::of).collect())
}

/// Namespaces, cables and mounts need root.
fn usable() -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "each schedule has a network and a disk of its own; run as root"
    );
    ensure!(crate::exec::installed("ip"), "ip is missing (package iproute2)");
    isolate::usable()
}

fn skipped(schedules: &[Schedule], why: &str) -> Whole {
    let row = |schedule: &Schedule| Row {
        name: name(schedule),
        outcome: "skipped",
        why: Some(why.to_owned()),
        schedule: schedule.to_string(),
        secs: 0.0,
    };
    Whole {
        skipped: schedules.len(),
        scenarios: schedules.iter().map(row).collect(),
        ..Whole::default()
    }
}

fn play_all(args: &Args, schedules: &[Schedule]) -> Result<Whole> {
    let rig = Rig::new(args.tamper)?;
    let whole = Mutex::new(Whole::default());
    let next = AtomicU64::new(0);
    let jobs = args
        .jobs
        .unwrap_or_else(default_jobs)
        .clamp(1, schedules.len().max(1));
    let failed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(schedule) = schedules.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let outcome = rig.play_fairly(schedule);
                    report(&outcome, schedule);
                    if outcome.bad() && !args.no_shrink && failed.fetch_add(1, Ordering::Relaxed) < SHRUNK {
                        rig.make_small(schedule, &outcome);
                    }
                    add(
                        &mut whole.lock().unwrap_or_else(PoisonError::into_inner),
                        &outcome,
                        schedule,
                    );
                }
            });
        }
    });
    let mut whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
    whole.played_again = rig.again.load(Ordering::Relaxed);
    if whole.failed == 0 {
        let _ = fs::remove_dir_all(&rig.dir);
    }
    Ok(whole)
}

fn default_jobs() -> usize {
    5 * std::thread::available_parallelism().map_or(2, usize::from)
}

fn name(schedule: &Schedule) -> String {
    format!("faults::seed_{}", schedule.seed)
}

fn report(outcome: &Outcome, schedule: &Schedule) {
    let Outcome {
        secs,
        incidents,
        notifications,
        repeats,
        restarts,
        starved_ms,
        starved_percent,
        ..
    } = outcome;
    let word = if outcome.bad() { "FAILED" } else { "ok    " };
    eprintln!(
        "{word} seed {:<6} {secs:5.1} s  {incidents} incidents, {notifications} notifications, {repeats} repeats, {restarts} \
         restarts (late {starved_ms} ms, {starved_percent} %)  {schedule}",
        schedule.seed
    );
    for text in outcome.texts() {
        eprintln!("         {text}");
    }
}

fn add(whole: &mut Whole, outcome: &Outcome, schedule: &Schedule) {
    let bad = outcome.bad();
    whole.passed += usize::from(!bad);
    whole.failed += usize::from(bad);
    whole.incidents += outcome.incidents;
    whole.notifications += outcome.notifications;
    whole.repeats += outcome.repeats;
    whole.restarts += outcome.restarts;
    whole.scenarios.push(Row {
        name: name(schedule),
        outcome: if bad { "failed" } else { "passed" },
        why: bad.then(|| outcome.texts().join("\n")),
        schedule: schedule.to_string(),
        secs: outcome.secs,
    });
}

impl Outcome {
    fn bad(&self) -> bool {
        self.broken.is_some() || !self.violations.is_empty()
    }

    fn starved(&self) -> bool {
        self.starved_ms >= STARVED_MS || self.starved_percent >= STARVED_PERCENT
    }

    fn texts(&self) -> Vec<String> {
        let broken = self
            .broken
            .iter()
            .map(|why| format!("could not be played: {why}"));
        broken
            .chain(self.violations.iter().map(ToString::to_string))
            .collect()
    }

    fn rules(&self) -> BTreeSet<Rule> {
        self.violations.iter().map(|violation| violation.rule).collect()
    }
}

impl Rig {
    fn new(tamper: Option<Tamper>) -> Result<Self> {
        let library = sickdisk::prepare()?;
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(Path::parent).context("cargo's layout")?;
        let dir = target
            .join("fleet-faults")
            .join(format!("run-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // Copies: a rebuild meanwhile changes nothing.
        programs::copy_to(&dir.join("programs"), false)?;
        let program = dir.join("programs/fleet-faults");
        fs::copy(&own, &program)?;
        lab::remove_leftovers();
        Ok(Self {
            dir,
            program,
            library,
            tamper,
            places: AtomicU64::new(0),
            again: AtomicU64::new(0),
        })
    }

    /// Again, if it failed on a machine that had no time.
    fn play_fairly(&self, schedule: &Schedule) -> Outcome {
        for _ in 1..AGAIN {
            let outcome = self.play(schedule);
            if !outcome.bad() || !outcome.starved() {
                return outcome;
            }
            eprintln!(
                "again  seed {:<6} its process had no time for {} ms, and for {} % in all; {}",
                schedule.seed,
                outcome.starved_ms,
                outcome.starved_percent,
                outcome.texts().first().map_or("", String::as_str)
            );
            self.again.fetch_add(1, Ordering::Relaxed);
        }
        self.play(schedule)
    }

    fn play(&self, schedule: &Schedule) -> Outcome {
        let start = clock::now();
        let place = self.places.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.join(format!("seed-{}-{place}", schedule.seed));
        let mut outcome = self.supervise(schedule, &dir).unwrap_or_else(|err| Outcome {
            broken: Some(format!("{err:#}")),
            ..Outcome::default()
        });
        outcome.secs = start.elapsed().as_secs_f64();
        if !outcome.bad() {
            let _ = fs::remove_dir_all(&dir);
        }
        outcome
    }

    fn supervise(&self, schedule: &Schedule, dir: &Path) -> Result<Outcome> {
        fs::create_dir_all(dir)?;
        let file = dir.join("schedule.json");
        fs::write(&file, serde_json::to_vec_pretty(schedule)?)?;
        let log = File::create(dir.join("driver.log"))?;
        let mut command = isolate::command(&self.program);
        command.arg("--inner").arg(&file).arg("--dir").arg(dir);
        command.arg("--library").arg(&self.library);
        if let Some(tamper) = self.tamper {
            command.args(["--tamper", &tamper.to_string()]);
        }
        command.env(programs::DIR_VAR, self.dir.join("programs"));
        command.env("RUST_BACKTRACE", "0");
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot start unshare")?;
        let ended = clock::wait_for("the schedule's process to end", LIMIT, || {
            child.try_wait().transpose()
        });
        if ended.is_err() {
            child.kill()?;
        }
        child.wait()?;
        ended?.map(drop)?;
        let said = || fs::read_to_string(dir.join("driver.log")).unwrap_or_default();
        let text = fs::read(dir.join("outcome.json"))
            .with_context(|| format!("it left no outcome; it said: {}", said()))?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The smallest schedule that breaks one of the same rules, or cannot be played either.
    fn make_small(&self, schedule: &Schedule, outcome: &Outcome) {
        let rules = outcome.rules();
        eprintln!("         making seed {} small", schedule.seed);
        let small = shrink(schedule, |smaller| {
            let outcome = self.play(smaller);
            let same = !outcome.rules().is_disjoint(&rules) || (rules.is_empty() && outcome.broken.is_some());
            same && !outcome.starved()
        });
        let file = self.dir.join(format!("seed-{}-small.json", schedule.seed));
        let written = serde_json::to_vec_pretty(&small).map(|text| fs::write(&file, text));
        eprintln!("small  seed {:<6} {small}", schedule.seed);
        if matches!(written, Ok(Ok(()))) {
            eprintln!(
                "         play it by: cargo xtask faults --schedule {} --count 1",
                file.display()
            );
        }
    }
}

/// Inside the namespaces: plays one schedule, judges it, and leaves the outcome in `dir`.
fn inner(schedule: &Path, dir: &Path, library: &Path, tamper: Option<Tamper>) -> Result<ExitCode> {
    let schedule: Schedule = serde_json::from_slice(&fs::read(schedule)?)?;
    let lab = dir.join("lab");
    fs::create_dir_all(&lab)?;
    let outcome = match driver::play(&schedule, &lab, library) {
        Ok((mut history, log)) => {
            let tampered = tamper.is_none_or(|tamper| tamper.spoil(&mut history));
            fs::write(dir.join("server.log"), log)?;
            fs::write(dir.join("history.json"), serde_json::to_vec_pretty(&history)?)?;
            let outcome = judged(&history);
            if tampered {
                outcome
            } else {
                Outcome {
                    broken: Some("there was nothing to spoil".to_owned()),
                    ..outcome
                }
            }
        }
        Err(err) => Outcome {
            broken: Some(format!("{err:?}")),
            ..Outcome::default()
        },
    };
    fs::write(dir.join("outcome.json"), serde_json::to_vec(&outcome)?)?;
    Ok(ExitCode::SUCCESS)
}

fn judged(history: &History) -> Outcome {
    let arrived = || history.receivers.iter().flat_map(|receiver| &receiver.told);
    let taken = |receiver: &history::ReceiverTruth| {
        let keys = receiver.told.iter().filter(|told| told.taken());
        keys.clone().count()
            - keys
                .map(|told| &told.idempotency_key)
                .collect::<BTreeSet<_>>()
                .len()
    };
    Outcome {
        violations: oracle::judge(history),
        broken: None,
        starved_ms: history.starved_ms,
        starved_percent: history.starved_percent,
        incidents: history.last.incidents.len(),
        notifications: arrived().filter(|told| told.taken()).count(),
        repeats: history.receivers.iter().map(taken).sum(),
        restarts: history.restarts.len(),
        secs: 0.0,
    }
}
