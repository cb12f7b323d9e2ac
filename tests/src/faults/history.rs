//! What one schedule did and what was seen of the server from outside. Data; it judges nothing.
//!
//! Times are milliseconds since the start of the schedule, on one clock.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::api::{BoxRow, IncidentDetail};
use protocol::mute::MuteView;
use protocol::report::CheckName;
use serde::{Deserialize, Serialize};

/// The server's settings that decide when something may and when it must happen, milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "their unit")]
pub(super) struct Rules {
    /// Between two beats of a box.
    pub(super) every_ms: i64,
    /// A box is dark after this.
    pub(super) dark_after_ms: i64,
    /// No margin is longer.
    pub(super) dark_after_max_ms: i64,
    /// Nobody is judged for so long after a start.
    pub(super) warm_up_ms: i64,
}

/// The rules that the driver's server runs by.
pub(super) const RULES: Rules = Rules {
    every_ms: 300,
    dark_after_ms: 1500,
    dark_after_max_ms: 2000,
    warm_up_ms: 1500,
};

/// From one moment to another; the second is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Span {
    /// The first moment.
    pub(super) from_ms: i64,
    /// The first one after it; the far future while it lasts.
    pub(super) to_ms: i64,
}

/// Everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct History {
    /// What the server runs by.
    pub(super) rules: Rules,
    /// The boxes, by their place.
    pub(super) boxes: Vec<BoxTruth>,
    /// The server.
    pub(super) server: ServerTruth,
    /// When the second receiver is told of what is in nobody's hand, if that is a step.
    pub(super) step_ms: Option<i64>,
    /// The receivers.
    pub(super) receivers: Vec<ReceiverTruth>,
    /// The books around each end of the server's process.
    pub(super) restarts: Vec<Restart>,
    /// What operators did and were told that it is done.
    pub(super) done: Vec<Done>,
    /// The books at the end.
    pub(super) last: Books,
    /// Boxes that were added meanwhile and whose token is not taken at the end.
    pub(super) refused: Vec<String>,
    /// What was not as it must be when the time for it was over.
    pub(super) unsettled: Vec<String>,
    /// The wall clock's time at zero.
    pub(super) zero: Timestamp,
    /// How long this process itself did not get round to its work, at worst.
    pub(super) starved_ms: i64,
    /// … and in what share of all its time.
    #[serde(default)]
    pub(super) starved_percent: i64,
    /// When it ended.
    pub(super) ended_ms: i64,
}

/// A box.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct BoxTruth {
    /// Its name.
    pub(super) name: String,
    /// Its site.
    pub(super) site: String,
    /// When nothing of it could arrive, and why.
    pub(super) gone: Vec<Absence>,
    /// When a beat of it was answered with 200 (seen within some 10 ms).
    pub(super) answered_ms: Vec<i64>,
    /// When a check of it failed.
    pub(super) failing: Vec<(CheckName, Span)>,
}

/// Why nothing of a box could arrive, and when.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Absence {
    /// When.
    pub(super) span: Span,
    /// Why.
    pub(super) why: Gone,
}

/// Why nothing of a box can arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Gone {
    /// It sends nothing.
    Silent,
    /// It said goodbye for these seconds.
    Goodbye { back_secs: u64 },
    /// It sends, and nothing passes.
    Cut,
}

/// The server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ServerTruth {
    /// From an answer on /healthz to the next signal.
    pub(super) serving: Vec<Span>,
    /// Stopped by SIGSTOP.
    pub(super) hung: Vec<Span>,
    /// SIGKILL, or it ended by itself.
    pub(super) died_ms: Vec<i64>,
    /// It ended by itself though nothing was wrong with its disk.
    pub(super) fell_ms: Vec<i64>,
    /// Its disk took nothing.
    pub(super) disk_ill: Vec<Span>,
}

/// A receiver.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct ReceiverTruth {
    /// Its name.
    pub(super) name: String,
    /// When nothing passed.
    pub(super) cut: Vec<Span>,
    /// What arrived, in order.
    pub(super) told: Vec<Told>,
    /// Requests that carried no alert, as text.
    pub(super) garbled: Vec<String>,
}

/// A notification that arrived.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    /// When.
    pub(super) at_ms: i64,
    /// What it was answered.
    pub(super) answered: Option<u16>,
    /// When it was answered.
    pub(super) answered_ms: Option<i64>,
    /// Its `idempotency-key`.
    pub(super) idempotency_key: String,
    /// The connection that it came on, counted up.
    pub(super) connection: u64,
    /// What it says.
    pub(super) alert: Alert,
}

/// What an operator did.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Done {
    /// Took an incident in hand.
    Acknowledged { at_ms: i64, id: i64, note: String },
    /// Added a box.
    Added { at_ms: i64, name: String },
    /// Silenced something.
    Silenced {
        asked_ms: i64,
        at_ms: i64,
        id: i64,
        about: Option<String>,
        until_ms: i64,
    },
}

/// What the API says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Books {
    /// When.
    pub(super) at_ms: i64,
    /// The boxes.
    pub(super) boxes: Vec<BoxRow>,
    /// The incidents, newest first.
    pub(super) incidents: Vec<IncidentDetail>,
    /// The silences.
    pub(super) silences: Vec<MuteView>,
}

/// The books before and after an end of the process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Restart {
    /// It was asked to end (SIGTERM), and ended as asked.
    pub(super) asked: bool,
    /// The last ones before it.
    pub(super) before: Books,
    /// The first ones after it.
    pub(super) after: Books,
}

impl History {
    /// A wall-clock time of the server's, which runs on this machine.
    pub(super) fn ms_of(&self, at: Timestamp) -> i64 {
        at.duration_since(self.zero).as_millis() as i64
    }
}

impl Span {
    /// The end of what lasts.
    pub(super) const OPEN: i64 = i64::MAX / 4;

    /// From now on.
    pub(super) const fn begun(from_ms: i64) -> Self {
        Self {
            from_ms,
            to_ms: Self::OPEN,
        }
    }

    /// Whether the two have a moment in common.
    pub(super) fn meets(self, other: Self) -> bool {
        self.from_ms < other.to_ms && other.from_ms < self.to_ms
    }

    /// Whether all of `other` lies in it.
    pub(super) fn holds(self, other: Self) -> bool {
        self.from_ms <= other.from_ms && other.to_ms <= self.to_ms
    }
}

impl Told {
    /// Whether the receiver said that it has it.
    pub(super) fn taken(&self) -> bool {
        self.answered.is_some_and(|status| (200..300).contains(&status))
    }
}

/// Ends the span that lasts, if one does.
pub(super) fn end(spans: &mut [Span], at_ms: i64) {
    if let Some(span) = spans.last_mut().filter(|span| span.to_ms == Span::OPEN) {
        span.to_ms = at_ms;
    }
}
