//! Pure: whether this server may tell the world that it works.
//!
//! Rules of evidence, each of which alone stops the pings:
//! - **Loop**: the sweep has not turned for [`STUCK_AFTER`]. Nobody is judged, nothing is decided.
//! - **Store**: a real write failed or was not answered in time, or what was decided cannot be written. What is not
//!   written is not sent.
//! - **Outbox**: a notification of which *nobody* has heard is older than the bound, or one that nobody even tries to
//!   deliver. A receiver that fails is no reason by itself: what waits there does not count once somebody was told that
//!   it fails (`receiver_failing`), nor while it is tried and another receiver took the same: people know. So the pings
//!   stop when the only receiver is down, when all are, or when a worker hangs; and go on when one of several is down.
//!   The default bound (6 min) leaves room for a minute until a failing receiver is told of, and for the longest
//!   `Retry-After` that is obeyed.
//!
//! Not among the reasons: warming up, blind, overloaded (each pages by itself, and if that page reaches nobody, the
//! outbox is the reason), and a canary that fails (it pages too).

use std::time::Duration;

use jiff::SignedDuration;

use crate::liveness::time::{Moment, Mono};
use crate::store::Unheard;

/// A loop that turns every 50 ms and has not for so long is stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(5);

/// What was found out just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// When the sweep last turned.
    pub last_turn: Option<Mono>,
    /// What came of a write to the store; `Err` with what it said.
    pub written: Result<(), String>,
    /// Why what was decided cannot be written, if it cannot.
    pub store_error: Option<String>,
    /// Notifications of which nobody has heard, by receiver.
    pub unheard: Vec<Unheard>,
    /// How old the oldest of them may be.
    pub unheard_after: Duration,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Sick {
    /// The sweep has not turned once.
    #[error("the loop that judges has not turned yet")]
    NotStarted,
    /// The sweep does not turn.
    #[error("the loop that judges has not turned for {} s", .0.as_secs())]
    LoopStuck(Duration),
    /// The store takes no writes.
    #[error("the store takes no writes: {0}")]
    StoreFailing(String),
    /// Notifications reach nobody.
    #[error("nobody has heard of a notification that has waited for {} s at receiver {receiver}", .age.as_secs())]
    Unheard {
        /// Where it waits.
        receiver: String,
        /// For how long.
        age: Duration,
    },
}

impl Sick {
    /// The word for it in metrics and log.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NotStarted | Self::LoopStuck(_) => "loop",
            Self::StoreFailing(_) => "store",
            Self::Unheard { .. } => "outbox",
        }
    }
}

/// Whether all is well, or everything that is not.
pub fn healthy(facts: &Facts, now: Moment) -> Result<(), Vec<Sick>> {
    let turning = match facts.last_turn.map(|last| now.mono.since(last)) {
        None => Some(Sick::NotStarted),
        Some(still) => (still > STUCK_AFTER).then_some(Sick::LoopStuck(still)),
    };
    let store = facts.written.as_ref().err().or(facts.store_error.as_ref());
    let limit = SignedDuration::try_from(facts.unheard_after).unwrap_or(SignedDuration::MAX);
    let outbox = facts.unheard.iter().filter_map(|unheard| {
        let age = now.wall.duration_since(unheard.oldest);
        (age > limit).then(|| Sick::Unheard {
            receiver: unheard.receiver.clone(),
            age: age.unsigned_abs(),
        })
    });
    let found: Vec<Sick> = turning
        .into_iter()
        .chain(store.cloned().map(Sick::StoreFailing))
        .chain(outbox)
        .collect();
    if found.is_empty() { Ok(()) } else { Err(found) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const WALL: i64 = 1_763_755_200;

    fn now() -> Moment {
        Moment {
            mono: Mono::from_micros(3_600_000_000),
            wall: Timestamp::from_second(WALL).unwrap(),
        }
    }

    fn waits(receiver: &str, secs: i64) -> Unheard {
        Unheard {
            receiver: receiver.into(),
            oldest: Timestamp::from_second(WALL - secs).unwrap(),
        }
    }

    fn well() -> Facts {
        Facts {
            last_turn: Some(Mono::from_micros(3_600_000_000 - 60_000)),
            written: Ok(()),
            store_error: None,
            unheard: vec![waits("hook", 30)],
            unheard_after: Duration::from_secs(360),
        }
    }

    #[test]
    fn each_fault_alone_stops_the_pings_and_is_named() {
        let stuck = Some(Mono::from_micros(3_600_000_000 - 9_000_000));
        let table: Vec<(Facts, &[&str], &str)> = vec![
            (well(), &[], ""),
            (
                Facts {
                    unheard: vec![],
                    ..well()
                },
                &[],
                "",
            ),
            (
                Facts {
                    last_turn: None,
                    ..well()
                },
                &["loop"],
                "has not turned yet",
            ),
            (
                Facts {
                    last_turn: stuck,
                    ..well()
                },
                &["loop"],
                "for 9 s",
            ),
            (
                Facts {
                    written: Err("the disk is full".into()),
                    ..well()
                },
                &["store"],
                "disk is full",
            ),
            (
                Facts {
                    store_error: Some("locked".into()),
                    ..well()
                },
                &["store"],
                "locked",
            ),
            (
                Facts {
                    unheard: vec![waits("mail", 10), waits("hook", 361)],
                    ..well()
                },
                &["outbox"],
                "361 s at receiver hook",
            ),
            // A clock that was set back makes nothing old.
            (
                Facts {
                    unheard: vec![waits("hook", -9000)],
                    ..well()
                },
                &[],
                "",
            ),
            (
                Facts {
                    last_turn: stuck,
                    written: Err("x".into()),
                    unheard: vec![waits("a", 400), waits("b", 400)],
                    ..well()
                },
                &["loop", "store", "outbox", "outbox"],
                "",
            ),
        ];
        for (facts, words, text) in table {
            let found = healthy(&facts, now()).err().unwrap_or_default();
            let said: Vec<&str> = found.iter().map(Sick::as_str).collect();
            assert_eq!(said, words, "{facts:?}");
            assert!(
                found.iter().any(|sick| sick.to_string().contains(text)) || text.is_empty(),
                "{found:?}"
            );
        }
    }

    #[test]
    fn the_bounds_themselves_are_well() {
        let facts = Facts {
            last_turn: Some(Mono::from_micros(3_600_000_000 - 5_000_000)),
            unheard: vec![waits("hook", 360)],
            ..well()
        };
        assert_eq!(healthy(&facts, now()), Ok(()));
    }
}
