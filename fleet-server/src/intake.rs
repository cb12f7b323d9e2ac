//! The door between ingest and judgement: a beat goes in, its answer comes out at once; what it brought (report, units)
//! waits, bounded, for the next turn of the sweep.
//!
//! It parses nothing (ingest did) and decides nothing (liveness does). Nothing is lost when the waiting room is full:
//! what a box says stays unheard until its next beat says it again, and a report is asked for again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use protocol::account::Account;
use protocol::heartbeat::Heartbeat;
use protocol::incident::Ack;
use protocol::report::Report;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::incident::canary;
use crate::incident::facts::{BoxInfo as Info, Word};
use crate::incident::ledger::Ledger;
use crate::liveness::beat::{Accepted, Arrival, Refused};
use crate::liveness::judge::Judge;
use crate::liveness::time::{Moment, Mono};
use crate::liveness::{BoxIx, ConnId};
use crate::witness::vigil::Reply;

pub use crate::incident::facts::BoxInfo;

/// Reports that wait for the sweep; at most some 24 KiB each.
const REPORTS: usize = 4096;
/// Boxes with something new to say that wait for the sweep.
const WORDS: usize = 65_536;
/// Acknowledgements that wait for the sweep.
const HANDS: usize = 1000;
/// A box's new reports may come in a burst of this many (checks run by hand, one after another) …
const REPORT_BURST: u32 = 20;
/// … and otherwise no more often than this: each may page somebody. One that comes too early is asked for again.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// A clock that is off by more than this …
const CLOCK_OFF_MS: i64 = 60_000;
/// … in so many beats in a row is off; …
const CLOCK_OFF_BEATS: u8 = 10;
/// … by less than this it is right again.
const CLOCK_RIGHT_MS: i64 = 30_000;

/// Where ingest puts what arrives. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Intake {
    pub(crate) shared: Arc<Shared>,
}

/// What ingest, the sweep and readers share. Each lock is held for microseconds, and no two at once but the
/// ledger's and then the inbox's, the desks' or the mutes', and the judge's and then the inbox's.
#[derive(Debug)]
pub(crate) struct Shared {
    judge: Mutex<Judge>,
    ledger: Mutex<Ledger>,
    inbox: Mutex<Inbox>,
    desks: Mutex<Vec<Desk>>,
    turn: Mutex<Turn>,
}

/// What waits for the sweep.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) words: Vec<(BoxIx, Word)>,
    pub(crate) reports: Vec<(BoxIx, Arc<Report>, Timestamp)>,
    pub(crate) went: BTreeMap<BoxIx, Went>,
    /// What boxes say of a silence, the newest of each; none: nothing any more.
    pub(crate) accounts: BTreeMap<BoxIx, Option<Box<Account>>>,
    pub(crate) receivers: BTreeMap<String, Option<String>>,
    pub(crate) witnesses: Vec<Reply>,
    pub(crate) hands: Vec<Handing>,
    /// What came of the canary's newest run.
    pub(crate) canary: Option<Result<(), canary::Failed>>,
}

/// An operator takes an incident in hand, or gives it back.
#[derive(Debug)]
pub(crate) struct Handing {
    pub(crate) id: i64,
    pub(crate) hand: Hand,
    /// Told when it is written.
    pub(crate) answer: oneshot::Sender<Handed>,
}

