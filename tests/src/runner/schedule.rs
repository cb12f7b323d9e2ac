//! Which scenario runs when: the long ones first, several at once, those that want to be alone at the end.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::Result;

use super::isolate;
use super::needs::Offer;
use super::outcome::{Outcome, Verdict};
use super::report::Report;
use crate::clock::{self, secs};
use crate::scenario::Scenario;

/// What a scenario gets beyond its own limit, to show its logs, before it is killed from outside.
const GRACE_SECS: u64 = 30;

/// Runs them all; every end goes to `report`.
pub fn run(
    scenarios: Vec<Scenario>,
    offer: &Offer,
    environment: &[(String, String)],
    jobs: usize,
    report: &Report,
) -> Result<()> {
    let environment = [environment, &offer.environment()].concat();
    let able = isolate::usable().map_err(|err| format!("{err:#}"));
    let refusal = |scenario: &Scenario| able.as_ref().err().cloned().or_else(|| offer.refusal(scenario));
    let mut ready = Vec::new();
    for scenario in scenarios {
        match refusal(&scenario) {
            Some(why) => report.ended(&scenario, Verdict::of(Outcome::Skipped { why }), secs(0)),
            None => ready.push(scenario),
        }
    }
    ready.sort_by_key(|scenario| std::cmp::Reverse(scenario.rough_secs));
    let (alone, together): (Vec<_>, Vec<_>) = ready.into_iter().partition(|scenario| scenario.alone);
    drain(together, &environment, jobs, report);
    drain(alone, &environment, 1, report);
    Ok(())
}

fn drain(scenarios: Vec<Scenario>, environment: &[(String, String)], jobs: usize, report: &Report) {
    let queue = Queue::new(scenarios);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(scenario) = queue.take() {
                    one(&scenario, environment, report);
                    queue.give_back(&scenario);
                }
            });
        }
    });
}

/// Scenarios that wait, and the room for their boxes.
struct Queue {
    state: Mutex<(VecDeque<Scenario>, usize)>,
    room: Condvar,
}

impl Queue {
    fn new(scenarios: Vec<Scenario>) -> Self {
        // One that wants more than there is at all runs when nothing else does.
        let room = room_for_boxes().max(scenarios.iter().map(|scenario| scenario.boxes).max().unwrap_or(1));
        Self {
            state: Mutex::new((scenarios.into(), room)),
            room: Condvar::new(),
        }
    }

    /// The next, once there is room for it (nothing overtakes, or one with many boxes would come last); none when none is left.
    fn take(&self) -> Option<Scenario> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0.front()?.boxes > state.1 {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let scenario = state.0.pop_front()?;
        state.1 -= scenario.boxes;
        Some(scenario)
    }

    fn give_back(&self, scenario: &Scenario) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1 += scenario.boxes;
        self.room.notify_all();
    }
}

/// How many boxes the kernel's inotify instances allow: a booted one takes seven of its user's (systemd 5, D-Bus,
/// logind), what runs in it up to three more, and the machine's own services need some.
fn room_for_boxes() -> usize {
    const EACH: usize = 10;
    const OWN: usize = 28;
    let instances = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").ok();
    let instances = instances
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(128);
    (instances.saturating_sub(OWN) / EACH).max(1)
}

fn one(scenario: &Scenario, environment: &[(String, String)], report: &Report) {
    let start = clock::now();
    let dir = report.dir_of(scenario);
    report.started(scenario);
    let verdict = match supervise(scenario, &dir, environment) {
        Ok(()) => Verdict::read(&dir, "its process ended without a verdict"),
        Err(err) => Verdict::of(Outcome::Failed {
            why: format!("{err:#}"),
        }),
    };
    report.ended(scenario, verdict, start.elapsed());
}

fn supervise(scenario: &Scenario, dir: &Path, environment: &[(String, String)]) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let mut child = isolate::start(scenario, dir, environment)?;
    let limit = secs(scenario.limit_secs() + GRACE_SECS);
    let ended = clock::wait_for(scenario.name, limit, || child.try_wait().transpose());
    if ended.is_err() {
        child.kill()?;
    }
    child.wait()?;
    ended.map(drop)
}
