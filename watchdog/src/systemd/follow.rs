//! Follows units by the service manager's signals, and tells each change of state and each job at once.
//!
//! It judges nothing: who stopped a unit is worked out in `beat::units`. It survives a bus that is restarted, absent or
//! mute, and a manager that re-executes itself: then it says that it knows nothing, and tries again.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{BoxStream, select_all};
use protocol::names::UnitName;
use tokio::sync::mpsc;
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream, OwnedObjectPath, OwnedVariant};

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
/// Signals kept for one unit while nobody reads.
const SIGNALS: usize = 32;
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
        /// None: it was over before its kind could be asked for.
        kind: Option<JobKind>,
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
        wait = if reached {
            RETRY_MIN
        } else {
            (wait * 2).min(RETRY_MAX)
        };
        let lost = News::Lost {
            units: units.clone(),
            detail: ended.to_string(),
        };
        if tell.send(lost).await.is_err() {
            return;
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

enum Signal {
    Unit(usize, Message),
    Job(usize, Message),
    Owner(Message),
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
    // Listening comes before looking: nothing can happen between the two.
    let subscribing = subscribe(&connection, units);
    let mut signals = within(scope, subscribing).await?.map_err(on_bus)?;
    let mut followed = within(scope, first_look(&connection, units))
        .await?
        .map_err(on_bus)?;
    *reached = true;
    for one in &followed.units {
        if tell.send(one.news()).await.is_err() {
            return Ok(());
        }
    }
    for news in std::mem::take(&mut followed.jobs) {
        if tell.send(news).await.is_err() {
            return Ok(());
        }
    }
    let mut again = tokio::time::interval(READ_AGAIN);
    again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    again.reset();
    loop {
        let signal = tokio::select! {
            signal = signals.next() => signal.ok_or_else(|| Ended::Closed { bus: bus() })?.map_err(on_bus)?,
            _ = again.tick() => {
                let read = within(scope, read_all(&connection, &mut followed.units)).await?;
                read.map_err(on_bus)?;
                for one in &followed.units {
                    if tell.send(one.news()).await.is_err() {
                        return Ok(());
                    }
                }
                continue;
            }
            () = tell.closed() => return Ok(()),
        };
        let news = match signal {
            Signal::Unit(n, message) => followed.units[n].changed(&message),
            Signal::Job(n, message) => job_news(&connection, &followed.units[n].name, &message).await,
            Signal::Owner(message) => {
                if owner_changed(&message) {
                    return Err(Ended::Replaced { bus: bus() });
                }
                None
            }
        };
        if let Some(news) = news
            && tell.send(news).await.is_err()
        {
            return Ok(());
        }
    }
}

async fn within<T>(scope: &Scope, work: impl Future<Output = T>) -> Result<T, Ended> {
    let mute = |_| Ended::Mute { bus: bus_name(scope) };
    tokio::time::timeout(READ_TIMEOUT, work).await.map_err(mute)
}

struct Followed {
    units: Vec<One>,
    jobs: Vec<News>,
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

type Signals = futures_util::stream::SelectAll<BoxStream<'static, zbus::Result<Signal>>>;

async fn subscribe(connection: &Connection, units: &[UnitName]) -> zbus::Result<Signals> {
    let mut streams: Vec<BoxStream<'static, zbus::Result<Signal>>> = Vec::new();
    for (n, unit) in units.iter().enumerate() {
        let path = load(connection, unit).await?;
        let rule = signal_of(MANAGER_NAME)
            .path(path)
            .interface(PROPERTIES)
            .member("PropertiesChanged");
        streams.push(listen(connection, rule.build()?, move |m| Signal::Unit(n, m)).await?);
        for member in ["JobNew", "JobRemoved"] {
            let rule = signal_of(MANAGER_NAME)
                .path(MANAGER_PATH)
                .interface(MANAGER_INTERFACE)
                .member(member)
                .arg(2, unit.as_str());
            streams.push(listen(connection, rule.build()?, move |m| Signal::Job(n, m)).await?);
        }
    }
    let bus = "org.freedesktop.DBus";
    let rule = signal_of(bus)
        .interface(bus)
        .member("NameOwnerChanged")
        .arg(0, MANAGER_NAME);
    streams.push(listen(connection, rule.build()?, Signal::Owner).await?);
    // Without it the manager sends no signals at all.
    let subscribe = call(connection, MANAGER_PATH, MANAGER_INTERFACE, "Subscribe", &()).await;
    match subscribe {
        Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with("AlreadySubscribed") => {}
        other => drop(other?),
    }
    Ok(select_all(streams))
}

fn signal_of(sender: &'static str) -> zbus::match_rule::Builder<'static> {
    MatchRule::builder().msg_type(Type::Signal).sender(sender)
}

async fn listen(
    connection: &Connection,
    rule: MatchRule<'_>,
    wrap: impl Fn(Message) -> Signal + Send + 'static,
) -> zbus::Result<BoxStream<'static, zbus::Result<Signal>>> {
    let stream =
        MessageStream::for_match_rule(rule.to_owned(), connection, NonZeroUsize::new(SIGNALS)).await?;
    // The end of one stream is the end of the connection: it must not be lost among the others.
    let closed = futures_util::stream::once(async { Err(zbus::Error::InputOutput(closed_error().into())) });
    Ok(stream
        .map(move |message| message.map(&wrap))
        .chain(closed)
        .boxed())
}

fn closed_error() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::ConnectionAborted, "the connection was closed")
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

async fn first_look(connection: &Connection, units: &[UnitName]) -> zbus::Result<Followed> {
    let mut all = Followed {
        units: Vec::new(),
        jobs: Vec::new(),
    };
    for unit in units {
        let path = load(connection, unit).await?;
        if let Some(news) = pending_job(connection, unit, &path).await {
            all.jobs.push(news);
        }
        all.units.push(One {
            name: unit.clone(),
            path,
            seen: Seen::default(),
        });
    }
    read_all(connection, &mut all.units).await?;
    Ok(all)
}

async fn read_all(connection: &Connection, units: &mut [One]) -> zbus::Result<()> {
    for one in units {
        let path = one.path.as_str();
        let (active, sub, result, restarts) = tokio::join!(
            get::<String>(connection, path, UNIT_INTERFACE, "ActiveState"),
            get::<String>(connection, path, UNIT_INTERFACE, "SubState"),
            get::<String>(connection, path, SERVICE_INTERFACE, "Result"),
            get::<u32>(connection, path, SERVICE_INTERFACE, "NRestarts"),
        );
        one.seen = Seen {
            active: active?,
            sub: sub?,
            result: result.ok(),
            restarts: restarts.unwrap_or_default().into(),
        };
    }
    Ok(())
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
async fn pending_job(connection: &Connection, unit: &UnitName, path: &OwnedObjectPath) -> Option<News> {
    let job = get::<OwnedVariant>(connection, path.as_str(), UNIT_INTERFACE, "Job")
        .await
        .ok()?;
    let (id, path) = <(u32, OwnedObjectPath)>::try_from(job)
        .ok()
        .filter(|(id, _)| *id != 0)?;
    let kind = job_kind(connection, path.as_str()).await;
    Some(News::JobNew {
        unit: unit.clone(),
        id,
        kind,
    })
}

/// `JobNew(u id, o job, s unit)` and `JobRemoved(u id, o job, s unit, s result)`.
async fn job_news(connection: &Connection, unit: &UnitName, message: &Message) -> Option<News> {
    let unit = unit.clone();
    let body = message.body();
    if message
        .header()
        .member()
        .is_some_and(|member| member.as_str() == "JobRemoved")
    {
        let (id, _, _, result) = body
            .deserialize::<(u32, OwnedObjectPath, String, String)>()
            .ok()?;
        let done = result == "done";
        return Some(News::JobEnded { unit, id, done });
    }
    let (id, path, _) = body.deserialize::<(u32, OwnedObjectPath, String)>().ok()?;
    let kind = job_kind(connection, path.as_str()).await;
    Some(News::JobNew { unit, id, kind })
}

async fn job_kind(connection: &Connection, path: &str) -> Option<JobKind> {
    let asking = get::<String>(connection, path, "org.freedesktop.systemd1.Job", "JobType");
    let kind = tokio::time::timeout(JOB_TIMEOUT, asking).await.ok()?.ok()?;
    Some(match kind.as_str() {
        "start" => JobKind::Start,
        "stop" => JobKind::Stop,
        _ => JobKind::Other,
    })
}

/// The manager re-executed itself, or came back: its subscribers are to be told anew.
fn owner_changed(message: &Message) -> bool {
    let body = message.body();
    let owners = body.deserialize::<(String, String, String)>();
    owners.is_ok_and(|(name, _, new)| name == MANAGER_NAME && !new.is_empty())
}
