//! One request to the server, bounded in time and size, and what went wrong in words.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use fleet_config::address::is_private;
use protocol::limits;
use protocol::problem::Problem;
use protocol::secret::Secret;
use reqwest::{Certificate, Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::flags::ServerFlags;

/// The server, with the token to ask it.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Secret,
}

/// What went wrong; the exit status follows from it.
pub(crate) enum Failed {
    /// A file or a flag.
    Usage(String),
    /// The server could not be reached, or is in trouble.
    Unreachable(String),
    /// The token is not good (enough).
    Unauthorized(String),
    /// The server said no.
    Refused(String),
}

impl Failed {
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::Unauthorized(_) => 4,
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Unreachable(text) | Self::Unauthorized(text) | Self::Refused(text)) =
            self;
        f.write_str(text)
    }
}

impl Client {
    pub(crate) fn new(flags: &ServerFlags) -> Result<Self, Failed> {
        let base = flags.server.clone();
        let clear = base.scheme() == "http" && !is_private(&base);
        if clear || !matches!(base.scheme(), "http" | "https") || base.host().is_none() {
            let why = if clear {
                "would send your token in the clear; use https://"
            } else {
                "is no server; use https://…"
            };
            return Err(Failed::Usage(format!("--server {base} {why}")));
        }
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("fleetctl/", env!("CARGO_PKG_VERSION")))
            .timeout(flags.timeout)
            .connect_timeout(flags.timeout)
            .redirect(reqwest::redirect::Policy::none());
        if let Some(file) = &flags.ca_file {
            http = http.tls_certs_merge(authorities(file)?);
        }
        let http = http
            .build()
            .map_err(|err| Failed::Usage(format!("cannot set up HTTPS: {err}")))?;
        Ok(Self {
            http,
            base,
            token: token(&flags.token_file)?,
        })
    }

    /// A request without a body.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Failed> {
        let body = self.send(Method::GET, path, query, None::<&()>).await?;
        decode(&body)
    }

    /// A request with a body, and an answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<T, Failed> {
        let body = self.send(Method::POST, path, &[], Some(body)).await?;
        decode(&body)
    }

    /// A request that is only answered by being done.
    pub(crate) async fn tell(&self, method: Method, path: &[&str]) -> Result<(), Failed> {
        self.send(method, path, &[], None::<&()>).await.map(drop)
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Vec<u8>, Failed> {
        let mut request = self
            .http
            .request(method, self.url(path, query))
            .bearer_auth(self.token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(|err| self.unreachable(&err))?;
        let status = answer.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|err| self.unreachable(&err))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > limits::ANSWER_BODY_BYTES {
                return Err(Failed::Unreachable(format!("{} answers without end", self.base)));
            }
        }
        if status.is_success() {
            Ok(bytes)
        } else {
            Err(refused(status, &bytes))
        }
    }

    fn url(&self, path: &[&str], query: &[(&str, String)]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    fn unreachable(&self, err: &reqwest::Error) -> Failed {
        let mut text = format!("cannot reach {}", self.base);
        let mut cause = err.source();
        while let Some(inner) = cause {
            // Each of them repeats its source; the last one says it.
            if inner.source().is_none() {
                text.push_str(": ");
                text.push_str(&inner.to_string());
            }
            cause = inner.source();
        }
        if err.is_timeout() {
            text.push_str(": no answer in time (--timeout)");
        }
        Failed::Unreachable(text)
    }
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failed> {
    let body = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(body).map_err(|err| {
        Failed::Unreachable(format!(
            "the server's answer cannot be read ({err}); is it a fleet-server of this version?"
        ))
    })
}

fn refused(status: StatusCode, body: &[u8]) -> Failed {
    let text = match serde_json::from_slice::<Problem>(body) {
        Ok(Problem {
            title, detail, field, ..
        }) => {
            let detail = detail.unwrap_or(title);
            field.map_or_else(|| detail.clone(), |field| format!("{field}: {detail}"))
        }
        Err(_) => format!("the server answers {status}; is it a fleet-server?"),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failed::Unauthorized(text),
        _ if status.is_server_error() => Failed::Unreachable(text),
        _ => Failed::Refused(text),
    }
}

fn token(file: &PathBuf) -> Result<Secret, Failed> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|err| {
        Failed::Usage(format!(
            "cannot read the token file {shown}: {err}; name one with --token-file or FLEET_TOKEN_FILE"
        ))
    })?;
    let token = Secret::new(&text);
    let good = !token.is_empty()
        && token.expose().len() <= limits::TOKEN_BYTES
        && !token.expose().contains(char::is_whitespace);
    if good {
        Ok(token)
    } else {
        Err(Failed::Usage(format!(
            "the token file {shown} holds no token, or more than one"
        )))
    }
}

fn authorities(file: &PathBuf) -> Result<Vec<Certificate>, Failed> {
    let wrong = |why: String| Failed::Usage(format!("--ca-file {}: {why}; give a PEM file", file.display()));
    let pem = std::fs::read(file).map_err(|err| wrong(err.to_string()))?;
    let found = Certificate::from_pem_bundle(&pem).map_err(|err| wrong(err.to_string()))?;
    if found.is_empty() {
        Err(wrong("there is no certificate in it".to_owned()))
    } else {
        Ok(found)
    }
}
