//! The accept loop: bounded connections, small buffers, time-outs, TLS if wanted, and the word when a box's end goes.
//!
//! Our own, because the ready-made ones leave Nagle's algorithm on, which costs a TLS beat up to 18 ms.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower::ServiceExt;

use super::connection::{Arrived, Peer};
use super::state::App;
use super::tls::Certificates;
use crate::liveness::ConnId;

/// A connection that says nothing for so long is closed: longer than any box that keeps one open is silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A handshake is a few round trips, on the worst path some seconds.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header fields of a request: a proxy adds some.
const HEADERS: usize = 64;
/// Bytes of a connection's buffer: a whole head must fit.
const BUFFER_BYTES: usize = 16 * 1024;
/// Connections that the kernel holds for us: after a restart the whole fleet comes at once.
const BACKLOG: u32 = 4096;
/// Connections kept free of the process's limit on open files: store, receivers, witnesses, log.
const FILES_RESERVED: u64 = 256;
/// The most connections: a box each, and operators.
const CONNECTIONS_MAX: u64 = 250_000;
/// How long to wait when the system cannot take another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open requests may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// A bound address, not yet served.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Certificates>>,
}

/// What a connection needs.
struct Shared {
    router: Router,
    app: Arc<App>,
    tls: Option<Arc<Certificates>>,
    next: AtomicU64,
    room: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

impl Listener {
    /// Binds `listen`.
    pub fn bind(listen: SocketAddr, tls: Option<Arc<Certificates>>) -> io::Result<Self> {
        let socket = match listen {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        Ok(Self {
            socket: socket.listen(BACKLOG)?,
            tls,
        })
    }

    /// Where it listens (the port, if 0 was asked for).
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `shutdown` turns true and open requests have ended; how many connections had to be cut.
    pub async fn serve(self, router: Router, app: Arc<App>, mut shutdown: watch::Receiver<bool>) -> u32 {
        let limit = connection_limit();
        let room = Arc::new(Semaphore::new(limit as usize));
        let shared = Arc::new(Shared {
            router,
            app,
            tls: self.tls,
            next: AtomicU64::new(1),
            room: Arc::clone(&room),
            shutdown: shutdown.clone(),
        });
        loop {
            tokio::select! {
                taken = self.socket.accept() => accept(&shared, taken).await,
                () = ending(&mut shutdown) => break,
            }
        }
        drop(self.socket);
        let all = room.acquire_many(limit);
        let drained = tokio::time::timeout(DRAIN, all).await.is_ok();
        if drained {
            0
        } else {
            limit.saturating_sub(room.available_permits() as u32)
        }
    }
}

async fn accept(shared: &Arc<Shared>, taken: io::Result<(TcpStream, SocketAddr)>) {
    let metrics = &shared.app.metrics;
    let stream = match taken {
        Ok((stream, _)) => stream,
        Err(err) => {
            // Out of files or memory: pause, or this loop would take the whole processor.
            metrics.refused.with_label_values(&["accept"]).inc();
            tracing::warn!(error = %err, "cannot take a connection; is LimitNOFILE too low?");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            return;
        }
    };
    let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
        metrics.refused.with_label_values(&["full"]).inc();
        return;
    };
    metrics.accepted.inc();
    metrics.connections.inc();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let _ = stream.set_nodelay(true);
        match &shared.tls {
            None => connection(&shared, stream).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => connection(&shared, stream).await,
                Ok(Err(_)) | Err(_) => shared.app.metrics.refused.with_label_values(&["handshake"]).inc(),
            },
        }
        shared.app.metrics.connections.dec();
        drop(permit);
    });
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(shared: &Shared, stream: S) {
    let peer = Peer::new(ConnId(shared.next.fetch_add(1, Ordering::Relaxed)));
    let service = service_fn(|request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        let arrived = Arrived::now(&shared.app.clock);
        peer.request(request.headers());
        request.extensions_mut().insert(arrived);
        request.extensions_mut().insert(peer.clone());
        shared.router.clone().oneshot(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(HEADERS)
        .max_buf_size(BUFFER_BYTES)
        .half_close(false);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut shutdown = shared.shutdown.clone();
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(DRAIN, connection).await;
            return;
        }
    };
    // Our own time-out says nothing about the box.
    let ours = ended.is_err_and(|err| err.is_timeout());
    if !ours && let Some(ix) = peer.bereaved() {
        let clock = &shared.app.clock;
        shared
            .app
            .intake
            .closed(ix, peer.id(), clock.mono(), clock.wall());
    }
}

/// Until `shutdown` turns true, or nobody is left to turn it.
async fn ending(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|end| *end).await;
}

/// What the process's limit on open files leaves.
fn connection_limit() -> u32 {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let free = files.unwrap_or(u64::MAX).saturating_sub(FILES_RESERVED).max(16);
    free.min(CONNECTIONS_MAX) as u32
}
