//! One receiver's worker in paused time, over an outbox in memory and a sender that fails on purpose.

mod dead;

use std::collections::BTreeMap;
use std::sync::Mutex;

use prometheus::Registry;
use protocol::incident::{EventKind, Incident};
use protocol::names::Word;
use url::Url;

use super::super::receivers::Request;
use super::super::receivers::answer::Answer;
use super::super::receivers::tests::{alert, answer, http as http_of};
use super::*;
use crate::settings::{Alertmanager, Receiver, Templates, Webhook};
use crate::store::StoreError;

/// An outbox in memory, with the store's promise: only the oldest undelivered row of each incident is due.
#[derive(Default)]
struct FakeOutbox {
    waiting: Mutex<BTreeMap<String, Vec<Kept>>>,
    done: Mutex<Vec<(Instant, Kept)>>,
}

/// A row, and before when it is not due, in the test's time.
struct Kept {
    row: OutboxRow,
    put: Instant,
    due: Instant,
}

impl FakeOutbox {
    fn with(rows: Vec<OutboxRow>) -> Arc<Self> {
        let outbox = Arc::new(Self::default());
        for row in rows {
            outbox.put(row);
        }
        outbox
    }
    fn put(&self, row: OutboxRow) {
        let now = mono_now();
        let mut waiting = self.waiting.lock().unwrap();
        waiting.entry(row.receiver.clone()).or_default().push(Kept {
            row,
            put: now,
            due: now,
        });
    }
    fn pending(&self) -> usize {
        self.waiting.lock().unwrap().values().map(Vec::len).sum()
    }
}

impl Outbox for FakeOutbox {
    async fn due(&self, receiver: &str, _: Timestamp, limit: u32) -> Result<Vec<OutboxRow>, StoreError> {
        let waiting = self.waiting.lock().unwrap();
        let mut heads: Vec<&Kept> = Vec::new();
        for kept in waiting.get(receiver).into_iter().flatten() {
            if heads
                .iter()
                .all(|head| head.row.incident_id != kept.row.incident_id)
            {
                heads.push(kept);
            }
        }
        let due = heads.into_iter().filter(|head| head.due <= mono_now());
        Ok(due.take(limit as usize).map(|head| head.row.clone()).collect())
    }
    async fn delivered(&self, id: i64, _: Timestamp, _: Option<String>) -> Result<(), StoreError> {
        for rows in self.waiting.lock().unwrap().values_mut() {
            let gone = rows.extract_if(.., |kept| kept.row.id == id);
            self.done
                .lock()
                .unwrap()
                .extend(gone.map(|kept| (mono_now(), kept)));
        }
        Ok(())
    }
    async fn attempt_failed(&self, id: i64, next: Timestamp, _: &str) -> Result<(), StoreError> {
        let wait = Duration::try_from(next.duration_since(wall_now())).unwrap_or_default();
        let mut waiting = self.waiting.lock().unwrap();
        for kept in waiting.values_mut().flatten().filter(|kept| kept.row.id == id) {
            kept.row.attempts += 1;
            kept.due = mono_now() + wait;
        }
        Ok(())
    }
    async fn firing(&self, _: &str) -> Result<Vec<Incident>, StoreError> {
        Ok(vec![alert().incident])
    }
}

type Sent = Arc<Mutex<Vec<(Instant, Request)>>>;

/// Answers by the moment: unavailable until `up_at`, and takes `takes` for each answer.
struct FakeSender {
    sent: Sent,
    up_at: Instant,
    takes: Duration,
}

impl Sender for FakeSender {
    async fn send(&self, request: &Request) -> Result<Answer, SendError> {
        self.sent.lock().unwrap().push((mono_now(), request.clone()));
        tokio::time::sleep(self.takes).await;
        if request.place().starts_with("gone") {
            Err(SendError::unavailable("no such host"))
        } else if mono_now() >= self.up_at {
            Ok(Answer::Http(answer(200, "")))
        } else {
            Err(SendError::unavailable("connection refused"))
        }
    }
}

fn row(id: i64, incident_id: i64, event: EventKind) -> OutboxRow {
    let mut alert = alert();
    alert.event = event;
    alert.key = format!("k{incident_id}");
    OutboxRow {
        id,
        receiver: "hook".into(),
        incident_id,
        alert,
        queued_at: wall_now(),
        attempts: 0,
        next_attempt_at: wall_now(),
        last_error: None,
        thread: None,
    }
}

struct Run {
    outbox: Arc<FakeOutbox>,
    sent: Sent,
    health: Arc<Mutex<Vec<ReceiverHealth>>>,
    stop: watch::Sender<bool>,
}

impl Run {
    fn keys(&self) -> Vec<(String, EventKind)> {
        let alerts = self.sent.lock().unwrap().clone();
        let decode = |body: &[u8]| serde_json::from_slice::<Alert>(body).unwrap();
        alerts
            .iter()
            .map(|(_, request)| decode(&http_of(request.clone()).body))
            .map(|alert| (alert.key, alert.event))
            .collect()
    }
}

