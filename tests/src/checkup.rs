//! Runs the checks of a box's installed watchdog as its timer would, and hears its beats meanwhile.
//!
//! The run is the shipped unit, sandbox and all, started by hand so that a test knows when it ended. In the server's
//! place stands a receiver that takes every beat and notes when it came.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::lab::{BoxSpec, HOST, Lab, TestBox, WatchdogSetup};
use crate::webhook::Webhook;

/// Where the beats go.
const PORT: u16 = 8470;
/// One check's time-out in these tests, seconds.
const CHECK_SECS: u64 = 6;
/// What a run may take beyond its slowest check: starting the program, writing its state, on a crowded machine.
const MARGIN: Duration = secs(4);
/// Beats come every second; a crowded machine may be late with one.
const LONGEST_GAP: Duration = Duration::from_millis(2500);

/// A box whose checks are run by hand.
#[derive(Debug)]
pub struct Checkup {
    beats: Webhook,
}

/// One check's row of a report.
#[derive(Debug, Clone)]
pub struct Row(pub Value);

/// One run.
#[derive(Debug)]
pub struct Run {
    report: Value,
    /// From the start of the unit to its end.
    pub took: Duration,
}

impl Checkup {
    /// The receiver of beats; start it before the box.
    pub fn start() -> Result<Self> {
        let beats = Webhook::start(&format!("{HOST}:{PORT}"))?;
        beats.reply(r#"{"every_ms":1000,"want_report":false}"#);
        Ok(Self { beats })
    }

    /// `spec` with the watchdog, which looks at what `tables` (TOML) say, at nothing by itself, and only when told to.
    #[must_use]
    pub fn on(&self, spec: BoxSpec, tables: &str) -> BoxSpec {
        let setup = WatchdogSetup::new(config(tables), "any-token-will-do-0123456789")
            .drop_in(
                "fleet-watchdog.timer",
                "[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnActiveSec=1d\n",
            )
            .drop_in("fleet-watchdog.service", "[Unit]\nStartLimitIntervalSec=0\n");
        spec.watchdog(setup)
    }

    /// Boots it and waits for the first beat.
    pub fn boot(&self, lab: &Lab, spec: BoxSpec, tables: &str) -> Result<Arc<TestBox>> {
        let made = lab.boot(self.on(spec, tables))?;
        self.wait_for_beats()?;
        Ok(made)
    }

    /// Waits until beats come.
    pub fn wait_for_beats(&self) -> Result<()> {
        self.beats.clear();
        self.beats
            .wait_for("beat", secs(20), |beat| beat.json["seq"].is_u64())
            .map(drop)
    }

    /// Another configuration from the next run on.
    pub fn configure(&self, made: &TestBox, tables: &str) -> Result<()> {
        made.write_file("/etc/fleet-watchdog/config.toml", 0o644, "root", config(tables))
    }

    /// One run, to its end.
    pub fn run(&self, made: &TestBox) -> Result<Run> {
        let before = clock::now();
        made.run_within("systemctl start fleet-watchdog.service", secs(60))?
            .ok()?;
        let took = before.elapsed();
        ensure!(
            took < secs(CHECK_SECS) + MARGIN,
            "the run took {took:?} with checks of at most {CHECK_SECS} s"
        );
        let text = made.read_file("/var/lib/fleet-watchdog/report.json")?;
        let report = serde_json::from_str(&text).with_context(|| format!("report.json: {text}"))?;
        Ok(Run { report, took })
    }

    /// One run, whose check `name` must answer so.
    pub fn expect(&self, made: &TestBox, name: &str, status: &str, why: &str) -> Result<Row> {
        let run = self.run(made)?;
        let row = run.row(name)?;
        row.must_be(status, why)?;
        Ok(row)
    }

    /// Waits for a beat whose report says so of check `name`.
    pub fn told(&self, name: &str, why: &str) -> Result<()> {
        let says = |row: &Value| row["name"] == name && row["why"] == why;
        let told = |report: &Value| {
            report["checks"]
                .as_array()
                .is_some_and(|rows| rows.iter().any(says))
        };
        let what = format!("a beat with the report {name} {why}");
        self.beats
            .wait_for(&what, secs(10), |beat| told(&beat.json["report"]))
            .map(drop)
    }

    /// Waits for a beat that calls `unit` so, and tells how long that took from `since`.
    pub fn called(&self, unit: &str, active: &str, since: Instant) -> Result<Duration> {
        let says = |row: &Value| row["name"] == unit && row["active"] == active;
        let what = format!("a beat that calls {unit} {active}");
        let beat = self.beats.wait_for(&what, secs(20), |beat| {
            beat.at >= since
                && beat.json["units"]
                    .as_array()
                    .is_some_and(|rows| rows.iter().any(says))
        })?;
        Ok(beat.at.duration_since(since))
    }

    /// Fails unless beats have come every second from `since` until now.
    pub fn beats_went_on(&self, since: Instant) -> Result<Duration> {
        let now = clock::now();
        let mut last = since;
        let mut longest = Duration::ZERO;
        for beat in self.beats.arrivals().iter().filter(|beat| beat.at >= since) {
            longest = longest.max(beat.at.duration_since(last));
            last = beat.at;
        }
        longest = longest.max(now.duration_since(last));
        ensure!(longest < LONGEST_GAP, "no beat for {longest:?}");
        Ok(longest)
    }
}

fn config(tables: &str) -> String {
    // What the test does not speak of is said to be absent.
    let all = ["gateway", "disk", "backup", "tailscale"];
    let absent = all.iter().filter(|table| !tables.contains(&format!("[{table}]")));
    let absent: Vec<String> = absent
        .map(|table| format!("[{table}]\nenabled = false\n"))
        .collect();
    format!(
        "[server]\nurls = [\"http://{HOST}:{PORT}\"]\n[checks]\ntimeout = \"{CHECK_SECS}s\"\n{}{tables}",
        absent.concat()
    )
}

impl Run {
    /// The row of the check `name`.
    pub fn row(&self, name: &str) -> Result<Row> {
        let checks = self.report["checks"].as_array().context("a report has checks")?;
        let row = checks.iter().find(|row| row["name"] == name);
        row.map(|row| Row(row.clone()))
            .with_context(|| format!("no row {name} in {}", self.report))
    }
}

impl Row {
    /// Its sentence.
    pub fn summary(&self) -> &str {
        self.0["summary"].as_str().unwrap_or_default()
    }

    /// Fails unless it answers so.
    pub fn must_be(&self, status: &str, why: &str) -> Result<()> {
        ensure!(
            self.0["status"] == status && self.0["why"] == why,
            "expected {status} ({why}), and it says {} ({}): {}",
            self.0["status"],
            self.0["why"],
            self.summary()
        );
        Ok(())
    }

    /// Fails unless its sentence has `text` in it.
    pub fn must_say(&self, text: &str) -> Result<()> {
        ensure!(
            self.summary().contains(text),
            "{text:?} is not in {:?}",
            self.summary()
        );
        Ok(())
    }
}
