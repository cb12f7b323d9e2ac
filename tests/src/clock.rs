//! The tests' one clock: now, a pause, and waiting for something to become true.
//!
//! Every wait names what it waits for and has an end; nothing else in this crate sleeps.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a wait looks again: fine enough to measure seconds, coarse enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "tests against real machines measure real time"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets real time pass. For observing that nothing happens; to wait for something, use [`wait_for`].
#[expect(
    clippy::disallowed_methods,
    reason = "tests against real machines pass real time"
)]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Asks `ready` again and again until it gives a value; after `limit` the error names `what`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    let start = now();
    loop {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {:.1} s in vain for {what}", start.elapsed().as_secs_f64());
        }
        pause(LOOK_EVERY);
    }
}

/// [`wait_for`] with a yes or no, and how long it took.
pub fn wait_until(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<Duration> {
    let start = now();
    wait_for(what, limit, || ready().then_some(()))?;
    Ok(start.elapsed())
}

/// Whole seconds, for short calls.
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