fn start(rows: Vec<OutboxRow>, kind: ReceiverKind, up_after: Duration, takes: Duration) -> Run {
    let (stop, stopped) = watch::channel(false);
    let outbox = FakeOutbox::with(rows);
    let sent = Sent::default();
    let health = Arc::new(Mutex::new(Vec::new()));
    let told = health.clone();
    let receiver = Receiver {
        name: Word::new("hook").unwrap(),
        kind,
        templates: Templates::default(),
    };
    let sender = FakeSender {
        sent: sent.clone(),
        up_at: mono_now() + up_after,
        takes,
    };
    let worker = Worker {
        courier: Arc::new(Courier::new(receiver, sender).unwrap()),
        outbox: outbox.clone(),
        wake: Arc::new(Notify::new()),
        metrics: NotifyMetrics::new(&Registry::new()).unwrap(),
        standing: Arc::default(),
        health: move |health| told.lock().unwrap().push(health),
    };
    tokio::spawn(worker.run(stopped));
    Run {
        outbox,
        sent,
        health,
        stop,
    }
}

fn webhook() -> ReceiverKind {
    ReceiverKind::Webhook(Webhook {
        url: "http://127.0.0.1:9999/".parse().unwrap(),
        secret: None,
    })
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn an_hour_down_then_trigger_before_resolve_with_the_same_key() {
    let rows = vec![row(1, 7, EventKind::Opened), row(2, 7, EventKind::Resolved)];
    let run = start(rows, webhook(), Duration::from_hours(1), Duration::ZERO);
    pass(3600 + 31).await;
    assert_eq!(run.outbox.pending(), 0);
    let keys = run.keys();
    assert!(keys.iter().all(|(key, _)| key == "k7"));
    let (last, before) = keys.split_last().unwrap();
    assert_eq!(last.1, EventKind::Resolved);
    assert!(before.iter().all(|(_, event)| *event == EventKind::Opened));
    assert!(keys.len() < 180, "{} attempts in an hour", keys.len());
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn failing_for_a_minute_is_told_once_and_its_end_once() {
    let run = start(
        vec![row(1, 7, EventKind::Opened)],
        webhook(),
        Duration::from_secs(300),
        Duration::ZERO,
    );
    pass(55).await;
    assert_eq!(*run.health.lock().unwrap(), []);
    pass(300).await;
    let health = run.health.lock().unwrap().clone();
    let failing: Vec<bool> = health.iter().map(|health| health.failing.is_some()).collect();
    assert_eq!(failing, [true, false]);
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn incidents_go_side_by_side_to_a_slow_receiver() {
    let rows = (0..8).map(|n| row(n, n, EventKind::Opened)).collect();
    let run = start(rows, webhook(), Duration::ZERO, Duration::from_secs(5));
    pass(11).await;
    assert_eq!(run.outbox.pending(), 0, "two turns of four at 5 s each");
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn firing_alerts_are_refreshed_each_minute() {
    let target = ReceiverKind::Alertmanager(Alertmanager {
        urls: vec![Url::parse("http://127.0.0.1:9093").unwrap()],
    });
    let run = start(vec![], target, Duration::ZERO, Duration::ZERO);
    pass(185).await;
    assert_eq!(run.sent.lock().unwrap().len(), 4);
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn a_member_of_a_cluster_that_is_gone_keeps_the_refresh_from_no_other() {
    let urls = ["http://gone:9093", "http://127.0.0.1:9093"];
    let target = ReceiverKind::Alertmanager(Alertmanager {
        urls: urls.map(|url| Url::parse(url).unwrap()).to_vec(),
    });
    let run = start(vec![], target, Duration::ZERO, Duration::ZERO);
    pass(185).await;
    let sent = run.sent.lock().unwrap().clone();
    let living = sent
        .iter()
        .filter(|(_, request)| request.place().starts_with("127.0.0.1"));
    assert_eq!(living.count(), 4);
    let failing = run
        .health
        .lock()
        .unwrap()
        .iter()
        .any(|health| health.failing.is_some());
    assert!(!failing, "the cluster takes notifications");
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn the_first_success_after_a_start_ends_what_was_open_about_the_receiver() {
    let rows = vec![row(1, 7, EventKind::Opened), row(2, 8, EventKind::Opened)];
    let run = start(rows, webhook(), Duration::ZERO, Duration::ZERO);
    pass(2).await;
    let works = ReceiverHealth {
        receiver: "hook".into(),
        failing: None,
    };
    assert_eq!(*run.health.lock().unwrap(), [works]);
    drop(run.stop);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_it() {
    let run = start(vec![], webhook(), Duration::ZERO, Duration::ZERO);
    run.stop.send(true).unwrap();
    run.stop.closed().await;
}
