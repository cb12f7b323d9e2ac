//! A mail server on loopback: EHLO, STARTTLS or TLS from the first byte, AUTH PLAIN and LOGIN, one recipient at least,
//! DATA with its dots. It speaks RFC 5321 as far as a submission meets it and is strict about the order.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::fake::now;

pub(super) const USER: &str = "fleet";
pub(super) const PASSWORD: &str = "hunter2-mails";
/// `\0fleet\0hunter2-mails`.
const PLAIN: &str = "AGZsZWV0AGh1bnRlcjItbWFpbHM=";

/// A mail as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) at: Instant,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) data: String,
    pub(super) encrypted: bool,
}

/// How it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    StartTls,
    Implicit,
    /// It has no TLS at all.
    Clear,
}

#[derive(Clone)]
pub(super) struct MailServer {
    pub(super) port: u16,
    /// Its authority, PEM.
    pub(super) ca: String,
    shared: Arc<Shared>,
}

struct Shared {
    way: Way,
    tls: TlsAcceptor,
    letters: Mutex<Vec<Letter>>,
    /// Said once to a MAIL FROM.
    first: Mutex<Option<String>>,
    refused_at: Mutex<Option<Instant>>,
}

impl MailServer {
    pub(super) async fn start(way: Way) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tls, ca) = certificate();
        let shared = Arc::new(Shared {
            way,
            tls,
            letters: Mutex::default(),
            first: Mutex::default(),
            refused_at: Mutex::default(),
        });
        let served = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { port, ca, shared }
    }

    /// The first mail is answered with this.
    pub(super) fn first(self, reply: &str) -> Self {
        *self.shared.first.lock().unwrap() = Some(reply.to_owned());
        self
    }

    pub(super) fn letters(&self) -> Vec<Letter> {
        self.shared.letters.lock().unwrap().clone()
    }

    pub(super) fn refused_at(&self) -> Option<Instant> {
        *self.shared.refused_at.lock().unwrap()
    }
}

impl Shared {
    fn scripted(&self) -> Option<String> {
        self.first.lock().unwrap().take()
    }
}

fn certificate() -> (TlsAcceptor, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca.pem())
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    if shared.way == Way::Implicit {
        if let Ok(stream) = shared.tls.accept(stream).await {
            let mut talk = Talk::new(stream, true);
            talk.say("220 localhost ESMTP").await;
            talk.dialogue(&shared).await;
        }
        return;
    }
    let mut talk = Talk::new(stream, false);
    talk.say("220 localhost ESMTP").await;
    if talk.dialogue(&shared).await == End::StartTls {
        let stream = talk.stream.into_inner();
        if let Ok(stream) = shared.tls.accept(stream).await {
            Talk::new(stream, true).dialogue(&shared).await;
        }
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Quit,
    StartTls,
}

struct Talk<S> {
    stream: BufReader<S>,
    encrypted: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Talk<S> {
    fn new(stream: S, encrypted: bool) -> Self {
        Self {
            stream: BufReader::new(stream),
            encrypted,
        }
    }

    async fn say(&mut self, line: &str) {
        let _ = self
            .stream
            .get_mut()
            .write_all(format!("{line}\r\n").as_bytes())
            .await;
        let _ = self.stream.get_mut().flush().await;
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end_matches("\r\n").to_owned())
    }

    async fn dialogue(&mut self, shared: &Shared) -> End {
        let (mut known, mut from, mut to) = (false, None::<String>, Vec::<String>::new());
        while let Some(line) = self.line().await {
            let upper = line.to_ascii_uppercase();
            if upper.starts_with("EHLO ") {
                let mut offers = vec!["localhost", "8BITMIME"];
                if self.encrypted {
                    offers.push("AUTH PLAIN LOGIN");
                } else if shared.way == Way::StartTls {
                    offers.push("STARTTLS");
                }
                let last = offers.len() - 1;
                for (n, offer) in offers.into_iter().enumerate() {
                    self.say(&format!("250{}{offer}", if n == last { ' ' } else { '-' }))
                        .await;
                }
            } else if upper == "STARTTLS" && shared.way == Way::StartTls && !self.encrypted {
                self.say("220 2.0.0 go ahead").await;
                return End::StartTls;
            } else if let Some(given) = line.strip_prefix("AUTH PLAIN ") {
                known = given == PLAIN;
                let said = if known {
                    "235 2.7.0 good"
                } else {
                    "535 5.7.8 authentication credentials invalid"
                };
                self.say(said).await;
            } else if upper.starts_with("MAIL FROM:") {
                if !self.encrypted && shared.way != Way::Clear {
                    self.say("530 5.7.0 must issue a STARTTLS command first").await;
                } else if !known && shared.way != Way::Clear {
                    self.say("530 5.7.0 authentication required").await;
                } else if let Some(reply) = shared.scripted() {
                    *shared.refused_at.lock().unwrap() = Some(now());
                    self.say(&reply).await;
                } else {
                    from = Some(address(&line));
                    self.say("250 2.1.0 ok").await;
                }
            } else if upper.starts_with("RCPT TO:") && from.is_some() {
                let address = address(&line);
                if address.starts_with("nobody@") {
                    self.say("550 5.1.1 no such user here").await;
                } else {
                    to.push(address);
                    self.say("250 2.1.5 ok").await;
                }
            } else if upper == "DATA" && !to.is_empty() {
                self.say("354 go on").await;
                let Some(data) = self.data().await else {
                    return End::Quit;
                };
                shared.letters.lock().unwrap().push(Letter {
                    at: now(),
                    from: from.take().unwrap_or_default(),
                    to: std::mem::take(&mut to),
                    data,
                    encrypted: self.encrypted,
                });
                self.say("250 2.0.0 queued as 4F2A").await;
            } else if upper == "QUIT" {
                self.say("221 2.0.0 bye").await;
                return End::Quit;
            } else {
                self.say("503 5.5.1 bad sequence of commands").await;
            }
        }
        End::Quit
    }

    /// Up to the line that is one dot; a dot before another is the sender's escape.
    async fn data(&mut self) -> Option<String> {
        let mut data = String::new();
        loop {
            let line = self.line().await?;
            if line == "." {
                return Some(data);
            }
            data.push_str(line.strip_prefix('.').unwrap_or(&line));
            data.push('\n');
        }
    }
}

fn address(line: &str) -> String {
    let from = line.find('<').map_or(0, |at| at + 1);
    let to = line.find('>').unwrap_or(line.len());
    line.get(from..to).unwrap_or_default().to_owned()
}
