//! One HTTP/1.1 connection to one address of one server, kept alive, one beat on it at a time.
//!
//! Each step has its own time-out and its own error. It does not decide when to send, what an answer means, or when to
//! try again (`plan`, `sender`). It uses hyper's connection directly: a pooled client costs every beat more processor
//! time and memory, and decides for itself what is decided here.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::target::Target;

/// How long a TCP connection may take: a first SYN and two repeats.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the TLS handshake may take.
pub const TLS_TIMEOUT: Duration = Duration::from_secs(4);
/// From the first byte of a beat to the last of its answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read: an answer has about 40, a problem a few hundred.
pub const ANSWER_BYTES: usize = 16 * 1024;
/// hyper's buffer for the answer's head.
const HEAD_BYTES: usize = 16 * 1024;

/// What to send.
#[derive(Debug)]
pub struct Order {
    /// `Bearer …`, marked sensitive; none for an enrolment.
    pub authorization: Option<HeaderValue>,
    /// JSON.
    pub body: Bytes,
    /// It is of use however late it arrives: a goodbye, an enrolment.
    pub late_too: bool,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, where it is in seconds.
    pub retry_after: Option<Duration>,
    /// At most [`ANSWER_BYTES`].
    pub body: Bytes,
}

/// What a lane tells.
#[derive(Debug)]
pub enum Happened {
    /// The connection stands.
    Connected,
    /// The beat was answered.
    Answered(Answer),
    /// The connection could not be had, or is gone. The lane has ended.
    Lost(LaneError),
}

/// Who tells what.
#[derive(Debug)]
pub struct LaneEvent {
    /// The server's number.
    pub server: usize,
    /// The lane's number.
    pub lane: usize,
    /// The connection's number: an older one's news is no news.
    pub id: u64,
    /// What.
    pub what: Happened,
}

/// The steps of a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The name.
    Resolve,
    /// TCP.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Writing the beat, and its answer.
    Answer,
    /// Between two beats.
    Idle,
}

/// How far a connection has come: for whoever gives it up.
#[derive(Debug)]
pub struct Progress(Mutex<(Step, Option<SocketAddr>)>);

impl Default for Progress {
    fn default() -> Self {
        Self(Mutex::new((Step::Resolve, None)))
    }
}

impl Progress {
    /// The step under way, and the address in use.
    pub fn get(&self) -> (Step, Option<SocketAddr>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, step: Step, address: SocketAddr) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (step, Some(address));
    }
}

impl Step {
    fn phrase(self) -> &'static str {
        match self {
            Self::Resolve => "its name cannot be resolved",
            Self::Connect => "cannot connect",
            Self::Tls => "no TLS connection",
            Self::Answer => "no answer",
            Self::Idle => "the connection ended",
        }
    }
}

/// Which server, over what, at which step.
#[derive(Debug, thiserror::Error)]
#[error("{label}{}: {}", over(.address.as_ref()), .step.phrase())]
pub struct LaneError {
    /// The server.
    pub label: Arc<str>,
    /// The address in use.
    pub address: Option<SocketAddr>,
    /// The step.
    pub step: Step,
    /// What went wrong.
    #[source]
    pub fault: Fault,
}

fn over(address: Option<&SocketAddr>) -> &'static str {
    match address {
        None => "",
        Some(SocketAddr::V4(_)) => " over IPv4",
        Some(SocketAddr::V6(_)) => " over IPv6",
    }
}

/// What went wrong in a step.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// Not within its time.
    #[error("not within {0:?}")]
    TimedOut(Duration),
    /// The resolver's error.
    #[error("{0}")]
    Resolve(String),
    /// The resolver knows none.
    #[error("there is no address for it")]
    NoAddress,
    /// The system's error.
    #[error("{0}")]
    Io(std::io::Error),
    /// Who signed the server's certificate is not trusted.
    #[error(
        "its certificate is signed by nobody that is trusted here; set [server] ca_file to its authority's certificate"
    )]
    UnknownIssuer,
    /// HTTP went wrong.
    #[error("{}", innermost(.0))]
    Http(hyper::Error),
    /// Far too much came back.
    #[error("the answer is longer than {ANSWER_BYTES} bytes; is this a fleet server?")]
    TooLong,
    /// The server closed the connection.
    #[error("the server closed it")]
    Closed,
}

/// hyper wraps the system's word in its own; the last one says most.
fn innermost(error: &hyper::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        texts.push(inner.to_string());
        source = inner.source();
    }
    texts.dedup();
    texts.join(": ")
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Driver = http1::Connection<TokioIo<Box<dyn Stream>>, Full<Bytes>>;

/// A connection that stands.
pub struct Connection {
    target: Arc<Target>,
    address: SocketAddr,
    requests: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    ended: bool,
    /// The same socket, to say how it is closed; none: no descriptor was left.
    socket: Option<OwnedFd>,
    /// A beat is under way that is worth nothing once this connection was given up.
    perishable: bool,
}

