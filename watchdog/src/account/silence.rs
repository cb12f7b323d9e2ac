//! One server's silence as the box sees it: since when no beat was taken, and how the tries ended. Pure.
//!
//! - A silence begins with the last beat that this server took. A beat that is written later than [`SPEAK_AFTER`]
//!   intervals after it carries an account, whether or not the way is open again: the first one that gets through
//!   explains.
//! - It is over once the server has answered a beat that carried a whole account. An answer to one without it (written
//!   before, or while the box was still finding out) ends the silence, but the account is still owed.
//! - Silent again before it was given: the server's incident of the first silence ended with the answer, and what comes
//!   is the second's account. Only what was before this process goes on: no answer has ended that.

use std::net::SocketAddr;
use std::time::Duration;

use protocol::account::Step;
use protocol::limits;
use serde::{Deserialize, Serialize};

use super::around::{Around, Sample};
use crate::clock::Moment;

/// The fault of a step that did not end in time.
pub const TIMED_OUT: &str = "timed out";
/// A beat carries an account when none was taken for so many of its intervals …
pub const SPEAK_AFTER: f64 = 1.5;
/// … and for this long: what is shorter than this was no silence to anybody.
const SPEAK_AFTER_MIN: Duration = Duration::from_millis(1500);

/// How tries ended, counted together: same step, address and fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// Where it ended.
    pub step: Step,
    /// The address in use.
    pub address: Option<SocketAddr>,
    /// What went wrong.
    pub detail: String,
    /// How often.
    pub times: u64,
    /// The first time.
    pub first: Stamp,
    /// The last time.
    pub last: Stamp,
}

/// A moment as it is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// By the box's clock.
    pub wall: jiff::Timestamp,
    /// `CLOCK_BOOTTIME`, milliseconds: means nothing in another boot.
    pub boot_ms: u64,
}

impl From<Moment> for Stamp {
    fn from(at: Moment) -> Self {
        Self {
            wall: at.wall,
            boot_ms: at.boot.as_millis() as u64,
        }
    }
}

impl Stamp {
    /// From `earlier` to this, by the clock that nobody sets.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.boot_ms.saturating_sub(earlier.boot_ms))
    }
}

/// One server's.
#[derive(Debug)]
pub struct Silence {
    /// The last beat that was taken; none: this server has taken none of this process.
    taken: Option<Stamp>,
    /// An answer came since, and the account is still owed.
    reached: Option<Stamp>,
    /// The newest of such answers.
    heard: Option<Stamp>,
    /// Nothing was before this process that is to be explained.
    no_past: bool,
    /// The server does not want accounts.
    refused: bool,
    tried: Vec<Tried>,
    around: Around,
}

/// What is to be explained.
#[derive(Debug, Clone, Copy)]
pub struct Gap<'a> {
    /// The last beat that was taken; none: none of this process.
    pub taken: Option<Stamp>,
    /// When it ended; none: not yet.
    pub reached: Option<Stamp>,
    /// How the tries of this process ended.
    pub tried: &'a [Tried],
    /// How the box was meanwhile.
    pub around: &'a Around,
}

impl Silence {
    /// Of a server that has not been reached yet.
    pub fn new() -> Self {
        Self {
            taken: None,
            reached: None,
            heard: None,
            no_past: false,
            refused: false,
            tried: Vec::new(),
            around: Around::new(),
        }
    }

