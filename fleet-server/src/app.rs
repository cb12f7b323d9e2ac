//! The server put together: from settings to running parts, and the bounded way back.
//!
//! It knows the order of things and nothing else. Start: data directory, store, directory, judging, receivers' workers,
//! listener. End: judging first (so that our own going makes nobody dark), then connections, workers, and the store last.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use prometheus::{IntGaugeVec, Opts, Registry};
use tokio::sync::{Mutex, Notify, oneshot, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::data_dir::{DataDir, DataDirError};
use crate::directory::{Directory, Role, TokenHash};
use crate::incident::canary;
use crate::intake::Intake;
use crate::liveness::BoxIx;
use crate::mute::schedule::Zones;
use crate::mute::{self, Mutes};
use crate::notify::courier::Courier;
use crate::notify::desk::Desk;
use crate::notify::metrics::NotifyMetrics;
use crate::notify::net::NetSender;
use crate::notify::plan::Planner;
use crate::notify::standing::Standing;
use crate::notify::worker::{ReceiverHealth, Worker};
use crate::proof::canary::Canary;
use crate::proof::metrics::{CanaryMetrics, DeadManMetrics};
use crate::proof::rows::SINK;
use crate::proof::sink::Sink;
use crate::proof::{self, dead_man};
use crate::sd_notify;
use crate::settings::{DeadMan, Receiver, Settings};
use crate::store::handle::{StoreHandle, StoreThread};
use crate::store::sqlite::SqliteStore;
use crate::store::{Loaded, OperatorRecord, StoreError};
use crate::sweep::muting::Book;
use crate::sweep::{Sweep, Wake};
use crate::web::auth::{Purpose, new_secret};
use crate::web::counters::WebMetrics;
use crate::web::listener::Listener;
use crate::web::rate::Rates;
use crate::web::state::App;
use crate::web::tls::{Certificates, TlsError};
use crate::web::{self, health, state};

/// A wrong configuration, as `sysexits.h` has it; systemd is told not to try again.
pub const EXIT_CONFIG: u8 = 78;
/// The name of the first operator.
const ADMIN: &str = "admin";
/// Incidents that ended lately, to count what comes again and again.
const ENDED: u32 = 20_000;
/// How long the judging side may take to write what it knows.
const JUDGING_END: Duration = Duration::from_secs(8);
/// How long a sending under way may take to end: until the next start nobody is watched, and what is cut off here is
/// repeated with the same key.
const WORKERS_END: Duration = Duration::from_secs(2);
/// How long the store may take to write what waits.
const STORE_END: Duration = Duration::from_secs(8);

/// Why the server did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The store.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address.
    #[error(
        "listen = {address}: cannot be bound; is another program on this port, or the address not this machine's?"
    )]
    Bind {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Anything that a machine in order does not do.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store proved to be damaged while running.
    #[error("{0}")]
    Damaged(String),
    /// The judging part ended by itself: nobody would be watched.
    #[error("the part that judges ended by itself; this is a defect")]
    JudgingEnded,
}

impl AppError {
    /// With what the process ends.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Tls(_) => ExitCode::from(EXIT_CONFIG),
            Self::DataDir(_)
            | Self::Store(_)
            | Self::Bind { .. }
            | Self::System { .. }
            | Self::Damaged(_)
            | Self::JudgingEnded => ExitCode::FAILURE,
        }
    }
}

/// A server that is built and listens, but does not run yet.
pub struct Server {
    data: DataDir,
    app: Arc<App>,
    tls: Option<Arc<Certificates>>,
    listener: Listener,
    sweep: Sweep<StoreHandle>,
    workers: Workers,
    dead_man: Option<(DeadMan, reqwest::Client, DeadManMetrics)>,
    canary: Option<(Canary, BoxIx, Sink)>,
    store: StoreHandle,
    thread: StoreThread,
}

