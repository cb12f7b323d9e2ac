//! What a box's own path has shown: how late its beats come, and the gaps they left.
//!
//! Evidence rules:
//! - Only gaps within one session count: a reboot or a restarted watchdog is no property of the path.
//! - A gap that spans a pause, a blindness or the start of the server counts for nothing.
//! - The *body* (lateness up to the suspicion's slack) is a mean and a variance over about [`WINDOW`] beats; the first
//!   beats count equally, so that none of them weighs more than it should.
//! - The *tail* (longer gaps) never enters the body: one gap would blow the variance up for all of its window. It is a
//!   record of the longest gaps of the last [`MEMORY_SECS`] of observed time. Gaps come in bursts, so those within
//!   [`EPISODE_SECS`] of each other are one episode, as long as its longest.

use serde::{Deserialize, Serialize};

/// Beats that the body's mean and variance remember.
pub const WINDOW: u32 = 512;
/// Gaps closer together than this are one episode, seconds of observed time.
const EPISODE_SECS: f64 = 3600.0;
/// Older episodes are forgotten, seconds of observed time: 90 days.
pub const MEMORY_SECS: f64 = 90.0 * 86_400.0;
/// Episodes kept, the longest ones.
const EPISODES: usize = 8;

/// One box's history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    samples: u32,
    mean_secs: f32,
    var_secs2: f32,
    observed_secs: f64,
    gaps: [Gap; EPISODES],
}

/// Many beats in a row of which none was late by more than the suspicion's slack: calm weather in one figure, for who
/// simulates years of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    /// How many.
    pub count: u32,
    /// From the last beat before them to the last of them, seconds.
    pub over_secs: f64,
    /// How late they were on the average (an early one counts as not late), seconds.
    pub late_mean_secs: f32,
    /// And the variance of that, square seconds.
    pub late_var_secs2: f32,
}

/// One episode of the tail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct Gap {
    /// From one beat to the next, seconds; 0: none.
    secs: f32,
    /// When, on [`History::observed_secs`].
    at_secs: f64,
}

impl History {
    /// A gap of `gap_secs` between two beats of one session that should have been `every_secs`. One that is late by
    /// more than `body_secs` belongs to the tail; longer than `longest_secs` it is an outage, which no margin covers.
    pub fn learn(&mut self, gap_secs: f32, every_secs: f32, body_secs: f32, longest_secs: f32) {
        self.observed_secs += f64::from(gap_secs.min(longest_secs));
        let late = (gap_secs - every_secs).max(0.0);
        if late <= body_secs {
            self.learn_body(late);
        } else if gap_secs <= longest_secs {
            self.learn_gap(gap_secs);
        }
    }

    /// What [`learn`](Self::learn) makes of `steady.count` beats that all belonged to the body: exactly, where their
    /// lateness did not vary, and on the average, where it did.
    pub fn learn_steady(&mut self, steady: &Steady) {
        self.observed_secs += steady.over_secs;
        let ramp = steady.count.min(WINDOW.saturating_sub(self.samples));
        for _ in 0..ramp {
            self.learn_body(steady.late_mean_secs);
            self.var_secs2 += (1.0 - 1.0 / self.samples as f32) * steady.late_var_secs2 / self.samples as f32;
        }
        // The window is full: each beat weighs the same, so that many are a power.
        let kept = (1.0 - 1.0 / f64::from(WINDOW)).powi((steady.count - ramp).min(1 << 20) as i32) as f32;
        let off = steady.late_mean_secs - self.mean_secs;
        self.mean_secs = steady.late_mean_secs - kept * off;
        let spread = (1.0 - 1.0 / WINDOW as f32) * steady.late_var_secs2;
        self.var_secs2 = kept * self.var_secs2 + (1.0 - kept) * (spread + kept * off * off);
    }

    /// Beats learnt from, at most [`WINDOW`].
    pub fn samples(&self) -> u32 {
        self.samples
    }

    /// Mean lateness and its standard deviation, seconds.
    pub fn lateness_secs(&self) -> (f32, f32) {
        (self.mean_secs, self.var_secs2.max(0.0).sqrt())
    }

    /// Observed time that the tail's record covers, seconds.
    pub fn covered_secs(&self) -> f64 {
        self.observed_secs.min(MEMORY_SECS)
    }

    /// The `nth` longest gap (from 1) in memory, seconds from beat to beat; 0 if there were fewer.
    pub fn nth_gap_secs(&self, nth: usize) -> f32 {
        let mut gaps = self.gaps.map(|gap| if self.fresh(gap) { gap.secs } else { 0.0 });
        gaps.sort_by(|a, b| b.total_cmp(a));
        nth.checked_sub(1)
            .and_then(|n| gaps.get(n))
            .copied()
            .unwrap_or(0.0)
    }

    /// Whether every figure is one that [`learn`](Self::learn) could have left: what comes from a file may not be.
    pub fn is_sound(&self) -> bool {
        let fine = |secs: f32| secs.is_finite() && (0.0..=1e7).contains(&secs);
        self.samples <= WINDOW
            && fine(self.mean_secs)
            && fine(self.var_secs2)
            && self.observed_secs.is_finite()
            && self.observed_secs >= 0.0
            && self
                .gaps
                .iter()
                .all(|gap| fine(gap.secs) && gap.at_secs.is_finite())
    }

    fn learn_body(&mut self, late: f32) {
        self.samples = (self.samples + 1).min(WINDOW);
        let weight = 1.0 / self.samples as f32;
        let off = late - self.mean_secs;
        self.mean_secs += weight * off;
        // West's update: exact for equal weights, the usual exponential one once the window is full.
        self.var_secs2 = (1.0 - weight) * (self.var_secs2 + weight * off * off);
    }

