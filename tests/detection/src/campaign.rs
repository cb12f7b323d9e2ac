//! Many fleets, on all cores, added up; the sum does not depend on who finished first.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::baseline::BASELINES;
use crate::fleet::{Fleet, Record, Setup, Strange};
use crate::post::Told;
use crate::profile::Profile;
use crate::qos::Qos;
use crate::schedule::{DAY_SECS, YEAR_SECS, draw};

/// Days that one fleet is followed.
pub const FLEET_DAYS: f64 = YEAR_SECS / DAY_SECS;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Campaign<'a> {
    /// The weather.
    pub profile: &'a Profile,
    /// Whether boxes have a witness.
    pub witness: bool,
    /// Whether the server asks for its own way out.
    pub own: bool,
    /// The seed.
    pub seed: u64,
    /// The first fleet.
    pub first: u64,
    /// Fleets.
    pub fleets: u64,
    /// Days that each is followed.
    pub days: f64,
}

/// All fleets added up.
#[derive(Debug, Clone, PartialEq)]
pub struct Sum {
    /// Our detector.
    pub ours: Qos,
    /// The baselines.
    pub baselines: Vec<Qos>,
    /// What receivers were told.
    pub told: Told,
    /// Boxes that stayed dark although they were heard.
    pub forgotten: u64,
    /// How often the servers themselves were in trouble.
    pub server_troubles: u64,
    /// Box-days in which the box was not dead.
    pub box_days: f64,
    /// What should not have been, with its fleet.
    pub strange: Vec<(u64, Strange)>,
    /// Of all fleets.
    pub digest: u64,
    /// Boxes by whole seconds that they were allowed at the end.
    pub allowed_secs: Vec<u64>,
}

impl Campaign<'_> {
    /// Runs all fleets. `progress` hears of each.
    pub fn run(&self, progress: impl Fn(u64) + Sync) -> Sum {
        let next = AtomicU64::new(self.first);
        let total = Mutex::new((Total::default(), Vec::new()));
        let workers = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    loop {
                        let fleet = next.fetch_add(1, Ordering::Relaxed);
                        if fleet >= self.first + self.fleets {
                            return;
                        }
                        let record = self.fleet(fleet);
                        let mut total = total.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        total.0.add(&record);
                        let strange = record.strange.into_iter().map(|one| (fleet, one));
                        total.1.extend(strange);
                        drop(total);
                        progress(fleet);
                    }
                });
            }
        });
        let (total, mut strange) = total
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        strange.sort_by(|a, b| {
            (a.0, a.1.at_secs)
                .partial_cmp(&(b.0, b.1.at_secs))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        Sum {
            ours: total.ours,
            baselines: total.baselines,
            told: total.told,
            forgotten: total.forgotten,
            server_troubles: total.server_troubles,
            box_days: total.alive_micros as f64 / 1e6 / DAY_SECS,
            strange,
            digest: total.digest,
            allowed_secs: total.allowed_secs,
        }
    }

    /// One of the fleets.
    pub fn fleet(&self, fleet: u64) -> Record {
        let faults = draw(self.profile, self.seed, fleet, self.days);
        Fleet::run(Setup {
            profile: self.profile,
            witness: self.witness,
            own: self.own,
            seed: self.seed,
            fleet,
            days: self.days,
            faults: &faults,
        })
    }
}

#[derive(Debug)]
struct Total {
    ours: Qos,
    baselines: Vec<Qos>,
    told: Told,
    forgotten: u64,
    server_troubles: u64,
    alive_micros: u64,
    digest: u64,
    allowed_secs: Vec<u64>,
}

impl Default for Total {
    fn default() -> Self {
        Self {
            ours: Qos::default(),
            baselines: vec![Qos::default(); BASELINES.len()],
            told: Told::default(),
            forgotten: 0,
            server_troubles: 0,
            alive_micros: 0,
            digest: 0,
            allowed_secs: vec![0; 64],
        }
    }
}

impl Total {
    fn add(&mut self, record: &Record) {
        self.ours.add(&record.ours);
        self.told.add(record.told);
        self.forgotten += record.forgotten;
        self.server_troubles += record.server_troubles;
        for (sum, more) in self.baselines.iter_mut().zip(&record.baselines) {
            sum.add(more);
        }
        self.alive_micros += record.alive_micros;
        // Wrapping addition: the order of fleets does not matter.
        self.digest = self.digest.wrapping_add(record.digest);
        for (sum, more) in self.allowed_secs.iter_mut().zip(&record.allowed_secs) {
            *sum += more;
        }
    }
}
