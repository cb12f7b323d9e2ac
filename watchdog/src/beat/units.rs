//! The gateway units as the service manager's signals tell them, and who stopped them. Pure; `systemd::follow` listens.
//!
//! How an operator's stop is told from a crash and from a restart (read in systemd's job.c, seen on 252):
//! - `systemctl stop` queues a job of type `stop`. A crash has no job. A restart is one job of type `restart` that turns
//!   into `start` under the same number once the unit is down, so it never is a `stop`.
//! - The type can only be asked for while the job lives. A unit that stops within a millisecond may have outrun the
//!   question: then a job that was `done`, and left a unit down that was up when the job came, was a stop.
//! - While the machine goes down every unit gets a stop job: that is no operator's stop.
//! - It is over once the unit comes up again, or the job was cancelled before the unit went down.

use jiff::Timestamp;
use protocol::heartbeat::UnitState;
use protocol::names::{UnitName, Word};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::systemd::follow::{JobKind, News, Seen};

/// A line of `stops.json`: a unit that an operator stopped in that boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorStop {
    /// The unit.
    pub unit: UnitName,
    /// When the stop was seen.
    pub at: Timestamp,
    /// In which boot; a stop does not outlive it.
    pub boot_id: Uuid,
}

/// What news changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Something that a beat tells.
    pub told: bool,
    /// The operators' stops.
    pub stops: bool,
}

/// All units that are followed.
#[derive(Debug)]
pub struct Units {
    rows: Vec<Row>,
    boot_id: Uuid,
    going_down: bool,
}

#[derive(Debug)]
struct Row {
    name: UnitName,
    seen: Option<Seen>,
    stop: Option<Stop>,
    /// The job under way, and whether the unit was up when it came.
    job: Option<(u32, bool)>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    at: Timestamp,
    went_down: bool,
}

impl Units {
    /// `names`, and the stops of this boot from before (this process may be new).
    pub fn new(names: impl IntoIterator<Item = UnitName>, boot_id: Uuid, stops: &[OperatorStop]) -> Self {
        let known = |name: &UnitName| stops.iter().find(|s| s.boot_id == boot_id && s.unit == *name);
        let row = |name: UnitName| Row {
            stop: known(&name).map(|stop| Stop {
                at: stop.at,
                went_down: true,
            }),
            name,
            seen: None,
            job: None,
        };
        Self {
            rows: names.into_iter().map(row).collect(),
            boot_id,
            going_down: false,
        }
    }

    /// The machine goes down (or, after all, does not): stop jobs are not an operator's.
    pub fn set_going_down(&mut self, going_down: bool) {
        self.going_down = going_down;
    }

    /// Takes in what the service manager said at `now`.
    pub fn take(&mut self, news: News, now: Timestamp) -> Change {
        let going_down = self.going_down;
        match news {
            News::Unit { unit, seen } => self.with(&unit, |row| row.see(seen)),
            News::JobNew { unit, id, kind } => self.with(&unit, |row| row.job_new(id, kind, going_down, now)),
            News::JobEnded { unit, id, done } => {
                self.with(&unit, |row| row.job_ended(id, done, going_down, now))
            }
            News::Lost { units, .. } => {
                let mut change = Change::default();
                for row in self.rows.iter_mut().filter(|row| units.contains(&row.name)) {
                    change.told |= row.seen.take().is_some();
                    row.job = None;
                }
                change
            }
        }
    }

    /// For the beat: those that the manager told about.
    pub fn states(&self) -> Vec<UnitState> {
        self.rows.iter().filter_map(Row::state).collect()
    }

    /// For `stops.json`.
    pub fn stops(&self) -> Vec<OperatorStop> {
        let line = |row: &Row| {
            row.stop.map(|stop| OperatorStop {
                unit: row.name.clone(),
                at: stop.at,
                boot_id: self.boot_id,
            })
        };
        self.rows.iter().filter_map(line).collect()
    }

    fn with(&mut self, unit: &UnitName, apply: impl FnOnce(&mut Row)) -> Change {
        let Some(row) = self.rows.iter_mut().find(|row| row.name == *unit) else {
            return Change::default();
        };
        let before = (row.seen.clone(), row.stop.is_some());
        apply(row);
        let stops = row.stop.is_some() != before.1;
        Change {
            told: stops || row.seen != before.0,
            stops,
        }
    }
}

impl Row {
    fn is_up(&self) -> bool {
        self.seen.as_ref().is_some_and(Seen::is_up)
    }

    fn see(&mut self, seen: Seen) {
        match &mut self.stop {
            Some(stop) if !seen.is_up() => stop.went_down = true,
            // Up again after it was down: somebody started it.
            Some(stop) if stop.went_down => self.stop = None,
            Some(_) | None => {}
        }
        self.seen = Some(seen);
    }

    fn job_new(&mut self, id: u32, kind: Option<JobKind>, going_down: bool, now: Timestamp) {
        let was_up = self.is_up();
        self.job = Some((id, was_up));
        match kind {
            Some(JobKind::Stop) if !going_down => self.stopped(now),
            Some(JobKind::Start) => self.stop = None,
            Some(JobKind::Stop | JobKind::Other) | None => {}
        }
    }

    fn job_ended(&mut self, id: u32, done: bool, going_down: bool, now: Timestamp) {
        let job = self.job.take_if(|job| job.0 == id);
        let up = self.is_up();
        match job {
            // Cancelled before it did anything.
            _ if !done && up => {
                if self.stop.is_some_and(|stop| !stop.went_down) {
                    self.stop = None;
                }
            }
            Some((_, true)) if done && !up && !going_down => self.stopped(now),
            Some(_) | None => {}
        }
    }

