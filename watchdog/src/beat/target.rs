//! One server: its URL, whom it is trusted by, and its addresses as last resolved.
//!
//! It opens nothing: `lane` connects. A resolver that hangs holds back nobody who has an address already, and is asked
//! only once at a time.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Uri};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::lane::Fault;

/// How long a name may take to resolve, where no address is known yet.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);
/// How long it may take where an older address can be tried instead.
const RESOLVE_AGAIN_TIMEOUT: Duration = Duration::from_millis(500);
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;
/// TLS sessions kept to resume, for one server.
const SESSIONS: usize = 4;

/// Where beats go.
pub const HEARTBEAT: &str = "/v1/heartbeat";

type Lookup = watch::Receiver<Option<Result<Vec<SocketAddr>, String>>>;

/// One server.
pub struct Target {
    /// As configured, without user and password: for people.
    pub label: Arc<str>,
    /// The endpoint under the URL's own path.
    pub path: Uri,
    /// `Host:`.
    pub host: HeaderValue,
    pub(super) tls: Option<(TlsConnector, ServerName<'static>)>,
    name: Host<String>,
    port: u16,
    book: Mutex<Book>,
}

#[derive(Default)]
struct Book {
    known: Vec<SocketAddr>,
    good: Option<SocketAddr>,
    lookup: Option<Lookup>,
}

/// Why a server cannot be sent to at all: the configuration, not the network.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Not a URL that beats can go to.
    #[error("server URL {url}: {problem}")]
    Url {
        /// As configured.
        url: String,
        /// What would be right.
        problem: &'static str,
    },
    /// No certificate authority to trust.
    #[error(
        "no trusted certificates were found ({detail}); install the package ca-certificates, or set [server] ca_file"
    )]
    NoRoots {
        /// What went wrong.
        detail: String,
    },
    /// The configured authorities cannot be used.
    #[error("[server] ca_file {path}: {detail}; it must hold certificates in PEM form, readable by this user", path = path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        detail: String,
    },
    /// The TLS library refused.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

