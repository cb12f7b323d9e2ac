//! What the server's own tailscaled knows of a peer: over its LocalAPI, a Unix socket that any user may ask.
//!
//! Evidence rules (from the daemon's own source, 1.98):
//! - `Online` is what the control plane believes, and that notices a dead host only after minutes: online proves nothing,
//!   offline (while this node itself is online) says that nothing there speaks to the control plane any more.
//! - So the peer is asked itself: a *disco ping* is answered by the tailscaled of a host that lives, directly or over a
//!   relay, whatever the firewall of its other ports.
//! - A WireGuard handshake that is younger than the question was made by a host that lives.
//! - A node that is not running, or not online itself, can tell nothing.
//!
//! A peer is found by its DNS name (which the control plane gives, once) or its address; by the host name, which it
//! declares itself, only when no other peer has the same.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::liveness::beat::WitnessAnswer;
use crate::liveness::time::Mono;

/// How long the status may take.
const STATUS_LIMIT: Duration = Duration::from_millis(800);
/// How long a ping may take: a relay and back, twice.
const PING_LIMIT: Duration = Duration::from_millis(1200);
/// All who ask within this share one status.
const STATUS_AGE: Duration = Duration::from_secs(1);
/// A status is about 1 KiB a peer.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;

/// The server's own tailscaled.
#[derive(Debug)]
pub struct Tailscaled {
    socket: PathBuf,
    /// The newest status and when it was asked for.
    tailnet: Mutex<Option<(Mono, Arc<Tailnet>)>>,
}

