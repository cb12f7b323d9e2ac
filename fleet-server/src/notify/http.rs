//! The shell that sends a request and says what came of it. No order, no repetition, no mapping.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};

use super::receivers::Request;
use super::retry::SendError;

/// A receiver that takes longer than this to accept a connection is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A receiver that takes longer than this to answer is unavailable: the notification is repeated with the same key.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of a refusal is kept for people, bytes.
const REFUSAL_BYTES: usize = 300;

/// Sends requests; one a receiver, so that connections are never shared between receivers.
pub trait Sender: Send + Sync + 'static {
    /// Sends `request`; `Ok` only for a 2xx.
    fn send(&self, request: &Request) -> impl Future<Output = Result<(), SendError>> + Send;
}

/// [`Sender`] over real HTTP.
pub struct HttpSender {
    client: reqwest::Client,
}

impl HttpSender {
    /// A client that follows no redirect: an alert goes where the operator said, or nowhere.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("fleet-server/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .build()?;
        Ok(Self { client })
    }
}

impl Sender for HttpSender {
    async fn send(&self, request: &Request) -> Result<(), SendError> {
        let mut post = self
            .client
            .post(request.url.clone())
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        let answer = post
            .body(request.body.clone())
            .send()
            .await
            .map_err(|err| unavailable(&request.url, err))?;
        if answer.status().is_success() {
            return Ok(());
        }
        Err(refusal(&request.url, answer).await)
    }
}

/// The text names host and port, never path or query: those may hold a secret (Slack's and Discord's do).
fn unavailable(url: &url::Url, err: reqwest::Error) -> SendError {
    let err = err.without_url();
    let what = if err.is_timeout() {
        format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
    } else {
        innermost(&err)
    };
    SendError::unavailable(format!("{}: {what}", place(url)))
}

fn innermost(err: &reqwest::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(inner) = source {
        text = inner.to_string();
        source = inner.source();
    }
    text
}

fn place(url: &url::Url) -> String {
    let port = url
        .port_or_known_default()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or("?"))
}

async fn refusal(url: &url::Url, mut answer: reqwest::Response) -> SendError {
    let status = answer.status();
    let retry_after = answer
        .headers()
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let mut body = Vec::new();
    while body.len() < REFUSAL_BYTES
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(REFUSAL_BYTES);
    let said = String::from_utf8_lossy(&body).replace(char::is_control, " ");
    let text = format!("{} answered {status}: {}", place(url), said.trim());
    if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) {
        SendError::Unavailable { text, retry_after }
    } else {
        SendError::Refused { text }
    }
}
