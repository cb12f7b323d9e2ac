//! Holds logind's delay lock, so that a goodbye can leave before the machine goes, and tells when it goes.
//!
//! It sends no goodbye itself and stops nothing. Without logind (a container, a bus that is down) it tries again, and
//! the goodbye is left to SIGTERM ([`going_down`]).

use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::heartbeat::GoodbyeWhy;
use tokio::sync::{mpsc, oneshot};
use zbus::message::Type;
use zbus::{Connection, MatchRule, MessageStream, OwnedFd, OwnedObjectPath, OwnedVariant};

use super::{MANAGER_INTERFACE, MANAGER_NAME, MANAGER_PATH, ManagerError, connect};
use crate::settings::Scope;

const LOGIN_NAME: &str = "org.freedesktop.login1";
const LOGIN_PATH: &str = "/org/freedesktop/login1";
const LOGIN_INTERFACE: &str = "org.freedesktop.login1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
/// The lock is given back after this, whatever became of the goodbye: under logind's own five seconds.
const HOLD_MAX: Duration = Duration::from_millis(4_000);
/// How long the bus may take to say whether the machine goes down: the process has been told to stop.
const ASK_TIMEOUT: Duration = Duration::from_millis(700);
/// First wait before another try; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait before another try.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Signals kept while nobody reads.
const SIGNALS: usize = 8;

/// What logind said.
#[derive(Debug)]
pub enum Departure {
    /// The machine is about to go; it waits until `said` is sent or dropped, or four seconds.
    Going {
        /// How.
        why: GoodbyeWhy,
        /// To be dropped once the goodbye is out.
        said: oneshot::Sender<()>,
    },
    /// The lock is held: a goodbye will be in time.
    Holding,
    /// It stays after all, or is awake again.
    Staying,
    /// There is no logind to ask; why.
    Lost(String),
}

