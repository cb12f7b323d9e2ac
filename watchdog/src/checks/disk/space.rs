//! Is one file system all right? Pure: its numbers, its mount and a look ahead in; what is wrong out, worst first.

use std::time::Duration;

use protocol::report::Status;
use protocol::why::KnownWhy;

use super::history::Forecast;
use crate::checks::span_text;
use crate::settings::DiskSettings;

/// Under this share of inodes free: failing.
const FAILING_FREE_INODES: f64 = 0.02;
/// Under this share of inodes free: warning.
const WARNING_FREE_INODES: f64 = 0.10;

/// What statvfs says, as df counts: "used" is what is not free to root, "free" what is free to anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size of the file system, bytes.
    pub total_bytes: u64,
    /// Taken, bytes.
    pub used_bytes: u64,
    /// Free to an unprivileged user, bytes.
    pub free_bytes: u64,
    /// Inodes; 0: this kind of file system does not count them.
    pub total_inodes: u64,
    /// Inodes free to an unprivileged user.
    pub free_inodes: u64,
    /// Which file system.
    pub fsid: u64,
}

impl Usage {
    /// From the system call's answer. Some network file systems give less than nothing as available; that is nothing.
    pub fn from_statvfs(v: &rustix::fs::StatVfs) -> Self {
        let within = |part: u64, whole: u64| if part > whole { 0 } else { part };
        Self {
            total_bytes: v.f_blocks.saturating_mul(v.f_frsize),
            used_bytes: v.f_blocks.saturating_sub(v.f_bfree).saturating_mul(v.f_frsize),
            free_bytes: within(v.f_bavail, v.f_blocks).saturating_mul(v.f_frsize),
            total_inodes: v.f_files,
            free_inodes: within(v.f_favail, v.f_files),
            fsid: v.f_fsid,
        }
    }

    /// The share of bytes that is free, as 1 − df's `Use%`: what is reserved for root counts neither way. `None` for a
    /// file system without bytes.
    pub fn free_ratio(&self) -> Option<f64> {
        let whole = self.used_bytes.saturating_add(self.free_bytes);
        (whole > 0).then(|| self.free_bytes as f64 / whole as f64)
    }

    /// The share of inodes that is free; `None` where they are not counted.
    pub fn free_inode_ratio(&self) -> Option<f64> {
        (self.total_inodes > 0).then(|| self.free_inodes as f64 / self.total_inodes as f64)
    }
}

/// One thing wrong with a mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad.
    pub status: Status,
    /// In a word.
    pub why: KnownWhy,
    /// In a clause that follows the mount's name.
    pub text: String,
}

impl Problem {
    /// One thing wrong.
    pub fn new(status: Status, why: KnownWhy, text: impl Into<String>) -> Self {
        Self {
            status,
            why,
            text: text.into(),
        }
    }
}

/// How bad: failing over warning over unknown over ok.
pub fn rank(status: Status) -> u8 {
    match status {
        Status::Ok => 0,
        Status::Unknown => 1,
        Status::Warning => 2,
        Status::Failing => 3,
    }
}

/// What is wrong, worst first: by status, then by consequence; what is so already comes before what will be.
pub fn worst_first(problem: &Problem) -> (std::cmp::Reverse<u8>, usize) {
    const ORDER: [KnownWhy; 5] = [
        KnownWhy::NotMounted,
        KnownWhy::ReadOnly,
        KnownWhy::BytesLow,
        KnownWhy::InodesLow,
        KnownWhy::FillingUp,
    ];
    let place = ORDER.iter().position(|&why| why == problem.why);
    (
        std::cmp::Reverse(rank(problem.status)),
        place.unwrap_or(ORDER.len()),
    )
}

/// What is wrong with a file system's room, worst first. It does not look at how it is mounted.
pub fn judge(usage: &Usage, forecast: &Forecast, settings: &DiskSettings) -> Vec<Problem> {
    let mut problems: Vec<Problem> = [bytes(usage, settings), inodes(usage), ahead(forecast, settings)]
        .into_iter()
        .flatten()
        .collect();
    problems.sort_by_key(worst_first);
    problems
}

fn bytes(usage: &Usage, settings: &DiskSettings) -> Option<Problem> {
    let ratio = usage.free_ratio()?;
    let under = |share: f64, bytes: u64| ratio < share && usage.free_bytes < bytes;
    let status = if under(settings.failing_free_ratio, settings.failing_free_bytes) {
        Status::Failing
    } else if under(settings.warning_free_ratio, settings.warning_free_bytes) {
        Status::Warning
    } else {
        return None;
    };
    let text = format!(
        "has {} left ({})",
        bytes_text(usage.free_bytes),
        percent_text(ratio)
    );
    Some(Problem::new(status, KnownWhy::BytesLow, text))
}

fn inodes(usage: &Usage) -> Option<Problem> {
    let ratio = usage.free_inode_ratio()?;
    let status = if ratio < FAILING_FREE_INODES {
        Status::Failing
    } else if ratio < WARNING_FREE_INODES {
        Status::Warning
    } else {
        return None;
    };
    let text = format!(
        "has {} inodes left ({}): too many files",
        usage.free_inodes,
        percent_text(ratio)
    );
    Some(Problem::new(status, KnownWhy::InodesLow, text))
}

