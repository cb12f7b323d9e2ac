//! Hermes' scheduler: `cron/ticker_heartbeat` each 60 s, `cron/ticker_last_success` when a tick went well. Pure.
//!
//! Only ever a warning: a restart is not known to help, and jobs are not the gateway. A file that is not there says
//! nothing, nor does an old one of a gateway that has just started.

use std::time::Duration;

use jiff::Timestamp;

use crate::checks::span_text;
use crate::settings::HermesSettings;

/// The times that the files hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ticker {
    /// The last tick.
    pub heartbeat: Option<Timestamp>,
    /// The last tick without an error.
    pub success: Option<Timestamp>,
}

/// `<epoch>` or `<epoch> <pid>`, with or without a fraction.
pub fn epoch(text: &str) -> Option<Timestamp> {
    let secs: f64 = text.split_whitespace().next()?.parse().ok()?;
    Timestamp::from_millisecond((secs * 1e3) as i64).ok()
}

impl Ticker {
    /// Since the last tick.
    pub fn heartbeat_age(&self, now: Timestamp) -> Option<Duration> {
        age(self.heartbeat, now)
    }

    /// What is wrong with it, after the gateway has been up for `up`.
    pub fn worry(&self, settings: &HermesSettings, up: Duration, now: Timestamp) -> Option<String> {
        let over = |at, limit| age(at, now).filter(|&age| age > limit && up > limit);
        if let Some(age) = over(self.heartbeat, settings.cron_stale) {
            return Some(format!(
                "its scheduler has not ticked for {} (60 s are usual): scheduled jobs do not run",
                span_text(age)
            ));
        }
        over(self.success, settings.cron_success_stale).map(|age| {
            format!(
                "its scheduler ticks, but no tick has gone well for {}: see `hermes cron status`",
                span_text(age)
            )
        })
    }
}

/// A time in the future counts as now: a clock was set back, and the next tick mends it.
fn age(at: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    at.map(|at| Duration::try_from(now.duration_since(at)).unwrap_or_default())
}