/// Follows logind until nobody listens.
pub async fn follow(tell: mpsc::Sender<Departure>) {
    let mut wait = RETRY_MIN;
    loop {
        let mut reached = false;
        let Err(error) = session(&tell, &mut reached).await else {
            return;
        };
        wait = if reached {
            RETRY_MIN
        } else {
            (wait * 2).min(RETRY_MAX)
        };
        if tell.send(Departure::Lost(error.to_string())).await.is_err() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error("logind: {0}")]
    Bus(#[from] zbus::Error),
    #[error("logind's bus closed the connection")]
    Closed,
}

async fn session(tell: &mpsc::Sender<Departure>, reached: &mut bool) -> Result<(), Ended> {
    let connection = connect(&Scope::System).await?;
    let mut shutdowns = listen(&connection, "PrepareForShutdown").await?;
    let mut sleeps = listen(&connection, "PrepareForSleep").await?;
    // One lock each: for both at once logind asks polkit for a right that a service does not have (seen on 252).
    let mut before_shutdown = Some(take_lock(&connection, "shutdown").await?);
    // A machine that cannot sleep has no such lock, and needs none.
    let mut before_sleep = take_lock(&connection, "sleep").await.ok();
    *reached = true;
    if tell.send(Departure::Holding).await.is_err() {
        return Ok(());
    }
    loop {
        let (message, sleeping) = tokio::select! {
            message = shutdowns.next() => (message, false),
            message = sleeps.next() => (message, true),
            () = tell.closed() => return Ok(()),
        };
        let message = message.ok_or(Ended::Closed)??;
        let Ok(going) = message.body().deserialize::<bool>() else {
            continue;
        };
        let lock = if sleeping {
            &mut before_sleep
        } else {
            &mut before_shutdown
        };
        if !going {
            let what = if sleeping { "sleep" } else { "shutdown" };
            *lock = Some(take_lock(&connection, what).await?);
            if tell.send(Departure::Staying).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let why = if sleeping {
            GoodbyeWhy::Suspend
        } else {
            scheduled(&connection).await
        };
        let (said, heard) = oneshot::channel();
        if tell.send(Departure::Going { why, said }).await.is_err() {
            return Ok(());
        }
        let _ = tokio::time::timeout(HOLD_MAX, heard).await;
        // Closing the descriptor is what lets the machine go on.
        drop(lock.take());
    }
}

async fn listen(connection: &Connection, member: &'static str) -> zbus::Result<MessageStream> {
    let rule = MatchRule::builder()
        .msg_type(Type::Signal)
        .sender(LOGIN_NAME)
        .path(LOGIN_PATH)
        .interface(LOGIN_INTERFACE)
        .member(member)
        .build()?;
    MessageStream::for_match_rule(rule, connection, NonZeroUsize::new(SIGNALS)).await
}

async fn take_lock(connection: &Connection, what: &str) -> zbus::Result<OwnedFd> {
    let body = (what, "Fleet Watchdog", "says goodbye to its server", "delay");
    let interface = Some(LOGIN_INTERFACE);
    let reply = connection
        .call_method(Some(LOGIN_NAME), LOGIN_PATH, interface, "Inhibit", &body)
        .await?;
    reply.body().deserialize()
}

/// How the machine goes. Asked for each time: logind does not say when this property changes.
async fn scheduled(connection: &Connection) -> GoodbyeWhy {
    let body = (LOGIN_INTERFACE, "ScheduledShutdown");
    let asking = connection.call_method(Some(LOGIN_NAME), LOGIN_PATH, Some(PROPERTIES), "Get", &body);
    let kind = async {
        let reply = asking.await.ok()?;
        let value: OwnedVariant = reply.body().deserialize().ok()?;
        <(String, u64)>::try_from(value).ok()
    };
    let kind = tokio::time::timeout(ASK_TIMEOUT, kind).await.ok().flatten();
    if let Some(why) = kind.and_then(|(kind, _)| why_of(&kind)) {
        return why;
    }
    match target_under_way(connection).await {
        Some(why) => why,
        // The commonest, and the one that promises a return.
        None => GoodbyeWhy::Reboot,
    }
}

/// `reboot`, `poweroff`, … as logind calls them; a rehearsal (`dry-…`) is none.
fn why_of(kind: &str) -> Option<GoodbyeWhy> {
    match kind {
        "reboot" | "soft-reboot" => Some(GoodbyeWhy::Reboot),
        "poweroff" => Some(GoodbyeWhy::Poweroff),
        "halt" => Some(GoodbyeWhy::Halt),
        "kexec" => Some(GoodbyeWhy::Kexec),
        _ => None,
    }
}

/// Whether the machine goes down, and how: for a process that was told to stop and does not know why. Bounded.
pub async fn going_down() -> Option<GoodbyeWhy> {
    let asking = async {
        let connection = connect(&Scope::System).await.ok()?;
        target_under_way(&connection).await
    };
    tokio::time::timeout(ASK_TIMEOUT, asking).await.ok().flatten()
}

type JobRow = (u32, String, String, String, OwnedObjectPath, OwnedObjectPath);

/// By the manager's queue: a start job of one of the targets that end a system.
async fn target_under_way(connection: &Connection) -> Option<GoodbyeWhy> {
    let interface = Some(MANAGER_INTERFACE);
    let asking = connection.call_method(Some(MANAGER_NAME), MANAGER_PATH, interface, "ListJobs", &());
    let reply = tokio::time::timeout(ASK_TIMEOUT, asking).await.ok()?.ok()?;
    let jobs: Vec<JobRow> = reply.body().deserialize().ok()?;
    let started = |unit: &str| jobs.iter().any(|job| job.1 == unit && job.2 == "start");
    let targets = [
        ("reboot.target", GoodbyeWhy::Reboot),
        ("soft-reboot.target", GoodbyeWhy::Reboot),
        ("kexec.target", GoodbyeWhy::Kexec),
        ("poweroff.target", GoodbyeWhy::Poweroff),
        ("halt.target", GoodbyeWhy::Halt),
    ];
    let named = targets
        .into_iter()
        .find(|(unit, _)| started(unit))
        .map(|(_, why)| why);
    named.or_else(|| started("shutdown.target").then_some(GoodbyeWhy::Poweroff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehearsal_is_no_shutdown() {
        assert_eq!(why_of("reboot"), Some(GoodbyeWhy::Reboot));
        assert_eq!(why_of("dry-reboot"), None);
        assert_eq!(why_of(""), None);
    }
}
