//! The gateway units as the service manager's signals tell them, and who stopped them. Pure; `systemd::follow` listens.
//!
//! How an operator's stop is told from a crash and from a restart (read in systemd's job.c, seen on 252):
//! - `systemctl stop` queues a job of type `stop`. A crash has no job. A restart is one job of type `restart` that turns
//!   into `start` under the same number once the unit is down, so it never is a `stop`.
//! - The type can only be asked for while the job lives. A unit that stops within a millisecond may have outrun the
//!   question: then a job of unknown type that was `done`, and left the unit down without ever bringing it up, was a
//!   stop. (The unit's own signal may come before that of the job: whether it was up then tells nothing.)
//! - While the machine goes down every unit gets a stop job: that is no operator's stop.
//! - It is over once the unit comes up again, or the job was cancelled before the unit went down.

use jiff::Timestamp;
use protocol::heartbeat::UnitState;
use protocol::limits;
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

/// Results of a run that a signal ended. (systemd says `oom-kill` where the kernel tells it.)
const ENDED_BY_SIGNAL: [&str; 3] = ["signal", "oom-kill", "core-dump"];

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
    killed: Option<UnitName>,
}

#[derive(Debug)]
struct Row {
    name: UnitName,
    seen: Option<Seen>,
    /// The OOM killer ended its last run: what says so.
    oom: Option<String>,
    stop: Option<Stop>,
    job: Option<Job>,
    newest_job: u32,
}

