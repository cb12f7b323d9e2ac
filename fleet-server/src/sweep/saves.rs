//! Which boxes are to be remembered, and when: those that changed their state at once, the others every few seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::intake::Shared;
use crate::liveness::BoxIx;
use crate::liveness::time::{Moment, Mono};
use crate::store::{BoxMemory, StoreError, StoredReport};

/// How old `last_seen` may be in the store …
const EVERY: Duration = Duration::from_secs(5);
/// … for so many boxes; more take longer in proportion, so that the store has time for what matters.
const BOXES_PER_SEC: f64 = 2000.0;
/// After a failed save.
const RETRY: Duration = Duration::from_secs(5);

/// What is to be saved next.
#[derive(Debug)]
pub(super) struct Saves {
    next_round: Mono,
    /// Since the last round: who has beaten since then is saved in the next.
    last_round: Option<Timestamp>,
    now: BTreeSet<BoxIx>,
    sync: bool,
    reports: BTreeSet<BoxIx>,
    under_way: (BTreeSet<BoxIx>, BTreeSet<BoxIx>),
    failed: bool,
    said: bool,
}

impl Saves {
    pub(super) fn new(now: Mono) -> Self {
        Self {
            next_round: now + EVERY,
            last_round: None,
            now: BTreeSet::new(),
            sync: false,
            reports: BTreeSet::new(),
            under_way: Default::default(),
            failed: false,
            said: false,
        }
    }

    /// This box's report is new.
    pub(super) fn report(&mut self, ix: BoxIx) {
        self.reports.insert(ix);
    }

    /// This box is to be saved now; `sync`: against a power cut too.
    pub(super) fn at_once(&mut self, ix: BoxIx, sync: bool) {
        self.now.insert(ix);
        self.sync |= sync;
    }

    /// Everybody is to be saved now.
    pub(super) fn everybody(&mut self) {
        self.next_round = Mono::default();
        self.last_round = None;
        self.failed = false;
    }

    /// What is to be written now, if anything.
    pub(super) fn due(
        &mut self,
        shared: &Shared,
        now: Moment,
    ) -> Option<(Vec<BoxMemory>, Vec<StoredReport>, bool)> {
        let round = self.next_round <= now.mono;
        if !round && (self.now.is_empty() || self.failed) {
            return None;
        }
        let mut boxes = std::mem::take(&mut self.now);
        let mut reports = BTreeSet::new();
        if round {
            boxes.extend(self.beaten(shared));
            reports = std::mem::take(&mut self.reports);
            let took = Duration::from_secs_f64(boxes.len() as f64 / BOXES_PER_SEC);
            self.next_round = now.mono + EVERY.max(took);
            self.last_round = Some(now.wall);
        }
        let sync = std::mem::take(&mut self.sync);
        let memories = memories(shared, &boxes, now);
        let stored = stored(shared, &reports);
        self.under_way = (boxes, reports);
        (!memories.is_empty() || !stored.is_empty()).then_some((memories, stored, sync))
    }

    /// A save ended. A failed one is repeated with the next round.
    pub(super) fn saved(&mut self, done: Result<(), StoreError>) {
        let (boxes, reports) = std::mem::take(&mut self.under_way);
        self.failed = done.is_err();
        if let Err(err) = done {
            self.now.extend(boxes);
            self.reports.extend(reports);
            if !self.said {
                tracing::warn!(error = %err, "what is known of boxes cannot be written; trying again every {} s", RETRY.as_secs());
            }
            self.said = true;
        } else {
            self.said = false;
        }
    }

    fn beaten(&self, shared: &Shared) -> Vec<BoxIx> {
        let rows = shared.judge().rows();
        let since = self.last_round;
        rows.iter()
            .filter(|row| row.last_seen.is_some() && since.is_none_or(|since| row.last_seen >= Some(since)))
            .map(|row| row.ix)
            .collect()
    }
}

fn memories(shared: &Shared, boxes: &BTreeSet<BoxIx>, now: Moment) -> Vec<BoxMemory> {
    let ids: Vec<_> = {
        let ledger = shared.ledger();
        boxes
            .iter()
            .filter_map(|ix| Some((*ix, ledger.facts(*ix)?.info.id)))
            // It is made anew at each start.
            .filter(|(_, id)| !id.is_canary())
            .collect()
    };
    let judge = shared.judge();
    ids.into_iter()
        .filter_map(|(ix, id)| {
            let record = judge.memory(ix, now)?;
            Some(BoxMemory { id, record })
        })
        .collect()
}

fn stored(shared: &Shared, boxes: &BTreeSet<BoxIx>) -> Vec<StoredReport> {
    let ledger = shared.ledger();
    boxes
        .iter()
        .filter_map(|ix| {
            let facts = ledger.facts(*ix)?;
            let (report, received_at) = facts.report.as_ref()?;
            Some(StoredReport {
                id: facts.info.id,
                received_at: *received_at,
                report: report.as_ref().clone(),
            })
        })
        .collect()
}
