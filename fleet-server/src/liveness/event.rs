//! What comes of arrivals and of time: a box changed its state, a group went together, the server doubts itself.

use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;

use super::BoxIx;
use super::time::Moment;

/// Something that the incident side must hear of, in the order in which it happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A box changed its state.
    Box(Transition),
    /// Boxes of a group went together: they are dark by [`Cause::Group`], and none is told of alone.
    StormOpened {
        /// Which group.
        group: Group,
        /// What makes them one.
        why: StormWhy,
        /// Who went.
        members: Vec<BoxIx>,
        /// Of how many that were expected.
        expected: u32,
        /// When.
        at: Moment,
    },
    /// The storm's members changed.
    StormChanged {
        /// Which group.
        group: Group,
        /// Who is gone now.
        members: Vec<BoxIx>,
        /// It has grown so much since it was last told of that it must be told of again.
        grew: bool,
        /// When.
        at: Moment,
    },
    /// The group is back and this box is not: it is told of by itself from now on.
    Straggler {
        /// Which group.
        group: Group,
        /// Which box.
        ix: BoxIx,
        /// When.
        at: Moment,
    },
    /// The storm is over: every member is back or was told of as a [`Straggler`](Event::Straggler).
    StormOver {
        /// Which group.
        group: Group,
        /// Who is still gone, and was told of one by one.
        stragglers: Vec<BoxIx>,
        /// When.
        at: Moment,
    },
    /// Nobody is judged: the server doubts itself.
    Blind {
        /// What makes it doubt.
        why: BlindWhy,
        /// How many are overdue.
        overdue: u32,
        /// Of how many that are expected.
        expected: u32,
        /// When.
        at: Moment,
    },
    /// Arrivals are back (or it has become clear who is really gone).
    SeesAgain {
        /// For how long nobody could be judged.
        after: Duration,
        /// When.
        at: Moment,
    },
    /// Two machines speak with one identity.
    Duplicate {
        /// Which.
        ix: BoxIx,
        /// When.
        at: Moment,
    },
    /// Only one speaks any more.
    DuplicateOver {
        /// Which.
        ix: BoxIx,
        /// When.
        at: Moment,
    },
}

/// What makes boxes that went one incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StormWhy {
    /// So great a part of their group went at once.
    Share,
    /// More went one by one than a person can be told of.
    Rate,
    /// They turned out to be gone when the server's blindness ended.
    Settled,
    /// They went while they were muted, and are gone still.
    Absence,
}

impl StormWhy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Share, Self::Rate, Self::Settled, Self::Absence];
}

/// Why the server doubts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlindWhy {
    /// Arrivals over all collapsed.
    Collapse,
    /// It does not get round to its own work.
    Overload,
    /// None of the addresses declared for the server itself answers, and nobody is heard.
    NoWayOut,
}

/// Boxes that may go together: those that share a label's value, or all of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// All boxes of this server.
    Fleet,
    /// Those with this label.
    Label {
        /// The label's name (`site`).
        name: String,
        /// Its value (`fsn1`).
        value: String,
    },
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fleet => f.write_str("the fleet"),
            Self::Label { value, .. } => f.write_str(value),
        }
    }
}

/// Why a box was judged to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its whole margin passed without a beat.
    Deadline,
    /// A witness found the host unreachable.
    WitnessConfirmed,
    /// The host answered a witness, and no beat came although the way was open.
    HostAnswers,
    /// Its connection was closed without a goodbye, and it did not come back.
    ConnectionClosed,
    /// It went together with others of its group.
    Group,
    /// It was silent, and now its host has stopped answering its witnesses as well.
    HostLost,
}

/// A box changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// Which box.
    pub ix: BoxIx,
    /// When.
    pub at: Moment,
    /// From where.
    pub from: Liveness,
    /// What happened.
    pub what: What,
    /// The last beat before it, by the server's clock; before the server's start too.
    pub last_seen: Option<Timestamp>,
}

/// What happened to a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Its beats arrive (again).
    Live {
        /// How long it was silent.
        after: Duration,
        /// With another boot id than before.
        rebooted: bool,
        /// Without ever having been seen before.
        first: bool,
    },
    /// Its next beat is overdue.
    Suspect {
        /// Its connection was closed without a goodbye.
        closed: bool,
    },
    /// Nothing answers.
    Dark {
        /// Why so.
        cause: Cause,
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// The host answers, the watchdog does not.
    Silent {
        /// How long it has been silent.
        silent_for: Duration,
    },
    /// It said goodbye.
    Away {
        /// Why.
        why: GoodbyeWhy,
        /// How long it may take.
        back_within: Duration,
    },
    /// It said goodbye and did not come back in the time it named; dark from now on.
    Overdue {
        /// Why it went.
        why: GoodbyeWhy,
        /// How long it has been silent.
        silent_for: Duration,
    },
}
