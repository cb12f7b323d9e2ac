//! How long a silence may be before a box is suspect, and before it is dark, given what its own path has shown.
//!
//! A deadline is `every + slack` after the last arrival. The prior, which a young history never changes, is the
//! configured `dark_after` at the configured `every` (6 s at 1 s: a slack of 5 s); the suspicion comes at
//! [`SUSPECT_SHARE`] of the slack (3 s). A longer `every` has a longer slack in proportion ([`PER_INTERVAL`]): one whole
//! beat may be lost, up to [`SLACK_CAP`].
//!
//! The slack grows on two kinds of evidence, never beyond `dark_after_max - dark_after` over the prior:
//! - **Body.** By Cantelli's inequality P(lateness ≥ mean + a) ≤ var / (var + a²), whatever the distribution. A history
//!   of m beats cannot speak of anything rarer than u = 1/(m+1), which gives a = spread·√m. So a path whose beats are
//!   regularly late by a second earns seconds; and 50 ms of jitter earns nothing over the prior.
//! - **Tail.** Of the gaps on record those are allowed that the budget (`false_alarms_per_box_year`) allows for the time
//!   that the record covers, but always one: a single gap, however long, moves nothing. The next longest one times
//!   [`TAIL_HEADROOM`] is the deadline: by order statistics the next gap is longer than the k-th longest of m with
//!   probability k/(m+1), again no promise beyond the evidence.
//!
//! **A host that answers no witness either** is dark sooner, at `confirmed_after`: such a silence is no matter of the
//! watchdog, of TCP's patience or of a rebind, so what is left to wait for is an outage of the path that heals. Prior:
//! [`WITNESS_SECS`] after the suspicion, when its witnesses have been asked twice (4.75 s). A path is allowed
//! [`CONFIRMED_GAPS`] - 1 long gaps in the record of 90 days; one more, and the least of the longest [`CONFIRMED_GAPS`]
//! is its deadline. Evidence (docs/detection.md): a datacentre's paths have about four gaps of 4.5 s in 90 days, so they
//! keep the prior; home lines have fifty, earn seconds, and page half as often as at the prior. Any rule that kept
//! the datacentre from earning and the home line at the prior would page for each of those fifty.
//!
//! **`tolerance`** (4 s) is under all of it: the shortest silence that is ever told of. A beat a second that is lost
//! together with a burst of the mean length (2.9 s) and comes back on a fresh connection is heard again within it.

use std::time::Duration;

use super::history::History;
use crate::settings::LivenessSettings;

/// Share of the dark slack after which a box is suspect.
const SUSPECT_SHARE: f64 = 0.4;
/// Slack in intervals: one lost beat, and a fifth of an interval for the next to be late.
const PER_INTERVAL: f64 = 1.2;
/// The slack that long intervals have at most by themselves, seconds: a timer an hour apart is dark after 70 minutes.
const SLACK_CAP: f64 = 600.0;
/// Over the longest gap that the budget does not allow.
const TAIL_HEADROOM: f32 = 1.25;
/// From the suspicion on, witnesses have been asked twice by then, seconds.
const WITNESS_SECS: f64 = 1.75;
/// So many long gaps in the memory of 90 days are the path's way of being.
const CONFIRMED_GAPS: usize = 8;
/// Standard deviations over the mean that the suspicion waits for: it costs a question to a witness, no more.
const SUSPECT_DEVIATIONS: f32 = 10.0;
/// Seconds of a year.
const YEAR_SECS: f64 = 365.25 * 86_400.0;

/// How long silences may be, over all boxes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Margins {
    slack_secs: f64,
    tolerance: Duration,
    earned_max_secs: f64,
    per_year: f64,
}

/// The two deadlines of one box, after its last arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// It is suspect.
    pub suspect_after: Duration,
    /// Nothing is said of it before.
    pub tolerance: Duration,
    /// It is dark, if its witnesses find no host either.
    pub confirmed_after: Duration,
    /// It is dark, if nobody can say more.
    pub dark_after: Duration,
    /// It is whatever its witnesses say by then.
    pub at_last: Duration,
}

