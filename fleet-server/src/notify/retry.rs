//! Pure: when a notification that was not taken is tried again. For ever, at a bounded rate.
//!
//! Two back-offs, because two things fail: a receiver that cannot be reached, or that does not know us any more, holds
//! back all its rows together; a notification that a reachable receiver refuses holds back only the rows of its own
//! incident.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;

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
    /// No connection, no answer in time, a 5xx, a 429: the receiver itself, and it passes.
    #[error("{text}")]
    Unavailable {
        /// What happened, naming the receiver's address but no secret.
        text: String,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// It lets nothing of ours in: a token that is revoked, a channel that is gone. It lasts until somebody mends it.
    #[error("{text}")]
    Denied {
        /// Its status, what it said, and what to do.
        text: String,
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

    /// Its word in metrics and in the API.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Denied { .. } => "denied",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether the next notification would fare as badly.
    pub const fn is_the_receivers(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Denied { .. } => true,
            Self::Refused { .. } => false,
        }
    }

    /// The same with its text changed.
    #[must_use]
    pub fn reworded(self, change: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Unavailable { text, retry_after } => Self::Unavailable {
                text: change(text),
                retry_after,
            },
            Self::Denied { text } => Self::Denied { text: change(text) },
            Self::Refused { text } => Self::Refused { text: change(text) },
        }
    }
}

/// What a `Retry-After` header asks for: seconds (some write fractions), or a date by the receiver's clock.
pub fn asked(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(secs) = header.parse::<f64>() {
        return Duration::try_from_secs_f64(secs).ok();
    }
    let until = DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
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
        | SendError::Denied { .. }
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

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_second(784_111_777).unwrap();
        assert_eq!(asked("120", now), Some(Duration::from_secs(120)));
        assert_eq!(asked(" 0.65 ", now), Some(Duration::from_millis(650)));
        assert_eq!(
            asked("Sun, 06 Nov 1994 08:51:07 GMT", now),
            Some(Duration::from_secs(90))
        );
        assert_eq!(asked("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        for nonsense in ["", "-5", "soon", "NaN", "inf", "1e400"] {
            assert_eq!(asked(nonsense, now), None, "{nonsense:?}");
        }
    }

    proptest! {
        #[test]
        fn always_again_and_never_in_a_hurry(failures in 1_u32.., jitter in -1.0_f64..2.0) {
            let wait = wait(failures, jitter);
            prop_assert!(wait >= FIRST.mul_f64(0.75) && wait <= LONGEST);
        }
    }
}
