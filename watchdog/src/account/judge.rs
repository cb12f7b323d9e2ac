//! What kept the box from being heard: facts in, an account with its verdict out. Pure.
//!
//! The rules, in this order:
//! 1. This process was heard by that server before: nothing ran for at least half of the silence → `machine_hung`;
//!    otherwise the box was alive and its beats did not get through → `network_path`.
//! 2. A new process of the same boot. Beats had failed before the old one ended, for longer than the watchdog was
//!    down → `network_path`. The OOM killer ended it (systemd says so; or a SIGKILL while the kernel's count of OOM
//!    kills grew) → `oom`. systemd's own watchdog ended it, but later than it would have had systemd itself been
//!    running ([`MANAGER_SLACK`]) → `machine_hung`: the service manager is the second witness. Otherwise →
//!    `watchdog_only`.
//!    A noted goodbye of the machine in the same boot (a soft reboot, a container with its host's boot id) → `reboot`.
//! 3. A new boot. A kept panic → `power_or_crash` (`oom` if it says that memory ran out). The old boot's journal ends
//!    with a shutdown → `reboot` (and whatever else the kernel kept was no end); the machine's goodbye was noted →
//!    `reboot`; the journal has an OOM kill near its end → `oom`; anything else → `power_or_crash`. Without a journal the
//!    record decides alone: a shutdown would have ended the process with SIGTERM, and it would have noted its goodbye.
//!
//! Where no record is left, or nobody could tell in time how the last process ended, the box knows only of the time since
//! this one began → `unknown`.

use std::time::Duration;

use jiff::Timestamp;
use protocol::account::{Account, Verdict};
use protocol::heartbeat::GoodbyeWhy;
use uuid::Uuid;

use super::around::Around;
use super::journal::JournalEnd;
use super::past::{How, PANIC};
use super::record::{Ended, Heard, Record};
use super::silence::{Gap, Stamp, Tried};
use super::stalls::Stalls;
use super::tried::{attempt, clock, main_try, sentence};
use crate::checks::span_text;
use crate::redact::redact;

/// systemd's watchdog ends a process this much later than its limit, at most, on a machine that runs.
const MANAGER_SLACK: Duration = Duration::from_secs(2);
/// The same where only the next process's start is known: the old one's end and `RestartSec=1s` are in it.
const START_SLACK: Duration = Duration::from_secs(5);

/// What is known beside one server's silence.
#[derive(Debug)]
pub struct Story {
    /// This boot.
    pub boot_id: Uuid,
    /// When this process began.
    pub began: Stamp,
    /// The unit's `WatchdogSec=`.
    pub watchdog: Option<Duration>,
    /// What was before this process.
    pub before: Before,
    /// When nothing ran.
    pub stalls: Stalls,
}

/// What was before this process.
#[derive(Debug)]
pub enum Before {
    /// Being found out; the record, once it is read.
    Asking(Option<Box<Record>>),
    /// It was not found out in time; the record, if that was read. It may still come.
    Late(Option<Box<Record>>),
    /// No process of ours has left a record.
    Nothing,
    /// This.
    Known(Box<Record>, Box<How>),
}

/// A box that was never heard has something to explain after this.
const FIRST_SILENCE: Duration = Duration::from_secs(5);

/// Verdict, sentence and evidence.
struct Found {
    verdict: Verdict,
    summary: String,
    tried: Vec<Tried>,
    evidence: Vec<String>,
}

impl Story {
    /// As of the start of a process: what was before it is still to be found out.
    pub fn new(boot_id: Uuid, began: Stamp, watchdog: Option<Duration>) -> Self {
        Self {
            boot_id,
            began,
            watchdog,
            before: Before::Asking(None),
            stalls: Stalls::default(),
        }
    }

    /// Whether it is still being found out what was before this process.
    pub fn is_asking(&self) -> bool {
        matches!(self.before, Before::Asking(_))
    }

    /// What the server at `url` had heard before this process.
    pub fn heard_before(&self, url: &str) -> Option<Heard> {
        let (Before::Known(record, _) | Before::Asking(Some(record)) | Before::Late(Some(record))) =
            &self.before
        else {
            return None;
        };
        let heard = record.heard(url)?;
        let (taken, _) = record.taken(url);
        Some(Heard {
            taken: Some(taken),
            silent: true,
            ..heard.clone()
        })
    }

