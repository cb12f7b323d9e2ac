//! `[[route]]`, `[[severity]]` and `[flapping]`: who is told what and when, how loud it is, and what is told once.

use std::time::Duration;

use fleet_config::section::{Item, Section};
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use protocol::incident::Severity;
use protocol::names::Word;

use super::receivers::{matcher, tables};
use crate::hours::{Hours, Window};
use crate::settings::{Flapping, IncidentRules, Matcher, Receiver, Route, SeverityRule, Step};

/// Routes.
const ROUTES: usize = 256;
/// Steps of a route.
const STEPS: usize = 16;
/// Rules of `[[severity]]`.
const SEVERITIES: usize = 256;
/// Windows of a day.
const WINDOWS: usize = 8;
/// The shortest and the longest time to a step, and between two reminders.
const STEP_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
/// Openings that make a flapping; each of them stands in the incident.
const FLAPPING_AFTER: std::ops::RangeInclusive<u32> = 2..=50;
/// The window in which they are counted, and the calm after it.
const FLAPPING_RANGE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
/// The days as written, Monday first.
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// All three.
pub(super) fn read(top: &Section<'_>, receivers: &[Receiver]) -> (Vec<Route>, IncidentRules) {
    let names: Vec<&str> = receivers.iter().map(|receiver| receiver.name.as_str()).collect();
    let routes = tables(top, "route", ROUTES, |section| route(section, &names));
    let rules = IncidentRules {
        severities: tables(top, "severity", SEVERITIES, severity),
        flapping: flapping(top.section("flapping")),
    };
    (routes, rules)
}

fn route(section: Section<'_>, names: &[&str]) -> Option<Route> {
    let matcher = matched(&section);
    let when = section
        .item("when")
        .map(|item| item.section().and_then(|section| finished(section, hours)));
    let steps = section.item("steps").map(|item| steps(&item, names));
    let reminder = |key| section.item(key).map(|item| item.duration(STEP_RANGE));
    let (remind, remind_acked) = (reminder("remind"), reminder("remind_acked"));
    let receivers = section.item("receivers");
    if receivers.is_none() {
        section.wrong("has no receivers; write receivers = [\"…\"], or receivers = [] to tell nobody");
    }
    section.finish();
    Some(Route {
        matcher: matcher?,
        receivers: named(&receivers?, names)?,
        when: absent_or(when)?,
        steps: steps.unwrap_or(Some(Vec::new()))?,
        remind: absent_or(remind)?,
        remind_acked: absent_or(remind_acked)?,
    })
}

fn finished<T>(section: Section<'_>, read: impl Fn(&Section<'_>) -> T) -> T {
    let read = read(&section);
    section.finish();
    read
}

/// Absent is fine; there and wrong is not.
#[expect(
    clippy::option_option,
    reason = "absent, there, there and wrong are three things"
)]
fn absent_or<T>(item: Option<Option<T>>) -> Option<Option<T>> {
    match item {
        None => Some(None),
        Some(Some(value)) => Some(Some(value)),
        Some(None) => None,
    }
}

fn matched(section: &Section<'_>) -> Option<Matcher> {
    match section.item("match") {
        Some(item) => item.section().map(matcher),
        None => Some(Matcher::default()),
    }
}

/// Names of receivers of this file.
fn named(item: &Item<'_>, names: &[&str]) -> Option<Vec<Word>> {
    let mut receivers = Vec::new();
    for entry in item.list()? {
        let name = entry.text().and_then(|text| entry.keep(Word::new(text)));
        let Some(name) = name else { continue };
        if !names.contains(&name.as_str()) {
            let hint = if names.is_empty() {
                "there is no [[receiver]] in this file".to_owned()
            } else {
                format!("receivers are {}", names.join(", "))
            };
            entry.wrong(format!("is no receiver of this file; {hint}"));
        }
        receivers.push(name);
    }
    Some(receivers)
}

fn steps(item: &Item<'_>, names: &[&str]) -> Option<Vec<Step>> {
    let entries = item.list()?;
    if entries.len() > STEPS {
        item.wrong(format!(
            "has {} steps; at most {STEPS} are allowed",
            entries.len()
        ));
        return None;
    }
    let mut steps: Vec<Step> = Vec::new();
    for entry in &entries {
        let section = entry.section()?;
        let after = section.item("after");
        let receivers = section.item("receivers");
        if after.is_none() || receivers.is_none() {
            section.wrong("must say when and to whom: { after = \"5m\", receivers = [\"phone\"] }");
        }
        section.finish();
        let step = Step {
            after: after?.duration(STEP_RANGE)?,
            receivers: named(&receivers?, names)?,
        };
        if step.receivers.is_empty() {
            entry.wrong("tells nobody; name who is told then, or leave the step out");
        }
        if steps.last().is_some_and(|last| last.after >= step.after) {
            entry.wrong("must come later than the step before it; each `after` counts from the beginning");
        }
        steps.push(step);
    }
    Some(steps)
}

