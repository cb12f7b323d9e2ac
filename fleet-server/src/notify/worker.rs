//! The shell that empties one receiver's part of the outbox: one task a receiver, so that a dead one delays no other.
//!
//! Order: the store hands out only the oldest undelivered row of each incident, so a trigger always goes before its
//! resolve; different incidents go side by side, [`SIDE_BY_SIDE`] at once. While the receiver is failing, one row at
//! a time asks whether it is back. An Alertmanager's firing alerts are refreshed from this same task, between two
//! sendings: a refresh can never overtake a resolve.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use protocol::alert::{Alert, VERSION};
use protocol::incident::{EventKind, Incident};

use super::courier::Courier;
use super::metrics::NotifyMetrics;
use super::net::Sender;
use super::outbox::{Outbox, OutboxRow};
use super::receivers::answer::Taken;
use super::receivers::{Message, alertmanager};
use super::retry::{FAILING_AFTER, RETRY_AFTER_MAX, SendError, wait_after};
use super::standing::Standing;
use crate::settings::ReceiverKind;

/// Notifications of different incidents that one receiver gets at once.
const SIDE_BY_SIDE: u32 = 4;
/// How long an idle worker sleeps when nobody wakes it: a lost wake costs at most this.
const IDLE: Duration = Duration::from_secs(1);
/// How long to wait after the store did not answer.
const STORE_WAIT: Duration = Duration::from_secs(1);

/// How a receiver does, for the incident about it: told when that changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiverHealth {
    /// Its name.
    pub receiver: String,
    /// The last error, once it has failed for [`FAILING_AFTER`]; `None`: it takes notifications.
    pub failing: Option<String>,
}

/// One receiver's worker.
pub struct Worker<O, S, H> {
    /// What brings a notification to the receiver.
    pub courier: Arc<Courier<S>>,
    /// Where rows come from.
    pub outbox: Arc<O>,
    /// Rung when rows were added.
    pub wake: Arc<Notify>,
    /// Its counters.
    pub metrics: NotifyMetrics,
    /// How the receiver does, for the API.
    pub standing: Arc<Standing>,
    /// Told of a change in the receiver's health; never waits.
    pub health: H,
}

/// How the receiver has done lately.
#[derive(Default)]
struct Streak {
    failures: u32,
    since: Option<Instant>,
    told: bool,
    /// It took something since this server started: until then an incident about it may be open from before the start.
    proven: bool,
    last_text: String,
    /// What a member of a cluster said that did not take what another one took.
    member_text: String,
}

