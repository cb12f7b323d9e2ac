//! The shell that ticks: drains what ingest brought, asks the pure parts, commits what they decided, wakes notify.
//!
//! It decides nothing itself. A turn never waits: the store is written in the background, one commit at a time, in
//! order; while it fails, what was decided waits here, and is tried again. When [`UNSAVED_MAX`] changes wait, nobody is
//! judged until some are written: so nothing that was decided is ever lost, and nothing grows without bound.

mod hands;
pub mod keep;
pub mod muting;
pub mod view;
pub mod restore;
mod saves;
mod witnesses;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, future};
use protocol::api::Liveness;
use protocol::names::BoxName;
use tokio::time::MissedTickBehavior;

use self::hands::Hands;
use self::keep::Keep;
use self::muting::{Book, Muting};
use self::saves::Saves;
use self::view::View;
use self::witnesses::Asking;
use crate::clock::Clock;
use crate::incident::change::{Audience, Change};
use crate::incident::facts::BoxInfo;
use crate::intake::Intake;
use crate::liveness::event::{Event, What};
use crate::liveness::self_doubt::TICK;
use crate::liveness::time::{Moment, Mono};
use crate::notify::outbox::OutboxRow;
use crate::notify::plan::{Nudge, Planner};
use crate::settings::Settings;
use crate::store::{Loaded, StoreError};
use crate::witness::vigil::{Finding, Reply};

/// Changes decided and not yet written: beyond that nobody is judged.
const UNSAVED_MAX: usize = 50_000;
/// Changes in one commit.
const COMMIT_MAX: usize = 1000;
/// Between two attempts to write while the store fails.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between two looks for what time alone has made due: steps, reminders, hours, mutes that are over.
const LOOK: Duration = Duration::from_secs(1);
/// Told after each commit, so that workers need not wait for their next look.
pub type Wake = Box<dyn Fn() + Send>;

/// The shell. Built by [`new`](Sweep::new), driven by [`run`](Sweep::run).
pub struct Sweep<K> {
    intake: Intake,
    clock: Clock,
    keep: Arc<K>,
    planner: Planner,
    looked_at: Mono,
    wake: Wake,
    /// Decided and not yet written, oldest first.
    unsaved: VecDeque<(Change, Vec<OutboxRow>)>,
    retry_after: Duration,
    hands: Hands,
    saves: Saves,
    asking: Asking,
    muting: Muting,
}

impl<K: Keep> Sweep<K> {
    /// From what the store holds. `boxes`: all of them, with their places. `planner` says who is told of what, `wake`
    /// wakes the workers.
    pub fn new(
        settings: &Settings,
        boxes: Vec<BoxInfo>,
        loaded: Loaded,
        keep: Arc<K>,
        clock: Clock,
        (planner, wake): (Planner, Wake),
    ) -> Self {
        let now = moment(&clock);
        let (judge, ledger) = restore::restore(settings, boxes, loaded, now);
        let saves = Saves::new(now.mono);
        let intake = Intake::new(judge, ledger);
        let asking = Asking::new(&settings.witness, Arc::clone(&intake.shared), clock.clone());
        let mut sweep = Self {
            intake,
            clock,
            keep,
            planner,
            looked_at: now.mono,
            wake,
            unsaved: VecDeque::new(),
            retry_after: RETRY.0,
            hands: Hands::default(),
            saves,
            asking,
            muting: Muting::new(Book::default()),
        };
        let receivers: Vec<String> = settings
            .receivers
            .iter()
            .map(|receiver| receiver.name.to_string())
            .collect();
        let mut changes = sweep.intake.shared.ledger().forget_removed(now);
        let gone = sweep.intake.shared.ledger().known_receivers(&receivers, now);
        changes.extend(gone);
        if settings.canary.is_none() {
            changes.extend(sweep.intake.shared.ledger().no_canary(now));
        }
        sweep.decided(changes, now);
        sweep
    }

    /// What is muted, by operators and boxes; without, nothing is.
    #[must_use]
    pub fn with_mutes(mut self, book: Book) -> Self {
        self.muting = Muting::new(book);
        self
    }

    /// Where ingest puts what arrives.
    pub fn intake(&self) -> Intake {
        self.intake.clone()
    }

    /// What the page, the API and /metrics read.
    pub fn view(&self) -> View {
        View::new(self.intake.clone())
    }

