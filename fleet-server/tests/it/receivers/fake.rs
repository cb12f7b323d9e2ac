//! A server on loopback that speaks one documented HTTP API, remembers what it was asked, and can answer its first
//! requests as told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;

/// Longer than anything here takes on a busy machine.
pub(super) const LIMIT: Duration = Duration::from_secs(40);

/// What an API says to a request.
pub(super) type Api = fn(&Asked) -> Reply;

/// One request, as an API checks it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) raw: Vec<u8>,
    pub(super) body: Value,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// One answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) body: String,
}

impl Reply {
    #[expect(clippy::needless_pass_by_value, reason = "callers give texts and JSON alike")]
    pub(super) fn new(status: u16, body: impl ToString) -> Self {
        Self {
            status,
            headers: vec![],
            body: body.to_string(),
        }
    }

    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

/// What was asked and how it was answered.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) at: Instant,
    pub(super) asked: Asked,
    pub(super) status: u16,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    heard: Mutex<Vec<Heard>>,
    first: Mutex<VecDeque<Reply>>,
}

impl Fake {
    pub(super) async fn start(api: Api) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            api,
            heard: Mutex::default(),
            first: Mutex::default(),
        });
        let router = Router::new().fallback(talk).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    /// Before its API is asked, it answers this once.
    pub(super) fn first(self, reply: Reply) -> Self {
        self.shared.first.lock().unwrap().push_back(reply);
        self
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// What it took.
    pub(super) fn taken(&self) -> Vec<Heard> {
        let mut heard = self.heard();
        heard.retain(|heard| (200..300).contains(&heard.status));
        heard
    }
}

async fn talk(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, raw: Bytes) -> Response {
    let asked = Asked {
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        body: serde_json::from_slice(&raw).unwrap_or_default(),
        raw: raw.to_vec(),
    };
    let scripted = shared.first.lock().unwrap().pop_front();
    let reply = scripted.unwrap_or_else(|| (shared.api)(&asked));
    shared.heard.lock().unwrap().push(Heard {
        at: now(),
        asked,
        status: reply.status,
    });
    let status = StatusCode::from_u16(reply.status).unwrap();
    let mut response = (status, reply.body).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

/// Waits until `wanted` holds.
pub(super) async fn until(what: &str, wanted: impl Fn() -> bool) {
    let began = now();
    while !wanted() {
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "a test that waits for a real program")]
pub(super) fn now() -> Instant {
    Instant::now()
}
