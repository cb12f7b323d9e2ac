//! Pure: whom to ask again and when, while a box is suspect, silent or dark, and what the answers amount to.
//!
//! - **Suspect**: every witness once a second ([`SUSPECT_EVERY`]), whether it has answered the last question or not (it
//!   never has more than [`UNDER_WAY`] to answer).
//! - **Silent**: its host was reached. When nobody has reached it for [`HOST_LOST`], the host is gone as well.
//! - **Dark**: seldom; a host that answers again is worth a line in the incident's history.
//!
//! It opens no connection and reads no clock.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use protocol::witness::{Target, Targets};

use super::fold::fold;
use crate::incident::facts::WitnessWord;
use crate::liveness::BoxIx;
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::time::Mono;

/// Between two questions while the box is suspect.
const SUSPECT_EVERY: Duration = Duration::from_secs(1);
/// … silent.
const SILENT_EVERY: Duration = Duration::from_secs(2);
/// … dark.
const DARK_EVERY: Duration = Duration::from_secs(30);
/// Questions that one witness of one box has to answer at once.
const UNDER_WAY: u8 = 2;
/// A silent box's host that nobody has reached for so long is gone.
const HOST_LOST: Duration = Duration::from_secs(6);
/// An answer older than two periods and the longest question says nothing about now.
const STALE: Duration = Duration::from_secs(4);

/// In which state the box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Overdue.
    Suspect,
    /// Its host answers.
    Silent,
    /// Nothing does.
    Dark,
}

/// A question to one witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// About which box.
    pub ix: BoxIx,
    /// Of which vigil: an answer to an earlier one does not count.
    pub vigil: u64,
    /// Which of its witnesses.
    pub seat: usize,
    /// Whom to ask.
    pub target: Target,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// To what.
    pub question: Question,
    /// When it was asked.
    pub asked: Mono,
    /// What was found.
    pub answer: WitnessAnswer,
    /// In a sentence.
    pub detail: String,
    /// When it was answered.
    pub at: Timestamp,
}

/// What an answer amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Liveness must hear this of a suspect box.
    Says(WitnessAnswer),
    /// The host of a silent box is gone.
    HostLost,
    /// The host of a dark box answers again.
    HostBack,
}

/// Everybody who is being asked about.
#[derive(Debug, Clone, Default)]
pub struct Vigils {
    by_box: BTreeMap<BoxIx, Vigil>,
    begun: u64,
}

#[derive(Debug, Clone)]
struct Vigil {
    id: u64,
    phase: Phase,
    next: Mono,
    seats: Vec<Seat>,
    /// Since when nobody has reached the host.
    unreached: Option<Mono>,
    reached: bool,
}

#[derive(Debug, Clone)]
struct Seat {
    target: Target,
    under_way: u8,
    word: Option<(Mono, WitnessWord)>,
}

impl Vigils {
    /// The box enters this state. A suspicion begins anew: what was said before it does not count.
    pub fn enter(&mut self, ix: BoxIx, phase: Phase, targets: &Targets, now: Mono) {
        if targets.is_empty() {
            return self.end(ix);
        }
        if phase != Phase::Suspect
            && let Some(vigil) = self.by_box.get_mut(&ix)
        {
            vigil.phase = phase;
            vigil.reached = phase == Phase::Silent;
            vigil.unreached = None;
            vigil.next = now + phase.every();
            return;
        }
        self.begun += 1;
        let seat = |target: &Target| Seat {
            target: target.clone(),
            under_way: 0,
            word: None,
        };
        let vigil = Vigil {
            id: self.begun,
            phase,
            next: now,
            seats: targets.iter().map(seat).collect(),
            unreached: None,
            reached: phase == Phase::Silent,
        };
        self.by_box.insert(ix, vigil);
    }

    /// That nobody reaches the host proved nothing, because the server could not tell: it counts from now on.
    pub fn begin_again(&mut self, ix: BoxIx) {
        if let Some(vigil) = self.by_box.get_mut(&ix) {
            vigil.unreached = None;
        }
    }

    /// Nobody is asked about the box any more.
    pub fn end(&mut self, ix: BoxIx) {
        self.by_box.remove(&ix);
    }

    /// Questions that are due, those first that have waited longest; at most `room`.
    pub fn due(&mut self, now: Mono, room: usize) -> Vec<Question> {
        let mut waiting: Vec<(Mono, BoxIx)> = self
            .by_box
            .iter()
            .filter(|(_, vigil)| vigil.next <= now)
            .map(|(ix, vigil)| (vigil.next, *ix))
            .collect();
        waiting.sort_unstable();
        let mut questions = Vec::new();
        for (_, ix) in waiting {
            let Some(vigil) = self.by_box.get_mut(&ix) else {
                continue;
            };
            if questions.len() + vigil.seats.len() > room {
                break;
            }
            vigil.next = now + vigil.phase.every();
            for (at, seat) in vigil.seats.iter_mut().enumerate() {
                if seat.under_way < UNDER_WAY {
                    seat.under_way += 1;
                    questions.push(Question {
                        ix,
                        vigil: vigil.id,
                        seat: at,
                        target: seat.target.clone(),
                    });
                }
            }
        }
        questions
    }

    /// An answer came.
    pub fn answered(&mut self, reply: Reply, now: Mono) -> Option<Finding> {
        let vigil = self.by_box.get_mut(&reply.question.ix)?;
        let seat = vigil.seats.get_mut(reply.question.seat)?;
        if vigil.id != reply.question.vigil {
            return None;
        }
        seat.under_way = seat.under_way.saturating_sub(1);
        if seat.word.as_ref().is_none_or(|(asked, _)| reply.asked >= *asked) {
            let word = WitnessWord {
                asked: reply.question.target.to_string(),
                answer: reply.answer,
                detail: reply.detail,
                at: reply.at,
            };
            seat.word = Some((reply.asked, word));
        }
        vigil.finding(now)
    }