impl Margins {
    /// As configured.
    pub fn new(settings: &LivenessSettings) -> Self {
        let slack = settings.dark_after.saturating_sub(settings.every);
        Self {
            slack_secs: slack.as_secs_f64().max(0.5),
            tolerance: settings.tolerance,
            earned_max_secs: settings
                .dark_after_max
                .saturating_sub(settings.dark_after)
                .as_secs_f64(),
            per_year: settings.false_alarms_per_box_year.max(0.0),
        }
    }

    /// The deadlines of a box that beats each `every`.
    pub fn deadlines(&self, every: Duration, history: &History) -> Deadlines {
        let every_secs = every.as_secs_f64();
        let prior = self.prior_secs(every_secs);
        let (mean, spread) = history.lateness_secs();
        let body = mean + spread * (history.samples() as f32).sqrt();
        let tail = f64::from(self.tail_secs(history)) - every_secs;
        let slack = prior
            .max(f64::from(body))
            .max(tail)
            .min(prior + self.earned_max_secs);
        let suspicion = f64::from(mean + SUSPECT_DEVIATIONS * spread)
            .clamp(prior * SUSPECT_SHARE, slack * 2.0 * SUSPECT_SHARE);
        let confirmed = (prior * SUSPECT_SHARE + WITNESS_SECS)
            .max(f64::from(history.nth_gap_secs(CONFIRMED_GAPS)) - every_secs)
            .min(slack);
        let at_last = (prior + self.earned_max_secs).max(slack);
        Deadlines {
            suspect_after: every + Duration::from_secs_f64(suspicion),
            tolerance: self.tolerance,
            confirmed_after: every + Duration::from_secs_f64(confirmed),
            dark_after: every + Duration::from_secs_f64(slack),
            at_last: every + Duration::from_secs_f64(at_last),
        }
    }

    /// Lateness up to which a beat belongs to the body, seconds.
    pub fn body_secs(&self, every: Duration) -> f32 {
        (self.prior_secs(every.as_secs_f64()) * SUSPECT_SHARE) as f32
    }

    /// The longest gap that a margin could cover, seconds.
    pub fn longest_secs(&self, every: Duration) -> f32 {
        let every = every.as_secs_f64();
        (every + self.prior_secs(every) + self.earned_max_secs) as f32
    }

    fn prior_secs(&self, every_secs: f64) -> f64 {
        self.slack_secs.max((PER_INTERVAL * every_secs).min(SLACK_CAP))
    }

    /// The deadline that the tail asks for, seconds after the last arrival; 0: nothing.
    fn tail_secs(&self, history: &History) -> f32 {
        let allowed = (self.per_year * history.covered_secs() / YEAR_SECS).max(1.0) as usize;
        history.nth_gap_secs(allowed + 1) * TAIL_HEADROOM
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these figures are exact")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn margins() -> Margins {
        Margins::new(&LivenessSettings::default())
    }

    fn learnt(gaps: impl IntoIterator<Item = f32>) -> History {
        let mut history = History::default();
        for gap in gaps {
            let (body, longest) = (margins().body_secs(SECOND), margins().longest_secs(SECOND));
            history.learn(gap, 1.0, body, longest);
        }
        history
    }

    fn dark_secs(history: &History) -> f64 {
        margins().deadlines(SECOND, history).dark_after.as_secs_f64()
    }

    #[test]
    fn the_prior_is_what_is_configured() {
        let deadlines = margins().deadlines(SECOND, &History::default());
        assert_eq!(deadlines.suspect_after, Duration::from_secs(3));
        assert_eq!(deadlines.dark_after, Duration::from_secs(6));
    }

