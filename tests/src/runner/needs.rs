//! Finds out what this machine can offer the scenarios, and prepares what is kept in the cache.
//!
//! An answer is either "there" (with a path, where one is needed) or the reason why not, which the summary names.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};

use super::debian;
use crate::clock;
use crate::genuine::{fastclock, hermes, tailscale};
use crate::lab;
use crate::programs;
use crate::scenario::{Need, Scenario};

/// Per need: what was prepared, or why it is missing.
#[derive(Debug, Default)]
pub struct Offer(BTreeMap<Need, Result<PathBuf, String>>);

/// Looks at and prepares what `scenarios` need, all at once, and before any of them runs: they measure time.
pub fn prepare(scenarios: &[Scenario]) -> Offer {
    let wanted = |need: &Need| scenarios.iter().any(|scenario| scenario.needs.contains(need));
    let answers = std::thread::scope(|scope| {
        let asked = Need::ALL.into_iter().filter(wanted);
        let asked: Vec<_> = asked
            .map(|need| (need, scope.spawn(move || provide_and_say(need))))
            .collect();
        let answer = |asked: std::thread::ScopedJoinHandle<'_, _>| {
            asked.join().unwrap_or(Err("its preparation panicked".to_owned()))
        };
        asked
            .into_iter()
            .map(|(need, asked)| (need, answer(asked)))
            .collect()
    });
    Offer(answers)
}

fn provide_and_say(need: Need) -> Result<PathBuf, String> {
    let start = clock::now();
    let answer = provide(need).map_err(|err| format!("{err:#}"));
    let (word, secs) = (need.word(), start.elapsed().as_secs_f64());
    match &answer {
        Err(why) => eprintln!("{word} is not to be had: {why}"),
        Ok(_) if secs > 1.0 => eprintln!("{word} is ready ({secs:.0} s)"),
        Ok(_) => {}
    }
    answer
}

impl Offer {
    /// Why the scenario cannot run here, if so.
    pub fn refusal(&self, scenario: &Scenario) -> Option<String> {
        scenario.needs.iter().find_map(|need| match self.0.get(need) {
            Some(Err(why)) => Some(format!("needs {}: {why}", need.word())),
            Some(Ok(_)) | None => None,
        })
    }

    /// How a scenario's process learns of the prepared paths; see [`resource`].
    pub fn environment(&self) -> Vec<(String, String)> {
        let there = self
            .0
            .iter()
            .filter_map(|(need, result)| Some((*need, result.as_ref().ok()?)));
        there
            .map(|(need, path)| (variable(need), path.to_string_lossy().into_owned()))
            .collect()
    }
}

/// Inside a scenario: where the prepared thing lies.
pub fn resource(need: Need) -> Result<PathBuf> {
    let path = std::env::var_os(variable(need)).map(PathBuf::from);
    path.ok_or_else(|| anyhow::anyhow!("the scenario's `needs` does not name Need::{need:?}"))
}

fn variable(need: Need) -> String {
    format!("FLEET_TESTS_{}", need.word().to_uppercase())
}

fn provide(need: Need) -> Result<PathBuf> {
    match need {
        Need::Root => root(),
        Need::Prometheus => debian::bin_dir("prometheus", &["prometheus", "promtool"]),
        Need::Alertmanager => debian::bin_dir("prometheus-alertmanager", &["prometheus-alertmanager"]),
        Need::FastClock => fastclock::prepare(),
        Need::Hermes => hermes::prepare(),
        Need::Tailscale => tailscale::build::prepare(),
        Need::Load => programs::build_for_load(),
    }
}

fn root() -> Result<PathBuf> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the test boxes boot a systemd of their own; run as root"
    );
    lab::tools_present()?;
    lab::cgroup_usable()?;
    Ok(PathBuf::from("/"))
}
