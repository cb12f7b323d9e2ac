//! When one mute's windows are open. A weekly window begins by the clocks of its zone and lasts its length in real time.
//!
//! Where clocks are put forward over its beginning it begins by as much later; where they are put back it begins once,
//! the first time. It is as long as ever on both days.

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use protocol::mute::{MuteRecord, Window};
use protocol::names::ZoneName;
use protocol::weekly::Day;

/// A day before and after: a date in one zone is up to a day off from the date in another.
const SLACK_DAYS: i64 = 2;
/// A day on which there is a window comes within so many.
const WEEK: i64 = 7;

/// The rules of a zone, if there is one of that name. Looking them up reads files: a shell's business.
pub type Zones = fn(&ZoneName) -> Option<TimeZone>;

/// When a mute's windows are open.
#[derive(Debug, Clone)]
pub enum Schedule {
    /// Once.
    Once(Window),
    /// Each week.
    Weekly(Weekly),
    /// Never: it was ended, or its zone is not known here (any more). Rather one page too many.
    Never,
}

/// Windows that come again.
#[derive(Debug, Clone)]
pub struct Weekly {
    days: Vec<Weekday>,
    at: Time,
    zone: TimeZone,
    length: SignedDuration,
    from: Timestamp,
    until: Timestamp,
}

impl Schedule {
    /// That of `record`.
    pub fn of(record: &MuteRecord, zones: Zones) -> Self {
        if record.ended.is_some() {
            return Self::Never;
        }
        let until = record.until.unwrap_or(Timestamp::MAX);
        let Some(every) = &record.every else {
            return Self::Once(Window {
                from: record.from,
                until,
            });
        };
        let at = Time::new(every.at.hour(), every.at.minute(), 0, 0);
        let (Some(zone), Ok(at), Some(secs)) = (zones(&every.tz), at, record.for_secs) else {
            return Self::Never;
        };
        Self::Weekly(Weekly {
            days: every.days.iter().copied().map(weekday).collect(),
            at,
            zone,
            length: SignedDuration::from_secs(i64::try_from(secs).unwrap_or(0)),
            from: record.from,
            until,
        })
    }

    /// The window that is open at `now`.
    pub fn open(&self, now: Timestamp) -> Option<Window> {
        match self {
            Self::Never => None,
            Self::Once(window) => Some(*window).filter(|window| holds(window, now)),
            Self::Weekly(weekly) => {
                weekly
                    .around(now, 0)
                    .filter(|window| holds(window, now))
                    .reduce(|a, b| Window {
                        from: a.from.min(b.from),
                        until: a.until.max(b.until),
                    })
            }
        }
    }

    /// The first window that begins after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Window> {
        match self {
            Self::Never => None,
            Self::Once(window) => Some(*window).filter(|window| window.from > now),
            Self::Weekly(weekly) => weekly
                .around(now.max(weekly.from), WEEK)
                .find(|window| window.from > now),
        }
    }
}

impl Weekly {
    /// The windows that may be open at `now` or begin within so many days, in order.
    fn around(&self, now: Timestamp, days: i64) -> impl Iterator<Item = Window> {
        let back = self.length.as_secs() / (24 * 3600) + SLACK_DAYS;
        let today = self.zone.to_datetime(now).date();
        (-back..=days + SLACK_DAYS)
            .filter_map(move |by| today.checked_add(SignedDuration::from_hours(24 * by)).ok())
            .filter_map(|date| self.on(date))
    }

    fn on(&self, date: Date) -> Option<Window> {
        if !self.days.contains(&date.weekday()) {
            return None;
        }
        let begins = date.to_datetime(self.at);
        let from = self.zone.to_ambiguous_timestamp(begins).compatible().ok()?;
        let window = Window {
            from: from.max(self.from),
            until: from.checked_add(self.length).ok()?.min(self.until),
        };
        (window.from < window.until).then_some(window)
    }
}

fn holds(window: &Window, now: Timestamp) -> bool {
    window.from <= now && now < window.until
}

const fn weekday(day: Day) -> Weekday {
    match day {
        Day::Mon => Weekday::Monday,
        Day::Tue => Weekday::Tuesday,
        Day::Wed => Weekday::Wednesday,
        Day::Thu => Weekday::Thursday,
        Day::Fri => Weekday::Friday,
        Day::Sat => Weekday::Saturday,
        Day::Sun => Weekday::Sunday,
    }
}
