//! The asking: sends the questions that [`vigil`](crate::witness::vigil) finds due, and brings the answers back. Each
//! question is bounded in time, and all of them together in number.
//!
//! It concludes nothing: the answers go to the sweep's next turn.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use protocol::api::Liveness;
use protocol::witness::{Target, Targets};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::intake::Shared;
use crate::liveness::BoxIx;
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::event::{Event, What};
use crate::liveness::time::{Moment, Mono};
use crate::settings::WitnessSettings;
use crate::witness::tailscale::Tailscaled;
use crate::witness::tcp;
use crate::witness::vigil::{Phase, Question, Reply, Vigils};

/// Questions under way. When more boxes are suspect at once it is no single box's matter.
const QUESTIONS: usize = 256;
/// Between two questions to the server's own witnesses while somebody is overdue.
const OWN_EVERY: Duration = Duration::from_secs(1);

/// … and while none of them has ever answered: only then are they believed.
const OWN_PROVE: Duration = Duration::from_secs(10);

/// Asks.
pub(super) struct Asking {
    pub(super) vigils: Vigils,
    shared: Arc<Shared>,
    clock: Clock,
    questions: Arc<Semaphore>,
    tailscaled: Option<Arc<Tailscaled>>,
    own: Arc<[String]>,
    own_next: Mono,
    own_prove: Mono,
}

impl Asking {
    pub(super) fn new(settings: &WitnessSettings, shared: Arc<Shared>, clock: Clock) -> Self {
        let socket = settings.tailscale_socket.clone();
        let mut asking = Self {
            vigils: Vigils::default(),
            shared,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            tailscaled: socket.map(|socket| Arc::new(Tailscaled::new(socket))),
            own: settings.own.clone().into(),
            own_next: clock.mono(),
            own_prove: clock.mono(),
            clock,
        };
        asking.take_up();
        asking
    }

    /// Boxes that were silent or dark before the start are asked about again.
    fn take_up(&mut self) {
        let now = self.clock.mono();
        let ledger = self.shared.ledger();
        for facts in ledger.all_facts().filter(|facts| facts.is_gone()) {
            let phase = match facts.state {
                Liveness::Silent => Phase::Silent,
                Liveness::Dark => Phase::Dark,
                Liveness::Unseen | Liveness::Live | Liveness::Suspect | Liveness::Away => continue,
            };
            self.vigils
                .enter(facts.info.ix, phase, &facts.info.witnesses, now);
        }
    }

    /// A box changed its state.
    pub(super) fn follow(&mut self, event: &Event, now: Moment) {
        let Event::Box(change) = event else { return };
        let phase = match change.what {
            What::Suspect { .. } => Phase::Suspect,
            What::Silent { .. } => Phase::Silent,
            What::Dark { .. } | What::Overdue { .. } => Phase::Dark,
            What::Live { .. } | What::Away { .. } => return self.vigils.end(change.ix),
        };
        let targets = self.targets(change.ix);
        self.vigils.enter(change.ix, phase, &targets, now.mono);
    }

    fn targets(&self, ix: BoxIx) -> Targets {
        let ledger = self.shared.ledger();
        let facts = ledger.facts(ix);
        facts
            .map(|facts| facts.info.witnesses.clone())
            .unwrap_or_default()
    }

    /// Sends what is due. `doubtful`: somebody is overdue, or the server doubts itself.
    pub(super) fn ask(&mut self, now: Moment, doubtful: bool) {
        for question in self.vigils.due(now.mono, self.questions.available_permits()) {
            self.send(question, now);
        }
        if !self.own.is_empty() && now.mono >= self.own_next && (doubtful || now.mono >= self.own_prove) {
            self.own_next = now.mono + OWN_EVERY;
            self.own_prove = if self.shared.own_proven() {
                Mono::NEVER
            } else {
                now.mono + OWN_PROVE
            };
            self.ask_own(now);
        }
    }

    fn send(&self, question: Question, now: Moment) {
        let permit = Arc::clone(&self.questions).try_acquire_owned();
        let (shared, clock, tailscaled) = (
            Arc::clone(&self.shared),
            self.clock.clone(),
            self.tailscaled.clone(),
        );
        tokio::spawn(async move {
            let (answer, detail) = match (&permit, &question.target, tailscaled) {
                (Err(_), _, _) => (
                    WitnessAnswer::Unknown,
                    "too many questions are under way".to_owned(),
                ),
                (Ok(_), Target::Tcp(address), _) => tcp::ask(address).await,
                (Ok(_), Target::Tailscale(peer), Some(own)) => own.ask(peer, now.mono, now.wall).await,
                (Ok(_), Target::Tailscale(_), None) => {
                    let said = "[witness.tailscale] socket is not configured on this server".to_owned();
                    (WitnessAnswer::Unknown, said)
                }
            };
            let reply = Reply {
                question,
                asked: now.mono,
                answer,
                detail,
                at: clock.wall(),
            };
            shared.inbox().witnesses.push(reply);
            drop(permit);
        });
    }

    /// All of the server's own at once; the first that answers is enough.
    fn ask_own(&self, now: Moment) {
        self.shared.judge().own_asked(now.mono);
        let (shared, own) = (Arc::clone(&self.shared), Arc::clone(&self.own));
        tokio::spawn(async move {
            let mut answers: FuturesUnordered<_> = own.iter().map(|address| tcp::ask(address)).collect();
            let mut by_anybody = false;
            while let Some((answer, _)) = answers.next().await {
                if answer == WitnessAnswer::Reachable {
                    by_anybody = true;
                    break;
                }
            }
            drop(answers);
            shared.judge().own_answered(now.mono, by_anybody);
        });
    }
}
