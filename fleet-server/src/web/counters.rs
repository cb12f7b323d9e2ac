//! What the web part counts about itself, and figures of other parts that are read when somebody asks.

use jiff::Timestamp;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::store::Pending;
use crate::sweep::view::Health;

/// One struct, injected.
#[derive(Debug, Clone)]
pub struct WebMetrics {
    /// Heartbeats by outcome: `accepted`, or the word of the problem that refused them.
    pub heartbeats: IntCounterVec,
    /// Seconds from a heartbeat's arrival to its answer.
    pub heartbeat_seconds: Histogram,
    /// The one outcome that is counted all the time, looked up once.
    pub heartbeats_accepted: IntCounter,
    /// What was wrong with the store at this start.
    pub store_notes: IntGauge,
    /// Connections open now.
    pub connections: IntGauge,
    /// Connections taken.
    pub accepted: IntCounter,
    /// Connections not taken or broken off, by reason.
    pub refused: IntCounterVec,
    judging: IntGauge,
    turns: IntGauge,
    pauses: IntGauge,
    unsaved: IntGauge,
    waiting: IntGaugeVec,
    oldest: GaugeVec,
}

impl WebMetrics {
    /// Registered with `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let heartbeats = IntCounterVec::new(
            Opts::new(
                "fleet_heartbeats_total",
                "Heartbeats received, by outcome (accepted, or the kind of the problem that refused them).",
            ),
            &["outcome"],
        )?;
        let heartbeat_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "fleet_heartbeat_seconds",
                "Seconds from a heartbeat's arrival to its answer.",
            )
            .buckets(vec![
                0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0,
            ]),
        )?;
        let connections = IntGauge::new("fleet_connections", "Connections open now.")?;
        let accepted = IntCounter::new("fleet_connections_total", "Connections taken.")?;
        let refused = IntCounterVec::new(
            Opts::new(
                "fleet_connections_refused_total",
                "Connections not taken or broken off, by reason (full, handshake, accept).",
            ),
            &["reason"],
        )?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let by_receiver = &["receiver"];
        let waiting = IntGaugeVec::new(
            Opts::new(
                "fleet_notify_pending",
                "Notifications not yet delivered, by receiver.",
            ),
            by_receiver,
        )?;
        let oldest = GaugeVec::new(
            Opts::new(
                "fleet_notify_oldest_pending_seconds",
                "Age of the oldest notification not yet delivered, by receiver; absent if none waits.",
            ),
            by_receiver,
        )?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(oldest.clone()))?;
        registry.register(Box::new(heartbeats.clone()))?;
        registry.register(Box::new(heartbeat_seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(accepted.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            judging: gauge(
                "fleet_judging",
                "Whether boxes are judged (1), or not (0): warming up, blind, store failing.",
            )?,
            turns: gauge("fleet_sweep_turns", "Turns of the loop since the start.")?,
            pauses: gauge(
                "fleet_sweep_pauses",
                "Pauses of the server's own found since the start; each moved all deadlines.",
            )?,
            unsaved: gauge(
                "fleet_changes_unsaved",
                "Changes decided and not yet written to the store.",
            )?,
            heartbeats_accepted: heartbeats.with_label_values(&["accepted"]),
            store_notes: gauge(
                "fleet_store_notes",
                "Things that were wrong with the store at this start (set aside, recovered); the log says which.",
            )?,
            heartbeats,
            heartbeat_seconds,
            connections,
            accepted,
            refused,
            waiting,
            oldest,
        })
    }

    /// Takes the figures of other parts over, for a scrape. `pending`: `None` if the store did not say.
    pub fn look(&self, health: &Health, pending: Option<&[Pending]>, now: Timestamp) {
        self.judging.set(i64::from(health.judges.is_ok()));
        self.turns.set(health.turns as i64);
        self.pauses.set(health.pauses as i64);
        self.unsaved.set(health.unsaved as i64);
        let Some(pending) = pending else { return };
        self.waiting.reset();
        self.oldest.reset();
        for each in pending {
            let receiver = &[each.receiver.as_str()];
            self.waiting.with_label_values(receiver).set(each.count as i64);
            let age = now.duration_since(each.oldest).as_secs_f64().max(0.0);
            self.oldest.with_label_values(receiver).set(age);
        }
    }
}
