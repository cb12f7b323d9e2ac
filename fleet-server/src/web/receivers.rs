//! `/v1/receivers`: how each does, and a test of one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Json;
use protocol::api::{ReceiverList, ReceiverRow, ReceiverTest};

use super::auth;
use super::problem::{Refusal, Segment};
use super::state::App;
use crate::directory::Role;
use crate::notify::desk::Counter;
use crate::notify::net::NetSender;
use crate::store::{LastDelivery, Pending};

/// `GET /v1/receivers`.
pub async fn list(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<ReceiverList>, Refusal> {
    auth::operator(&app, &headers, Role::Viewer)?;
    let (pending, delivered) = app
        .store
        .call("read what waits for receivers", |store| {
            Ok((store.pending()?, store.last_deliveries()?))
        })
        .await?;
    let receivers = app
        .desk
        .counters()
        .iter()
        .map(|counter| row(counter, &pending, &delivered));
    Ok(Json(ReceiverList {
        receivers: receivers.collect(),
    }))
}

/// `POST /v1/receivers/{name}/test`.
pub async fn test(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<Json<ReceiverTest>, Refusal> {
    let operator = auth::operator(&app, &headers, Role::Operator)?;
    let Some(counter) = app.desk.counter(&name) else {
        let known: Vec<&str> = app.desk.counters().iter().map(Counter::name).collect();
        let name: String = name.chars().take(64).collect();
        return Err(Refusal::not_found(format!(
            "there is no receiver {name:?}; there are: {}",
            known.join(", ")
        )));
    };
    tracing::info!(receiver = %counter.name(), operator = %operator.name, "a test is sent");
    counter.test(app.clock.wall()).await.map(Json).ok_or_else(|| {
        let detail = format!("a test of {name} is under way; wait for its end");
        Refusal::new(StatusCode::CONFLICT, "under-way", "One at a time", detail)
    })
}

fn row(counter: &Counter<NetSender>, pending: &[Pending], delivered: &[LastDelivery]) -> ReceiverRow {
    let kind = &counter.courier.receiver().kind;
    let lately = counter.standing.lately();
    let waits = pending.iter().find(|row| row.receiver == counter.name());
    let before = delivered.iter().find(|row| row.receiver == counter.name());
    let (last_error_at, last_error) = lately.last_error.unzip();
    ReceiverRow {
        name: counter.name().to_owned(),
        kind: kind.word().to_owned(),
        place: kind.place(),
        pending: waits.map_or(0, |row| row.count),
        oldest_pending: waits.map(|row| row.oldest),
        failing_since: lately.failing_since,
        last_success: lately.last_success.max(before.map(|row| row.at)),
        last_error,
        last_error_at,
    }
}