    fn learn_gap(&mut self, secs: f32) {
        let now = self.observed_secs;
        let same_episode = |gap: &&mut Gap| gap.secs > 0.0 && now - gap.at_secs < EPISODE_SECS;
        if let Some(episode) = self.gaps.iter_mut().find(same_episode) {
            episode.secs = episode.secs.max(secs);
            return;
        }
        let fresh_after = now - MEMORY_SECS;
        let weight = |gap: &Gap| if gap.at_secs < fresh_after { 0.0 } else { gap.secs };
        let least = self
            .gaps
            .iter_mut()
            .min_by(|a, b| weight(a).total_cmp(&weight(b)));
        if let Some(slot) = least
            && weight(slot) < secs
        {
            *slot = Gap { secs, at_secs: now };
        }
    }

    fn fresh(&self, gap: Gap) -> bool {
        gap.at_secs >= self.observed_secs - MEMORY_SECS
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these figures are exact")]
mod tests {
    use super::*;

    fn beats(history: &mut History, count: u32, late: f32) {
        for _ in 0..count {
            history.learn(1.0 + late, 1.0, 2.0, 30.0);
        }
    }

    #[test]
    fn body_is_mean_and_spread() {
        let mut history = History::default();
        for n in 0..2000 {
            history.learn(1.0 + if n % 2 == 0 { 0.1 } else { 0.3 }, 1.0, 2.0, 30.0);
        }
        let (mean, spread) = history.lateness_secs();
        assert!(
            (mean - 0.2).abs() < 0.01 && (spread - 0.1).abs() < 0.01,
            "{mean} {spread}"
        );
    }

    #[test]
    fn early_beats_are_not_late() {
        let mut history = History::default();
        history.learn(0.2, 1.0, 2.0, 30.0);
        assert_eq!(history.lateness_secs(), (0.0, 0.0));
    }

    #[test]
    fn a_gap_leaves_the_body_alone() {
        let mut history = History::default();
        beats(&mut history, 1000, 0.02);
        let before = history.lateness_secs();
        history.learn(9.0, 1.0, 2.0, 30.0);
        assert_eq!(history.lateness_secs(), before);
        assert!((history.nth_gap_secs(1) - 9.0).abs() < 1e-6);
    }

    #[test]
    fn a_burst_is_one_episode() {
        let mut history = History::default();
        for secs in [7.0, 12.0, 8.0] {
            history.learn(secs, 1.0, 2.0, 30.0);
            beats(&mut history, 60, 0.0);
        }
        assert_eq!((history.nth_gap_secs(1), history.nth_gap_secs(2)), (12.0, 0.0));
        beats(&mut history, 4000, 0.0);
        history.learn(8.0, 1.0, 2.0, 30.0);
        assert_eq!((history.nth_gap_secs(1), history.nth_gap_secs(2)), (12.0, 8.0));
    }

    #[test]
    fn steady_beats_are_learnt_as_one_by_one() {
        for before in [0, 7, 600] {
            for count in [1, 30, 512, 513, 5000] {
                let mut one_by_one = History::default();
                beats(&mut one_by_one, before, 0.4);
                let mut together = one_by_one;
                beats(&mut one_by_one, count, 0.05);
                together.learn_steady(&Steady {
                    count,
                    over_secs: f64::from(count) * 1.05,
                    late_mean_secs: 0.05,
                    late_var_secs2: 0.0,
                });
                let ((mean, spread), (mean2, spread2)) =
                    (one_by_one.lateness_secs(), together.lateness_secs());
                assert!(
                    (mean - mean2).abs() < 1e-4 && (spread - spread2).abs() < 1e-3,
                    "{before} {count}"
                );
                assert!((one_by_one.covered_secs() - together.covered_secs()).abs() < 1e-3);
                assert_eq!(one_by_one.samples(), together.samples());
            }
        }
    }

    #[test]
    fn steady_beats_keep_their_spread() {
        let mut one_by_one = History::default();
        for n in 0..4000 {
            one_by_one.learn(1.0 + if n % 2 == 0 { 0.1 } else { 0.3 }, 1.0, 2.0, 30.0);
        }
        let mut together = History::default();
        together.learn_steady(&Steady {
            count: 4000,
            over_secs: 4800.0,
            late_mean_secs: 0.2,
            late_var_secs2: 0.01,
        });
        let ((mean, spread), (mean2, spread2)) = (one_by_one.lateness_secs(), together.lateness_secs());
        assert!(
            (mean - mean2).abs() < 0.001 && (spread - spread2).abs() < 0.002,
            "{spread} {spread2}"
        );
    }

    #[test]
    fn an_outage_is_no_gap() {
        let mut history = History::default();
        history.learn(500.0, 1.0, 2.0, 30.0);
        assert_eq!(history.nth_gap_secs(1), 0.0);
    }

    #[test]
    fn the_longest_are_kept_and_forgotten_after_90_days() {
        let mut history = History::default();
        for n in 0..20_u8 {
            history.learn(5.0 + f32::from(n), 1.0, 2.0, 30.0);
            history.observed_secs += EPISODE_SECS;
        }
        assert_eq!(history.nth_gap_secs(1), 24.0);
        assert_eq!(history.nth_gap_secs(8), 17.0);
        assert_eq!(history.nth_gap_secs(9), 0.0);
        history.observed_secs += MEMORY_SECS;
        assert_eq!(history.nth_gap_secs(1), 0.0);
        history.learn(5.5, 1.0, 2.0, 30.0);
        assert_eq!(history.nth_gap_secs(1), 5.5);
    }
}
