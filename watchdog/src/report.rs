//! Builds the report of a run within what the wire allows, and keeps it as `report.json`.
//!
//! It decides nothing and prints nothing.

use std::path::Path;

use jiff::Timestamp;
use protocol::limits;
use protocol::report::{CheckName, CheckReport, Host, Report};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::checks::Finding;
use crate::settings::Settings;
use crate::state::{SetAside, State};
use crate::state_dir::{REPORT_FILE, StateDir, StateDirError};
use crate::verdict;

/// The report of `findings`. Its id is new; `at` is when it was made.
pub fn build(
    settings: &Settings,
    state: &State,
    findings: &[Finding],
    host: &Host,
    at: Timestamp,
    took_ms: u64,
) -> Report {
    let mut checks = verdict::rows(findings, &state.streaks);
    if let Some(aside) = &state.set_aside {
        tell_set_aside(&mut checks, aside, state.runs == 1);
    }
    let mut report = Report {
        id: Uuid::new_v4(),
        at,
        took_ms,
        checks,
        remedies: state.remedies.clone(),
        host: host.clone(),
        labels: settings.labels.clone(),
    };
    fit(&mut report);
    report
}

/// Keeps `report` for the resident part and for `status`.
pub fn store(dir: &StateDir, report: &Report) -> Result<(), StateDirError> {
    dir.write(REPORT_FILE, &serde_json::to_vec(report).unwrap_or_default())
}

/// Keeps `report` in `spare`, which the services' units have made: the state directory takes nothing.
pub fn store_spare(spare: &Path, report: &Report) -> Result<(), StateDirError> {
    let dir = StateDir::new(spare);
    if spare.is_dir() {
        store(&dir, report)
    } else {
        Ok(())
    }
}

/// The state directory takes reports again: the spare one is no longer the newest.
pub fn clear_spare(spare: &Path) -> Result<bool, StateDirError> {
    StateDir::new(spare).remove(REPORT_FILE)
}

/// The newest report; none: no run has kept one yet, or it is not readable as one. One in `spare` is the newest.
pub fn newest(dir: &StateDir, spare: Option<&Path>) -> Result<Option<Report>, StateDirError> {
    let read = |dir: &StateDir| -> Result<Option<Report>, StateDirError> {
        let bytes = dir.read(REPORT_FILE)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    };
    match spare.and_then(|spare| read(&StateDir::new(spare)).ok().flatten()) {
        Some(report) => Ok(Some(report)),
        None => read(dir),
    }
}

/// The machine, as far as it tells.
pub fn host(root: &Path) -> Host {
    let system = sysinfo::System::new().map(|mut system| {
        system.refresh_memory();
        system
    });
    let short = |text: Option<String>| text.filter(|t| !t.is_empty() && t.len() <= limits::NAME_BYTES);
    Host {
        hostname: short(sysinfo::System::host_name().ok()),
        os: short(os_name(root)),
        kernel: short(sysinfo::System::kernel_version().ok()),
        watchdog_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        uptime_secs: sysinfo::System::uptime().ok(),
        memory_total_bytes: system.as_ref().ok().map(sysinfo::System::total_memory),
        memory_available_bytes: system.as_ref().ok().map(sysinfo::System::available_memory),
        load1: sysinfo::System::load_average().ok().map(|load| load.one),
        cpus: std::thread::available_parallelism()
            .ok()
            .and_then(|n| u32::try_from(n.get()).ok()),
    }
}

/// `PRETTY_NAME` of os-release.
fn os_name(root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(root.join("etc/os-release")).ok()?;
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches(['"', '\'']).to_owned())
}

/// A state file that had to be set aside stands with the disk: it is where such files are lost.
fn tell_set_aside(checks: &mut [CheckReport], aside: &SetAside, first_run: bool) {
    let Some(disk) = checks.iter_mut().find(|c| c.is(CheckName::Disk)) else {
        return;
    };
    let note = format!(
        "the watchdog's state file could not be read ({}) and was set aside as {}",
        aside.why, aside.file
    );
    disk.values
        .insert("state_note".to_owned(), Value::String(note.clone()));
    if first_run {
        disk.summary = crate::checks::sentence(&format!("{} ({note}; counters begin anew)", disk.summary));
    }
}

