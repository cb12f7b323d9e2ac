//! What tailscaled's answer means. Pure.
//!
//! Two things tailscaled does not tell, and are worked out here: that the node's key expires soon (it warns of it
//! nowhere; and when the date has passed and the control plane has not said so yet, everything still looks well), and
//! how long a state has lasted that is harmless when short ([`TailscaleHistory`]).

use std::time::Duration;

use jiff::Timestamp;
use protocol::report::Status;
use protocol::why::KnownWhy;
use serde::{Deserialize, Serialize};

use crate::checks::{Verdict, span_text};
use crate::settings::TailscaleSettings;
use crate::tailscale::{HealthWarning, NodeStatus};

/// Starting takes seconds; a start that lasts longer than this will not end by itself (a bad key, for instance).
pub const STARTING_MAX: Duration = Duration::from_secs(5 * 60);
/// Tunnels outlive the control plane, for as long as keys and addresses stay the same. Longer than this is no maintenance
/// of the control plane's any more.
pub const CONTROL_LOST_MAX: Duration = Duration::from_secs(30 * 60);
/// Direct connections outlive a relay.
pub const RELAY_LOST_MAX: Duration = Duration::from_secs(30 * 60);

/// Health warnings that say nothing about reachability here, or that another row says better.
const IGNORED: [&str; 6] = [
    "update-available",
    "is-using-unstable-version",
    "ip-forwarding-off",
    "warming-up",
    "wantrunning-false",
    "login-state",
];
/// What a daemon without structured health says for the same, in the words of its texts.
const IGNORED_TEXTS: [&str; 4] = ["update", "unstable version", "IP forwarding", "is starting"];

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum Snapshot {
    /// No socket, and no trace of a tailscaled on this box.
    NotInstalled,
    /// No socket, although there is a tailscaled.
    NoSocket,
    /// A socket that nobody listens on.
    Refused,
    /// A daemon that does not answer.
    Hung(Duration),
    /// A connection that ended before the answer.
    Cut,
    /// It cannot be told; a sentence why.
    Unclear(String),
    /// An answer.
    Answered {
        /// The node.
        node: NodeStatus,
        /// Structured health; `None`: not to be had (a daemon before 1.72).
        health: Option<Vec<HealthWarning>>,
    },
}

impl Snapshot {
    /// Whether a daemon that is just being restarted looks like this.
    pub fn may_be_passing(&self) -> bool {
        match self {
            Self::NoSocket | Self::Refused | Self::Cut => true,
            Self::NotInstalled | Self::Hung(_) | Self::Unclear(_) | Self::Answered { .. } => false,
        }
    }
}

/// Since when something has been so that is harmless when short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailscaleHistory {
    /// `NoState` or `Starting`.
    #[serde(skip_serializing_if = "Option::is_none")]
    starting: Option<Timestamp>,
    /// The control plane is out of reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    control_lost: Option<Timestamp>,
    /// No relay is in reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    relay_lost: Option<Timestamp>,
}

/// Judges `snapshot` at `now`.
pub fn judge(
    snapshot: &Snapshot,
    settings: &TailscaleSettings,
    history: &TailscaleHistory,
    now: Timestamp,
) -> (Verdict, TailscaleHistory) {
    use KnownWhy::{CheckError, DaemonDown, DaemonHung, NotInstalled};
    let socket = settings.socket.display();
    // What was not seen this time did not end: history is kept.
    let plain = |verdict| (verdict, history.clone());
    match snapshot {
        Snapshot::NotInstalled => plain(Verdict::new(
            Status::Unknown,
            NotInstalled,
            format!(
                "there is no tailscaled on this box, and no {socket}; install it, or set `[tailscale] enabled = false` if the box has none"
            ),
        )),
        Snapshot::NoSocket => plain(Verdict::new(
            Status::Failing,
            DaemonDown,
            format!("tailscaled is not running: there is no {socket}; `systemctl start tailscaled`"),
        )),
        Snapshot::Refused => plain(Verdict::new(
            Status::Failing,
            DaemonDown,
            format!(
                "tailscaled is not running: {socket} refuses connections, as after a crash; `systemctl restart tailscaled`"
            ),
        )),
        Snapshot::Hung(limit) => plain(Verdict::new(
            Status::Failing,
            DaemonHung,
            format!(
                "tailscaled takes connections but gives no answer within {}; `systemctl restart tailscaled`",
                span_text(*limit)
            ),
        )),
        Snapshot::Cut => plain(Verdict::new(
            Status::Unknown,
            CheckError,
            format!("tailscaled ended the connection on {socket} before it answered, twice"),
        )),
        Snapshot::Unclear(why) => plain(Verdict::new(Status::Unknown, CheckError, why.clone())),
        Snapshot::Answered { node, health } => answered(node, health.as_deref(), settings, history, now),
    }
}

