//! The judging side as `app` builds and runs it.
//!
//! Until the sweep stands, it takes nothing and judges nobody.

use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::directory::Directory;
use crate::intake::Intake;
use crate::liveness::BoxIx;
use crate::settings::Settings;
use crate::store::handle::StoreHandle;
use crate::store::{Loaded, StoreError};
use crate::web::metrics::BoxSample;
use crate::web::view::{BoxView, View};

/// What it is built from.
pub struct Parts<'a> {
    /// Both clocks.
    pub clock: Clock,
    /// What it judges by.
    pub settings: &'a Settings,
    /// Where changes go.
    pub store: StoreHandle,
    /// Rung when there is something to send.
    pub wake: Arc<Notify>,
    /// Where its metrics go.
    pub registry: &'a Registry,
}

/// The judging side, built.
pub struct Judging {
    /// Where beats go in.
    pub intake: Intake,
    /// What others read.
    pub view: Arc<dyn View>,
}

/// From what the store held.
pub async fn build(parts: Parts<'_>, directory: &Directory, loaded: Loaded) -> Result<Judging, StoreError> {
    let _ = (
        parts.clock,
        parts.settings,
        parts.store,
        parts.wake,
        parts.registry,
        directory,
        loaded,
    );
    Ok(Judging {
        intake: Intake {},
        view: Arc::new(Nothing),
    })
}

impl Judging {
    /// Judges until `ending` turns true, then writes what is known.
    pub fn run(self, mut ending: watch::Receiver<bool>) -> impl Future<Output = ()> + Send {
        async move {
            let _ = ending.wait_for(|end| *end).await;
        }
    }
}

struct Nothing;

impl View for Nothing {
    fn boxes(&self, which: &[BoxIx]) -> Vec<Option<BoxView>> {
        vec![None; which.len()]
    }
    fn samples(&self) -> Vec<BoxSample> {
        Vec::new()
    }
    fn open(&self) -> Vec<protocol::incident::Incident> {
        Vec::new()
    }
    fn stuck(&self) -> Option<String> {
        None
    }
    fn not_judging(&self) -> Option<String> {
        Some("the sweep does not run yet".to_owned())
    }
}
