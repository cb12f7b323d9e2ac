//! The shell in paused time, over a store that can be made to fail: what is written, when, and what a restart knows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocol::account::Account;
use protocol::heartbeat::{Goodbye, GoodbyeWhy, Heartbeat, Paused};
use protocol::incident::{EventKind, Incident, Kind};
use protocol::mute::MuteRecord;
use protocol::names::{BoxName, Labels, Word};
use protocol::report::{Host, Report};
use protocol::witness::Targets;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::view::{BoxView, Health, NotReady, View};
use super::*;
use crate::liveness::record::Record;
use crate::liveness::{BoxIx, ConnId};
use crate::mute::Mutes;
use crate::notify::plan::Planner;
use crate::settings::{
    IncidentRules, LivenessSettings, Receiver, ReceiverKind, Templates, Webhook, WitnessSettings,
};
use crate::store::{BoxId, BoxMemory, StoredIncident, StoredReport, Told};

#[path = "account_tests.rs"]
mod account;
#[path = "muting_tests.rs"]
mod muting;

#[derive(Default)]
struct FakeStore {
    failing: AtomicBool,
    slow: AtomicBool,
    changes: Mutex<Vec<Change>>,
    rows: Mutex<Vec<OutboxRow>>,
    records: Mutex<HashMap<BoxId, Record>>,
    reports: Mutex<HashMap<BoxId, StoredReport>>,
    mutes: Mutex<BTreeMap<i64, MuteRecord>>,
    woken: AtomicUsize,
}

impl FakeStore {
    fn answer(&self) -> Result<(), StoreError> {
        if self.failing.load(Ordering::Relaxed) {
            return Err(StoreError::Full { path: "db".into() });
        }
        Ok(())
    }

    fn told(&self) -> Vec<(EventKind, Kind)> {
        let changes = self.changes.lock().unwrap();
        let notified = changes.iter().filter(|change| change.notify);
        notified
            .map(|change| (change.event, change.incident.kind))
            .collect()
    }

    fn told_when(&self) -> Vec<Told> {
        let rows = self.rows.lock().unwrap();
        let told = |row: &OutboxRow| Told {
            incident: row.incident_id,
            receiver: row.receiver.clone(),
            first: row.queued_at,
            last: row.queued_at,
        };
        rows.iter().map(told).collect()
    }

    fn loaded(&self) -> Loaded {
        let mut open: HashMap<i64, (Incident, u32)> = HashMap::new();
        for change in self.changes.lock().unwrap().iter() {
            if change.event == EventKind::Resolved {
                open.remove(&change.incident.id);
            } else {
                open.insert(change.incident.id, (change.incident.clone(), change.revision));
            }
        }
        let stored = |(incident, revision)| StoredIncident {
            incident,
            revision,
            ack: None,
            timeline: vec![],
        };
        let memory = |(id, record): (&BoxId, &Record)| BoxMemory {
            id: *id,
            record: record.clone(),
        };
        Loaded {
            memories: self.records.lock().unwrap().iter().map(memory).collect(),
            reports: self.reports.lock().unwrap().values().cloned().collect(),
            incidents: open.into_values().map(stored).collect(),
            next_incident_id: 1 + self.changes.lock().unwrap().len() as i64,
            ..Loaded::default()
        }
    }
}

impl Keep for FakeStore {
    async fn commit(&self, changes: Vec<Change>, rows: Vec<OutboxRow>) -> Result<(), StoreError> {
        if self.slow.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        self.answer()?;
        self.changes.lock().unwrap().extend(changes);
        self.rows.lock().unwrap().extend(rows);
        Ok(())
    }

    async fn remember(
        &self,
        memories: Vec<BoxMemory>,
        reports: Vec<StoredReport>,
        _sync: bool,
    ) -> Result<(), StoreError> {
        self.answer()?;
        let mut records = self.records.lock().unwrap();
        records.extend(memories.into_iter().map(|memory| (memory.id, memory.record)));
        let mut stored = self.reports.lock().unwrap();
        stored.extend(reports.into_iter().map(|report| (report.id, report)));
        Ok(())
    }