/// Holds the bounds of the wire, row by row: a row that is too heavy loses its figures and keeps its answer. (A check
/// keeps to the bounds by itself; this is for the day when one does not.)
fn fit(report: &mut Report) {
    report.checks.truncate(limits::CHECKS);
    let surplus = report.remedies.len().saturating_sub(limits::REMEDIES);
    report.remedies.drain(..surplus);
    for n in 0..report.checks.len() {
        let alone = Report {
            checks: vec![report.checks[n].clone()],
            remedies: Vec::new(),
            host: Host::default(),
            ..report.clone()
        };
        if let Err(err) = alone.validate("report") {
            tracing::warn!(check = %report.checks[n].name, %err, "a check's figures are over the limits and are left out");
            report.checks[n].values = Map::new();
            report.checks[n].summary = crate::checks::sentence(&report.checks[n].summary);
        }
    }
    for remedy in &mut report.remedies {
        remedy.summary = crate::checks::sentence(&remedy.summary);
        if let Some(evidence) = &mut remedy.evidence {
            evidence.truncate(evidence.floor_char_boundary(limits::EVIDENCE_BYTES));
            *evidence = evidence.replace(|c: char| c.is_control() && c != '\n' && c != '\t', " ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use protocol::report::Status;
    use protocol::why::KnownWhy;

    fn settings() -> Settings {
        let around = config::Surroundings {
            hostname: "box".to_owned(),
            state_directory: None,
            runtime_directory: None,
            credentials_directory: None,
        };
        config::parse(Path::new("w.toml"), b"", &around).unwrap()
    }

    fn built(finding: Finding, state: &mut State) -> Report {
        let findings = [finding];
        state.streaks = verdict::judge(&findings, &[], Timestamp::UNIX_EPOCH);
        build(
            &settings(),
            state,
            &findings,
            &host(Path::new("/")),
            Timestamp::UNIX_EPOCH,
            5,
        )
    }

    #[test]
    fn whatever_a_check_says_the_report_fits_the_wire() {
        let mut finding = Finding::new(CheckName::Disk, Status::Failing, KnownWhy::BytesLow, "full");
        finding.summary = "x\u{7}".repeat(600);
        finding
            .values
            .insert("huge".to_owned(), Value::String("y".repeat(limits::VALUES_BYTES)));
        let report = built(finding, &mut State::default());
        report.validate("report").unwrap();
        assert_eq!(report.checks[0].status, Status::Failing);
        assert!(report.checks[0].values.is_empty());
    }

    #[test]
    fn a_state_file_set_aside_is_said_in_the_report() {
        let mut state = State::default();
        state.runs = 1;
        state.set_aside = Some(SetAside {
            at: Timestamp::UNIX_EPOCH,
            file: "state.json.corrupt-1".to_owned(),
            why: "it is empty".to_owned(),
        });
        let report = built(
            Finding::new(CheckName::Disk, Status::Ok, KnownWhy::Fine, "room enough"),
            &mut state,
        );
        let disk = &report.checks[0];
        assert!(disk.summary.contains("state.json.corrupt-1") && disk.summary.starts_with("room enough"));
        state.runs = 2;
        let report = built(
            Finding::new(CheckName::Disk, Status::Ok, KnownWhy::Fine, "room enough"),
            &mut state,
        );
        assert_eq!(report.checks[0].summary, "room enough");
        assert!(
            report.checks[0].values["state_note"]
                .as_str()
                .unwrap()
                .contains("it is empty")
        );
    }

    #[test]
    fn the_host_is_told() {
        let host = host(Path::new("/"));
        assert!(host.memory_total_bytes.unwrap() > host.memory_available_bytes.unwrap());
        assert!(host.kernel.is_some() && host.cpus.unwrap() > 0);
    }

    #[test]
    fn a_report_survives_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        assert_eq!(newest(&dir, None).unwrap(), None);
        let report = built(
            Finding::new(CheckName::Disk, Status::Ok, KnownWhy::Fine, "x"),
            &mut State::default(),
        );
        store(&dir, &report).unwrap();
        assert_eq!(newest(&dir, None).unwrap(), Some(report));
        dir.write(REPORT_FILE, b"{\"id\":").unwrap();
        assert_eq!(newest(&dir, None).unwrap(), None);
    }
}