fn answered(
    node: &NodeStatus,
    health: Option<&[HealthWarning]>,
    settings: &TailscaleSettings,
    history: &TailscaleHistory,
    now: Timestamp,
) -> (Verdict, TailscaleHistory) {
    use KnownWhy::{CheckError, KeyExpired, LoggedOut, NeedsApproval, SwitchedOff};
    let settled = |verdict| (verdict, TailscaleHistory::default());
    let has_expired = node.expired == Some(true) || node.key_expiry.is_some_and(|at| at <= now);
    match node.state.as_deref() {
        Some("Running") => running(node, health, settings, history, now),
        Some("NoState" | "Starting") => starting(node, health, history, now),
        Some("NeedsLogin") if has_expired && node.have_node_key == Some(true) => settled(Verdict::new(
            Status::Failing,
            KeyExpired,
            format!(
                "{}; the box cannot be reached: `tailscale up --force-reauth`, or extend the key in the admin console",
                expired_text(node)
            ),
        )),
        Some("NeedsLogin") => {
            let text = match login_error(node, health) {
                Some(login) => format!("tailscaled cannot log in: {login}"),
                None => "tailscaled is logged out, or never was logged in: `tailscale up`".to_owned(),
            };
            settled(Verdict::new(Status::Failing, LoggedOut, text))
        }
        Some("NeedsMachineAuth") => settled(Verdict::new(
            Status::Failing,
            NeedsApproval,
            "the node waits for approval: an administrator of the tailnet must approve it",
        )),
        Some("Stopped") => settled(Verdict::new(
            Status::Failing,
            SwitchedOff,
            "Tailscale is switched off (`tailscale down`): `tailscale up`",
        )),
        Some(other) => settled(Verdict::new(
            Status::Unknown,
            CheckError,
            format!("tailscaled is in the state {other:?}, which this version does not know"),
        )),
        None => settled(Verdict::new(
            Status::Unknown,
            CheckError,
            "tailscaled's answer has no BackendState",
        )),
    }
}

fn expired_text(node: &NodeStatus) -> String {
    match node.key_expiry {
        Some(at) => format!("the node's key expired on {}", day(at)),
        None => "the node's key has expired".to_owned(),
    }
}

/// A date for people, in UTC as everything in a report.
fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%MZ").to_string()
}

fn starting(
    node: &NodeStatus,
    health: Option<&[HealthWarning]>,
    history: &TailscaleHistory,
    now: Timestamp,
) -> (Verdict, TailscaleHistory) {
    let (since, lasted) = lasting(history.starting, now);
    let history = TailscaleHistory {
        starting: Some(since),
        ..TailscaleHistory::default()
    };
    let state = node.state.as_deref().unwrap_or("NoState");
    let (has_key, text) = (node.have_node_key == Some(true), span_text(lasted));
    let verdict = match (lasted > STARTING_MAX, login_error(node, health)) {
        (false, _) => Verdict::new(
            Status::Warning,
            KnownWhy::Starting,
            format!("tailscaled is starting ({state})"),
        ),
        // It has a key, and cannot ask anybody: started while the control plane was out of reach.
        (true, Some(login)) if has_key => Verdict::new(
            Status::Failing,
            KnownWhy::ControlUnreachable,
            format!("tailscaled started {text} ago and has reached no control plane since: {login}"),
        ),
        (true, Some(login)) => Verdict::new(
            Status::Failing,
            KnownWhy::LoggedOut,
            format!("tailscaled has tried to log in for {text}: {login}"),
        ),
        (true, None) => Verdict::new(
            Status::Failing,
            KnownWhy::Starting,
            format!("tailscaled has been starting ({state}) for {text}; see `journalctl -u tailscaled`"),
        ),
    };
    (verdict, history)
}

/// What it says of a login that does not succeed.
fn login_error<'a>(node: &'a NodeStatus, health: Option<&'a [HealthWarning]>) -> Option<&'a str> {
    let warning = health.into_iter().flatten().find(|w| w.code == "login-state");
    let text = node.health.iter().find(|t| t.contains("logged out"));
    warning.map(|w| w.text.as_str()).or(text.map(String::as_str))
}

/// Since when, and for how long. A time in the future (the clock was set back) counts as now.
fn lasting(since: Option<Timestamp>, now: Timestamp) -> (Timestamp, Duration) {
    let since = since.filter(|&at| at <= now).unwrap_or(now);
    (
        since,
        Duration::try_from(now.duration_since(since)).unwrap_or_default(),
    )
}

