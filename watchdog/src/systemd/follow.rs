//! Follows units by the service manager's signals, and tells each change of state and each job at once.
//!
//! It judges nothing: who stopped a unit is worked out in `beat::units`. It survives a bus that is restarted, absent or
//! mute, and a manager that re-executes itself: then it says that it knows nothing, and tries again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use protocol::names::UnitName;
use tokio::sync::mpsc;
use zbus::message::Type;
use zbus::{Connection, Message, MessageStream, OwnedObjectPath, OwnedVariant};

use super::{
    MANAGER_INTERFACE, MANAGER_NAME, MANAGER_PATH, ManagerError, SERVICE_INTERFACE, UNIT_INTERFACE, bus_name,
    connect,
};
use crate::settings::Scope;

/// First wait before another try; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Longest wait before another try.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// The states are read again after this, in case a signal was lost.
const READ_AGAIN: Duration = Duration::from_secs(30);
/// How long reading all states may take.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long asking for a job's type may take.
const JOB_TIMEOUT: Duration = Duration::from_secs(1);
/// Messages kept while nobody reads; more wait in the socket.
const SIGNALS: NonZeroUsize = NonZeroUsize::new(256).unwrap();
const BUS_NAME: &str = "org.freedesktop.DBus";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// A unit's state as the manager tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// `ActiveState`.
    pub active: String,
    /// `SubState`.
    pub sub: String,
    /// `Result`; none for a unit that is no service.
    pub result: Option<String>,
    /// `NRestarts`.
    pub restarts: u64,
}

impl Seen {
    /// A run of it is under way (not: waiting for its next one).
    pub fn runs(&self) -> bool {
        self.is_up() && !self.sub.starts_with("auto-restart")
    }

    /// Running, or on its way to it.
    pub fn is_up(&self) -> bool {
        ["active", "activating", "reloading", "refreshing", "maintenance"].contains(&self.active.as_str())
    }
}

/// What kind of job; restarts are none of the first two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// `start`.
    Start,
    /// `stop`.
    Stop,
    /// `restart`, `reload`, …
    Other,
}

/// What the service manager said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A unit's state.
    Unit {
        /// Which.
        unit: UnitName,
        /// The state.
        seen: Seen,
    },
    /// A job was queued for a unit.
    JobNew {
        /// Which.
        unit: UnitName,
        /// The job's number.
        id: u32,
    },
    /// What kind of job that is; not told for one that was over before the question came.
    JobKind {
        /// Which.
        unit: UnitName,
        /// The job's number.
        id: u32,
        /// The kind.
        kind: JobKind,
    },
    /// A job ended.
    JobEnded {
        /// Which.
        unit: UnitName,
        /// The job's number.
        id: u32,
        /// Its result was `done`.
        done: bool,
    },
    /// Nothing is known of these units any more.
    Lost {
        /// Which.
        units: Vec<UnitName>,
        /// Why, and what to do.
        detail: String,
    },
}

/// Follows `units` of `scope` until nobody listens.
pub async fn follow(scope: Scope, units: Vec<UnitName>, tell: mpsc::Sender<News>) {
    let mut wait = RETRY_MIN;
    loop {
        let mut reached = false;
        let Err(ended) = session(&scope, &units, &tell, &mut reached).await else {
            return;
        };
        if reached {
            // A manager that re-executes itself is back in a moment: what was known of the units still holds.
            wait = RETRY_MIN;
        } else {
            let lost = News::Lost {
                units: units.clone(),
                detail: ended.to_string(),
            };
            if tell.send(lost).await.is_err() {
                return;
            }
            wait = (wait * 2).min(RETRY_MAX);
        }
        tokio::time::sleep(wait).await;
    }
}

#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Manager(#[from] ManagerError),
    #[error("{bus}: {source}")]
    Bus { bus: String, source: zbus::Error },
    #[error("{bus} closed the connection")]
    Closed { bus: String },
    #[error("the service manager on {bus} was replaced")]
    Replaced { bus: String },
    #[error("the service manager on {bus} did not answer within {}s", READ_TIMEOUT.as_secs())]
    Mute { bus: String },
}

