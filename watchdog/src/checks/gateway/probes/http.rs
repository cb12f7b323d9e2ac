//! `GET`, and whether the answer begins with a 2xx status. Each step has a name for the message: a hung gateway still
//! accepts connections, and then it matters that the answer was missing and not the connection.
//!
//! It follows no redirect, sends no credentials, and reads the status line only.

use std::sync::Arc;
use std::time::Duration;

use protocol::why::KnownWhy;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Position, Url};

use super::{Miss, late, refused};
use crate::checks::deadline::in_thread;

/// A status line is shorter than this, or it is none.
const STATUS_LINE: usize = 4096;

/// Asks `url`, all in all within `limit`.
pub(super) async fn get(url: &Url, limit: Duration) -> Result<(), Miss> {
    let target = format!("http probe {}", shown(url));
    let mut step = "connection";
    let answer = tokio::time::timeout(limit, exchange(url, &target, limit, &mut step)).await;
    match answer {
        Ok(Ok(status @ 200..=299)) => {
            tracing::debug!(status, "{target}");
            Ok(())
        }
        Ok(Ok(status)) => Err(Miss::new(
            KnownWhy::ProbeBadAnswer,
            format!("{target} answered {status}, which is no 2xx"),
        )),
        Ok(Err(miss)) => Err(miss),
        Err(_) => Err(late(&target, step, limit)),
    }
}

async fn exchange(url: &Url, target: &str, limit: Duration, step: &mut &'static str) -> Result<u16, Miss> {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or(80);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    *step = "address of its host";
    let addresses: Vec<_> = tokio::net::lookup_host((bare, port))
        .await
        .map_err(|error| {
            Miss::new(
                KnownWhy::CheckError,
                format!("{target}: cannot resolve {host}: {error}"),
            )
        })?
        .collect();
    *step = "connection";
    let stream = TcpStream::connect(addresses.as_slice())
        .await
        .map_err(|error| refused(target, &error))?;
    if url.scheme() != "https" {
        *step = "answer";
        return status(stream, url, target).await;
    }
    *step = "TLS handshake";
    let name = ServerName::try_from(bare.to_owned()).map_err(|error| {
        Miss::new(
            KnownWhy::CheckError,
            format!("{target}: {host} cannot stand in a certificate: {error}"),
        )
    })?;
    let stream = connector(target, limit)
        .await?
        .connect(name, stream)
        .await
        .map_err(|error| {
            Miss::new(
                KnownWhy::ProbeBadAnswer,
                format!("{target}: TLS handshake failed: {error}"),
            )
        })?;
    *step = "answer";
    status(stream, url, target).await
}

/// TLS with the system's certificates, which are read from disk at each run: only an `https` probe pays for it.
async fn connector(target: &str, limit: Duration) -> Result<TlsConnector, Miss> {
    let broken = |detail: String| Miss::new(KnownWhy::CheckError, format!("{target}: {detail}"));
    let found = in_thread(limit, |_| rustls_native_certs::load_native_certs())
        .await
        .map_err(|overrun| broken(format!("the system's certificates: {overrun}")))?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| broken(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn status(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    url: &Url,
    target: &str,
) -> Result<u16, Miss> {
    let broken = |detail: String| Miss::new(KnownWhy::ProbeBadAnswer, format!("{target}: {detail}"));
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: fleet-watchdog\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        &url[Position::BeforePath..Position::AfterQuery],
        &url[Position::BeforeHost..Position::AfterPort],
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| broken(format!("the request could not be sent: {error}")))?;
    let mut line = Vec::with_capacity(256);
    while !line.contains(&b'\n') {
        let mut chunk = [0; 256];
        let got = stream
            .read(&mut chunk)
            .await
            .map_err(|error| broken(format!("the connection broke before an answer: {error}")))?;
        if got == 0 || line.len() > STATUS_LINE {
            break;
        }
        line.extend_from_slice(&chunk[..got]);
    }
    if line.is_empty() {
        return Err(broken("the connection was closed without an answer".to_owned()));
    }
    code(&line).ok_or_else(|| broken("the answer is no HTTP".to_owned()))
}

/// The number of `HTTP/1.1 200 OK`.
fn code(line: &[u8]) -> Option<u16> {
    let line = line.split(|&byte| byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let number = text.split(' ').nth(1)?.trim();
    (number.len() == 3).then(|| number.parse().ok()).flatten()
}

/// Without a password and without the query, which may carry a key.
fn shown(url: &Url) -> &str {
    if url.username().is_empty() && url.password().is_none() {
        &url[..Position::AfterPath]
    } else {
        &url[Position::BeforeHost..Position::AfterPath]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that says `answer` to everybody; none: accepts and keeps silent.
    async fn server(answer: Option<&'static str>) -> Url {
        let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/health?key=secret", port.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = port.accept().await {
                if let Some(answer) = answer {
                    let mut request = [0; 1024];
                    let got = stream.read(&mut request).await.unwrap();
                    assert!(
                        request[..got].starts_with(b"GET /health?key=secret HTTP/1.1\r\nHost: 127.0.0.1:")
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                } else {
                    held.push(stream);
                }
            }
        });
        url.parse().unwrap()
    }

    async fn miss(answer: Option<&'static str>, limit: Duration) -> Option<Miss> {
        get(&server(answer).await, limit).await.err()
    }

    #[tokio::test]
    async fn a_2xx_is_an_answer_and_nothing_else_is() {
        let limit = Duration::from_secs(5);
        assert_eq!(miss(Some("HTTP/1.1 200 OK\r\n\r\n"), limit).await, None);
        assert_eq!(miss(Some("HTTP/1.0 204 \r\n\r\n"), limit).await, None);
        for bad in [
            "HTTP/1.1 503 no\r\n\r\n",
            "HTTP/1.1 301 x\r\nLocation: /ok\r\n\r\n",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 2000 x\r\n",
            "",
        ] {
            let miss = miss(Some(bad), limit).await.expect(bad);
            assert_eq!(miss.why, KnownWhy::ProbeBadAnswer, "{bad:?}");
            assert!(
                miss.text.contains("/health") && !miss.text.contains("secret"),
                "{}",
                miss.text
            );
        }
    }

    #[tokio::test]
    async fn a_hung_server_accepts_and_does_not_answer() {
        let miss = miss(None, Duration::from_millis(100)).await.unwrap();
        assert_eq!(miss.why, KnownWhy::ProbeTimedOut);
        assert!(miss.text.contains("no answer within 100 ms"), "{}", miss.text);
    }

    #[tokio::test]
    async fn nobody_there() {
        let url = {
            let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            format!("http://{}/", port.local_addr().unwrap()).parse().unwrap()
        };
        let miss = get(&url, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(miss.why, KnownWhy::ProbeRefused);
    }
}
