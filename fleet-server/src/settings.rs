//! What the server runs by, checked: past this point no invalid value exists.
//!
//! It does not read files: `config` turns a TOML file into a [`Settings`] and names what is wrong with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use protocol::matcher::Matcher;
use protocol::names::Word;
use protocol::secret::Secret;
use url::Url;

/// Everything that the configuration file says, with the defaults put in.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where boxes and operators connect.
    pub listen: SocketAddr,
    /// Where the store, the admin token and the lock live.
    pub data_dir: PathBuf,
    /// How people reach this server, for links in notifications.
    pub public_url: Option<Url>,
    /// HTTPS on `listen`; without it a reverse proxy is expected in front.
    pub tls: Option<Tls>,
    /// How boxes are judged.
    pub liveness: LivenessSettings,
    /// Who can be told. Names are unique.
    pub receivers: Vec<Receiver>,
    /// Who is told what, first match wins. Empty: every receiver gets everything.
    pub routes: Vec<Route>,
}

/// A certificate chain and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The chain, the server's own certificate first.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
}

/// How boxes are judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LivenessSettings {
    /// How often a box is told to send a beat.
    pub every: Duration,
    /// A box with a clean history is dark after this long without a beat, if no witness can be asked before.
    pub dark_after: Duration,
    /// No history earns a box a longer margin than this.
    pub dark_after_max: Duration,
    /// How many false alarms a box's own history may cause in a year.
    pub false_alarms_per_box_year: f64,
    /// After start nobody is judged before this has passed (and at least one full deadline of each box).
    pub warm_up: Duration,
}

impl Default for LivenessSettings {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(1),
            dark_after: Duration::from_secs(6),
            dark_after_max: Duration::from_secs(30),
            false_alarms_per_box_year: 1.0,
            warm_up: Duration::from_secs(6),
        }
    }
}

/// Somebody or something that is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Its name in routes, metrics and the outbox.
    pub name: Word,
    /// How it is reached.
    pub kind: ReceiverKind,
}

/// How a receiver is reached.
#[derive(Debug, Clone)]
pub enum ReceiverKind {
    /// `POST` of a signed [`protocol::alert::Alert`].
    Webhook(Webhook),
    /// Alertmanager's API v2.
    Alertmanager(Alertmanager),
}

/// A webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Where to.
    pub url: Url,
    /// What signs the body.
    pub secret: Option<Secret>,
}

/// One or several Alertmanagers: each alert goes to all of them, they deduplicate among themselves.
#[derive(Debug, Clone)]
pub struct Alertmanager {
    /// Their base URLs; at least one.
    pub urls: Vec<Url>,
}

/// Which incidents go to which receivers.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Which incidents.
    pub matcher: Matcher,
    /// To whom; each is the name of a [`Receiver`]. Empty: to nobody, on purpose.
    pub receivers: Vec<Word>,
}
