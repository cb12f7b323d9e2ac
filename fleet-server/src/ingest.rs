//! `POST /v1/heartbeat`: the hot path. Who (by token), how often, how big, is it valid, and then to the judging side.
//!
//! The arrival is stamped by the listener before anything is read, so that neither a slow body nor a busy server makes
//! a box look late. Whatever is refused here changes nothing.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use protocol::heartbeat::{Heartbeat, HeartbeatAnswer};
use protocol::limits;

use crate::liveness::beat::Refused;
use crate::web::connection::{Arrived, Peer};
use crate::web::problem::Refusal;
use crate::web::state::App;
use crate::web::{auth, body};

/// The handler.
pub async fn heartbeat(State(app): State<Arc<App>>, request: Request<Body>) -> Response {
    let arrived = request.extensions().get::<Arrived>().copied();
    let arrived = arrived.unwrap_or_else(|| Arrived::now(&app.clock));
    let outcome = take(&app, arrived, request).await;
    match &outcome {
        Ok(_) => app.metrics.heartbeats_accepted.inc(),
        Err(refusal) => app.metrics.heartbeats.with_label_values(&[refusal.kind()]).inc(),
    }
    let took = app.clock.mono().since(arrived.mono);
    app.metrics.heartbeat_seconds.observe(took.as_secs_f64());
    match outcome {
        Ok(answer) => Json(answer).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn take(app: &App, arrived: Arrived, request: Request<Body>) -> Result<HeartbeatAnswer, Refusal> {
    let (head, content) = request.into_parts();
    let ix = auth::box_of(app, &head.headers)?;
    app.rates.beat(ix, arrived.mono).map_err(|wait| {
        Refusal::too_many("this box sends more often than every 250 ms", wait.as_secs() + 1)
    })?;
    let bytes = body::read(&head.headers, content, limits::HEARTBEAT_BODY_BYTES).await?;
    let beat = Heartbeat::decode(&bytes)?;
    let peer = head.extensions.get::<Peer>();
    let conn = peer.map(Peer::id).unwrap_or_default();
    let declared = beat.report.as_ref().map(|report| report.labels.clone());
    let goes = beat.goodbye.is_some();
    let accepted = app
        .intake
        .beat(ix, conn, arrived.mono, arrived.wall, beat)
        .map_err(|refused| refusal(&refused))?;
    if let Some(declared) = declared {
        let differs = app
            .directory()
            .get(ix)
            .is_some_and(|entry| entry.record.declared != declared);
        if differs {
            app.directory_mut().declare(ix, &declared);
            app.announce(ix);
        }
    }
    if let Some(peer) = peer {
        peer.carries(ix, goes);
    }
    let every_ms = app.every.as_millis() as u64;
    Ok(HeartbeatAnswer {
        every_ms,
        want_report: accepted.want_report,
    })
}

fn refusal(refused: &Refused) -> Refusal {
    let conflict = |kind, title| Refusal::new(StatusCode::CONFLICT, kind, title, refused.to_string());
    match refused {
        Refused::OldSeq { .. } => conflict("old-seq", "An older beat than the last one"),
        Refused::OldSession => conflict("old-session", "Another session speaks for this box"),
        Refused::Clone => conflict("duplicate-identity", "Two machines with one token"),
        Refused::Removed => Refusal::unauthorized("this box has been removed"),
    }
}
