//! What reports say: an incident for each failing or warning check, and what the watchdog did about it.
//!
//! Rules:
//! - failing and warning open, ok resolves; unknown does neither, but the incident says so. A check that is not asked
//!   any more (not configured, disabled, not in the report), or that an operator's doing explains (stopped, masked),
//!   is resolved.
//! - That an operator stopped the gateway is a warning (info). If somebody was paged before that was known, the page
//!   ends with that explanation.
//! - A gateway unit has one incident, whoever saw it: the report, or the beats in between ([`units`](super::units)). It
//!   ends when neither says that it is wrong.
//! - Remedies are told in the order in which they happened, before the checks' own answers, so that the restart stands in
//!   the incident that it ended. Each is told once, however often reports repeat it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use protocol::incident::{Kind, Severity};
use protocol::report::{CheckName, CheckReport, Outcome, RemedyReport, Report, Status};
use protocol::why::KnownWhy;
use serde_json::{Value, json};

use super::change::Change;
use super::facts::CheckState;
use super::gone::about;
use super::ledger::{Key, Ledger, Say, Tell};
use super::severity::{self, louder, ruled};
use super::text::{Details, remedy_sentence, remedy_value};
use super::units::Watch;
use crate::liveness::BoxIx;
use crate::liveness::time::Moment;

/// The detail that says that the kernel's OOM killer ended a gateway, and by what that is known.
pub(super) const OOM: &str = "oom";

impl Ledger {
    /// A report arrived. One that is known already changes nothing.
    pub fn report(
        &mut self,
        ix: BoxIx,
        report: &Arc<Report>,
        received: Timestamp,
        now: Moment,
    ) -> Vec<Change> {
        let Some(facts) = self.facts_mut(ix) else {
            return Vec::new();
        };
        if facts
            .report
            .as_ref()
            .is_some_and(|(known, _)| known.id == report.id)
        {
            return Vec::new();
        }
        facts.checks = report.checks.iter().filter_map(check_state).collect();
        facts.report_since = now.mono;
        let before = facts.report.replace((Arc::clone(report), received));
        facts.word.report_stale_secs = None;
        self.overrule_watches(ix);

        let mut changes = self.rows_that_went_wrong(ix, report, now);
        let known = before.as_ref().map_or(&[][..], |(before, _)| &before.remedies);
        changes.extend(self.remedies(ix, report, known, now));
        changes.extend(self.rows_that_are_well(ix, now));
        changes
    }

    /// The gateway incident of one unit as report and beats together have it.
    pub(super) fn reconsider_unit(&mut self, ix: BoxIx, unit: &str, now: Moment) -> Option<Change> {
        let key = Key {
            kind: Kind::Gateway,
            about: Some(ix),
            subject: unit.to_owned(),
        };
        let facts = self.facts(ix)?;
        let watch = facts.watches.iter().find(|watch| watch.is_about(unit));
        let check = facts.checks.get(&(Kind::Gateway, unit.to_owned()));
        if let Some(trouble) = watch.and_then(|watch| watch.trouble()) {
            let failing = check.is_some_and(|check| check.status == Status::Failing);
            if failing && self.is_open(&key) {
                return None;
            }
            let mut details = json!({
                "check": "gateway", "status": "failing", "why": trouble.why, "seen_by": ["units"],
            });
            if let Some(line) = &trouble.oom {
                details[OOM] = line.as_str().into();
            }
            let say = Say {
                severity: severity::of(Kind::Gateway),
                summary: format!("{}: {}", facts.info.name, trouble.sentence),
                details: object(details),
            };
            let same = self.same_why(&key, trouble.why.as_str());
            return self.say(key, say, if same { Tell::Nobody } else { Tell::Timeline }, now);
        }
        let still_wrong = check.is_some_and(|check| match check.status {
            Status::Failing | Status::Warning => true,
            Status::Unknown => !check.explained && self.seen_by_report(&key),
            Status::Ok => false,
        });
        // Whatever the watch thinks of a unit just back: it ends when it has been calm for a while.
        let unsettled = watch.is_some_and(Watch::unsettled);
        if still_wrong || unsettled {
            return None;
        }
        let mut said = format!("{}: {unit} is well again", self.name(ix));
        let oom = self
            .incident(&key)
            .and_then(|incident| incident.details.get(OOM)?.as_str());
        if let Some(line) = oom {
            said = format!("{said}; it had been killed for lack of memory (oom): {line}");
        }
        self.resolve(&key, said, now)
    }

