//! The receivers, a file each: a pure mapping from an alert to requests, and from an answer to what it means.
//!
//! Sending is [`net`](super::net)'s side, order and repetition are [`worker`](super::worker)'s.

pub mod alertmanager;
pub mod answer;
pub mod command;
pub mod discord;
pub mod email;
pub mod fit;
pub mod ntfy;
pub mod pagerduty;
pub mod slack;
pub mod telegram;
pub mod webhook;

use jiff::Timestamp;
use protocol::alert::Alert;

use self::answer::{Answer, Taken};
use super::retry::SendError;
use super::template::Rendered;
use crate::settings::{MailTls, ReceiverKind};

/// What a mapping works from.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// The notification.
    pub alert: &'a Alert,
    /// It in words.
    pub rendered: &'a Rendered,
    /// What the receiver called the first message about this incident, where it has threads ([`Taken::thread`]).
    pub thread: Option<&'a str>,
}

/// The requests for one notification. More than one only to a cluster whose members tell each other: one that takes it
/// is enough.
pub fn requests(kind: &ReceiverKind, message: &Message<'_>, now: Timestamp) -> Vec<Request> {
    match kind {
        ReceiverKind::Webhook(webhook) => vec![webhook::request(webhook, message, now)],
        ReceiverKind::Alertmanager(cluster) => alertmanager::requests(cluster, message, now),
        ReceiverKind::PagerDuty(pagerduty) => vec![pagerduty::request(pagerduty, message)],
        ReceiverKind::Slack(slack) => vec![slack::request(slack, message)],
        ReceiverKind::Discord(discord) => vec![discord::request(discord, message)],
        ReceiverKind::Telegram(telegram) => vec![telegram::request(telegram, message)],
        ReceiverKind::Ntfy(ntfy) => vec![ntfy::request(ntfy, message)],
        ReceiverKind::Email(email) => vec![email::request(email, message, now)],
        ReceiverKind::Command(exec) => vec![command::request(exec, message)],
    }
}

/// What an answer means. The text of an error names what to mend; where it came from is put in front of it later.
pub fn judge(kind: &ReceiverKind, answer: &Answer, now: Timestamp) -> Result<Taken, SendError> {
    match (kind, answer) {
        (ReceiverKind::Webhook(_), Answer::Http(answer)) => webhook::judge(answer, now),
        (ReceiverKind::Alertmanager(_), Answer::Http(answer)) => alertmanager::judge(answer, now),
        (ReceiverKind::PagerDuty(_), Answer::Http(answer)) => pagerduty::judge(answer, now),
        (ReceiverKind::Slack(slack), Answer::Http(answer)) => slack::judge(slack, answer, now),
        (ReceiverKind::Discord(_), Answer::Http(answer)) => discord::judge(answer, now),
        (ReceiverKind::Telegram(_), Answer::Http(answer)) => telegram::judge(answer, now),
        (ReceiverKind::Ntfy(_), Answer::Http(answer)) => ntfy::judge(answer, now),
        (_, Answer::Smtp(answer)) => email::judge(answer),
        (_, Answer::Exit(answer)) => command::judge(answer),
        (ReceiverKind::Email(_) | ReceiverKind::Command(_), Answer::Http(answer)) => {
            answer.usual(now, &answer.said(), None, "")
        }
    }
}

/// Whether something stays open there until it is told of the end: a test then says both.
pub const fn keeps_state(kind: &ReceiverKind) -> bool {
    match kind {
        ReceiverKind::Webhook(_)
        | ReceiverKind::Alertmanager(_)
        | ReceiverKind::PagerDuty(_)
        | ReceiverKind::Command(_) => true,
        ReceiverKind::Slack(_)
        | ReceiverKind::Discord(_)
        | ReceiverKind::Telegram(_)
        | ReceiverKind::Ntfy(_)
        | ReceiverKind::Email(_) => false,
    }
}

/// Something to send, ready to go.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `POST`.
    Http(HttpRequest),
    /// A mail.
    Mail(Box<MailRequest>),
    /// A program to run.
    Command(CommandRequest),
}

impl Request {
    /// Where it goes, for the text of an error: never a path or a query.
    pub fn place(&self) -> String {
        match self {
            Self::Http(request) => crate::settings::host(&request.url),
            Self::Mail(mail) => format!("{}:{}", mail.host, mail.port),
            Self::Command(command) => command.argv.first().cloned().unwrap_or_default(),
        }
    }
}

/// One HTTP request. `Debug` never shows path or headers: they may carry a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Where to.
    pub url: url::Url,
    /// Headers beside `content-type: application/json`.
    pub headers: Vec<(&'static str, String)>,
    /// The JSON body.
    pub body: Vec<u8>,
}

impl std::fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpRequest")
            .field("host", &self.url.host_str())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// One mail and how it goes out.
#[derive(Clone, PartialEq)]
pub struct MailRequest {
    /// The submission server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Further certificate authorities, PEM.
    pub ca: Option<Vec<u8>>,
    /// User and password.
    pub login: Option<(String, protocol::secret::Secret)>,
    /// Sender and recipients.
    pub envelope: lettre::address::Envelope,
    /// Header and body, as they go over the wire.
    pub letter: Vec<u8>,
}

impl std::fmt::Debug for MailRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MailRequest")
            .field("host", &self.host)
            .field("letter_bytes", &self.letter.len())
            .finish_non_exhaustive()
    }
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRequest {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: Vec<u8>,
    /// How long it may take.
    pub timeout: std::time::Duration,
}

/// `body` as a `POST` to `url`.
fn post(url: url::Url, headers: Vec<(&'static str, String)>, body: &serde_json::Value) -> Request {
    Request::Http(HttpRequest {
        url,
        headers,
        body: serde_json::to_vec(body).expect("JSON values have only string keys"),
    })
}

/// `url` with `path` behind whatever prefix it has.
fn below(url: &url::Url, path: &str) -> url::Url {
    let mut url = url.clone();
    let path = format!("{}/{path}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// The incident's page, if its link can be clicked.
fn link(alert: &Alert) -> Option<&str> {
    let link = alert.incident.details.get("link")?.as_str()?;
    (link.starts_with("https://") || link.starts_with("http://")).then_some(link)
}

#[cfg(test)]
pub(crate) mod tests;
