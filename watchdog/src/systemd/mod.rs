//! The service manager as the watchdog sees it: what a unit is doing, and a restart. Nothing outside this folder
//! names `zbus`.
//!
//! It reports facts and results of jobs; what they mean is judged in `checks::gateway` and `remedy`.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::names::UnitName;
use protocol::why::KnownWhy;

use crate::accounts;
use crate::settings::Scope;

pub mod facts;
#[cfg(test)]
pub mod fake;
pub mod manager;
pub mod follow;
pub mod logind;
pub mod notify;

pub use facts::{ActiveState, Job, LoadState, Stamp, UnitFacts};

/// How long the bus may take to let us in, and how long it may take to answer one call. A healthy one needs
/// milliseconds; `polkitd` started on demand needs a second.
pub const BUS_TIMEOUT: Duration = Duration::from_secs(5);

/// The manager's well-known name.
pub const MANAGER_NAME: &str = "org.freedesktop.systemd1";
/// The manager's object.
pub const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// The manager's interface.
pub const MANAGER_INTERFACE: &str = "org.freedesktop.systemd1.Manager";
/// The interface that every unit has.
pub const UNIT_INTERFACE: &str = "org.freedesktop.systemd1.Unit";
/// The interface that service units have besides.
pub const SERVICE_INTERFACE: &str = "org.freedesktop.systemd1.Service";

/// What the watchdog asks of a service manager.
pub trait ServiceManager: Send + Sync {
    /// What `unit` is doing now. A unit that does not exist is no error: its load state says so.
    fn unit(&self, unit: &UnitName) -> impl Future<Output = Result<UnitFacts, ManagerError>> + Send;

    /// Restarts `unit` and waits for the job, at most for `deadline`; after that the job goes on and the result is
    /// [`JobResult::Pending`]. `Done` is not healthy: look again.
    fn restart(
        &self,
        unit: &UnitName,
        deadline: Duration,
    ) -> impl Future<Output = Result<JobOutcome, ManagerError>> + Send;
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOutcome {
    /// In systemd's word.
    pub result: JobResult,
    /// From the request to the end (or to the deadline).
    pub took: Duration,
}

/// systemd's words for the end of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobResult {
    /// Carried out. Says nothing about what the process did a moment later.
    Done,
    /// The unit did not come up.
    Failed,
    /// Somebody else cancelled it.
    Canceled,
    /// The job's own time-out.
    Timeout,
    /// A unit that it needs did not come up.
    Dependency,
    /// Nothing to do.
    Skipped,
    /// Still running when the deadline passed.
    Pending,
    /// A newer systemd's word.
    Other(String),
}

impl JobResult {
    /// systemd's word, or `pending`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Timeout => "timeout",
            Self::Dependency => "dependency",
            Self::Skipped => "skipped",
            Self::Pending => "pending",
            Self::Other(word) => word,
        }
    }
}