    /// Turns every [`TICK`] until `shutdown`; then writes what is left, once.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.intake.shared.judge().begin(self.clock.mono());
        tokio::pin!(shutdown);
        let mut commit = Writing::default();
        let mut save = Writing::default();
        let mut pauses = Writing::default();
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                _ = ticks.tick() => self.turn(),
                done = commit.done() => self.committed(&mut commit, done),
                done = save.done() => self.saves.saved(done),
                done = pauses.done() => self.muting.written(done, self.clock.mono()),
            }
            self.start_commit(&mut commit);
            self.start_save(&mut save);
            self.start_pauses(&mut pauses);
        }
        self.last_words(commit).await;
    }

    /// One turn: everything that arrived, then time itself.
    fn turn(&mut self) {
        let now = moment(&self.clock);
        if self.unsaved.len() < UNSAVED_MAX {
            let mut changes = self.drain(now);
            let untold = |incident| self.planner.is_untold(incident);
            changes.extend(self.muting.look(&self.intake.shared, now, untold));
            // Both at one moment: who came back among these has said why, and nobody else has.
            let (events, accounts) = {
                let mut judge = self.intake.shared.judge();
                judge.tick(now);
                let accounts = std::mem::take(&mut self.intake.shared.inbox().accounts);
                (judge.take_events(), accounts)
            };
            for (ix, account) in accounts {
                changes.extend(self.intake.shared.ledger().account(ix, account, now));
            }
            for event in &events {
                changes.extend(self.intake.shared.ledger().liveness(event));
                self.follow_up(event);
                self.asking.follow(event, now);
            }
            let doubtful = self.intake.shared.judge().doubts_its_way();
            self.asking.ask(now, doubtful);
            changes.extend(self.intake.shared.ledger().tick(now));
            self.decided(changes, now);
            self.nudge(now);
        }
        let ready = self.intake.shared.judge().ready(now.mono);
        let mut turn = self.intake.shared.turn();
        turn.last = Some(now.mono);
        turn.turns += 1;
        turn.ready = ready;
        turn.unsaved = self.unsaved.len();
    }

    fn drain(&mut self, now: Moment) -> Vec<Change> {
        let mut changes = Vec::new();
        let replies = std::mem::take(&mut self.intake.shared.inbox().witnesses);
        for reply in replies {
            changes.extend(self.heard_from_witness(reply, now));
        }
        // The ledger first: who comes again finds the going either still in the inbox or already in the books.
        let mut ledger = self.intake.shared.ledger();
        let inbox = {
            let mut inbox = self.intake.shared.inbox();
            let witnesses = std::mem::take(&mut inbox.witnesses);
            let taken = std::mem::take(&mut *inbox);
            inbox.witnesses = witnesses;
            taken
        };
        for (ix, went) in inbox.went {
            self.asking.vigils.end(ix);
            if let Some(facts) = ledger.facts(ix) {
                self.muting.removed(&facts.info.name, now);
            }
            changes.extend(ledger.remove(ix, now));
            if let Some(info) = went.came {
                ledger.add(info, None);
            }
        }
        for (ix, word) in inbox.words {
            if let Some(facts) = ledger.facts(ix) {
                let skew = self.intake.clock_skew_ms(ix);
                self.muting
                    .paused(&facts.info.name, word.paused.as_ref(), skew, now);
            }
            changes.extend(ledger.word(ix, word, now));
        }
        for (ix, report, received) in inbox.reports {
            self.saves.report(ix);
            changes.extend(ledger.report(ix, &report, received, now));
        }
        for handing in inbox.hands {
            changes.extend(self.hands.take(handing, &mut ledger, now));
        }
        for (ix, account) in inbox.accounts {
            changes.extend(ledger.account(ix, account, now));
        }
        for (name, failing) in inbox.receivers {
            changes.extend(ledger.receiver(&name, failing.as_deref(), now));
        }
        if let Some(outcome) = inbox.canary {
            changes.extend(ledger.canary(outcome.err().as_ref(), now));
        }
        changes
    }

    /// What time has made due although nothing changed.
    fn nudge(&mut self, now: Moment) {
        if now.mono.since(self.looked_at) < LOOK {
            return;
        }
        self.looked_at = now.mono;
        let due = self.planner.due(now.wall);
        let mut ledger = self.intake.shared.ledger();
        let again = |nudge: Nudge| {
            let to = Audience::Only(nudge.to);
            ledger.again(nudge.incident, nudge.event, nudge.text, now, to)
        };
        let changes: Vec<Change> = due.into_iter().filter_map(again).collect();
        drop(ledger);
        self.decided(changes, now);
    }

    fn decided(&mut self, changes: Vec<Change>, now: Moment) {
        self.hands.decided(changes.len());
        for change in changes {
            log(&change);
            let rows = self.planner.plan(&change, now.wall);
            self.unsaved.push_back((change, rows));
        }
    }

    /// The word goes to the text, what all words together amount to goes to liveness.
    fn heard_from_witness(&mut self, reply: Reply, now: Moment) -> Vec<Change> {
        let (ix, asked) = (reply.question.ix, reply.asked);
        let finding = self.asking.vigils.answered(reply, now.mono);
        let words = self.asking.vigils.words(ix);
        if words.is_empty() {
            return Vec::new();
        }
        self.intake.shared.ledger().witnesses(ix, words, now);
        match finding {
            None => Vec::new(),
            Some(Finding::Says(answer)) => {
                self.intake.shared.judge().witness(ix, asked, now.mono, answer);
                Vec::new()
            }
            Some(Finding::HostLost) => {
                let judged = self.intake.shared.judge().host_lost(ix, now);
                if !judged {
                    self.asking.vigils.begin_again(ix);
                }
                Vec::new()
            }
            Some(Finding::HostBack) => self.intake.shared.ledger().host_back(ix, now),
        }
    }

    fn follow_up(&mut self, event: &Event) {
        let Event::Box(change) = event else { return };
        match change.what {
            What::Away { .. } => self.saves.at_once(change.ix, true),
            What::Dark { .. } | What::Silent { .. } | What::Overdue { .. } => {
                self.saves.at_once(change.ix, false);
            }
            What::Live { .. } if change.from != Liveness::Suspect => self.saves.at_once(change.ix, false),
            What::Live { .. } | What::Suspect { .. } => {}
        }
    }

    fn start_commit(&mut self, commit: &mut Writing) {
        if commit.is_under_way() || self.unsaved.is_empty() {
            return;
        }
        let failing = self.intake.shared.turn().store_error.is_some();
        let delay = if failing { self.retry_after } else { Duration::ZERO };
        let batch: Vec<_> = self.unsaved.iter().take(COMMIT_MAX).cloned().collect();
        let count = batch.len();
        let (changes, rows): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let rows = rows.into_iter().flatten().collect();
        let keep = Arc::clone(&self.keep);
        commit.begin(count, async move {
            tokio::time::sleep(delay).await;
            keep.commit(changes, rows).await
        });
    }

    fn committed(&mut self, commit: &mut Writing, done: Result<(), StoreError>) {
        let mut turn = self.intake.shared.turn();
        match done {
            Ok(()) => {
                self.unsaved.drain(..commit.count);
                self.hands.written(commit.count);
                self.retry_after = RETRY.0;
                if turn.store_error.take().is_some() {
                    tracing::info!(
                        "the store can be written again; what was decided meanwhile is written now"
                    );
                }
                (self.wake)();
            }
            Err(err) => {
                let text = err.to_string();
                self.retry_after = (self.retry_after * 2).min(RETRY.1);
                if turn.store_error.as_ref() != Some(&text) {
                    tracing::error!(error = %text, unsaved = self.unsaved.len(), "changes cannot be written; trying again");
                }
                turn.store_error = Some(text);
            }
        }
        turn.unsaved = self.unsaved.len();
    }

    fn start_save(&mut self, save: &mut Writing) {
        if save.is_under_way() {
            return;
        }
        let now = moment(&self.clock);
        if let Some((memories, reports, sync)) = self.saves.due(&self.intake.shared, now) {
            let keep = Arc::clone(&self.keep);
            save.begin(memories.len(), async move {
                keep.remember(memories, reports, sync).await
            });
        }
    }

    fn start_pauses(&mut self, pauses: &mut Writing) {
        if pauses.is_under_way() {
            return;
        }
        if let Some(records) = self.muting.due(self.clock.mono()) {
            let keep = Arc::clone(&self.keep);
            pauses.begin(records.len(), async move { keep.pauses(records).await });
        }
    }

    /// At shutdown: waits for the commit under way, writes the rest, remembers everybody.
    async fn last_words(mut self, mut commit: Writing) {
        if commit.is_under_way() {
            let done = commit.done().await;
            self.committed(&mut commit, done);
        }
        while !self.unsaved.is_empty() && self.intake.shared.turn().store_error.is_none() {
            self.start_commit(&mut commit);
            let done = commit.done().await;
            self.committed(&mut commit, done);
        }
        self.saves.everybody();
        let due = self.saves.due(&self.intake.shared, moment(&self.clock));
        if let Some((memories, reports, _)) = due
            && let Err(err) = self.keep.remember(memories, reports, true).await
        {
            tracing::warn!(error = %err, "what is known of boxes was not written at shutdown");
        }
        if let Some(records) = self.muting.all()
            && let Err(err) = self.keep.pauses(records).await
        {
            tracing::warn!(error = %err, "boxes' pauses were not written at shutdown");
        }
        if !self.unsaved.is_empty() {
            tracing::error!(
                lost = self.unsaved.len(),
                "changes could not be written before the end"
            );
        }
    }
}

/// Something being written, or nothing.
#[derive(Default)]
struct Writing {
    under_way: Option<BoxFuture<'static, Result<(), StoreError>>>,
    count: usize,
}

impl Writing {
    fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    fn begin(&mut self, count: usize, write: impl Future<Output = Result<(), StoreError>> + Send + 'static) {
        self.count = count;
        self.under_way = Some(write.boxed());
    }

    /// Ends when the writing does; never, if there is none.
    async fn done(&mut self) -> Result<(), StoreError> {
        match &mut self.under_way {
            Some(write) => {
                let done = write.await;
                self.under_way = None;
                done
            }
            None => future::pending().await,
        }
    }
}

fn moment(clock: &Clock) -> Moment {
    Moment {
        mono: clock.mono(),
        wall: clock.wall(),
    }
}

fn log(change: &Change) {
    if change.notify {
        let incident = &change.incident;
        tracing::info!(
            id = incident.id, kind = %incident.kind, severity = %incident.severity, event = %change.event,
            box = incident.box_name.as_ref().map(BoxName::as_str), "{}", incident.summary
        );
    }
}

#[cfg(test)]
mod tests;