impl Target {
    /// `url` with `endpoint` (`/v1/…`) under it. `tls` is needed for `https`.
    pub fn new(url: &Url, endpoint: &str, tls: Option<&Arc<ClientConfig>>) -> Result<Self, TargetError> {
        let bad = |problem| TargetError::Url {
            url: url.to_string(),
            problem,
        };
        let name = url.host().ok_or_else(|| bad("names no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| bad("names no port"))?;
        let mut shown = url.clone();
        let _ = shown.set_username("");
        let _ = shown.set_password(None);
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_string(),
        };
        let path = format!("{}{endpoint}", url.path().trim_end_matches('/'));
        let tls = match (url.scheme(), tls) {
            ("https", Some(config)) => {
                let server = ServerName::try_from(name.to_string().trim_matches(['[', ']']).to_owned());
                let server = server.map_err(|_| bad("its host is no name that a certificate can carry"))?;
                Some((TlsConnector::from(Arc::clone(config)), server))
            }
            ("http", _) => None,
            _ => return Err(bad("must begin with https:// (or http:// to a private address)")),
        };
        Ok(Self {
            label: shown.as_str().trim_end_matches('/').into(),
            path: path.parse().map_err(|_| bad("has a path that is none"))?,
            host: HeaderValue::try_from(host).map_err(|_| bad("has a host that is none"))?,
            tls,
            name,
            port,
            book: Mutex::default(),
        })
    }

    /// The address to try in this turn: first the one that answered last, then the families alternately.
    pub(super) async fn address(self: &Arc<Self>, turn: u32) -> Result<SocketAddr, Fault> {
        let (known, good) = self.resolve().await?;
        let order = in_turn(&known, good);
        let turn = usize::try_from(turn).unwrap_or_default();
        order
            .get(turn % order.len().max(1))
            .copied()
            .ok_or(Fault::NoAddress)
    }

    /// `address` answered: it comes first from now on.
    pub(super) fn answered_at(&self, address: SocketAddr) {
        self.book().good = Some(address);
    }

    async fn resolve(self: &Arc<Self>) -> Result<(Vec<SocketAddr>, Option<SocketAddr>), Fault> {
        let literal = match &self.name {
            Host::Ipv4(ip) => Some(IpAddr::V4(*ip)),
            Host::Ipv6(ip) => Some(IpAddr::V6(*ip)),
            Host::Domain(_) => None,
        };
        if let Some(ip) = literal {
            return Ok((vec![SocketAddr::new(ip, self.port)], None));
        }
        let (mut lookup, known) = self.look_up();
        let patience = if known.is_empty() {
            RESOLVE_TIMEOUT
        } else {
            RESOLVE_AGAIN_TIMEOUT
        };
        let told = tokio::time::timeout(patience, lookup.wait_for(Option::is_some)).await;
        let fault = match told {
            Ok(Ok(told)) => match &*told {
                Some(Ok(found)) => return Ok((found.clone(), self.book().good)),
                Some(Err(detail)) => Fault::Resolve(detail.clone()),
                None => Fault::NoAddress,
            },
            Ok(Err(_)) => Fault::NoAddress,
            Err(_) => Fault::TimedOut(patience),
        };
        if known.is_empty() {
            Err(fault)
        } else {
            Ok((known, self.book().good))
        }
    }

    /// The lookup under way, or a new one; and what is known from before.
    fn look_up(self: &Arc<Self>) -> (Lookup, Vec<SocketAddr>) {
        let mut book = self.book();
        let known = book.known.clone();
        if let Some(lookup) = &book.lookup {
            return (lookup.clone(), known);
        }
        let (tell, lookup) = watch::channel(None);
        book.lookup = Some(lookup.clone());
        let (target, name) = (Arc::clone(self), self.name.to_string());
        tokio::spawn(async move {
            let found = tokio::net::lookup_host((name.as_str(), target.port)).await;
            let found = found.map(|all| all.take(ADDRESSES).collect::<Vec<_>>());
            let mut book = target.book();
            book.lookup = None;
            if let Ok(found) = &found {
                book.known.clone_from(found);
            }
            drop(book);
            let _ = tell.send(Some(found.map_err(|error| error.to_string())));
        });
        (lookup, known)
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The good one, then the others, families alternating from the resolver's first choice (RFC 8305, section 4).
fn in_turn(known: &[SocketAddr], good: Option<SocketAddr>) -> Vec<SocketAddr> {
    let good = good.filter(|good| known.contains(good));
    let first = good.or(known.first().copied());
    let family = |address: &&SocketAddr| first.is_some_and(|first| first.is_ipv6() == address.is_ipv6());
    let (mut same, mut other): (Vec<SocketAddr>, Vec<SocketAddr>) = known.iter().partition(family);
    if let Some(good) = good {
        same.retain(|address| *address != good);
        same.insert(0, good);
    }
    let mut order = Vec::with_capacity(known.len());
    let (mut same, mut other) = (same.drain(..), other.drain(..));
    loop {
        let before = order.len();
        order.extend(same.next());
        order.extend(other.next());
        if order.len() == before {
            return order;
        }
    }
}

/// Whom to trust: `ca_file`, or what the system trusts. Loaded once and shared by all connections.
pub fn tls_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TargetError> {
    let roots = match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TargetError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS);
    Ok(Arc::new(config))
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TargetError> {
    let bad = |detail: String| TargetError::CaFile {
        path: path.to_owned(),
        detail,
    };
    let loaded = rustls_native_certs::load_certs_from_paths(Some(path), None);
    if let Some(error) = loaded.errors.first() {
        return Err(bad(error.to_string()));
    }
    let mut roots = RootCertStore::empty();
    for cert in loaded.certs {
        roots.add(cert).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, TargetError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let detail = loaded
            .errors
            .first()
            .map_or_else(|| "the store is empty".to_owned(), ToString::to_string);
        return Err(TargetError::NoRoots { detail });
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|t| t.parse().unwrap()).collect()
    }

    #[test]
    fn families_alternate_and_the_good_one_comes_first() {
        let known = all(&["[2001:db8::1]:443", "[2001:db8::2]:443", "192.0.2.1:443"]);
        assert_eq!(
            in_turn(&known, None),
            all(&["[2001:db8::1]:443", "192.0.2.1:443", "[2001:db8::2]:443"])
        );
        let good = "192.0.2.1:443".parse().unwrap();
        assert_eq!(
            in_turn(&known, Some(good))[..2],
            all(&["192.0.2.1:443", "[2001:db8::1]:443"])
        );
        let gone = "192.0.2.9:443".parse().unwrap();
        assert_eq!(in_turn(&known, Some(gone)), in_turn(&known, None));
        assert!(in_turn(&[], None).is_empty());
    }

    #[test]
    fn the_path_stands_under_the_urls_own() {
        let target = Target::new(
            &"http://user:pw@127.0.0.1:8470/fleet/".parse().unwrap(),
            HEARTBEAT,
            None,
        )
        .unwrap();
        assert_eq!(target.path, "/fleet/v1/heartbeat");
        assert_eq!(target.host, "127.0.0.1:8470");
        assert_eq!(&*target.label, "http://127.0.0.1:8470/fleet");
    }

    #[test]
    fn a_wrong_ca_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = tls_config(Some(file.path())).unwrap_err().to_string();
        assert!(
            error.contains(&*file.path().to_string_lossy()) && error.contains("PEM"),
            "{error}"
        );
        let error = tls_config(Some(Path::new("/nonexistent/ca.pem")))
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/ca.pem"), "{error}");
    }
}
