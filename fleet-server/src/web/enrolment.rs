//! `/v1/enroll` and `/v1/enroll-codes`: how a box gets its token without an operator's hands.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use jiff::{SignedDuration, Timestamp};
use protocol::api::CreateEnrollCode;
use protocol::enroll::{EnrollAnswerBody, EnrollRequest};
use protocol::limits;
use protocol::names::Labels;
use protocol::witness::Targets;
use serde::Serialize;

use super::auth::{self, Purpose, new_secret};
use super::body;
use super::boxes::{never_kept, no_random, not_reserved, put};
use super::connection::Arrived;
use super::problem::Refusal;
use super::state::App;
use crate::directory::{Role, TokenHash};
use crate::store::{EnrollCode, NewBox};

/// How long a code is good, unless the request says otherwise.
const EXPIRES_SECS: u64 = 24 * 3600;
/// The longest a code is good.
const EXPIRES_MAX_SECS: u64 = 90 * 24 * 3600;
/// The most boxes that one code enrols.
const USES_MAX: u32 = 100_000;

/// A code, given once.
#[derive(Serialize)]
struct NewCode<'a> {
    code: &'a str,
    uses: u32,
    expires_at: Timestamp,
}

/// `POST /v1/enroll`: no token; the code is the right to come in.
pub async fn enroll(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Refusal> {
    let (head, content) = request.into_parts();
    let arrived = head.extensions.get::<Arrived>().copied();
    let arrived = arrived.unwrap_or_else(|| Arrived::now(&app.clock));
    app.rates
        .enrolment(arrived.mono)
        .map_err(|wait| Refusal::too_many("too many boxes enrol at the same time", wait.as_secs() + 1))?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: EnrollRequest = body::json(&bytes)?;
    let token = new_secret(Purpose::BoxToken).map_err(no_random)?;
    let code = TokenHash::of(&wanted.code);
    let name = wanted.name;
    not_reserved(&name)?;
    let new = NewBox {
        name: name.clone(),
        labels: Labels::default(),
        declared: wanted.labels,
        witnesses: Targets::default(),
        token: TokenHash::of(&token),
        at: app.clock.wall(),
    };
    let _order = app.changes.lock().await;
    let record = app
        .store
        .call("enrol a box", move |store| store.enroll(&code, &new))
        .await?;
    put(&app, record);
    tracing::info!(box_name = %name, "box enrolled");
    let body = EnrollAnswerBody {
        token: token.expose(),
        name: &name,
    };
    Ok(never_kept((StatusCode::CREATED, Json(body)).into_response()))
}

/// `POST /v1/enroll-codes`.
pub async fn create_code(State(app): State<Arc<App>>, request: Request<Body>) -> Result<Response, Refusal> {
    let (head, content) = request.into_parts();
    let operator = auth::operator(&app, &head.headers, Role::Operator)?;
    let bytes = body::read(&head.headers, content, limits::REQUEST_BODY_BYTES).await?;
    let wanted: CreateEnrollCode = body::json(&bytes)?;
    let uses = wanted.uses.unwrap_or(1);
    let expires = wanted.expires_secs.unwrap_or(EXPIRES_SECS);
    if !(1..=USES_MAX).contains(&uses) {
        return Err(Refusal::invalid("uses", format!("must be 1 to {USES_MAX}")));
    }
    if !(1..=EXPIRES_MAX_SECS).contains(&expires) {
        return Err(Refusal::invalid(
            "expires_secs",
            format!("must be 1 to {EXPIRES_MAX_SECS} (90 days)"),
        ));
    }
    let secret = new_secret(Purpose::EnrollCode).map_err(no_random)?;
    let now = app.clock.wall();
    let expires_at = now
        .saturating_add(SignedDuration::from_secs(expires as i64))
        .unwrap_or(now);
    let code = EnrollCode {
        hash: TokenHash::of(&secret),
        uses_left: uses,
        expires_at,
    };
    app.store
        .call("add an enrolment code", move |store| {
            store.add_enroll_code(&code, now)
        })
        .await?;
    tracing::info!(by = %operator.name, uses, %expires_at, "enrolment code created");
    let body = NewCode {
        code: secret.expose(),
        uses,
        expires_at,
    };
    Ok(never_kept((StatusCode::CREATED, Json(body)).into_response()))
}