/// The kernel would go on sending an unanswered beat for minutes after its connection was given up. Arriving when the
/// way is open again, it would tell a server that the box is back before the beat does that says why it was away.
impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.as_ref().filter(|_| self.perishable) {
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

impl Connection {
    /// Connects to the address whose turn it is.
    pub async fn open(target: &Arc<Target>, turn: u32, progress: &Progress) -> Result<Self, LaneError> {
        let fail = |step, address| {
            move |fault| LaneError {
                label: Arc::clone(&target.label),
                address,
                step,
                fault,
            }
        };
        let address = target.address(turn).await.map_err(fail(Step::Resolve, None))?;
        let at = Some(address);
        progress.set(Step::Connect, address);
        let connecting = within(CONNECT_TIMEOUT, TcpStream::connect(address));
        let tcp = connecting.await.map_err(fail(Step::Connect, at))?;
        // A beat is one small write; waiting to fill a packet would only delay it.
        tcp.set_nodelay(true)
            .map_err(Fault::Io)
            .map_err(fail(Step::Connect, at))?;
        let socket = tcp.as_fd().try_clone_to_owned().ok();
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(tcp),
            Some((connector, name)) => {
                progress.set(Step::Tls, address);
                let shaking = within(TLS_TIMEOUT, connector.connect(name.clone(), tcp));
                Box::new(shaking.await.map_err(fail(Step::Tls, at))?)
            }
        };
        let handshake = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await;
        progress.set(Step::Answer, address);
        let (requests, driver) = handshake.map_err(Fault::Http).map_err(fail(Step::Connect, at))?;
        Ok(Self {
            target: Arc::clone(target),
            address,
            requests,
            driver: Box::pin(driver),
            ended: false,
            socket,
            perishable: false,
        })
    }

    /// Sends one beat and reads its answer, within [`ANSWER_TIMEOUT`].
    pub async fn exchange(&mut self, order: Order) -> Result<Answer, LaneError> {
        self.perishable = !order.late_too;
        let outcome = tokio::time::timeout(ANSWER_TIMEOUT, self.ask(order)).await;
        match outcome.unwrap_or(Err(Fault::TimedOut(ANSWER_TIMEOUT))) {
            Ok(answer) => {
                self.perishable = false;
                self.target.answered_at(self.address);
                Ok(answer)
            }
            Err(fault) => Err(self.error(Step::Answer, fault)),
        }
    }

    /// Waits until the other side, or the network, ends it.
    pub async fn end(&mut self) -> LaneError {
        let fault = match self.driver.as_mut().await {
            Ok(()) => Fault::Closed,
            Err(error) => Fault::Http(error),
        };
        self.ended = true;
        self.error(Step::Idle, fault)
    }

    async fn ask(&mut self, order: Order) -> Result<Answer, Fault> {
        let request = request(&self.target, order);
        let sent = self.requests.send_request(request);
        let asked = async { read(sent.await.map_err(Fault::Http)?).await };
        tokio::pin!(asked);
        loop {
            tokio::select! {
                biased;
                answer = &mut asked => return answer,
                end = self.driver.as_mut(), if !self.ended => {
                    self.ended = true;
                    // Its end says more than what it leaves of the request.
                    if let Err(error) = end {
                        return Err(Fault::Http(error));
                    }
                }
            }
        }
    }

    fn error(&self, step: Step, fault: Fault) -> LaneError {
        LaneError {
            label: Arc::clone(&self.target.label),
            address: Some(self.address),
            step,
            fault,
        }
    }
}

/// Connects, then sends what it is given until the connection ends or nobody gives orders any more.
pub async fn run(
    target: Arc<Target>,
    (turn, progress): (u32, Arc<Progress>),
    mut orders: mpsc::Receiver<Order>,
    tell: impl AsyncFn(Happened),
) {
    let mut connection = match Connection::open(&target, turn, &progress).await {
        Ok(connection) => connection,
        Err(error) => return tell(Happened::Lost(error)).await,
    };
    tell(Happened::Connected).await;
    loop {
        if connection.ended {
            let error = connection.error(Step::Idle, Fault::Closed);
            return tell(Happened::Lost(error)).await;
        }
        let order = tokio::select! {
            order = orders.recv() => order,
            error = connection.end() => return tell(Happened::Lost(error)).await,
        };
        let Some(order) = order else { return };
        match connection.exchange(order).await {
            Ok(answer) => tell(Happened::Answered(answer)).await,
            Err(error) => return tell(Happened::Lost(error)).await,
        }
    }
}

async fn within<T>(limit: Duration, step: impl Future<Output = std::io::Result<T>>) -> Result<T, Fault> {
    match tokio::time::timeout(limit, step).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault_of(error)),
        Err(_) => Err(Fault::TimedOut(limit)),
    }
}

fn fault_of(error: std::io::Error) -> Fault {
    use rustls::{CertificateError, Error};
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Fault::UnknownIssuer,
        _ => Fault::Io(error),
    }
}

fn request(target: &Target, order: Order) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(order.body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.path.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, target.host.clone());
    if let Some(authorization) = order.authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("fleet-watchdog/", env!("CARGO_PKG_VERSION"))),
    );
    request
}

async fn read(response: Response<Incoming>) -> Result<Answer, Fault> {
    let (head, mut body) = response.into_parts();
    let retry_after = head.headers.get(RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|v| v.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(Fault::Http)?.into_data() else {
            continue;
        };
        if all.len() + data.len() > ANSWER_BYTES {
            return Err(Fault::TooLong);
        }
        all.extend_from_slice(&data);
    }
    Ok(Answer {
        status: head.status.as_u16(),
        retry_after,
        body: all.into(),
    })
}