    async fn pauses(&self, pauses: Vec<MuteRecord>) -> Result<(), StoreError> {
        self.answer()?;
        let mut mutes = self.mutes.lock().unwrap();
        mutes.extend(pauses.into_iter().map(|pause| (pause.id, pause)));
        Ok(())
    }
}

/// A server with some boxes that beat.
struct World {
    store: Arc<FakeStore>,
    clock: Clock,
    boxes: Vec<SimBox>,
    witness: Targets,
    /// `[witness] self`
    own: Vec<String>,
    server: Option<Server>,
    mutes: Book,
    /// Reports that were asked for, sent, and taken.
    taken: usize,
}

struct Server {
    intake: Intake,
    view: View,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct SimBox {
    up: bool,
    session: u128,
    seq: u64,
    goodbye: Option<Goodbye>,
    paused: Option<Paused>,
    report: Option<Box<Report>>,
    account: Option<Box<Account>>,
}

impl World {
    fn new(boxes: usize) -> Self {
        let mut world = Self {
            store: Arc::default(),
            clock: Clock::starting_at(Timestamp::from_second(1_763_755_200).unwrap()),
            boxes: (0..boxes)
                .map(|at| SimBox {
                    up: true,
                    session: at as u128 + 1,
                    seq: 0,
                    goodbye: None,
                    paused: None,
                    report: None,
                    account: None,
                })
                .collect(),
            witness: Targets::default(),
            own: vec![],
            server: None,
            mutes: Book::default(),
            taken: 0,
        };
        world.start();
        world
    }

    fn start(&mut self) {
        let infos = (0..self.boxes.len() as u32)
            .map(|at| info(at, self.witness.clone()))
            .collect();
        let kept = self.store.mutes.lock().unwrap().values().cloned().collect();
        self.mutes = Arc::new(Mutex::new(Mutes::new(kept, 1, |_| Some(TimeZone::UTC))));
        let book = Arc::clone(&self.mutes);
        let muted = move |incident: &Incident, now| book.lock().unwrap().muted(incident, now).is_some();
        let mut planner = Planner::new(vec!["hook".into()], vec![]).with_muted(Box::new(muted));
        planner.restore(&self.store.loaded().incidents, &self.store.told_when());
        let store = Arc::clone(&self.store);
        let wake: Wake = Box::new(move || {
            store.woken.fetch_add(1, Ordering::Relaxed);
        });
        let mut settings = settings();
        settings.witness.own.clone_from(&self.own);
        let sweep = Sweep::new(
            &settings,
            infos,
            self.store.loaded(),
            Arc::clone(&self.store),
            self.clock.clone(),
            (planner, wake),
        )
        .with_mutes(Arc::clone(&self.mutes));
        let (stop, stopped) = oneshot::channel();
        self.server = Some(Server {
            intake: sweep.intake(),
            view: sweep.view(),
            stop,
            task: tokio::spawn(sweep.run(async {
                let _ = stopped.await;
            })),
        });
    }

    /// SIGTERM.
    async fn end(&mut self) {
        let server = self.server.take().unwrap();
        server.stop.send(()).unwrap();
        server.task.await.unwrap();
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.server.take().unwrap().task.abort();
    }

