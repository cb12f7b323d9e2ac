//! What the proofs count about themselves.

use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// Seconds; a death is judged after 4 to 30 s, and delivered within a second of that.
const BUCKETS: [f64; 15] = [
    1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];

/// The dead man's figures.
#[derive(Debug, Clone)]
pub struct DeadManMetrics {
    /// Pings by outcome: `sent`, `failed` (the service did not take it), `withheld` (this server is not well).
    pub pings: IntCounterVec,
    /// 1 while pings go out, 0 while they are withheld.
    pub healthy: IntGauge,
    /// 1 for each reason for which they are withheld now.
    pub sick: IntGaugeVec,
    /// Unix time of the last ping that was taken; absent before the first.
    pub last_success: IntGaugeVec,
}

/// The canary's figures.
#[derive(Debug, Clone)]
pub struct CanaryMetrics {
    /// Seconds from the last beat that was taken to the notification's arrival.
    pub took: Histogram,
    /// Runs by result: `proven`, `skipped`, `failed`.
    pub runs: IntCounterVec,
    /// Unix time of the last proof; absent before the first.
    pub last_success: IntGaugeVec,
}

impl DeadManMetrics {
    /// Registered with `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let pings = IntCounterVec::new(
            Opts::new(
                "fleet_dead_man_pings_total",
                "Pings of the dead man's service by outcome (sent, failed, withheld because this server is not well).",
            ),
            &["outcome"],
        )?;
        let healthy = IntGauge::new(
            "fleet_dead_man_healthy",
            "Whether loop, store and outbox work (1), or pings are withheld (0).",
        )?;
        let sick = IntGaugeVec::new(
            Opts::new(
                "fleet_dead_man_sick",
                "1 for each reason for which pings are withheld now: loop, store, outbox.",
            ),
            &["reason"],
        )?;
        let last_success = moment(
            "fleet_dead_man_last_success_timestamp_seconds",
            "Unix time of the last ping that the service took.",
        )?;
        registry.register(Box::new(pings.clone()))?;
        registry.register(Box::new(healthy.clone()))?;
        registry.register(Box::new(sick.clone()))?;
        registry.register(Box::new(last_success.clone()))?;
        for outcome in ["sent", "failed", "withheld"] {
            pings.with_label_values(&[outcome]);
        }
        Ok(Self {
            pings,
            healthy,
            sick,
            last_success,
        })
    }
}

impl CanaryMetrics {
    /// Registered with `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let took = Histogram::with_opts(
            HistogramOpts::new(
                "fleet_canary_death_to_delivered_seconds",
                "Seconds from the canary's last heartbeat to the arrival of the notification that it is dark.",
            )
            .buckets(BUCKETS.to_vec()),
        )?;
        let runs = IntCounterVec::new(
            Opts::new(
                "fleet_canary_runs_total",
                "Runs of the canary by result (proven, skipped while the server judges nobody, failed).",
            ),
            &["result"],
        )?;
        let last_success = moment(
            "fleet_canary_last_success_timestamp_seconds",
            "Unix time of the last run that proved the way from a death to a notification.",
        )?;
        registry.register(Box::new(took.clone()))?;
        registry.register(Box::new(runs.clone()))?;
        registry.register(Box::new(last_success.clone()))?;
        for result in ["proven", "skipped", "failed"] {
            runs.with_label_values(&[result]);
        }
        Ok(Self {
            took,
            runs,
            last_success,
        })
    }
}

/// Without labels, but absent until it is first set: a plain gauge would claim 1970.
fn moment(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), &[])
}
