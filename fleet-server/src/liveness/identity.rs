//! Replays and clones: is this beat newer than the last, and does only one machine speak with this identity?
//!
//! Evidence rules:
//! - Within a session `seq` only counts up; an older one is a late duplicate (a hedged request, a replay) and tells
//!   nothing about now.
//! - A new session of the same boot is a restarted watchdog; a new boot is a reboot. Both take over at once.
//! - A session that was replaced never speaks again, and a boot id never comes back: if one does while its successor is
//!   heard too, two machines share the identity. A dying process may leave a few late requests behind (the client has
//!   at most [`STRAGGLERS`] under way), so only more than that within [`WINDOW`] (or ten intervals) is a verdict.
//! - The successor silent, the replaced one may take over again: one of the two was switched off.

use std::time::Duration;

use uuid::Uuid;

use super::beat::{Arrival, Refused};
use super::time::Mono;

/// Late requests of a replaced process that prove nothing.
const STRAGGLERS: u8 = 4;
/// Returns count together within this; it is over when there was none for as long.
const WINDOW: Duration = Duration::from_secs(60);
/// Replaced sessions remembered: enough for two clones that both restart now and then.
const REMEMBERED: usize = 4;

/// Who spoke last for a box, and who before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Identity {
    current: Option<Speaker>,
    seq: u64,
    replaced: [Option<Speaker>; REMEMBERED],
    returns: u8,
    returned_at: Mono,
    duplicate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Speaker {
    session: Uuid,
    boot_id: Uuid,
}

/// A beat that counts, and what it says about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Newer {
    /// The same process as the last beat's.
    pub same_session: bool,
    /// Another kernel than the last beat's.
    pub rebooted: bool,
}

impl Identity {
    /// As remembered from before a restart of the server.
    pub fn restored(boot_id: Uuid, session: Uuid, seq: u64) -> Self {
        Self {
            current: Some(Speaker { session, boot_id }),
            seq,
            ..Self::default()
        }
    }

    /// Boot id, session and `seq` of the last beat that counted.
    pub fn last(&self) -> Option<(Uuid, Uuid, u64)> {
        self.current.map(|by| (by.boot_id, by.session, self.seq))
    }

    /// Whether two machines are speaking.
    pub fn is_duplicate(&self) -> bool {
        self.duplicate
    }

    /// Two machines were speaking before a restart of the server.
    pub fn restore_duplicate(&mut self, now: Mono) {
        self.duplicate = true;
        self.returned_at = now;
    }

    /// Beats up to `seq` of the current session came, and nothing was wrong with them.
    pub fn heard_up_to(&mut self, seq: u64) {
        self.seq = self.seq.max(seq);
    }

    /// Judges one arrival. `silent`: the current speaker has been silent for longer than a box may be.
    pub fn hear(&mut self, now: Mono, beat: &Arrival, silent: bool) -> Result<Newer, Refused> {
        let speaker = Speaker {
            session: beat.session,
            boot_id: beat.boot_id,
        };
        let Some(current) = self.current else {
            return Ok(self.take_over(speaker, beat.seq));
        };
        if current.session == speaker.session {
            if beat.seq <= self.seq {
                return Err(Refused::OldSeq {
                    got: beat.seq,
                    last: self.seq,
                });
            }
            self.seq = beat.seq;
            return Ok(Newer {
                same_session: true,
                rebooted: false,
            });
        }
        if self.was_replaced(speaker, current) && !silent {
            return Err(self.returned(now, window(beat.every)));
        }
        Ok(self.take_over(speaker, beat.seq))
    }

    /// Whether a duplicate has been quiet for long enough to be over; true once.
    pub fn over(&mut self, now: Mono, every: Duration) -> bool {
        if !self.duplicate || now.since(self.returned_at) < window(every) {
            return false;
        }
        self.duplicate = false;
        self.returns = 0;
        true
    }

    fn was_replaced(&self, speaker: Speaker, current: Speaker) -> bool {
        self.replaced.iter().flatten().any(|old| {
            old.session == speaker.session
                || (old.boot_id == speaker.boot_id && old.boot_id != current.boot_id)
        })
    }

    fn returned(&mut self, now: Mono, window: Duration) -> Refused {
        if now.since(self.returned_at) > window {
            self.returns = 0;
        }
        self.returned_at = now;
        self.returns = self.returns.saturating_add(1);
        self.duplicate |= self.returns > STRAGGLERS;
        if self.duplicate {
            Refused::Clone
        } else {
            Refused::OldSession
        }
    }

