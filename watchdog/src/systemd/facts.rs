//! What systemd says about a unit, as plain data.
//!
//! It asks nobody and judges nothing. Of the unit's environment it keeps `HERMES_HOME` only: the rest may be secret.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Everything that the judgement of a gateway looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UnitFacts {
    /// Whether there is such a unit.
    pub load: LoadState,
    /// The state in the large.
    pub active: ActiveState,
    /// The state in the small (`running`, `auto-restart`, `stop-sigterm`, …), as systemd spells it.
    pub sub: String,
    /// How the last run ended (`success`, `exit-code`, `signal`, `start-limit-hit`, …).
    pub result: String,
    /// `enabled`, `disabled`, `static`, `masked`, …
    pub file_state: String,
    /// Automatic restarts since the last start by hand (NRestarts).
    pub restarts: u32,
    /// The main process, while there is one.
    pub main_pid: Option<u32>,
    /// How the main process ended last: `CLD_EXITED` 1, `CLD_KILLED` 2, `CLD_DUMPED` 3; 0: it did not yet.
    pub exit_code: i32,
    /// Its exit status, or the signal's number.
    pub exit_status: i32,
    /// When the main process was started last.
    pub main_start: Stamp,
    /// When it ended last.
    pub main_exit: Stamp,
    /// When the unit last became active.
    pub active_enter: Stamp,
    /// When it last ceased to be active.
    pub active_exit: Stamp,
    /// When it last became inactive or failed.
    pub inactive_enter: Stamp,
    /// When it last left inactive or failed.
    pub inactive_exit: Stamp,
    /// When its state last changed, in the large or in the small.
    pub state_change: Stamp,
    /// This start's random name, 32 hexadecimal digits; empty: none.
    pub invocation: String,
    /// `Restart=`: `no`, `always`, `on-failure`, …
    pub restart: String,
    /// `RestartSec=`, or the longer one that `RestartSteps=` has come to.
    pub restart_delay: Duration,
    /// Whether systemd stops restarting it after too many starts (`StartLimitIntervalSec=`, `StartLimitBurst=`).
    pub start_limited: bool,
    /// `RestartPreventExitStatus=`, the statuses of it.
    pub restart_prevent: Vec<i32>,
    /// `TimeoutStartSec=`; none: infinite.
    pub timeout_start: Option<Duration>,
    /// `TimeoutStopSec=`; none: infinite.
    pub timeout_stop: Option<Duration>,
    /// `HERMES_HOME` of `Environment=`.
    pub hermes_home: Option<PathBuf>,
    /// `User=`; empty: root, or the manager's user.
    pub user: String,
    /// The unit's file.
    pub fragment: String,
    /// `WorkingDirectory=`.
    pub working_directory: String,
    /// What the manager is about to do with it.
    pub job: Option<Job>,
    /// `FreezerState`: `running`, `frozen`, …; empty on systemd before 246.
    pub freezer: String,
    /// Memory of its control group, bytes.
    pub memory_bytes: Option<u64>,
    /// Tasks of its control group.
    pub tasks: Option<u64>,
    /// Its control group's path.
    pub control_group: String,
    /// What it says of itself (`STATUS=`).
    pub status_text: String,
    /// Why it was not loaded, or not started for a condition; empty: neither.
    pub load_error: String,
    /// Whether its `Condition…=` lines held at the last start (or were not looked at yet).
    pub conditions_held: bool,
}

/// One of systemd's time stamps, on both of its clocks, in microseconds. Zero: never in this boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// `CLOCK_REALTIME`, since 1970.
    pub realtime_us: u64,
    /// `CLOCK_MONOTONIC`, since the kernel's boot.
    pub monotonic_us: u64,
}

impl Stamp {
    /// Whether it never happened in this boot.
    pub fn never(self) -> bool {
        self.monotonic_us == 0
    }

    /// How long ago, when the monotonic clock says `now`; none: never, zero: it happened after `now` was read.
    pub fn age(self, now: Duration) -> Option<Duration> {
        (!self.never()).then(|| now.saturating_sub(Duration::from_micros(self.monotonic_us)))
    }
}

/// A job in the manager's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    /// Its number.
    pub id: u32,
    /// `start`, `stop`, `restart`, …; empty: it ended before it could be asked.
    pub kind: String,
}

/// systemd's `LoadState`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadState {
    /// Read and understood.
    Loaded,
    /// No such unit.
    #[default]
    NotFound,
    /// Linked to `/dev/null`.
    Masked,
    /// Read, and not understood (`bad-setting`, `error`), or a newer word.
    Broken(String),
}

impl From<&str> for LoadState {
    fn from(word: &str) -> Self {
        match word {
            "loaded" | "merged" => Self::Loaded,
            "not-found" => Self::NotFound,
            "masked" => Self::Masked,
            other => Self::Broken(other.to_owned()),
        }
    }
}

/// systemd's `ActiveState`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActiveState {
    /// Running, as far as systemd can tell.
    Active,
    /// Active, and reading its configuration again.
    Reloading,
    /// Not running.
    #[default]
    Inactive,
    /// Not running, after an error.
    Failed,
    /// On its way up; also while it waits for its automatic restart.
    Activating,
    /// On its way down.
    Deactivating,
    /// A newer systemd's word.
    Other(String),
}

impl From<&str> for ActiveState {
    fn from(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "reloading" | "refreshing" => Self::Reloading,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            other => Self::Other(other.to_owned()),
        }
    }
}

impl ActiveState {
    /// systemd's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Other(word) => word,
        }
    }
}

impl UnitFacts {
    /// Waiting for its automatic restart after a crash.
    pub fn auto_restart(&self) -> bool {
        self.active == ActiveState::Activating && self.sub.starts_with("auto-restart")
    }
}