    fn rows_that_went_wrong(&mut self, ix: BoxIx, report: &Report, now: Moment) -> Vec<Change> {
        let rows = report.checks.iter().filter_map(|row| Some((row, kind_of(row)?)));
        rows.filter_map(|(row, kind)| {
            let severity = severity::of_check(kind, row.status)?;
            let key = key(ix, kind, subject(row));
            if self.was_louder_than(&key, severity) && check_state(row)?.1.explained {
                let said = format!("{}: {}", self.name(ix), row.summary);
                return self.resolve(&key, said, now);
            }
            let say = Say {
                severity,
                summary: format!("{}: {}", self.name(ix), row.summary),
                details: row_details(row),
            };
            let same = self.same_why(&key, row.why.as_str());
            self.say(key, say, if same { Tell::Nobody } else { Tell::Timeline }, now)
        })
        .collect()
    }

    fn rows_that_are_well(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let Some(facts) = self.facts(ix) else {
            return Vec::new();
        };
        let checks = facts.checks.clone();
        let mut changes = Vec::new();
        for key in self.keys_about(ix) {
            let state = checks.get(&(key.kind, key.subject.clone()));
            match key.kind {
                Kind::Gateway => {
                    changes.extend(self.unknown_noted(&key, state, now));
                    changes.extend(self.reconsider_unit(ix, &key.subject, now));
                }
                Kind::Disk | Kind::Backup | Kind::Tailscale => {
                    changes.extend(self.unknown_noted(&key, state, now));
                    changes.extend(self.resolve_check(&key, state, now));
                }
                Kind::RemedyGaveUp => changes.extend(self.resolve_gave_up(&key, &checks, now)),
                Kind::ChecksStopped => {
                    let said = format!("{}: checks run again", self.name(ix));
                    changes.extend(self.resolve(&key, said, now));
                }
                Kind::BoxDark
                | Kind::BoxSilent
                | Kind::SiteDark
                | Kind::ServerBlind
                | Kind::PlannedOverdue
                | Kind::DuplicateIdentity
                | Kind::ClockSkew
                | Kind::ReceiverFailing
                | Kind::Canary => {}
            }
        }
        changes
    }

    fn resolve_check(&mut self, key: &Key, state: Option<&CheckState>, now: Moment) -> Option<Change> {
        let ix = key.about?;
        let said = match state {
            Some(state) => match state.status {
                Status::Ok => state.summary.clone(),
                Status::Unknown if state.explained => state.summary.clone(),
                Status::Failing | Status::Warning | Status::Unknown => return None,
            },
            None => format!("the {} check is not made any more", key.kind),
        };
        self.resolve(key, format!("{}: {said}", self.name(ix)), now)
    }

    /// That a check could not be made is told in what is open, once.
    fn unknown_noted(&mut self, key: &Key, state: Option<&CheckState>, now: Moment) -> Option<Change> {
        let state = state.filter(|state| state.status == Status::Unknown && !state.explained)?;
        let known = self.incident(key)?.details.get("status").and_then(Value::as_str);
        if known == Some(Status::Unknown.as_str()) {
            return None;
        }
        let text = format!("could not be told any more: {}", state.summary);
        let figure = ("status", Value::from(Status::Unknown.as_str()));
        self.note(key, text, Some(figure), Tell::Timeline, now)
    }

    fn resolve_gave_up(
        &mut self,
        key: &Key,
        checks: &BTreeMap<(Kind, String), CheckState>,
        now: Moment,
    ) -> Option<Change> {
        let ix = key.about?;
        let of_unit = checks.get(&(Kind::Gateway, key.subject.clone()));
        let well = match of_unit {
            Some(state) => state.status == Status::Ok || state.explained,
            // The restart was some other check's remedy.
            None => checks
                .values()
                .all(|state| state.status != Status::Failing || state.explained),
        };
        let said = format!("{}: {} is well again", self.name(ix), key.subject);
        if well { self.resolve(key, said, now) } else { None }
    }

    /// Those that the report before did not have, by identity and not by time: a box's clock may have been set back.
    fn remedies(&mut self, ix: BoxIx, report: &Report, known: &[RemedyReport], now: Moment) -> Vec<Change> {
        let same =
            |a: &RemedyReport, b: &RemedyReport| (a.at, &a.unit, a.outcome) == (b.at, &b.unit, b.outcome);
        let mut new: Vec<&RemedyReport> = report
            .remedies
            .iter()
            .filter(|remedy| !known.iter().any(|known| same(known, remedy)))
            .collect();
        new.sort_by_key(|remedy| remedy.at);
        new.into_iter()
            .flat_map(|remedy| self.remedy(ix, remedy, now))
            .collect()
    }

