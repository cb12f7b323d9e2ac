//! The detectors that ours is compared with, fed the same arrivals: fixed time-outs, and phi-accrual.
//!
//! Phi-accrual as published (Hayashibara and others, 2004: a normal distribution over a window of intervals) with Akka's
//! window of 1000, its least standard deviation (100 ms), its logistic approximation of the tail, and its rule that the first
//! interval after a failure is not learnt; once without and once with the acceptable pause of 3 s that Akka's cluster adds. And as Cassandra has it (exponential: `phi = t /
//! (mean · ln 10)`, window 1000, intervals of more than 2 s not learnt).
//!
//! They are given every advantage: no delay of a tick; what waited while the server stood still counts as arrived before
//! anybody is judged; while their process stands still or is down they say nothing, and one that was started anew gives
//! everybody a whole time-out. In fair weather they are not judged at all: what phi without a pause would say of two losses in
//! a row is left out, which spares it.

use std::collections::VecDeque;
use std::time::Duration;

use fleet_server::liveness::time::Mono;

use crate::calm::Moments;

/// Intervals in the window.
const WINDOW: u64 = 1000;
/// Akka's `min-std-deviation`, seconds.
const MIN_STD_SECS: f64 = 0.1;
/// Cassandra learns no longer interval than this, seconds.
const CASSANDRA_MOST_SECS: f64 = 2.0;

/// No phi calls a box dark sooner than this after its last beat: intervals up to it are learnt without asking, seconds.
const SURELY_SECS: f64 = 1.3;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Baseline {
    /// Dark after so many seconds.
    Fixed(f64),
    /// Phi-accrual over a normal distribution.
    Phi {
        /// Its threshold.
        threshold: f64,
        /// Akka's `acceptable-heartbeat-pause`, seconds.
        pause_secs: f64,
    },
    /// Phi-accrual over an exponential distribution.
    Cassandra {
        /// Its threshold.
        threshold: f64,
    },
}

/// All of them, in the order of the report.
pub const BASELINES: [Baseline; 11] = [
    Baseline::Fixed(3.0),
    Baseline::Fixed(4.5),
    Baseline::Fixed(6.0),
    Baseline::Fixed(10.0),
    Baseline::Fixed(30.0),
    phi(8.0, 0.0),
    phi(12.0, 0.0),
    phi(8.0, 3.0),
    phi(12.0, 3.0),
    Baseline::Cassandra { threshold: 8.0 },
    Baseline::Cassandra { threshold: 12.0 },
];

const fn phi(threshold: f64, pause_secs: f64) -> Baseline {
    Baseline::Phi {
        threshold,
        pause_secs,
    }
}

impl Baseline {
    /// As shown.
    pub fn name(&self) -> String {
        match self {
            Self::Fixed(secs) => format!("fixed {secs} s"),
            Self::Phi {
                threshold,
                pause_secs: 0.0,
            } => format!("phi {threshold}"),
            Self::Phi {
                threshold,
                pause_secs,
            } => format!("phi {threshold}, pause {pause_secs} s"),
            Self::Cassandra { threshold } => format!("phi {threshold}, exponential"),
        }
    }

    fn is_phi(&self) -> bool {
        match self {
            Self::Phi { .. } => true,
            Self::Fixed(_) | Self::Cassandra { .. } => false,
        }
    }

    /// How long after the last arrival it calls a box dark.
    fn after(&self, seen: &Seen, at: usize) -> Duration {
        let secs = match self {
            Self::Fixed(secs) => *secs,
            Self::Phi {
                threshold,
                pause_secs,
            } => {
                let moments = seen.phi[at].moments();
                moments.mean + pause_secs + deviations(*threshold) * moments.var.sqrt().max(MIN_STD_SECS)
            }
            Self::Cassandra { threshold } => threshold * std::f64::consts::LN_10 * seen.short.moments().mean,
        };
        Duration::from_secs_f64(secs)
    }
}

/// How many standard deviations over the mean phi reaches the threshold, by Akka's approximation of the normal tail.
fn deviations(threshold: f64) -> f64 {
    // phi = -log10(e / (1 + e)) with e = exp(-y (1.5976 + 0.070566 y²)); e is tiny where it matters.
    let wanted = threshold * std::f64::consts::LN_10;
    let (mut low, mut high) = (0.0, 40.0);
    for _ in 0..60 {
        let y = f64::midpoint(low, high);
        if y * (1.5976 + 0.070_566 * y * y) < wanted {
            low = y;
        } else {
            high = y;
        }
    }
    low
}

