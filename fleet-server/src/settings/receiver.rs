//! Who can be told, and how each is reached. Nothing here can print a secret: tokens are [`Secret`], and a URL that is
//! one itself (Slack's, Discord's) is a [`SecretUrl`].
//!
//! It reads no files: `config` puts in what the files hold.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use protocol::names::Word;
use protocol::secret::Secret;
use url::Url;

/// Somebody or something that is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name in routes, metrics and the outbox.
    pub name: Word,
    /// How it is reached.
    pub kind: ReceiverKind,
    /// What it is told, where that is not the built-in text.
    pub templates: Templates,
}

/// Templates of the configuration; what is missing is built in. They were rendered once when the configuration was
/// read, against an incident of every kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates {
    /// One line.
    pub title: Option<String>,
    /// The body.
    pub text: Option<String>,
}

/// How a receiver is reached.
#[derive(Debug, Clone)]
pub enum ReceiverKind {
    /// `POST` of a signed [`protocol::alert::Alert`].
    Webhook(Webhook),
    /// Alertmanager's API v2.
    Alertmanager(Alertmanager),
    /// PagerDuty's Events API v2.
    PagerDuty(PagerDuty),
    /// Slack, by an incoming webhook or as a bot.
    Slack(Slack),
    /// Discord, by a channel's webhook.
    Discord(Discord),
    /// Telegram's Bot API.
    Telegram(Telegram),
    /// ntfy.
    Ntfy(Ntfy),
    /// Mail.
    Email(Box<Email>),
    /// A program of the operator's.
    Command(Exec),
}

impl ReceiverKind {
    /// Its word in the configuration.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            Self::PagerDuty(_) => "pagerduty",
            Self::Slack(_) => "slack",
            Self::Discord(_) => "discord",
            Self::Telegram(_) => "telegram",
            Self::Ntfy(_) => "ntfy",
            Self::Email(_) => "email",
            Self::Command(_) => "command",
        }
    }

    /// Where notifications go, as operators may see it: hosts, never a path or a query.
    pub fn place(&self) -> String {
        match self {
            Self::Alertmanager(Alertmanager { urls }) => urls.iter().map(host).collect::<Vec<_>>().join(", "),
            Self::PagerDuty(PagerDuty { url, .. }) | Self::Ntfy(Ntfy { url, .. }) => host(url),
            Self::Slack(Slack::Bot { url, channel, .. }) => format!("{}, channel {channel}", host(url)),
            Self::Webhook(Webhook { url, .. })
            | Self::Slack(Slack::Webhook { url })
            | Self::Discord(Discord { url }) => host(url.expose()),
            Self::Telegram(Telegram { url, chat_id, .. }) => format!("{}, chat {chat_id}", host(url)),
            Self::Email(email) => format!("{}:{} to {}", email.host, email.port, email.to.join(", ")),
            Self::Command(Exec { argv, .. }) => argv.first().cloned().unwrap_or_default(),
        }
    }

    /// Each `host:port` that notifications go to; none for a program.
    pub fn addresses(&self) -> Vec<String> {
        match self {
            Self::Alertmanager(Alertmanager { urls }) => urls.iter().map(host).collect(),
            Self::PagerDuty(PagerDuty { url, .. })
            | Self::Ntfy(Ntfy { url, .. })
            | Self::Slack(Slack::Bot { url, .. })
            | Self::Telegram(Telegram { url, .. }) => vec![host(url)],
            Self::Webhook(Webhook { url, .. })
            | Self::Slack(Slack::Webhook { url })
            | Self::Discord(Discord { url }) => vec![host(url.expose())],
            Self::Email(email) => vec![format!("{}:{}", email.host, email.port)],
            Self::Command(_) => Vec::new(),
        }
    }

    /// Every text that must not leave this process other than to the receiver itself.
    pub fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Webhook(Webhook { url, secret }) => url.parts().chain(exposed(secret.as_ref())).collect(),
            Self::Alertmanager(_) | Self::Command(_) => Vec::new(),
            Self::PagerDuty(PagerDuty { routing_key, .. }) => vec![routing_key.expose()],
            Self::Slack(Slack::Webhook { url }) | Self::Discord(Discord { url }) => url.parts().collect(),
            Self::Slack(Slack::Bot { token, .. }) | Self::Telegram(Telegram { token, .. }) => {
                vec![token.expose()]
            }
            Self::Ntfy(Ntfy { topic, token, .. }) => std::iter::once(topic.expose())
                .chain(exposed(token.as_ref()))
                .collect(),
            Self::Email(email) => exposed(email.login.as_ref().map(|(_, password)| password)).collect(),
        }
    }
}

