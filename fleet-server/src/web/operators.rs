//! `/v1/operators`: who may use this API, and what they may.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use jiff::Timestamp;
use protocol::limits;
use protocol::names::BoxName;
use serde::{Deserialize, Serialize};

use super::auth::{self, Purpose, new_secret};
use super::body;
use super::boxes::{never_kept, no_random};
use super::problem::{Refusal, Segment};
use super::state::App;
use crate::directory::{Role, TokenHash};
use crate::store::OperatorRecord;

/// `POST /v1/operators`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddOperator {
    /// Who: stands in acknowledgements and in the log. Spelt like a box's name.
    pub name: BoxName,
    /// What they may.
    pub role: Role,
}

/// A row of `GET /v1/operators`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorRow {
    /// Who.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// Since when.
    pub created_at: Timestamp,
}

#[derive(Serialize)]
struct NewOperator<'a> {
    name: &'a str,
    role: Role,
    token: &'a str,
}

/// `GET /v1/operators`.
pub async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Vec<OperatorRow>>, Refusal> {
    auth::operator(&app, &headers, Role::Admin)?;
    let directory = app.directory();
    let rows = directory.operators().iter().map(|operator| OperatorRow {
        name: operator.name.clone(),
        role: operator.role,
        created_at: operator.created_at,
    });
    Ok(Json(rows.collect()))
}

/// `POST /v1/operators`: a new token; one of the same name is good no longer.
pub async fn add(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Refusal> {
    let (head, content) = request.into_parts();
    let by = auth::operator(&app, &head.headers, Role::Admin)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: AddOperator = body::json(&bytes)?;
    let token = new_secret(Purpose::OperatorToken).map_err(no_random)?;
    let record = OperatorRecord {
        name: wanted.name.as_str().to_owned(),
        role: wanted.role,
        hash: TokenHash::of(&token),
        created_at: app.clock.wall(),
    };
    let stored = record.clone();
    let _order = app.changes.lock().await;
    app.store
        .call("add an operator", move |store| store.put_operator(&stored))
        .await?;
    tracing::info!(operator = %record.name, role = record.role.as_str(), by = %by.name, "operator's token created");
    let body = NewOperator {
        name: &record.name,
        role: record.role,
        token: token.expose(),
    };
    let response = (StatusCode::CREATED, Json(body)).into_response();
    app.directory_mut().put_operator(record);
    Ok(never_kept(response))
}

/// `DELETE /v1/operators/{name}`.
pub async fn remove(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Segment(name): Segment,
) -> Result<StatusCode, Refusal> {
    let by = auth::operator(&app, &headers, Role::Admin)?;
    if by.name == name {
        let detail = "nobody takes their own token away: the last admin could lock everybody out";
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            "own-token",
            "Not your own",
            detail,
        ));
    }
    let _order = app.changes.lock().await;
    // First here: whatever the store says, this token is good for nothing from now on.
    app.directory_mut().remove_operator(&name);
    let gone = name.clone();
    app.store
        .call("remove an operator", move |store| store.remove_operator(&gone))
        .await?;
    tracing::info!(operator = %name, by = %by.name, "operator's token removed");
    Ok(StatusCode::NO_CONTENT)
}
