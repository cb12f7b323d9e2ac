//! The LocalAPI of tailscaled, by hand: `GET` over its Unix socket, bounded in size and time.
//!
//! It asks two things: the node's status, and the structured health warnings. It judges nothing (`checks::tailscale`
//! does), and everything in an answer may be absent, null or of another type: what is not as expected is left out.
//!
//! HTTP/1.0, because tailscaled answers 1.1 in chunks; chunks are understood all the same. No Origin or Referer header:
//! tailscaled refuses those.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// A status without peers is about 3 KiB; an old daemon that ignores `peers=false` sends about 1 KiB a peer.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// One line of a header.
const LINE_BYTES: u64 = 8 * 1024;
/// Lines of a header.
const HEADER_LINES: usize = 64;
/// A text of the daemon's is cut here: it goes into reports.
const TEXT_CHARS: usize = 200;
/// Health warnings that are kept.
const WARNINGS: usize = 32;

const STATUS: &str = "/localapi/v0/status?peers=false";
/// 2: the initial state, so that there is a first line at once; 128: the initial health.
const HEALTH: &str = "/localapi/v0/watch-ipn-bus?mask=130";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Nothing at the socket's path.
    #[error("there is no socket")]
    NoSocket,
    /// A socket, and nobody behind it.
    #[error("the socket refuses connections")]
    Refused,
    /// The socket is closed to this user.
    #[error("permission denied")]
    Denied,
    /// Somebody behind it who does not answer.
    #[error("no answer within {}", crate::checks::span_text(*.0))]
    Hung(Duration),
    /// The connection ended in the middle.
    #[error("the connection ended before the answer")]
    Cut,
    /// An HTTP error.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// Over the limit.
    #[error("the answer is over {ANSWER_BYTES} bytes")]
    TooLarge,
    /// No HTTP, or no JSON object.
    #[error("the answer cannot be read: {0}")]
    Form(&'static str),
    /// Anything else.
    #[error("the connection failed")]
    Io(#[source] io::Error),
}

impl From<io::Error> for ApiError {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            ErrorKind::NotFound => Self::NoSocket,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::PermissionDenied => Self::Denied,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Cut,
            _ => Self::Io(e),
        }
    }
}

/// What tailscaled says of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeStatus {
    /// The daemon's version.
    pub version: Option<String>,
    /// `Running`, `NeedsLogin`, …
    pub state: Option<String>,
    /// Whether it has a node key.
    pub have_node_key: Option<bool>,
    /// Whether the control plane hears it.
    pub online: Option<bool>,
    /// When the node's key expires; absent: never (or no node).
    pub key_expiry: Option<Timestamp>,
    /// Whether the control plane says that it has expired.
    pub expired: Option<bool>,
    /// The nearest relay's name; kept by the daemon even when the relay is dead.
    pub relay: Option<String>,
    /// The node's name in its tailnet.
    pub dns_name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Health as texts: what daemons before 1.72 have only.
    pub health: Vec<String>,
}

/// One structured health warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthWarning {
    /// Its code: `network-status`, `no-derp-connection`, …
    pub code: String,
    /// A sentence for people, without secrets.
    pub text: String,
    /// Whether it says of itself that it impairs connections.
    pub impacts_connectivity: bool,
}

/// Asks for the node's status.
pub async fn status(socket: &Path, limit: Duration) -> Result<NodeStatus, ApiError> {
    within(limit, async {
        let mut answer = Answer::to(socket, STATUS).await?;
        while answer.more().await? {}
        match serde_json::from_slice(&answer.body) {
            Ok(Value::Object(map)) => Ok(node_status(&Value::Object(map))),
            Ok(_) => Err(ApiError::Form("it is no JSON object")),
            Err(_) => Err(ApiError::Form("it is no JSON")),
        }
    })
    .await
}

/// Asks for the health warnings. A daemon before 1.72 has none to give: it stays silent until `limit`, or ends.
pub async fn health(socket: &Path, limit: Duration) -> Result<Vec<HealthWarning>, ApiError> {
    within(limit, async {
        let mut answer = Answer::to(socket, HEALTH).await?;
        let mut from = 0;
        loop {
            let more = answer.more().await?;
            while let Some(length) = answer.body[from..].iter().position(|&b| b == b'\n') {
                if let Some(warnings) = health_of(&answer.body[from..from + length]) {
                    return Ok(warnings);
                }
                from += length + 1;
            }
            if !more {
                return health_of(&answer.body[from..]).ok_or(ApiError::Cut);
            }
        }
    })
    .await
}

async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(ApiError::Hung(limit)))
}

/// An answer as it comes in.
struct Answer {
    stream: BufReader<UnixStream>,
    framing: Framing,
    body: Vec<u8>,
}

/// How the body's end is told.
enum Framing {
    /// By the connection's end.
    ToEnd,
    /// So many bytes are to come.
    Length(usize),
    /// Chunks.
    Chunked,
    /// It is over.
    Over,
}

