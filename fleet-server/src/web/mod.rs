//! What people, boxes and machines ask over HTTP. It reads copies ([`View`](crate::sweep::view::View)) and changes only boxes, tokens, codes,
//! acknowledgements and mutes; it never judges.
//!
//! - [`listener`], [`tls`], [`connection`]: how a request gets here
//! - [`state`], [`auth`], [`rate`], [`body`], [`problem`]: what every handler uses
//! - [`boxes`], [`enrolment`], [`incidents`], [`mutes`], [`operators`], [`receivers`]: the operators' API
//! - [`health`], [`metrics`], [`counters`]: how the server itself does

pub mod auth;
pub mod body;
pub mod boxes;
pub mod connection;
pub mod counters;
pub mod enrolment;
pub mod health;
pub mod incidents;
pub mod listener;
pub mod metrics;
pub mod mutes;
pub mod operators;
pub mod problem;
mod query;
pub mod rate;
pub mod receivers;
pub mod state;
pub mod tls;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};

use self::problem::Refusal;
use self::state::App;
use crate::ingest;

/// Every path of this server.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/heartbeat", post(ingest::heartbeat))
        .route("/v1/enroll", post(enrolment::enroll))
        .route("/v1/enroll-codes", post(enrolment::create_code))
        .route("/v1/boxes", get(boxes::list).post(boxes::add))
        .route("/v1/boxes/{name}", get(boxes::show).delete(boxes::remove))
        .route("/v1/boxes/{name}/rotate", post(boxes::rotate))
        .route("/v1/boxes/{name}/revoke", post(boxes::revoke))
        .route("/v1/boxes/{name}/witnesses", post(boxes::declare_witnesses))
        .route("/v1/incidents", get(incidents::list))
        .route("/v1/incidents/{id}", get(incidents::show))
        .route("/v1/incidents/{id}/ack", post(incidents::acknowledge))
        .route("/v1/silences", get(mutes::silences).post(mutes::add_silence))
        .route("/v1/silences/{id}", get(mutes::silence))
        .route("/v1/silences/{id}/expire", post(mutes::expire_silence))
        .route(
            "/v1/maintenance",
            get(mutes::maintenance).post(mutes::add_maintenance),
        )
        .route("/v1/maintenance/{id}", get(mutes::one_maintenance))
        .route("/v1/maintenance/{id}/expire", post(mutes::expire_maintenance))
        .route("/v1/receivers", get(receivers::list))
        .route("/v1/receivers/{name}/test", post(receivers::test))
        .route("/v1/incidents/{id}/unack", post(incidents::unacknowledge))
        .route("/v1/operators", get(operators::list).post(operators::add))
        .route("/v1/operators/{name}", axum::routing::delete(operators::remove))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn no_such_path(uri: Uri) -> Refusal {
    Refusal::not_found(format!("there is no {}; the API is under /v1/", cut(uri.path())))
}

async fn no_such_method(method: Method, uri: Uri) -> Refusal {
    let detail = format!("{} does not take {method}", cut(uri.path()));
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method",
        "Not with this method",
        detail,
    )
}

/// A path as repeated in an answer: its first 100 characters.
fn cut(path: &str) -> String {
    path.chars().take(100).collect()
}
