//! Pure: when a notification that was not taken is tried again. For ever, at a bounded rate.
//!
//! Two back-offs, because two things fail: a receiver that cannot be reached holds back all its rows together; a
//! notification that a reachable receiver refuses (4xx) holds back only the rows of its own incident.

use std::time::Duration;

/// The first wait: a restart of a receiver is over in seconds.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: when a receiver is back, nobody waits longer than this for a page.
pub const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait that a receiver may ask for with `Retry-After`.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How long a receiver fails before that is an incident of its own.
pub const FAILING_AFTER: Duration = Duration::from_secs(60);

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No connection, no answer in time, a 5xx, a 429: the receiver itself.
    #[error("{text}")]
    Unavailable {
        /// What happened, naming the receiver's address but no secret.
        text: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It answered, and does not want this notification.
    #[error("{text}")]
    Refused {
        /// Its status and the start of its answer.
        text: String,
    },
}

impl SendError {
    /// [`SendError::Unavailable`] without a wish.
    pub fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable {
            text: text.into(),
            retry_after: None,
        }
    }
}

/// How long to wait after the `failures`-th failure in a row (1 is the first): doubling from [`FIRST`] to
/// [`LONGEST`], less up to a quarter by `jitter` (0 to 1) so that many rows do not return in step.
pub fn wait(failures: u32, jitter: f64) -> Duration {
    let doubled = FIRST.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    doubled.min(LONGEST).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

/// The wait after `error`.
pub fn wait_after(error: &SendError, failures: u32, jitter: f64) -> Duration {
    let own = wait(failures, jitter);
    match error {
        SendError::Unavailable {
            retry_after: Some(asked),
            ..
        } => own.max((*asked).min(RETRY_AFTER_MAX)),
        SendError::Unavailable {
            retry_after: None, ..
        }
        | SendError::Refused { .. } => own,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_doubles_to_the_longest() {
        let waits: Vec<u64> = (1..=7).map(|n| wait(n, 0.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn a_wish_is_obeyed_up_to_the_limit() {
        let asked = |secs| SendError::Unavailable {
            text: String::new(),
            retry_after: Some(Duration::from_secs(secs)),
        };
        assert_eq!(wait_after(&asked(42), 1, 0.0).as_secs(), 42);
        assert_eq!(wait_after(&asked(86_400), 1, 0.0), RETRY_AFTER_MAX);
        assert_eq!(wait_after(&asked(0), 3, 0.0).as_secs(), 4);
    }

    proptest! {
        #[test]
        fn always_again_and_never_in_a_hurry(failures in 1_u32.., jitter in -1.0_f64..2.0) {
            let wait = wait(failures, jitter);
            prop_assert!(wait >= FIRST.mul_f64(0.75) && wait <= LONGEST);
        }
    }
}