impl Server {
    /// Builds all parts. Nothing is bound before everything that can be wrong with the configuration was looked at.
    pub async fn build(settings: Settings) -> Result<Self, AppError> {
        let tls = settings
            .tls
            .as_ref()
            .map(Certificates::load)
            .transpose()?
            .map(Arc::new);
        let data = DataDir::open(&settings.data_dir)?;
        let clock = Clock::system();
        let registry = Registry::new();
        let (store, thread, mut loaded) = open_store(&data, &clock).await?;
        admin(&data, &store, &clock, &mut loaded).await?;
        build_info(&registry).map_err(defect("registering metrics"))?;
        let metrics = WebMetrics::new(&registry).map_err(defect("registering metrics"))?;
        metrics.store_notes.set(loaded.notes.len() as i64);
        let notify = NotifyMetrics::new(&registry).map_err(defect("registering metrics"))?;
        let canary = canary(&settings, &clock, &registry, &loaded).await?;
        let dead_man = dead_man(&settings, &registry)?;
        let receivers = receivers(&settings, canary.as_ref())?;
        retire_receivers(&store, &receivers, &clock).await?;

        let mut directory = Directory::new(loaded.boxes.clone(), loaded.operators.clone());
        for stored in &loaded.reports {
            if let Some(ix) = directory.by_id(stored.id).map(|entry| entry.ix) {
                directory.declare(ix, &stored.report.labels);
            }
        }
        let bells: Vec<Arc<Notify>> = receivers.iter().map(|_| Arc::default()).collect();
        let mutes = mutes(&store, &clock).await?;
        let from = (loaded, &mutes);
        let sweep = sweep(&settings, &directory, from, &store, &clock, bells.clone()).await?;
        let couriers = couriers(&receivers)?;
        let workers = workers(&couriers, &store, &bells, &notify, &sweep.intake());
        // After the sweep has its boxes: the canary is new at each start, and remembered by nobody.
        let canary = canary.map(|(canary, sink)| {
            let ix = directory.put(canary.record(clock.wall()));
            (canary, ix, sink)
        });
        let app = Arc::new(App {
            clock,
            every: settings.liveness.every,
            directory: RwLock::new(directory),
            changes: Mutex::new(()),
            store: store.clone(),
            intake: sweep.intake(),
            view: sweep.view(),
            mutes,
            // The canary's sink is nobody's receiver.
            desk: Desk::new(
                couriers
                    .into_iter()
                    .filter(|(courier, _)| courier.receiver().name.as_str() != SINK),
            ),
            rates: Rates::default(),
            metrics,
            registry,
        });
        if let Some((_, ix, _)) = &canary {
            app.announce(*ix);
        }
        let address = settings.listen;
        let listener =
            Listener::bind(address, tls.clone()).map_err(|source| AppError::Bind { address, source })?;
        Ok(Self {
            data,
            app,
            tls,
            listener,
            sweep,
            workers,
            dead_man,
            canary,
            store,
            thread,
        })
    }

