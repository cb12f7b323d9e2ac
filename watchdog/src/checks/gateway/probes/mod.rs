//! Liveness beyond the unit: is there an answer? HTTP, TCP, a Unix socket, a file that is kept fresh.
//!
//! A probe says what it saw; whether that makes the gateway failing (start-up grace, fences) is decided in the parent.
//! A mere connect is weak: the kernel accepts for a hung process until its backlog is full. `http` is the one to choose.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use protocol::why::KnownWhy;
use tokio::net::{TcpStream, UnixStream};

use crate::checks::deadline::in_thread;
use crate::checks::span_text;
use crate::settings::{Probe, ProbeTarget};

mod http;

/// A file dated this far ahead of the clock tells no age at all.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

/// What a probe did not get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// In a word. [`KnownWhy::CheckError`]: the probe itself could not be made, which says nothing about the gateway.
    pub why: KnownWhy,
    /// In a sentence that names the target and the step.
    pub text: String,
}

impl Miss {
    fn new(why: KnownWhy, text: impl Into<String>) -> Self {
        Self {
            why,
            text: text.into(),
        }
    }
}

/// Makes one probe, within its own time-out.
pub async fn ask(probe: &Probe, now: Timestamp) -> Result<(), Miss> {
    let limit = probe.timeout;
    match &probe.target {
        ProbeTarget::Http(url) => http::get(url, limit).await,
        ProbeTarget::Tcp(address) => tcp(*address, limit).await,
        ProbeTarget::Unix(path) => unix(path, limit).await,
        ProbeTarget::File { path, max_age } => file(path, *max_age, now, limit).await,
    }
}

async fn tcp(address: SocketAddr, limit: Duration) -> Result<(), Miss> {
    let target = format!("tcp {address}");
    let connected = tokio::time::timeout(limit, TcpStream::connect(address)).await;
    match connected {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(refused(&target, &error)),
        Err(_) => Err(late(&target, "connection", limit)),
    }
}

async fn unix(path: &Path, limit: Duration) -> Result<(), Miss> {
    let target = format!("unix socket {}", path.display());
    match tokio::time::timeout(limit, UnixStream::connect(path)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => Err(Miss::new(
            KnownWhy::CheckError,
            format!(
                "{target} may not be connected to by this user; it needs write permission, for instance through the socket's group"
            ),
        )),
        Ok(Err(error)) => Err(refused(&target, &error)),
        Err(_) => Err(late(&target, "connection", limit)),
    }
}

async fn file(path: &Path, max_age: Duration, now: Timestamp, limit: Duration) -> Result<(), Miss> {
    let target = format!("file {}", path.display());
    let asked = path.to_owned();
    let changed = in_thread(limit, move |_| {
        std::fs::metadata(asked).and_then(|found| found.modified())
    })
    .await
    .map_err(|overrun| Miss::new(KnownWhy::CheckError, format!("{target}: {overrun}")))?;
    match changed {
        Ok(changed) => fresh(&target, changed, max_age, now),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Miss::new(
            KnownWhy::ProbeFileMissing,
            format!("{target} is not there"),
        )),
        Err(error) => Err(Miss::new(
            KnownWhy::CheckError,
            format!("{target} cannot be looked at: {error}"),
        )),
    }
}

fn fresh(target: &str, changed: SystemTime, max_age: Duration, now: Timestamp) -> Result<(), Miss> {
    let now = SystemTime::from(now);
    match now.duration_since(changed) {
        Ok(age) if age <= max_age => Ok(()),
        Ok(age) => Err(Miss::new(
            KnownWhy::ProbeFileStale,
            format!(
                "{target} was last changed {} ago; {} are allowed",
                span_text(age),
                span_text(max_age)
            ),
        )),
        Err(ahead) if ahead.duration() <= CLOCK_SLACK => Ok(()),
        Err(ahead) => Err(Miss::new(
            KnownWhy::CheckError,
            format!(
                "{target} is dated {} in the future: its age cannot be told",
                span_text(ahead.duration())
            ),
        )),
    }
}

fn refused(target: &str, error: &io::Error) -> Miss {
    Miss::new(
        KnownWhy::ProbeRefused,
        format!("{target} refused the connection ({error})"),
    )
}

fn late(target: &str, step: &str, limit: Duration) -> Miss {
    Miss::new(
        KnownWhy::ProbeTimedOut,
        format!("{target}: no {step} within {}", span_text(limit)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    async fn why(target: ProbeTarget) -> Option<KnownWhy> {
        let now =
            Timestamp::try_from(std::fs::metadata("/proc/self/stat").unwrap().modified().unwrap()).unwrap();
        let probe = Probe {
            target,
            timeout: LIMIT,
        };
        ask(&probe, now).await.err().map(|miss| miss.why)
    }

    #[tokio::test]
    async fn tcp_and_unix_ports() {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = port.local_addr().unwrap();
        assert_eq!(why(ProbeTarget::Tcp(address)).await, None);
        drop(port);
        assert_eq!(why(ProbeTarget::Tcp(address)).await, Some(KnownWhy::ProbeRefused));

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(
            why(ProbeTarget::Unix(path.clone())).await,
            Some(KnownWhy::ProbeRefused)
        );
        let _port = tokio::net::UnixListener::bind(&path).unwrap();
        assert_eq!(why(ProbeTarget::Unix(path)).await, None);
    }

    #[tokio::test]
    async fn files_are_fresh_stale_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stamp");
        let target = |path: &Path| ProbeTarget::File {
            path: path.to_owned(),
            max_age: Duration::from_secs(180),
        };
        assert_eq!(why(target(&path)).await, Some(KnownWhy::ProbeFileMissing));
        let stamp = std::fs::File::create(&path).unwrap();
        assert_eq!(why(target(&path)).await, None);
        let changed = stamp.metadata().unwrap().modified().unwrap();
        stamp.set_modified(changed - Duration::from_secs(200)).unwrap();
        assert_eq!(why(target(&path)).await, Some(KnownWhy::ProbeFileStale));
        stamp.set_modified(changed + Duration::from_secs(3600)).unwrap();
        assert_eq!(
            why(target(&path)).await,
            Some(KnownWhy::CheckError),
            "no age, no verdict"
        );
    }
}
