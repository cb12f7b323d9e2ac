//! What the disk check remembers: a bounded series of samples for each file system, for the forecast.
//!
//! A series is begun anew when it would compare what cannot be compared: another file system at the same place, another
//! size, or a clock that jumped between two samples.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::forecast::{self, NoForecast, Point};
use super::space::Usage;

/// Samples in a series: an hour of runs two minutes apart.
const SAMPLES: usize = 30;
/// Nearer to the last sample than this, none is taken: runs by hand must not push the hour out of the window.
const SPACING_SECS: i64 = 100;
/// Older samples are forgotten.
const SAMPLE_AGE_SECS: i64 = 12 * 3600;
/// Series kept: twice what a report may hold, for mounts that come and go.
const SERIES: usize = 64;
/// How far the wall clock may run from the machine's uptime between two samples before it counts as a jump.
const CLOCK_JUMP_SECS: i64 = 120;

/// What this check remembers from run to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DiskHistory {
    /// By mount point.
    series: BTreeMap<String, Series>,
}

/// The samples of one file system, and which one it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Series {
    device: String,
    fsid: u64,
    total_bytes: u64,
    samples: Vec<Sample>,
}

/// One sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Sample {
    at: Timestamp,
    uptime_secs: u64,
    free_bytes: u64,
    free_inodes: u64,
}

/// When a file system will be full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Until no byte is left.
    pub bytes: Result<std::time::Duration, NoForecast>,
    /// Until no inode is left.
    pub inodes: Result<std::time::Duration, NoForecast>,
}

/// One file system as seen in this run.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// Where.
    pub point: &'a str,
    /// `major:minor`.
    pub device: &'a str,
    /// Its type: ZFS and btrfs give a total that moves with the pool.
    pub fs_type: &'a str,
    /// Its numbers.
    pub usage: Usage,
}

impl DiskHistory {
    /// Adds what was seen at `now`, `uptime_secs` after boot, and looks ahead.
    pub fn record(&mut self, seen: Seen<'_>, now: Timestamp, uptime_secs: u64) -> Forecast {
        let total_bytes = if seen.fs_type == "zfs" {
            0
        } else {
            seen.usage.total_bytes
        };
        let series = self.series.entry(seen.point.to_owned()).or_default();
        let same = (series.device.as_str(), series.fsid, series.total_bytes)
            == (seen.device, seen.usage.fsid, total_bytes);
        if !same {
            *series = Series {
                device: seen.device.to_owned(),
                fsid: seen.usage.fsid,
                total_bytes,
                samples: Vec::new(),
            };
        }
        let sample = Sample {
            at: now,
            uptime_secs,
            free_bytes: seen.usage.free_bytes,
            free_inodes: seen.usage.free_inodes,
        };
        series.add(sample);
        series.forecast(sample)
    }

    /// Forgets series that nothing was added to for long, and the oldest ones beyond the bound.
    pub fn prune(&mut self, now: Timestamp) {
        let age_secs = |s: &Series| {
            s.samples
                .last()
                .map_or(i64::MAX, |last| now.as_second() - last.at.as_second())
        };
        self.series
            .retain(|_, s| (0..SAMPLE_AGE_SECS).contains(&age_secs(s)));
        while self.series.len() > SERIES {
            let oldest = self
                .series
                .iter()
                .max_by_key(|(_, s)| age_secs(s))
                .map(|(point, _)| point.clone());
            self.series.remove(&oldest.unwrap_or_default());
        }
    }
}

impl Series {
    fn add(&mut self, sample: Sample) {
        if self.samples.last().is_some_and(|last| jumped(*last, sample)) {
            self.samples.clear();
        }
        self.samples
            .retain(|s| sample.at.as_second() - s.at.as_second() < SAMPLE_AGE_SECS);
        let near = self
            .samples
            .last()
            .is_some_and(|last| sample.at.as_second() - last.at.as_second() < SPACING_SECS);
        if near {
            return;
        }
        self.samples.push(sample);
        // A state file from elsewhere may hold more than one too many.
        self.samples.drain(..self.samples.len().saturating_sub(SAMPLES));
    }