    fn remedy(&mut self, ix: BoxIx, remedy: &RemedyReport, now: Moment) -> Vec<Change> {
        let sentence = format!("{}: {}", self.name(ix), remedy_sentence(remedy));
        let mut changes = Vec::new();
        if remedy.outcome == Outcome::GaveUp {
            let say = Say {
                severity: severity::of(Kind::RemedyGaveUp),
                summary: format!("{sentence}. The watchdog tries again after its window."),
                details: object(json!({ "last_remedy": remedy_value(remedy) })),
            };
            let key = key(ix, Kind::RemedyGaveUp, remedy.unit.to_string());
            changes.extend(self.say(key, say, Tell::Timeline, now));
        }
        if let Some(key) = self.what_it_is_for(ix, remedy) {
            let tell = match remedy.outcome {
                Outcome::Restarted | Outcome::Failed => Tell::Receivers,
                Outcome::HeldBack | Outcome::GaveUp => Tell::Timeline,
            };
            if tell == Tell::Timeline && self.same_remedy(&key, remedy) {
                return changes;
            }
            let was = self.incident(&key).map(|incident| incident.summary.clone());
            let text = match was {
                Some(was) if tell == Tell::Receivers => format!("{was}; {}", remedy_sentence(remedy)),
                Some(_) | None => sentence,
            };
            let figure = ("last_remedy", remedy_value(remedy));
            changes.extend(self.note(&key, text, Some(figure), tell, now));
        }
        changes
    }

    /// The open incident that a remedy was for: its unit's, else the box's first failing check.
    fn what_it_is_for(&self, ix: BoxIx, remedy: &RemedyReport) -> Option<Key> {
        let of_unit = key(ix, Kind::Gateway, remedy.unit.to_string());
        if self.is_open(&of_unit) {
            return Some(of_unit);
        }
        let checks = [Kind::Gateway, Kind::Disk, Kind::Backup, Kind::Tailscale];
        self.keys_about(ix)
            .into_iter()
            .find(|key| checks.contains(&key.kind))
    }

    /// Held back, or given up, for the reason that is known already.
    fn same_remedy(&self, key: &Key, remedy: &RemedyReport) -> bool {
        let last = self
            .incident(key)
            .and_then(|incident| incident.details.get("last_remedy"));
        last.is_some_and(|last| {
            last["outcome"] == remedy.outcome.as_str() && last["why"] == remedy.why.as_str()
        })
    }

    fn was_louder_than(&self, key: &Key, severity: Severity) -> bool {
        self.incident(key).is_some_and(|incident| {
            let was = incident.severity;
            let severity = ruled(&self.rules.severities, incident, severity);
            was != severity && louder(was, severity) == was
        })
    }

    fn same_why(&self, key: &Key, why: &str) -> bool {
        let incident = self.incident(key);
        incident.is_some_and(|incident| incident.details.get("why").and_then(Value::as_str) == Some(why))
    }

    fn seen_by_report(&self, key: &Key) -> bool {
        let seen = self
            .incident(key)
            .and_then(|incident| incident.details.get("seen_by"));
        seen.and_then(Value::as_array)
            .is_some_and(|seen| seen.iter().any(|by| by == "report"))
    }
}

fn key(ix: BoxIx, kind: Kind, subject: String) -> Key {
    Key {
        subject,
        ..about(kind, ix)
    }
}

fn subject(row: &CheckReport) -> String {
    row.subject.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// A check of a newer watchdog than this server knows opens nothing; it stands in the report.
fn kind_of(row: &CheckReport) -> Option<Kind> {
    let name: CheckName = row.name.as_str().parse().ok()?;
    Some(match name {
        CheckName::Gateway => Kind::Gateway,
        CheckName::Disk => Kind::Disk,
        CheckName::Backup => Kind::Backup,
        CheckName::Tailscale => Kind::Tailscale,
    })
}

pub(super) fn check_state(row: &CheckReport) -> Option<((Kind, String), CheckState)> {
    const BY_AN_OPERATOR: [KnownWhy; 4] = [
        KnownWhy::OperatorStopped,
        KnownWhy::UnitMasked,
        KnownWhy::NotConfigured,
        KnownWhy::Disabled,
    ];
    let state = CheckState {
        status: row.status,
        why: row.why.to_string(),
        summary: row.summary.clone(),
        explained: row.status != Status::Failing && BY_AN_OPERATOR.iter().any(|why| row.why == *why),
    };
    Some(((kind_of(row)?, subject(row)), state))
}

fn row_details(row: &CheckReport) -> Details {
    object(json!({
        "check": row.name, "status": row.status, "why": row.why, "consecutive": row.consecutive, "since": row.since,
        "values": row.values, "seen_by": ["report"],
    }))
}

pub(super) fn object(value: Value) -> Details {
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Details::new()
        }
    }
}