    fn take_over(&mut self, speaker: Speaker, seq: u64) -> Newer {
        let before = self.current.replace(speaker);
        self.seq = seq;
        if let Some(before) = before {
            self.replaced.rotate_right(1);
            self.replaced[0] = Some(before);
            // Who speaks again is not replaced any more.
            for old in &mut self.replaced {
                if old.is_some_and(|old| old.session == speaker.session) {
                    *old = None;
                }
            }
        }
        Newer {
            same_session: false,
            rebooted: before.is_some_and(|before| before.boot_id != speaker.boot_id),
        }
    }
}

fn window(every: Duration) -> Duration {
    WINDOW.max(every * 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::ConnId;

    fn beat(boot: u128, session: u128, seq: u64) -> Arrival {
        Arrival {
            conn: ConnId(1),
            session: Uuid::from_u128(session),
            boot_id: Uuid::from_u128(boot),
            seq,
            every: Duration::from_secs(1),
            goodbye: None,
        }
    }

    fn at(secs: u64) -> Mono {
        Mono::START + Duration::from_secs(secs)
    }

    #[test]
    fn seq_only_counts_up() {
        let mut id = Identity::default();
        assert!(id.hear(at(0), &beat(1, 1, 5), false).is_ok());
        for old in [5, 4, 0] {
            let refused = id.hear(at(1), &beat(1, 1, old), false);
            assert_eq!(refused, Err(Refused::OldSeq { got: old, last: 5 }));
        }
        assert!(id.hear(at(1), &beat(1, 1, 9), false).unwrap().same_session);
    }

    #[test]
    fn a_restarted_watchdog_and_a_reboot_take_over_at_once() {
        let mut id = Identity::default();
        id.hear(at(0), &beat(1, 1, 50), false).unwrap();
        let restarted = id.hear(at(1), &beat(1, 2, 1), false).unwrap();
        assert_eq!((restarted.same_session, restarted.rebooted), (false, false));
        let rebooted = id.hear(at(60), &beat(2, 3, 1), false).unwrap();
        assert!(rebooted.rebooted);
        assert!(!id.is_duplicate());
    }

    #[test]
    fn a_dying_process_leaves_late_requests_behind() {
        let mut id = Identity::default();
        id.hear(at(0), &beat(1, 1, 50), false).unwrap();
        id.hear(at(1), &beat(1, 2, 1), false).unwrap();
        for late in 51..=54 {
            assert_eq!(id.hear(at(2), &beat(1, 1, late), false), Err(Refused::OldSession));
        }
        assert!(!id.is_duplicate());
        assert!(id.hear(at(2), &beat(1, 2, 2), false).is_ok());
    }

    #[test]
    fn clones_are_found_within_seconds_and_the_end_of_it_too() {
        let mut id = Identity::default();
        let mut found = None;
        for n in 0..30 {
            let _ = id.hear(at(n), &beat(1, 1, n + 1), false);
            let second = id.hear(at(n), &beat(2, 2, n + 1), false);
            if found.is_none() && (id.is_duplicate() || second == Err(Refused::Clone)) {
                found = Some(n);
            }
        }
        assert_eq!(found, Some(STRAGGLERS.into()).map(|n: u64| n + 1));
        assert!(!id.over(at(40), Duration::from_secs(1)));
        assert!(id.over(at(120), Duration::from_secs(1)));
        assert!(!id.over(at(121), Duration::from_secs(1)));
    }

    #[test]
    fn a_boot_that_comes_back_is_a_clone_even_with_new_sessions() {
        let mut id = Identity::default();
        let mut refused = 0;
        for n in 0..20 {
            let boot = 1 + u128::from(n % 2);
            let every = Duration::from_secs(120);
            let beat = Arrival {
                every,
                ..beat(boot, u128::from(n) + 10, 1)
            };
            refused += u32::from(id.hear(at(n * 60), &beat, false).is_err());
        }
        assert!(refused > 5 && id.is_duplicate(), "{refused}");
    }

    #[test]
    fn the_one_that_is_left_may_speak() {
        let mut id = Identity::default();
        id.hear(at(0), &beat(1, 1, 1), false).unwrap();
        id.hear(at(0), &beat(2, 2, 1), false).unwrap();
        assert!(id.hear(at(1), &beat(1, 1, 2), false).is_err());
        assert!(id.hear(at(5), &beat(1, 1, 6), true).is_ok());
        assert!(id.hear(at(6), &beat(1, 1, 7), false).unwrap().same_session);
    }
}
