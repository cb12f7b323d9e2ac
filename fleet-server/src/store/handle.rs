//! The store from async code: one thread of its own, a bounded queue, a time-out for every call.
//!
//! It knows no SQL and no record: a call is a closure over [`Store`].

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Store, StoreError};

/// Calls that may wait. One flush of all boxes is one call, so this is minutes of a healthy disk.
pub const QUEUE: usize = 1024;
/// How long a caller waits: longer than a disk's worst stall that heals by itself.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the store may tidy up when nobody calls.
const TIDY_EVERY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&mut dyn Store) + Send>;

/// The way to the store; cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    queue: SyncSender<Job>,
    timeout: Duration,
}

/// The store's thread: ends when the last [`StoreHandle`] is gone and the queue is empty.
pub struct StoreThread {
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl StoreHandle {
    /// Starts the thread. `clock` tells the wall clock's time for the store's own chores.
    pub fn spawn(
        store: Box<dyn Store>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> std::io::Result<(Self, StoreThread)> {
        let (queue, jobs) = sync_channel::<Job>(QUEUE);
        let (done, ended) = sync_channel::<()>(1);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                work(store, &jobs, &*clock);
                let _ = done.send(());
            })?;
        let handle = Self {
            queue,
            timeout: CALL_TIMEOUT,
        };
        Ok((handle, StoreThread { thread, ended }))
    }

    /// The same store with another time-out.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            queue: self.queue.clone(),
            timeout,
        }
    }

    /// Runs `job` on the store's thread and waits for what it says. `what` names it in errors.
    ///
    /// After [`StoreError::TimedOut`] it may have been done or not; if the caller goes away before it begins, it is not
    /// done at all.
    pub async fn call<T, F>(&self, what: &'static str, job: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&mut dyn Store) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            if !reply.is_closed() {
                let _ = reply.send(job(store));
            }
        });
        self.queue.try_send(job).map_err(|err| match err {
            TrySendError::Full(_) => StoreError::Overloaded { what },
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::TimedOut {
                what,
                after: self.timeout,
            }),
        }
    }
}

impl StoreThread {
    /// Waits until everything that waited is written; `false` if that took longer than `limit`.
    pub fn join(self, limit: Duration) -> bool {
        match self.ended.recv_timeout(limit) {
            Ok(()) => self.thread.join().is_ok(),
            Err(RecvTimeoutError::Disconnected) => {
                let _ = self.thread.join();
                false
            }
            Err(RecvTimeoutError::Timeout) => false,
        }
    }
}

fn work(mut store: Box<dyn Store>, jobs: &Receiver<Job>, clock: &dyn Fn() -> Timestamp) {
    let mut said = None;
    loop {
        match jobs.recv_timeout(TIDY_EVERY) {
            Ok(job) => job(&mut *store),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        tidy(&mut *store, clock(), &mut said);
    }
    tidy(&mut *store, clock(), &mut said);
}

/// A failure is logged once, until its text changes.
fn tidy(store: &mut dyn Store, now: Timestamp, said: &mut Option<String>) {
    let failure = store.tidy(now).err().map(|err| err.to_string());
    if failure != *said {
        if let Some(text) = &failure {
            tracing::warn!(error = %text, "the store's safety copy cannot be written");
        }
        *said = failure;
    }
}
