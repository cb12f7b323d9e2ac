//! What the notify stage counts about itself.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// One struct, injected. Labels: `receiver` is the name in the configuration.
#[derive(Debug, Clone)]
pub struct NotifyMetrics {
    /// Attempts to send a notification, by receiver and outcome (`delivered`, `refused`, `denied`, `unavailable`).
    pub attempts: IntCounterVec,
    /// Seconds from the decision to the receiver's 2xx.
    pub delay: HistogramVec,
    /// Whether the receiver took the last attempt: 1 or 0.
    pub up: IntGaugeVec,
    /// Unix time of the last delivery.
    pub last_success: IntGaugeVec,
}

impl NotifyMetrics {
    /// Registered with `registry`.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let attempts = IntCounterVec::new(
            Opts::new(
                "fleet_notify_attempts_total",
                "Attempts to send a notification, by receiver and outcome (delivered, refused, denied, unavailable).",
            ),
            &["receiver", "outcome"],
        )?;
        let delay = HistogramVec::new(
            HistogramOpts::new(
                "fleet_notify_delay_seconds",
                "Seconds from the decision to notify to the receiver's 2xx, by receiver.",
            )
            .buckets(vec![
                0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
            ]),
            &["receiver"],
        )?;
        let up = IntGaugeVec::new(
            Opts::new(
                "fleet_receiver_up",
                "Whether the receiver took the last attempt (1) or not (0).",
            ),
            &["receiver"],
        )?;
        let last_success = IntGaugeVec::new(
            Opts::new(
                "fleet_notify_last_success_timestamp_seconds",
                "Unix time of the last notification that the receiver took.",
            ),
            &["receiver"],
        )?;
        registry.register(Box::new(attempts.clone()))?;
        registry.register(Box::new(delay.clone()))?;
        registry.register(Box::new(up.clone()))?;
        registry.register(Box::new(last_success.clone()))?;
        Ok(Self {
            attempts,
            delay,
            up,
            last_success,
        })
    }
}
