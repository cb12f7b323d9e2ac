//! What goes wrong, when and for how long. Pure: the same seed makes the same schedule.
//!
//! It does nothing of it; [`super::driver`] does.

use std::fmt;

use protocol::report::CheckName;
use serde::{Deserialize, Serialize};

/// Sites, each with [`SITE_BOXES`] boxes.
pub(super) const SITES: usize = 3;
/// Boxes of a site: as few as can be told of together.
pub(super) const SITE_BOXES: usize = 3;
/// Played boxes.
pub(super) const BOXES: usize = SITES * SITE_BOXES;
/// Receivers, each told of everything.
pub(super) const RECEIVERS: usize = 2;
/// Faults begin within this, milliseconds.
const SPAN_MS: u64 = 4500;
/// A silent box is judged about so long after it went, milliseconds: what begins then meets the notification.
const VERDICT_MS: u64 = 1500;

/// When the step is due, if the schedule has one.
pub(super) const STEP_SECS: u64 = 1;

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Schedule {
    /// It came from this one (a shrunk one only in part).
    pub(super) seed: u64,
    /// The size of the server's disk: only a large one has room for the reserve.
    pub(super) disk_mib: u32,
    /// The second receiver is a step: told of what is open for [`STEP_SECS`] and in nobody's hand.
    #[serde(default)]
    pub(super) steps: bool,
    /// What goes wrong, by its begin.
    pub(super) faults: Vec<Fault>,
}

/// One thing that goes wrong, and when it is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fault {
    /// After the start.
    pub(super) at_ms: u64,
    /// For so long.
    pub(super) for_ms: u64,
    /// What.
    pub(super) what: What,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// SIGKILL; started again at the end.
    ServerKill,
    /// SIGKILL at the moment when the next notification arrives (if one does); started again at the end.
    ServerKillAtNotification,
    /// SIGTERM; started again at the end.
    ServerRestart,
    /// SIGSTOP until the end.
    ServerHang,
    /// The server's disk is full; `again`: whatever becomes free is filled at once.
    StoreFull { again: bool },
    /// Every write to the server's disk fails, as on a disk that turned read-only.
    StoreReadOnly,
    /// The server is killed, and finds its disk read-only when it starts again.
    StoreReadOnlyAtStart,
    /// A receiver is ill.
    Receiver { ix: usize, how: Ill },
    /// A cable is out: nothing passes, nobody is told so.
    Cable(Cable),
    /// A box goes; at the end it comes back.
    BoxGoes { ix: usize, how: Going },
    /// A box goes for good.
    BoxDies { ix: usize },
    /// A check of a box fails.
    Check { ix: usize, check: CheckName },
    /// An operator takes the newest open incident in hand.
    Acknowledge,
    /// An operator adds a box (which beats once, at the end).
    AddBox,
    /// An operator silences a box for some seconds; one that is not there for long.
    Silence { ix: Option<usize>, secs: u64 },
}

/// How a receiver is ill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ill {
    /// Nothing listens.
    Down,
    /// Takes and never answers.
    Hang,
    /// Answers 500.
    Errors,
    /// Answers 429, "come again in a second".
    TooMany,
    /// Answers 200, after a while.
    Slow,
    /// Answers something that is no HTTP.
    Garbage,
    /// Takes, and closes without an answer.
    Drops,
}

/// Whose cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cable {
    /// One box's.
    Box(usize),
    /// All boxes' of a site.
    Site(usize),
    /// A receiver's.
    Receiver(usize),
    /// All boxes': the server's own uplink.
    Uplink,
}

/// How a box goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Going {
    /// Silently, as by a power cut.
    Silent,
    /// Its watchdog is killed: the connection closes.
    Killed,
    /// It says goodbye, and names these seconds.
    Goodbye { back_secs: u64 },
}

/// The begin or the end of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// When.
    pub(super) at_ms: u64,
    /// Which fault, by its place in the schedule.
    pub(super) fault: usize,
    /// It ends.
    pub(super) ends: bool,
}

