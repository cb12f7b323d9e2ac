//! What the server runs by, checked: past this point no invalid value exists.
//!
//! It does not read files: `config` turns a TOML file into a [`Settings`] and names what is wrong with it.

mod receiver;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::incident::Severity;
pub use protocol::matcher::Matcher;
use protocol::names::Word;
use url::Url;

pub(crate) use self::receiver::host;
pub use self::receiver::{
    Alertmanager, Discord, Email, Exec, MailTls, Ntfy, PagerDuty, Receiver, ReceiverKind, SecretUrl, Slack,
    Telegram, Templates, Webhook,
};
pub use crate::hours::Hours;

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
    /// Labels by whose values boxes are grouped, the narrowest first: what goes together is one incident.
    pub group_by: Vec<String>,
    /// Whom the server asks besides.
    pub witness: WitnessSettings,
    /// Who can be told. Names are unique.
    pub receivers: Vec<Receiver>,
    /// Who is told what, first match wins. Empty: every receiver gets everything.
    pub routes: Vec<Route>,
    /// Who outside is told, again and again, that this server works.
    pub dead_man: Option<DeadMan>,
    /// The box inside the server that goes dark on a schedule.
    pub canary: Option<CanarySettings>,
    /// How loud what is, and what counts as flapping.
    pub incidents: IncidentRules,
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
    /// Nothing is said of a shorter silence than this, whatever speaks against the box.
    pub tolerance: Duration,
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
            tolerance: Duration::from_secs(4),
            dark_after: Duration::from_secs(6),
            dark_after_max: Duration::from_secs(30),
            false_alarms_per_box_year: 1.0,
            warm_up: Duration::from_secs(6),
        }
    }
}

/// Whom the server asks when it doubts. (The witnesses of each box are declared with the box.)
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WitnessSettings {
    /// `host:port` of others' machines: if none of them answers and nobody is heard, the server's own uplink is down. Not
    /// configured, it is those of receivers and of the dead man's ping that are not near.
    pub own: Vec<String>,
    /// The socket of the server's own tailscaled, for witnesses of the form `tailscale:NAME`.
    pub tailscale_socket: Option<PathBuf>,
}

/// A service outside that raises the alarm when this server stops pinging it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadMan {
    /// What is pinged while all is well.
    pub url: SecretUrl,
    /// What is told why, when it is not.
    pub fail_url: Option<SecretUrl>,
    /// How a ping is sent.
    pub method: PingMethod,
    /// How often.
    pub every: Duration,
    /// A notification that nobody has heard for so long stops the pings.
    pub unheard_after: Duration,
}

/// How a ping is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingMethod {
    /// `GET`: what every such service takes.
    Get,
    /// `POST` with an empty body.
    Post,
}

/// The canary: a box inside the server that goes dark on a schedule, and whose notification must arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanarySettings {
    /// How often.
    pub every: Duration,
    /// How long after the moment at which it must be dark the notification may take.
    pub grace: Duration,
    /// A real receiver that gets it too, marked as a test.
    pub receiver: Option<Word>,
}

/// Which incidents go to which receivers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Route {
    /// Which incidents.
    pub matcher: Matcher,
    /// To whom; each is the name of a [`Receiver`]. Empty: to nobody, on purpose.
    pub receivers: Vec<Word>,
    /// Only in these hours; outside of them the next route that matches.
    pub when: Option<Hours>,
    /// Who else, unless somebody acknowledges it in time; by `after`, the earliest first.
    pub steps: Vec<Step>,
    /// So often it is told again while nobody has acknowledged it.
    pub remind: Option<Duration>,
    /// So often it is told again although somebody has acknowledged it.
    pub remind_acked: Option<Duration>,
}

/// A step of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// So long after the route took the incident up.
    pub after: Duration,
    /// To whom; each is the name of a [`Receiver`].
    pub receivers: Vec<Word>,
}

/// What the operator says about incidents beyond the tables of this program.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IncidentRules {
    /// How loud what is; the first match overrules the table.
    pub severities: Vec<SeverityRule>,
    /// What counts as flapping; `None`: nothing does.
    pub flapping: Option<Flapping>,
}

impl IncidentRules {
    /// How long something that flaps must be calm to be over; zero where nothing is held.
    pub fn calm(&self) -> Duration {
        self.flapping.map_or(Duration::ZERO, |flapping| flapping.calm)
    }
}

/// How loud some incidents are.
#[derive(Debug, Clone, PartialEq)]
pub struct SeverityRule {
    /// Which; its severity is the table's.
    pub matcher: Matcher,
    /// How loud they are.
    pub severity: Severity,
}

/// What counts as flapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flapping {
    /// So many openings of the same thing …
    pub after: u32,
    /// … within this: it flaps, and is held open …
    pub within: Duration,
    /// … until it has been calm for so long.
    pub calm: Duration,
}

impl Default for Flapping {
    fn default() -> Self {
        Self {
            after: 4,
            within: Duration::from_secs(30 * 60),
            calm: Duration::from_secs(10 * 60),
        }
    }
}
