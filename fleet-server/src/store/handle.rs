//! The store from async code: one thread of its own, a bounded queue, a time-out for every call.
//!
//! It knows no SQL and no record: a call is a closure over [`Store`].

use std::error::Error as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

use super::{Store, StoreError};

/// Calls that may wait. One flush of all boxes is one call, so this is minutes of a healthy disk.
pub const QUEUE: usize = 1024;
/// How long a caller waits: longer than a disk's worst stall that heals by itself.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the store may tidy up when nobody calls.
const TIDY_EVERY: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce(&mut dyn Store) + Send>;

enum Message {
    Do(Job),
    /// Everything before it is done, nothing after it.
    End,
}

/// The way to the store; cheap to clone.
#[derive(Clone)]
pub struct StoreHandle {
    queue: SyncSender<Message>,
    timeout: Duration,
    broken: Arc<watch::Sender<Option<String>>>,
}

/// The store's thread: ends by [`StoreThread::join`], or with the process.
pub struct StoreThread {
    queue: SyncSender<Message>,
    thread: JoinHandle<()>,
    ended: Receiver<()>,
}

impl StoreHandle {
    /// Starts the thread. `clock` tells the wall clock's time for the store's own chores.
    pub fn spawn(
        store: Box<dyn Store>,
        clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    ) -> std::io::Result<(Self, StoreThread)> {
        let (queue, jobs) = sync_channel::<Message>(QUEUE);
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
            broken: Arc::new(watch::channel(None).0),
        };
        let queue = handle.queue.clone();
        Ok((handle, StoreThread { queue, thread, ended }))
    }

    /// The same store with another time-out.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self {
            queue: self.queue.clone(),
            timeout,
            broken: Arc::clone(&self.broken),
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
        self.queue.try_send(Message::Do(job)).map_err(|err| match err {
            TrySendError::Full(_) => StoreError::Overloaded { what },
            TrySendError::Disconnected(_) => StoreError::Closed,
        })?;
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(Ok(result)) => result.inspect_err(|err| self.look_at(err)),
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => Err(StoreError::TimedOut {
                what,
                after: self.timeout,
            }),
        }
    }

    /// Turns to `Some(what was found)` once the store proves to be damaged: only a restart mends that.
    pub fn broken(&self) -> watch::Receiver<Option<String>> {
        self.broken.subscribe()
    }

    fn look_at(&self, err: &StoreError) {
        if matches!(err, StoreError::Corrupt { .. }) {
            self.broken.send_replace(Some(err.to_string()));
        }
    }
}

impl StoreThread {
    /// Takes no more calls and waits until everything that waited is written; `false` if that takes longer than `limit`.
    pub fn join(self, limit: Duration) -> bool {
        if self.queue.try_send(Message::End).is_err() {
            return false;
        }
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

fn work(mut store: Box<dyn Store>, jobs: &Receiver<Message>, clock: &dyn Fn() -> Timestamp) {
    let mut said = None;
    loop {
        match jobs.recv_timeout(TIDY_EVERY) {
            Ok(Message::Do(job)) => job(&mut *store),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
        }
        tidy(&mut *store, clock(), false, &mut said);
    }
    tidy(&mut *store, clock(), true, &mut said);
}

/// A failure is logged once, until its text changes.
fn tidy(store: &mut dyn Store, now: Timestamp, last: bool, said: &mut Option<String>) {
    let failure = store.tidy(now, last).err().map(|err| match err.source() {
        Some(why) => format!("{err}: {why}"),
        None => err.to_string(),
    });
    if failure != *said {
        if let Some(text) = &failure {
            tracing::warn!(error = %text, "the store cannot do its own chores");
        }
        *said = failure;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(secs).unwrap()
    }

    fn start(dir: &std::path::Path) -> (StoreHandle, StoreThread) {
        let store = SqliteStore::open(dir, at(0)).unwrap();
        StoreHandle::spawn(Box::new(store), Arc::new(|| at(1))).unwrap()
    }

    #[tokio::test]
    async fn a_hanging_store_times_out_then_overflows_and_what_nobody_waits_for_is_not_done() {
        let dir = tempfile::tempdir().unwrap();
        let (handle, thread) = start(dir.path());
        let handle = handle.with_timeout(Duration::from_millis(20));
        let (release, hang) = sync_channel::<()>(1);
        let (done, order) = sync_channel(10);
        let first = done.clone();
        let stuck = handle.call("hang", move |_| {
            let _ = hang.recv();
            first.send("hung").unwrap();
            Ok(())
        });
        let err = stuck.await.unwrap_err();
        assert!(
            matches!(err, StoreError::TimedOut { what: "hang", .. }),
            "{err:?}"
        );
        let skipped = done.clone();
        let gave_up = handle.call("skip", move |_| {
            skipped.send("skipped").unwrap();
            Ok(())
        });
        assert!(gave_up.await.is_err());
        let mut overflow = Vec::new();
        for _ in 0..=QUEUE {
            overflow.push(Box::pin(handle.call("fill", |_| Ok(()))));
        }
        let answers = futures_util::future::join_all(overflow).await;
        assert!(
            answers
                .iter()
                .any(|answer| matches!(answer, Err(StoreError::Overloaded { what: "fill" })))
        );
        release.send(()).unwrap();
        let patient = handle.with_timeout(Duration::from_secs(20));
        // The queue is full until the store has come by.
        while let Err(StoreError::Overloaded { .. }) = patient.call("room", |_| Ok(())).await {
            tokio::task::yield_now().await;
        }
        let after = patient.call("after", move |_| {
            done.send("after").unwrap();
            Ok(())
        });
        after.await.unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["hung", "after"]);
        assert!(thread.join(Duration::from_secs(20)));
        assert!(matches!(
            handle.call("late", |_| Ok(())).await,
            Err(StoreError::Closed)
        ));
    }

    #[tokio::test]
    async fn damage_found_while_running_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (handle, thread) = start(dir.path());
        let mut broken = handle.broken();
        assert!(broken.borrow_and_update().is_none());
        let path = dir.path().join("fleet.db");
        let found = handle.call("find", move |_| {
            let detail = "page 7".to_owned();
            Err::<(), _>(StoreError::Corrupt { path, detail })
        });
        assert!(found.await.is_err());
        assert!(
            broken
                .borrow_and_update()
                .as_ref()
                .is_some_and(|text| text.contains("page 7"))
        );
        assert!(thread.join(Duration::from_secs(20)));
    }
}
