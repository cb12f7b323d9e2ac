//! The resident part: one beat a second to every configured server, whatever the checks, the disk or a server do.
//!
//! This file is the shell: it reads the clock, the files and the signals, and drives what decides. It does not check
//! the box and restarts nothing.

pub mod plan;
pub mod target;
pub mod lane;

use std::future::Future;
use std::time::Duration;

use protocol::report::Report;

use crate::settings::Settings;

/// Why the resident part could not run, or a single beat was not taken.
#[derive(Debug, thiserror::Error)]
pub enum BeatError {
    /// Nowhere to send to.
    #[error(
        "no server is configured: add [server] urls = [\"https://…\"] to the configuration, or stop fleet-watchdog-beat"
    )]
    NoServer,
}

/// Beats until `shutdown` is ready, says goodbye (bounded), and returns. Call it on a current-thread runtime, with
/// `enable_all`, and end the runtime with `shutdown_background`: a hanging disk or resolver must not hold the process.
pub async fn run(settings: Settings, shutdown: impl Future<Output = ()>) -> Result<(), BeatError> {
    let _ = &settings;
    shutdown.await;
    Ok(())
}

/// `[heartbeat] mode = "timer"`: one beat with `report` to every server; the next is announced for `next_in` plus the
/// spread of a timer. Bounded by itself; an error names every server that did not take it.
pub async fn send_once(settings: &Settings, report: &Report, next_in: Duration) -> Result<(), BeatError> {
    let _ = (settings, report, next_in);
    std::future::ready(()).await;
    Ok(())
}
