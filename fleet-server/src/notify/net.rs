//! The one seam to the outside: whatever a receiver needs, a request goes in and an answer comes out.

use super::http::HttpSender;
use super::receivers::Request;
use super::receivers::answer::Answer;
use super::retry::SendError;
use super::{exec, smtp};

/// Sends requests. What was answered is the answer, whatever it means; an error is that there was none.
pub trait Sender: Send + Sync + 'static {
    /// Sends `request`.
    fn send(&self, request: &Request) -> impl Future<Output = Result<Answer, SendError>> + Send;
}

/// [`Sender`] over real sockets and processes.
pub struct NetSender {
    http: HttpSender,
}

impl NetSender {
    /// With an HTTP client of its own.
    pub fn new() -> Result<Self, reqwest::Error> {
        Ok(Self {
            http: HttpSender::new()?,
        })
    }
}

impl Sender for NetSender {
    async fn send(&self, request: &Request) -> Result<Answer, SendError> {
        match request {
            Request::Http(request) => self.http.send(request).await.map(Answer::Http),
            Request::Mail(mail) => smtp::send(mail).await.map(Answer::Smtp),
            Request::Command(command) => exec::run(command).await.map(Answer::Exit),
        }
    }
}
