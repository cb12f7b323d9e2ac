//! `/healthz` (the loop turns), `/readyz` (it also judges), `/metrics`. For probes and Prometheus: no token, no secret.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::metrics::{Scrape, render};
use super::problem::Refusal;
use super::state::App;

/// The text format of Prometheus.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET /healthz`: 200 while the loop turns.
pub async fn healthz(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    answer(app.view.stuck())
}

/// `GET /readyz`: 200 while it judges: it turns, is not warming up, is not blind.
pub async fn readyz(State(app): State<Arc<App>>) -> Result<&'static str, Refusal> {
    answer(app.view.stuck().or_else(|| app.view.not_judging()))
}

/// `GET /metrics`.
pub async fn metrics(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    let open = app
        .view
        .open()
        .iter()
        .map(|incident| (incident.kind, incident.severity))
        .collect();
    let scrape = Scrape {
        boxes: app.view.samples(),
        open,
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