    /// What each witness of the box said last.
    pub fn words(&self, ix: BoxIx) -> Vec<WitnessWord> {
        let seats = self.by_box.get(&ix).into_iter().flat_map(|vigil| &vigil.seats);
        let words = seats.filter_map(|seat| seat.word.as_ref());
        words.map(|(_, word)| word.clone()).collect()
    }
}

impl Vigil {
    fn finding(&mut self, now: Mono) -> Option<Finding> {
        let old = STALE.max(self.phase.every() * 2);
        let fresh = |seat: &Seat| {
            let (asked, word) = seat.word.as_ref()?;
            (now.since(*asked) < old).then_some(word.answer)
        };
        let answer = fold(self.seats.iter().map(fresh));
        match (self.phase, answer) {
            (Phase::Suspect, answer) => Some(Finding::Says(answer)),
            (Phase::Silent, WitnessAnswer::Unreachable) => {
                let since = *self.unreached.get_or_insert(now);
                (now.since(since) >= HOST_LOST).then_some(Finding::HostLost)
            }
            (Phase::Silent, WitnessAnswer::Reachable | WitnessAnswer::Unknown) => {
                self.unreached = None;
                None
            }
            (Phase::Dark, WitnessAnswer::Reachable) => {
                let news = !std::mem::replace(&mut self.reached, true);
                news.then_some(Finding::HostBack)
            }
            (Phase::Dark, WitnessAnswer::Unreachable) => {
                self.reached = false;
                None
            }
            (Phase::Dark, WitnessAnswer::Unknown) => None,
        }
    }
}

impl Phase {
    const fn every(self) -> Duration {
        match self {
            Self::Suspect => SUSPECT_EVERY,
            Self::Silent => SILENT_EVERY,
            Self::Dark => DARK_EVERY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::beat::WitnessAnswer::{Reachable, Unknown, Unreachable};

    const BOX: BoxIx = BoxIx(3);

    fn at(ms: u64) -> Mono {
        Mono::START + Duration::from_millis(ms)
    }

    fn reply(question: &Question, asked: u64, answer: WitnessAnswer) -> Reply {
        Reply {
            question: question.clone(),
            asked: at(asked),
            answer,
            detail: "said".into(),
            at: Timestamp::UNIX_EPOCH,
        }
    }

    fn suspect() -> Vigils {
        let mut vigils = Vigils::default();
        let targets = "192.0.2.1:22,tailscale:box-3".parse().unwrap();
        vigils.enter(BOX, Phase::Suspect, &targets, at(0));
        vigils
    }

    #[test]
    fn everybody_is_asked_every_second_and_a_mute_one_has_two_questions() {
        let mut vigils = suspect();
        let asked: Vec<usize> = (0..80).map(|tick| vigils.due(at(tick * 50), 100).len()).collect();
        assert_eq!(asked.iter().filter(|count| **count == 2).count(), 2);
        assert_eq!(asked.iter().sum::<usize>(), 4, "nobody has answered");
        assert!(vigils.due(at(9000), 1).is_empty(), "no room for both");
    }

    #[test]
    fn dead_only_when_all_have_said_so() {
        let mut vigils = suspect();
        let questions = vigils.due(at(0), 100);
        let first = vigils.answered(reply(&questions[0], 0, Unreachable), at(1500));
        assert_eq!(first, Some(Finding::Says(Unknown)));
        let both = vigils.answered(reply(&questions[1], 0, Unreachable), at(1600));
        assert_eq!(both, Some(Finding::Says(Unreachable)));
        let again = vigils.due(at(1700), 100);
        let back = vigils.answered(reply(&again[1], 1700, Reachable), at(1800));
        assert_eq!(back, Some(Finding::Says(Reachable)));
        assert_eq!(vigils.words(BOX).len(), 2);
        // An answer that was overtaken by a newer one changes nothing.
        let late = vigils.answered(reply(&questions[1], 0, Unreachable), at(1900));
        assert_eq!(late, Some(Finding::Says(Reachable)));
    }

    #[test]
    fn what_was_said_of_an_earlier_suspicion_does_not_count() {
        let mut vigils = suspect();
        let before = vigils.due(at(0), 100);
        vigils.end(BOX);
        assert_eq!(vigils.answered(reply(&before[0], 0, Reachable), at(10)), None);
        vigils.enter(BOX, Phase::Suspect, &"192.0.2.1:22".parse().unwrap(), at(100));
        assert_eq!(vigils.answered(reply(&before[0], 0, Reachable), at(110)), None);
        assert!(vigils.words(BOX).is_empty());
    }

    #[test]
    fn a_silent_hosts_end_and_a_dark_ones_return_are_told_once() {
        let mut vigils = Vigils::default();
        let targets = "192.0.2.1:22".parse().unwrap();
        vigils.enter(BOX, Phase::Silent, &targets, at(0));
        let mut told = Vec::new();
        for second in 0..200 {
            for question in vigils.due(at(second * 1000), 100) {
                let answer = if (10..100).contains(&second) {
                    Unreachable
                } else {
                    Reachable
                };
                let found = vigils.answered(reply(&question, second * 1000, answer), at(second * 1000));
                if found == Some(Finding::HostLost) {
                    vigils.enter(BOX, Phase::Dark, &targets, at(second * 1000));
                }
                told.extend(found.map(|found| (second, found)));
            }
        }
        assert_eq!(told, [(16, Finding::HostLost), (106, Finding::HostBack)]);
    }
}
