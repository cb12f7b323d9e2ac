//! Durations, sizes and near misses, from text.
//!
//! Pure; the message says what would be right.

use std::ops::RangeInclusive;
use std::time::Duration;

/// `text` as a duration ("250ms", "26h", "14d") within `range`.
pub fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|_| {
        "is no duration; write a number with a unit, such as \"250ms\", \"90s\", \"26h\" or \"14d\""
            .to_owned()
    })?;
    if range.contains(&parsed) {
        return Ok(parsed);
    }
    let (from, to) = (show(*range.start()), show(*range.end()));
    Err(format!("must be {from} to {to}"))
}

/// `text` as bytes: "5GiB", "500 MB", "1024".
pub fn size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 12] = [
        ("", 1),
        ("b", 1),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("pib", 1 << 50),
        ("kb", 1000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("pb", 1_000_000_000_000_000),
    ];
    let wrong = || "is no size; write a number with a unit, such as \"5GiB\" or \"500MB\"".to_owned();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, f)| *f);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(factor.ok_or_else(wrong)?).ok_or_else(wrong)
}

/// A duration as an operator would write it.
pub fn show(duration: Duration) -> String {
    let day = Duration::from_secs(24 * 3600);
    // humantime writes 365 days as a year of 365.25; days are what people count in.
    if duration >= day && duration.as_secs().is_multiple_of(day.as_secs()) {
        return format!("{}d", duration.as_secs() / day.as_secs());
    }
    humantime::format_duration(duration).to_string()
}

/// The one of `known` that `text` most probably stands for.
pub fn nearest(text: &str, known: &[&'static str]) -> Option<&'static str> {
    let within = |name: &str| distance(text, name) <= (name.len().max(text.len()) / 3).max(1);
    let by_part = |name: &str| text.len() >= 4 && (name.ends_with(text) || text.ends_with(name));
    let best = known
        .iter()
        .filter(|&&n| within(n))
        .min_by_key(|&&n| distance(text, n));
    best.or_else(|| known.iter().find(|&&n| by_part(n))).copied()
}

/// How many letters must be added, taken away or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("5GiB"), Ok(5 << 30));
        assert_eq!(size("500 MB"), Ok(500_000_000));
        assert_eq!(size("1024"), Ok(1024));
        for bad in [
            "",
            "GiB",
            "-1",
            "1.5GiB",
            "5 apples",
            "99999999999999999999",
            "20000PiB",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn near_misses() {
        let known = ["restart_after", "max_restarts", "startup_grace", "newest"];
        assert_eq!(nearest("restart_aftr", &known), Some("restart_after"));
        assert_eq!(nearest("grace", &known), Some("startup_grace"));
        assert_eq!(nearest("newst", &known), Some("newest"));
        assert_eq!(nearest("colour", &known), None);
    }

    #[test]
    fn durations_say_what_is_allowed() {
        let range = Duration::from_millis(250)..=Duration::from_secs(3600);
        assert_eq!(duration("90s", &range), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h", &range), Err("must be 250ms to 1h".to_owned()));
        assert!(duration("-5s", &range).unwrap_err().contains("such as"));
        assert_eq!(show(Duration::from_secs(365 * 24 * 3600)), "365d");
    }
}
