//! What a run begins with: the lock, the state, the pause, the stops that were seen. Whatever of it cannot be had makes the
//! run more careful, never impossible.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use protocol::names::UnitName;
use serde::Deserialize;
use uuid::Uuid;

use super::disk::Disk;
use super::{LOCK_WAIT, Options, RunError};
use crate::checks::Context;
use crate::clock::{self, Moment};
use crate::pause::{self, Pause};
use crate::remedy::Circumstances;
use crate::state::{self, State};
use crate::state_dir::{Lock, STOPS_FILE};

/// Between two looks at the lock.
const LOCK_EVERY: Duration = Duration::from_millis(200);
/// Stops that are believed: more were never made by hand in one boot.
const STOPS: usize = 256;

/// All of it.
pub(super) struct Begun {
    pub(super) state: State,
    /// None: the run only looks, or nothing can be written.
    pub(super) lock: Option<Lock>,
    pub(super) ctx: Context,
    pub(super) circumstances: Circumstances,
}

impl Begun {
    pub(super) async fn read(disk: &Disk, options: &Options, began: Moment) -> Result<Self, RunError> {
        let (lock, unlockable) = if options.no_act {
            (None, None)
        } else {
            take_lock(disk).await?
        };
        let (mut state, unreadable) = load(disk, options, began.wall).await;
        let uncountable = unlockable.or(unreadable);
        if let Some(text) = &uncountable {
            tracing::error!("{text}; restarts cannot be counted, so nothing is restarted");
        }
        let boot_id = clock::boot_id();
        state.begin(boot_id, began);
        let paused = paused(disk, began.wall, uncountable.is_some()).await;
        Ok(Self {
            lock,
            ctx: context(disk, options, boot_id, began).await,
            circumstances: Circumstances {
                paused,
                uncountable,
                no_act: options.no_act,
                runs_this_boot: state.runs,
            },
            state,
        })
    }

    /// Whether the state may be written: not over one that could not be read.
    pub(super) fn is_writable(&self) -> bool {
        self.lock.is_some() && self.circumstances.uncountable.is_none()
    }
}

/// The lock, or why it cannot be had.
async fn take_lock(disk: &Disk) -> Result<(Option<Lock>, Option<String>), RunError> {
    let waiting = clock::ticks();
    loop {
        let lock = disk.ask(|dir| {
            let lock = dir.try_lock()?;
            if lock.is_some() {
                dir.sweep();
            }
            Ok(lock)
        });
        match lock.await {
            Ok(Some(lock)) => return Ok((Some(lock), None)),
            Ok(None) if waiting.elapsed() > LOCK_WAIT => return Err(RunError::Busy),
            Ok(None) => tokio::time::sleep(LOCK_EVERY).await,
            Err(text) => return Ok((None, Some(text))),
        }
    }
}

/// The state, or a fresh one and why the kept one cannot be read.
async fn load(disk: &Disk, options: &Options, now: Timestamp) -> (State, Option<String>) {
    let only_look = options.no_act;
    let loaded = disk.ask(move |dir| {
        Ok(if only_look {
            state::look(dir)
        } else {
            state::load(dir, now)
        })
    });
    let loaded = match loaded.await {
        Ok(loaded) => loaded,
        Err(text) => return (State::default(), Some(text)),
    };
    if let Some(aside) = loaded.state.set_aside.as_ref().filter(|aside| aside.at == now) {
        tracing::error!(
            file = aside.file,
            why = aside.why,
            "the state file could not be read and was set aside"
        );
    }
    (loaded.state, loaded.unreadable.map(|err| err.to_string()))
}

/// The pause in a sentence.
pub(super) async fn paused(disk: &Disk, now: Timestamp, uncountable: bool) -> Option<String> {
    match disk.ask(move |dir| Ok(pause::read(dir, now))).await {
        Ok(Pause::None) => None,
        Ok(Pause::Until(paused)) => {
            let until = paused.until.strftime("%Y-%m-%d %H:%M:%S UTC");
            Some(format!("paused until {until}: {}", paused.reason))
        }
        // Where nothing can be kept, that is the reason to name.
        Ok(Pause::Unreadable(_)) | Err(_) if uncountable => None,
        Ok(Pause::Unreadable(text)) => Some(text),
        Err(text) => Some(format!("whether remedies are paused cannot be read: {text}")),
    }
}

pub(super) async fn context(disk: &Disk, options: &Options, boot_id: Option<Uuid>, began: Moment) -> Context {
    let stops = disk.ask(|dir| dir.read(STOPS_FILE)).await;
    let bytes = stops.ok().flatten().unwrap_or_default();
    Context {
        now: began.wall,
        root: if options.root.as_os_str().is_empty() {
            PathBuf::from("/")
        } else {
            options.root.clone()
        },
        operator_stops: operator_stops(&bytes, boot_id),
        uptime_secs: began.boot.as_secs(),
        monotonic: began.monotonic,
        boot_id: boot_id.map(|id| id.to_string()).unwrap_or_default(),
    }
}

/// Stops of this boot; a file that cannot be read has none, and systemd's own state still tells most of them.
fn operator_stops(bytes: &[u8], boot_id: Option<Uuid>) -> Vec<(UnitName, Timestamp)> {
    #[derive(Deserialize)]
    struct Stop {
        unit: UnitName,
        at: Timestamp,
        boot_id: Uuid,
    }
    let stops: Vec<Stop> = serde_json::from_slice(bytes).unwrap_or_default();
    let of_this_boot = stops.into_iter().filter(|stop| Some(stop.boot_id) == boot_id);
    of_this_boot
        .take(STOPS)
        .map(|stop| (stop.unit, stop.at))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_stops_of_this_boot_count() {
        let (this, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let text = format!(
            r#"[{{"unit":"a.service","at":"2026-01-01T00:00:00Z","boot_id":"{this}"}},
                {{"unit":"b.service","at":"2026-01-01T00:00:00Z","boot_id":"{other}"}}]"#
        );
        let stops = operator_stops(text.as_bytes(), Some(this));
        assert_eq!(
            stops.iter().map(|(unit, _)| unit.as_str()).collect::<Vec<_>>(),
            ["a.service"]
        );
        assert!(operator_stops(b"garbage", Some(this)).is_empty());
    }
}
