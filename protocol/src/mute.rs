//! Silences, maintenances and pauses: what operators (and a box's own `fleet-watchdog pause`) say is not to be told now.
//!
//! Shapes and their limits. When a window is open is the server's to work out (it needs the time zone), and so is what
//! a mute means.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::limits;
use crate::matcher::Matcher;
use crate::report::Invalid;
use crate::weekly::{Day, Weekly};
use crate::words::words;

words! {
    /// What a mute is.
    pub enum MuteKind {
        /// Matching incidents are opened and shown, and told to nobody.
        Silence = "silence",
        /// Matching boxes may go: nothing about them is told.
        Maintenance = "maintenance",
        /// A maintenance of one box, by `fleet-watchdog pause` on it.
        Pause = "pause",
    }
}

words! {
    /// How a mute stands.
    pub enum MuteState {
        /// One of its windows is open.
        Active = "active",
        /// None is open, one will be.
        Pending = "pending",
        /// None will be open again; kept as history.
        Expired = "expired",
    }
}

/// `POST /v1/silences`, `POST /v1/maintenance`. Either one window (`from`, and `until` or `for_secs`) or, with `every`,
/// windows of `for_secs` each week, none before `from` or after `until`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateMute {
    /// What is muted. A maintenance is of boxes: by `box` and `labels` alone.
    #[serde(default, rename = "match")]
    pub matcher: Matcher,
    /// In the operator's words.
    #[serde(default)]
    pub reason: String,
    /// Since when; now unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Until when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// How long, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_secs: Option<u64>,
    /// Again each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Weekly>,
}

/// Who did something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Who: an operator's token's name, or the box.
    pub by: String,
    /// When, by the server's clock.
    pub at: Timestamp,
}

/// A mute as kept: with who made it and who ended it before its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuteRecord {
    /// Counts up over silences, maintenances and pauses.
    pub id: i64,
    /// What it is.
    pub kind: MuteKind,
    /// What is muted.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// In the words of who made it.
    pub reason: String,
    /// Nothing is muted before.
    pub from: Timestamp,
    /// Nothing is muted from then on; none: until somebody ends it (only with `every`).
    pub until: Option<Timestamp>,
    /// How long each of the weekly windows is, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub for_secs: Option<u64>,
    /// Again each week.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Weekly>,
    /// A pause's end as the box says it, by the box's clock: to know it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said_until: Option<Timestamp>,
    /// Who made it.
    pub created: Signed,
    /// Who ended it before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Signed>,
}

/// From when, until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its first moment.
    pub from: Timestamp,
    /// The first moment after it.
    pub until: Timestamp,
}

/// `GET /v1/silences/{id}`, `GET /v1/maintenance/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuteView {
    /// As kept.
    #[serde(flatten)]
    pub record: MuteRecord,
    /// How it stands.
    pub state: MuteState,
    /// The window that is open now, or the next one.
    pub window: Option<Window>,
}

/// `GET /v1/silences[?state=&page=&per_page=]`: active and pending ones first, then the expired ones, newest end first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilencePage {
    /// This page's rows.
    pub silences: Vec<MuteView>,
    /// All rows that match.
    pub total: u64,
    /// The next page's number, if any.
    pub next_page: Option<u32>,
}

/// `GET /v1/maintenance[?state=&page=&per_page=]`; pauses stand among them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaintenancePage {
    /// This page's rows.
    pub maintenance: Vec<MuteView>,
    /// All rows that match.
    pub total: u64,
    /// The next page's number, if any.
    pub next_page: Option<u32>,
}

impl CreateMute {
    /// What is wrong with it, first things first, for one of `kind` at `now`. (That the zone is known is not asked here.)
    pub fn check(&self, kind: MuteKind, now: Timestamp) -> Result<(), Invalid> {
        self.check_matcher(kind)?;
        let reason = self.reason.trim();
        if reason.is_empty() || reason.len() > limits::REASON_BYTES || reason.chars().any(char::is_control) {
            return Err(invalid(
                "reason",
                format!(
                    "give one line of at most {} bytes: why is nobody to be told?",
                    limits::REASON_BYTES
                ),
            ));
        }
        let from = self.from.unwrap_or(now);
        if self.until.is_some_and(|until| until <= from.max(now)) {
            return Err(invalid("until", "must be later than now, and than from"));
        }
        match &self.every {
            None => self.check_once(from, now),
            Some(every) => self.check_weekly(every),
        }
    }