    fn stopped(&mut self, now: Timestamp) {
        let went_down = self.seen.is_some() && !self.is_up();
        self.stop.get_or_insert(Stop { at: now, went_down });
    }

    fn state(&self) -> Option<UnitState> {
        let seen = self.seen.as_ref()?;
        Some(UnitState {
            name: self.name.clone(),
            active: Word::new(seen.active.as_str()).ok()?,
            sub: Word::new(seen.sub.as_str()).ok()?,
            result: seen.result.as_deref().and_then(|result| Word::new(result).ok()),
            restarts: seen.restarts,
            stopped_by_operator: self.stop.is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Uuid = Uuid::from_u128(7);

    fn name() -> UnitName {
        UnitName::new("gateway.service").unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-21T20:00:00Z".parse().unwrap()
    }

    fn seen(active: &str, sub: &str) -> News {
        News::Unit {
            unit: name(),
            seen: Seen {
                active: active.to_owned(),
                sub: sub.to_owned(),
                result: Some("success".to_owned()),
                restarts: 0,
            },
        }
    }

    fn job(id: u32, kind: Option<JobKind>) -> News {
        News::JobNew {
            unit: name(),
            id,
            kind,
        }
    }

    fn ended(id: u32, done: bool) -> News {
        News::JobEnded {
            unit: name(),
            id,
            done,
        }
    }

    /// Whether the unit counts as stopped by an operator after `news`.
    fn stopped_after(news: impl IntoIterator<Item = News>) -> bool {
        let mut units = Units::new([name()], BOOT, &[]);
        units.take(seen("active", "running"), now());
        for item in news {
            units.take(item, now());
        }
        let told = units.states()[0].stopped_by_operator;
        assert_eq!(told, !units.stops().is_empty());
        told
    }

    #[test]
    fn a_stop_is_told_at_its_job_and_ends_with_the_next_start() {
        let stop = || {
            vec![
                job(1, Some(JobKind::Stop)),
                seen("active", "running"),
                seen("deactivating", "stop-sigterm"),
            ]
        };
        assert!(stopped_after(stop()));
        let down = || {
            stop()
                .into_iter()
                .chain([seen("failed", "failed"), ended(1, true)])
        };
        assert!(
            stopped_after(down()),
            "a genuine gateway ends as failed when stopped"
        );
        assert!(!stopped_after(down().chain([job(2, Some(JobKind::Start))])));
        assert!(!stopped_after(
            down().chain([seen("activating", "start"), seen("active", "running")])
        ));
    }

    #[test]
    fn a_stop_faster_than_the_question_is_inferred() {
        let fast = [job(1, None), seen("inactive", "dead"), ended(1, true)];
        assert!(stopped_after(fast));
    }

    #[test]
    fn a_crash_and_a_restart_are_no_stop() {
        assert!(!stopped_after([seen("failed", "failed")]));
        assert!(!stopped_after([
            seen("activating", "auto-restart"),
            job(4, Some(JobKind::Start)),
            ended(4, true)
        ]));
        let restart = [
            job(1, Some(JobKind::Other)),
            seen("deactivating", "stop-sigterm"),
            seen("inactive", "dead"),
            seen("activating", "start"),
            seen("active", "running"),
            ended(1, true),
        ];
        assert!(!stopped_after(restart));
        let unasked = [
            job(1, None),
            seen("inactive", "dead"),
            seen("active", "running"),
            ended(1, true),
        ];
        assert!(!stopped_after(unasked));
        let failed_restart = [
            job(1, None),
            seen("inactive", "dead"),
            seen("failed", "failed"),
            ended(1, false),
        ];
        assert!(!stopped_after(failed_restart));
    }

    #[test]
    fn a_cancelled_stop_is_none() {
        assert!(!stopped_after([job(1, Some(JobKind::Stop)), ended(1, false)]));
    }

    #[test]
    fn a_shutdown_is_no_operators_stop() {
        let mut units = Units::new([name()], BOOT, &[]);
        units.take(seen("active", "running"), now());
        units.set_going_down(true);
        for news in [
            job(1, Some(JobKind::Stop)),
            seen("inactive", "dead"),
            ended(1, true),
        ] {
            units.take(news, now());
        }
        assert!(units.stops().is_empty());
    }

    #[test]
    fn stops_of_this_boot_are_remembered_and_of_another_are_not() {
        let line = |boot_id| OperatorStop {
            unit: name(),
            at: now(),
            boot_id,
        };
        let mut units = Units::new([name()], BOOT, &[line(BOOT)]);
        units.take(seen("inactive", "dead"), now());
        assert!(units.states()[0].stopped_by_operator);
        assert!(
            Units::new([name()], BOOT, &[line(Uuid::nil())])
                .stops()
                .is_empty()
        );
    }

    #[test]
    fn only_a_change_is_one() {
        let mut units = Units::new([name()], BOOT, &[]);
        assert!(units.take(seen("active", "running"), now()).told);
        assert_eq!(units.take(seen("active", "running"), now()), Change::default());
        let change = units.take(job(1, Some(JobKind::Stop)), now());
        assert_eq!(
            change,
            Change {
                told: true,
                stops: true
            }
        );
        let lost = News::Lost {
            units: vec![name()],
            detail: String::new(),
        };
        assert!(units.take(lost, now()).told);
        assert!(units.states().is_empty(), "what is not known is not told");
        assert_eq!(units.stops().len(), 1);
    }
}