    /// The account of `gap`, as of `now`, for the server at `url`; none: a box that this server has never heard has not
    /// been there for long.
    pub fn account(&self, url: &str, gap: Gap<'_>, now: Stamp) -> Option<Account> {
        let to = gap.reached.unwrap_or(now);
        let (from, found) = match (gap.taken, &self.before) {
            (Some(from), _) => (from, self.this_process(gap.tried, from, to)),
            (None, Before::Nothing | Before::Late(None)) => {
                let long = to.since(self.began) >= FIRST_SILENCE;
                (self.began, long.then(|| self.since_it_began(gap.tried, to))?)
            }
            (None, Before::Asking(record)) => {
                let from = record.as_deref().map(|record| record.taken(url).0);
                return Some(Account::pending(from.unwrap_or(now).wall, to.wall));
            }
            (None, Before::Late(Some(record))) => (record.taken(url).0, self.since_it_began(gap.tried, to)),
            (None, Before::Known(record, how)) => {
                let from = record.taken(url);
                let heard = record.heard(url);
                (from.0, self.another_process((record, how), heard, from, now))
            }
        };
        Some(written(url, (from, to), found, gap.around))
    }

    /// Nothing is known of what was before.
    fn since_it_began(&self, tried: &[Tried], to: Stamp) -> Found {
        let found = self.this_process(tried, self.began, to);
        let began = clock(self.began.wall);
        Found {
            verdict: Verdict::Unknown,
            summary: format!(
                "nothing is known of the time before the watchdog began ({began}); since then: {}",
                found.summary
            ),
            ..found
        }
    }

    fn this_process(&self, tried: &[Tried], from: Stamp, to: Stamp) -> Found {
        let silent = to.since(from);
        let stalls: Vec<_> = self
            .stalls
            .all()
            .iter()
            .filter(|stall| !stall.within(from, to).is_zero())
            .collect();
        let held: Duration = stalls.iter().map(|stall| stall.within(from, to)).sum();
        let evidence = stalls.iter().map(|stall| {
            let how = if stall.asleep { "asleep" } else { "nothing ran" };
            let (from, to) = (clock(stall.from.wall), clock(stall.to.wall));
            format!(
                "{how} for {} ({from} to {to})",
                span_text(stall.to.since(stall.from))
            )
        });
        let evidence: Vec<String> = evidence.collect();
        if !held.is_zero() && held * 2 >= silent {
            let asleep = stalls.iter().all(|stall| stall.asleep);
            let what = if asleep {
                "the machine slept"
            } else {
                "nothing ran on it"
            };
            let cause = if asleep { "" } else { ": frozen, paused or starved" };
            return Found {
                verdict: Verdict::MachineHung,
                summary: format!("{what} for {}{cause}", span_text(held)),
                tried: tried.to_vec(),
                evidence,
            };
        }
        let alive = if held.is_zero() {
            "it was alive all the while".to_owned()
        } else {
            format!("it was alive but for {}", span_text(held))
        };
        let what = main_try(tried).map_or_else(
            || format!("beats went unanswered for {}", span_text(silent)),
            |tried| sentence(tried, silent),
        );
        Found {
            verdict: Verdict::NetworkPath,
            summary: format!("{what}; {alive}"),
            tried: tried.to_vec(),
            evidence,
        }
    }

    /// `from`: when the server last took a beat, and whether that was in the boot of `record`.
    fn another_process(
        &self,
        (record, how): (&Record, &How),
        heard: Option<&Heard>,
        from: (Stamp, bool),
        now: Stamp,
    ) -> Found {
        let tried = heard.map(|heard| heard.tried.clone()).unwrap_or_default();
        let mut found = match how {
            How::SameBoot { ended, oom_kills } => {
                self.same_boot(record, ended.as_ref(), *oom_kills, from, &tried)
            }
            How::NewBoot {
                up_ms,
                journal,
                panics,
            } => {
                // By the clock as it is now: at the start of a boot it may not have been set.
                let up = Duration::from_millis(now.boot_ms.saturating_sub(*up_ms));
                let up_since = now.wall.checked_sub(up).unwrap_or(Timestamp::MIN);
                new_boot(record, up_since, journal, panics)
            }
        };
        if let Some(main) = main_try(&tried)
            && found.verdict != Verdict::NetworkPath
        {
            let since = clock(main.first.wall);
            found.evidence.push(format!(
                "beats had failed before that, since {since}: {}",
                sentence(main, main.last.since(main.first))
            ));
        }
        found.tried = tried;
        found
    }

