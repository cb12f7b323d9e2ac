//! What the watchdog does on this box, checked: past this module no invalid value exists.
//!
//! It reads no file: `config` turns a file into this.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use protocol::names::{BoxName, Labels, UnitName};
use url::Url;

/// All of it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The box's name (default: the host name).
    pub name: BoxName,
    /// Labels that the box declares.
    pub labels: Labels,
    /// Where state, reports and evidence are kept; default `$STATE_DIRECTORY` or `/var/lib/fleet-watchdog`.
    pub state_dir: PathBuf,
    /// In memory: where the report is kept while the state directory takes nothing (a full disk, a read-only one: what
    /// the server must hear of). `$RUNTIME_DIRECTORY`, or what the units make of it beside the default state directory.
    pub spare_dir: Option<PathBuf>,
    /// Where heartbeats go; none: checks only.
    pub server: Option<ServerSettings>,
    /// The resident part.
    pub heartbeat: HeartbeatSettings,
    /// The run of checks.
    pub run: RunSettings,
    /// The gateway units, in the file's order; empty: not configured.
    pub gateways: Vec<GatewaySettings>,
    /// `enabled = false` in `[gateway]`: the box has none.
    pub gateway_disabled: bool,
    /// Mounts and thresholds.
    pub disk: CheckSettings<DiskSettings>,
    /// Where backups are found.
    pub backup: CheckSettings<BackupSettings>,
    /// tailscaled.
    pub tailscale: CheckSettings<TailscaleSettings>,
}

/// One of the checks that every box has: configured, not configured, or said to be absent.
#[derive(Debug, Clone)]
pub enum CheckSettings<T> {
    /// Look at this.
    On(T),
    /// Nothing in the configuration: `unknown` (`not_configured`) with a hint.
    NotConfigured,
    /// `enabled = false`: the box has none.
    Disabled,
}

/// Where heartbeats go.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// `https://…` (or `http://` to loopback and private addresses, for a server behind a tunnel), in order of preference; at least one.
    pub urls: Vec<Url>,
    /// The box's token; default `$CREDENTIALS_DIRECTORY/token`, else `/etc/fleet-watchdog/token`.
    pub token_file: PathBuf,
    /// Certificates to trust instead of the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

/// The resident part.
#[derive(Debug, Clone)]
pub struct HeartbeatSettings {
    /// Between two beats; default 1 s; 250 ms to 1 h.
    pub every: Duration,
    /// Who sends.
    pub mode: HeartbeatMode,
    /// How long an announced reboot may take before the absence is overdue; default 10 min.
    pub back_within: Duration,
}

/// Who sends heartbeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatMode {
    /// `fleet-watchdog beat`, all the time.
    Resident,
    /// The check run sends one that says when the next is due.
    Timer,
}

/// The run of checks.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// The timer's period; default 2 min. Only told to the server and used to call a report old; systemd's timer decides.
    pub every: Duration,
    /// One check's time-out unless its table says otherwise; default 20 s.
    pub check_timeout: Duration,
    /// Evidence bundles kept; default 20.
    pub evidence_keep: usize,
}

/// When a unit is restarted for a failing check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The unit.
    pub unit: UnitName,
    /// Consecutive failing runs before a restart; default 3.
    pub after: u32,
    /// Restarts in a window; default 3. Zero: never restart, only report.
    pub max: u32,
    /// The window; default 1 h.
    pub window: Duration,
    /// After a restart (or start), failing is not counted for this long; default 2 min.
    pub grace: Duration,
}

/// One gateway unit.
#[derive(Debug, Clone)]
pub struct GatewaySettings {
    /// The unit.
    pub unit: UnitName,
    /// Whose service manager.
    pub scope: Scope,
    /// When it is restarted.
    pub restart: RestartPolicy,
    /// Liveness beyond the unit, in the file's order; all of them must hold.
    pub probes: Vec<Probe>,
    /// `preset = "hermes"`.
    pub hermes: Option<HermesSettings>,
    /// This check's time-out.
    pub timeout: Duration,
}

/// Whose service manager a unit belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// The system's.
    System,
    /// A user's, by name.
    User(String),
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// What is asked.
    pub target: ProbeTarget,
    /// How long it may take; default 5 s.
    pub timeout: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone)]
