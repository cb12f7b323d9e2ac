//! `/v1/incidents`: what is and was wrong, and who has it in hand.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, Uri, header};
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
use crate::intake::{Hand, Handed};
use crate::store::{IncidentFilter, StoredIncident};

/// How long an acknowledgement may take to be written.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
/// When to come again after that.
const BUSY_RETRY_SECS: u64 = 5;

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
    detail(&app, number(&id)?).await
}

/// `POST /v1/incidents/{id}/ack`.
pub async fn acknowledge(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    request: Request<Body>,
) -> Result<Json<IncidentDetail>, Refusal> {
    let (by, id, note) = handing(&app, &id, request).await?;
    let ack = Ack {
        at: app.clock.wall(),
        by,
        note,
    };
    match hand(&app, id, Hand::Take(ack.clone())).await? {
        Handed::Done => detail(&app, id).await,
        // It is over: nobody is told, but the word stands in its history.
        Handed::NotOpen => {
            let acknowledge = app
                .store
                .call("acknowledge", move |store| store.acknowledge(id, &ack));
            Ok(Json(shown(acknowledge.await?)))
        }
    }
}

/// `POST /v1/incidents/{id}/unack`.
pub async fn unacknowledge(
    State(app): State<Arc<App>>,
    Segment(id): Segment,
    request: Request<Body>,
) -> Result<Json<IncidentDetail>, Refusal> {
    let (operator, id, note) = handing(&app, &id, request).await?;
    let hand = hand(&app, id, Hand::GiveBack { by: operator, note });
    match hand.await? {
        Handed::Done => detail(&app, id).await,
        Handed::NotOpen => {
            let Json(over) = detail(&app, id).await?;
            let at = over
                .incident
                .resolved_at
                .map_or_else(String::new, |at| format!(" since {at}"));
            let detail = format!("incident {id} is over{at}; there is nothing to give back");
            Err(Refusal::new(StatusCode::CONFLICT, "over", "It is over", detail))
        }
    }
}

/// Who asks about which incident, and in which words.
async fn handing(app: &App, id: &str, request: Request<Body>) -> Result<(String, i64, String), Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(app, &head.headers, Role::Operator)?;
    let id = number(id)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: AckIncident = body::json(&bytes)?;
    if wanted.note.len() > limits::REASON_BYTES || wanted.note.chars().any(char::is_control) {
        let detail = format!("must be one line of at most {} bytes", limits::REASON_BYTES);
        return Err(Refusal::invalid("note", detail));
    }
    Ok((operator.name, id, wanted.note))
}

/// Through the books, because receivers are told; answered when it is written.
async fn hand(app: &App, id: i64, hand: Hand) -> Result<Handed, Refusal> {
    let busy = |detail: &str| {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Not now", detail)
            .with(header::RETRY_AFTER, BUSY_RETRY_SECS.to_string())
    };
    let Some(handed) = app.intake.hand(id, hand) else {
        return Err(busy("too many acknowledgements wait to be written; try again"));
    };
    match tokio::time::timeout(WRITTEN_WITHIN, handed).await {
        Ok(Ok(handed)) => Ok(handed),
        Ok(Err(_)) => Err(busy("the server ends; ask the next one")),
        Err(_) => Err(busy(
            "taken, but not yet written: the store is in trouble; look again before you rely on it",
        )),
    }
}

async fn detail(app: &App, id: i64) -> Result<Json<IncidentDetail>, Refusal> {
    let found = app
        .store
        .call("read an incident", move |store| store.incident(id))
        .await?;
    found
        .map(|found| Json(shown(found)))
        .ok_or_else(|| missing(&id.to_string()))
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
