//! Windows that come again each week: days, a time of day, and whose clocks are meant.
//!
//! What moment that is needs the rules of the zone: the server's business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::ZoneName;
use crate::words::words;

words! {
    /// A day of the week.
    pub enum Day {
        /// Monday.
        Mon = "mon",
        /// Tuesday.
        Tue = "tue",
        /// Wednesday.
        Wed = "wed",
        /// Thursday.
        Thu = "thu",
        /// Friday.
        Fri = "fri",
        /// Saturday.
        Sat = "sat",
        /// Sunday.
        Sun = "sun",
    }
}

/// Minutes of a day, on a wall clock: `03:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    hour: i8,
    minute: i8,
}

/// Windows that come again each week.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weekly {
    /// On these days.
    pub days: Vec<Day>,
    /// From this time of the day.
    pub at: TimeOfDay,
    /// By the clocks of this place.
    pub tz: ZoneName,
}

impl Weekly {
    /// Days from one window to the next one, where that is shortest; 7 for a single day.
    pub fn shortest_gap_days(&self) -> u32 {
        let on = |at: usize| self.days.contains(&Day::ALL[at % 7]);
        (0..7)
            .filter(|&at| on(at))
            .filter_map(|at| (1..=7).find(|gap| on(at + gap)))
            .min()
            .unwrap_or(7) as u32
    }
}

impl TimeOfDay {
    /// 0 to 23.
    pub const fn hour(self) -> i8 {
        self.hour
    }

    /// 0 to 59.
    pub const fn minute(self) -> i8 {
        self.minute
    }
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{:?} is no time of day; write it like 03:00", cut(text));
        let two = |digits: &str, most: i8| {
            let good = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
            let number = digits.parse::<i8>().ok().filter(|n| good && *n <= most);
            number.ok_or_else(wrong)
        };
        let (hour, minute) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self {
            hour: two(hour, 23)?,
            minute: two(minute, 59)?,
        })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.hour, self.minute)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// `sun 03:00`, `mon,thu 22:30`, `mon-fri 01:00`, `daily 04:00`: days and a time of day.
pub fn days_and_time(text: &str) -> Result<(Vec<Day>, TimeOfDay), String> {
    let wrong = || {
        format!(
            "{:?} is no day and time; write it like \"sun 03:00\", \"mon,thu 22:30\", \"mon-fri 01:00\" or \"daily 04:00\"",
            cut(text)
        )
    };
    let (days, time) = text.trim().split_once(' ').ok_or_else(wrong)?;
    let at: TimeOfDay = time.trim().parse()?;
    let days = days.to_ascii_lowercase();
    if days == "daily" {
        return Ok((Day::ALL.to_vec(), at));
    }
    let mut named = Vec::new();
    for part in days.split(',') {
        let day = |word: &str| word.parse::<Day>().map_err(|_| wrong());
        match part.split_once('-') {
            None => named.push(day(part)?),
            Some((first, last)) => named.extend(from_to(day(first)?, day(last)?)),
        }
    }
    let days = Day::ALL.iter().copied().filter(|day| named.contains(day));
    Ok((days.collect(), at))
}

/// `fri-mon` goes over the weekend.
fn from_to(first: Day, last: Day) -> Vec<Day> {
    let days = Day::ALL.iter().copied().cycle();
    let mut days = days.skip_while(|day| *day != first).take(7);
    let mut found = Vec::new();
    for day in days.by_ref() {
        found.push(day);
        if day == last {
            break;
        }
    }
    found
}

fn cut(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_as_people_write_them() {
        use Day::{Fri, Mon, Sat, Sun, Thu};
        let days = |text: &str| days_and_time(text).map(|(days, at)| (days, at.to_string()));
        assert_eq!(days("sun 03:00"), Ok((vec![Sun], "03:00".into())));
        assert_eq!(days("Mon,thu 22:30"), Ok((vec![Mon, Thu], "22:30".into())));
        assert_eq!(
            days("fri-mon 00:00"),
            Ok((vec![Mon, Fri, Sat, Sun], "00:00".into()))
        );
        assert_eq!(days("daily 04:05").unwrap().0.len(), 7);
        for bad in [
            "",
            "sun",
            "sun 3:00",
            "sun 24:00",
            "sun 03:60",
            "son 03:00",
            "sun 03:00 x",
            "-sun 03:00",
        ] {
            assert!(days(bad).unwrap_err().contains("write it like"), "{bad}");
        }
    }

    #[test]
    fn the_shortest_gap_goes_over_the_weekend() {
        let gap = |text: &str| {
            let (days, at) = days_and_time(text).unwrap();
            let tz = ZoneName::new("UTC").unwrap();
            Weekly { days, at, tz }.shortest_gap_days()
        };
        assert_eq!(
            [gap("sun 00:00"), gap("sun,mon 00:00"), gap("mon,fri 00:00")],
            [7, 1, 3]
        );
    }
}