    fn check_matcher(&self, kind: MuteKind) -> Result<(), Invalid> {
        let matcher = &self.matcher;
        if matcher.is_empty() {
            return Err(invalid(
                "match",
                "has no condition, which would mute everything; name a label, a box or a kind (box = [\"*\"] is every box)",
            ));
        }
        let by_boxes = matcher.kind.is_empty() && matcher.severity.is_empty();
        if kind != MuteKind::Silence && !by_boxes {
            let field = if matcher.kind.is_empty() {
                "match.severity"
            } else {
                "match.kind"
            };
            return Err(invalid(
                field,
                "a maintenance is of boxes, whatever happens to them: use box and labels, or make a silence",
            ));
        }
        for (field, count) in [
            ("match.box", matcher.boxes.len()),
            ("match.kind", matcher.kind.len()),
            ("match.severity", matcher.severity.len()),
        ] {
            if count > limits::MATCHER_ENTRIES {
                return Err(invalid(
                    field,
                    format!(
                        "has {count} entries; at most {} are taken: use * or a label",
                        limits::MATCHER_ENTRIES
                    ),
                ));
            }
        }
        Ok(())
    }

    fn check_once(&self, from: Timestamp, now: Timestamp) -> Result<(), Invalid> {
        let length = match (self.for_secs, self.until) {
            (Some(secs), None) => i64::try_from(secs).map_or(SignedDuration::MAX, SignedDuration::from_secs),
            (None, Some(until)) => until.duration_since(from),
            (None, None) => {
                return Err(invalid("until", "say how long: until, or for_secs"));
            }
            (Some(_), Some(_)) => {
                return Err(invalid(
                    "for_secs",
                    "give either until or for_secs, or every for windows that come again",
                ));
            }
        };
        let field = if self.until.is_some() { "until" } else { "for_secs" };
        if !length.is_positive() || length.unsigned_abs() > limits::MUTE_MAX {
            let days = limits::MUTE_MAX.as_secs() / (24 * 3600);
            return Err(invalid(
                field,
                format!("must be over nothing and at most {days} days"),
            ));
        }
        if from.checked_add(length).is_ok_and(|until| until <= now) {
            return Err(invalid(
                field,
                "ends before it is made; make it longer, or from later",
            ));
        }
        Ok(())
    }

    fn check_weekly(&self, every: &Weekly) -> Result<(), Invalid> {
        if every.days.is_empty() || every.days.len() > Day::ALL.len() {
            return Err(invalid("every.days", "name 1 to 7 days, such as [\"sun\"]"));
        }
        // An hour less than the time to the next window: clocks are put forward.
        let longest = u64::from(every.shortest_gap_days()) * 24 * 3600 - 3600;
        match self.for_secs {
            Some(secs) if secs > 0 && secs <= longest => Ok(()),
            Some(_) | None => Err(invalid(
                "for_secs",
                format!(
                    "says how long each window is: over nothing, and at most {} hours, so that one ends before the next begins",
                    longest / 3600
                ),
            )),
        }
    }

    /// As kept, if it was made by `created` and is good by [`check`](Self::check).
    pub fn into_record(self, id: i64, kind: MuteKind, created: Signed) -> MuteRecord {
        let from = self.from.unwrap_or(created.at);
        let length = self.for_secs.map(std::time::Duration::from_secs);
        let (until, for_secs) = match (&self.every, length) {
            (None, Some(length)) => (from.checked_add(length).ok(), None),
            (None, None) | (Some(_), _) => (self.until, self.for_secs),
        };
        MuteRecord {
            id,
            kind,
            matcher: self.matcher,
            reason: self.reason.trim().to_owned(),
            from,
            until,
            for_secs,
            every: self.every,
            said_until: None,
            created,
            ended: None,
        }
    }
}

impl MuteRecord {
    /// From when on nothing is muted by it any more; none: nobody has said so yet.
    pub fn over_at(&self) -> Option<Timestamp> {
        match (&self.ended, self.until) {
            (Some(ended), Some(until)) => Some(until.min(ended.at)),
            (Some(ended), None) => Some(ended.at),
            (None, until) => until,
        }
    }
}

fn invalid(field: &str, problem: impl Into<String>) -> Invalid {
    Invalid::new(field, problem)
}