/// The job under way.
#[derive(Debug, Clone, Copy)]
struct Job {
    id: u32,
    kind: Option<JobKind>,
    /// The unit came up during it.
    came_up: bool,
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
            oom: None,
            job: None,
            newest_job: 0,
        };
        Self {
            rows: names.into_iter().map(row).collect(),
            boot_id,
            going_down: false,
            killed: None,
        }
    }

    /// The unit whose run has just been ended by a signal, once.
    pub fn take_killed(&mut self) -> Option<UnitName> {
        self.killed.take()
    }

    /// What says that the OOM killer ended the unit's last run, if it did: systemd, or the kernel's count, which has
    /// grown by `oom_kills` meanwhile.
    pub fn oom_line(&self, unit: &UnitName, oom_kills: u64) -> Option<String> {
        let row = self.rows.iter().find(|row| row.name == *unit)?;
        match row.seen.as_ref()?.result.as_deref()? {
            "oom-kill" => Some("systemd: Result=oom-kill".to_owned()),
            result if oom_kills > 0 => {
                let kills = if oom_kills == 1 {
                    "one OOM kill".to_owned()
                } else {
                    format!("{oom_kills} OOM kills")
                };
                Some(format!(
                    "systemd: Result={result}; the kernel counted {kills} as it ended"
                ))
            }
            _ => None,
        }
    }

    /// The OOM killer ended its last run; whether that is news.
    pub fn killed_for_memory(&mut self, unit: &UnitName, line: &str) -> bool {
        let Some(row) = self.rows.iter_mut().find(|row| row.name == *unit) else {
            return false;
        };
        let end = line.floor_char_boundary(limits::ACCOUNT_LINE_BYTES);
        let line = line[..end].replace(|c: char| c.is_control(), " ");
        let news = row.oom.as_ref() != Some(&line);
        row.oom = Some(line);
        news
    }

    /// The machine goes down (or, after all, does not): stop jobs are not an operator's.
    pub fn set_going_down(&mut self, going_down: bool) {
        self.going_down = going_down;
    }

    /// Takes in what the service manager said at `now`.
    pub fn take(&mut self, news: News, now: Timestamp) -> Change {
        let going_down = self.going_down;
        match news {
            News::Unit { unit, seen } => {
                let signalled = seen
                    .result
                    .as_deref()
                    .is_some_and(|result| ENDED_BY_SIGNAL.contains(&result));
                let mut went_down = false;
                let change = self.with(&unit, |row| went_down = row.see(seen));
                if went_down && signalled {
                    self.killed = Some(unit);
                }
                change
            }
            News::JobNew { unit, id } => self.with(&unit, |row| row.job_new(id)),
            News::JobKind { unit, id, kind } => {
                self.with(&unit, |row| row.job_kind(id, kind, going_down, now))
            }
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

    /// Takes it in; whether a run has just ended.
    fn see(&mut self, seen: Seen) -> bool {
        let ran = self.seen.as_ref().is_some_and(Seen::runs);
        let ended = ran && !seen.runs();
        if ended {
            self.oom = None;
        }
        match &mut self.stop {
            Some(stop) if !seen.is_up() => stop.went_down = true,
            // Up again after it was down: somebody started it.
            Some(stop) if stop.went_down => self.stop = None,
            Some(_) | None => {}
        }
        let came_up = seen.is_up() && !self.is_up();
        if let Some(job) = &mut self.job {
            job.came_up |= came_up;
        }
        self.seen = Some(seen);
        ended
    }

    fn job_new(&mut self, id: u32) {
        self.newest_job = id;
        self.job = Some(Job {
            id,
            kind: None,
            came_up: false,
        });
    }

    fn job_kind(&mut self, id: u32, kind: JobKind, going_down: bool, now: Timestamp) {
        // The answer may come after the job's end, but not after the next job.
        if id != self.newest_job {
            return;
        }
        if let Some(job) = &mut self.job {
            job.kind = Some(kind);
        }
        match kind {
            JobKind::Stop if !going_down => self.stopped(now),
            JobKind::Start => self.stop = None,
            JobKind::Stop | JobKind::Other => {}
        }
    }

    fn job_ended(&mut self, id: u32, done: bool, going_down: bool, now: Timestamp) {
        let Some(job) = self.job.take_if(|job| job.id == id) else {
            return;
        };
        let (down, never_up) = (self.seen.is_some() && !self.is_up(), !job.came_up);
        if done && down && never_up && job.kind.is_none() && !going_down {
            self.stopped(now);
        }
        // Cancelled before it did anything.
        if !done && !down && self.stop.is_some_and(|stop| !stop.went_down) {
            self.stop = None;
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
            oom: self.oom.clone(),
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

    fn job(id: u32) -> News {
        News::JobNew { unit: name(), id }
    }

    fn kind(id: u32, kind: JobKind) -> News {
        News::JobKind {
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
                job(1),
                kind(1, JobKind::Stop),
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
        assert!(!stopped_after(down().chain([job(2), kind(2, JobKind::Start)])));
        assert!(!stopped_after(
            down().chain([seen("activating", "start"), seen("active", "running")])
        ));
    }

    #[test]
    fn a_stop_faster_than_the_question_is_inferred() {
        let fast = [job(1), seen("inactive", "dead"), ended(1, true)];
        assert!(stopped_after(fast));
        let unit_first = [
            seen("deactivating", "stop-sigterm"),
            job(1),
            seen("inactive", "dead"),
            ended(1, true),
        ];
        assert!(stopped_after(unit_first));
        let late_answer = [
            seen("failed", "failed"),
            job(1),
            ended(1, true),
            kind(1, JobKind::Stop),
        ];
        assert!(stopped_after(late_answer));
    }

    #[test]
    fn a_crash_and_a_restart_are_no_stop() {
        assert!(!stopped_after([seen("failed", "failed")]));
        assert!(!stopped_after([
            seen("activating", "auto-restart"),
            job(4),
            kind(4, JobKind::Start),
            ended(4, true)
        ]));
        let restart = [
            job(1),
            kind(1, JobKind::Other),
            seen("deactivating", "stop-sigterm"),
            seen("inactive", "dead"),
            seen("activating", "start"),
            seen("active", "running"),
            ended(1, true),
        ];
        assert!(!stopped_after(restart));
        let unasked = [
            job(1),
            seen("inactive", "dead"),
            seen("active", "running"),
            ended(1, true),
        ];
        assert!(!stopped_after(unasked));
        let failed_restart = [
            job(1),
            seen("inactive", "dead"),
            seen("failed", "failed"),
            ended(1, false),
        ];
        assert!(!stopped_after(failed_restart));
        let crashed_at_start = [
            seen("failed", "failed"),
            job(1),
            seen("active", "running"),
            seen("failed", "failed"),
            ended(1, true),
        ];
        assert!(!stopped_after(crashed_at_start));
        let started_again = [
            seen("inactive", "dead"),
            job(2),
            seen("active", "running"),
            ended(2, true),
            kind(1, JobKind::Stop),
        ];
        assert!(
            !stopped_after([job(1)].into_iter().chain(started_again)),
            "an old job's kind is no news"
        );
    }

    #[test]
    fn a_cancelled_stop_is_none() {
        assert!(!stopped_after([job(1), kind(1, JobKind::Stop), ended(1, false)]));
    }

    #[test]
    fn a_shutdown_is_no_operators_stop() {
        let mut units = Units::new([name()], BOOT, &[]);
        units.take(seen("active", "running"), now());
        units.set_going_down(true);
        for news in [
            job(1),
            kind(1, JobKind::Stop),
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
    fn a_run_that_the_oom_killer_ended_is_told_until_another_has_ended() {
        let ended = |result: &str| News::Unit {
            unit: name(),
            seen: Seen {
                active: "failed".to_owned(),
                sub: "failed".to_owned(),
                result: Some(result.to_owned()),
                restarts: 0,
            },
        };
        let mut units = Units::new([name()], BOOT, &[]);
        units.take(seen("active", "running"), now());
        units.take(ended("exit-code"), now());
        assert_eq!(units.take_killed(), None);
        units.take(seen("active", "running"), now());
        units.take(ended("signal"), now());
        assert_eq!((units.take_killed(), units.take_killed()), (Some(name()), None));
        assert_eq!(units.oom_line(&name(), 0), None, "somebody's SIGKILL");
        let line = units.oom_line(&name(), 1).unwrap();
        assert!(
            line.contains("Result=signal") && line.contains("one OOM kill"),
            "{line}"
        );
        assert!(units.killed_for_memory(&name(), &line));
        assert!(!units.killed_for_memory(&name(), &line), "is no news");
        units.take(seen("active", "running"), now());
        assert_eq!(
            units.states()[0].oom.as_ref(),
            Some(&line),
            "it runs again: its last run ended so"
        );
        units.take(ended("oom-kill"), now());
        assert_eq!(units.states()[0].oom, None, "another end");
        assert_eq!(
            units.oom_line(&name(), 0).as_deref(),
            Some("systemd: Result=oom-kill")
        );
    }

    #[test]
    fn only_a_change_is_one() {
        let mut units = Units::new([name()], BOOT, &[]);
        assert!(units.take(seen("active", "running"), now()).told);
        assert_eq!(units.take(seen("active", "running"), now()), Change::default());
        assert_eq!(units.take(job(1), now()), Change::default());
        let change = units.take(kind(1, JobKind::Stop), now());
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
