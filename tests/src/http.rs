//! One HTTP request over a fresh plain connection, and the whole answer. No redirects, no TLS, no keep-alive.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::secs;

/// No answer of the product's takes longer than this.
const LIMIT: Duration = secs(10);

/// A server's answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// 200, 404, …
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    body_bytes: usize,
}

impl Answer {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body of an answer that must be 2xx, as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        if !(200..300).contains(&self.status) {
            bail!("answered {}: {}", self.status, self.body);
        }
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }
}

/// GET of `http://host:port/path`.
pub fn get(url: &str) -> Result<Answer> {
    send("GET", url, &[], &[])
}

/// Any request; `headers` are added to Host and Content-Length.
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
    let (authority, path) = split(url)?;
    // The answer to HTTP/1.0 ends with the connection and is never chunked.
    let mut head = format!(
        "{method} {path} HTTP/1.0\r\nhost: {authority}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.extend([name, ": ", value, "\r\n"]);
    }
    head.push_str("\r\n");
    raw(authority, &[head.as_bytes(), body].concat()).with_context(|| format!("{method} {url}"))
}

/// Exactly these bytes to `host:port`, and the answer: for requests that no client would send.
pub fn raw(authority: &str, request: &[u8]) -> Result<Answer> {
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    // A server that refuses early may close before all is written; its answer is there all the same.
    let written = stream.write_all(request);
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    let ended = loop {
        match stream.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Ok(got) => bytes.extend_from_slice(&chunk[..got]),
            Err(err) => break Err(err),
        }
        if complete(&bytes) {
            break Ok(());
        }
    };
    if bytes.is_empty() || !complete(&bytes) {
        written?;
        ended?;
    }
    parse(&bytes)
}

/// Whether the whole body is there that the head announces; without a length only the connection's end tells.
fn complete(bytes: &[u8]) -> bool {
    let Ok(answer) = parse(bytes) else { return false };
    let length = answer
        .header("content-length")
        .and_then(|value| value.parse::<usize>().ok());
    length.is_some_and(|length| answer.body_bytes >= length)
}

fn split(url: &str) -> Result<(&str, &str)> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url} is not http://"))?;
    Ok(rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)))
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .context("no complete head in the answer")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Answer {
        status: status.with_context(|| format!("no HTTP status in {head:?}"))?,
        headers: headers
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect(),
        body: String::from_utf8_lossy(&bytes[end + 4..]).into_owned(),
        body_bytes: bytes.len() - end - 4,
    })
}
