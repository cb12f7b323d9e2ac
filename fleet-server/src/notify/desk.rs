//! What the API asks of the receivers: how each does, and a test of one, marked as a test, on the same way as a real
//! notification.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::alert::{Alert, VERSION};
use protocol::api::{ReceiverTest, TestStep};
use protocol::incident::{EventKind, Incident, Kind, Severity};
use protocol::names::Labels;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::courier::Courier;
use super::net::Sender;
use super::receivers::keeps_state;
use super::standing::Standing;

/// A test is answered in this time, whatever the receiver does: shorter than `fleetctl` waits.
const TEST_LIMIT: Duration = Duration::from_secs(12);

/// One receiver, as the API sees it.
pub struct Counter<S> {
    /// What brings notifications to it.
    pub courier: Arc<Courier<S>>,
    /// How it does.
    pub standing: Arc<Standing>,
    testing: Mutex<()>,
}

/// All of them, in the configuration's order.
pub struct Desk<S> {
    counters: Vec<Counter<S>>,
}

impl<S: Sender> Desk<S> {
    /// Over `receivers`.
    pub fn new(receivers: impl IntoIterator<Item = (Arc<Courier<S>>, Arc<Standing>)>) -> Self {
        let counter = |(courier, standing)| Counter {
            courier,
            standing,
            testing: Mutex::default(),
        };
        Self {
            counters: receivers.into_iter().map(counter).collect(),
        }
    }

    /// All receivers.
    pub fn counters(&self) -> &[Counter<S>] {
        &self.counters
    }

    /// The receiver `name`.
    pub fn counter(&self, name: &str) -> Option<&Counter<S>> {
        self.counters.iter().find(|counter| counter.name() == name)
    }
}

impl<S: Sender> Counter<S> {
    /// Its name.
    pub fn name(&self) -> &str {
        self.courier.receiver().name.as_str()
    }

    /// Sends a marked test. `None`: one is under way.
    pub async fn test(&self, now: Timestamp) -> Option<ReceiverTest> {
        let _one_at_a_time = self.testing.try_lock().ok()?;
        let kind = &self.courier.receiver().kind;
        let events: &[EventKind] = if keeps_state(kind) {
            &[EventKind::Opened, EventKind::Resolved]
        } else {
            &[EventKind::Opened]
        };
        let until = mono_now() + TEST_LIMIT;
        let mut steps: Vec<TestStep> = Vec::new();
        for (revision, &event) in (1..).zip(events) {
            let alert = alert(self.name(), event, revision, now);
            steps.push(self.step(&alert, now, until).await);
            // What was not begun need not be ended.
            if steps.last().is_some_and(|step| step.outcome != "delivered") {
                break;
            }
        }
        Some(ReceiverTest {
            receiver: self.name().to_owned(),
            kind: kind.word().to_owned(),
            place: kind.place(),
            delivered: steps.iter().all(|step| step.outcome == "delivered"),
            steps,
        })
    }

    async fn step(&self, alert: &Alert, now: Timestamp, until: Instant) -> TestStep {
        let began = mono_now();
        let brought = tokio::time::timeout_at(until, self.courier.bring(alert, None, now)).await;
        let (outcome, answer) = match brought {
            Ok(Ok(taken)) => ("delivered", taken.said),
            Ok(Err(err)) => (err.word(), err.to_string()),
            Err(_) => (
                "unavailable",
                format!("no answer within {} s", TEST_LIMIT.as_secs()),
            ),
        };
        TestStep {
            event: alert.event,
            outcome: outcome.to_owned(),
            answer,
            took_ms: began.elapsed().as_millis() as u64,
        }
    }
}

/// A test is like a dark box but for its flag, its severity and its text.
fn alert(receiver: &str, event: EventKind, revision: u32, now: Timestamp) -> Alert {
    let opened_at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let resolved = event == EventKind::Resolved;
    let details = serde_json::json!({ "runbook": "docs/runbook.md#receiver_failing" });
    Alert {
        version: VERSION,
        key: format!("test:{receiver}:{}", now.as_millisecond()),
        revision,
        event,
        test: true,
        incident: Incident {
            id: 0,
            kind: Kind::BoxDark,
            severity: Severity::Info,
            box_name: None,
            labels: Labels::default(),
            opened_at,
            resolved_at: resolved.then(|| opened_at + SignedDuration::from_secs(1)),
            summary: format!("This is a test of the receiver {receiver}. No box is dark."),
            details: details.as_object().cloned().unwrap_or_default(),
        },
        ack: None,
        note: String::new(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell that sends reads the clock")]
fn mono_now() -> Instant {
    Instant::now()
}
