//! What the page, the API and /metrics read: copies, made under locks held for microseconds. Nothing is asked of a stage.

use std::time::Duration;

use protocol::incident::Incident;

use crate::clock::Clock;
use crate::intake::Intake;
use crate::liveness::BoxIx;
use crate::liveness::tracker::Row;
use crate::web::metrics::BoxSample;
use crate::web::view::{BoxView, View};

/// A sweep that has not turned for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The reader's side of judgement. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Judgement {
    intake: Intake,
    clock: Clock,
}

/// How judgement itself fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Turns of the sweep since the start.
    pub turns: u64,
    /// How long ago the last one was; `None` before the first.
    pub last_turn_ago: Option<Duration>,
    /// Whether it can judge now, and if not why.
    pub judges: Result<(), NotJudging>,
    /// Pauses of the server's own.
    pub pauses: u64,
    /// Changes decided and not yet written.
    pub unsaved: usize,
}

/// Why nobody is judged, or nothing can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotJudging {
    /// After the start, a pause or a blindness every box has one full deadline.
    #[error("warming up: every box has one full deadline before anybody is judged")]
    WarmingUp,
    /// Arrivals over all collapsed.
    #[error("may be blind: most boxes stopped being heard at once")]
    Blind,
    /// What was decided cannot be written.
    #[error("{0}")]
    StoreFailing(String),
}

impl Judgement {
    pub(super) fn new(intake: Intake, clock: Clock) -> Self {
        Self { intake, clock }
    }

    /// How judgement itself fares.
    pub fn health(&self) -> Health {
        let now = self.clock.mono();
        let (blind, pauses) = {
            let judge = self.intake.shared.judge();
            (judge.blind(), judge.pauses())
        };
        let turn = self.intake.shared.turn().clone();
        let judges = match turn.store_error {
            Some(error) => Err(NotJudging::StoreFailing(error)),
            None if blind => Err(NotJudging::Blind),
            None if !turn.ready => Err(NotJudging::WarmingUp),
            None => Ok(()),
        };
        Health {
            turns: turn.turns,
            last_turn_ago: turn.last.map(|last| now.since(last)),
            judges,
            pauses,
            unsaved: turn.unsaved,
        }
    }

    fn box_view(&self, row: Option<Row>) -> Option<BoxView> {
        let row = row?;
        let ledger = self.intake.shared.ledger();
        let facts = ledger.facts(row.ix)?;
        let (report, word) = (facts.report.clone(), facts.word.clone());
        drop(ledger);
        Some(BoxView {
            state: row.state,
            since: row.since,
            last_seen: row.last_seen,
            units: word.units,
            paused: word.paused,
            clock_skew_ms: self.intake.clock_skew_ms(row.ix),
            report,
        })
    }
}

impl View for Judgement {
    fn boxes(&self, which: &[BoxIx]) -> Vec<Option<BoxView>> {
        let rows: Vec<Option<Row>> = {
            let judge = self.intake.shared.judge();
            which.iter().map(|ix| judge.row(*ix)).collect()
        };
        rows.into_iter().map(|row| self.box_view(row)).collect()
    }

    fn samples(&self) -> Vec<BoxSample> {
        let rows = self.intake.shared.judge().rows();
        let ledger = self.intake.shared.ledger();
        let sample = |row: &Row| {
            let facts = ledger.facts(row.ix)?;
            Some(BoxSample {
                name: facts.info.name.clone(),
                labels: facts.info.labels.clone(),
                state: row.state,
                last_seen: row.last_seen,
                interval_secs: row.every.as_secs_f64(),
                dark_after_secs: row.dark_after.as_secs_f64(),
                beats: row.beats,
                clock_skew_ms: None,
                paused: facts.word.paused.is_some(),
                report: facts.report.clone(),
            })
        };
        let samples: Vec<_> = rows
            .iter()
            .filter_map(|row| Some((row.ix, sample(row)?)))
            .collect();
        drop(ledger);
        let with_skew = |(ix, sample)| BoxSample {
            clock_skew_ms: self.intake.clock_skew_ms(ix),
            ..sample
        };
        samples.into_iter().map(with_skew).collect()
    }

    fn open(&self) -> Vec<Incident> {
        self.intake.shared.ledger().open_incidents().cloned().collect()
    }

    fn stuck(&self) -> Option<String> {
        let ago = match self.intake.shared.turn().last {
            Some(last) => self.clock.mono().since(last),
            None => return None,
        };
        (ago > STUCK_AFTER).then(|| format!("the sweep has not turned for {:.1} s", ago.as_secs_f64()))
    }

    fn not_judging(&self) -> Option<String> {
        self.health().judges.err().map(|why| why.to_string())
    }
}
