//! Is it my own uplink? What the addresses that an operator declared for the server itself say.
//!
//! Evidence rules:
//! - They are asked while somebody is suspect. A verdict that is due waits for their first answer, at most [`WAIT`].
//! - **Cut**: none of them answered, and since they were asked nobody was heard either. (A firewall that lets nothing
//!   out makes them mute as well: a server that hears anybody is not cut off.)
//! - They are believed only if one of them has ever answered this process: a mistyped address must make nobody blind.
//!   But a process that was started while the way was cut (a machine that boots before its network is there) has heard
//!   neither them nor any box: until one or the other happens, and at most [`UNPROVEN`], it judges nobody.
//!
//! It is what a fleet of one to three boxes has instead of a collapse of arrivals, which takes more boxes to show.

use std::time::Duration;

use super::time::Mono;

/// How long a verdict waits for an answer.
pub const WAIT: Duration = Duration::from_secs(2);
/// How long a process that has heard nothing at all since its start judges nobody.
pub const UNPROVEN: Duration = Duration::from_secs(60);
/// An answer to a question older than this says nothing any more.
const FRESH: Duration = Duration::from_secs(4);

/// What is known of the server's own way out.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnWay {
    first_asked: Option<Mono>,
    asked: Option<Mono>,
    /// When the question was asked, and whether anybody answered it.
    answer: Option<(Mono, bool)>,
    /// Somebody answered at some time.
    proven: bool,
    heard: Mono,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// Nothing: not declared, not asked, never answered.
    Nothing,
    /// Wait for the answer.
    Wait,
    /// The way is open.
    Open,
    /// Nobody answers and nobody is heard.
    Cut,
}

impl OwnWay {
    /// A question went out.
    pub fn asked(&mut self, now: Mono) {
        self.first_asked.get_or_insert(now);
        self.asked = Some(now);
    }

    /// The question of `asked` was answered by somebody, or by nobody.
    pub fn answered(&mut self, asked: Mono, by_anybody: bool) {
        self.proven |= by_anybody;
        if self.answer.is_none_or(|(newest, _)| asked >= newest) {
            self.answer = Some((asked, by_anybody));
        }
    }

    /// Whether somebody has ever answered.
    pub fn proven(&self) -> bool {
        self.proven
    }

    /// A beat arrived, from whomever.
    pub fn heard(&mut self, now: Mono) {
        self.heard = self.heard.max(now);
    }

    /// What follows for a verdict that is due.
    pub fn says(&self, now: Mono) -> Says {
        if !self.proven {
            let deaf = self.heard == Mono::default();
            let fresh = self.first_asked.is_some_and(|asked| now.since(asked) < UNPROVEN);
            return if deaf && fresh { Says::Wait } else { Says::Nothing };
        }
        match (self.answer, self.asked) {
            (Some((asked, true)), _) if now.since(asked) < FRESH => Says::Open,
            (Some((asked, false)), _) if now.since(asked) < FRESH => {
                if self.heard < asked {
                    Says::Cut
                } else {
                    Says::Open
                }
            }
            (_, Some(asked)) if now.since(asked) < WAIT => Says::Wait,
            (_, _) => Says::Nothing,
        }
    }

    /// Whether somebody answered or was heard after `since`.
    pub fn open_after(&self, since: Mono) -> bool {
        self.heard > since || matches!(self.answer, Some((asked, true)) if asked > since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Mono {
        Mono::START + Duration::from_secs(secs)
    }

    #[test]
    fn who_never_answered_is_not_believed() {
        let mut own = OwnWay::default();
        own.heard(at(1));
        own.asked(at(1));
        own.answered(at(1), false);
        assert_eq!(own.says(at(2)), Says::Nothing);
    }

    #[test]
    fn who_was_started_without_a_way_out_and_has_heard_nothing_waits_but_not_for_ever() {
        let mut own = OwnWay::default();
        assert_eq!(own.says(at(1)), Says::Nothing, "nobody is asked");
        for secs in 1..60 {
            own.asked(at(secs));
            own.answered(at(secs), false);
            assert_eq!(own.says(at(secs + 1)), Says::Wait, "{secs}");
        }
        assert_eq!(
            own.says(at(61)),
            Says::Nothing,
            "mistyped addresses, and everybody is gone"
        );
    }

    #[test]
    fn cut_only_if_nobody_is_heard_either() {
        let mut own = OwnWay::default();
        own.answered(at(0), true);
        own.heard(at(9));
        own.asked(at(10));
        assert_eq!(own.says(at(11)), Says::Wait);
        own.answered(at(10), false);
        assert_eq!(own.says(at(12)), Says::Cut);
        own.heard(at(12));
        assert_eq!(
            own.says(at(12)),
            Says::Open,
            "a firewall, or one address that is down"
        );
        assert_eq!(own.says(at(20)), Says::Nothing, "old");
        assert!(own.open_after(at(11)) && !own.open_after(at(12)));
    }
}