impl Tailscaled {
    /// Behind this socket.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            tailnet: Mutex::default(),
        }
    }

    /// Asks about `peer`. Answers within [`STATUS_LIMIT`] and [`PING_LIMIT`], with a sentence for people.
    pub async fn ask(&self, peer: &str, now: Mono, wall: Timestamp) -> (WitnessAnswer, String) {
        let tailnet = match timeout(STATUS_LIMIT, self.tailnet(now)).await {
            Ok(Ok(tailnet)) => tailnet,
            Ok(Err(err)) => return (WitnessAnswer::Unknown, format!("this server's tailscaled: {err}")),
            Err(_) => {
                let said = "this server's tailscaled does not answer".to_owned();
                return (WitnessAnswer::Unknown, said);
            }
        };
        let found = match tailnet.find(peer) {
            Ok(found) => found,
            Err(said) => return (WitnessAnswer::Unknown, said),
        };
        let ping = match found.address() {
            Some(address) => self.ping(address).await,
            None => Ping::NotAsked("it has no address".to_owned()),
        };
        found.judge(&ping, wall)
    }

    async fn tailnet(&self, now: Mono) -> Result<Arc<Tailnet>, ApiError> {
        let mut newest = self.tailnet.lock().await;
        if let Some((asked, tailnet)) = &*newest
            && now.since(*asked) < STATUS_AGE
        {
            return Ok(Arc::clone(tailnet));
        }
        let body = self.exchange("GET", "/localapi/v0/status").await?;
        let tailnet = Arc::new(serde_json::from_slice(&body).map_err(|_| ApiError::Form)?);
        *newest = Some((now, Arc::clone(&tailnet)));
        Ok(tailnet)
    }

    async fn ping(&self, address: &str) -> Ping {
        let target = format!("/localapi/v0/ping?ip={address}&type=disco");
        let answer = match timeout(PING_LIMIT, self.exchange("POST", &target)).await {
            Ok(Ok(body)) => serde_json::from_slice::<PingResult>(&body).map_err(|_| ApiError::Form),
            Ok(Err(err)) => Err(err),
            Err(_) => return Ping::NoAnswer,
        };
        match answer {
            Ok(PingResult {
                error: Some(error), ..
            }) if !error.is_empty() => Ping::NotAsked(clean(&error)),
            Ok(PingResult { latency, .. }) => {
                Ping::Answered(Duration::try_from_secs_f64(latency.unwrap_or(0.0)).unwrap_or_default())
            }
            Err(err) => Ping::NotAsked(err.to_string()),
        }
    }

    /// HTTP/1.0, because 1.1 is answered in chunks; no Origin or Referer, because those are refused.
    async fn exchange(&self, method: &str, target: &str) -> Result<Vec<u8>, ApiError> {
        let mut stream = UnixStream::connect(&self.socket).await?;
        let request =
            format!("{method} {target} HTTP/1.0\r\nHost: local-tailscaled.sock\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.ok_or(ApiError::Form)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let status = head.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        match status {
            Some(200) => Ok(answer.split_off(end + 4)),
            Some(code) => Err(ApiError::Status(code)),
            None => Err(ApiError::Form),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum ApiError {
    #[error("there is nothing at its socket; does it run?")]
    NoSocket,
    #[error("its socket refuses connections")]
    Refused,
    #[error("its socket is closed to this server's user")]
    Denied,
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("its answer cannot be read")]
    Form,
    #[error("the connection failed: {0}")]
    Io(std::io::Error),
}

impl From<std::io::Error> for ApiError {
    fn from(err: std::io::Error) -> Self {
        match err.kind() {
            ErrorKind::NotFound => Self::NoSocket,
            ErrorKind::ConnectionRefused => Self::Refused,
            ErrorKind::PermissionDenied => Self::Denied,
            _ => Self::Io(err),
        }
    }
}

/// What of a status is read. Everything may be null or absent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Tailnet {
    backend_state: Option<String>,
    #[serde(rename = "Self")]
    own: Option<Peer>,
    peer: Option<HashMap<String, Option<Peer>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Peer {
    host_name: Option<String>,
    #[serde(rename = "DNSName")]
    dns_name: Option<String>,
    #[serde(rename = "TailscaleIPs")]
    addresses: Option<Vec<String>>,
    online: Option<bool>,
    last_handshake: Option<Timestamp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PingResult {
    #[serde(rename = "Err")]
    error: Option<String>,
    #[serde(rename = "LatencySeconds")]
    latency: Option<f64>,
}

/// How the ping went.
#[derive(Debug, Clone, PartialEq)]
enum Ping {
    Answered(Duration),
    NoAnswer,
    NotAsked(String),
}

impl Tailnet {
    fn find(&self, name: &str) -> Result<&Peer, String> {
        let state = self.backend_state.as_deref().unwrap_or("NoState");
        if state != "Running" {
            return Err(format!(
                "this server's own tailscaled is in the state {}",
                clean(state)
            ));
        }
        if self.own.as_ref().is_some_and(|own| own.online == Some(false)) {
            return Err("this server's own tailscaled is not connected".to_owned());
        }
        let peers: Vec<&Peer> = self
            .peer
            .iter()
            .flatten()
            .filter_map(|(_, peer)| peer.as_ref())
            .collect();
        if let Some(peer) = peers.iter().find(|peer| peer.is_named(name)) {
            return Ok(peer);
        }
        let mut hosts = peers.iter().filter(|peer| {
            let host = peer.host_name.as_deref();
            host.is_some_and(|host| host.eq_ignore_ascii_case(name))
        });
        match (hosts.next(), hosts.next()) {
            (Some(peer), None) => Ok(peer),
            (Some(_), Some(_)) => Err("several peers call themselves so; declare its DNS name".to_owned()),
            (None, _) => Err("the tailnet has no such peer".to_owned()),
        }
    }
}

impl Peer {
    /// By what the control plane gave it: its DNS name, whole or the first part, or an address.
    fn is_named(&self, name: &str) -> bool {
        let wanted = name.trim_end_matches('.');
        let dns = self.dns_name.as_deref().unwrap_or_default().trim_end_matches('.');
        let first = dns.split('.').next().unwrap_or_default();
        let named =
            !wanted.is_empty() && (dns.eq_ignore_ascii_case(wanted) || first.eq_ignore_ascii_case(wanted));
        named || self.addresses.iter().flatten().any(|address| address == wanted)
    }

    /// Only digits, dots and colons: it becomes a part of a request.
    fn address(&self) -> Option<&str> {
        let mut addresses = self.addresses.iter().flatten();
        let address = addresses.find(|address| address.parse::<std::net::IpAddr>().is_ok())?;
        Some(address)
    }

    fn judge(&self, ping: &Ping, now: Timestamp) -> (WitnessAnswer, String) {
        match ping {
            Ping::Answered(took) => {
                let said = format!("its tailscaled answered a ping in {} ms", took.as_millis());
                (WitnessAnswer::Reachable, said)
            }
            Ping::NoAnswer => {
                let said = format!("its tailscaled answers no ping, {}", self.standing(now));
                (WitnessAnswer::Unreachable, said)
            }
            Ping::NotAsked(why) => {
                let answer = if self.online == Some(false) {
                    WitnessAnswer::Unreachable
                } else {
                    WitnessAnswer::Unknown
                };
                (
                    answer,
                    format!("{}; it could not be pinged ({why})", self.standing(now)),
                )
            }
        }
    }

    fn standing(&self, now: Timestamp) -> String {
        let seen = match self.online {
            Some(true) => "the control plane still counts it as online",
            Some(false) => "the control plane counts it as offline",
            None => "the control plane says nothing of it",
        };
        // Go writes "no time" as the year 1.
        match self.last_handshake.filter(|at| at.as_second() > 0) {
            Some(at) => format!(
                "{seen}, last handshake {} s ago",
                now.duration_since(at).as_secs().max(0)
            ),
            None => format!("{seen}, no handshake yet"),
        }
    }
}

/// A text of the daemon's, for a sentence of ours.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{"BackendState":"Running","Self":{"Online":true,"HostName":"srv"},"Peer":{
        "k1":{"HostName":"box1","DNSName":"box1.t.ts.net.","TailscaleIPs":["100.64.0.7","fd7a::7"],"Online":true,
              "LastHandshake":"0001-01-01T00:00:00Z"},
        "k2":{"HostName":"same","DNSName":"same.t.ts.net.","TailscaleIPs":["100.64.0.8"],"Online":false,
              "LastHandshake":"2026-11-22T10:00:00Z"},
        "k3":{"HostName":"Same","DNSName":"same-1.t.ts.net.","TailscaleIPs":null},
        "k4":{"HostName":"lone","DNSName":null},"k5":null}}"#;

    fn tailnet() -> Tailnet {
        serde_json::from_str(STATUS).unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-22T10:00:40Z".parse().unwrap()
    }

    #[test]
    fn a_peer_is_found_by_what_the_control_plane_gave_it() {
        let tailnet = tailnet();
        for name in [
            "box1",
            "BOX1",
            "box1.t.ts.net",
            "box1.t.ts.net.",
            "100.64.0.7",
            "fd7a::7",
        ] {
            assert_eq!(
                tailnet.find(name).unwrap().address(),
                Some("100.64.0.7"),
                "{name}"
            );
        }
        assert_eq!(tailnet.find("same").unwrap().address(), Some("100.64.0.8"));
        assert_eq!(tailnet.find("lone").unwrap().address(), None);
        assert!(tailnet.find("nobody").unwrap_err().contains("no such peer"));
    }

    #[test]
    fn two_that_call_themselves_the_same_are_nobody() {
        let text = r#"{"BackendState":"Running","Peer":{"a":{"HostName":"x"},"b":{"HostName":"x"}}}"#;
        let tailnet: Tailnet = serde_json::from_str(text).unwrap();
        assert!(tailnet.find("x").unwrap_err().contains("several"));
    }

    #[test]
    fn a_node_that_is_off_itself_can_tell_nothing() {
        for text in [
            "{}",
            r#"{"BackendState":"NeedsLogin","Peer":{}}"#,
            r#"{"BackendState":"Running","Self":{"Online":false},"Peer":{"a":{"HostName":"x"}}}"#,
        ] {
            let tailnet: Tailnet = serde_json::from_str(text).unwrap();
            assert!(
                tailnet.find("x").unwrap_err().contains("this server's own"),
                "{text}"
            );
        }
    }

    #[test]
    fn the_ping_decides_and_the_state_explains() {
        let tailnet = tailnet();
        let (box1, same) = (tailnet.find("box1").unwrap(), tailnet.find("same").unwrap());
        let answered = box1.judge(&Ping::Answered(Duration::from_millis(12)), now());
        assert_eq!(
            answered,
            (
                WitnessAnswer::Reachable,
                "its tailscaled answered a ping in 12 ms".into()
            )
        );
        let mute = box1.judge(&Ping::NoAnswer, now());
        assert_eq!(
            mute.0,
            WitnessAnswer::Unreachable,
            "online is only what the control plane believes"
        );
        let offline = same.judge(&Ping::NotAsked("no route".into()), now());
        assert_eq!(offline.0, WitnessAnswer::Unreachable);
        assert!(offline.1.contains("last handshake 40 s ago"), "{}", offline.1);
        let unasked = box1.judge(&Ping::NotAsked("no route".into()), now());
        assert_eq!(unasked.0, WitnessAnswer::Unknown);
    }

    #[tokio::test]
    async fn no_daemon_says_nothing_about_the_box() {
        let own = Tailscaled::new("/nonexistent/tailscaled.sock".into());
        let (answer, said) = own.ask("box1", Mono::START, now()).await;
        assert_eq!(answer, WitnessAnswer::Unknown);
        assert!(said.contains("does it run"), "{said}");
    }
}