    /// The silence that a beat written at `now` has to explain.
    pub fn gap(&self, now: Stamp, every: Duration) -> Option<Gap<'_>> {
        if self.refused {
            return None;
        }
        let long = self
            .taken
            .is_none_or(|taken| now.since(taken) >= speak_after(every));
        (long || self.reached.is_some()).then_some(Gap {
            taken: self.taken,
            reached: self.reached,
            tried: &self.tried,
            around: &self.around,
        })
    }

    /// Whether none was taken for a while.
    pub fn is_silent(&self, now: Stamp, every: Duration) -> bool {
        self.reached.is_none()
            && self
                .taken
                .is_none_or(|taken| now.since(taken) >= speak_after(every))
    }

    /// The last beat that was taken.
    pub fn taken(&self) -> Option<Stamp> {
        self.taken
    }

    /// When an answer came that left the account owed.
    pub fn reached(&self) -> Option<Stamp> {
        self.reached
    }

    /// How tries ended since.
    pub fn tried(&self) -> &[Tried] {
        &self.tried
    }

    /// A beat was taken, and it carried a whole account (`told`), or not.
    pub fn answered(&mut self, now: Stamp, every: Duration, told: bool) {
        self.turns(now, every);
        let past = self.taken.is_some() || !self.no_past;
        let owes = self.gap(now, every).is_some() && !told && past;
        if owes {
            self.reached.get_or_insert(now);
            self.heard = Some(now);
            return;
        }
        self.ends(now);
    }

    /// To be called before a beat is written, and now and then: notices that it is silent again, the account still owed.
    pub fn turns(&mut self, now: Stamp, every: Duration) {
        let Some(heard) = self.heard.filter(|heard| now.since(*heard) >= speak_after(every)) else {
            return;
        };
        if self.taken.is_some() {
            self.ends(heard);
        } else {
            (self.reached, self.heard) = (None, None);
        }
    }

    /// There is nothing to explain about what was before this process.
    pub fn nothing_before(&mut self) {
        self.no_past = true;
        if self.taken.is_none()
            && let Some(reached) = self.reached.take()
        {
            self.ends(reached);
        }
    }

    fn ends(&mut self, at: Stamp) {
        self.taken = Some(at);
        (self.reached, self.heard) = (None, None);
        self.tried.clear();
        self.around = Around::new();
    }

    /// How the box is at `now`: of interest while beats fail.
    pub fn seen(&mut self, now: Stamp, every: Duration, sample: &Sample) {
        if self.is_silent(now, every) {
            self.around.add(sample);
        }
    }

    /// The server refused a beat with an account in it: it gets none any more.
    pub fn unwanted(&mut self) {
        self.refused = true;
    }

    /// A try ended.
    pub fn failed(&mut self, now: Stamp, step: Step, address: Option<SocketAddr>, detail: &str) {
        if self.reached.is_some() {
            return;
        }
        let end = detail.floor_char_boundary(limits::ACCOUNT_LINE_BYTES);
        let detail = &detail[..end];
        let same = |tried: &&mut Tried| {
            (tried.step, tried.address, tried.detail.as_str()) == (step, address, detail)
        };
        if let Some(tried) = self.tried.iter_mut().find(same) {
            tried.times += 1;
            tried.last = now;
            return;
        }
        if self.tried.len() == limits::ATTEMPTS {
            // The rarest makes room: what goes on and on must not be lost to what happens once.
            let rarest = self.tried.iter().enumerate().min_by_key(|(_, tried)| tried.times);
            if let Some((at, _)) = rarest {
                self.tried.remove(at);
            }
        }
        self.tried.push(Tried {
            step,
            address,
            detail: detail.to_owned(),
            times: 1,
            first: now,
            last: now,
        });
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self::new()
    }
}

