//! Whole runs against a service manager that is played, in virtual time, with a real state directory.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use protocol::names::UnitName;
use protocol::report::{CheckName, CheckReport};

use super::*;
use crate::config::{self, Surroundings};
use crate::pause;
use crate::state::State;
use crate::state_dir::{PAUSE_FILE, REPORT_FILE, STATE_FILE, StateDir};
use crate::systemd::{ActiveState, JobOutcome, JobResult, LoadState, ManagerError, Stamp, UnitFacts};

#[path = "run_hold_tests.rs"]
mod holds;

/// What the played unit does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Failed, and stays so.
    Dead,
    /// Failed; a restart mends it.
    Mendable,
    /// Active.
    Healthy,
    /// Stopped by an operator.
    Stopped,
    /// Failed; an operator stops it while the run looks elsewhere.
    StoppedSoon,
    /// The manager never answers.
    Mute,
}

struct Played {
    unit: Mutex<Unit>,
    job: Mutex<Result<JobResult, ManagerError>>,
    restarts: AtomicU32,
    /// Where `report.json` and `state.json` are looked at in the moment of the restart.
    dir: StateDir,
    seen: Mutex<Option<(Report, State)>>,
}

#[derive(Clone)]
struct Manager(Arc<Played>);

fn facts(unit: Unit) -> UnitFacts {
    let past = |secs: u64| Stamp {
        realtime_us: secs * 1_000_000,
        monotonic_us: secs * 1_000_000,
    };
    let base = UnitFacts {
        load: LoadState::Loaded,
        inactive_exit: past(1),
        active_enter: past(1),
        restart: "always".to_owned(),
        result: "success".to_owned(),
        file_state: "enabled".to_owned(),
        conditions_held: true,
        ..UnitFacts::default()
    };
    match unit {
        Unit::Dead | Unit::Mendable | Unit::StoppedSoon => UnitFacts {
            active: ActiveState::Failed,
            sub: "failed".to_owned(),
            result: "start-limit-hit".to_owned(),
            ..base
        },
        Unit::Healthy | Unit::Mute => UnitFacts {
            active: ActiveState::Active,
            sub: "running".to_owned(),
            ..base
        },
        Unit::Stopped => UnitFacts {
            active: ActiveState::Inactive,
            sub: "dead".to_owned(),
            ..base
        },
    }
}

impl ServiceManager for Manager {
    async fn unit(&self, _: &UnitName) -> Result<UnitFacts, ManagerError> {
        let unit = *self.0.unit.lock().unwrap();
        if unit == Unit::Mute {
            std::future::pending::<()>().await;
        }
        if unit == Unit::StoppedSoon {
            *self.0.unit.lock().unwrap() = Unit::Stopped;
        }
        Ok(facts(unit))
    }

    async fn restart(&self, _: &UnitName, _: Duration) -> Result<JobOutcome, ManagerError> {
        self.0.restarts.fetch_add(1, Ordering::Relaxed);
        let read = |name| self.0.dir.read(name).unwrap().unwrap();
        let report = serde_json::from_slice(&read(REPORT_FILE)).unwrap();
        let state = serde_json::from_slice(&read(STATE_FILE)).unwrap();
        *self.0.seen.lock().unwrap() = Some((report, state));
        let result = self.0.job.lock().unwrap().clone()?;
        let mut unit = self.0.unit.lock().unwrap();
        if *unit == Unit::Mendable {
            *unit = Unit::Healthy;
        }
        let took = Duration::from_secs(60);
        Ok(JobOutcome { result, took })
    }
}

/// A box with one gateway.
struct Box1 {
    settings: Settings,
    played: Arc<Played>,
    temp: tempfile::TempDir,
}

fn a_box(unit: Unit) -> Box1 {
    let temp = tempfile::tempdir().unwrap();
    let state_dir = temp.path().join("state");
    box_at(temp, &state_dir, unit)
}

fn box_at(temp: tempfile::TempDir, state_dir: &Path, unit: Unit) -> Box1 {
    let tables = "[gateway]\nunit = \"g.service\"\n[tailscale]\nenabled = false\n[backup]\nenabled = false\n";
    box_with(temp, state_dir, unit, tables)
}

fn box_with(temp: tempfile::TempDir, state_dir: &Path, unit: Unit, tables: &str) -> Box1 {
    let text = format!("state_dir = {state_dir:?}\n{tables}");
    let around = Surroundings {
        hostname: "b".to_owned(),
        state_directory: None,
        runtime_directory: None,
        credentials_directory: None,
    };
    let settings = config::parse(Path::new("w.toml"), text.as_bytes(), &around).unwrap();
    let played = Played {
        unit: Mutex::new(unit),
        job: Mutex::new(Ok(JobResult::Done)),
        restarts: AtomicU32::new(0),
        dir: StateDir::new(state_dir),
        seen: Mutex::new(None),
    };
    Box1 {
        settings,
        played: Arc::new(played),
        temp,
    }
}

