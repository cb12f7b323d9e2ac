//! One box's connection: HTTP/1.1 over TCP, kept open between beats.
//!
//! No TLS: the played fleet talks to a server on its own machine.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use protocol::heartbeat::HeartbeatAnswer;
use protocol::secret::Secret;
use tokio::net::{TcpSocket, TcpStream};

/// An answer to a beat is a few dozen bytes.
const ANSWER_BYTES: usize = 16 * 1024;
/// However long a server asks to hold off, the box looks again after this.
const HOLD_OFF_MAX: Duration = Duration::from_secs(60);

/// Why a beat was not answered with 200.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No connection.
    #[error("connect")]
    Connect,
    /// No answer in time.
    #[error("timed_out")]
    TimedOut,
    /// The connection ended before the answer.
    #[error("closed")]
    Closed,
    /// Another status.
    #[error("{status}")]
    Status {
        /// The status.
        status: u16,
        /// `Retry-After`, bounded.
        hold_off: Option<Duration>,
    },
    /// 200, but not an answer to a beat.
    #[error("bad_answer")]
    BadAnswer,
}

/// Where the beats go.
#[derive(Debug, Clone)]
pub struct Way {
    /// The server.
    pub address: SocketAddr,
    /// For the Host header.
    pub authority: String,
    /// Addresses of this machine that the boxes share among them; none: the system chooses. From one address some 28,000
    /// connections can go to one server, and finding a free port takes ever longer before.
    pub from: Vec<IpAddr>,
}

/// A connection, or none yet.
#[derive(Debug)]
pub struct Line {
    way: Way,
    authorization: String,
    from: Option<IpAddr>,
    open: Option<SendRequest<Full<Bytes>>>,
    /// Connections opened so far.
    pub connects: u64,
}

impl Line {
    /// The `n`-th box's. Opens nothing yet.
    pub fn new(way: Way, token: &Secret, n: usize) -> Self {
        let from = way.from.get(n % way.from.len().max(1)).copied();
        let authorization = format!("Bearer {}", token.expose());
        Self {
            way,
            authorization,
            from,
            open: None,
            connects: 0,
        }
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Sends a beat and waits for its answer. After any trouble but a status the connection is closed.
    pub async fn send(&mut self, body: Vec<u8>, limit: Duration) -> Result<HeartbeatAnswer, Trouble> {
        let result = tokio::time::timeout(limit, self.exchange(body)).await;
        let result = result.unwrap_or(Err(Trouble::TimedOut));
        if !matches!(result, Ok(_) | Err(Trouble::Status { .. })) {
            self.close();
        }
        result
    }

    async fn exchange(&mut self, body: Vec<u8>) -> Result<HeartbeatAnswer, Trouble> {
        // A server that went away closed the connection while it was idle: that is not yet a failed beat.
        if self.open.as_ref().is_some_and(SendRequest::is_closed) {
            self.close();
        }
        let request = Request::post("/v1/heartbeat")
            .header(HOST, &self.way.authority)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| Trouble::Connect)?;
        let open = match self.open.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let open = self.open.insert(open);
        open.ready().await.map_err(|_| Trouble::Closed)?;
        let response = open.send_request(request).await.map_err(|_| Trouble::Closed)?;
        let status = response.status().as_u16();
        let hold_off = hold_off(&response);
        let body = Limited::new(response.into_body(), ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| Trouble::BadAnswer)?.to_bytes();
        match status {
            200 => serde_json::from_slice(&body).map_err(|_| Trouble::BadAnswer),
            _ => Err(Trouble::Status { status, hold_off }),
        }
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        let socket = self.dial().await.map_err(|_| Trouble::Connect)?;
        socket.set_nodelay(true).map_err(|_| Trouble::Connect)?;
        let shaken = http1::handshake(TokioIo::new(socket)).await;
        let (open, connection) = shaken.map_err(|_| Trouble::Connect)?;
        self.connects += 1;
        // It ends when `open` is dropped, or the server closes.
        tokio::spawn(async move { drop(connection.await) });
        Ok(open)
    }

    async fn dial(&self) -> std::io::Result<TcpStream> {
        let Some(from) = self.from else {
            return TcpStream::connect(self.way.address).await;
        };
        let socket = match self.way.address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.bind(SocketAddr::new(from, 0))?;
        socket.connect(self.way.address).await
    }
}

fn hold_off<B>(response: &Response<B>) -> Option<Duration> {
    let secs = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(secs).min(HOLD_OFF_MAX))
}
