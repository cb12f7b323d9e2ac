//! What the page, the API and /metrics read: copies, made under locks held for microseconds. Nothing is asked of a stage.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::{Paused, UnitState};
use protocol::incident::{Incident, Kind, Severity};
use protocol::report::{Report, Status};

use crate::incident::canary::is_canarys;
use crate::incident::facts::{BoxInfo, Facts};
use crate::incident::ledger::MUTED_BY;
use crate::intake::Intake;
use crate::liveness::BoxIx;
use crate::liveness::time::Mono;
use crate::liveness::tracker::Row;

/// The reader's side of judgement. Cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    intake: Intake,
}

/// One box as it stands.
#[derive(Debug, Clone)]
pub struct BoxView {
    /// Name, labels, witness.
    pub info: BoxInfo,
    /// Its liveness.
    pub state: Liveness,
    /// Since when.
    pub since: Option<Timestamp>,
    /// The server's time of the last beat.
    pub last_seen: Option<Timestamp>,
    /// Its interval.
    pub every: Duration,
    /// How long it may be silent before it is dark, by its own history.
    pub dark_after: Duration,
    /// Beats accepted since the server's start.
    pub beats: u64,
    /// The worst status of the newest report.
    pub worst: Option<Status>,
    /// The newest report and when it arrived.
    pub report: Option<(Arc<Report>, Timestamp)>,
    /// The gateway units as of the last beat.
    pub units: Vec<UnitState>,
    /// Remedies are paused.
    pub paused: Option<Paused>,
    /// What its clock is ahead, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Open incidents about it.
    pub open_incidents: u32,
}

/// How judgement itself fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// When the sweep last turned; `None` before its first turn.
    pub last_turn: Option<Mono>,
    /// Turns since the start.
    pub turns: u64,
    /// Whether it can judge now, and if not why.
    pub judges: Result<(), NotReady>,
    /// Pauses of the server's own.
    pub pauses: u64,
    /// Changes decided and not yet written.
    pub unsaved: usize,
}

/// Why nobody is judged, or nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// After the start, a pause or a blindness every box has one full deadline.
    #[error("warming up: every box has one full deadline")]
    WarmingUp,
    /// Arrivals over all collapsed.
    #[error("may be blind: most boxes stopped being heard at once")]
    Blind,
    /// The server does not get round to its work.
    #[error("overloaded: the sweep turns too slowly to judge anybody by; give this server more CPU")]
    Overloaded,
    /// What was decided cannot be written.
    #[error("{0}")]
    StoreFailing(String),
}

impl View {
    pub(crate) fn new(intake: Intake) -> Self {
        Self { intake }
    }

    /// Every box, by place, the canary too.
    pub fn boxes(&self) -> Vec<BoxView> {
        let rows = self.intake.shared.judge().rows();
        let ledger = self.intake.shared.ledger();
        let facts = |row: &Row| ledger.facts(row.ix).cloned();
        let known: Vec<_> = rows.iter().filter_map(|row| Some((*row, facts(row)?))).collect();
        drop(ledger);
        known
            .into_iter()
            .map(|(row, facts)| self.both(row, facts))
            .collect()
    }

    /// One box.
    pub fn one(&self, ix: BoxIx) -> Option<BoxView> {
        let row = self.intake.shared.judge().row(ix)?;
        let facts = self.intake.shared.ledger().facts(ix).cloned()?;
        Some(self.both(row, facts))
    }

    /// The open incidents that are `meant`. There may be ten thousand: the others are not copied.
    pub fn open(&self, meant: impl Fn(&Incident) -> bool) -> Vec<Incident> {
        let ledger = self.intake.shared.ledger();
        let open = ledger.open_incidents().filter(|incident| meant(incident));
        open.cloned().collect()
    }

    /// Kind and severity of the open incidents, without those of the canary's own box.
    pub fn open_kinds(&self) -> Vec<(Kind, Severity)> {
        let ledger = self.intake.shared.ledger();
        ledger
            .open_incidents()
            .filter(|incident| !is_canarys(incident))
            .map(|incident| (incident.kind, incident.severity))
            .collect()
    }

    /// How many open incidents are muted.
    pub fn muted(&self) -> usize {
        let ledger = self.intake.shared.ledger();
        let open = ledger.open_incidents();
        open.filter(|incident| incident.details.contains_key(MUTED_BY))
            .count()
    }

    /// How judgement itself fares.
    pub fn health(&self) -> Health {
        let (blind, overloaded, pauses) = {
            let judge = self.intake.shared.judge();
            (judge.blind(), judge.overloaded(), judge.pauses())
        };
        let turn = self.intake.shared.turn().clone();
        let judges = match turn.store_error {
            Some(error) => Err(NotReady::StoreFailing(error)),
            None if blind => Err(NotReady::Blind),
            None if overloaded => Err(NotReady::Overloaded),
            None if !turn.ready => Err(NotReady::WarmingUp),
            None => Ok(()),
        };
        Health {
            last_turn: turn.last,
            turns: turn.turns,
            judges,
            pauses,
            unsaved: turn.unsaved,
        }
    }

    fn both(&self, row: Row, facts: Facts) -> BoxView {
        BoxView {
            clock_skew_ms: self.intake.clock_skew_ms(row.ix),
            worst: facts.report.as_ref().map(|(report, _)| report.worst()),
            info: facts.info,
            state: row.state,
            since: row.since,
            last_seen: row.last_seen,
            every: row.every,
            dark_after: row.dark_after,
            beats: row.beats,
            report: facts.report,
            units: facts.word.units,
            paused: facts.word.paused,
            open_incidents: facts.open,
        }
    }
}
