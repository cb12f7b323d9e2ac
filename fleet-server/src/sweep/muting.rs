//! What mutes change in judgement: boxes that may be gone, and what stands in the books about muted incidents.
//!
//! Whether somebody is told is asked by who plans notifications; here nobody is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use protocol::heartbeat::Paused;
use protocol::mute::MuteRecord;
use protocol::names::BoxName;

use crate::incident::change::Change;
use crate::incident::ledger::{Ledger, MUTED_BY};
use crate::intake::Shared;
use crate::liveness::BoxIx;
use crate::liveness::time::{Moment, Mono};
use crate::mute::{Ended, MutedBy, Mutes};
use crate::store::StoreError;

/// How soon it stands in the books that a new incident is muted.
const BOOKS_EVERY: Duration = Duration::from_secs(1);
/// Boxes join and change their labels: how soon that is noticed.
const ROUND_EVERY: Duration = Duration::from_secs(10);
/// Between two writes of pauses.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// After a failed one.
const RETRY: Duration = Duration::from_secs(5);

/// The mutes, shared with who plans notifications and with the API.
pub type Book = Arc<Mutex<Mutes>>;

/// The sweep's side of mutes.
#[derive(Debug)]
pub(super) struct Muting {
    book: Book,
    epoch: Option<u64>,
    next_books: Mono,
    next_round: Mono,
    /// Boxes that may be gone now.
    excused: BTreeSet<BoxIx>,
    /// Pauses that are not written yet, by number.
    unwritten: BTreeMap<i64, MuteRecord>,
    under_way: BTreeMap<i64, MuteRecord>,
    write_after: Mono,
    /// That they cannot be written was logged.
    said: bool,
}

impl Muting {
    pub(super) fn new(book: Book) -> Self {
        Self {
            book,
            epoch: None,
            next_books: Mono::default(),
            next_round: Mono::default(),
            excused: BTreeSet::new(),
            unwritten: BTreeMap::new(),
            under_way: BTreeMap::new(),
            write_after: Mono::default(),
            said: false,
        }
    }

    /// What a box says of its pause; `skew_ms` is what its clock is ahead.
    pub(super) fn paused(
        &mut self,
        name: &BoxName,
        paused: Option<&Paused>,
        skew_ms: Option<i64>,
        now: Moment,
    ) {
        let skew = SignedDuration::from_millis(skew_ms.unwrap_or(0));
        let record = self.mutes().paused(name, paused, skew, now.wall);
        self.note(record);
    }

    /// The box is no more.
    pub(super) fn removed(&mut self, name: &BoxName, now: Moment) {
        let record = self.mutes().forget_box(name, now.wall);
        self.note(record);
    }

    /// Time has passed. `untold`: of this open incident nobody was told.
    pub(super) fn look(&mut self, shared: &Shared, now: Moment, untold: impl Fn(i64) -> bool) -> Vec<Change> {
        let (ended, epoch) = {
            let mut mutes = self.mutes();
            (mutes.ended(now.wall), mutes.epoch())
        };
        ended.iter().for_each(log);
        let mut changes = Vec::new();
        let changed = self.epoch.replace(epoch) != Some(epoch);
        if changed || now.mono >= self.next_round {
            self.next_round = now.mono + ROUND_EVERY;
            changes = self.excuse(shared, now, untold);
        }
        if changed || now.mono >= self.next_books {
            self.next_books = now.mono + BOOKS_EVERY;
            changes.extend(self.books(shared, now));
        }
        changes
    }

    /// Pauses to be written now, if any.
    pub(super) fn due(&mut self, now: Mono) -> Option<Vec<MuteRecord>> {
        if self.unwritten.is_empty() || now < self.write_after {
            return None;
        }
        // Boxes come and go by the thousand: one write a second is enough.
        self.write_after = now + WRITE_EVERY;
        self.under_way = std::mem::take(&mut self.unwritten);
        Some(self.under_way.values().cloned().collect())
    }

    /// What is not written yet, at the end.
    pub(super) fn all(&mut self) -> Option<Vec<MuteRecord>> {
        let mut all = std::mem::take(&mut self.under_way);
        all.append(&mut self.unwritten);
        (!all.is_empty()).then(|| all.into_values().collect())
    }