fn exposed(secret: Option<&Secret>) -> impl Iterator<Item = &str> {
    secret.map(Secret::expose).into_iter()
}

/// `hooks.example.net:443`.
pub(crate) fn host(url: &Url) -> String {
    let port = url
        .port_or_known_default()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or("?"))
}

/// A URL whose path or query lets everybody in who knows it. `Debug` shows its host.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// Wraps `url`.
    pub const fn new(url: Url) -> Self {
        Self(url)
    }

    /// The URL itself: for the one place that sends.
    pub const fn expose(&self) -> &Url {
        &self.0
    }

    /// What of it must not be repeated: its path, each long part of it, and its query.
    fn parts(&self) -> impl Iterator<Item = &str> {
        let path = self.0.path();
        // Short words (`api`, `webhooks`, `alert`) are in anybody's answer and tell nothing.
        let long = path.split('/').filter(|part| part.len() >= SECRET_CHARS);
        let query = self
            .0
            .query()
            .into_iter()
            .filter(|query| query.len() >= SECRET_CHARS);
        std::iter::once(path)
            .filter(|path| path.len() >= SECRET_CHARS)
            .chain(long)
            .chain(query)
    }
}

/// A part of a URL that is shorter than this opens nothing.
const SECRET_CHARS: usize = 6;

impl FromStr for SecretUrl {
    type Err = url::ParseError;
    fn from_str(text: &str) -> Result<Self, url::ParseError> {
        Url::parse(text).map(Self)
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/[redacted]", self.0.scheme(), host(&self.0))
    }
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to.
    pub url: SecretUrl,
    /// What signs the body.
    pub secret: Option<Secret>,
}

/// One or several Alertmanagers: each alert goes to all of them, they deduplicate among themselves.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// Their base URLs; at least one.
    pub urls: Vec<Url>,
}

/// PagerDuty.
#[derive(Debug, Clone)]
pub struct PagerDuty {
    /// `https://events.pagerduty.com`, or the EU's.
    pub url: Url,
    /// The integration key of the service.
    pub routing_key: Secret,
}

/// Slack.
#[derive(Debug, Clone)]
pub enum Slack {
    /// An incoming webhook: it only writes, each message for itself.
    Webhook {
        /// The whole of it is the secret.
        url: SecretUrl,
    },
    /// A bot: later messages about an incident go into the first one's thread.
    Bot {
        /// `https://slack.com/api`.
        url: Url,
        /// `xoxb-…`.
        token: Secret,
        /// A channel's id or name.
        channel: String,
    },
}

/// Discord.
#[derive(Debug, Clone)]
pub struct Discord {
    /// The whole of it is the secret.
    pub url: SecretUrl,
}

/// Telegram.
#[derive(Debug, Clone)]
pub struct Telegram {
    /// `https://api.telegram.org`.
    pub url: Url,
    /// The bot's token.
    pub token: Secret,
    /// A chat's number, or `@channel`.
    pub chat_id: String,
    /// A topic of a forum.
    pub thread_id: Option<u32>,
}

/// ntfy.
#[derive(Debug, Clone)]
pub struct Ntfy {
    /// `https://ntfy.sh`, or one's own server.
    pub url: Url,
    /// As good as a password on a server without access control.
    pub topic: Secret,
    /// An access token.
    pub token: Option<Secret>,
}

/// Mail.
#[derive(Debug, Clone)]
pub struct Email {
    /// The submission server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Further certificate authorities to trust, PEM.
    pub ca: Option<Vec<u8>>,
    /// User and password.
    pub login: Option<(String, Secret)>,
    /// Who writes.
    pub from: String,
    /// Who is written to; at least one.
    pub to: Vec<String>,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailTls {
    /// Clear at first, then `STARTTLS`, or nothing is sent.
    StartTls,
    /// From the first byte on.
    Implicit,
    /// Not at all: for a server on this machine or in a tunnel, and without a password.
    None,
}

/// A program of the operator's.
#[derive(Debug, Clone)]
pub struct Exec {
    /// The program's absolute path and its arguments, as they are: no shell reads them.
    pub argv: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
}