    fn same_boot(
        &self,
        record: &Record,
        ended: Option<&Ended>,
        oom_kills: u64,
        (from, same): (Stamp, bool),
        tried: &[Tried],
    ) -> Found {
        let down = self.began.since(record.alive);
        let mut evidence = vec![match ended {
            Some(ended) => format!("systemd on fleet-watchdog-beat: {ended}"),
            None => "how the last process ended is not known".to_owned(),
        }];
        evidence.push(format!(
            "last alive {}, started again {}, in the same boot",
            clock(record.alive.wall),
            clock(self.began.wall)
        ));
        let found = |verdict, summary| Found {
            verdict,
            summary,
            tried: Vec::new(),
            evidence: evidence.clone(),
        };
        if !same {
            let what = "the machine was booted anew meanwhile, was not heard, and then the watchdog was started again";
            return found(Verdict::Unknown, what.to_owned());
        }
        if let Some(why) = record.goodbye.filter(|why| ends_the_machine(*why)) {
            let off = span_text(down);
            let what = format!("it was shut down in order ({why}), the kernel ran on; it was off for {off}");
            return found(Verdict::Reboot, what);
        }
        let alone = record.alive.since(from);
        if let Some(main) = main_try(tried).filter(|_| alone > down) {
            let restarted = format!("the watchdog itself was down for {} of it", span_text(down));
            return found(
                Verdict::NetworkPath,
                format!("{}; it was alive, {restarted}", sentence(main, alone)),
            );
        }
        let result = ended.map_or("", |ended| ended.result.as_str());
        let killed = ended.is_some_and(|ended| matches!(ended.status.as_str(), "KILL" | "9" | "SIGKILL"));
        if result == "oom-kill" || (killed && oom_kills > 0) {
            let mut oom = found(
                Verdict::Oom,
                format!(
                    "the kernel's OOM killer ended the watchdog; it was down for {}, the machine ran on",
                    span_text(down)
                ),
            );
            oom.evidence.push(format!("OOM kills meanwhile: {oom_kills}"));
            return oom;
        }
        let late = self.watchdog.is_some_and(|limit| {
            ended
                .and_then(|ended| ended.uptime_ms)
                .map_or(down > limit + START_SLACK, |uptime_ms| {
                    Duration::from_millis(uptime_ms.saturating_sub(record.alive.boot_ms))
                        > limit + MANAGER_SLACK
                })
        });
        if result == "watchdog" && late {
            return found(
                Verdict::MachineHung,
                format!(
                    "nothing ran on it for about {}, systemd neither: frozen, paused or starved; systemd then started the \
                     watchdog anew",
                    span_text(down)
                ),
            );
        }
        let stopped = if record.goodbye.is_some() {
            " (it was told to stop)"
        } else {
            ""
        };
        found(
            Verdict::WatchdogOnly,
            format!(
                "only the watchdog was down, for {}{stopped}; the machine ran on",
                span_text(down)
            ),
        )
    }
}

fn written(url: &str, (from, to): (Stamp, Stamp), found: Found, around: &Around) -> Account {
    let mut evidence = found.evidence;
    evidence.extend(around.lines());
    let mut tried = found.tried;
    tried.sort_by_key(|tried| std::cmp::Reverse(tried.times));
    Account {
        pending: false,
        verdict: found.verdict,
        from: from.wall,
        to: to.wall,
        summary: redact(&found.summary),
        attempts: tried.iter().map(|tried| attempt(url, tried)).collect(),
        evidence: evidence.iter().map(|line| redact(line)).collect(),
    }
    .bounded()
}

