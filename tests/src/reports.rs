//! What a box's run of checks reported, read where the run leaves it; and runs asked for by hand, through the shipped
//! unit, so that they have the user and the rights of the timer's own.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::lab::{TestBox, WatchdogSetup};

/// Where the run leaves it.
pub const REPORT: &str = "/var/lib/fleet-watchdog/report.json";
/// The run's unit.
pub const RUN: &str = "fleet-watchdog.service";

/// One report.
#[derive(Debug, Clone, PartialEq)]
pub struct Reported(Value);

impl Reported {
    /// The newest one on the box; an error while there is none.
    pub fn newest(made: &TestBox) -> Result<Self> {
        Self::parse(&made.read_file(REPORT)?).context(REPORT)
    }

    /// As `check --json` prints it.
    pub fn parse(text: &str) -> Result<Self> {
        let json = serde_json::from_str(text).with_context(|| format!("no report: {text}"))?;
        Ok(Self(json))
    }

    /// Of which run it is.
    pub fn id(&self) -> &str {
        self.0["id"].as_str().unwrap_or_default()
    }

    /// The first row of a check.
    pub fn check(&self, name: &str) -> &Value {
        self.0["checks"]
            .as_array()
            .and_then(|rows| rows.iter().find(|row| row["name"] == name))
            .unwrap_or(&Value::Null)
    }

    /// `<status> <why>` of the gateway.
    pub fn gateway(&self) -> String {
        let row = self.check("gateway");
        format!(
            "{} {}",
            row["status"].as_str().unwrap_or("-"),
            row["why"].as_str().unwrap_or("-")
        )
    }

    /// `<outcome> <why>` of the newest remedy; empty: none.
    pub fn remedy(&self) -> String {
        self.remedies().pop().unwrap_or_default()
    }

    /// `<outcome> <why>` of every remedy, oldest first.
    pub fn remedies(&self) -> Vec<String> {
        let word = |row: &Value, key: &str| row[key].as_str().unwrap_or("-").to_owned();
        let rows = self.0["remedies"].as_array();
        rows.into_iter()
            .flatten()
            .map(|row| format!("{} {}", word(row, "outcome"), word(row, "why")))
            .collect()
    }

    /// The whole of it.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// One run now, as the timer would start it; its report.
pub fn run_now(made: &TestBox) -> Result<Reported> {
    let before = Reported::newest(made).ok();
    let done = made.run_within(&format!("systemctl start {RUN}"), secs(300))?;
    ensure!(done.success(), "the run failed: {}{}", done.stdout, done.stderr);
    let after = Reported::newest(made)?;
    ensure!(
        before.is_none_or(|before| before.id() != after.id()),
        "the run left no new report"
    );
    Ok(after)
}

/// Waits for a report of which `wanted` holds; calls `each` for every report on the way, that one included.
pub fn wait_report(
    made: &TestBox,
    what: &str,
    limit: Duration,
    mut each: impl FnMut(&Reported),
    wanted: impl Fn(&Reported) -> bool,
) -> Result<Reported> {
    let mut last = String::new();
    clock::wait_for(what, limit, || {
        let report = Reported::newest(made).ok()?;
        if report.id() == last {
            return None;
        }
        report.id().clone_into(&mut last);
        each(&report);
        wanted(&report).then_some(report)
    })
}

/// The watchdog without a server: `config` is the whole file. The timer does not fire in a test's lifetime; [`run_now`]
/// starts runs as often as it likes.
pub fn by_hand(config: &str) -> WatchdogSetup {
    alone(config).drop_in(
        "fleet-watchdog.timer",
        "[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnActiveSec=1d\n",
    )
}

/// The watchdog without a server, with a run `every_secs` seconds.
pub fn by_timer(config: &str, every_secs: u32) -> WatchdogSetup {
    alone(config).check_every(every_secs)
}

/// Without a server, and started more often than systemd lets a unit start by default.
fn alone(config: &str) -> WatchdogSetup {
    let setup = WatchdogSetup {
        config: config.to_owned(),
        token: None,
        drop_ins: Vec::new(),
    };
    setup.drop_in(RUN, "[Unit]\nStartLimitIntervalSec=0\n")
}
