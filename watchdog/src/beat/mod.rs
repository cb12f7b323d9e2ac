//! The resident part: one beat a second to every configured server, whatever the checks, the disk or a server do.
//!
//! This folder does not check the box and restarts nothing. In the data's order:
//! - `files` (the newest report, the pause), `units` (what the service manager tells), `body`: what a beat says
//! - `plan` (pure): when, and on which connection; `answer` (pure): what the server's word means
//! - `target`, `lane`: one server, one connection; `sender`: does what the plan says; `voice`: what gets logged
//! - `resident`: the shell that turns them; `once`: a single beat for `mode = "timer"`

pub mod files;
pub mod units;
pub mod body;
pub mod plan;
pub mod target;
pub mod lane;
pub mod answer;
pub mod voice;
pub mod sender;
mod resident;
mod once;
#[cfg(test)]
mod played;

use std::time::Duration;

use protocol::report::Report;

use crate::settings::Settings;

pub use once::TIMER_SPREAD;
pub use target::TargetError;

/// Why the resident part could not run, or a single beat was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// Nowhere to send to.
    #[error(
        "no server is configured; add [server] urls = [\"https://…\"] to the configuration, \
         or `systemctl disable --now fleet-watchdog-beat`"
    )]
    NoServer,
    /// The check run sends.
    #[error(
        "[heartbeat] mode = \"timer\": the check run sends the beats; \
         `systemctl disable --now fleet-watchdog-beat`, or set mode = \"resident\""
    )]
    TimerMode,
    /// A server cannot be sent to.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// There is no token to send with.
    #[error(transparent)]
    Token(#[from] crate::config::TokenError),
    /// A single beat was not taken by some server.
    #[error("{0}")]
    NotTaken(String),
}

/// Beats until `shutdown` is ready, says goodbye (bounded), and returns. Call it on a current-thread runtime, with
/// `enable_all`, and end the runtime with `shutdown_background`: a hanging disk or resolver must not hold the process.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), BeatError> {
    resident::run(settings, shutdown).await
}

/// `[heartbeat] mode = "timer"`: one beat with `report` to every server; the next is announced for `next_in` plus the
/// spread of a timer. Bounded by itself; an error names every server that did not take it.
pub async fn send_once(settings: &Settings, report: &Report, next_in: Duration) -> Result<(), BeatError> {
    once::send(settings, report, next_in).await
}