/// One connection's time. `Ok`: nobody listens any more.
async fn session(
    scope: &Scope,
    units: &[UnitName],
    tell: &mpsc::Sender<News>,
    reached: &mut bool,
) -> Result<(), Ended> {
    let bus = || bus_name(scope);
    let on_bus = |source| Ended::Bus { bus: bus(), source };
    let connection = connect(scope).await?;
    // All signals come through one queue, in the order in which they were sent. Listening comes before looking:
    // nothing can happen between the two.
    let mut signals = MessageStream::from(&connection);
    signals.set_max_queued(SIGNALS);
    let subscribing = subscribe(&connection, units);
    let mut followed = within(scope, subscribing).await?.map_err(on_bus)?;
    let mut questions = FuturesUnordered::new();
    for one in &followed {
        questions.push(ask_pending(&connection, one.name.clone(), one.path.clone()).boxed());
    }
    let mut again = tokio::time::interval(READ_AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let mut news = Vec::new();
        tokio::select! {
            message = signals.next() => {
                let message = message.ok_or_else(|| Ended::Closed { bus: bus() })?.map_err(on_bus)?;
                if message.message_type() != Type::Signal {
                    continue;
                }
                match read(&message, &mut followed) {
                    Some(Signal::Replaced) => return Err(Ended::Replaced { bus: bus() }),
                    Some(Signal::JobNew { unit, id, path }) => {
                        questions.push(ask_kind(&connection, unit.clone(), id, path).boxed());
                        news.push(News::JobNew { unit, id });
                    }
                    Some(Signal::News(one)) => news.push(one),
                    None => {}
                }
            }
            Some(answer) = questions.next() => news.extend(answer),
            // The first tick is now: the first look.
            _ = again.tick() => {
                let read = within(scope, read_all(&connection, &followed)).await?;
                for (one, seen) in followed.iter_mut().zip(read.map_err(on_bus)?) {
                    one.seen = seen;
                    news.push(one.news());
                }
                *reached = true;
            }
            () = tell.closed() => return Ok(()),
        }
        for one in news {
            if tell.send(one).await.is_err() {
                return Ok(());
            }
        }
    }
}

async fn within<T>(scope: &Scope, work: impl Future<Output = T>) -> Result<T, Ended> {
    let mute = |_| Ended::Mute { bus: bus_name(scope) };
    tokio::time::timeout(READ_TIMEOUT, work).await.map_err(mute)
}

struct One {
    name: UnitName,
    path: OwnedObjectPath,
    seen: Seen,
}

impl One {
    fn news(&self) -> News {
        News::Unit {
            unit: self.name.clone(),
            seen: self.seen.clone(),
        }
    }

    /// `PropertiesChanged` carries the values; systemd sends the service's before the unit's, so that with the latter
    /// all of a change is known.
    fn changed(&mut self, message: &Message) -> Option<News> {
        let body = message.body();
        let (interface, values, _) = body
            .deserialize::<(String, HashMap<String, OwnedVariant>, Vec<String>)>()
            .ok()?;
        for (name, value) in values {
            match (interface.as_str(), name.as_str()) {
                (UNIT_INTERFACE, "ActiveState") => put(&mut self.seen.active, value),
                (UNIT_INTERFACE, "SubState") => put(&mut self.seen.sub, value),
                (SERVICE_INTERFACE, "Result") => self.seen.result = String::try_from(value).ok(),
                (SERVICE_INTERFACE, "NRestarts") => {
                    self.seen.restarts = u32::try_from(value).map_or(self.seen.restarts, u64::from);
                }
                _ => {}
            }
        }
        (interface == UNIT_INTERFACE).then(|| self.news())
    }
}

fn put(field: &mut String, value: OwnedVariant) {
    if let Ok(text) = String::try_from(value) {
        *field = text;
    }
}

enum Signal {
    News(News),
    JobNew {
        unit: UnitName,
        id: u32,
        path: OwnedObjectPath,
    },
    Replaced,
}

/// What a signal means, if it is one of those that were asked for.
fn read(message: &Message, followed: &mut [One]) -> Option<Signal> {
    let header = message.header();
    let body = message.body();
    let named = |unit: &str| {
        followed
            .iter()
            .find(|one| one.name.as_str() == unit)
            .map(|one| one.name.clone())
    };
    match (header.interface()?.as_str(), header.member()?.as_str()) {
        (PROPERTIES, "PropertiesChanged") => {
            let path = header.path()?;
            let one = followed
                .iter_mut()
                .find(|one| one.path.as_str() == path.as_str())?;
            one.changed(message).map(Signal::News)
        }
        (MANAGER_INTERFACE, "JobNew") => {
            let (id, path, unit) = body.deserialize::<(u32, OwnedObjectPath, String)>().ok()?;
            let unit = named(&unit)?;
            Some(Signal::JobNew { unit, id, path })
        }
        (MANAGER_INTERFACE, "JobRemoved") => {
            let (id, _, unit, result) = body
                .deserialize::<(u32, OwnedObjectPath, String, String)>()
                .ok()?;
            let (unit, done) = (named(&unit)?, result == "done");
            Some(Signal::News(News::JobEnded { unit, id, done }))
        }
        // The manager re-executed itself, or came back: its subscribers are to be told anew.
        (BUS_NAME, "NameOwnerChanged") => {
            let (name, _, new) = body.deserialize::<(String, String, String)>().ok()?;
            (name == MANAGER_NAME && !new.is_empty()).then_some(Signal::Replaced)
        }
        _ => None,
    }
}