    /// A write ended; a failed one is repeated.
    pub(super) fn written(&mut self, done: Result<(), StoreError>, now: Mono) {
        let mut before = std::mem::take(&mut self.under_way);
        if let Err(err) = done {
            if !self.said {
                tracing::warn!(error = %err, "boxes' pauses cannot be written; trying again every {} s", RETRY.as_secs());
            }
            self.write_after = now + RETRY;
            // What was said since is newer.
            before.append(&mut self.unwritten);
            self.unwritten = before;
            self.said = true;
        } else {
            self.said = false;
        }
    }

    /// Who may be gone now is excused; who may not be any more has a full deadline, or is told of if it is gone.
    fn excuse(&mut self, shared: &Shared, now: Moment, untold: impl Fn(i64) -> bool) -> Vec<Change> {
        let (may_be_gone, still_gone) = {
            let ledger = shared.ledger();
            let mut mutes = self.mutes();
            let mut may_be_gone = BTreeSet::new();
            let mut still_gone = Vec::new();
            for facts in ledger.all_facts().filter(|facts| !facts.info.id.is_canary()) {
                let (ix, info) = (facts.info.ix, &facts.info);
                if mutes.may_be_gone(&info.name, &info.labels, now.wall).is_some() {
                    may_be_gone.insert(ix);
                    continue;
                }
                // It stands in the books that it was muted: so a restart at the very end of a maintenance costs nothing.
                let absence = (facts.open > 0).then(|| ledger.absence_of(ix)).flatten();
                let news = absence.is_some_and(|incident| {
                    let was_muted = incident.details.contains_key(MUTED_BY);
                    was_muted && untold(incident.id) && mutes.muted(incident, now.wall).is_none()
                });
                if news {
                    still_gone.push(ix);
                }
            }
            let covered = covered(&ledger, &mutes, now.wall);
            mutes.cover(covered);
            (may_be_gone, still_gone)
        };
        let with_others = {
            let mut judge = shared.judge();
            for ix in self.excused.difference(&may_be_gone) {
                judge.fresh_box(*ix, now.mono);
            }
            // All of them: one that was removed and came again is another cell.
            for ix in &may_be_gone {
                judge.excuse(*ix);
            }
            judge.still_gone(&still_gone, now)
        };
        self.excused = may_be_gone;
        let mut ledger = shared.ledger();
        let ended = with_others
            .into_iter()
            .flat_map(|ix| ledger.told_with_others(ix, now));
        ended.collect()
    }

    /// Who mutes an open incident, or that nobody does any more, stands in its history.
    fn books(&self, shared: &Shared, now: Moment) -> Vec<Change> {
        let mut ledger = shared.ledger();
        let moved: Vec<(i64, Option<String>)> = {
            let mutes = self.mutes();
            let open = ledger.open_incidents();
            let muted =
                open.map(|incident| (incident, mutes.muted(incident, now.wall).map(|by| by.to_string())));
            muted
                .filter(|(incident, by)| {
                    let said = incident.details.get(MUTED_BY).and_then(serde_json::Value::as_str);
                    said != by.as_deref()
                })
                .map(|(incident, by)| (incident.id, by))
                .collect()
        };
        let said = moved.into_iter().filter_map(|(id, by)| ledger.muted(id, by, now));
        said.collect()
    }

    fn note(&mut self, record: Option<MuteRecord>) {
        if let Some(record) = record {
            tracing::info!(
                id = record.id, by = %record.created.by, until = ?record.over_at(),
                "a box's own pause mutes what is said about it"
            );
            self.unwritten.insert(record.id, record);
        }
    }

    /// The lock is held for microseconds, and no other is taken after it.
    fn mutes(&self) -> MutexGuard<'_, Mutes> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Storms of which every member may be gone, each by what ends first for one of them.
fn covered(ledger: &Ledger, mutes: &Mutes, now: Timestamp) -> BTreeMap<i64, MutedBy> {
    let by = |ix: &BoxIx| {
        let info = &ledger.facts(*ix)?.info;
        mutes.may_be_gone(&info.name, &info.labels, now)
    };
    let storms = ledger.open_storms().filter_map(|(incident, members)| {
        let all: Vec<MutedBy> = members.iter().map(by).collect::<Option<_>>()?;
        // Until the first of them is expected again.
        let by = all.into_iter().min_by_key(|by| by.until)?;
        Some((incident.id, by))
    });
    storms.collect()
}

fn log(ended: &Ended) {
    tracing::info!(
        id = ended.id, kind = %ended.kind, matcher = %ended.matcher, ended_by = ended.by.as_deref(),
        "a mute is over: what is still open is told from now on"
    );
}
