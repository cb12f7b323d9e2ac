//! Pure: hours of the week in a time zone, such as "Monday to Friday, 08:00 to 18:00, Berlin".
//!
//! A window belongs to the day on which it begins, and may end on the next one ("22:00-06:00"). Summer time: a window is
//! as long as the clocks on the wall say. A beginning that the clock skips is moved by as much as is skipped; of an hour
//! that comes twice a window has both. Reads no clock and no file: the zone is given.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// Windows of so many days before and after are looked at: a week's hours repeat within one week …
const DAYS_AROUND: i32 = 9;
/// … and a clock change; a boundary farther away is none.
const FARTHEST: SignedDuration = SignedDuration::from_hours(7 * 24 + 2);

/// Hours of the week.
#[derive(Debug, Clone, PartialEq)]
pub struct Hours {
    days: [bool; 7],
    windows: Vec<Window>,
    zone: TimeZone,
}

/// Hours of a day; with `to <= from` they end on the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first minute.
    pub from: Time,
    /// Its end; midnight as an end is the next day's.
    pub to: Time,
}

/// Whether hours hold at a time, since when, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// They hold.
    pub open: bool,
    /// Since then they have, or have not; `None`: for longer than a week.
    pub since: Option<Timestamp>,
    /// Until then they will, or will not; `None`: for longer than a week.
    pub until: Option<Timestamp>,
}

impl Hours {
    /// On `days`, in `windows`, by the clocks of `zone`.
    pub fn new(days: impl IntoIterator<Item = Weekday>, windows: Vec<Window>, zone: TimeZone) -> Self {
        let mut on = [false; 7];
        for day in days {
            on[place(day)] = true;
        }
        Self {
            days: on,
            windows,
            zone,
        }
    }

    /// How it stands at `at`.
    pub fn at(&self, at: Timestamp) -> Standing {
        let spans = self.spans_around(at);
        let within = |span: &&(Timestamp, Timestamp)| span.0 <= at && at < span.1;
        let (open, since, until) = match spans.iter().find(within) {
            Some(span) => (true, Some(span.0), Some(span.1)),
            None => (
                false,
                spans.iter().map(|span| span.1).filter(|end| *end <= at).max(),
                spans.iter().map(|span| span.0).filter(|from| *from > at).min(),
            ),
        };
        let near = |boundary: &Timestamp| boundary.duration_since(at).abs() <= FARTHEST;
        Standing {
            open,
            since: since.filter(near),
            until: until.filter(near),
        }
    }

    /// The windows of the days around `at`, by time; those that touch each other as one.
    fn spans_around(&self, at: Timestamp) -> Vec<(Timestamp, Timestamp)> {
        let today = self.zone.to_datetime(at).date();
        let day = |days: i32| {
            today
                .checked_add(SignedDuration::from_hours(24 * i64::from(days)))
                .ok()
        };
        let mut spans: Vec<_> = (-DAYS_AROUND..=DAYS_AROUND)
            .filter_map(day)
            .filter(|day| self.days[place(day.weekday())])
            .flat_map(|day| {
                self.windows
                    .iter()
                    .filter_map(move |window| self.span(day, *window))
            })
            .collect();
        spans.sort_unstable();
        let mut merged: Vec<(Timestamp, Timestamp)> = Vec::new();
        for (from, to) in spans {
            match merged.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                Some(_) | None => merged.push((from, to)),
            }
        }
        merged
    }

    fn span(&self, day: Date, window: Window) -> Option<(Timestamp, Timestamp)> {
        let end_day = if window.to <= window.from {
            day.tomorrow().ok()?
        } else {
            day
        };
        let from = self
            .zone
            .to_ambiguous_timestamp(day.to_datetime(window.from))
            .compatible();
        let to = self
            .zone
            .to_ambiguous_timestamp(end_day.to_datetime(window.to))
            .later();
        let (from, to) = (from.ok()?, to.ok()?);
        (from < to).then_some((from, to))
    }
}