pub enum ProbeTarget {
    /// `GET` answers with a 2xx status.
    Http(Url),
    /// The port accepts a connection.
    Tcp(SocketAddr),
    /// The socket accepts a connection.
    Unix(PathBuf),
    /// The file was changed within `max_age`.
    File {
        /// The file.
        path: PathBuf,
        /// How old it may be; default 3 min.
        max_age: Duration,
    },
}

/// Names inside a Hermes home; every one a default, none a constant (versions differ).
#[derive(Debug, Clone)]
pub struct HermesSettings {
    /// HERMES_HOME; none: the unit's own `Environment=HERMES_HOME`, else `~/.hermes` of the unit's user.
    pub home: Option<PathBuf>,
    /// Heartbeat file older than this is stale; default 90 s.
    pub heartbeat_stale: Duration,
    /// Cron ticker older than this is a warning; default 180 s.
    pub cron_stale: Duration,
    /// Last successful cron tick older than this is a warning; default 300 s.
    pub cron_success_stale: Duration,
}

/// Mounts and thresholds.
#[derive(Debug, Clone)]
pub struct DiskSettings {
    /// Mount points (or any path on them); default `/`.
    pub mounts: Vec<PathBuf>,
    /// Paths whose file systems are watched too, as far as they exist: state directory and backups, unless the
    /// configuration lists its mounts itself.
    pub also: Vec<PathBuf>,
    /// Warning under this share of bytes free; default 0.10 (together with `warning_free_bytes`).
    pub warning_free_ratio: f64,
    /// … and under this many bytes; default 5 GiB.
    pub warning_free_bytes: u64,
    /// Failing under this share of bytes free; default 0.02 (together with `failing_free_bytes`).
    pub failing_free_ratio: f64,
    /// … and under this many bytes; default 1 GiB.
    pub failing_free_bytes: u64,
    /// Warning when the forecast says full within this; default 24 h.
    pub warning_full_within: Duration,
    /// Failing when the forecast says full within this; default 2 h.
    pub failing_full_within: Duration,
    /// `restart = "<unit>"` for this check.
    pub restart: Option<RestartPolicy>,
    /// This check's time-out.
    pub timeout: Duration,
}

/// Where backups are found and how old they may be.
#[derive(Debug, Clone)]
pub struct BackupSettings {
    /// Where.
    pub source: BackupSource,
    /// Older is a warning; default 26 h.
    pub warning_after: Duration,
    /// Older is failing; default 50 h.
    pub failing_after: Duration,
    /// `restart = "<unit>"` for this check.
    pub restart: Option<RestartPolicy>,
    /// This check's time-out.
    pub timeout: Duration,
}

/// Where backups are found.
#[derive(Debug, Clone)]
pub enum BackupSource {
    /// The newest file that a glob matches.
    Newest {
        /// The glob, absolute.
        glob: String,
        /// Smaller is no backup; default 1 byte.
        min_bytes: u64,
    },
    /// A stamp file's modification time.
    Stamp(PathBuf),
    /// Hermes quick snapshots: `<home>/state-snapshots/*/manifest.json`.
    HermesSnapshots(PathBuf),
    /// A command that prints a listing.
    Command {
        /// Program and arguments; never a shell.
        argv: Vec<String>,
        /// What it prints.
        format: BackupFormat,
        /// How long it may take; default 60 s. [`BackupSettings::timeout`] is a little longer.
        timeout: Duration,
    },
}

/// What a backup command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackupFormat {
    /// `restic snapshots --json`.
    Restic,
    /// `borg list --json`.
    Borg,
}

/// tailscaled.
#[derive(Debug, Clone)]
pub struct TailscaleSettings {
    /// LocalAPI socket; default `/run/tailscale/tailscaled.sock`.
    pub socket: PathBuf,
    /// Key expiry ahead: warning; default 14 d.
    pub key_warning: Duration,
    /// Key expiry ahead: failing; default 2 d.
    pub key_failing: Duration,
    /// `restart = "<unit>"` for this check.
    pub restart: Option<RestartPolicy>,
    /// This check's time-out.
    pub timeout: Duration,
}

impl TailscaleSettings {
    /// What an empty `[tailscale]` table means.
    pub fn with_defaults(timeout: Duration) -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            socket: PathBuf::from("/run/tailscale/tailscaled.sock"),
            key_warning: 14 * DAY,
            key_failing: 2 * DAY,
            restart: None,
            timeout,
        }
    }
}
