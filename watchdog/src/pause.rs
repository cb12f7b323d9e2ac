//! `pause.json`: an operator's "leave this box alone for a while". The CLI writes it; the run and the resident part read.
//!
//! A pause stops remedies, never checks or heartbeats. A pause that cannot be read counts as one: an operator wanted it.

use std::time::Duration;

use jiff::Timestamp;
use protocol::heartbeat::Paused;
use protocol::limits;

use crate::state_dir::{PAUSE_FILE, StateDir, StateDirError};

/// The longest pause: what is longer belongs into the configuration (`max_restarts = 0`).
pub const PAUSE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// What `pause.json` says at `now`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pause {
    /// No pause, or one that is over.
    None,
    /// Until then.
    Until(Paused),
    /// There is something that cannot be read; the text says what and how to get rid of it.
    Unreadable(String),
}

/// Reads the pause.
pub fn read(dir: &StateDir, now: Timestamp) -> Pause {
    match dir.read(PAUSE_FILE) {
        Ok(None) => Pause::None,
        Ok(Some(bytes)) => judge(&bytes, now),
        Err(err) => Pause::Unreadable(format!("{err}; until then remedies are held back")),
    }
}

fn judge(bytes: &[u8], now: Timestamp) -> Pause {
    let paused: Paused = match serde_json::from_slice(bytes) {
        Ok(paused) => paused,
        Err(err) => {
            return Pause::Unreadable(format!(
                "{PAUSE_FILE} cannot be read ({err}); `fleet-watchdog resume` removes it"
            ));
        }
    };
    // Longer than any pause that is taken: the clock was moved back. It must not hold remedies back for years.
    let longest = now.checked_add(PAUSE_MAX).unwrap_or(Timestamp::MAX);
    if paused.until <= now || paused.until > longest {
        return Pause::None;
    }
    Pause::Until(paused)
}

/// Writes a pause of `length` from `now`; it replaces the one before.
pub fn write(dir: &StateDir, length: Duration, reason: &str, now: Timestamp) -> Result<Paused, PauseError> {
    if length.is_zero() || length > PAUSE_MAX {
        return Err(PauseError::Length(length));
    }
    let reason = reason.trim();
    let bad = reason.len() > limits::REASON_BYTES || reason.chars().any(char::is_control);
    if bad || reason.is_empty() {
        return Err(PauseError::Reason);
    }
    let until = now.checked_add(length).map_err(|_| PauseError::Length(length))?;
    let paused = Paused {
        until,
        reason: reason.to_owned(),
    };
    let bytes = serde_json::to_vec(&paused).unwrap_or_default();
    dir.write(PAUSE_FILE, &bytes)?;
    Ok(paused)
}

/// Ends the pause; whether there was one.
pub fn remove(dir: &StateDir) -> Result<bool, StateDirError> {
    dir.remove(PAUSE_FILE)
}

/// Why there is no pause now.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// Too long, or none at all.
    #[error("--for {}: a pause lasts more than nothing and at most 30d; for longer, set max_restarts = 0", humantime::format_duration(*.0))]
    Length(Duration),
    /// Empty, too long, or not a line of text.
    #[error(
        "--reason: give one line of text, at most {} bytes: it stands in every report of this box",
        limits::REASON_BYTES
    )]
    Reason,
    /// It could not be written.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_pause_holds_for_its_time_and_no_longer() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        assert_eq!(read(&dir, at(0)), Pause::None);
        let paused = write(&dir, Duration::from_secs(60), "disk swap\n", at(0)).unwrap();
        assert_eq!(paused.reason, "disk swap");
        assert_eq!(read(&dir, at(59)), Pause::Until(paused));
        assert_eq!(read(&dir, at(60)), Pause::None);
        assert!(remove(&dir).unwrap() && !remove(&dir).unwrap());
    }

    #[test]
    fn a_clock_that_jumped_back_does_not_pause_for_years() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        write(&dir, Duration::from_secs(60), "x", at(0)).unwrap();
        assert_eq!(read(&dir, at(-40 * 24 * 3600)), Pause::None);
    }

    #[test]
    fn an_unreadable_pause_counts_as_one_and_says_the_way_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        dir.write(PAUSE_FILE, b"{\"until\":").unwrap();
        let Pause::Unreadable(text) = read(&dir, at(0)) else {
            panic!()
        };
        assert!(text.contains("fleet-watchdog resume"), "{text}");
    }

    #[test]
    fn what_is_no_pause_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        let write = |secs, reason: &str| write(&dir, Duration::from_secs(secs), reason, at(0));
        for err in [
            write(0, "x"),
            write(31 * 24 * 3600, "x"),
            write(60, ""),
            write(60, &"x".repeat(300)),
        ] {
            assert!(err.unwrap_err().to_string().starts_with("--"));
        }
        assert_eq!(read(&dir, at(0)), Pause::None);
    }
}
