//! The shell: one thread with a runtime that plays every box as a task, and the handle to it.
//!
//! It alone reads clocks. What a box does next is [`Player`]'s to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use super::command::{Command, Target};
use super::counts::Counts;
use super::credentials::Known;
use super::line::{Line, Trouble, Way};
use super::player::{Habits, Mode, Player, Step};
use crate::clock;

/// As many as the machine's ports and file descriptors bear on loopback.
pub const BOXES_MAX: usize = 20_000;
/// Names shown by `status`; more are only counted.
const SHOWN: usize = 50;
/// A server that hangs is waited for at least this long, whatever the interval.
const ANSWER_LIMIT_MIN: Duration = Duration::from_secs(1);

/// How the fleet is played.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `http://host:port`.
    pub server: String,
    /// Every box's habits.
    pub habits: Habits,
    /// Addresses of this machine that the boxes share among them; none: the system chooses.
    pub from: Vec<IpAddr>,
    /// The same seed plays the same moments and ids again (a server that knows them refuses old beats).
    pub seed: u64,
}

/// A playing fleet; it ends when dropped.
#[derive(Debug)]
pub struct Fleet {
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    every: Duration,
    counts: Mutex<Counts>,
    boxes: Vec<Played>,
}

#[derive(Debug)]
struct Played {
    player: Mutex<Player>,
    told: Notify,
}

/// A line of each second.
#[derive(Debug, Serialize)]
pub struct Totals {
    at: Timestamp,
    boxes: usize,
    sending: usize,
    #[serde(flatten)]
    counts: Counts,
}

