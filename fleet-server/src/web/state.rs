//! What every handler shares.

use std::sync::{MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use prometheus::Registry;
use protocol::witness::Targets;
use tokio::sync::Mutex;

use super::counters::WebMetrics;
use super::rate::Rates;
use crate::clock::Clock;
use crate::directory::Directory;
use crate::intake::{BoxInfo, Intake};
use crate::liveness::BoxIx;
use crate::mute::Mutes;
use crate::notify::desk::Desk;
use crate::notify::net::NetSender;
use crate::store::handle::StoreHandle;
use crate::sweep::muting::Book;
use crate::sweep::view::View;

/// An operator's label that names the box's machine in the server's own tailnet: its witness.
const PEER_LABEL: &str = "tailscale_peer";

/// What every handler shares.
pub struct App {
    /// Both clocks.
    pub clock: Clock,
    /// What boxes are told to send at.
    pub every: Duration,
    /// Boxes, tokens, operators.
    pub directory: RwLock<Directory>,
    /// Held over a change of the store and the directory, so that both see all changes in one order.
    pub changes: Mutex<()>,
    /// What survives.
    pub store: StoreHandle,
    /// Where beats go.
    pub intake: Intake,
    /// What is read.
    pub view: View,
    /// What is muted.
    pub mutes: Book,
    /// The receivers, for their standing and their tests.
    pub desk: Desk<NetSender>,
    /// How often boxes and strangers may come.
    pub rates: Rates,
    /// Own counters.
    pub metrics: WebMetrics,
    /// All of the server's own metrics.
    pub registry: Registry,
}

impl App {
    /// The directory, to read. Never held over an `await`.
    pub fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The directory, to change. Never held over an `await`.
    pub fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is muted. Never held over an `await`.
    pub fn mutes(&self) -> MutexGuard<'_, Mutes> {
        self.mutes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the judging side what it needs to know of the box at `ix`, or that nothing is expected of it any more.
    pub fn announce(&self, ix: BoxIx) {
        let info = self.directory().get(ix).and_then(box_info);
        match info {
            Some(info) => self.intake.upsert(&info, self.clock.mono(), self.clock.wall()),
            None => self.intake.remove(ix),
        }
    }
}

/// What the judging side needs to know of a box; `None` for one without a token: nothing can be expected of it.
pub fn box_info(entry: &crate::directory::BoxEntry) -> Option<BoxInfo> {
    if entry.record.tokens.is_empty() {
        return None;
    }
    Some(BoxInfo {
        ix: entry.ix,
        id: entry.record.id,
        name: entry.record.name.clone(),
        labels: entry.labels.clone(),
        witnesses: witnesses(entry),
    })
}

/// Those declared with the box, and the Tailscale peer that an operator's label names (never one that the box declares).
fn witnesses(entry: &crate::directory::BoxEntry) -> Targets {
    let record = &entry.record;
    let labelled = record.labels.get(PEER_LABEL);
    let labelled = labelled.and_then(|name| format!("tailscale:{name}").parse().ok());
    let all = record.witnesses.iter().cloned().chain(labelled);
    Targets::new(all).unwrap_or_else(|_| record.witnesses.clone())
}