    /// Where it listens (the port, if 0 was asked for).
    pub fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.listener.address()
    }

    /// The door to judgement, for tests that hold it shut.
    #[cfg(test)]
    pub(crate) fn intake(&self) -> Intake {
        self.app.intake.clone()
    }

    /// Runs until `shutdown` ends or a part cannot go on, and then ends every part within its time.
    pub async fn run(self, shutdown: impl Future<Output = &'static str>) -> Result<(), AppError> {
        let (end, ending) = watch::channel(false);
        let (end_judging, judging_ending) = oneshot::channel::<()>();
        let mut broken = self.store.broken();
        let mut judging = tokio::spawn(self.sweep.run(judging_ending.map(drop)));
        let mut workers = JoinSet::new();
        for worker in self.workers {
            workers.spawn(worker.run(ending.clone()));
        }
        let mut chores = JoinSet::new();
        let has_tls = self.tls.is_some();
        if let Some(tls) = self.tls {
            chores.spawn(tls.watch());
        }
        chores.spawn(health::alive(Arc::clone(&self.app)));
        let address = self.listener.address();
        let (end_pings, pings_ending) = oneshot::channel::<()>();
        if let Some((settings, client, metrics)) = self.dead_man {
            dead_man::spawn(Arc::clone(&self.app), settings, client, metrics, pings_ending)
                .map_err(defect("starting the dead man's thread"))?;
        }
        if let (Some((canary, ix, sink)), Ok(address)) = (self.canary, &address) {
            chores.spawn(sink.serve());
            chores.spawn(canary.run(Arc::clone(&self.app), ix, *address, has_tls));
        }
        let router = web::router(Arc::clone(&self.app));
        let listener = tokio::spawn(self.listener.serve(router, self.app, ending));
        let address = address.map_or_else(|_| "?".to_owned(), |address| address.to_string());
        tracing::info!(%address, data_dir = %self.data.path().display(), version = env!("CARGO_PKG_VERSION"), "running");
        sd_notify::notify("READY=1");

        let verdict = tokio::select! {
            why = shutdown => {
                tracing::info!(why, "ending");
                Ok(())
            }
            what = damaged(&mut broken) => Err(AppError::Damaged(what)),
            _ = &mut judging => Err(AppError::JudgingEnded),
        };
        sd_notify::notify("STOPPING=1");
        chores.abort_all();
        drop(end_pings);
        let mut late = Vec::new();
        drop(end_judging);
        if !judging.is_finished() && tokio::time::timeout(JUDGING_END, &mut judging).await.is_err() {
            judging.abort();
            late.push("judging");
        }
        end.send_replace(true);
        match listener.await {
            Ok(0) => {}
            Ok(_) | Err(_) => late.push("connections"),
        }
        let all = async { while workers.join_next().await.is_some() {} };
        if tokio::time::timeout(WORKERS_END, all).await.is_err() {
            workers.shutdown().await;
            late.push("receivers");
        }
        drop(self.store);
        let thread = self.thread;
        let written = tokio::task::spawn_blocking(move || thread.join(STORE_END))
            .await
            .unwrap_or(false);
        if !written {
            late.push("store");
        }
        if late.is_empty() {
            tracing::info!("ended: everything was written");
        } else {
            tracing::warn!(cut_off = late.join(", "), "ended: some parts did not end in time");
        }
        verdict
    }
}

/// Until the store proves to be damaged.
async fn damaged(broken: &mut watch::Receiver<Option<String>>) -> String {
    loop {
        let found = broken.borrow_and_update().clone();
        if let Some(what) = found {
            return what;
        }
        if broken.changed().await.is_err() {
            // Nobody is left who could find out.
            std::future::pending::<()>().await;
        }
    }
}

async fn open_store(data: &DataDir, clock: &Clock) -> Result<(StoreHandle, StoreThread, Loaded), AppError> {
    let (path, now): (PathBuf, _) = (data.path().to_owned(), clock.wall());
    let opened = tokio::task::spawn_blocking(move || SqliteStore::open(&path, now)).await;
    let opened = opened.map_err(defect("opening the store"))??;
    let wall = clock.clone();
    let (store, thread) = StoreHandle::spawn(Box::new(opened), Arc::new(move || wall.wall()))
        .map_err(defect("starting the store's thread"))?;
    let loaded = store.call("load", |store| store.load()).await?;
    for note in &loaded.notes {
        tracing::error!("{}", note.text);
    }
    Ok((store, thread, loaded))
}

/// Sees to it that `admin.token` is there and good: written at the first start, and again if it was removed; taken as it
/// is if the store does not know it (it was lost).
async fn admin(
    data: &DataDir,
    store: &StoreHandle,
    clock: &Clock,
    loaded: &mut Loaded,
) -> Result<(), AppError> {
    let token = if let Some(token) = data.admin_token()? {
        token
    } else {
        let token = new_secret(Purpose::OperatorToken).map_err(defect("making the admin's token"))?;
        let path = data.write_admin_token(&token)?;
        tracing::info!(file = %path.display(), "the first operator's token is written");
        token
    };
    let hash = TokenHash::of(&token);
    if loaded.operators.iter().any(|known| known.hash.same(&hash)) {
        return Ok(());
    }
    let record = OperatorRecord {
        name: ADMIN.to_owned(),
        role: Role::Admin,
        hash,
        created_at: clock.wall(),
    };
    loaded.operators.retain(|known| known.name != ADMIN);
    loaded.operators.push(record.clone());
    store
        .call("store the admin's token", move |store| {
            store.put_operator(&record)
        })
        .await?;
    Ok(())
}

