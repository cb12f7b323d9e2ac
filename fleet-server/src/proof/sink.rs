//! Where the canary's notifications arrive: a webhook receiver of our own, on loopback, reached over real HTTP by a worker
//! like every other receiver's.
//!
//! It takes only what that worker signed with a secret of this process, and passes it on. It judges nothing.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use jiff::Timestamp;
use protocol::alert::{Alert, SIGNATURE_HEADER};
use protocol::names::Word;
use protocol::secret::Secret;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::rows::SINK;
use crate::clock::Clock;
use crate::liveness::time::Mono;
use crate::notify::receivers::webhook::signature;
use crate::settings::{Receiver, ReceiverKind, Templates, Webhook};
use crate::web::auth::{Purpose, new_secret};

/// An alert with its details; the canary's are small.
const BODY_BYTES: usize = 64 * 1024;
/// Alerts that wait for the canary: it has one incident at a time.
const WAITING: usize = 64;

/// A notification that arrived.
#[derive(Debug)]
pub struct Delivery {
    /// When.
    pub at: Mono,
    /// What.
    pub alert: Alert,
}

/// A bound sink, not yet served.
pub struct Sink {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    secret: Secret,
    clock: Clock,
    out: mpsc::Sender<Delivery>,
}

impl Sink {
    /// Binds a free port of loopback; what arrives comes out of the second part.
    pub async fn bind(clock: Clock) -> std::io::Result<(Self, mpsc::Receiver<Delivery>)> {
        let listener = match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await {
            Ok(listener) => listener,
            Err(_) => TcpListener::bind(SocketAddr::from((Ipv6Addr::LOCALHOST, 0))).await?,
        };
        let secret = new_secret(Purpose::OperatorToken).map_err(std::io::Error::other)?;
        let (out, arrived) = mpsc::channel(WAITING);
        let shared = Arc::new(Shared { secret, clock, out });
        Ok((Self { listener, shared }, arrived))
    }

    /// It as a receiver.
    pub fn receiver(&self) -> std::io::Result<Receiver> {
        let url = format!("http://{}/", self.listener.local_addr()?);
        Ok(Receiver {
            name: Word::new(SINK).map_err(std::io::Error::other)?,
            kind: ReceiverKind::Webhook(Webhook {
                url: url.parse().map_err(std::io::Error::other)?,
                secret: Some(self.shared.secret.clone()),
            }),
            templates: Templates::default(),
        })
    }

    /// Takes what comes. Never ends.
    pub async fn serve(self) {
        let router = Router::new().route("/", post(take)).with_state(self.shared);
        if let Err(err) = axum::serve(self.listener, router).await {
            tracing::error!(error = %err, "the canary's sink ended");
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, request: Request<Body>) -> StatusCode {
    let at = shared.clock.mono();
    let Ok(body) = axum::body::to_bytes(request.into_body(), BODY_BYTES).await else {
        return StatusCode::PAYLOAD_TOO_LARGE;
    };
    if !signed(&shared.secret, &headers, &body) {
        return StatusCode::FORBIDDEN;
    }
    let Ok(alert) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    match shared.out.try_send(Delivery { at, alert }) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The secret is of this process and the sender is in it, so the signature's age tells nothing.
fn signed(secret: &Secret, headers: &HeaderMap, body: &[u8]) -> bool {
    let given = headers
        .get(SIGNATURE_HEADER)
        .and_then(|value| value.to_str().ok());
    let Some(given) = given else { return false };
    let stamp = given
        .strip_prefix("t=")
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .and_then(|secs| Timestamp::from_second(secs).ok());
    stamp.is_some_and(|stamp| {
        signature(secret, body, stamp)
            .as_bytes()
            .ct_eq(given.as_bytes())
            .into()
    })
}
