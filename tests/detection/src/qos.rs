//! What is counted: the quality of a failure detector as Chen, Toueg and Aguilera define it (IEEE Transactions on
//! Computers 51(5), 2002), and what the person on call feels. Whole numbers only, so that fleets add up the same in
//! any order.

use std::time::Duration;

/// Width of a bin of detection times.
const BIN_MICROS: u64 = 10_000;
/// Bins: two minutes.
const BINS: usize = 12_000;

/// Why a living box was called dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    /// False: host and path were fine, or had been for so long that a beat should have come.
    Fine,
    /// False: the silence was shorter than the declared tolerance, and nothing was the matter any more.
    Short,
    /// False by the same rule, although an outage was under way.
    Early,
    /// False: but for the server's own trouble the box would have been heard.
    Server,
    /// Its outage had ended within the last moments before the verdict: the two crossed on the way.
    Crossed,
    /// A real outage of its path or its machine, under way when it was told of.
    Outage,
}

/// All of them, in the order of the report.
pub const WRONGS: [Wrong; 6] = [
    Wrong::Fine,
    Wrong::Short,
    Wrong::Early,
    Wrong::Server,
    Wrong::Crossed,
    Wrong::Outage,
];

impl Wrong {
    /// Whether nothing at all justified it.
    pub fn is_false(self) -> bool {
        match self {
            Self::Fine | Self::Short | Self::Early | Self::Server => true,
            Self::Crossed | Self::Outage => false,
        }
    }

    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Short => "short",
            Self::Early => "early",
            Self::Server => "server",
            Self::Crossed => "crossed",
            Self::Outage => "outage",
        }
    }
}

/// How often what took how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Times {
    bins: Vec<u32>,
    count: u64,
    max_micros: u64,
}

impl Times {
    fn put(&mut self, took: Duration) {
        if self.bins.is_empty() {
            self.bins = vec![0; BINS];
        }
        let micros = took.as_micros() as u64;
        let bin = (micros / BIN_MICROS) as usize;
        self.bins[bin.min(BINS - 1)] += 1;
        self.count += 1;
        self.max_micros = self.max_micros.max(micros);
    }

    /// The upper edge of the bin that this share does not exceed, seconds.
    fn secs(&self, share: f64) -> f64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (bin, count) in self.bins.iter().enumerate() {
            sum += u64::from(*count);
            if sum >= wanted {
                return (bin as u64 + 1) as f64 * BIN_MICROS as f64 / 1e6;
            }
        }
        0.0
    }

    fn add(&mut self, other: &Self) {
        if self.bins.is_empty() {
            self.bins.clone_from(&other.bins);
        } else {
            for (sum, more) in self.bins.iter_mut().zip(&other.bins) {
                *sum += more;
            }
        }
        self.count += other.count;
        self.max_micros = self.max_micros.max(other.max_micros);
    }
}

/// One detector's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qos {
    detected: Times,
    /// Deaths found.
    pub found: u64,
    /// Deaths not found before the box was back.
    pub missed: u64,
    /// Deaths of a minute at most that were over before they were found: in no detection time.
    pub unfound: u64,
    /// Verdicts on boxes that were not dead, by why.
    pub wrong: [u64; WRONGS.len()],
    /// How long those lasted in all, microseconds.
    pub wrong_micros: u64,
    /// Pages about boxes that were back by themselves within a minute of their outage's beginning.
    pub pages_1_min: u64,
    /// … within five minutes.
    pub pages_5_min: u64,
    /// All pages about boxes and groups of them.
    pub pages: u64,
    /// Pages about the server itself.
    pub pages_server: u64,
    /// Pages about a receiver that takes nothing.
    pub pages_receiver: u64,
    told: Times,
}

impl Default for Qos {
    fn default() -> Self {
        Self {
            detected: Times::default(),
            found: 0,
            missed: 0,
            unfound: 0,
            wrong: [0; WRONGS.len()],
            wrong_micros: 0,
            pages_1_min: 0,
            pages_5_min: 0,
            pages: 0,
            pages_server: 0,
            pages_receiver: 0,
            told: Times::default(),
        }
    }
}

impl Qos {
    /// A death was found after so long.
    pub fn detected(&mut self, after: Duration) {
        self.detected.put(after);
        self.found += 1;
    }

    /// A living box was called dark.
    pub fn wrong(&mut self, why: Wrong) {
        self.wrong[place(why)] += 1;
    }

    /// How many by this cause.
    pub fn of(&self, why: Wrong) -> u64 {
        self.wrong[place(why)]
    }

    /// Those that nothing justified.
    pub fn false_dark(&self) -> u64 {
        WRONGS
            .iter()
            .filter(|why| why.is_false())
            .map(|why| self.of(*why))
            .sum()
    }

    /// All mistakes in the sense of Chen and others: the box was not dead.
    pub fn mistakes(&self) -> u64 {
        self.wrong.iter().sum()
    }

    /// A page about a box whose outage lasted so long by itself; `None`: it did not end by itself.
    pub fn page(&mut self, healed_after: Option<Duration>) {
        self.pages += 1;
        let within = |limit| healed_after.is_some_and(|after| after <= Duration::from_secs(limit));
        self.pages_1_min += u64::from(within(60));
        self.pages_5_min += u64::from(within(300));
    }

    /// A page about a death was taken so long after it.
    pub fn told_of(&mut self, after: Duration) {
        self.told.put(after);
    }

    /// Detection time that this share of the deaths did not exceed, seconds.
    pub fn detection_secs(&self, share: f64) -> f64 {
        self.detected.secs(share)
    }

    /// The longest, seconds.
    pub fn detection_max_secs(&self) -> f64 {
        self.detected.max_micros as f64 / 1e6
    }

    /// Time from a death to the page that somebody's telephone has taken, not exceeded by this share, seconds.
    pub fn told_secs(&self, share: f64) -> f64 {
        self.told.secs(share)
    }

    /// Adds another fleet's.
    pub fn add(&mut self, other: &Self) {
        self.detected.add(&other.detected);
        self.found += other.found;
        self.missed += other.missed;
        self.unfound += other.unfound;
        for (sum, more) in self.wrong.iter_mut().zip(other.wrong) {
            *sum += more;
        }
        self.wrong_micros += other.wrong_micros;
        self.pages_1_min += other.pages_1_min;
        self.pages_5_min += other.pages_5_min;
        self.pages += other.pages;
        self.pages_server += other.pages_server;
        self.pages_receiver += other.pages_receiver;
        self.told.add(&other.told);
    }
}

fn place(why: Wrong) -> usize {
    WRONGS.iter().position(|one| *one == why).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_detection_times() {
        let mut qos = Qos::default();
        for ms in 1..=1000_u64 {
            qos.detected(Duration::from_millis(ms * 10 - 5));
        }
        assert!((qos.detection_secs(0.5) - 5.0).abs() < 0.02);
        assert!((qos.detection_secs(0.99) - 9.9).abs() < 0.02);
        let mut twice = qos.clone();
        twice.add(&qos);
        assert_eq!(twice.found, 2000);
        assert!((twice.detection_secs(0.5) - 5.0).abs() < 0.02);
    }

    #[test]
    fn a_page_for_nothing_counts_in_both() {
        let mut qos = Qos::default();
        qos.page(Some(Duration::from_secs(20)));
        qos.page(Some(Duration::from_secs(200)));
        qos.page(None);
        assert_eq!((qos.pages, qos.pages_1_min, qos.pages_5_min), (3, 1, 2));
    }
}
