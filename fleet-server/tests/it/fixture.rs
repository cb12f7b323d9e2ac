//! A server in this process on a free port, and requests written byte by byte, so that broken ones can be sent too.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fleet_server::app::Server;
use fleet_server::config;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Longer than any answer takes on a busy machine.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: String,
    end: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Running {
    /// On `dir`, which may hold the data of an earlier one.
    pub(crate) async fn start(dir: &Path, more: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let text = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = {:?}\n{more}",
            dir.join("data")
        );
        let settings = config::parse(Path::new("test.toml"), text.as_bytes()).unwrap();
        let server = Server::build(settings).await.unwrap();
        let address = server.address().unwrap();
        let (end, ending) = oneshot::channel::<()>();
        let ended = tokio::spawn(async move {
            let shutdown = async {
                let _ = ending.await;
                "the test"
            };
            server.run(shutdown).await.unwrap();
        });
        let admin = std::fs::read_to_string(dir.join("data/admin.token"))
            .unwrap()
            .trim()
            .to_owned();
        Self {
            address,
            admin,
            end,
            ended,
        }
    }

    pub(crate) async fn stop(self) {
        let _ = self.end.send(());
        self.ended.await.unwrap();
    }

    /// Sends `bytes` and reads the answer until it is whole.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // The server may answer and close before it has read everything.
            let _ = stream.write_all(bytes).await;
            read_answer(&mut stream).await
        };
        tokio::time::timeout(ANSWER_LIMIT, exchange)
            .await
            .expect("an answer in time")
    }

    pub(crate) async fn send(&self, method: &str, path: &str, token: &str, body: &[u8]) -> Answer {
        self.raw(&request(
            method,
            path,
            &[("authorization", &format!("Bearer {token}"))],
            body,
        ))
        .await
    }

    /// A request of the admin's; the answer's body as JSON.
    pub(crate) async fn admin(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.send(method, path, &self.admin, body.as_bytes()).await;
        (answer.status, answer.json())
    }

    pub(crate) async fn add_box(&self, name: &str) -> String {
        let (status, answer) = self
            .admin("POST", "/v1/boxes", &format!("{{\"name\":\"{name}\"}}"))
            .await;
        assert_eq!(status, 201, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

/// A well-formed request with these headers and this body.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: fleet\r\nconnection: close\r\n");
    if !body.is_empty() {
        let _ = write!(
            text,
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
    }
    for (name, value) in headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A good beat.
pub(crate) fn beat(seq: u64) -> Value {
    serde_json::json!({
        "boot_id": "7b0c2b9e-9d0b-4a52-8f27-2f6d6a1f8f01",
        "session": "3f1d2f53-8a8e-4f0e-9a57-6f0d1a1b2c3d",
        "seq": seq,
        "every_ms": 1000,
        "sent_at": "2026-11-21T20:00:00Z",
    })
}

async fn read_answer(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(n) = stream.read(&mut buffer).await {
        bytes.extend_from_slice(&buffer[..n]);
        if n == 0 || whole(&bytes) {
            break;
        }
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    Answer {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

fn whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    length
        .and_then(|length| length.parse::<usize>().ok())
        .is_some_and(|length| body.len() >= length)
}