impl Answer {
    /// Asks for `target` and reads the header.
    async fn to(socket: &Path, target: &str) -> Result<Self, ApiError> {
        let stream = match UnixStream::connect(socket).await {
            // The queue of connections is full: nobody accepts any.
            Err(e) if e.kind() == ErrorKind::WouldBlock => std::future::pending().await,
            other => other?,
        };
        let mut stream = BufReader::new(stream);
        let request = format!("GET {target} HTTP/1.0\r\nHost: local-tailscaled.sock\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let framing = header(&mut stream).await?;
        Ok(Self {
            stream,
            framing,
            body: Vec::new(),
        })
    }

    /// Reads on; false when the body is complete.
    async fn more(&mut self) -> Result<bool, ApiError> {
        let left = match self.framing {
            Framing::Over | Framing::Length(0) => return Ok(false),
            Framing::ToEnd => usize::MAX,
            Framing::Length(left) => left,
            Framing::Chunked => return self.chunk().await,
        };
        let ready = self.stream.fill_buf().await?;
        let taken = ready.len().min(left);
        if taken == 0 {
            let cut = matches!(self.framing, Framing::Length(1..));
            self.framing = Framing::Over;
            return if cut { Err(ApiError::Cut) } else { Ok(false) };
        }
        keep(&mut self.body, &ready[..taken])?;
        self.stream.consume(taken);
        if let Framing::Length(left) = &mut self.framing {
            *left -= taken;
        }
        Ok(true)
    }

    async fn chunk(&mut self) -> Result<bool, ApiError> {
        let size = line(&mut self.stream).await?;
        let digits = size.split(';').next().unwrap_or("").trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| ApiError::Form("a chunk has no length"))?;
        if size == 0 {
            self.framing = Framing::Over;
            return Ok(false);
        }
        if self.body.len().saturating_add(size) > ANSWER_BYTES {
            return Err(ApiError::TooLarge);
        }
        let start = self.body.len();
        self.body.resize(start + size, 0);
        self.stream.read_exact(&mut self.body[start..]).await?;
        line(&mut self.stream).await?;
        Ok(true)
    }
}

fn keep(body: &mut Vec<u8>, bytes: &[u8]) -> Result<(), ApiError> {
    if body.len() + bytes.len() > ANSWER_BYTES {
        return Err(ApiError::TooLarge);
    }
    body.extend_from_slice(bytes);
    Ok(())
}

/// Reads status line and header; gives the framing of the body.
async fn header(stream: &mut BufReader<UnixStream>) -> Result<Framing, ApiError> {
    let first = line(stream).await?;
    let mut words = first.split(' ');
    let code = match (words.next(), words.next()) {
        (Some(version), Some(code)) if version.starts_with("HTTP/1.") => code.parse::<u16>().ok(),
        _ => None,
    };
    let code = code.ok_or(ApiError::Form("it is no HTTP"))?;
    if code != 200 {
        return Err(ApiError::Status(code));
    }
    let mut framing = Framing::ToEnd;
    for _ in 0..HEADER_LINES {
        let line = line(stream).await?;
        let Some((name, value)) = line.split_once(':') else {
            return if line.is_empty() {
                Ok(framing)
            } else {
                Err(ApiError::Form("a header line has no colon"))
            };
        };
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && !matches!(framing, Framing::Chunked) {
            framing = Framing::Length(
                value
                    .parse()
                    .map_err(|_| ApiError::Form("its length is no number"))?,
            );
        }
    }
    Err(ApiError::Form("its header has no end"))
}

async fn line(stream: &mut BufReader<UnixStream>) -> Result<String, ApiError> {
    let mut bytes = Vec::new();
    stream.take(LINE_BYTES).read_until(b'\n', &mut bytes).await?;
    match bytes.strip_suffix(b"\n") {
        Some(line) => Ok(String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()),
        None if bytes.len() as u64 == LINE_BYTES => Err(ApiError::Form("a header line has no end")),
        None => Err(ApiError::Cut),
    }
}

/// What is understood of a status, whatever its shape.
fn node_status(all: &Value) -> NodeStatus {
    let node = &all["Self"];
    let texts = |v: &Value| {
        v.as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .take(WARNINGS)
            .collect()
    };
    NodeStatus {
        version: text(&all["Version"]),
        state: text(&all["BackendState"]),
        have_node_key: all["HaveNodeKey"].as_bool(),
        online: node["Online"].as_bool(),
        key_expiry: node["KeyExpiry"]
            .as_str()
            .and_then(|t| t.parse().ok())
            .filter(is_date),
        expired: node["Expired"].as_bool(),
        relay: text(&node["Relay"]),
        dns_name: text(&node["DNSName"]).map(|name| name.trim_end_matches('.').to_owned()),
        addresses: texts(&all["TailscaleIPs"]),
        health: texts(&all["Health"]),
    }
}

/// Go writes "no time" as the year 1.
fn is_date(at: &Timestamp) -> bool {
    at.as_second() > 0
}

fn text(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|t| !t.is_empty())?;
    let clean = crate::redact::redact(text);
    Some(
        clean
            .chars()
            .filter(|c| !c.is_control())
            .take(TEXT_CHARS)
            .collect(),
    )
}

/// The warnings, when `line` of the bus is one that tells of health (also when it tells that there are none).
fn health_of(line: &[u8]) -> Option<Vec<HealthWarning>> {
    let notice: Value = serde_json::from_slice(line).ok()?;
    let health = notice.get("Health")?.as_object()?;
    let warnings = health
        .get("Warnings")
        .and_then(Value::as_object)
        .into_iter()
        .flatten();
    let warning = |(code, w): (&String, &Value)| HealthWarning {
        code: code.chars().filter(|c| !c.is_control()).take(64).collect(),
        // It becomes a clause of a longer sentence.
        text: text(&w["Text"]).or_else(|| text(&w["Title"])).map_or_else(
            || code.chars().take(64).collect(),
            |t| t.trim_end_matches('.').to_owned(),
        ),
        impacts_connectivity: w["ImpactsConnectivity"].as_bool().unwrap_or(false),
    };
    Some(warnings.map(warning).take(WARNINGS).collect())
}

#[cfg(test)]
#[path = "tailscale_tests.rs"]
mod tests;
