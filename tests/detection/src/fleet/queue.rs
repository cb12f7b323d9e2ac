//! What happens next: faults in their order, and what came of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use fleet_server::liveness::beat::WitnessAnswer;
use fleet_server::liveness::time::Mono;

use super::LEAD;
use crate::client::Outcome;
use crate::schedule::Fault;

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Happening {
    /// A fault is near.
    Soon(Fault),
    /// It begins.
    Begins(Fault),
    /// It is over.
    Ends(Fault),
    /// A box's plan may have something to do.
    Wake(usize),
    /// What a box did leads to something.
    Of(usize, Outcome),
    /// A witness is to be asked about a box.
    Ask(usize),
    /// The server asks whether its own way out is open.
    AskOwn,
    /// To that question of then somebody answered, or nobody did.
    OwnSaid(Mono, bool),
    /// A receiver's worker looks for something to send.
    Post(usize),
    /// What it sent with this number is answered.
    Posted(usize, u64),
    /// It answered a question of then.
    Said(usize, Mono, WitnessAnswer),
}

#[derive(Debug)]
struct Entry {
    at: Mono,
    order: u64,
    happening: Happening,
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}

/// In the order of time; at the same time faults first, then by who came first.
#[derive(Debug)]
pub(super) struct Queue {
    steps: std::iter::Peekable<std::vec::IntoIter<(Mono, Happening)>>,
    heap: BinaryHeap<Reverse<Entry>>,
    order: u64,
}

impl Queue {
    pub(super) fn new(faults: &[Fault]) -> Self {
        let mut steps: Vec<(Mono, Happening)> = Vec::with_capacity(faults.len() * 3);
        for fault in faults {
            steps.push((fault.from() - LEAD, Happening::Soon(*fault)));
            steps.push((fault.from(), Happening::Begins(*fault)));
            steps.push((fault.to(), Happening::Ends(*fault)));
        }
        steps.sort_by_key(|(at, _)| *at);
        Self {
            steps: steps.into_iter().peekable(),
            heap: BinaryHeap::new(),
            order: 0,
        }
    }

    pub(super) fn push(&mut self, at: Mono, happening: Happening) {
        self.order += 1;
        let order = self.order;
        self.heap.push(Reverse(Entry { at, order, happening }));
    }

    pub(super) fn next_at(&mut self) -> Mono {
        let step = self.steps.peek().map_or(Mono::NEVER, |(at, _)| *at);
        self.heap.peek().map_or(step, |Reverse(entry)| step.min(entry.at))
    }

    pub(super) fn pop(&mut self) -> Option<(Mono, Happening)> {
        let step = self.steps.peek().map_or(Mono::NEVER, |(at, _)| *at);
        match self.heap.peek() {
            Some(Reverse(entry)) if entry.at < step => {
                self.heap.pop().map(|Reverse(entry)| (entry.at, entry.happening))
            }
            Some(_) | None => self.steps.next(),
        }
    }
}