impl From<&str> for JobResult {
    fn from(word: &str) -> Self {
        match word {
            "done" => Self::Done,
            "failed" => Self::Failed,
            "canceled" => Self::Canceled,
            "timeout" => Self::Timeout,
            "dependency" => Self::Dependency,
            "skipped" => Self::Skipped,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Why the service manager gave no answer, or a refusal. Each names the object and the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManagerError {
    /// No connection.
    #[error("cannot reach {bus}: {detail}; check `systemctl status dbus`")]
    Unreachable {
        /// Which bus.
        bus: String,
        /// What the system said.
        detail: String,
    },
    /// The user has no running manager.
    #[error("{user} has no service manager running ({path}: {detail}); run `loginctl enable-linger {user}`")]
    NoUserManager {
        /// The user.
        user: String,
        /// Its bus.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// A user's bus lets in nobody else, not even root.
    #[error(
        "the service manager of {user} lets in only that user, and this runs as uid {own_uid}; \
         set User={user} in a drop-in of fleet-watchdog.service and fleet-watchdog-beat.service"
    )]
    OtherUser {
        /// The user.
        user: String,
        /// Ours.
        own_uid: u32,
    },
    /// No such user.
    #[error("scope = \"user:{user}\": {source}")]
    NoSuchUser {
        /// The user.
        user: String,
        /// What was looked up.
        source: accounts::AccountError,
    },
    /// Connected, but no answer in time.
    #[error("{bus} did not answer {call} within {}s", BUS_TIMEOUT.as_secs())]
    TimedOut {
        /// Which bus.
        bus: String,
        /// The method.
        call: String,
    },
    /// polkit said no.
    #[error(
        "polkit refused to {verb} {unit}; install the watchdog's rule in /etc/polkit-1/rules.d \
         (it names the unit), or run as a user that may"
    )]
    Refused {
        /// `restart`, `reset-failed`.
        verb: &'static str,
        /// The unit.
        unit: UnitName,
    },
    /// Masked.
    #[error("{unit} is masked; `systemctl unmask {unit}` if it should run again")]
    Masked {
        /// The unit.
        unit: UnitName,
    },
    /// No such unit.
    #[error("there is no unit {unit}; `systemctl list-unit-files` shows what there is")]
    NoSuchUnit {
        /// The unit.
        unit: UnitName,
    },
    /// Anything else that the manager answered.
    #[error("{bus} answered {call} with an error: {detail}")]
    Answered {
        /// Which bus.
        bus: String,
        /// The method.
        call: String,
        /// The error's name and text.
        detail: String,
    },
}

impl ManagerError {
    /// The word for a report.
    pub fn why(&self) -> KnownWhy {
        match self {
            Self::Unreachable { .. } | Self::NoUserManager { .. } | Self::TimedOut { .. } => {
                KnownWhy::ManagerUnreachable
            }
            Self::OtherUser { .. } | Self::Refused { .. } => KnownWhy::NotPermitted,
            Self::Masked { .. } => KnownWhy::UnitMasked,
            Self::NoSuchUnit { .. } => KnownWhy::UnitNotFound,
            Self::NoSuchUser { .. } | Self::Answered { .. } => KnownWhy::CheckError,
        }
    }
}

/// A connection to the bus on which `scope`'s manager (and, for the system, logind) is found.
pub async fn connect(scope: &Scope) -> Result<zbus::Connection, ManagerError> {
    let builder = match scope {
        Scope::System => zbus::connection::Builder::system(),
        Scope::User(name) => {
            let path = user_bus(name)?;
            zbus::connection::Builder::address(format!("unix:path={}", path.display()).as_str())
        }
    };
    let connecting = builder.method_timeout(BUS_TIMEOUT).build();
    let detail = match tokio::time::timeout(BUS_TIMEOUT, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {}s", BUS_TIMEOUT.as_secs()),
    };
    Err(match scope {
        Scope::System => ManagerError::Unreachable {
            bus: bus_name(scope),
            detail,
        },
        Scope::User(user) => ManagerError::NoUserManager {
            path: user_bus(user)?,
            user: user.clone(),
            detail,
        },
    })
}

/// The bus in a sentence.
pub(crate) fn bus_name(scope: &Scope) -> String {
    match scope {
        Scope::System => "the system bus".to_owned(),
        Scope::User(name) => format!("the bus of user {name}"),
    }
}

/// `/run/user/UID/bus`, once it is sure that it would let us in.
fn user_bus(user: &str) -> Result<PathBuf, ManagerError> {
    let account = accounts::by_name(Path::new("/"), user).map_err(|source| ManagerError::NoSuchUser {
        user: user.to_owned(),
        source,
    })?;
    let own_uid = rustix::process::geteuid().as_raw();
    if account.uid != own_uid {
        return Err(ManagerError::OtherUser {
            user: user.to_owned(),
            own_uid,
        });
    }
    Ok(PathBuf::from(format!("/run/user/{}/bus", account.uid)))
}
