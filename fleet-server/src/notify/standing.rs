//! How a receiver does, for the API: told by its worker, read by anybody. It decides nothing.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

/// Shared between a worker and the API.
#[derive(Debug, Default)]
pub struct Standing(Mutex<Lately>);

/// What is known since the server started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lately {
    /// Since when nothing was taken; none: the last attempt went well.
    pub failing_since: Option<Timestamp>,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// When something was last taken.
    pub last_success: Option<Timestamp>,
    /// What the last failed attempt said, and when.
    pub last_error: Option<(Timestamp, String)>,
}

impl Standing {
    /// Something was taken.
    pub fn succeeded(&self, now: Timestamp) {
        self.change(|lately| {
            lately.failing_since = None;
            lately.failures = 0;
            lately.last_success = Some(now);
        });
    }

    /// Something was not.
    pub fn failed(&self, text: &str, now: Timestamp) {
        self.change(|lately| {
            lately.failing_since.get_or_insert(now);
            lately.failures = lately.failures.saturating_add(1);
            lately.last_error = Some((now, text.to_owned()));
        });
    }

    /// A copy.
    pub fn lately(&self) -> Lately {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut Lately)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
