//! The shell: one thread with a runtime that plays every box as a task, and the handle to it.
//!
//! It alone reads clocks. What a box does next is [`Player`]'s to say.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
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
        let way = way(&settings.server)?;
        let (now, wall) = (clock::now(), wall());
        let played = |(n, known): (usize, Known)| {
            let line = Line::new(way.clone(), &known.token);
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
    })
}

/// Loopback or a private range: a load must never leave for the world.
fn is_near(ip: std::net::IpAddr) -> bool {
    match ip {
        std::net::IpAddr::V4(ip) => ip.is_loopback() || ip.is_private(),
        std::net::IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local(),
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
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use protocol::heartbeat::Heartbeat;
    use protocol::names::{BoxName, Labels};
    use protocol::secret::Secret;

    use super::*;

    /// What arrived: which connection, whose token, the beat.
    type Arrivals = Arc<Mutex<Vec<(usize, String, Heartbeat)>>>;

    /// A server of a few lines: keeps connections open, answers every beat, and knows when one closed.
    struct Tiny {
        url: String,
        arrivals: Arrivals,
        closed: Arc<Mutex<Vec<usize>>>,
    }

    impl Tiny {
        fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            let (arrivals, closed) = (Arrivals::default(), Arc::default());
            let (seen, gone) = (Arc::clone(&arrivals), Arc::clone(&closed));
            std::thread::spawn(move || {
                for (n, stream) in listener.incoming().flatten().enumerate() {
                    let (seen, gone): (Arrivals, Arc<Mutex<Vec<usize>>>) =
                        (Arc::clone(&seen), Arc::clone(&gone));
                    std::thread::spawn(move || {
                        serve(stream, n, &seen);
                        lock(&gone).push(n);
                    });
                }
            });
            Self {
                url,
                arrivals,
                closed,
            }
        }

        fn beats(&self) -> usize {
            lock(&self.arrivals).len()
        }

        fn wait(&self, what: &str, ready: impl Fn(&[(usize, String, Heartbeat)]) -> bool) {
            clock::wait_until(what, clock::secs(10), || ready(&lock(&self.arrivals))).unwrap();
        }
    }

    fn serve(stream: TcpStream, n: usize, seen: &Arrivals) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut writer = stream;
        loop {
            let (mut length, mut token) = (0, String::new());
            loop {
                let mut line = String::new();
                if reader.read_line(&mut line).ok()? == 0 {
                    return None;
                }
                match line.trim().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().ok()?,
                    Some(("authorization", value)) => value.clone_into(&mut token),
                    _ if line.trim().is_empty() => break,
                    _ => {}
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            lock(seen).push((n, token, Heartbeat::decode(&body).ok()?));
            let answer = r#"{"every_ms":250,"want_report":false}"#;
            write!(
                writer,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}",
                answer.len()
            )
            .ok()?;
        }
    }

    fn play_two(server: &str) -> Fleet {
        let habits = Habits {
            every: Duration::from_millis(250),
            jitter: 0.0,
            check_every: clock::secs(60),
        };
        let settings = Settings {
            server: server.to_owned(),
            habits,
            seed: 1,
        };
        let known = |name: &str, site| Known {
            name: BoxName::new(name).unwrap(),
            labels: Labels::from_texts([("site", site)]).unwrap(),
            token: Secret::new(format!("token-{name}")),
        };
        Fleet::start(&settings, vec![known("a", "fsn1"), known("b", "hel1")]).unwrap()
    }

    fn told(fleet: &Fleet, line: &str) -> Value {
        fleet.obey(&line.parse().unwrap()).unwrap()
    }

    #[test]
    fn beats_with_own_tokens_over_kept_connections() {
        let server = Tiny::start();
        let fleet = play_two(&server.url);
        server.wait("eight beats", |all| all.len() >= 8);
        drop(fleet);
        let all = lock(&server.arrivals).clone();
        for (token, first_report) in [("Bearer token-a", true), ("Bearer token-b", true)] {
            let own: Vec<_> = all.iter().filter(|(_, whose, _)| whose == token).collect();
            assert!(own.len() >= 3, "{token}: {}", own.len());
            assert!(own.iter().all(|(n, _, _)| *n == own[0].0), "one connection");
            assert_eq!(own[0].2.report.is_some(), first_report);
            assert!(own[1..].iter().all(|(_, _, beat)| beat.report.is_none()));
            assert!(own.windows(2).all(|pair| pair[1].2.seq == pair[0].2.seq + 1));
        }
    }

    #[test]
    fn a_cut_box_is_silent_with_its_connection_open_and_a_killed_one_closes_it() {
        let server = Tiny::start();
        let fleet = play_two(&server.url);
        server.wait("both", |all| {
            all.iter().any(|(_, token, _)| token.ends_with('a')) && all.len() >= 4
        });
        assert_eq!(told(&fleet, "cut site=fsn1")["ok"], 1);
        clock::pause(Duration::from_millis(100));
        let from = server.beats();
        server.wait("b goes on", |all| all.len() >= from + 3);
        assert!(
            lock(&server.arrivals)[from..]
                .iter()
                .all(|(_, token, _)| token.ends_with('b'))
        );
        assert!(lock(&server.closed).is_empty(), "a cut closes nothing");
        told(&fleet, "kill b");
        clock::wait_until("b's connection to close", clock::secs(5), || {
            lock(&server.closed).len() == 1
        })
        .unwrap();
        assert_eq!(fleet.status()["modes"]["killed"]["names"][0], "b");
        told(&fleet, "heal all");
        let from = server.beats();
        server.wait("both again", |all| {
            ["a", "b"]
                .iter()
                .all(|name| all[from..].iter().any(|(_, token, _)| token.ends_with(name)))
        });
    }

    #[test]
    fn a_goodbye_arrives_and_a_failing_check_is_reported() {
        let server = Tiny::start();
        let fleet = play_two(&server.url);
        server.wait("both", |all| all.len() >= 4);
        told(&fleet, "fail a disk");
        server.wait("the report", |all| {
            all.iter().any(|(_, _, beat)| {
                beat.report
                    .as_ref()
                    .is_some_and(|r| r.worst() == protocol::report::Status::Failing)
            })
        });
        told(&fleet, "goodbye b 600");
        server.wait("the goodbye", |all| {
            all.iter().any(|(_, _, beat)| beat.goodbye.is_some())
        });
    }

    #[test]
    fn nobody_there_is_an_error_of_its_kind() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let fleet = play_two(&format!("http://127.0.0.1:{port}"));
        clock::wait_until("errors", clock::secs(5), || fleet.counts().errors >= 2).unwrap();
        assert!(
            fleet.counts().kinds.contains_key("connect"),
            "{:?}",
            fleet.counts()
        );
        assert!(fleet.obey(&"cut nobody".parse().unwrap()).is_err());
    }

    #[test]
    fn the_world_is_never_a_target() {
        for server in ["http://192.0.2.1:80", "https://127.0.0.1:1", "127.0.0.1:1"] {
            assert!(way(server).is_err(), "{server}");
        }
        assert!(way("http://10.99.0.1:8470/").is_ok());
    }
}