/// What an operator does with an incident.
#[derive(Debug)]
pub enum Hand {
    /// "I have it."
    Take(Ack),
    /// "I don't any more."
    GiveBack {
        /// Who.
        by: String,
        /// In their words.
        note: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handed {
    /// It is written, and whoever was told of the incident will be told.
    Done,
    /// There is no open incident of that number.
    NotOpen,
}

/// A box went; it may have come again since: its token was revoked and replaced at once.
#[derive(Debug, Default)]
pub(crate) struct Went {
    pub(crate) came: Option<Info>,
}

/// How the sweep fares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    pub(crate) last: Option<Mono>,
    pub(crate) turns: u64,
    pub(crate) ready: bool,
    pub(crate) unsaved: usize,
    pub(crate) store_error: Option<String>,
}

/// What of a box was passed on already.
#[derive(Debug, Clone, Default)]
struct Desk {
    said: u64,
    report: Option<Uuid>,
    /// When the next report would be in time, had all come evenly.
    next_report: Mono,
    skew_ms: Option<i64>,
    off_beats: u8,
    clock_off: bool,
    /// It has said something of a silence, and not yet that there is nothing more to say.
    explains: bool,
}

impl Intake {
    /// Over what the sweep restored.
    pub(crate) fn new(judge: Judge, ledger: Ledger) -> Self {
        let mut desks = Vec::new();
        for facts in ledger.all_facts() {
            let at = facts.info.ix.at();
            if desks.len() <= at {
                desks.resize(at + 1, Desk::default());
            }
            desks[at].report = facts.report.as_ref().map(|(report, _)| report.id);
        }
        let shared = Shared {
            judge: Mutex::new(judge),
            ledger: Mutex::new(ledger),
            inbox: Mutex::default(),
            desks: Mutex::new(desks),
            turn: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// A heartbeat that was authenticated as `ix`'s and decoded. `at` and `received` are its arrival, stamped before
    /// decoding.
    pub fn beat(
        &self,
        ix: BoxIx,
        conn: ConnId,
        at: Mono,
        received: Timestamp,
        mut beat: Heartbeat,
    ) -> Result<Accepted, Refused> {
        let now = Moment {
            mono: at,
            wall: received,
        };
        let account = beat.account.take();
        let explains = account.is_some();
        {
            let mut judge = self.shared.judge();
            judge.beat(ix, now, &arrival(conn, &beat))?;
            // In one with the judgement: who is told that the box is back finds its account; and what a refused beat says
            // (a late one, another machine's) is not this box's word.
            if let Some(account) = account {
                self.shared.inbox().explained(ix, Some(account));
            }
        }
        let mut desks = lock(&self.shared.desks);
        if desks.len() <= ix.at() {
            desks.resize(ix.at() + 1, Desk::default());
        }
        let desk = &mut desks[ix.at()];
        if std::mem::replace(&mut desk.explains, explains) && !explains {
            self.shared.inbox().explained(ix, None);
        }
        let clock_off_ms = desk.clock(beat.sent_at, received);
        let newest = beat.report_id.or(beat.report.as_ref().map(|report| report.id));
        let lacks = newest.is_some() && newest != desk.report;
        // The word first: a report that comes with "older than two periods" is newer than that.
        let said = said(&beat, clock_off_ms.is_some());
        if said != desk.said && self.pass_on(ix, word(&beat, clock_off_ms)) {
            desk.said = said;
        }
        let report = beat.report.filter(|report| Some(report.id) != desk.report);
        let report = report.filter(|_| desk.takes_report(at));
        let taken = report.and_then(|report| self.hand_over(ix, *report, received));
        desk.report = taken.or(desk.report);
        Ok(Accepted {
            want_report: lacks && taken.is_none(),
        })
    }

    /// The peer closed (or reset) a connection that beats of `ix` arrived on. Not to be called for connections that
    /// the server itself closes.
    pub fn closed(&self, ix: BoxIx, conn: ConnId, at: Mono, wall: Timestamp) {
        self.shared.judge().closed(ix, conn, Moment { mono: at, wall });
    }

    /// A box was added, or its labels or witness changed.
    pub fn upsert(&self, info: &Info, at: Mono, wall: Timestamp) {
        let now = Moment { mono: at, wall };
        if info.id.is_canary() {
            self.shared.judge().add_aside(info.ix, now);
        } else {
            self.shared.judge().add(info.ix, &info.labels, None, now);
        }
        let mut ledger = self.shared.ledger();
        match self.shared.inbox().went.get_mut(&info.ix) {
            Some(went) => went.came = Some(info.clone()),
            None => ledger.add(info.clone(), None),
        }
    }

    /// A box was removed or its last token revoked: nothing is expected of it any more, its incidents end.
    pub fn remove(&self, ix: BoxIx) {
        self.shared.judge().remove(ix);
        if let Some(desk) = lock(&self.shared.desks).get_mut(ix.at()) {
            *desk = Desk::default();
        }
        self.shared.inbox().went.insert(ix, Went::default());
    }

    /// A receiver's worker says that it fails (`Some(error)`) or works again (`None`).
    pub fn receiver(&self, name: &str, failing: Option<String>) {
        self.shared.inbox().receivers.insert(name.to_owned(), failing);
    }

    /// An operator takes incident `id` in hand, or gives it back; the answer comes when that is written. `None`: too many
    /// wait already.
    pub fn hand(&self, id: i64, hand: Hand) -> Option<oneshot::Receiver<Handed>> {
        let (answer, handed) = oneshot::channel();
        let mut inbox = self.shared.inbox();
        if inbox.hands.len() >= HANDS {
            return None;
        }
        inbox.hands.push(Handing { id, hand, answer });
        Some(handed)
    }

    /// What came of the canary's run.
    pub fn canary(&self, outcome: Result<(), canary::Failed>) {
        self.shared.inbox().canary = Some(outcome);
    }

    /// What the box's clock is ahead, milliseconds, by its last beat.
    pub(crate) fn clock_skew_ms(&self, ix: BoxIx) -> Option<i64> {
        lock(&self.shared.desks).get(ix.at())?.skew_ms
    }

    fn pass_on(&self, ix: BoxIx, word: Word) -> bool {
        let mut inbox = self.shared.inbox();
        let room = inbox.words.len() < WORDS;
        if room {
            inbox.words.push((ix, word));
        }
        room
    }

    /// The report's id, if it was taken.
    fn hand_over(&self, ix: BoxIx, report: Report, received: Timestamp) -> Option<Uuid> {
        let mut inbox = self.shared.inbox();
        let id = report.id;
        (inbox.reports.len() < REPORTS).then(|| {
            inbox.reports.push((ix, Arc::new(report), received));
            id
        })
    }
}

impl Inbox {
    fn explained(&mut self, ix: BoxIx, account: Option<Box<Account>>) {
        let waits = self.accounts.get(&ix).and_then(Option::as_ref);
        // A whole one that waits is not lost to the beat after it, which has nothing more to say.
        if account.is_some() || waits.is_none_or(|waits| waits.pending) {
            self.accounts.insert(ix, account);
        }
    }
}

impl Shared {
    pub(crate) fn judge(&self) -> MutexGuard<'_, Judge> {
        lock(&self.judge)
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    /// Whether an address declared for the server itself has ever answered.
    pub(crate) fn own_proven(&self) -> bool {
        self.judge().own_proven()
    }

    pub(crate) fn turn(&self) -> MutexGuard<'_, Turn> {
        lock(&self.turn)
    }
}

impl Desk {
    fn takes_report(&mut self, now: Mono) -> bool {
        let next = self.next_report.max(now) + REPORT_EVERY;
        let takes = next.since(now) <= REPORT_EVERY * REPORT_BURST;
        if takes {
            self.next_report = next;
        }
        takes
    }