    /// From the samples kept, and the amounts free right now.
    fn forecast(&self, now: Sample) -> Forecast {
        let Some(origin) = self.samples.first().map(|s| s.at) else {
            return Forecast {
                bytes: Err(NoForecast::TooFewSamples),
                inodes: Err(NoForecast::TooFewSamples),
            };
        };
        let ahead = |free: fn(&Sample) -> u64| {
            let point = |s: &Sample| Point {
                at_secs: s.at.duration_since(origin).as_secs_f64(),
                free: free(s) as f64,
            };
            let mut points: Vec<Point> = self.samples.iter().map(point).collect();
            if self.samples.last() != Some(&now) {
                points.push(point(&now));
            }
            forecast::empty_in(&points)
        };
        Forecast {
            bytes: ahead(|s| s.free_bytes),
            inodes: ahead(|s| s.free_inodes),
        }
    }
}

/// Whether the wall clock was set between two samples. Across a reboot (less uptime than before) it cannot be told.
fn jumped(last: Sample, now: Sample) -> bool {
    let wall_secs = now.at.as_second() - last.at.as_second();
    if wall_secs < 0 {
        return true;
    }
    let rebooted = now.uptime_secs < last.uptime_secs;
    let up_secs = now.uptime_secs.saturating_sub(last.uptime_secs) as i64;
    !rebooted && (wall_secs - up_secs).abs() > CLOCK_JUMP_SECS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const GIB: u64 = 1 << 30;

    fn usage(free_bytes: u64, fsid: u64) -> Usage {
        Usage {
            total_bytes: 100 * GIB,
            used_bytes: 0,
            free_bytes,
            total_inodes: 1000,
            free_inodes: 900,
            fsid,
        }
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + minute * 60).unwrap()
    }

    /// Feeds a run every two minutes from minute `from`, a GiB less each time, and gives the last forecast.
    fn fill(history: &mut DiskHistory, from: i64, runs: i64, fsid: u64) -> Forecast {
        (0..runs)
            .map(|n| {
                let minute = from + n * 2;
                let usage = usage((90 - minute as u64 / 2) * GIB, fsid);
                let seen = Seen {
                    point: "/data",
                    device: "8:2",
                    fs_type: "ext4",
                    usage,
                };
                history.record(seen, at(minute), 5000 + minute as u64 * 60)
            })
            .last()
            .unwrap()
    }

    #[test]
    fn an_hour_of_runs_makes_a_forecast_and_stays_bounded() {
        let mut history = DiskHistory::default();
        let forecast = fill(&mut history, 0, 60, 1);
        assert_eq!(forecast.bytes, Ok(Duration::from_secs(31 * 120)));
        assert_eq!(forecast.inodes, Err(NoForecast::NotShrinking));
        assert_eq!(history.series["/data"].samples.len(), SAMPLES);
        let text = serde_json::to_string(&history).unwrap();
        assert_eq!(
            serde_json::from_str::<DiskHistory>(&text).unwrap(),
            history,
            "survives state.json"
        );
    }

    #[test]
    fn another_file_system_at_the_same_place_begins_anew() {
        let mut history = DiskHistory::default();
        assert!(fill(&mut history, 0, 30, 1).bytes.is_ok());
        assert_eq!(fill(&mut history, 60, 1, 2).bytes, Err(NoForecast::TooFewSamples));
    }

    #[test]
    fn a_set_clock_begins_anew() {
        let mut history = DiskHistory::default();
        fill(&mut history, 0, 30, 1);
        let seen = Seen {
            point: "/data",
            device: "8:2",
            fs_type: "ext4",
            usage: usage(GIB, 1),
        };
        let after = history.record(seen, at(24 * 60), 5000 + 60 * 60);
        assert_eq!(after.bytes, Err(NoForecast::TooFewSamples));
        let back = history.record(seen, at(0), 5000 + 62 * 60);
        assert_eq!(
            (back.bytes, history.series["/data"].samples.len()),
            (Err(NoForecast::TooFewSamples), 1)
        );
    }

    #[test]
    fn runs_by_hand_do_not_crowd_the_window() {
        let mut history = DiskHistory::default();
        fill(&mut history, 0, 20, 1);
        let before = history.series["/data"].samples.len();
        for n in 0..50 {
            let seen = Seen {
                point: "/data",
                device: "8:2",
                fs_type: "ext4",
                usage: usage(70 * GIB, 1),
            };
            let now = Timestamp::from_second(at(38).as_second() + n).unwrap();
            history.record(seen, now, 5000 + 38 * 60 + n as u64);
        }
        assert_eq!(history.series["/data"].samples.len(), before);
    }

    #[test]
    fn what_is_no_longer_looked_at_is_forgotten() {
        let mut history = DiskHistory::default();
        fill(&mut history, 0, 3, 1);
        history.prune(at(60));
        assert_eq!(history.series.len(), 1);
        history.prune(at(60 * 13));
        assert!(history.series.is_empty());
    }
}
