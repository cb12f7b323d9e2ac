//! What beats look like in fair weather, told in bulk: their number, and the moments of their lateness.
//!
//! In fair weather one or two packets of a beat may still be lost (three in a row are a fault of the schedule). Such a
//! beat is late by less than the suspicion's slack, so nothing can come of it but its share in mean and variance. Those
//! are measured once per box from beats drawn one by one, calm hours and congested ones weighed by how many there are.

use fleet_server::liveness::history::Steady;

use crate::dice::Dice;
use crate::path::{Path, Sending, ServerTimes};
use crate::profile::{CONGESTED_HOURS, Profile};
use crate::schedule::after;

/// Beats drawn for each figure.
const DRAWN: u32 = 3000;

/// Mean and variance, of seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moments {
    /// Mean.
    pub mean: f64,
    /// Variance.
    pub var: f64,
}

/// One box's fair weather.
#[derive(Debug, Clone, Copy)]
pub struct Calm {
    /// How late a beat is after the one before it, early counted as not late.
    pub late: Moments,
    /// From one arrival to the next.
    pub gap: Moments,
}

impl Calm {
    /// Measured on this path.
    pub fn measure(profile: &Profile, path: &Path, dice: &mut Dice) -> Self {
        let hours = f64::from(CONGESTED_HOURS.end() - CONGESTED_HOURS.start() + 1);
        let noon = gaps(profile, path, dice, 12.0);
        let evening = gaps(profile, path, dice, f64::from(*CONGESTED_HOURS.start()) + 0.5);
        let weighed = |figure: fn(f64) -> f64| {
            let (a, b) = (moments(&noon, figure), moments(&evening, figure));
            let share = hours / 24.0;
            let mean = a.mean * (1.0 - share) + b.mean * share;
            let square = |of: Moments| of.var + of.mean * of.mean;
            Moments {
                mean,
                var: square(a) * (1.0 - share) + square(b) * share - mean * mean,
            }
        };
        Self {
            late: weighed(|gap| (gap - 1.0).max(0.0)),
            gap: weighed(|gap| gap),
        }
    }

    /// `count` beats over so many seconds.
    pub fn steady(&self, count: u32, over_secs: f64) -> Steady {
        Steady {
            count,
            over_secs,
            late_mean_secs: self.late.mean as f32,
            late_var_secs2: self.late.var as f32,
        }
    }
}

fn gaps(profile: &Profile, path: &Path, dice: &mut Dice, hour: f64) -> Vec<f64> {
    let server = ServerTimes::default();
    let mut last = 0.0;
    let mut gaps = Vec::new();
    for n in 0..DRAWN {
        let due = f64::from(n);
        let at = after(hour * 3600.0 + dice.between(profile.jitter_secs));
        let sending = Sending {
            at,
            route: 0,
            conn_since: at,
            rto: path.rto(),
            unlucky: 0,
        };
        let took = path
            .send(dice, &server, sending)
            .arrived
            .map_or(0.0, |arrived| arrived.since(after(hour * 3600.0)).as_secs_f64());
        // Late by more than two losses: told as a fault.
        let arrived = due + took.min(1.2);
        if n > 0 {
            gaps.push(arrived - last);
        }
        last = arrived;
    }
    gaps
}

fn moments(gaps: &[f64], figure: fn(f64) -> f64) -> Moments {
    let count = gaps.len() as f64;
    let mean = gaps.iter().map(|gap| figure(*gap)).sum::<f64>() / count;
    let var = gaps.iter().map(|gap| (figure(*gap) - mean).powi(2)).sum::<f64>() / count;
    Moments { mean, var }
}
