//! A webhook receiver that a test can break: it records what arrives and when, and hangs, fails or goes down on demand.
//!
//! It speaks plain HTTP/1.1 with keep-alive, a thread per connection, and knows only the alert's outer shape.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::clock;

/// More than any alert; a longer body is cut and recorded as such.
const BODY_MAX: u64 = 4 << 20;

/// How it treats what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Answers 200.
    Up,
    /// Takes the request and never answers.
    Hang,
    /// Answers this status; 429 with a `Retry-After` of one second.
    Answer(u16),
    /// Answers 200, so long after the request.
    Slow(Duration),
    /// Answers with bytes that are no HTTP.
    Garbage,
    /// Takes the request, and closes the connection without an answer.
    Drop,
    /// Nothing listens: connections are refused, open ones closed.
    Down,
}

/// One request that arrived whole.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// When its last byte had arrived.
    pub at: Instant,
    /// What it was answered; nothing if it hangs.
    pub answered: Option<u16>,
    /// When that was.
    pub answered_at: Option<Instant>,
    /// Which connection it came on, counted up as they are accepted.
    pub connection: u64,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body as it came.
    pub body: String,
    /// The body as JSON; null if it is none.
    pub json: Value,
}

impl Arrival {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, value)| value)
    }

    /// `key`: the same for each repeat of one notification.
    pub fn key(&self) -> &str {
        self.json["key"].as_str().unwrap_or_default()
    }

    /// `event`: opened, updated or resolved.
    pub fn event(&self) -> &str {
        self.json["event"].as_str().unwrap_or_default()
    }

    /// `incident.kind`: `box_dark`, `gateway`, …
    pub fn kind(&self) -> &str {
        self.json["incident"]["kind"].as_str().unwrap_or_default()
    }

    /// `incident.box`; empty when the incident concerns none.
    pub fn box_name(&self) -> &str {
        self.json["incident"]["box"].as_str().unwrap_or_default()
    }

    /// `incident.summary`.
    pub fn summary(&self) -> &str {
        self.json["incident"]["summary"].as_str().unwrap_or_default()
    }

    /// Whether it is this event of this kind for this box.
    pub fn is(&self, event: &str, kind: &str, box_name: &str) -> bool {
        (self.event(), self.kind(), self.box_name()) == (event, kind, box_name)
    }

    /// Checks `fleet-signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.
    pub fn verify(&self, secret: &str) -> Result<()> {
        let header = self.header("fleet-signature");
        let (t, v1) = header
            .strip_prefix("t=")
            .and_then(|rest| rest.split_once(",v1="))
            .with_context(|| format!("the fleet-signature header is {header:?}, not t=…,v1=…"))?;
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
        mac.update(format!("{t}.{}", self.body).as_bytes());
        mac.verify_slice(&unhex(v1)?)
            .context("the signature does not fit the body")
    }
}

/// The receiver; it ends with the test.
#[derive(Debug)]
pub struct Webhook {
    address: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    arrivals: Vec<Arrival>,
    /// The body of a 200.
    reply: String,
    /// Open connections, to be closed when it goes down.
    open: Vec<TcpStream>,
    /// Connections with a request that hangs.
    hanging: Vec<TcpStream>,
    /// Connections accepted so far.
    accepted: u64,
}