fn ahead(forecast: &Forecast, settings: &DiskSettings) -> Option<Problem> {
    let (left, what) = match (forecast.bytes, forecast.inodes) {
        (Ok(bytes), Ok(inodes)) if inodes < bytes => (inodes, "out of inodes"),
        (Ok(bytes), _) => (bytes, "full"),
        (Err(_), Ok(inodes)) => (inodes, "out of inodes"),
        (Err(_), Err(_)) => return None,
    };
    let status = if left <= settings.failing_full_within {
        Status::Failing
    } else if left <= settings.warning_full_within {
        Status::Warning
    } else {
        return None;
    };
    // Seconds would promise more than a forecast can hold.
    let rounded = Duration::from_secs(left.as_secs() / 60 * 60);
    let text = format!(
        "will be {what} in about {} at the last hour's rate",
        span_text(rounded)
    );
    Some(Problem::new(status, KnownWhy::FillingUp, text))
}

/// `57.6 GiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1024.0;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `1.4 %`.
pub fn percent_text(ratio: f64) -> String {
    format!("{:.1} %", ratio * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::disk::forecast::NoForecast;

    const GIB: u64 = 1 << 30;
    const NO_FORECAST: Forecast = Forecast {
        bytes: Err(NoForecast::TooFewSamples),
        inodes: Err(NoForecast::TooFewSamples),
    };

    pub(crate) fn settings() -> DiskSettings {
        DiskSettings {
            mounts: vec!["/".into()],
            also: Vec::new(),
            warning_free_ratio: 0.10,
            warning_free_bytes: 5 * GIB,
            failing_free_ratio: 0.02,
            failing_free_bytes: GIB,
            warning_full_within: Duration::from_secs(24 * 3600),
            failing_full_within: Duration::from_secs(2 * 3600),
            restart: None,
            timeout: Duration::from_secs(20),
        }
    }

    fn room(total: u64, free: u64) -> Usage {
        Usage {
            total_bytes: total,
            used_bytes: total - free,
            free_bytes: free,
            ..Usage::default()
        }
    }

    fn verdict(usage: &Usage, forecast: &Forecast) -> Option<(Status, KnownWhy)> {
        judge(usage, forecast, &settings())
            .first()
            .map(|p| (p.status, p.why))
    }

    #[test]
    fn bytes_count_by_share_and_amount_together() {
        let of = |total, free| verdict(&room(total, free), &NO_FORECAST);
        assert_eq!(of(100 * GIB, 50 * GIB), None);
        assert_eq!(
            of(100 * GIB, 4 * GIB),
            Some((Status::Warning, KnownWhy::BytesLow))
        );
        assert_eq!(
            of(100 * GIB, GIB - 1),
            Some((Status::Failing, KnownWhy::BytesLow))
        );
        assert_eq!(
            of(100_000 * GIB, 500 * GIB),
            None,
            "half a per cent of a huge disk is room enough"
        );
        assert_eq!(
            of(8 * GIB, GIB / 2),
            Some((Status::Warning, KnownWhy::BytesLow)),
            "a small disk"
        );
        assert_eq!(of(10 << 20, 0), Some((Status::Failing, KnownWhy::BytesLow)));
        assert_eq!(of(0, 0), None, "a file system without bytes");
    }

    #[test]
    fn room_that_is_reserved_for_root_is_not_free() {
        // df: 95 used of 100 blocks, 5 reserved: 100 %.
        let usage = Usage {
            total_bytes: 100 << 20,
            used_bytes: 95 << 20,
            free_bytes: 0,
            ..Usage::default()
        };
        assert_eq!(usage.free_ratio(), Some(0.0));
    }

    #[test]
    fn inodes_count_where_there_are_any() {
        let of = |total_inodes, free_inodes| {
            let usage = Usage {
                total_inodes,
                free_inodes,
                ..room(100 * GIB, 50 * GIB)
            };
            verdict(&usage, &NO_FORECAST)
        };
        assert_eq!(of(0, 0), None);
        assert_eq!(of(1000, 500), None);
        assert_eq!(of(1000, 99), Some((Status::Warning, KnownWhy::InodesLow)));
        assert_eq!(of(1000, 19), Some((Status::Failing, KnownWhy::InodesLow)));
    }

    #[test]
    fn the_forecast_counts_by_its_hour() {
        let of = |hours: u64| {
            let forecast = Forecast {
                bytes: Ok(Duration::from_secs(hours * 3600)),
                ..NO_FORECAST
            };
            verdict(&room(100 * GIB, 50 * GIB), &forecast)
        };
        assert_eq!(of(1), Some((Status::Failing, KnownWhy::FillingUp)));
        assert_eq!(of(20), Some((Status::Warning, KnownWhy::FillingUp)));
        assert_eq!(of(30), None);
    }

    #[test]
    fn the_worst_stands_first() {
        let usage = Usage {
            total_inodes: 1000,
            free_inodes: 0,
            ..room(100 * GIB, 4 * GIB)
        };
        let all = judge(&usage, &NO_FORECAST, &settings());
        assert_eq!(
            all.iter().map(|p| p.why).collect::<Vec<_>>(),
            [KnownWhy::InodesLow, KnownWhy::BytesLow]
        );
    }

    #[test]
    fn amounts_read_well() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (61_847_529_062, "57.6 GiB"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
