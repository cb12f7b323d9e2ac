//! What the web part counts about itself.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// One struct, injected.
#[derive(Debug, Clone)]
pub struct WebMetrics {
    /// Heartbeats by outcome: `accepted`, or the word of the problem that refused them.
    pub heartbeats: IntCounterVec,
    /// Seconds from a heartbeat's arrival to its answer.
    pub heartbeat_seconds: Histogram,
    /// Connections open now.
    pub connections: IntGauge,
    /// Connections taken.
    pub accepted: IntCounter,
    /// Connections not taken or broken off, by reason.
    pub refused: IntCounterVec,
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
        registry.register(Box::new(heartbeats.clone()))?;
        registry.register(Box::new(heartbeat_seconds.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(accepted.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self {
            heartbeats,
            heartbeat_seconds,
            connections,
            accepted,
            refused,
        })
    }
}
