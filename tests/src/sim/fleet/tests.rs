//! The shell against a server of a few lines, in real time.

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
                let (seen, gone): (Arrivals, Arc<Mutex<Vec<usize>>>) = (Arc::clone(&seen), Arc::clone(&gone));
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
        from: Vec::new(),
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