/// `{ days = ["mon-fri"], hours = "08:00-18:00", time_zone = "Europe/Berlin" }`; days are all, hours the whole day, the
/// zone UTC, where they are not given.
pub(super) fn hours(section: &Section<'_>) -> Option<Hours> {
    let days = match section.item("days") {
        None => Some((0..7).collect()),
        Some(item) => days(&item),
    };
    let windows = match section.item("hours") {
        None => window("00:00-24:00").ok().map(|window| vec![window]),
        Some(item) => windows(&item),
    };
    let zone = match section.item("time_zone") {
        None => Some(TimeZone::UTC),
        Some(item) => zone(&item),
    };
    let given = ["days", "hours"].iter().any(|key| section.has(key));
    if !given {
        section.wrong("says neither days nor hours; write days = [\"mon-fri\"], hours = \"08:00-18:00\"");
    }
    let days: Vec<i8> = days?;
    let days = days
        .into_iter()
        .filter_map(|day| Weekday::from_monday_zero_offset(day).ok());
    Some(Hours::new(days, windows?, zone?))
}

fn days(item: &Item<'_>) -> Option<Vec<i8>> {
    let mut found = Vec::new();
    for entry in item.one_or_list() {
        let text = entry.text()?;
        let place = |day: &str| DAYS.iter().position(|known| *known == day).map(|at| at as i8);
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let (Some(from), Some(to)) = (place(from), place(to)) else {
            entry.wrong(format!(
                "is no day; write one of {}, or a range such as \"mon-fri\"",
                DAYS.join(", ")
            ));
            return None;
        };
        // "sat-mon" goes over the weekend.
        let count = (to - from).rem_euclid(7);
        found.extend((0..=count).map(|more| (from + more) % 7));
    }
    if found.is_empty() {
        item.wrong("is an empty list, which would never match; leave it out for every day");
        return None;
    }
    Some(found)
}

fn windows(item: &Item<'_>) -> Option<Vec<Window>> {
    let entries = item.one_or_list();
    if entries.is_empty() || entries.len() > WINDOWS {
        item.wrong(format!(
            "must name 1 to {WINDOWS} windows, such as \"08:00-18:00\""
        ));
        return None;
    }
    entries
        .iter()
        .map(|entry| entry.keep(window(entry.text()?)))
        .collect()
}

fn window(text: &str) -> Result<Window, &'static str> {
    const WRONG: &str =
        "is no window; write it like \"08:00-18:00\" (or \"22:00-06:00\", which ends on the next day)";
    let time = |text: &str| -> Option<Time> {
        let (hour, minute) = text.split_once(':')?;
        let two = |text: &str| (text.len() == 2).then(|| text.parse::<i8>().ok()).flatten();
        Time::new(two(hour)?, two(minute)?, 0, 0).ok()
    };
    let (from, to) = text.split_once('-').ok_or(WRONG)?;
    // Midnight at the end of a day.
    let to = if to.trim() == "24:00" { "00:00" } else { to.trim() };
    let (from, to) = (time(from.trim()).ok_or(WRONG)?, time(to).ok_or(WRONG)?);
    if from == to && to != Time::midnight() {
        return Err("begins and ends at the same time; for the whole day write \"00:00-24:00\"");
    }
    Ok(Window { from, to })
}

pub(super) fn zone(item: &Item<'_>) -> Option<TimeZone> {
    item.keep(
        TimeZone::get(item.text()?).map_err(
            |_| "is no time zone; write one of the IANA database, such as \"Europe/Berlin\" or \"UTC\"",
        ),
    )
}

fn severity(section: Section<'_>) -> Option<SeverityRule> {
    let matcher = matched(&section);
    let severity = section.item("severity");
    if severity.is_none() {
        section.wrong("does not say how loud; write severity = \"page\", \"ticket\" or \"info\"");
    }
    let severity = severity.and_then(|item| item.keep(item.text()?.parse::<Severity>()));
    section.finish();
    Some(SeverityRule {
        matcher: matcher?,
        severity: severity?,
    })
}

fn flapping(section: Section<'_>) -> Option<Flapping> {
    let default = Flapping::default();
    let enabled = section.boolean("enabled", true);
    let flapping = Flapping {
        after: section.integer("after", default.after, FLAPPING_AFTER),
        within: section.duration("within", default.within, FLAPPING_RANGE),
        calm: section.duration("calm", default.calm, FLAPPING_RANGE),
    };
    section.finish();
    enabled.then_some(flapping)
}