fn new_boot(
    record: &Record,
    up_since: Timestamp,
    journal: &Result<JournalEnd, String>,
    panics: &[String],
) -> Found {
    let last_line = journal.as_ref().ok().and_then(|end| end.last);
    let last = last_line.map_or(record.alive.wall, |line| line.max(record.alive.wall));
    let off = Duration::try_from(up_since.duration_since(last)).ok();
    let off = off.map_or_else(
        || "for a time that its clock does not tell".to_owned(),
        |off| format!("for {}", span_text(off)),
    );
    let times = format!("last sign of life {}, up again {}", clock(last), clock(up_since));
    let mut evidence: Vec<String> = panics.iter().map(|line| format!("pstore: {line}")).collect();
    match journal {
        Ok(end) => {
            let of_note = end.in_order().into_iter().chain(end.oom()).map(str::to_owned);
            evidence.extend(
                of_note
                    .chain(end.signs.iter().cloned())
                    .map(|line| format!("journal: {line}")),
            );
            match end.last_line() {
                Some(line) if end.in_order().is_none() => {
                    evidence.push(format!("the old boot's journal ends with: {line}"));
                }
                Some(_) => {}
                None => evidence.push("the old boot has no journal".to_owned()),
            }
        }
        Err(problem) => evidence.push(format!("the old boot's journal: {problem}")),
    }
    evidence.push(match record.goodbye {
        Some(why) => format!("the watchdog had noted its goodbye: {why}"),
        None => "the watchdog had noted no goodbye".to_owned(),
    });
    evidence.push(times);
    let journal = journal.as_ref().ok().filter(|end| end.last.is_some());
    let in_order = journal.is_some_and(|end| end.in_order().is_some());
    let panic = panics.iter().find(|line| line.contains(PANIC));
    let of_memory = ["Out of memory", "out of memory", "deadlocked on memory"];
    let (verdict, what) = if panic.is_some_and(|line| of_memory.iter().any(|text| line.contains(text))) {
        (Verdict::Oom, "the kernel panicked when memory ran out".to_owned())
    } else if let Some(panic) = panic.or(panics.first().filter(|_| !in_order)) {
        (Verdict::PowerOrCrash, format!("the kernel crashed ({panic})"))
    } else if let Some(end) = journal {
        by_journal(end, record.goodbye)
    } else {
        by_goodbye(record.goodbye)
    };
    Found {
        verdict,
        summary: format!("{what}; it was off {off}"),
        tried: Vec::new(),
        evidence,
    }
}

fn by_journal(end: &JournalEnd, goodbye: Option<GoodbyeWhy>) -> (Verdict, String) {
    // A journal need not keep all: one that is full, or keeps warnings only, tells of no shutdown.
    if end.in_order().is_some() || goodbye.is_some_and(ends_the_machine) {
        return (Verdict::Reboot, "it was shut down in order".to_owned());
    }
    match end.oom() {
        Some(line) => (
            Verdict::Oom,
            format!("it went down without a shutdown after memory had run out ({line})"),
        ),
        None => (
            Verdict::PowerOrCrash,
            "it went down without a shutdown: power cut, reset or crash".to_owned(),
        ),
    }
}

fn ends_the_machine(why: GoodbyeWhy) -> bool {
    match why {
        GoodbyeWhy::Reboot | GoodbyeWhy::Poweroff | GoodbyeWhy::Halt | GoodbyeWhy::Kexec => true,
        GoodbyeWhy::Suspend | GoodbyeWhy::WatchdogStopped => false,
    }
}

fn by_goodbye(goodbye: Option<GoodbyeWhy>) -> (Verdict, String) {
    match goodbye {
        Some(GoodbyeWhy::Reboot | GoodbyeWhy::Poweroff | GoodbyeWhy::Halt | GoodbyeWhy::Kexec) => {
            (Verdict::Reboot, "it was shut down in order".to_owned())
        }
        Some(GoodbyeWhy::Suspend) => (
            Verdict::PowerOrCrash,
            "it went to sleep and lost its power".to_owned(),
        ),
        Some(GoodbyeWhy::WatchdogStopped) => (
            Verdict::Unknown,
            "the watchdog had been stopped before the machine went down, and there is no journal to tell how"
                .to_owned(),
        ),
        None => (
            Verdict::PowerOrCrash,
            "it went down without a shutdown that the watchdog noticed: power cut, reset or crash".to_owned(),
        ),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