/// The last [`WINDOW`] intervals, runs of like ones together.
#[derive(Debug, Clone, Default)]
struct Window {
    runs: VecDeque<(u64, Moments)>,
    count: u64,
    sum: f64,
    square: f64,
}

impl Window {
    fn learn(&mut self, count: u64, moments: Moments) {
        let count = count.min(WINDOW);
        if count == WINDOW {
            *self = Self::default();
        }
        self.runs.push_back((count, moments));
        self.add(count as f64, moments);
        self.count += count;
        while self.count > WINDOW {
            let over = self.count - WINDOW;
            let Some((oldest, moments)) = self.runs.front().copied() else {
                return;
            };
            let gone = oldest.min(over);
            self.add(-(gone as f64), moments);
            self.count -= gone;
            if gone == oldest {
                self.runs.pop_front();
            } else if let Some(front) = self.runs.front_mut() {
                front.0 -= gone;
            }
        }
    }

    fn add(&mut self, count: f64, moments: Moments) {
        self.sum += count * moments.mean;
        self.square += count * (moments.var + moments.mean * moments.mean);
    }

    fn moments(&self) -> Moments {
        let count = self.count.max(1) as f64;
        let mean = self.sum / count;
        Moments {
            mean: if self.count == 0 { 1.0 } else { mean },
            var: (self.square / count - mean * mean).max(0.0),
        }
    }
}

/// What they all know of one box.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By place in [`BASELINES`]; those of others are not used.
    phi: [Window; BASELINES.len()],
    short: Window,
    last: Option<Mono>,
}

impl Seen {
    /// The last arrival.
    pub fn last(&self) -> Option<Mono> {
        self.last
    }

    /// When each baseline calls the box dark, if nothing arrives.
    pub fn dark_at(&self) -> Option<[Mono; BASELINES.len()]> {
        let last = self.last?;
        let mut at = 0;
        Some(BASELINES.map(|baseline| {
            at += 1;
            last + baseline.after(self, at - 1)
        }))
    }

    /// Whether any of them could have called it dark by `now`. Cheap.
    pub fn quiet_for(&self, now: Mono) -> Duration {
        self.last.map_or(Duration::ZERO, |last| now.since(last))
    }

    /// A beat arrived.
    pub fn arrived(&mut self, now: Mono) {
        if let Some(last) = self.last {
            let mean = now.since(last).as_secs_f64();
            let one = Moments { mean, var: 0.0 };
            for (at, baseline) in BASELINES.iter().enumerate().filter(|(_, one)| one.is_phi()) {
                if mean <= SURELY_SECS || now < last + baseline.after(self, at) {
                    self.phi[at].learn(1, one);
                }
            }
            if mean <= CASSANDRA_MOST_SECS {
                self.short.learn(1, one);
            }
        }
        self.last = Some(now);
    }

    /// Many arrived, the last of them now.
    pub fn arrived_on_time(&mut self, count: u32, gap: Moments, now: Mono) {
        for (at, _) in BASELINES.iter().enumerate().filter(|(_, one)| one.is_phi()) {
            self.phi[at].learn(u64::from(count), gap);
        }
        self.short.learn(u64::from(count), gap);
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_is_what_akka_says() {
        // Akka's logistic approximation of the normal distribution, forwards.
        let phi = |y: f64| {
            let e = (-y * (1.5976 + 0.070_566 * y * y)).exp();
            -(e / (1.0 + e)).log10()
        };
        for threshold in [8.0, 12.0] {
            let said = phi(deviations(threshold));
            assert!((said - threshold).abs() < 1e-3, "{threshold}: {said}");
        }
    }

    #[test]
    fn runs_are_as_good_as_one_by_one() {
        let (mut runs, mut singles) = (Window::default(), Window::default());
        let of = |mean| Moments { mean, var: 0.0 };
        for (count, mean) in [(700, 1.0), (1, 9.0), (200, 1.1), (500, 0.9), (3, 2.0)] {
            runs.learn(count, of(mean));
            (0..count).for_each(|_| singles.learn(1, of(mean)));
        }
        let (a, b) = (runs.moments(), singles.moments());
        assert!((a.mean - b.mean).abs() < 1e-9 && (a.var - b.var).abs() < 1e-9);
        assert_eq!(runs.count, WINDOW);
    }

    #[test]
    fn a_fixed_time_out_is_fixed() {
        let mut seen = Seen::default();
        seen.arrived(Mono::START);
        let dark = seen.dark_at().unwrap();
        assert_eq!(dark[2], Mono::START + Duration::from_secs(6));
    }
}