impl Webhook {
    /// Listens on `host:port` (in a lab, any fixed port is free) and is up.
    pub fn start(address: &str) -> Result<Self> {
        let state = State {
            mode: Mode::Down,
            arrivals: Vec::new(),
            reply: String::new(),
            open: Vec::new(),
            hanging: Vec::new(),
            accepted: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let hook = Self {
            address: address.to_owned(),
            shared,
        };
        hook.set(Mode::Up)?;
        Ok(hook)
    }

    /// For a receiver's `url`.
    pub fn url(&self) -> String {
        format!("http://{}/alert", self.address)
    }

    /// From now on. Requests that hang already go on hanging until it goes down.
    pub fn set(&self, mode: Mode) -> Result<()> {
        let was = std::mem::replace(&mut self.shared.state().mode, mode);
        if was == Mode::Down && mode != Mode::Down {
            // The old listener may need a moment to notice that it is gone.
            let bind = || TcpListener::bind(&self.address).ok();
            let listener = clock::wait_for("the webhook's address", clock::secs(5), bind)?;
            let shared = Arc::clone(&self.shared);
            std::thread::spawn(move || accept(&listener, &shared));
        }
        if mode == Mode::Down && was != Mode::Down {
            for stream in self.shared.state().open.drain(..) {
                let _ = stream.shutdown(Shutdown::Both);
            }
            // Wakes the listener, which then sees that it is down.
            let _ = TcpStream::connect(&self.address);
            let refused = || TcpStream::connect(&self.address).is_err();
            clock::wait_until("the webhook to be down", clock::secs(5), refused)?;
        }
        Ok(())
    }

    /// From now on a 200 has this body.
    pub fn reply(&self, body: &str) {
        body.clone_into(&mut self.shared.state().reply);
    }

    /// Everything that arrived, answered or not, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.shared.state().arrivals.clone()
    }

    /// How many arrived.
    pub fn count(&self) -> usize {
        self.shared.state().arrivals.len()
    }

    /// What arrived and was answered with 2xx, in order.
    pub fn delivered(&self) -> Vec<Arrival> {
        let taken = |arrival: &Arrival| {
            arrival
                .answered
                .is_some_and(|status| (200..300).contains(&status))
        };
        self.arrivals().into_iter().filter(taken).collect()
    }

    /// Waits for the first arrival, of those recorded and those to come, that `wanted` accepts.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Result<Arrival> {
        let deadline = clock::now() + limit;
        let mut state = self.shared.state();
        let mut seen = 0;
        loop {
            if let Some(found) = state.arrivals[seen.min(state.arrivals.len())..]
                .iter()
                .find(|arrival| wanted(arrival))
            {
                return Ok(found.clone());
            }
            seen = state.arrivals.len();
            let left = deadline.saturating_duration_since(clock::now());
            if left.is_zero() {
                let rows: Vec<String> = state
                    .arrivals
                    .iter()
                    .map(|arrival| {
                        format!(
                            "
  {arrival}"
                        )
                    })
                    .collect();
                let rows = rows.concat();
                bail!(
                    "no {what} came to the webhook within {:.1} s; it has:{rows}",
                    limit.as_secs_f64()
                );
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// [`Webhook::wait_for`] this event of this kind for this box.
    pub fn wait_for_event(
        &self,
        event: &str,
        kind: &str,
        box_name: &str,
        limit: Duration,
    ) -> Result<Arrival> {
        self.wait_for(&format!("{event} {kind} {box_name}"), limit, |arrival| {
            arrival.is(event, kind, box_name)
        })
    }

    /// Closes the connections of all requests that hang.
    pub fn hang_up(&self) {
        for stream in self.shared.state().hanging.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Forgets what arrived.
    pub fn clear(&self) {
        self.shared.state().arrivals.clear();
    }
}

impl std::fmt::Display for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answer = self
            .answered
            .map_or_else(|| "hangs".to_owned(), |status| status.to_string());
        write!(
            f,
            "{answer} {} {} {}: {}",
            self.event(),
            self.kind(),
            self.box_name(),
            self.summary()
        )
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        let mut state = shared.state();
        if state.mode == Mode::Down {
            return;
        }
        state.open.extend(stream.try_clone());
        state.accepted += 1;
        let connection = state.accepted;
        drop(state);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(&stream, connection, &shared));
    }
}

