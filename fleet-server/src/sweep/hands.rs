//! Operators take an incident in hand, or give it back: decided with everything else, answered when it is written.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::incident::change::Change;
use crate::incident::ledger::Ledger;
use crate::intake::{Hand, Handed, Handing};
use crate::liveness::time::Moment;

/// Who waits for what was decided to be written.
#[derive(Debug, Default)]
pub(super) struct Hands {
    decided: u64,
    written: u64,
    fresh: Vec<(Handed, oneshot::Sender<Handed>)>,
    waiting: VecDeque<(u64, Handed, oneshot::Sender<Handed>)>,
}

impl Hands {
    /// What the books make of `handing`.
    pub(super) fn take(&mut self, handing: Handing, ledger: &mut Ledger, now: Moment) -> Option<Change> {
        let Handing { id, hand, answer } = handing;
        let handed = if ledger.is_open_id(id) {
            Handed::Done
        } else {
            Handed::NotOpen
        };
        self.fresh.push((handed, answer));
        match hand {
            Hand::Take(ack) => ledger.acknowledge(id, ack, now),
            Hand::GiveBack { by, note } => ledger.unacknowledge(id, &by, &note, now),
        }
    }

    /// So many changes more were decided.
    pub(super) fn decided(&mut self, changes: usize) {
        self.decided += changes as u64;
        let decided = self.decided;
        let fresh = self.fresh.drain(..);
        self.waiting
            .extend(fresh.map(|(handed, answer)| (decided, handed, answer)));
        self.answer();
    }

    /// So many changes more are written.
    pub(super) fn written(&mut self, changes: usize) {
        self.written += changes as u64;
        self.answer();
    }

    fn answer(&mut self) {
        while let Some((_, handed, answer)) = self.waiting.pop_front_if(|(at, ..)| *at <= self.written) {
            // Whoever asked may have gone.
            let _ = answer.send(handed);
        }
    }
}
