//! The shell that speaks HTTP: it sends a request and hands back what was answered. No order, no repetition, no meaning.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;

use super::receivers::HttpRequest;
use super::receivers::answer::HttpAnswer;
use super::retry::SendError;

/// A receiver that takes longer than this to accept a connection is unavailable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A receiver that takes longer than this to answer is unavailable: the notification is repeated with the same key.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read: chats repeat the message in it.
const ANSWER_BYTES: usize = 64 * 1024;

/// One HTTP client; one a receiver, so that connections are never shared between receivers.
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
            // What is given up here must not be repeated by the kernel: it would arrive after what was said since.
            .tcp_user_timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(2)
            .build()?;
        Ok(Self { client })
    }

    /// Sends `request`; any status is an answer.
    pub async fn send(&self, request: &HttpRequest) -> Result<HttpAnswer, SendError> {
        let mut post = self
            .client
            .post(request.url.clone())
            .header(CONTENT_TYPE, "application/json");
        for (name, value) in &request.headers {
            post = post.header(*name, value);
        }
        let mut answer = post
            .body(request.body.clone())
            .send()
            .await
            .map_err(unavailable)?;
        let mut body = Vec::new();
        while body.len() < ANSWER_BYTES
            && let Ok(Some(chunk)) = answer.chunk().await
        {
            body.extend_from_slice(&chunk);
        }
        body.truncate(ANSWER_BYTES);
        Ok(HttpAnswer {
            status: answer.status(),
            headers: answer.headers().clone(),
            body,
        })
    }
}

/// Without the URL: its path may be a secret.
fn unavailable(err: reqwest::Error) -> SendError {
    let err = err.without_url();
    SendError::unavailable(if err.is_timeout() {
        format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())
    } else {
        innermost(&err)
    })
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
