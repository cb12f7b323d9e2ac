//! Pure: what the run found + what earlier runs found → how long each check has had its status.
//!
//! It only counts for people. When a failing check leads to a restart is decided, with stricter counting, in `remedy`.

use jiff::Timestamp;
use protocol::names::{UnitName, Word};
use protocol::report::{CheckName, CheckReport, Status};
use serde::{Deserialize, Serialize};

use crate::checks::Finding;

/// How long one check has had its status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// Which question.
    pub name: CheckName,
    /// What it was asked about.
    pub subject: Option<UnitName>,
    /// The answer.
    pub status: Status,
    /// Runs in a row with this answer.
    pub consecutive: u32,
    /// When the first of them was, by the wall clock.
    pub since: Timestamp,
}

/// The streaks after this run; a check that is no longer asked has none.
pub fn judge(findings: &[Finding], before: &[Streak], now: Timestamp) -> Vec<Streak> {
    let streak = |finding: &Finding| {
        let same = |s: &&Streak| {
            s.name == finding.name && s.subject == finding.subject && s.status == finding.status
        };
        let earlier = before.iter().find(same);
        Streak {
            name: finding.name,
            subject: finding.subject.clone(),
            status: finding.status,
            consecutive: earlier.map_or(0, |s| s.consecutive).saturating_add(1),
            // A clock that was moved back must not let a status begin in the future.
            since: earlier.map_or(now, |s| s.since.min(now)),
        }
    };
    findings.iter().map(streak).collect()
}

/// The report's rows: findings with their streaks, in the same order.
pub fn rows(findings: &[Finding], streaks: &[Streak]) -> Vec<CheckReport> {
    let row = |(finding, streak): (&Finding, &Streak)| {
        let name = Word::new(finding.name.as_str()).ok()?;
        Some(CheckReport {
            name,
            subject: finding.subject.clone(),
            status: finding.status,
            why: finding.why.into(),
            summary: finding.summary.clone(),
            consecutive: streak.consecutive,
            since: streak.since,
            values: finding.values.clone(),
        })
    };
    findings.iter().zip(streaks).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::why::KnownWhy;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn disk(status: Status) -> Vec<Finding> {
        vec![Finding::new(CheckName::Disk, status, KnownWhy::Fine, "x")]
    }

    #[test]
    fn runs_with_one_status_add_up_and_another_status_starts_anew() {
        let first = judge(&disk(Status::Failing), &[], at(0));
        let second = judge(&disk(Status::Failing), &first, at(120));
        assert_eq!((second[0].consecutive, second[0].since), (2, at(0)));
        let third = judge(&disk(Status::Ok), &second, at(240));
        assert_eq!((third[0].consecutive, third[0].since), (1, at(240)));
    }

    #[test]
    fn gateways_are_told_apart() {
        let gateway = |unit: &str| Finding {
            subject: Some(UnitName::new(unit).unwrap()),
            ..Finding::new(CheckName::Gateway, Status::Failing, KnownWhy::UnitFailed, "x")
        };
        let before = judge(&[gateway("a.service")], &[], at(0));
        let after = judge(&[gateway("b.service"), gateway("a.service")], &before, at(1));
        assert_eq!((after[0].consecutive, after[1].consecutive), (1, 2));
        assert_eq!(
            rows(&[gateway("b.service")], &after)[0]
                .subject
                .as_ref()
                .unwrap()
                .as_str(),
            "b.service"
        );
    }

    #[test]
    fn a_clock_moved_back_does_not_put_the_beginning_into_the_future() {
        let before = judge(&disk(Status::Ok), &[], at(1000));
        assert_eq!(judge(&disk(Status::Ok), &before, at(10))[0].since, at(10));
    }
}
