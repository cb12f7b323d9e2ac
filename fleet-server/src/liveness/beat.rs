//! What an arrival tells liveness, and what it is answered.

use std::time::Duration;

use protocol::heartbeat::GoodbyeWhy;
use uuid::Uuid;

use super::ConnId;
use super::history::Steady;
use super::time::Moment;

/// What one heartbeat tells liveness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// What it arrived on.
    pub conn: ConnId,
    /// Of the sending process.
    pub session: Uuid,
    /// Of the sending kernel.
    pub boot_id: Uuid,
    /// Counts up within the session.
    pub seq: u64,
    /// When the next one is due.
    pub every: Duration,
    /// "I go, on purpose."
    pub goodbye: Option<(GoodbyeWhy, Duration)>,
}

/// Many beats of a live box, each on time, of its current session and on its current connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OnTime {
    /// Their lateness.
    pub steady: Steady,
    /// When the last of them arrived.
    pub last: Moment,
    /// Its number.
    pub seq: u64,
}

/// A beat that counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The server lacks the newest report: ask for it in the answer.
    pub want_report: bool,
}

/// A beat that did not count, and changed nothing; both are answered with 409.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Its `seq` is not newer than the last one of its session.
    #[error("seq {got} is not newer than {last} of this session")]
    OldSeq {
        /// As sent.
        got: u64,
        /// The newest accepted.
        last: u64,
    },
    /// It comes from a session (or a boot) that another one has replaced.
    #[error("another session has taken this box's place")]
    OldSession,
    /// Two machines (or two watchdogs) speak with one identity.
    #[error("two machines speak with this box's token; give each box a token of its own")]
    Clone,
    /// No such box (removed meanwhile).
    #[error("this box has been removed")]
    Removed,
}

/// What a witness said about a suspect box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WitnessAnswer {
    /// The host answers: a connection was accepted or refused by it.
    Reachable,
    /// Nothing answered in time, or the network said that there is no such host.
    Unreachable,
    /// The witness could not ask.
    Unknown,
}
