//! `/healthz` (the loop turns), `/readyz` (it also judges), `/metrics`. For probes and Prometheus: no token, no secret.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::metrics::{BoxSample, Scrape, render};
use super::problem::Refusal;
use super::state::App;
use crate::proof::healthy::STUCK_AFTER;
use crate::sd_notify;
use crate::sweep::view::{BoxView, Health};

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// A scrape does not wait longer for the store; it then shows the figures of the one before.
const STORE_WAIT: Duration = Duration::from_secs(2);

/// `GET /healthz`: 200 while the loop turns.
pub async fn healthz(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    answer(stuck(&app, &app.view.health()))
}

/// `GET /readyz`: 200 while it judges: it turns, is not warming up, is not blind, and can write what it decides.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    let health = app.view.health();
    let trouble = stuck(&app, &health);
    answer(trouble.or_else(|| health.judges.err().map(|why| why.to_string())))
}

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let health = app.view.health();
    let pending = app
        .store
        .with_timeout(STORE_WAIT)
        .call("count what waits", |store| store.pending())
        .await;
    app.metrics
        .look(&health, pending.ok().as_deref(), app.clock.wall());
    let boxes = app.view.boxes().into_iter();
    let scrape = Scrape {
        boxes: boxes
            .filter(|view| !view.info.id.is_canary())
            .map(sample)
            .collect(),
        open: app.view.open_kinds(),
        muted: app.view.muted(),
        mutes: app.mutes().active(app.clock.wall()),
    };
    let text = render(&scrape, &app.registry).map_err(|err| {
        tracing::error!(error = %err, "the metrics cannot be written");
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics",
            "No metrics",
            err.to_string(),
        )
    })?;
    Ok(([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response())
}

/// Tells systemd that the loop turns, as often as its `WatchdogSec=` asks for; a stuck server is then restarted. Never ends.
pub async fn alive(app: Arc<App>) {
    let Some(every) = sd_notify::watchdog_period() else {
        return;
    };
    loop {
        tokio::time::sleep(every / 3).await;
        if stuck(&app, &app.view.health()).is_none() {
            sd_notify::notify("WATCHDOG=1");
        }
    }
}

fn stuck(app: &App, health: &Health) -> Option<String> {
    let Some(last) = health.last_turn else {
        return Some("the loop has not turned yet".to_owned());
    };
    let still = app.clock.mono().since(last);
    (still > STUCK_AFTER).then(|| format!("the loop has not turned for {} s", still.as_secs()))
}

fn sample(view: BoxView) -> BoxSample {
    BoxSample {
        name: view.info.name,
        labels: view.info.labels,
        state: view.state,
        last_seen: view.last_seen,
        interval_secs: view.every.as_secs_f64(),
        dark_after_secs: view.dark_after.as_secs_f64(),
        beats: view.beats,
        clock_skew_ms: view.clock_skew_ms,
        paused: view.paused.is_some(),
        report: view.report,
    }
}

fn answer(trouble: Option<String>) -> Result<&'static str, Refusal> {
    match trouble {
        None => Ok("ok\n"),
        Some(why) => Err(Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "Not now",
            why,
        )),
    }
}
