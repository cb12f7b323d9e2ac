//! Do tasks wait for the disk? The kernel's pressure-stall information, `/proc/pressure/io`.
//!
//! Inside a container the file tells of the whole host. That is left as it is: a host's slow disk slows the box.

use std::io::ErrorKind;
use std::path::Path;

/// "Slow disk": `full` over 60 s above this, per cent …
pub const FULL_AVG60_PERCENT: f64 = 20.0;
/// … and over 300 s above this, so that one burst is none.
pub const FULL_AVG300_PERCENT: f64 = 10.0;

/// The share of time in which all tasks that were not idle waited for I/O, per cent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// Over the last minute.
    pub full_avg60_percent: f64,
    /// Over the last five minutes.
    pub full_avg300_percent: f64,
}

impl Pressure {
    /// Whether tasks wait for the disk too long.
    pub fn is_high(self) -> bool {
        self.full_avg60_percent > FULL_AVG60_PERCENT && self.full_avg300_percent > FULL_AVG300_PERCENT
    }
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum NoPressure {
    /// This kernel has none, or it is switched off (`psi=0`), or hidden from this process.
    #[error("this kernel shows no /proc/pressure/io")]
    Absent,
    /// Reading went wrong.
    #[error("cannot read /proc/pressure/io")]
    Read(#[source] std::io::Error),
    /// Not in the known form.
    #[error("/proc/pressure/io has no \"full\" line with avg60 and avg300")]
    Form,
}

/// Reads `proc/pressure/io` under `root`.
pub fn read(root: &Path) -> Result<Pressure, NoPressure> {
    match std::fs::read_to_string(root.join("proc/pressure/io")) {
        Ok(text) => parse(&text).ok_or(NoPressure::Form),
        // EOPNOTSUPP, at the read, is what `psi=0` gives.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => Err(NoPressure::Absent),
        Err(e) => Err(NoPressure::Read(e)),
    }
}

fn parse(text: &str) -> Option<Pressure> {
    let full = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let field = |name: &str| {
        let value = full
            .split_whitespace()
            .find_map(|f| f.strip_prefix(name)?.strip_prefix('='))?;
        value.parse::<f64>().ok().filter(|v| v.is_finite())
    };
    Some(Pressure {
        full_avg60_percent: field("avg60")?,
        full_avg300_percent: field("avg300")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_full_line_counts() {
        let text = "some avg10=90.00 avg60=80.00 avg300=70.00 total=13234629\n\
                    full avg10=0.29 avg60=21.50 avg300=10.33 total=11064743\n";
        let pressure = parse(text).unwrap();
        assert_eq!(
            pressure,
            Pressure {
                full_avg60_percent: 21.5,
                full_avg300_percent: 10.33
            }
        );
        assert!(pressure.is_high());
        assert!(
            !Pressure {
                full_avg300_percent: 9.0,
                ..pressure
            }
            .is_high(),
            "a burst"
        );
        assert!(
            !Pressure {
                full_avg60_percent: 19.0,
                ..pressure
            }
            .is_high(),
            "over already"
        );
    }

    #[test]
    fn other_forms_are_not_guessed_at() {
        assert_eq!(parse("some avg10=1 avg60=2 avg300=3 total=4\n"), None);
        assert_eq!(parse("full avg10=1 avg60=x avg300=3 total=4\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn absent_is_told_apart_from_broken() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(read(root.path()), Err(NoPressure::Absent)));
        std::fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
        std::fs::write(root.path().join("proc/pressure/io"), "what").unwrap();
        assert!(matches!(read(root.path()), Err(NoPressure::Form)));
    }
}
