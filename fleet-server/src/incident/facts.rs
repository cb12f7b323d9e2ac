//! What is known of a box: to judge its reports by, and to tell the person who is woken.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::account::Account;
use protocol::api::Liveness;
use protocol::heartbeat::{Paused, UnitState};
use protocol::incident::Kind;
use protocol::names::{BoxName, Labels};
use protocol::report::{RemedyReport, Report, Status};
use protocol::witness::Targets;

use super::checks::check_state;
use super::units::Watch;
use crate::liveness::BoxIx;
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::time::Mono;
use crate::store::BoxId;

/// What the judging side needs to know of a box from the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxInfo {
    /// Its place in the tables.
    pub ix: BoxIx,
    /// In the store.
    pub id: BoxId,
    /// Its name.
    pub name: BoxName,
    /// Its labels: the operator's over those that it declares.
    pub labels: Labels,
    /// Whom the server may ask about it, declared by an operator.
    pub witnesses: Targets,
}

/// What a box says with its beats besides being alive. Sent on when it changes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Word {
    /// The gateway units.
    pub units: Vec<UnitState>,
    /// Remedies are paused.
    pub paused: Option<Paused>,
    /// Its newest report is older than two of its periods; how old, seconds.
    pub report_stale_secs: Option<u64>,
    /// The period of its checks.
    pub check_every: Option<Duration>,
    /// Its clock is off by so much, milliseconds, and has been for a while.
    pub clock_off_ms: Option<i64>,
}

/// What a witness said, to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessWord {
    /// Whom it asked.
    pub asked: String,
    /// What it found.
    pub answer: WitnessAnswer,
    /// In a sentence (`connection refused`, `no answer within 1.5 s`).
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// One box.
#[derive(Debug, Clone)]
pub struct Facts {
    /// From the directory.
    pub info: BoxInfo,
    /// Its liveness.
    pub state: Liveness,
    /// The newest report and when it arrived.
    pub report: Option<(Arc<Report>, Timestamp)>,
    /// What its beats say.
    pub word: Word,
    /// What its witnesses said last, one word each.
    pub witnesses: Vec<WitnessWord>,
    /// What it says of its newest silence.
    pub account: Option<Box<Account>>,
    /// Open incidents about it.
    pub open: u32,
    pub(super) checks: BTreeMap<(Kind, String), CheckState>,
    pub(super) watches: Vec<Watch>,
    /// Since when a report could be expected: it came back, or the last one came.
    pub(super) report_since: Mono,
}

/// A check's answer in the newest report.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CheckState {
    pub(super) status: Status,
    pub(super) why: String,
    pub(super) summary: String,
    /// An operator's doing explains it: stopped, masked, not configured.
    pub(super) explained: bool,
}

impl Facts {
    /// A box of which nothing was heard yet.
    pub fn new(info: BoxInfo, report: Option<(Arc<Report>, Timestamp)>) -> Self {
        Self {
            info,
            state: Liveness::Unseen,
            word: Word::default(),
            witnesses: Vec::new(),
            account: None,
            open: 0,
            checks: report.as_ref().map_or_else(BTreeMap::new, |(report, _)| {
                report.checks.iter().filter_map(check_state).collect()
            }),
            watches: Vec::new(),
            report_since: Mono::default(),
            report,
        }
    }

    /// The newest remedy of the newest report.
    pub fn last_remedy(&self) -> Option<&RemedyReport> {
        let (report, _) = self.report.as_ref()?;
        report.remedies.iter().max_by_key(|remedy| remedy.at)
    }

    /// Whether its beats arrive.
    pub fn is_live(&self) -> bool {
        match self.state {
            Liveness::Live | Liveness::Suspect => true,
            Liveness::Unseen | Liveness::Dark | Liveness::Silent | Liveness::Away => false,
        }
    }

    /// Whether it was judged to be gone.
    pub fn is_gone(&self) -> bool {
        match self.state {
            Liveness::Dark | Liveness::Silent => true,
            Liveness::Unseen | Liveness::Live | Liveness::Suspect | Liveness::Away => false,
        }
    }
}