    #[test]
    fn a_host_that_answers_nobody_is_dark_sooner_and_eight_gaps_earn_it_time() {
        let confirmed = |gaps: usize| {
            let days = (0..gaps).flat_map(|n| {
                [9.0 + n as f32]
                    .into_iter()
                    .chain(std::iter::repeat_n(1.0, 20_000))
            });
            let deadlines = margins().deadlines(SECOND, &learnt(days));
            assert_eq!(deadlines.tolerance, Duration::from_secs(4));
            deadlines.confirmed_after.as_secs_f64()
        };
        assert_eq!(confirmed(0), 4.75);
        assert_eq!(confirmed(7), 4.75);
        assert!((confirmed(8) - 9.0).abs() < 0.01, "{}", confirmed(8));
    }

    #[test]
    fn a_usual_path_earns_nothing() {
        let jitter = |n: u32| 1.0 + 0.05 * ((n * 7919 % 100) as f32 / 100.0);
        assert_eq!(dark_secs(&learnt((0..100_000).map(jitter))), 6.0);
    }

    #[test]
    fn no_young_history_and_no_single_gap_makes_it_longer() {
        for long in [3.5, 5.0, 7.0, 20.0, 29.0, 400.0] {
            assert_eq!(dark_secs(&learnt([1.0, 1.2, long])), 6.0, "{long}");
            let burst = [1.0, long, 1.0, long, 1.0, long];
            assert_eq!(dark_secs(&learnt(burst)), 6.0, "{long}");
            let old = (0..5000)
                .map(|_| 1.01)
                .chain([long])
                .chain((0..5000).map(|_| 1.01));
            assert_eq!(dark_secs(&learnt(old)), 6.0, "{long}");
        }
    }

    #[test]
    fn gaps_on_different_days_earn_a_margin_and_never_more_than_the_maximum() {
        let days =
            |gap: f32| (0..4).flat_map(move |_| [gap].into_iter().chain(std::iter::repeat_n(1.0, 20_000)));
        let earned = dark_secs(&learnt(days(9.0)));
        assert!((earned - 11.25).abs() < 0.01, "{earned}");
        assert_eq!(dark_secs(&learnt(days(29.0))), 30.0);
    }

    #[test]
    fn a_path_that_is_regularly_late_earns_seconds() {
        let late = |n: u32| if n.is_multiple_of(10) { 2.2 } else { 1.0 };
        let earned = dark_secs(&learnt((0..2000).map(late)));
        assert!((7.0..12.0).contains(&earned), "{earned}");
    }

    #[test]
    fn long_intervals_tolerate_one_lost_beat() {
        let dark = |every: u64| {
            margins()
                .deadlines(Duration::from_secs(every), &History::default())
                .dark_after
                .as_secs()
        };
        assert_eq!(dark(5), 11);
        assert_eq!(dark(120), 264);
        assert_eq!(dark(3600), 4200);
    }

    proptest! {
        #[test]
        fn deadlines_stay_within_their_bounds(
            gaps in prop::collection::vec(0.0_f32..100.0, 0..200),
            every_ms in 250_u64..3_600_000,
        ) {
            let every = Duration::from_millis(every_ms);
            let mut history = History::default();
            for gap in gaps {
                let (body, longest) = (margins().body_secs(every), margins().longest_secs(every));
                history.learn(gap * every.as_secs_f32(), every.as_secs_f32(), body, longest);
            }
            prop_assert!(history.is_sound());
            let prior = margins().deadlines(every, &History::default());
            let earned = margins().deadlines(every, &history);
            prop_assert!(earned.dark_after >= prior.dark_after);
            prop_assert!(earned.dark_after <= prior.dark_after + Duration::from_secs(24) + Duration::from_millis(1));
            prop_assert!(earned.suspect_after >= prior.suspect_after);
            prop_assert!(earned.suspect_after < earned.dark_after);
            prop_assert!(earned.confirmed_after <= earned.dark_after && earned.dark_after <= earned.at_last);
        }
    }
}
