//! The moment, on the clocks that matter, and the boot it belongs to. The one place of the check run that reads them.
//!
//! Wall-clock time is shown and put into reports; what decides counts on [`Moment::boot`], which no operator, NTP
//! server or dead battery can move.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

/// One moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall-clock time.
    pub wall: Timestamp,
    /// `CLOCK_BOOTTIME`: since the kernel's boot, sleep included.
    pub boot: Duration,
    /// `CLOCK_MONOTONIC`: since the kernel's boot, sleep left out; the clock of systemd's time stamps.
    pub monotonic: Duration,
}

/// Now.
#[expect(clippy::disallowed_methods, reason = "this is the shell that reads the clock")]
pub fn now() -> Moment {
    at(Timestamp::now())
}

/// Now, for who has read the clock on the wall already.
pub fn at(wall: Timestamp) -> Moment {
    Moment {
        wall,
        boot: read(ClockId::Boottime),
        monotonic: read(ClockId::Monotonic),
    }
}

/// The runtime's own clock, for waiting: it stands still in tests.
#[expect(clippy::disallowed_methods, reason = "this is the shell that reads the clock")]
pub fn ticks() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

fn read(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// This boot's id: `$BOOT_ID` (systemd's `%b`, right in every container and sandbox), else what the kernel says.
pub fn boot_id() -> Option<Uuid> {
    let given = std::env::var("BOOT_ID").ok().and_then(|text| parse(&text));
    given.or_else(|| {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        parse(&text)
    })
}

fn parse(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_boot_id_are_one() {
        let dashed = "9b8b44a2-6bc7-4a4e-9d2e-1f0c3a5b7d90";
        assert_eq!(parse(&dashed.replace('-', "")), parse(&format!("{dashed}\n")));
        assert_eq!(parse("not a boot id"), None);
    }
}