impl Fleet {
    /// Starts to play these boxes.
    pub fn start(settings: &Settings, known: Vec<Known>) -> Result<Self> {
        ensure!(!known.is_empty(), "no boxes to play");
        ensure!(
            known.len() <= BOXES_MAX,
            "{} boxes; at most {BOXES_MAX} can be played",
            known.len()
        );
        allow_open_files(known.len() as u64 + 64)?;
        let way = Way {
            from: settings.from.clone(),
            ..way(&settings.server)?
        };
        let (now, wall) = (clock::now(), wall());
        let played = |(n, known): (usize, Known)| {
            let line = Line::new(way.clone(), &known.token, n);
            let seed = settings.seed ^ (n as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d);
            let player = Player::new(known.name, known.labels, settings.habits.clone(), seed, wall);
            (
                Played {
                    player: Mutex::new(player),
                    told: Notify::new(),
                },
                line,
            )
        };
        let (boxes, lines): (Vec<_>, Vec<_>) = known.into_iter().enumerate().map(played).unzip();
        let every = settings.habits.every;
        let shared = Arc::new(Shared {
            started: now,
            every,
            counts: Mutex::default(),
            boxes,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let playing = Arc::clone(&shared);
        let run = move || {
            runtime.block_on(async move {
                for (n, line) in lines.into_iter().enumerate() {
                    tokio::spawn(play(Arc::clone(&playing), n, line));
                }
                drop(stopped.await);
            });
        };
        let thread = std::thread::Builder::new()
            .name("played-fleet".to_owned())
            .spawn(run)?;
        Ok(Self {
            shared,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Obeys; the answer is one JSON object. It is done when this returns: after `cut` no beat is begun any more (one
    /// that is under way may still arrive).
    pub fn obey(&self, command: &Command) -> Result<Value> {
        let (now, wall) = (self.shared.started.elapsed(), wall());
        match command {
            Command::Cut(target) => self.tell(target, wall, Player::cut),
            Command::Kill(target) => self.tell(target, wall, Player::kill),
            Command::Heal(target) => self.tell(target, wall, |player| player.heal(now)),
            Command::Goodbye {
                target,
                back_within_secs,
                why,
            } => self.tell(target, wall, |player| player.leave(*back_within_secs, *why)),
            Command::Fail(target, check) => self.tell(target, wall, |player| player.fail(*check, now, wall)),
            Command::Mend(target) => self.tell(target, wall, |player| player.mend(now, wall)),
            Command::Status => Ok(self.status()),
            Command::Quit => Ok(json!({"ok": "quit"})),
        }
    }

    /// A line's worth of totals; the slowest answer starts anew.
    pub fn line(&self) -> Totals {
        Totals {
            at: wall(),
            boxes: self.shared.boxes.len(),
            sending: self
                .shared
                .boxes
                .iter()
                .filter(|one| lock(&one.player).mode() == Mode::Sending)
                .count(),
            counts: lock(&self.shared.counts).take_line(),
        }
    }

    /// The totals.
    pub fn counts(&self) -> Counts {
        lock(&self.shared.counts).clone()
    }

    fn tell(&self, target: &Target, wall: Timestamp, mut order: impl FnMut(&mut Player)) -> Result<Value> {
        let mut told = 0;
        for one in &self.shared.boxes {
            let mut player = lock(&one.player);
            if target.means(player.name.as_str(), &player.labels) {
                order(&mut player);
                one.told.notify_one();
                told += 1;
            }
        }
        ensure!(told > 0, "no box is meant by {target:?}");
        Ok(json!({"ok": told, "at": wall}))
    }

    fn status(&self) -> Value {
        let mut modes: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
        for one in &self.shared.boxes {
            let player = lock(&one.player);
            let (count, names) = modes
                .entry(format!("{:?}", player.mode()).to_lowercase())
                .or_default();
            *count += 1;
            if player.mode() != Mode::Sending && names.len() < SHOWN {
                names.push(player.name.to_string());
            }
        }
        let modes: BTreeMap<_, _> = modes
            .into_iter()
            .map(|(mode, (count, names))| (mode, json!({"count": count, "names": names})))
            .collect();
        json!({"at": wall(), "boxes": self.shared.boxes.len(), "modes": modes, "counts": self.counts()})
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One box, for ever.
async fn play(shared: Arc<Shared>, n: usize, mut line: Line) {
    let one = &shared.boxes[n];
    loop {
        let step = lock(&one.player).step(shared.started.elapsed(), wall());
        match step {
            Step::Close => line.close(),
            Step::Rest => one.told.notified().await,
            Step::Wait(until) => {
                let until = tokio::time::Instant::from_std(shared.started + until);
                tokio::select! {
                    () = tokio::time::sleep_until(until) => {}
                    () = one.told.notified() => {}
                }
            }
            Step::Send(beat) => {
                let with_report = beat.report.is_some();
                let body = serde_json::to_vec(&beat).unwrap_or_default();
                lock(&shared.counts).sent += 1;
                let (began, before) = (clock::now(), line.connects);
                // A killed box's request dies with it.
                let answer = tokio::select! {
                    answer = line.send(body, shared.every.max(ANSWER_LIMIT_MIN)) => Some(answer),
                    () = killed(one) => None,
                };
                let took = began.elapsed();
                let mut counts = lock(&shared.counts);
                counts.connects += line.connects - before;
                match answer {
                    Some(Ok(answer)) => {
                        counts.answered(took, shared.every, with_report);
                        lock(&one.player).answered(answer);
                    }
                    Some(Err(trouble)) => {
                        counts.failed(trouble.to_string());
                        let mut player = lock(&one.player);
                        player.unanswered(with_report);
                        if let Trouble::Status {
                            hold_off: Some(span), ..
                        } = trouble
                        {
                            player.hold_off(shared.started.elapsed(), span);
                        }
                    }
                    None => counts.failed("killed".to_owned()),
                }
            }
        }
    }
}

async fn killed(one: &Played) {
    loop {
        one.told.notified().await;
        if lock(&one.player).mode() == Mode::Killed {
            return;
        }
    }
}

fn way(server: &str) -> Result<Way> {
    let authority = server
        .strip_prefix("http://")
        .map(|rest| rest.trim_end_matches('/'));
    let authority = authority.with_context(|| format!("{server:?}: want http://host:port"))?;
    let mut found = authority
        .to_socket_addrs()
        .with_context(|| format!("{server:?}: want http://host:port"))?;
    let address = found
        .next()
        .with_context(|| format!("{server:?} has no address"))?;
    ensure!(
        is_near(address.ip()),
        "{address} is not on this machine or in its own network: a played fleet goes no further"
    );
    Ok(Way {
        address,
        authority: authority.to_owned(),
        from: Vec::new(),
    })
}

/// Loopback or a private range: a load must never leave for the world.
fn is_near(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
    }
}

fn allow_open_files(wanted: u64) -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit {
            current: Some(now.maximum.map_or(wanted, |most| most.min(wanted))),
            ..now
        };
        setrlimit(Resource::Nofile, raised)?;
        ensure!(
            now.maximum.is_none_or(|most| most >= wanted),
            "{wanted} open files are needed, the hard limit is {:?}; raise it (ulimit -Hn)",
            now.maximum
        );
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the shell of the played fleet: messages carry a box's wall clock"
)]
fn wall() -> Timestamp {
    Timestamp::now()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