/// What operators and boxes muted before the start, and is not over.
async fn mutes(store: &StoreHandle, clock: &Clock) -> Result<Book, AppError> {
    let then = clock
        .wall()
        .saturating_sub(mute::OVER_KEEP)
        .unwrap_or(clock.wall());
    let known = store
        .call("read mutes", move |store| store.mutes_since(then))
        .await?;
    let zone: Zones = |name| TimeZone::get(name.as_str()).ok();
    let lost = known
        .mutes
        .iter()
        .filter_map(|mute| Some((mute.id, &mute.every.as_ref()?.tz)));
    for (id, tz) in lost.filter(|(_, tz)| zone(tz).is_none()) {
        tracing::error!(id, %tz, "this mute's time zone is not known here any more; it mutes nothing");
    }
    Ok(Arc::new(std::sync::Mutex::new(Mutes::new(
        known.mutes,
        known.next_id,
        zone,
    ))))
}

/// Notifications for receivers that are no longer in the configuration would wait for ever.
async fn retire_receivers(
    store: &StoreHandle,
    receivers: &[Receiver],
    clock: &Clock,
) -> Result<(), AppError> {
    let known: Vec<String> = receivers
        .iter()
        .map(|receiver| receiver.name.to_string())
        .collect();
    let now = clock.wall();
    let given_up = store
        .call("give up notifications of unknown receivers", move |store| {
            store.abandon_others(&known, now)
        })
        .await?;
    if given_up > 0 {
        tracing::warn!(
            given_up,
            "notifications for receivers that are no longer configured were given up"
        );
    }
    Ok(())
}

type Workers = Vec<Worker<StoreHandle, NetSender, Box<dyn Fn(ReceiverHealth) + Send + Sync>>>;

/// The judging side, with the way of its changes: routed into rows, written, workers woken.
async fn sweep(
    settings: &Settings,
    directory: &Directory,
    (mut loaded, mutes): (Loaded, &Book),
    store: &StoreHandle,
    clock: &Clock,
    bells: Vec<Arc<Notify>>,
) -> Result<Sweep<StoreHandle>, AppError> {
    let receivers = settings
        .receivers
        .iter()
        .map(|receiver| receiver.name.to_string())
        .collect();
    let told = store.call("read who was told", |store| store.told()).await?;
    let canary = settings.canary.clone();
    let book = Arc::clone(mutes);
    let mut planner = Planner::new(receivers, settings.routes.clone())
        .with_muted(Box::new(move |incident, now| {
            let mutes = book.lock().unwrap_or_else(PoisonError::into_inner);
            mutes.muted(incident, now).is_some()
        }))
        .with_proof(Box::new(move |change| proof::rows::rows(change, canary.as_ref())));
    planner.restore(&loaded.incidents, &told);
    if let Some(flapping) = settings.incidents.flapping {
        let since = clock
            .wall()
            .saturating_sub(flapping.within)
            .unwrap_or(Timestamp::MIN);
        loaded.ended = store
            .call("read what ended lately", move |store| {
                store.ended_since(since, ENDED)
            })
            .await?;
    }
    let wake: Wake = Box::new(move || bells.iter().for_each(|bell| bell.notify_one()));
    let boxes = directory.iter().filter_map(state::box_info).collect();
    let keep = Arc::new(store.clone());
    let parts = (planner, wake);
    let sweep = Sweep::new(settings, boxes, loaded, keep, clock.clone(), parts);
    Ok(sweep.with_mutes(Arc::clone(mutes)))
}