fn speak_after(every: Duration) -> Duration {
    every.mul_f64(SPEAK_AFTER).max(SPEAK_AFTER_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> Stamp {
        Stamp {
            wall: jiff::Timestamp::UNIX_EPOCH + Duration::from_millis(ms),
            boot_ms: ms,
        }
    }

    fn calm() -> Silence {
        let mut silence = Silence::new();
        silence.answered(at(0), SECOND, true);
        silence
    }

    #[test]
    fn one_lost_beat_is_explained_by_the_next_and_a_calm_line_by_none() {
        let mut silence = calm();
        for n in 1..100 {
            assert!(silence.gap(at(n * 1000), SECOND).is_none(), "beat {n}");
            silence.answered(at(n * 1000 + 50), SECOND, false);
        }
        assert!(
            silence.gap(at(101_000), SECOND).is_some(),
            "nothing for two seconds"
        );
        assert!(silence.is_silent(at(101_000), SECOND));
        silence.answered(at(101_050), SECOND, true);
        assert!(silence.gap(at(102_000), SECOND).is_none());
    }

    #[test]
    fn an_answer_to_an_older_beat_leaves_the_account_owed_until_one_carried_it() {
        let mut silence = calm();
        silence.failed(at(5000), Step::Connect, None, "timed out");
        silence.answered(at(41_000), SECOND, false);
        let gap = silence.gap(at(41_100), SECOND).unwrap();
        assert_eq!((gap.taken, gap.reached), (Some(at(0)), Some(at(41_000))));
        assert_eq!(gap.tried.len(), 1);
        silence.failed(at(41_500), Step::Answer, None, "is not of the silence");
        assert_eq!(silence.gap(at(42_000), SECOND).unwrap().tried.len(), 1);
        silence.answered(at(42_100), SECOND, true);
        assert!(silence.gap(at(43_000), SECOND).is_none());
    }

    #[test]
    fn silent_again_before_the_account_was_given_the_second_silence_is_explained() {
        let mut silence = calm();
        silence.failed(at(5000), Step::Dns, None, "of the first");
        silence.answered(at(41_000), SECOND, false);
        silence.turns(at(42_000), SECOND);
        assert_eq!(silence.gap(at(42_000), SECOND).unwrap().reached, Some(at(41_000)));
        silence.turns(at(43_000), SECOND);
        silence.failed(at(50_000), Step::Connect, None, "of the second");
        assert!(silence.is_silent(at(50_000), SECOND));
        let gap = silence.gap(at(60_000), SECOND).unwrap();
        assert_eq!((gap.taken, gap.reached), (Some(at(41_000)), None));
        assert_eq!(
            (gap.tried.len(), gap.tried[0].detail.as_str()),
            (1, "of the second")
        );

        // What was before this process is not over with an answer that came while it was finding out.
        let mut silence = Silence::new();
        silence.answered(at(1000), SECOND, false);
        silence.turns(at(9000), SECOND);
        let gap = silence.gap(at(9000), SECOND).unwrap();
        assert_eq!((gap.taken, gap.reached), (None, None));
    }

    #[test]
    fn a_box_without_a_past_owes_nothing_for_a_beat_written_before_it_knew() {
        let mut silence = Silence::new();
        silence.nothing_before();
        silence.answered(at(100), SECOND, false);
        assert_eq!((silence.taken(), silence.reached()), (Some(at(100)), None));
    }

    #[test]
    fn a_new_process_owes_one_until_there_is_nothing_before_it() {
        let mut silence = Silence::new();
        assert!(silence.gap(at(0), SECOND).is_some());
        silence.answered(at(100), SECOND, false);
        assert!(silence.gap(at(1000), SECOND).is_some());
        silence.nothing_before();
        assert!(silence.gap(at(1100), SECOND).is_none());
    }

    #[test]
    fn tries_are_counted_together_and_the_rarest_makes_room() {
        let mut silence = calm();
        let address = Some("203.0.113.5:443".parse().unwrap());
        for n in 0..50 {
            silence.failed(at(n * 100), Step::Connect, address, "timed out");
            silence.failed(at(n * 100), Step::Dns, None, &format!("odd {n}"));
        }
        assert_eq!(silence.tried().len(), limits::ATTEMPTS);
        let most = silence.tried().iter().max_by_key(|tried| tried.times).unwrap();
        assert_eq!((most.step, most.times, most.first), (Step::Connect, 50, at(0)));
    }

    #[test]
    fn what_was_seen_belongs_to_the_silence_in_which_it_was_seen() {
        let sample = |state: &str| Sample {
            pressure: None,
            tailscale: Some(state.to_owned()),
        };
        let mut silence = calm();
        silence.seen(at(1000), SECOND, &sample("in the calm"));
        silence.seen(at(5000), SECOND, &sample("in the first"));
        silence.answered(at(6000), SECOND, true);
        silence.seen(at(12_000), SECOND, &sample("in the second"));
        let gap = silence.gap(at(13_000), SECOND).unwrap();
        assert_eq!(
            gap.around.lines().collect::<Vec<_>>(),
            ["tailscale: in the second"]
        );
    }

    #[test]
    fn a_server_that_refuses_accounts_gets_none() {
        let mut silence = calm();
        silence.unwanted();
        assert!(silence.gap(at(60_000), SECOND).is_none());
    }
}