/// Requests on one connection, until it closes.
fn serve(stream: &TcpStream, connection: u64, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while let Some((headers, body)) = request(&mut reader)? {
        let mut state = shared.state();
        let mode = state.mode;
        let answered = match mode {
            Mode::Up => Some(200),
            Mode::Answer(status) => Some(status),
            Mode::Hang | Mode::Slow(_) | Mode::Garbage | Mode::Drop => None,
            Mode::Down => return stream.shutdown(Shutdown::Both),
        };
        let last = headers
            .iter()
            .any(|(name, value)| name == "connection" && value == "close");
        let json = serde_json::from_str(&body).unwrap_or(Value::Null);
        let place = state.arrivals.len();
        state.arrivals.push(Arrival {
            at: clock::now(),
            answered,
            answered_at: answered.map(|_| clock::now()),
            connection,
            headers,
            body,
            json,
        });
        let reply = match mode {
            Mode::Up | Mode::Slow(_) => state.reply.clone(),
            Mode::Answer(_) | Mode::Hang | Mode::Garbage | Mode::Drop | Mode::Down => String::new(),
        };
        if mode == Mode::Hang {
            state.hanging.extend(stream.try_clone());
        }
        shared.changed.notify_all();
        drop(state);
        match (mode, answered) {
            (_, Some(status)) => answer(stream, status, &reply)?,
            (Mode::Slow(after), None) => {
                clock::pause(after);
                answer(stream, 200, &reply)?;
                let mut state = shared.state();
                if let Some(arrival) = state.arrivals.get_mut(place) {
                    arrival.answered = Some(200);
                    arrival.answered_at = Some(clock::now());
                }
            }
            (Mode::Garbage, None) => {
                (&*stream).write_all(b"\x16\x03 garbage\r\n\r\n")?;
                return stream.shutdown(Shutdown::Both);
            }
            (Mode::Drop, None) => return stream.shutdown(Shutdown::Both),
            // Read on, and so notice when the sender gives up.
            (Mode::Up | Mode::Answer(_) | Mode::Hang | Mode::Down, None) => drop(reader.read(&mut [0])?),
        }
        if last {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn answer(mut stream: &TcpStream, status: u16, reply: &str) -> std::io::Result<()> {
    let wait = if status == 429 { "retry-after: 1\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} x\r\n{wait}content-length: {}\r\n\r\n",
        reply.len()
    );
    stream.write_all(format!("{head}{reply}").as_bytes())
}

type Request = (Vec<(String, String)>, String);

fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut headers = Vec::new();
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers
        .iter()
        .find(|(name, _)| name == "content-length")
        .and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0u64).min(BODY_MAX) as usize];
    reader.read_exact(&mut body)?;
    Ok(Some((headers, String::from_utf8_lossy(&body).into_owned())))
}

fn unhex(text: &str) -> Result<Vec<u8>> {
    let pairs = (0..text.len()).step_by(2).map(|at| {
        text.get(at..at + 2)
            .and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    pairs
        .collect::<Option<_>>()
        .with_context(|| format!("{text:?} is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http;

    #[test]
    fn records_breaks_and_comes_back() {
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string();
        let hook = Webhook::start(&free).unwrap();
        let body = br#"{"key":"k","event":"opened","incident":{"kind":"box_dark","box":"b","summary":"s"}}"#;
        let post = || http::send("POST", &hook.url(), &[("x-a", "1")], body);

        assert_eq!(post().unwrap().status, 200);
        let got = hook
            .wait_for_event("opened", "box_dark", "b", clock::secs(1))
            .unwrap();
        assert_eq!((got.key(), got.header("x-a")), ("k", "1"));
        assert!(got.verify("secret").is_err());

        hook.set(Mode::Answer(500)).unwrap();
        assert_eq!(post().unwrap().status, 500);
        hook.set(Mode::Down).unwrap();
        assert!(post().is_err());
        hook.set(Mode::Up).unwrap();
        assert_eq!(post().unwrap().status, 200);
        assert_eq!((hook.arrivals().len(), hook.delivered().len()), (3, 2));
        assert!(
            hook.wait_for("never", Duration::from_millis(20), |_| false)
                .is_err()
        );
    }

    #[test]
    fn signature_is_over_time_and_body() {
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(b"1700000000.{}");
        let hex: Vec<String> = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let hex = hex.concat();
        let arrival = |header: String| Arrival {
            at: clock::now(),
            answered: None,
            answered_at: None,
            connection: 1,
            headers: vec![("fleet-signature".to_owned(), header)],
            body: "{}".to_owned(),
            json: Value::Null,
        };
        arrival(format!("t=1700000000,v1={hex}"))
            .verify("s3cret")
            .unwrap();
        assert!(
            arrival(format!("t=1700000001,v1={hex}"))
                .verify("s3cret")
                .is_err()
        );
        assert!(arrival(format!("t=1700000000,v1={hex}")).verify("other").is_err());
    }
}