impl Schedule {
    /// The schedule of a seed.
    pub(super) fn of(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let disk_mib = if random.one_in(2) { 48 } else { 16 };
        let mut faults = Vec::new();
        // At least one box is gone for long enough to be told of.
        let first = Fault {
            at_ms: random.of(0, 1500),
            for_ms: random.of(2500, 4500),
            what: What::BoxGoes {
                ix: random.below(BOXES),
                how: random.going(false),
            },
        };
        faults.push(first);
        let mut hot = vec![first.at_ms + VERDICT_MS, first.at_ms + first.for_ms];
        if random.one_in(2) {
            let at_ms = random.of(0, SPAN_MS);
            let ix = random.below(BOXES);
            faults.push(Fault {
                at_ms,
                for_ms: 0,
                what: What::BoxDies { ix },
            });
            hot.push(at_ms + VERDICT_MS);
        }
        let mut server_free_ms = 0;
        for _ in 0..random.of(3, 8) {
            let near = hot[random.below(hot.len())];
            // Half of them near a notification.
            let at_ms = if random.one_in(2) {
                (near + random.of(0, 600)).saturating_sub(200)
            } else {
                random.of(0, SPAN_MS)
            };
            let mut fault = random.fault(at_ms);
            if fault.what.is_the_servers() {
                fault.at_ms = fault.at_ms.max(server_free_ms);
                server_free_ms = fault.at_ms + fault.for_ms + 100;
            }
            if matches!(fault.what, What::BoxGoes { .. }) {
                hot.push(fault.at_ms + VERDICT_MS);
            }
            faults.push(fault);
        }
        faults.sort_by_key(|fault| fault.at_ms);
        Self {
            seed,
            disk_mib,
            steps: seed.is_multiple_of(3),
            faults,
        }
    }

    /// Begins and ends, in their order.
    pub(super) fn begins_and_ends(&self) -> Vec<Step> {
        let steps = self.faults.iter().enumerate().flat_map(|(fault, of)| {
            let begin = Step {
                at_ms: of.at_ms,
                fault,
                ends: false,
            };
            let end = Step {
                at_ms: of.at_ms + of.for_ms,
                fault,
                ends: true,
            };
            std::iter::once(begin).chain(of.what.lasts().then_some(end))
        });
        let mut steps: Vec<Step> = steps.collect();
        steps.sort_by_key(|step| (step.at_ms, step.fault, step.ends));
        steps
    }
}

impl What {
    /// The server's process ends or stands still.
    fn is_the_servers(self) -> bool {
        match self {
            Self::ServerKill
            | Self::ServerKillAtNotification
            | Self::ServerRestart
            | Self::ServerHang
            | Self::StoreReadOnlyAtStart => true,
            Self::StoreFull { .. }
            | Self::StoreReadOnly
            | Self::Receiver { .. }
            | Self::Cable(_)
            | Self::BoxGoes { .. }
            | Self::BoxDies { .. }
            | Self::Check { .. }
            | Self::Acknowledge
            | Self::AddBox
            | Self::Silence { .. } => false,
        }
    }

    /// It has an end.
    fn lasts(self) -> bool {
        !matches!(
            self,
            Self::BoxDies { .. } | Self::Acknowledge | Self::AddBox | Self::Silence { .. }
        )
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk {} MiB", self.disk_mib)?;
        if self.steps {
            f.write_str(", steps")?;
        }
        self.faults.iter().try_for_each(|fault| write!(f, "; {fault}"))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = |ms: u64| ms as f64 / 1000.0;
        write!(f, "{:.2} s ", secs(self.at_ms))?;
        if self.what.lasts() {
            write!(f, "for {:.2} s ", secs(self.for_ms))?;
        }
        write!(f, "{}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServerKill => f.write_str("server killed"),
            Self::ServerKillAtNotification => f.write_str("server killed at the next notification"),
            Self::ServerRestart => f.write_str("server restarted"),
            Self::ServerHang => f.write_str("server stopped by SIGSTOP"),
            Self::StoreFull { again: false } => f.write_str("disk full"),
            Self::StoreFull { again: true } => f.write_str("disk full and kept full"),
            Self::StoreReadOnly => f.write_str("disk read-only"),
            Self::StoreReadOnlyAtStart => f.write_str("server killed, disk read-only at its start"),
            Self::Receiver { ix, how } => write!(f, "receiver {ix} {how:?}"),
            Self::Cable(cable) => write!(f, "cable out of {cable:?}"),
            Self::BoxGoes { ix, how } => write!(f, "{} goes {how:?}", box_name(*ix)),
            Self::BoxDies { ix } => write!(f, "{} dies for good", box_name(*ix)),
            Self::Check { ix, check } => write!(f, "{}: {check} fails", box_name(*ix)),
            Self::Acknowledge => f.write_str("newest incident acknowledged"),
            Self::AddBox => f.write_str("box added"),
            Self::Silence { ix: Some(ix), secs } => write!(f, "{} silenced for {secs} s", box_name(*ix)),
            Self::Silence { ix: None, .. } => f.write_str("nobody silenced"),
        }
    }
}

