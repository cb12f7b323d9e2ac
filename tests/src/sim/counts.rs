//! What was sent and answered, in all, since the start.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Statuses and kinds of error that are told apart; more than a server has.
const KINDS: usize = 32;

/// Totals. Serialises as the simulator's line of each second.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counts {
    /// Beats handed to a connection.
    pub sent: u64,
    /// Beats answered with 200.
    pub acked: u64,
    /// Beats that were not answered with 200.
    pub errors: u64,
    /// Of the answered ones: later than the box's interval.
    pub late: u64,
    /// Reports among the answered beats.
    pub reports: u64,
    /// Connections opened.
    pub connects: u64,
    /// The errors by kind: `connect`, `timed_out`, `closed`, `bad_answer`, or a status such as `409`.
    pub kinds: BTreeMap<String, u64>,
    /// The slowest answer since the last line, milliseconds.
    pub slowest_ms: u64,
}

impl Counts {
    /// A beat was answered after `took`; the box's interval is `every`.
    pub fn answered(&mut self, took: Duration, every: Duration, with_report: bool) {
        self.acked += 1;
        self.late += u64::from(took > every);
        self.reports += u64::from(with_report);
        self.slowest_ms = self.slowest_ms.max(took.as_millis() as u64);
    }

    /// A beat was not answered with 200.
    pub fn failed(&mut self, kind: String) {
        self.errors += 1;
        if self.kinds.contains_key(&kind) || self.kinds.len() < KINDS {
            *self.kinds.entry(kind).or_default() += 1;
        }
    }

    /// A copy for the line; the slowest starts anew.
    #[must_use]
    pub fn take_line(&mut self) -> Self {
        let line = self.clone();
        self.slowest_ms = 0;
        line
    }
}
