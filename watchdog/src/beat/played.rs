//! For tests: a server in the same process that takes beats, or does whatever else a server or a network can do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use protocol::heartbeat::{GoodbyeWhy, Heartbeat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant as Tick;

/// What the server does with a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Takes,
    TakesLate(Duration),
    RefusesReports,
    RefusesAccounts,
    Says(&'static str),
    Hangs,
    HalfAnswers,
    Garbles,
    Floods,
    Closes,
    Resets,
}

#[derive(Default)]
pub(super) struct Log {
    pub(super) taken: Vec<(Tick, Heartbeat)>,
    pub(super) received: usize,
    pub(super) open: usize,
    pub(super) most_open: usize,
    pub(super) goodbyes: Vec<GoodbyeWhy>,
}

#[derive(Clone)]
pub(super) struct Server {
    pub(super) url: String,
    pub(super) does: Arc<Mutex<Does>>,
    /// Answers to give first, whatever it does otherwise.
    pub(super) first: Arc<Mutex<VecDeque<String>>>,
    pub(super) token: Arc<Mutex<String>>,
    pub(super) seen: Arc<Mutex<Log>>,
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            does: Arc::new(Mutex::new(Does::Takes)),
            first: Arc::default(),
            token: Arc::new(Mutex::new("t0ken".to_owned())),
            seen: Arc::default(),
        };
        let accepting = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = accepting.clone();
                tokio::spawn(async move {
                    server.count(1);
                    server.talk(stream).await;
                    server.count(-1);
                });
            }
        });
        server
    }

    fn count(&self, change: isize) {
        let mut seen = self.seen.lock().unwrap();
        seen.open = seen.open.checked_add_signed(change).unwrap();
        seen.most_open = seen.most_open.max(seen.open);
    }

    pub(super) fn does(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(super) fn taken(&self) -> Vec<(Tick, Heartbeat)> {
        self.seen.lock().unwrap().taken.clone()
    }

    async fn talk(&self, mut stream: TcpStream) {
        let mut pending = Vec::new();
        while let Some((head, body)) = request(&mut stream, &mut pending).await {
            self.seen.lock().unwrap().received += 1;
            let wanted = format!("authorization: Bearer {}\r", self.token.lock().unwrap());
            if !head.contains(&wanted) {
                if stream
                    .write_all(answer("401 Unauthorized", "{}").as_bytes())
                    .await
                    .is_err()
                {
                    return;
                }
                continue;
            }
            let first = self.first.lock().unwrap().pop_front();
            let does = *self.does.lock().unwrap();
            let taken = answer("200 OK", r#"{"every_ms":1000,"want_report":false}"#);
            let reply = match does {
                _ if first.is_some() => first.unwrap_or_default(),
                Does::RefusesReports if Heartbeat::decode(&body).unwrap().report.is_some() => {
                    answer("400 Bad Request", "{}")
                }
                Does::RefusesAccounts if Heartbeat::decode(&body).unwrap().account.is_some() => {
                    answer("400 Bad Request", "{}")
                }
                Does::Takes | Does::RefusesReports | Does::RefusesAccounts => taken,
                Does::TakesLate(late) => {
                    self.take(&body);
                    let mut more = [0; 1];
                    tokio::select! {
                        () = tokio::time::sleep(late) => {}
                        _ = stream.read(&mut more) => return,
                    }
                    let _ = stream.write_all(taken.as_bytes()).await;
                    continue;
                }
                Does::Says(text) => text.to_owned(),
                Does::Hangs => {
                    // Until the other side gives up.
                    let _ = stream.read(&mut [0; 1]).await;
                    return;
                }
                Does::HalfAnswers => {
                    let _ = stream.write_all(&taken.as_bytes()[..taken.len() - 5]).await;
                    let _ = stream.read(&mut [0; 1]).await;
                    return;
                }
                Does::Garbles => "\0\0\u{1}nonsense\r\n\r\n".repeat(50),
                Does::Floods => answer("200 OK", &"x".repeat(1_000_000)),
                Does::Closes => return,
                Does::Resets => {
                    stream.set_zero_linger().unwrap();
                    return;
                }
            };
            if reply.starts_with("HTTP/1.1 200") {
                self.take(&body);
            }
            if stream.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    fn take(&self, body: &[u8]) {
        let beat = Heartbeat::decode(body).unwrap();
        let mut seen = self.seen.lock().unwrap();
        seen.goodbyes
            .extend(beat.goodbye.as_ref().map(|goodbye| goodbye.why));
        seen.taken.push((tick(), beat));
    }
}

#[expect(clippy::disallowed_methods, reason = "virtual time")]
pub(super) fn tick() -> Tick {
    Tick::now()
}

pub(super) fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn request(stream: &mut TcpStream, pending: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    loop {
        if let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&pending[..end + 2]).into_owned();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let total = end + 4 + length.unwrap().parse::<usize>().unwrap();
            if pending.len() >= total {
                let body = pending[end + 4..total].to_vec();
                pending.drain(..total);
                return Some((head, body));
            }
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => pending.extend_from_slice(&buffer[..n]),
        }
    }
}