    /// What the clock is off by, if it has been off for a while.
    fn clock(&mut self, sent: Timestamp, received: Timestamp) -> Option<i64> {
        let skew = i64::try_from(sent.duration_since(received).as_millis()).unwrap_or(i64::MAX);
        self.skew_ms = Some(skew);
        let off = skew.saturating_abs();
        if off > CLOCK_OFF_MS {
            self.off_beats = self.off_beats.saturating_add(1);
            self.clock_off |= self.off_beats >= CLOCK_OFF_BEATS;
        } else {
            self.off_beats = 0;
            self.clock_off &= off > CLOCK_RIGHT_MS;
        }
        self.clock_off.then_some(skew)
    }
}

/// A poisoned lock means that a thread panicked in the middle of arithmetic; what it left is still the best there is.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn arrival(conn: ConnId, beat: &Heartbeat) -> Arrival {
    Arrival {
        conn,
        session: beat.session,
        boot_id: beat.boot_id,
        seq: beat.seq,
        every: Duration::from_millis(beat.every_ms),
        goodbye: beat
            .goodbye
            .as_ref()
            .map(|goodbye| (goodbye.why, Duration::from_secs(goodbye.back_within_secs))),
    }
}

fn word(beat: &Heartbeat, clock_off_ms: Option<i64>) -> Word {
    Word {
        units: beat.units.clone(),
        paused: beat.paused.clone(),
        report_stale_secs: beat.report_stale_secs,
        check_every: beat.check_every_secs.map(Duration::from_secs),
        clock_off_ms,
    }
}

/// A figure that changes when there is something new to pass on, and not with every beat.
fn said(beat: &Heartbeat, clock_off: bool) -> u64 {
    let mut hasher = DefaultHasher::new();
    for unit in &beat.units {
        (unit.name.as_str(), unit.active.as_str(), unit.sub.as_str()).hash(&mut hasher);
        (
            unit.result.as_ref().map(protocol::names::Word::as_str),
            unit.restarts,
        )
            .hash(&mut hasher);
        (unit.stopped_by_operator, &unit.oom).hash(&mut hasher);
    }
    let paused = beat.paused.as_ref().map(|paused| (paused.until, &paused.reason));
    (
        paused,
        beat.report_stale_secs.is_some(),
        beat.check_every_secs,
        clock_off,
    )
        .hash(&mut hasher);
    hasher.finish()
}