    async fn run(&mut self, secs: u64) {
        for _ in 0..secs {
            for at in 0..self.boxes.len() {
                if self.boxes[at].up {
                    self.beat(at);
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Whether the server wants the report.
    fn beat(&mut self, at: usize) -> bool {
        let sim = &mut self.boxes[at];
        sim.seq += 1;
        let beat = Heartbeat {
            boot_id: Uuid::from_u128(sim.session),
            session: Uuid::from_u128(sim.session),
            seq: sim.seq,
            every_ms: 1000,
            sent_at: self.clock.wall(),
            units: vec![],
            goodbye: sim.goodbye.clone(),
            paused: sim.paused.clone(),
            report_id: sim.report.as_ref().map(|report| report.id),
            report_stale_secs: None,
            check_every_secs: Some(120),
            report: None,
            account: sim.account.clone(),
        };
        let (mono, wall) = (self.clock.mono(), self.clock.wall());
        let Some(server) = &self.server else { return false };
        let intake = &server.intake;
        let accepted = intake.beat(BoxIx(at as u32), ConnId(at as u64), mono, wall, beat.clone());
        let wanted = accepted.unwrap().want_report;
        if wanted {
            sim.seq += 1;
            let beat = Heartbeat {
                seq: sim.seq,
                report: sim.report.clone(),
                ..beat
            };
            let answer = intake.beat(BoxIx(at as u32), ConnId(at as u64), mono, wall, beat);
            self.taken += usize::from(!answer.unwrap().want_report);
        }
        wanted
    }

    fn health(&self) -> Health {
        self.server.as_ref().unwrap().view.health()
    }

    fn box_view(&self, at: u32) -> Option<BoxView> {
        self.server.as_ref().unwrap().view.one(BoxIx(at))
    }

    fn state(&self, at: u32) -> Liveness {
        self.box_view(at).unwrap().state
    }
}

fn info(at: u32, witnesses: Targets) -> BoxInfo {
    BoxInfo {
        ix: BoxIx(at),
        id: BoxId(i64::from(at) + 1),
        name: BoxName::new(format!("box-{at}")).unwrap(),
        labels: Labels::default(),
        witnesses,
    }
}

fn settings() -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        data_dir: "/nowhere".into(),
        public_url: Some("https://fleet.example.net/".parse().unwrap()),
        tls: None,
        liveness: LivenessSettings::default(),
        group_by: vec!["site".into(), "provider".into()],
        witness: WitnessSettings::default(),
        receivers: vec![Receiver {
            name: Word::new("hook").unwrap(),
            kind: ReceiverKind::Webhook(Webhook {
                url: "http://127.0.0.1:1/".parse().unwrap(),
                secret: None,
            }),
            templates: Templates::default(),
        }],
        routes: vec![],
        dead_man: None,
        canary: None,
        incidents: IncidentRules::default(),
    }
}

fn report(id: u128) -> Box<Report> {
    Box::new(Report {
        id: Uuid::from_u128(id),
        at: Timestamp::from_second(1_763_755_200).unwrap(),
        took_ms: 1,
        checks: vec![],
        remedies: vec![],
        host: Host::default(),
        labels: Labels::default(),
    })
}

#[tokio::test(start_paused = true)]
async fn a_cut_box_is_written_with_its_notification_within_seconds() {
    let mut world = World::new(5);
    world.run(15).await;
    assert_eq!(world.health().judges, Ok(()));
    world.boxes[0].up = false;
    world.run(5).await;
    assert_eq!(world.store.told(), vec![]);
    world.run(1).await;
    assert_eq!(world.store.told(), vec![(EventKind::Opened, Kind::BoxDark)]);
    assert_eq!(world.store.rows.lock().unwrap().len(), 1);
    assert_eq!(world.store.woken.load(Ordering::Relaxed), 1);
    let link = world.store.changes.lock().unwrap()[0].incident.details["link"].clone();
    assert_eq!(link, "https://fleet.example.net/v1/incidents/1");
    world.boxes[0].up = true;
    world.run(2).await;
    assert_eq!(world.store.told()[1], (EventKind::Resolved, Kind::BoxDark));
    assert_eq!(world.server.as_ref().unwrap().view.open(|_| true).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_judged_before_the_warm_up_is_over() {
    let mut world = World::new(3);
    world.run(1).await;
    assert_eq!(world.health().judges, Err(NotReady::WarmingUp));
    world.run(6).await;
    assert_eq!(world.health().judges, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn while_the_store_fails_nothing_is_lost_and_it_says_so() {
    let mut world = World::new(5);
    world.run(15).await;
    world.store.failing.store(true, Ordering::Relaxed);
    world.boxes[0].up = false;
    world.run(20).await;
    world.boxes[0].up = true;
    world.boxes[1].up = false;
    world.run(20).await;
    let health = world.health();
    assert!(matches!(health.judges, Err(NotReady::StoreFailing(ref why)) if why.contains("disk is full")));
    assert_eq!((health.unsaved, world.store.told()), (3, vec![]));
    world.store.failing.store(false, Ordering::Relaxed);
    world.run(6).await;
    assert_eq!(
        world.store.told(),
        [
            (EventKind::Opened, Kind::BoxDark),
            (EventKind::Resolved, Kind::BoxDark),
            (EventKind::Opened, Kind::BoxDark)
        ]
    );
    assert_eq!((world.health().judges, world.health().unsaved), (Ok(()), 0));
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_delays_no_verdict_and_loses_none() {
    let mut world = World::new(10);
    world.run(15).await;
    world.store.slow.store(true, Ordering::Relaxed);
    for at in 0..3 {
        world.boxes[at].up = false;
        world.run(3).await;
    }
    assert_eq!((world.state(0), world.store.told()), (Liveness::Dark, vec![]));
    world.run(20).await;
    assert_eq!(world.store.told(), [(EventKind::Opened, Kind::BoxDark); 3]);
    assert_eq!(world.health().unsaved, 0);
}

#[tokio::test(start_paused = true)]
async fn a_killed_server_goes_on_where_it_was() {
    let mut world = World::new(30);
    world.run(15).await;
    world.boxes[0].up = false;
    world.run(20).await;
    world.kill();
    world.boxes[1].up = false;
    world.run(30).await;
    world.start();
    assert_eq!(world.state(0), Liveness::Dark);
    world.run(5).await;
    assert_eq!(world.store.told(), vec![(EventKind::Opened, Kind::BoxDark)]);
    world.run(10).await;
    let changes = world.store.changes.lock().unwrap().clone();
    let names: Vec<_> = changes
        .iter()
        .map(|change| change.incident.box_name.clone().unwrap())
        .collect();
    assert_eq!(
        names,
        [info(0, Targets::default()).name, info(1, Targets::default()).name]
    );
    let silent = changes[1].incident.details["silent_for_secs"].as_f64().unwrap();
    assert!(
        (36.0..43.0).contains(&silent),
        "its true last-seen, as saved: {silent}"
    );
    world.boxes[0].up = true;
    world.run(2).await;
    let end = world.store.changes.lock().unwrap()[2].clone();
    assert_eq!(
        (end.event, end.incident.id, end.revision),
        (EventKind::Resolved, changes[0].incident.id, 2)
    );
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_survives_a_kill_and_is_overdue_in_time() {
    let mut world = World::new(5);
    world.run(15).await;
    world.boxes[0].goodbye = Some(Goodbye {
        why: GoodbyeWhy::Reboot,
        back_within_secs: 60,
    });
    world.run(1).await;
    world.boxes[0].up = false;
    world.kill();
    world.run(20).await;
    world.start();
    world.run(30).await;
    assert_eq!((world.state(0), world.store.told()), (Liveness::Away, vec![]));
    world.run(20).await;
    assert_eq!(
        world.store.told(),
        vec![(EventKind::Opened, Kind::PlannedOverdue)]
    );
    world.kill();
    world.start();
    world.run(60).await;
    assert_eq!(world.store.told().len(), 1);
    world.boxes[0].goodbye = None;
    world.boxes[0].session = 99;
    world.boxes[0].up = true;
    world.run(2).await;
    assert_eq!(world.store.told()[1], (EventKind::Resolved, Kind::PlannedOverdue));
}

#[tokio::test(start_paused = true)]
async fn blindness_survives_a_restart_and_is_told_once() {
    let mut world = World::new(30);
    world.run(15).await;
    world.boxes.iter_mut().for_each(|sim| sim.up = false);
    world.run(20).await;
    assert_eq!(world.store.told(), vec![(EventKind::Opened, Kind::ServerBlind)]);
    world.kill();
    world.start();
    world.run(30).await;
    assert_eq!(
        (world.store.told().len(), world.health().judges),
        (1, Err(NotReady::Blind))
    );
    world.boxes.iter_mut().for_each(|sim| sim.up = true);
    world.run(20).await;
    assert_eq!(
        world.store.told(),
        [
            (EventKind::Opened, Kind::ServerBlind),
            (EventKind::Resolved, Kind::ServerBlind)
        ]
    );
    assert_eq!(world.health().judges, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_report_is_asked_for_once_and_known_after_a_restart() {
    let mut world = World::new(1);
    world.boxes[0].report = Some(report(7));
    assert!(world.beat(0));
    world.run(1).await;
    assert!(!world.beat(0));
    world.end().await;
    assert_eq!(
        world.store.reports.lock().unwrap()[&BoxId(1)].report.id,
        Uuid::from_u128(7)
    );
    world.start();
    assert!(!world.beat(0));
    world.boxes[0].report = Some(report(8));
    assert!(world.beat(0));
}

#[tokio::test(start_paused = true)]
async fn an_orderly_end_remembers_everybody() {
    let mut world = World::new(10);
    world.run(3).await;
    world.end().await;
    let records = world.store.records.lock().unwrap();
    assert_eq!(records.len(), 10);
    assert!(
        records
            .values()
            .all(|record| record.state == Liveness::Live && record.last.is_some())
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_box_ends_its_incidents() {
    let mut world = World::new(5);
    world.run(15).await;
    world.boxes[0].up = false;
    world.run(10).await;
    world.server.as_ref().unwrap().intake.remove(BoxIx(0));
    world.run(1).await;
    assert_eq!(world.store.told()[1], (EventKind::Resolved, Kind::BoxDark));
    assert!(world.box_view(0).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_box_whose_token_is_revoked_and_replaced_at_once_is_watched_on() {
    let mut world = World::new(5);
    world.boxes[0].report = Some(report(1));
    world.run(15).await;
    let intake = world.server.as_ref().unwrap().intake.clone();
    intake.remove(BoxIx(0));
    intake.upsert(
        &info(0, Targets::default()),
        world.clock.mono(),
        world.clock.wall(),
    );
    world.run(5).await;
    assert_eq!(world.state(0), Liveness::Live);
    assert!(world.box_view(0).unwrap().report.is_some(), "asked for again");
    world.boxes[0].up = false;
    world.run(10).await;
    assert_eq!(world.store.told(), vec![(EventKind::Opened, Kind::BoxDark)]);
}

#[tokio::test(start_paused = true)]
async fn a_box_with_a_new_report_in_every_beat_is_heard_at_a_bounded_rate() {
    let mut world = World::new(5);
    for id in 1..=120 {
        world.boxes[0].report = Some(report(id));
        world.run(1).await;
    }
    let kept = world.box_view(0).unwrap().report.unwrap().0.id.as_u128();
    assert!(kept > 114, "the newest ones are taken: {kept}");
    assert!((40..50).contains(&world.taken), "{} of 120", world.taken);
}

#[tokio::test(start_paused = true)]
async fn a_host_that_answers_its_witness_is_silent_not_dark() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut world = World::new(5);
    world.kill();
    world.witness = listener.local_addr().unwrap().to_string().parse().unwrap();
    world.start();
    world.run(15).await;
    world.boxes[0].up = false;
    world.run(7).await;
    assert_eq!(
        (world.state(0), world.store.told()),
        (Liveness::Silent, vec![(EventKind::Opened, Kind::BoxSilent)])
    );
    let incident = world.store.changes.lock().unwrap()[0].incident.clone();
    assert_eq!(incident.details["witnesses"][0]["answer"], "reachable");
}

/// They are others' machines, and the receivers' by default: only a fleet of one to three boxes has a use for them.
#[tokio::test(start_paused = true)]
async fn only_a_small_fleet_asks_others_about_the_server_itself() {
    for (fleet, asks) in [(3, true), (10, false)] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut world = World::new(fleet);
        world.kill();
        world.own = vec![listener.local_addr().unwrap().to_string()];
        world.start();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        world.run(40).await;
        let before = asked.load(Ordering::Relaxed);
        assert!((1..=4).contains(&before), "{before} before anything happened");
        for _ in 0..10 {
            world.boxes[0].up = false;
            world.run(5).await;
            world.boxes[0].up = true;
            world.run(10).await;
        }
        let more = asked.load(Ordering::Relaxed) - before;
        assert_eq!(more > 2, asks, "{fleet} boxes: asked {more} times");
    }
}