fn running(
    node: &NodeStatus,
    health: Option<&[HealthWarning]>,
    settings: &TailscaleSettings,
    history: &TailscaleHistory,
    now: Timestamp,
) -> (Verdict, TailscaleHistory) {
    let mut next = TailscaleHistory::default();
    let mut found: Vec<Verdict> = key(node, settings, now).into_iter().collect();
    let warnings = warnings(node, health);
    let with = |codes: &[&str]| warnings.iter().find(|w| codes.contains(&w.code.as_str()));

    if let Some(down) = with(&["network-status"]) {
        found.push(Verdict::new(
            Status::Failing,
            KnownWhy::NetworkDown,
            format!("tailscaled finds the network down: {}", down.text),
        ));
    }
    let out_of_sync = with(&["not-in-map-poll", "mapresponse-timeout"]);
    if node.online == Some(false) || out_of_sync.is_some() {
        let (since, lasted) = lasting(history.control_lost, now);
        next.control_lost = Some(since);
        let text = format!(
            "the control plane is out of reach{}; tunnels may still work, for a while",
            lasted_text(lasted)
        );
        found.push(Verdict::new(
            worse_after(lasted, CONTROL_LOST_MAX),
            KnownWhy::ControlUnreachable,
            text,
        ));
    }
    if let Some(relay) = with(&["no-derp-connection", "no-derp-home", "derp-timed-out"]) {
        let (since, lasted) = lasting(history.relay_lost, now);
        next.relay_lost = Some(since);
        let text = format!("no relay in reach{}: {}", lasted_text(lasted), relay.text);
        found.push(Verdict::new(
            worse_after(lasted, RELAY_LOST_MAX),
            KnownWhy::RelayUnreachable,
            text,
        ));
    }
    let named = [
        "network-status",
        "not-in-map-poll",
        "mapresponse-timeout",
        "no-derp-connection",
        "no-derp-home",
        "derp-timed-out",
    ];
    for other in warnings.iter().filter(|w| !named.contains(&w.code.as_str())) {
        found.push(Verdict::new(
            Status::Warning,
            KnownWhy::HealthWarning,
            format!(
                "tailscaled warns{}: {}",
                if other.impacts_connectivity {
                    " of impaired connections"
                } else {
                    ""
                },
                other.text
            ),
        ));
    }
    // Stable: within one status the order above, which is that of consequence.
    found.sort_by_key(|v| u8::from(v.status != Status::Failing));
    let summary = found
        .iter()
        .map(|v| v.summary.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    let verdict = match found.first() {
        Some(worst) => Verdict::new(worst.status, worst.why, summary),
        None => Verdict::new(Status::Ok, KnownWhy::Fine, fine_text(node, now)),
    };
    (verdict, next)
}

fn lasted_text(lasted: Duration) -> String {
    if lasted.is_zero() {
        String::new()
    } else {
        format!(" for {}", span_text(lasted))
    }
}

fn worse_after(lasted: Duration, max: Duration) -> Status {
    if lasted > max {
        Status::Failing
    } else {
        Status::Warning
    }
}

/// What the node's key says, by its date and not by what the daemon believes.
fn key(node: &NodeStatus, settings: &TailscaleSettings, now: Timestamp) -> Option<Verdict> {
    if node.expired == Some(true) || node.key_expiry.is_some_and(|at| at <= now) {
        let text = format!(
            "{}; extend it in the admin console, or `tailscale up --force-reauth`",
            expired_text(node)
        );
        return Some(Verdict::new(Status::Failing, KnownWhy::KeyExpired, text));
    }
    let at = node.key_expiry?;
    let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
    let status = if left < settings.key_failing {
        Status::Failing
    } else if left < settings.key_warning {
        Status::Warning
    } else {
        return None;
    };
    let text = format!(
        "the node's key expires in {}, on {}: extend it in the admin console (or switch its expiry off), or `tailscale up --force-reauth`",
        span_text(left),
        day(at)
    );
    Some(Verdict::new(status, KnownWhy::KeyExpiring, text))
}

/// The warnings that matter: the structured ones, else the texts of an old daemon.
fn warnings(node: &NodeStatus, health: Option<&[HealthWarning]>) -> Vec<HealthWarning> {
    if let Some(health) = health {
        return health
            .iter()
            .filter(|w| !IGNORED.contains(&w.code.as_str()))
            .cloned()
            .collect();
    }
    let told = node
        .health
        .iter()
        .filter(|text| !IGNORED_TEXTS.iter().any(|i| text.contains(i)));
    let plain = |text: &String| HealthWarning {
        code: String::new(),
        text: text.clone(),
        impacts_connectivity: false,
    };
    told.map(plain).collect()
}

fn fine_text(node: &NodeStatus, now: Timestamp) -> String {
    let name = node
        .dns_name
        .as_deref()
        .or(node.addresses.first().map(String::as_str))
        .unwrap_or("the node");
    let key = match node.key_expiry {
        Some(at) => {
            let left = Duration::try_from(at.duration_since(now)).unwrap_or_default();
            format!("its key lasts {} more", span_text(left))
        }
        None => "its key does not expire".to_owned(),
    };
    match node.relay.as_deref() {
        Some(relay) => format!("{name} is online (relay {relay}); {key}"),
        None => format!("{name} is online; {key}"),
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