/// The site of a box.
pub(super) fn site_of(ix: usize) -> usize {
    ix / SITE_BOXES
}

/// The name of a site.
pub(super) fn site_name(site: usize) -> String {
    ["fsn1", "hel1", "ash1"].get(site).unwrap_or(&"none").to_string()
}

/// The name of a box.
pub(super) fn box_name(ix: usize) -> String {
    format!("{}-{}", site_name(site_of(ix)), ix % SITE_BOXES + 1)
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// From `low` to `high`, both included.
    fn of(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }

    fn going(&mut self, goodbye_too: bool) -> Going {
        match self.below(if goodbye_too { 4 } else { 2 }) {
            0 => Going::Silent,
            1 => Going::Killed,
            2 => Going::Goodbye { back_secs: 600 },
            _ => Going::Goodbye {
                back_secs: self.of(1, 2),
            },
        }
    }

    fn fault(&mut self, at_ms: u64) -> Fault {
        let (for_ms, what) = match self.below(33) {
            0..=1 => (self.of(20, 1500), What::ServerKill),
            2..=3 => (self.of(500, 2500), What::ServerKillAtNotification),
            4..=5 => (self.of(0, 500), What::ServerRestart),
            6..=7 => (self.of(200, 3500), What::ServerHang),
            8..=9 => (
                self.of(500, 4000),
                What::StoreFull {
                    again: self.one_in(2),
                },
            ),
            10..=11 => (self.of(500, 4000), What::StoreReadOnly),
            12 => (self.of(300, 2000), What::StoreReadOnlyAtStart),
            13..=17 => (self.of(500, 4000), self.receiver()),
            18..=21 => (self.of(400, 4500), What::Cable(self.cable())),
            22..=25 => {
                let (ix, how) = (self.below(BOXES), self.going(true));
                (self.of(300, 5000), What::BoxGoes { ix, how })
            }
            26..=27 => {
                let check = if self.one_in(2) {
                    CheckName::Disk
                } else {
                    CheckName::Backup
                };
                let ix = self.below(BOXES);
                (self.of(500, 3000), What::Check { ix, check })
            }
            28 => (0, What::Acknowledge),
            29 => (0, What::Silence { ix: None, secs: 600 }),
            30..=31 => {
                let (ix, secs) = (Some(self.below(BOXES)), self.of(1, 4));
                (0, What::Silence { ix, secs })
            }
            _ => (0, What::AddBox),
        };
        Fault { at_ms, for_ms, what }
    }

    fn receiver(&mut self) -> What {
        const WAYS: [Ill; 7] = [
            Ill::Down,
            Ill::Hang,
            Ill::Errors,
            Ill::TooMany,
            Ill::Slow,
            Ill::Garbage,
            Ill::Drops,
        ];
        What::Receiver {
            ix: self.below(RECEIVERS),
            how: WAYS[self.below(WAYS.len())],
        }
    }

    fn cable(&mut self) -> Cable {
        match self.below(6) {
            0 | 1 => Cable::Box(self.below(BOXES)),
            2 => Cable::Site(self.below(SITES)),
            3 | 4 => Cable::Receiver(self.below(RECEIVERS)),
            _ => Cable::Uplink,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_schedule_and_another_one_another() {
        assert_eq!(Schedule::of(7), Schedule::of(7));
        assert_ne!(Schedule::of(7).faults, Schedule::of(8).faults);
        let json = serde_json::to_string(&Schedule::of(7)).unwrap();
        assert_eq!(serde_json::from_str::<Schedule>(&json).unwrap(), Schedule::of(7));
    }

    #[test]
    fn every_kind_of_fault_comes_up_and_the_servers_own_never_overlap() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..400 {
            let schedule = Schedule::of(seed);
            let mut free_ms = 0;
            for fault in &schedule.faults {
                let text = format!("{:?}", fault.what);
                kinds.insert(text.split([' ', '(']).next().unwrap_or_default().to_owned());
                if fault.what.is_the_servers() {
                    assert!(fault.at_ms >= free_ms, "{schedule}");
                    free_ms = fault.at_ms + fault.for_ms;
                }
            }
        }
        assert_eq!(kinds.len(), 15, "{kinds:?}");
    }

    #[test]
    fn an_end_comes_after_its_begin() {
        for seed in 0..100 {
            let steps = Schedule::of(seed).begins_and_ends();
            for (at, step) in steps.iter().enumerate() {
                let begun = steps[..at]
                    .iter()
                    .any(|other| other.fault == step.fault && !other.ends);
                assert_eq!(step.ends, begun);
            }
        }
    }
}
