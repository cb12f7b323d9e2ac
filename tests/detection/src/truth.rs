//! What really was the matter with a box when it was called dark.

use std::time::Duration;

use fleet_server::liveness::time::Mono;
use watchdog::beat::plan::RUSH;

use crate::path::{Broken, Path};
use crate::qos::{Qos, Wrong};

/// A verdict and an outage's end that lie closer together than this (and two and a half round trips: a connection and
/// a beat) have crossed: no news of the end could have arrived.
const CROSSING: Duration = Duration::from_secs(1);
/// The same for a watchdog that was not answered for [`RUSH`]: it connects less often.
const CROSSING_LATE: Duration = Duration::from_secs(3);

/// One box's silence as the world knows it.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    /// The last beat that was handled.
    pub last: Mono,
    /// The last beat that would have been, but for the server's own trouble.
    pub but_for_server: Option<Mono>,
}

/// The truth about a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// The box was gone: machine off, or watchdog ended.
    Dead {
        /// Since when.
        since: Mono,
        /// Until when.
        until: Mono,
    },
    /// It was not.
    Alive {
        /// What led to the verdict.
        why: Wrong,
        /// How long its outage lasted in all.
        lasted: Duration,
    },
}

impl Truth {
    /// About a verdict spoken now, on this silence. `tolerance`: no shorter silence may be told of.
    pub fn of(path: &Path, silence: Silence, now: Mono, tolerance: Duration) -> Self {
        let dead = path.standing_still(now).filter(|one| one.of != Broken::Frozen);
        if let Some(one) = dead {
            return Self::Dead {
                since: one.from,
                until: one.to,
            };
        }
        let heard_else = silence
            .but_for_server
            .filter(|would| *would > silence.last && *would < now);
        let since = heard_else.unwrap_or(silence.last);
        let outage = path.between(since, now).max_by_key(|one| one.to);
        let short = now.since(since) < tolerance;
        let (why, lasted) = match outage {
            None if short => (Wrong::Short, Duration::ZERO),
            None => (Wrong::Fine, Duration::ZERO),
            Some(one) if short && one.to > now => (Wrong::Early, one.to.since(one.from)),
            Some(one) if short => (Wrong::Short, one.to.since(one.from)),
            Some(one) => {
                let pace = if one.to.since(since) < RUSH {
                    CROSSING
                } else {
                    CROSSING_LATE
                };
                let near = pace + Duration::from_secs_f64(path.rtt_secs * 2.5);
                let why = if one.to > now {
                    Wrong::Outage
                } else if one.to + near >= now {
                    Wrong::Crossed
                } else {
                    Wrong::Fine
                };
                (why, one.to.since(one.from))
            }
        };
        let why = if why.is_false() && heard_else.is_some() {
            Wrong::Server
        } else {
            why
        };
        Self::Alive { why, lasted }
    }

    /// How long the outage lasted until it ended.
    pub fn healed_after(self) -> Duration {
        match self {
            Self::Dead { since, until } => until.since(since),
            Self::Alive { lasted, .. } => lasted,
        }
    }

    /// Since when it was gone, if it was.
    pub fn dead_since(self) -> Option<Mono> {
        match self {
            Self::Dead { since, .. } => Some(since),
            Self::Alive { .. } => None,
        }
    }

    /// Counts it, and says whether it began a mistake.
    pub fn count(self, qos: &mut Qos) -> Option<Wrong> {
        match self {
            Self::Dead { .. } => None,
            Self::Alive { why, .. } => {
                qos.wrong(why);
                Some(why)
            }
        }
    }
}
