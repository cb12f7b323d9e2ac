//! One HTTP question over a socket that is already connected: LocalAPI listens on a Unix socket.
//!
//! HTTP/1.0, so that the answer ends with the connection. No keep-alive, no TLS, no redirects.

use std::io::{Read, Write};

use anyhow::{Context, Result, bail};

/// More than any answer that the tests ask for.
const ANSWER_BYTES: u64 = 4 << 20;

/// Sends `method path` with an empty body and gives the status and the body. The caller sets the socket's time-outs.
pub(super) fn ask(
    mut socket: impl Read + Write,
    host: &str,
    method: &str,
    path: &str,
) -> Result<(u16, Vec<u8>)> {
    begin(&mut socket, host, method, path)?;
    let mut answer = Vec::new();
    socket
        .take(ANSWER_BYTES)
        .read_to_end(&mut answer)
        .context("no answer")?;
    split(&answer)
}

/// Sends the question and leaves the answer in the socket.
pub(super) fn begin(socket: &mut impl Write, host: &str, method: &str, path: &str) -> Result<()> {
    let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
    socket.write_all(head.as_bytes()).context("cannot send")
}

fn split(answer: &[u8]) -> Result<(u16, Vec<u8>)> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        bail!("an answer without a head: {:?}", String::from_utf8_lossy(answer));
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    let status = status.with_context(|| format!("no status in {head:?}"))?;
    Ok((status, answer[end + 4..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_body() {
        let (status, body) = split(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"a\":1}").unwrap();
        assert_eq!((status, body.as_slice()), (200, b"{\"a\":1}".as_slice()));
        assert!(split(b"nonsense").is_err());
    }
}
