//! `/v1/incidents`: what is and was wrong, and who has it in hand.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, Uri};
use axum::response::Json;
use protocol::api::{AckIncident, IncidentDetail, IncidentPage};
use protocol::incident::Ack;
use protocol::limits;
use protocol::names::BoxName;

use super::problem::{Refusal, Segment};
use super::query::Query;
use super::state::App;
use super::{auth, body};
use crate::directory::Role;
use crate::incident::canary;
use crate::store::{IncidentFilter, StoredIncident};

/// `GET /v1/incidents[?open=true|false&kind=&box=&canary=true&page=&per_page=]`, newest first. Those of the server's own
/// canary only if asked for.
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<IncidentPage>, Refusal> {
    auth::operator(&app, &headers, Role::Viewer)?;
    let query = Query::of(&uri, &["open", "kind", "box", "canary", "page", "per_page"])?;
    let page = query.page()?;
    let box_name: Option<BoxName> = query.parsed("box")?;
    let canary = query.parsed("canary")?.unwrap_or(false) || box_name == Some(canary::name());
    let filter = IncidentFilter {
        open: query.parsed("open")?,
        kind: query.parsed("kind")?,
        box_name,
        except_box: (!canary).then(canary::name),
        offset: page.offset(),
        limit: page.rows,
    };
    let (found, total) = app
        .store
        .call("list incidents", move |store| store.incidents(&filter))
        .await?;
    let incidents = found.into_iter().map(shown).collect();
    Ok(Json(IncidentPage {
        incidents,
        total,
        next_page: page.next(total),
    }))
}

/// `GET /v1/incidents/{id}`.
pub async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(id): Segment,
) -> Result<Json<IncidentDetail>, Refusal> {
    auth::operator(&app, &headers, Role::Viewer)?;
    let id = number(&id)?;
    let found = app
        .store
        .call("read an incident", move |store| store.incident(id))
        .await?;
    found
        .map(|found| Json(shown(found)))
        .ok_or_else(|| missing(&id.to_string()))
}

/// `POST /v1/incidents/{id}/ack`.
pub async fn acknowledge(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    request: Request<Body>,
) -> Result<Json<IncidentDetail>, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(&app, &head.headers, Role::Operator)?;
    let id = number(&id)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: AckIncident = body::json(&bytes)?;
    if wanted.note.len() > limits::REASON_BYTES || wanted.note.chars().any(char::is_control) {
        let detail = format!("must be one line of at most {} bytes", limits::REASON_BYTES);
        return Err(Refusal::invalid("note", detail));
    }
    let ack = Ack {
        at: app.clock.wall(),
        by: operator.name,
        note: wanted.note,
    };
    let incident = app
        .store
        .call("acknowledge", move |store| store.acknowledge(id, &ack))
        .await?;
    Ok(Json(shown(incident)))
}

fn shown(stored: StoredIncident) -> IncidentDetail {
    IncidentDetail {
        incident: stored.incident,
        ack: stored.ack,
        timeline: stored.timeline,
    }
}

fn number(text: &str) -> Result<i64, Refusal> {
    text.parse().map_err(|_| missing(text))
}

fn missing(id: &str) -> Refusal {
    let id: String = id.chars().take(32).collect();
    Refusal::not_found(format!("there is no incident {id:?}; it may be too long ago"))
}