impl Box1 {
    async fn run(&self) -> Report {
        self.run_with(false).await.unwrap()
    }

    async fn run_with(&self, no_act: bool) -> Result<Report, RunError> {
        let options = Options {
            no_act,
            root: PathBuf::from("/"),
        };
        let managers = Managers::new(&self.settings, |_| Manager(Arc::clone(&self.played)));
        run(&self.settings, &options, managers).await
    }

    fn becomes(&self, unit: Unit) {
        *self.played.unit.lock().unwrap() = unit;
    }

    fn restarts(&self) -> u32 {
        self.played.restarts.load(Ordering::Relaxed)
    }

    fn dir(&self) -> &StateDir {
        &self.played.dir
    }
}

fn row(report: &Report, name: CheckName) -> &CheckReport {
    report.checks.iter().find(|c| c.is(name)).unwrap()
}

fn remedies(report: &Report) -> Vec<String> {
    report
        .remedies
        .iter()
        .map(|r| format!("{} {}", r.outcome, r.why))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_third_failing_run_restarts_and_says_so_before_and_after() {
    let it = a_box(Unit::Mendable);
    assert_eq!(remedies(&it.run().await), ["held_back too_few_runs"]);
    it.run().await;
    assert_eq!(it.restarts(), 0);
    let report = it.run().await;
    assert_eq!(it.restarts(), 1);

    let (before, state) = it.played.seen.lock().unwrap().clone().unwrap();
    let gateway = row(&before, CheckName::Gateway);
    assert_eq!((gateway.status, gateway.consecutive), (Status::Failing, 3));
    assert_eq!(
        remedies(&before),
        ["held_back too_few_runs", "restarted restart_under_way"]
    );
    let unit = state.units.values().next().unwrap();
    assert_eq!(unit.attempts.len(), 1, "counted on disk before it happens");
    assert!(unit.pending.is_some());

    assert_eq!(
        row(&report, CheckName::Gateway).status,
        Status::Ok,
        "healthy again in the same run's report"
    );
    assert_eq!(
        remedies(&report),
        ["held_back too_few_runs", "restarted failing_in_a_row"]
    );
    let done = report.remedies.last().unwrap();
    assert!(
        done.summary.contains("3 failing runs") && done.summary.contains("restarted in 1 min"),
        "{}",
        done.summary
    );
    assert!(done.evidence.is_some());
    report.validate("report").unwrap();
    assert_eq!(
        report::newest(it.dir(), None).unwrap().unwrap(),
        report,
        "what is kept is what was printed"
    );
    assert_eq!(row(&it.run().await, CheckName::Gateway).consecutive, 2);
}

#[tokio::test(start_paused = true)]
async fn done_is_not_healthy() {
    let it = a_box(Unit::Dead);
    it.run().await;
    it.run().await;
    let report = it.run().await;
    assert_eq!(it.restarts(), 1);
    assert_eq!(row(&report, CheckName::Gateway).status, Status::Failing);
    assert_eq!(remedies(&report).last().unwrap(), "failed not_healthy_after");
    assert_eq!(
        remedies(&it.run().await).last().unwrap(),
        "held_back startup_grace"
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_is_refused_is_said_with_the_fix() {
    let it = a_box(Unit::Dead);
    let refused = ManagerError::Refused {
        verb: "restart",
        unit: UnitName::new("g.service").unwrap(),
    };
    *it.played.job.lock().unwrap() = Err(refused);
    it.run().await;
    it.run().await;
    let report = it.run().await;
    assert_eq!(remedies(&report).last().unwrap(), "failed not_permitted");
    assert!(report.remedies.last().unwrap().summary.contains("polkit"));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_takes_longer_than_a_run_is_looked_after_by_the_next_one() {
    let it = a_box(Unit::Dead);
    *it.played.job.lock().unwrap() = Ok(JobResult::Pending);
    it.run().await;
    it.run().await;
    assert_eq!(
        remedies(&it.run().await).last().unwrap(),
        "restarted restart_under_way"
    );
    let report = it.run().await;
    assert_eq!(it.restarts(), 1, "not restarted again meanwhile");
    assert_eq!(remedies(&report).last().unwrap(), "held_back restart_under_way");
    it.becomes(Unit::Healthy);
    let report = it.run().await;
    assert!(
        remedies(&report).contains(&"restarted failing_in_a_row".to_owned()),
        "{:?}",
        remedies(&report)
    );
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_stopped_stays_stopped() {
    let it = a_box(Unit::Healthy);
    it.run().await;
    it.becomes(Unit::Stopped);
    for _ in 0..5 {
        let report = it.run().await;
        assert_eq!(remedies(&report), ["held_back operator_stopped"], "said once");
    }
    assert_eq!(it.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_obeyed_and_a_garbled_pause_too() {
    let it = a_box(Unit::Dead);
    for bytes in [&br#"{"until":"2999-01-01T00:00:00Z","reason":"x"}"#[..], b"{"] {
        it.dir().write(PAUSE_FILE, bytes).unwrap();
        let until = pause::PAUSE_MAX.as_secs() as i64 - 60;
        if bytes.len() > 1 {
            let until = clock::now()
                .wall
                .checked_add(jiff::SignedDuration::from_secs(until))
                .unwrap();
            let text = format!("{{\"until\":\"{until}\",\"reason\":\"disk swap\"}}");
            it.dir().write(PAUSE_FILE, text.as_bytes()).unwrap();
        }
        for _ in 0..4 {
            assert_eq!(remedies(&it.run().await).last().unwrap(), "held_back paused");
        }
    }
    assert_eq!(it.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_act_looks_and_changes_nothing() {
    let it = a_box(Unit::Dead);
    for _ in 0..5 {
        it.run_with(true).await.unwrap();
    }
    assert!(!it.dir().path().exists(), "nothing is kept");
    it.run().await;
    it.run().await;
    let report = it.run_with(true).await.unwrap();
    assert_eq!(remedies(&report).last().unwrap(), "held_back no_act");
    it.run().await;
    assert_eq!(it.restarts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_look_leaves_even_a_damaged_state_file_where_it_is() {
    let it = a_box(Unit::Healthy);
    it.dir().write(STATE_FILE, b"{").unwrap();
    it.run_with(true).await.unwrap();
    assert_eq!(it.dir().read(STATE_FILE).unwrap().unwrap(), b"{");
}

#[tokio::test(start_paused = true)]
async fn without_a_place_to_count_it_reports_and_restarts_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, b"").unwrap();
    // Not even root can make a directory inside a file.
    let it = box_at(temp, &file.join("state"), Unit::Dead);
    for _ in 0..5 {
        let report = it.run().await;
        assert_eq!(row(&report, CheckName::Gateway).status, Status::Failing);
        assert_eq!(remedies(&report), ["held_back state_unwritable"]);
    }
    assert_eq!(it.restarts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fills_up_in_the_last_moment_stops_the_restart() {
    let it = a_box(Unit::Dead);
    it.run().await;
    it.run().await;
    let block = it
        .dir()
        .path()
        .join(format!(".{STATE_FILE}.new-{}", std::process::id()));
    std::fs::create_dir(&block).unwrap();
    let report = it.run().await;
    assert_eq!(it.restarts(), 0);
    assert_eq!(
        remedies(&report),
        ["held_back too_few_runs", "held_back state_unwritable"]
    );
    std::fs::remove_dir(&block).unwrap();
    it.run().await;
    assert_eq!(it.restarts(), 1, "with room again, it goes on");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_state_file_is_reported_and_set_aside_and_the_run_goes_on() {
    let it = a_box(Unit::Healthy);
    it.run().await;
    for damage in [&b"{\"version\":1,\"boot_id\""[..], b"", b"\0\0\0"] {
        it.dir().write(STATE_FILE, damage).unwrap();
        let report = it.run().await;
        let disk = row(&report, CheckName::Disk);
        assert!(disk.summary.contains("state.json.corrupt-"), "{}", disk.summary);
        assert_eq!(row(&report, CheckName::Gateway).status, Status::Ok);
        let next = it.run().await;
        assert!(!row(&next, CheckName::Disk).summary.contains("corrupt"));
        assert!(row(&next, CheckName::Disk).values.contains_key("state_note"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hanging_check_costs_its_time_out_and_nobody_elses() {
    let it = a_box(Unit::Mute);
    let began = clock::ticks();
    let report = it.run().await;
    assert!(began.elapsed() < Duration::from_secs(21), "{:?}", began.elapsed());
    let gateway = row(&report, CheckName::Gateway);
    assert_eq!(
        (gateway.status, gateway.why.as_str()),
        (Status::Unknown, "check_timed_out")
    );
    assert_eq!(gateway.subject.as_ref().unwrap().as_str(), "g.service");
    assert_ne!(row(&report, CheckName::Disk).status, Status::Unknown);
    assert_eq!(report.checks.len(), 4, "all four always show");
}

#[tokio::test(start_paused = true)]
async fn two_runs_do_not_interleave() {
    let it = a_box(Unit::Healthy);
    let held = it.dir().try_lock().unwrap();
    assert!(matches!(it.run_with(false).await, Err(RunError::Busy)));
    assert!(
        it.run_with(true).await.is_ok(),
        "one that only looks need not wait"
    );
    drop(held);
    assert!(it.run_with(false).await.is_ok());
}