fn place(day: Weekday) -> usize {
    day.to_monday_zero_offset().unsigned_abs() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    fn office(zone_name: &str) -> Hours {
        hours(&WORK, "08:00", "18:00", zone_name)
    }

    const WORK: [Weekday; 5] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
    ];

    fn hours(days: &[Weekday], from: &str, to: &str, zone_name: &str) -> Hours {
        let window = Window {
            from: from.parse().unwrap(),
            to: to.parse().unwrap(),
        };
        Hours::new(days.iter().copied(), vec![window], zone(zone_name))
    }

    fn all_days() -> Vec<Weekday> {
        [&WORK[..], &[Weekday::Saturday, Weekday::Sunday]].concat()
    }

    fn utc(text: &str) -> Timestamp {
        format!("{text}Z").parse().unwrap()
    }

    #[test]
    fn office_hours_follow_the_clock_on_the_wall() {
        let office = office("Europe/Berlin");
        // Winter: an hour ahead of UTC. Summer: two.
        let winter = office.at(utc("2026-01-14T07:00:00"));
        assert!(winter.open && !office.at(utc("2026-01-14T06:59:59")).open);
        assert_eq!(winter.until, Some(utc("2026-01-14T17:00:00")));
        assert!(office.at(utc("2026-07-15T06:00:00")).open);
        assert!(!office.at(utc("2026-07-15T16:00:00")).open);
        // Over the weekend, in which the clocks change (29 March 2026).
        let weekend = office.at(utc("2026-03-28T12:00:00"));
        assert_eq!(
            weekend,
            Standing {
                open: false,
                since: Some(utc("2026-03-27T17:00:00")),
                until: Some(utc("2026-03-30T06:00:00"))
            }
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins() {
        let friday = hours(&[Weekday::Friday], "22:00", "06:00", "Europe/Berlin");
        assert!(
            friday.at(utc("2026-01-17T04:59:59")).open,
            "Saturday, 05:59:59 there"
        );
        assert!(!friday.at(utc("2026-01-17T05:00:00")).open);
        assert!(
            !friday.at(utc("2026-01-16T04:00:00")).open,
            "Friday, but of Thursday's night"
        );
        // The night of the change to summer time is an hour short, that of the change back an hour long.
        let saturday = hours(&[Weekday::Saturday], "22:00", "06:00", "Europe/Berlin");
        let length = |at: &str| {
            let standing = saturday.at(utc(at));
            standing
                .until
                .unwrap()
                .duration_since(standing.since.unwrap())
                .as_hours()
        };
        assert_eq!(
            (length("2026-03-28T23:00:00"), length("2026-10-24T23:00:00")),
            (7, 9)
        );
    }

    #[test]
    fn an_hour_that_is_skipped_and_one_that_comes_twice() {
        let early = hours(&all_days(), "02:00", "03:00", "Europe/Berlin");
        let skipped = early.at(utc("2026-03-29T01:00:00"));
        assert!(!skipped.open || skipped.until.unwrap() > skipped.since.unwrap());
        // 25 October 2026: 02:00 to 03:00 comes twice, from 00:00 to 02:00 UTC.
        let twice = early.at(utc("2026-10-25T00:30:00"));
        assert_eq!(
            (twice.since, twice.until),
            (Some(utc("2026-10-25T00:00:00")), Some(utc("2026-10-25T02:00:00")))
        );
    }

    #[test]
    fn always_is_always() {
        let always = hours(&all_days(), "00:00", "00:00", "America/New_York");
        for at in [
            "2026-03-08T06:59:59",
            "2026-03-08T07:00:00",
            "2026-11-01T05:30:00",
            "2026-06-01T04:00:00",
        ] {
            assert!(always.at(utc(at)).open, "{at}");
        }
        let never = hours(&[], "08:00", "18:00", "UTC");
        assert_eq!(
            never.at(utc("2026-06-01T04:00:00")),
            Standing {
                open: false,
                since: None,
                until: None
            }
        );
    }

    proptest! {
        /// Whatever the hours, the zone and the season: between two boundaries nothing changes, at each it does, and
        /// open is what the clock on the wall says.
        #[test]
        fn boundaries_are_where_it_changes(
            days in prop::collection::vec(0_i8..7, 1..7),
            from in 0_i8..24, to in 0_i8..24,
            zone_name in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"]),
            at in 1_735_689_600_i64..1_830_297_600,
        ) {
            let days: Vec<Weekday> = days.into_iter().map(|day| Weekday::from_monday_zero_offset(day).unwrap()).collect();
            let window = Window { from: Time::constant(from, 0, 0, 0), to: Time::constant(to, 0, 0, 0) };
            let hours = Hours::new(days.iter().copied(), vec![window], zone(zone_name));
            let at = Timestamp::from_second(at).unwrap();
            let standing = hours.at(at);
            let second = SignedDuration::from_secs(1);
            if let Some(until) = standing.until {
                prop_assert!(until > at);
                prop_assert_eq!(hours.at(until).open, !standing.open);
                prop_assert_eq!(hours.at(until).since, Some(until));
                prop_assert_eq!(hours.at(until - second).open, standing.open);
            }
            if let Some(since) = standing.since {
                prop_assert!(since <= at);
                prop_assert_eq!(hours.at(since).open, standing.open);
                prop_assert_eq!(hours.at(since - second).open, !standing.open);
            }
            // By the wall, away from the nights in which clocks change.
            let local = zone(zone_name).to_datetime(at);
            let (today, yesterday) = (local.weekday(), local.date().yesterday().unwrap().weekday());
            let time = local.time();
            let by_the_wall = if window.to > window.from {
                days.contains(&today) && window.from <= time && time < window.to
            } else {
                (days.contains(&today) && window.from <= time) || (days.contains(&yesterday) && time < window.to)
            };
            let zone = zone(zone_name);
            let offset = |secs: i64| zone.to_offset(at + SignedDuration::from_secs(secs));
            if offset(-86_400) == offset(86_400) {
                prop_assert_eq!(standing.open, by_the_wall);
            }
        }
    }
}
