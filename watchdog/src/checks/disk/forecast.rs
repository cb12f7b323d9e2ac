//! When will it be full? Theil–Sen over the last hour's samples: the median of the slopes between all pairs of samples,
//! which up to 29 % of wild samples cannot move (Sen 1968). Pure: it knows neither mounts nor a clock.
//!
//! It speaks only when it has seen enough, and stays silent rather than guess. The rules of evidence:
//! - floor: [`SAMPLES_MIN`] samples over [`SPAN_MIN`] at least;
//! - only a shrinking amount has an end;
//! - the change over the window must be over [`NOISE_FACTOR`] standard deviations of what the line does not explain
//!   (robustly: 1.4826 · the median absolute residual). One large step is such a residual: a copied file is no trend;
//! - the shrinking must be steady: in at least [`STEADY_RATIO`] of the intervals there is less than before. Two or three
//!   copied files are no trend either;
//! - farther off than [`HORIZON`] it is no forecast any more.

use std::time::Duration;

/// Fewer samples say nothing.
pub const SAMPLES_MIN: usize = 15;
/// A shorter time says nothing.
pub const SPAN_MIN: Duration = Duration::from_secs(30 * 60);
/// The change over the window in standard deviations of the noise.
pub const NOISE_FACTOR: f64 = 4.0;
/// The share of intervals in which the amount must have shrunk. Pure noise around a trend still shrinks in half of them.
pub const STEADY_RATIO: f64 = 0.4;
/// The farthest forecast.
pub const HORIZON: Duration = Duration::from_secs(30 * 86_400);

/// One sample: when (seconds, any origin) and how much was free (any unit).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Seconds.
    pub at_secs: f64,
    /// Amount free.
    pub free: f64,
}

/// Why there is no forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoForecast {
    /// Fewer than [`SAMPLES_MIN`] samples, or a shorter time than [`SPAN_MIN`].
    TooFewSamples,
    /// It does not shrink.
    NotShrinking,
    /// It shrinks less than it wavers.
    WithinNoise,
    /// It shrank in a few steps, not steadily.
    Steps,
    /// It will last longer than [`HORIZON`].
    FarAway,
}

/// How long, from the last of `points` on, until nothing is left. `points` are in the order of time.
pub fn empty_in(points: &[Point]) -> Result<Duration, NoForecast> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Err(NoForecast::TooFewSamples);
    };
    let span_secs = last.at_secs - first.at_secs;
    if points.len() < SAMPLES_MIN || span_secs < SPAN_MIN.as_secs_f64() {
        return Err(NoForecast::TooFewSamples);
    }
    let slope = slope(points);
    if slope >= 0.0 {
        return Err(NoForecast::NotShrinking);
    }
    if -slope * span_secs <= NOISE_FACTOR * noise(points, slope) {
        return Err(NoForecast::WithinNoise);
    }
    let shrank = points
        .windows(2)
        .filter(|pair| pair[1].free < pair[0].free)
        .count();
    if (shrank as f64) < STEADY_RATIO * (points.len() - 1) as f64 {
        return Err(NoForecast::Steps);
    }
    let secs = last.free / -slope;
    if secs > HORIZON.as_secs_f64() {
        return Err(NoForecast::FarAway);
    }
    Ok(Duration::from_secs_f64(secs.max(0.0)))
}

/// The median slope over all pairs, per second.
fn slope(points: &[Point]) -> f64 {
    let mut slopes = Vec::with_capacity(points.len() * (points.len() - 1) / 2);
    for (n, a) in points.iter().enumerate() {
        for b in &points[n + 1..] {
            let apart_secs = b.at_secs - a.at_secs;
            if apart_secs > 0.0 {
                slopes.push((b.free - a.free) / apart_secs);
            }
        }
    }
    median(&mut slopes)
}

/// The standard deviation of what the line with `slope` does not explain, robustly.
fn noise(points: &[Point], slope: f64) -> f64 {
    let mut rest: Vec<f64> = points.iter().map(|p| p.free - slope * p.at_secs).collect();
    let middle = median(&mut rest);
    let mut off: Vec<f64> = rest.iter().map(|r| (r - middle).abs()).collect();
    1.4826 * median(&mut off)
}

fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let (middle, is_odd) = (values.len() / 2, values.len() % 2 == 1);
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if is_odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    f64::midpoint(lower, upper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

    /// 30 samples two minutes apart, `free(n)`.
    fn series(free: impl Fn(usize) -> f64) -> Vec<Point> {
        (0..30)
            .map(|n| Point {
                at_secs: n as f64 * 120.0,
                free: free(n),
            })
            .collect()
    }

    #[test]
    fn a_steady_fill_is_forecast() {
        // 1 GiB every two minutes with 60 GiB left at the end: two hours.
        let left = empty_in(&series(|n| (89 - n) as f64 * GIB)).unwrap();
        assert_eq!(left, Duration::from_secs(7200));
    }

    #[test]
    fn too_little_is_no_evidence() {
        let all = series(|n| (89 - n) as f64 * GIB);
        assert_eq!(empty_in(&[]), Err(NoForecast::TooFewSamples));
        assert_eq!(empty_in(&all[..14]), Err(NoForecast::TooFewSamples));
        // Fifteen samples two minutes apart are 28 minutes.
        assert_eq!(empty_in(&all[..15]), Err(NoForecast::TooFewSamples));
        assert!(empty_in(&all[..16]).is_ok());
    }

    #[test]
    fn flat_or_growing_has_no_end() {
        assert_eq!(empty_in(&series(|_| GIB)), Err(NoForecast::NotShrinking));
        assert_eq!(
            empty_in(&series(|n| n as f64 * GIB)),
            Err(NoForecast::NotShrinking)
        );
    }

    #[test]
    fn slow_is_far_away() {
        let slow = empty_in(&series(|n| 1000.0 * GIB - n as f64 * 1024.0));
        assert_eq!(slow, Err(NoForecast::FarAway));
    }

    #[test]
    fn a_few_copied_files_are_no_trend() {
        let copies = series(|n| (60 - 20 * (usize::from(n > 10) + usize::from(n > 20))) as f64 * GIB);
        assert!(empty_in(&copies).is_err(), "{:?}", empty_in(&copies));
    }

    #[test]
    fn a_saw_tooth_that_goes_nowhere_is_no_trend() {
        let saw = series(|n| 50.0 * GIB - (n % 5) as f64 * GIB);
        assert!(empty_in(&saw).is_err(), "{:?}", empty_in(&saw));
    }

    proptest! {
        #[test]
        fn a_single_step_anywhere_is_no_trend(at in 1usize..30, size in 0.1f64..50.0) {
            let step = series(|n| if n < at { 60.0 * GIB } else { (60.0 - size) * GIB });
            prop_assert!(empty_in(&step).is_err(), "{:?}", empty_in(&step));
        }

        #[test]
        fn noise_alone_is_no_trend(wobble in proptest::collection::vec(-1.0f64..1.0, 30)) {
            // Pure noise may still look like a slow trend; it must never look like one that matters within two hours.
            let noisy = series(|n| 50.0 * GIB + wobble[n] * GIB);
            if let Ok(left) = empty_in(&noisy) {
                prop_assert!(left > Duration::from_secs(2 * 3600), "{left:?}");
            }
        }

        #[test]
        fn a_trend_shows_through_noise_and_outliers(
            rate in 0.2f64..2.0,
            wobble in proptest::collection::vec(-0.5f64..0.5, 30),
            wild in proptest::collection::btree_set(0usize..29, 0..5),
        ) {
            let free = |n: usize| (200.0 - rate * n as f64) * GIB;
            let points = series(|n| {
                if wild.contains(&n) { 5.0 * GIB } else { free(n) + wobble[n] * 0.5 * rate * GIB }
            });
            let truth = free(29) / (rate * GIB / 120.0);
            let left = empty_in(&points).unwrap().as_secs_f64();
            prop_assert!((left / truth - 1.0).abs() < 0.25, "forecast {left}, in truth {truth}");
        }

        #[test]
        fn it_never_panics(points in proptest::collection::vec((-1e18f64..1e18, -1e19f64..1e19), 0..40)) {
            let points: Vec<_> = points.iter().map(|&(at_secs, free)| Point { at_secs, free }).collect();
            let _ = empty_in(&points);
        }
    }
}