/// A receiver's way out and how it does, shared by its worker and the API.
type Served = (Arc<Courier<NetSender>>, Arc<Standing>);

fn couriers(receivers: &[Receiver]) -> Result<Vec<Served>, AppError> {
    let courier = |receiver: &Receiver| {
        let sender = NetSender::new().map_err(defect("building an HTTP client"))?;
        let courier =
            Courier::new(receiver.clone(), sender).map_err(defect("reading a receiver's templates"))?;
        Ok((Arc::new(courier), Arc::default()))
    };
    receivers.iter().map(courier).collect()
}

fn workers(
    couriers: &[Served],
    store: &StoreHandle,
    bells: &[Arc<Notify>],
    metrics: &NotifyMetrics,
    intake: &Intake,
) -> Workers {
    let outbox = Arc::new(store.clone());
    let worker = |((courier, standing), bell): (&Served, &Arc<Notify>)| {
        let intake = intake.clone();
        let health = move |health: ReceiverHealth| {
            // That the sink fails is the canary's to tell.
            if health.receiver != SINK {
                intake.receiver(&health.receiver, health.failing);
            }
        };
        Worker {
            courier: Arc::clone(courier),
            outbox: Arc::clone(&outbox),
            wake: Arc::clone(bell),
            metrics: metrics.clone(),
            standing: Arc::clone(standing),
            health: Box::new(health) as Box<dyn Fn(ReceiverHealth) + Send + Sync>,
        }
    };
    couriers.iter().zip(bells).map(worker).collect()
}

/// The canary and its sink, if there is to be one.
async fn canary(
    settings: &Settings,
    clock: &Clock,
    registry: &Registry,
    loaded: &Loaded,
) -> Result<Option<(Canary, Sink)>, AppError> {
    let Some(wanted) = settings.canary.clone() else {
        return Ok(None);
    };
    let name = canary::name();
    if loaded.boxes.iter().any(|known| known.name == name) {
        tracing::error!(box = %name, "there is no canary: a box has its name; remove that box and add it by another name");
        return Ok(None);
    }
    let (sink, arrived) = Sink::bind(clock.clone())
        .await
        .map_err(defect("binding a port of loopback for the canary"))?;
    let token = new_secret(Purpose::BoxToken).map_err(defect("making the canary's token"))?;
    let metrics = CanaryMetrics::new(registry).map_err(defect("registering metrics"))?;
    let canary = Canary::new(wanted, token, arrived, metrics).map_err(defect("building an HTTP client"))?;
    Ok(Some((canary, sink)))
}

fn dead_man(
    settings: &Settings,
    registry: &Registry,
) -> Result<Option<(DeadMan, reqwest::Client, DeadManMetrics)>, AppError> {
    let Some(wanted) = settings.dead_man.clone() else {
        return Ok(None);
    };
    let client = dead_man::client().map_err(defect("building an HTTP client"))?;
    let metrics = DeadManMetrics::new(registry).map_err(defect("registering metrics"))?;
    Ok(Some((wanted, client, metrics)))
}

/// Those of the configuration, and the canary's sink.
fn receivers(settings: &Settings, canary: Option<&(Canary, Sink)>) -> Result<Vec<Receiver>, AppError> {
    let mut receivers = settings.receivers.clone();
    if let Some((_, sink)) = canary {
        receivers.push(sink.receiver().map_err(defect("reading the canary's port"))?);
    }
    Ok(receivers)
}

fn build_info(registry: &Registry) -> Result<(), prometheus::Error> {
    let info = IntGaugeVec::new(
        Opts::new("fleet_build_info", "1; the label says which version runs."),
        &["version"],
    )?;
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(info))
}

fn defect<E: std::error::Error + Send + Sync + 'static>(doing: &'static str) -> impl Fn(E) -> AppError {
    move |source| AppError::System {
        doing,
        source: Box::new(source),
    }
}
