//! A blocking call (a hung NFS mount, a huge directory) on a thread of its own, waited for no longer than a deadline.
//!
//! The thread is detached: a call that never comes back is left to the kernel, and neither the run nor the exit of
//! the process waits for it. That is why this is no `spawn_blocking`, whose runtime waits for its threads at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Overrun {
    /// The deadline passed.
    #[error("no answer within {}", crate::checks::span_text(*.0))]
    Late(Duration),
    /// The call panicked.
    #[error("the call ended without an answer")]
    Lost,
    /// No thread could be had.
    #[error("no thread could be started")]
    NoThread(#[source] std::io::Error),
}

/// Tells work that takes many steps that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Whether to stop.
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// From now on nobody waits.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sets the flag when the waiting future goes, however it goes.
struct Leave(Abandoned);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.set();
    }
}

/// Runs `work` on a thread of its own and waits for its answer, at most `limit`.
pub async fn in_thread<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce(&Abandoned) -> T + Send + 'static,
) -> Result<T, Overrun> {
    let abandoned = Abandoned::default();
    let _leave = Leave(abandoned.clone());
    let (answer, wait) = tokio::sync::oneshot::channel();
    #[cfg(test)]
    let at_work = hold_virtual_time();
    std::thread::Builder::new()
        .name("blocking-call".to_owned())
        .spawn(move || {
            // Nobody may be waiting any more; then the answer is of no use.
            let _ = answer.send(work(&abandoned));
            #[cfg(test)]
            drop(at_work);
        })
        .map_err(Overrun::NoThread)?;
    match tokio::time::timeout(limit, wait).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(_)) => Err(Overrun::Lost),
        Err(_) => Err(Overrun::Late(limit)),
    }
}

/// A paused clock runs ahead as soon as nothing is left to do but wait; a thread of ours at work is something to do,
/// and the runtime does not know of it. It knows of its own blocking threads: one of those waits for ours.
#[cfg(test)]
fn hold_virtual_time() -> std::sync::mpsc::SyncSender<()> {
    let (at_work, done) = std::sync::mpsc::sync_channel(0);
    tokio::task::spawn_blocking(move || done.recv());
    at_work
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_comes_through() {
        assert_eq!(in_thread(Duration::from_secs(5), |_| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_call_that_hangs_is_left_behind_and_told_so() {
        let (told, heard) = std::sync::mpsc::sync_channel(1);
        let late = in_thread(Duration::from_millis(20), move |abandoned| {
            while !abandoned.get() {
                std::thread::yield_now();
            }
            told.send(()).unwrap();
        })
        .await;
        assert!(matches!(late, Err(Overrun::Late(_))), "{late:?}");
        heard.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_too() {
        let lost = in_thread(Duration::from_secs(5), |_| assert!(std::env::args().count() == 0)).await;
        assert!(matches!(lost, Err(Overrun::Lost)), "{lost:?}");
    }
}