async fn subscribe(connection: &Connection, units: &[UnitName]) -> zbus::Result<Vec<One>> {
    let mut followed = Vec::new();
    for unit in units {
        let path = load(connection, unit).await?;
        let changes = format!(
            "type='signal',sender='{MANAGER_NAME}',interface='{PROPERTIES}',member='PropertiesChanged',path='{path}'"
        );
        add_match(connection, &changes).await?;
        for member in ["JobNew", "JobRemoved"] {
            let jobs = format!(
                "type='signal',sender='{MANAGER_NAME}',interface='{MANAGER_INTERFACE}',member='{member}',arg2='{unit}'"
            );
            add_match(connection, &jobs).await?;
        }
        followed.push(One {
            name: unit.clone(),
            path,
            seen: Seen::default(),
        });
    }
    let owner = format!(
        "type='signal',sender='{BUS_NAME}',interface='{BUS_NAME}',member='NameOwnerChanged',arg0='{MANAGER_NAME}'"
    );
    add_match(connection, &owner).await?;
    // Without it the manager sends no signals at all.
    match call(connection, MANAGER_PATH, MANAGER_INTERFACE, "Subscribe", &()).await {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with("AlreadySubscribed") => {}
        other => drop(other?),
    }
    Ok(followed)
}

/// By hand, because what zbus offers is a stream of its own for each rule, and no order among them.
async fn add_match(connection: &Connection, rule: &str) -> zbus::Result<()> {
    let path = "/org/freedesktop/DBus";
    let body = (rule,);
    let added = connection.call_method(Some(BUS_NAME), path, Some(BUS_NAME), "AddMatch", &body);
    added.await.map(drop)
}

async fn call<B>(
    connection: &Connection,
    path: &str,
    interface: &str,
    method: &str,
    body: &B,
) -> zbus::Result<Message>
where
    B: serde::Serialize + zbus::DynamicType,
{
    connection
        .call_method(Some(MANAGER_NAME), path, Some(interface), method, body)
        .await
}

async fn load(connection: &Connection, unit: &UnitName) -> zbus::Result<OwnedObjectPath> {
    let reply = call(
        connection,
        MANAGER_PATH,
        MANAGER_INTERFACE,
        "LoadUnit",
        &(unit.as_str(),),
    )
    .await?;
    reply.body().deserialize()
}

async fn read_all(connection: &Connection, units: &[One]) -> zbus::Result<Vec<Seen>> {
    let mut all = Vec::new();
    for one in units {
        let path = one.path.as_str();
        let (active, sub, result, restarts) = tokio::join!(
            get::<String>(connection, path, UNIT_INTERFACE, "ActiveState"),
            get::<String>(connection, path, UNIT_INTERFACE, "SubState"),
            get::<String>(connection, path, SERVICE_INTERFACE, "Result"),
            get::<u32>(connection, path, SERVICE_INTERFACE, "NRestarts"),
        );
        all.push(Seen {
            active: active?,
            sub: sub?,
            result: result.ok(),
            restarts: restarts.unwrap_or_default().into(),
        });
    }
    Ok(all)
}

async fn get<T>(connection: &Connection, path: &str, interface: &str, name: &str) -> zbus::Result<T>
where
    T: TryFrom<OwnedVariant>,
{
    let reply = call(connection, path, PROPERTIES, "Get", &(interface, name)).await?;
    let value: OwnedVariant = reply.body().deserialize()?;
    T::try_from(value).map_err(|_| zbus::Error::Failure(format!("{interface}.{name} has an unexpected type")))
}

/// A job that was queued before we listened.
async fn ask_pending(connection: &Connection, unit: UnitName, path: OwnedObjectPath) -> Vec<News> {
    let asking = get::<OwnedVariant>(connection, path.as_str(), UNIT_INTERFACE, "Job");
    let job = tokio::time::timeout(JOB_TIMEOUT, asking)
        .await
        .ok()
        .and_then(Result::ok);
    let Some((id, path)) = job.and_then(|job| <(u32, OwnedObjectPath)>::try_from(job).ok()) else {
        return Vec::new();
    };
    if id == 0 {
        return Vec::new();
    }
    let mut news = vec![News::JobNew {
        unit: unit.clone(),
        id,
    }];
    news.extend(ask_kind(connection, unit, id, path).await);
    news
}

async fn ask_kind(connection: &Connection, unit: UnitName, id: u32, path: OwnedObjectPath) -> Vec<News> {
    let asking = get::<String>(
        connection,
        path.as_str(),
        "org.freedesktop.systemd1.Job",
        "JobType",
    );
    let Ok(Ok(kind)) = tokio::time::timeout(JOB_TIMEOUT, asking).await else {
        return Vec::new();
    };
    let kind = match kind.as_str() {
        "start" => JobKind::Start,
        "stop" => JobKind::Stop,
        _ => JobKind::Other,
    };
    vec![News::JobKind { unit, id, kind }]
}