impl<O: Outbox, S: Sender, H: Fn(ReceiverHealth) + Send + Sync> Worker<O, S, H> {
    /// Works until `shutdown` turns true; a sending under way is finished first.
    pub async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut streak = Streak::default();
        let mut refreshed: Option<Instant> = None;
        while !*shutdown.borrow() {
            let pause = self.turn(&mut streak, &mut refreshed).await;
            tokio::select! {
                () = self.wake.notified(), if pause.wakeable => {}
                () = tokio::time::sleep(pause.wait) => {}
                _ = shutdown.changed() => {}
            }
        }
    }

    /// Sends what is due, and says how long to wait before the next turn.
    async fn turn(&self, streak: &mut Streak, refreshed: &mut Option<Instant>) -> Pause {
        let name = self.name();
        let limit = if streak.failures > 0 { 1 } else { SIDE_BY_SIDE };
        let rows = match self.outbox.due(name, wall_now(), limit).await {
            Ok(rows) => rows,
            Err(err) => {
                tracing::error!(receiver = %name, "cannot read the outbox: {err}");
                return Pause::deaf(STORE_WAIT);
            }
        };
        if rows.is_empty() {
            return self.refresh(streak, refreshed).await;
        }
        let answers = join_all(rows.iter().map(|row| self.deliver(row))).await;
        let mut wait = None;
        for (row, answer) in rows.iter().zip(answers) {
            wait = wait.max(self.settle(row, answer, streak).await);
        }
        wait.map_or(Pause::none(), Pause::deaf)
    }

    fn name(&self) -> &str {
        self.courier.receiver().name.as_str()
    }

    async fn deliver(&self, row: &OutboxRow) -> Result<Taken, SendError> {
        self.courier
            .bring(&row.alert, row.thread.as_deref(), wall_now())
            .await
    }

    /// Writes down what came of one row. `Some`: leave the receiver alone for that long.
    async fn settle(
        &self,
        row: &OutboxRow,
        answer: Result<Taken, SendError>,
        streak: &mut Streak,
    ) -> Option<Duration> {
        let name = self.name();
        let now = wall_now();
        let outcome = answer.as_ref().map_or_else(SendError::word, |_| "delivered");
        self.metrics.attempts.with_label_values(&[name, outcome]).inc();
        self.metrics
            .up
            .with_label_values(&[name])
            .set(i64::from(answer.is_ok()));
        let error = match answer {
            Ok(taken) => {
                let delay = now.duration_since(row.queued_at).as_secs_f64().max(0.0);
                self.metrics.delay.with_label_values(&[name]).observe(delay);
                self.metrics
                    .last_success
                    .with_label_values(&[name])
                    .set(now.as_second());
                self.succeeded(streak);
                if let Err(err) = self.outbox.delivered(row.id, now, taken.thread).await {
                    tracing::error!(receiver = %name, row = row.id, "delivered, but cannot write that down (it will be repeated with the same key): {err}");
                    return Some(STORE_WAIT);
                }
                return taken.pause.map(|pause| pause.min(RETRY_AFTER_MAX));
            }
            Err(error) => error,
        };
        self.failed(streak, &error.to_string());
        let whole = error.is_the_receivers();
        let attempts = if whole { streak.failures } else { row.attempts + 1 };
        let wait = wait_after(&error, attempts, jitter());
        // The whole receiver waits for what the next row would meet as well; a refused row waits alone.
        let (next, hold) = if whole {
            (now, Some(wait))
        } else {
            (now + wait, None)
        };
        if let Err(err) = self.outbox.attempt_failed(row.id, next, &error.to_string()).await {
            tracing::error!(receiver = %name, row = row.id, "cannot write down a failed attempt: {err}");
            return Some(wait.max(STORE_WAIT));
        }
        hold
    }

    fn succeeded(&self, streak: &mut Streak) {
        self.standing.succeeded(wall_now());
        if streak.failures > 0 {
            tracing::info!(receiver = %self.name(), failures = streak.failures, "receiver takes notifications again");
        }
        if streak.told || !streak.proven {
            (self.health)(ReceiverHealth {
                receiver: self.name().to_owned(),
                failing: None,
            });
        }
        *streak = Streak {
            proven: true,
            member_text: std::mem::take(&mut streak.member_text),
            ..Streak::default()
        };
    }

    fn failed(&self, streak: &mut Streak, text: &str) {
        self.standing.failed(text, wall_now());
        streak.failures = streak.failures.saturating_add(1);
        if streak.last_text != text {
            text.clone_into(&mut streak.last_text);
            tracing::warn!(receiver = %self.name(), "notification not taken, will be tried again: {text}");
        }
        let now = mono_now();
        let since = *streak.since.get_or_insert(now);
        if !streak.told && now.duration_since(since) >= FAILING_AFTER {
            streak.told = true;
            let failing = Some(text.to_owned());
            (self.health)(ReceiverHealth {
                receiver: self.name().to_owned(),
                failing,
            });
        }
    }

    /// The cluster works without that member, so nobody is woken: it is logged when what it says changes.
    fn member_failed(&self, streak: &mut Streak, text: &str) {
        if streak.member_text != text {
            text.clone_into(&mut streak.member_text);
            tracing::warn!(receiver = %self.name(), "one of its URLs takes nothing, another one does: {text}");
        }
    }

    /// Keeps an Alertmanager's alerts firing.
    async fn refresh(&self, streak: &mut Streak, refreshed: &mut Option<Instant>) -> Pause {
        let ReceiverKind::Alertmanager(cluster) = &self.courier.receiver().kind else {
            return Pause::idle();
        };
        let now = mono_now();
        if refreshed.is_some_and(|at| now.duration_since(at) < alertmanager::REFRESH) {
            return Pause::idle();
        }
        let open = match self.outbox.firing(self.name()).await {
            Ok(open) => open,
            Err(err) => {
                tracing::error!(receiver = %self.name(), "cannot read open incidents: {err}");
                return Pause::deaf(STORE_WAIT);
            }
        };
        for batch in open.chunks(alertmanager::BATCH) {
            let alerts: Vec<_> = batch.iter().map(|incident| firing(incident.clone())).collect();
            let words: Vec<_> = alerts.iter().map(|alert| self.courier.words(alert)).collect();
            let messages: Vec<Message<'_>> = alerts
                .iter()
                .zip(&words)
                .map(|(alert, rendered)| Message {
                    alert,
                    rendered,
                    thread: None,
                })
                .collect();
            let requests = alertmanager::refresh(cluster, &messages, wall_now());
            // To all of them at once: a member that missed the alert learns of it here, and one that is gone keeps it
            // from no other.
            let answers = self.courier.send_all(&requests, wall_now()).await;
            let taken = answers.iter().any(Result::is_ok);
            let Some(err) = answers.into_iter().find_map(Result::err) else {
                self.succeeded(streak);
                continue;
            };
            if !taken {
                self.failed(streak, &err.to_string());
                return Pause::idle_for(wait_after(&err, streak.failures, jitter()));
            }
            self.member_failed(streak, &err.to_string());
            self.succeeded(streak);
        }
        *refreshed = Some(now);
        Pause::idle()
    }
}

/// An open incident as what an Alertmanager is kept reminded of.
fn firing(incident: Incident) -> Alert {
    Alert {
        version: VERSION,
        key: super::plan::key(&incident),
        revision: 0,
        event: EventKind::Opened,
        test: false,
        incident,
        ack: None,
        note: String::new(),
    }
}

/// How long to wait, and whether new rows end the wait.
struct Pause {
    wait: Duration,
    wakeable: bool,
}

impl Pause {
    const fn none() -> Self {
        Self {
            wait: Duration::ZERO,
            wakeable: false,
        }
    }
    const fn idle() -> Self {
        Self::idle_for(IDLE)
    }
    const fn idle_for(wait: Duration) -> Self {
        Self { wait, wakeable: true }
    }
    const fn deaf(wait: Duration) -> Self {
        Self {
            wait,
            wakeable: false,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that sends reads the clock")]
fn mono_now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the shell that sends reads the clock")]
fn wall_now() -> Timestamp {
    Timestamp::now()
}

/// 0 to 1. Without randomness from the system the retries are merely in step.
fn jitter() -> f64 {
    getrandom::u32().map_or(0.0, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
