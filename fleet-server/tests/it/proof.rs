//! The server proves itself: the real binary, a service outside that counts pings, and a real receiver.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const SERVER: &str = env!("CARGO_BIN_EXE_fleet-server");
const CTL: &str = env!("CARGO_BIN_EXE_fleetctl");
/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Somebody outside who speaks HTTP: a dead man's service, or a receiver.
#[derive(Clone)]
pub(crate) struct Outside {
    port: u16,
    heard: Arc<Mutex<Vec<Heard>>>,
    status: Arc<Mutex<u16>>,
}

#[derive(Clone)]
struct Heard {
    head: String,
    body: String,
}

impl Outside {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let outside = Self {
            port: listener.local_addr().unwrap().port(),
            heard: Arc::default(),
            status: Arc::new(Mutex::new(200)),
        };
        let (heard, status) = (Arc::clone(&outside.heard), Arc::clone(&outside.status));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, status) = (Arc::clone(&heard), Arc::clone(&status));
                std::thread::spawn(move || talk(stream, &heard, &status));
            }
        });
        outside
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn answers(&self, status: u16) {
        *self.status.lock().unwrap() = status;
    }

    fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    fn pings(&self, path: &str) -> usize {
        let wanted = format!(" {path} ");
        self.heard()
            .iter()
            .filter(|heard| heard.head.contains(&wanted))
            .count()
    }

    /// Alerts that were taken: kind, event, and the whole.
    pub(crate) fn alerts(&self) -> Vec<(String, String, Value)> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let alert = |heard: &Heard| {
            let alert: Value = serde_json::from_str(&heard.body).ok()?;
            Some((word(&alert["incident"]["kind"]), word(&alert["event"]), alert))
        };
        self.heard().iter().filter_map(alert).collect()
    }
}

fn talk(stream: TcpStream, heard: &Mutex<Vec<Heard>>, status: &Mutex<u16>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let code = *status.lock().unwrap();
        if code == 200 {
            heard.lock().unwrap().push(Heard {
                head,
                body: String::from_utf8_lossy(&body).into_owned(),
            });
        }
        if write!(writer, "HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}

/// A server process; its log says on which port it listens.
pub(crate) struct Process {
    child: Child,
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
}

impl Process {
    pub(crate) fn start(dir: &Path, more: &str) -> Self {
        let config = dir.join("fleet-server.toml");
        let data = dir.join("data");
        std::fs::write(
            &config,
            format!("listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n{more}"),
        )
        .unwrap();
        let mut child = Command::new(SERVER)
            .arg("--config")
            .arg(&config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut text = String::new();
        let url = loop {
            let from = text.len();
            assert!(lines.read_line(&mut text).unwrap() > 0, "it ended: {text}");
            if let Some(rest) = text[from..].split("address=").nth(1) {
                break format!("http://{}", rest.split_whitespace().next().unwrap());
            }
        };
        let log = Arc::new(Mutex::new(text));
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self { child, url, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Kills it, and waits until it is gone: its data directory is free then.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn ctl(&self, dir: &Path, args: &[&str]) -> String {
        let token = dir.join("data/admin.token");
        let out = Command::new(CTL)
            .args(["--server", &self.url, "--token-file", token.to_str().unwrap()])
            .args(args)
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
    }

    fn metrics(&self) -> String {
        let address = self.url.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// The value of one series.
    fn metric(&self, series: &str) -> Option<f64> {
        let text = self.metrics();
        let line = text.lines().find(|line| {
            line.strip_prefix(series)
                .is_some_and(|rest| rest.starts_with(' '))
        })?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test of processes runs in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a test of processes runs in real time")]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

pub(crate) fn wait_for<T>(what: &str, server: &Process, mut look: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            start.elapsed() < LIMIT,
            "no {what} within {LIMIT:?}; the log:\n{}",
            server.log()
        );
        pause(Duration::from_millis(50));
    }
}

pub(crate) fn receiver(name: &str, outside: &Outside) -> String {
    format!(
        "[[receiver]]\nname = {name:?}\nwebhook = {{ url = {:?} }}\n",
        outside.url("/alert")
    )
}

const PROVEN: &str = "fleet_canary_death_to_delivered_seconds_count";

/// A quick fleet, so that a death takes two seconds and not six.
const QUICK: &str = "[liveness]\nevery = \"500ms\"\ndark_after = \"2s\"\nwarm_up = \"1s\"\n";

#[test]
fn the_canary_proves_the_way_and_tells_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let people = Outside::start();
    let config = format!("{QUICK}[canary]\nevery = \"1s\"\n{}", receiver("people", &people));
    let server = Process::start(dir.path(), &config);
    wait_for("second proof", &server, || {
        (server.metric(PROVEN)? >= 2.0).then_some(())
    });
    let sum = server.metric("fleet_canary_death_to_delivered_seconds_sum");
    let took = sum.unwrap() / server.metric(PROVEN).unwrap();
    assert!((1.0..10.0).contains(&took), "{took} s from death to delivery");
    let text = server.metrics();
    for wanted in [
        "fleet_canary_death_to_delivered_seconds_bucket{le=\"10\"}",
        "fleet_canary_last_success_timestamp_seconds ",
        "fleet_canary_runs_total{result=\"failed\"} 0",
        "fleet_incidents_open{kind=\"canary\",severity=\"page\"} 0",
        "fleet_incidents_open{kind=\"box_dark\",severity=\"page\"} 0",
        "fleet_boxes{state=\"live\"} 0",
        "fleet_boxes{state=\"dark\"} 0",
    ] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    assert!(!text.contains("box=\"fleet-canary\""), "{text}");
    let ctl = |args: &[&str]| server.ctl(dir.path(), args);
    assert_eq!(ctl(&["incident", "list", "--all"]), "no incidents\n");
    assert_eq!(ctl(&["box", "list"]), "no boxes\n");
    assert!(ctl(&["incident", "list", "--all", "--box", "fleet-canary"]).contains("box_dark"));
    assert!(ctl(&["box", "show", "fleet-canary"]).contains("the server's own"));
    for change in ["remove", "revoke", "rotate"] {
        let said = ctl(&["box", change, "fleet-canary"]);
        assert!(said.contains("[canary]"), "{said}");
    }
    assert!(ctl(&["box", "add", "fleet-canary"]).contains("own canary"));

    // Killed in the middle of a death: the next start ends what was left open, and proves the way anew.
    wait_for("death", &server, || {
        ctl(&["box", "show", "fleet-canary"])
            .contains("dark")
            .then_some(())
    });
    drop(server);
    let server = Process::start(dir.path(), &config);
    wait_for("proof after a kill", &server, || {
        (server.metric(PROVEN)? >= 1.0).then_some(())
    });
    let listed = server.ctl(dir.path(), &["incident", "list", "--box", "fleet-canary"]);
    assert!(
        listed.lines().count() <= 2,
        "at most the newest death is open: {listed}"
    );
    assert_eq!(people.alerts().len(), 0, "people hear nothing while all is well");
}

#[test]
fn a_receiver_that_takes_nothing_is_found_by_the_canary_and_told_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (people, broken) = (Outside::start(), Outside::start());
    broken.answers(503);
    let config = format!(
        "{QUICK}[canary]\nevery = \"1s\"\ngrace = \"2s\"\nreceiver = \"broken\"\n{}{}",
        receiver("people", &people),
        receiver("broken", &broken)
    );
    let server = Process::start(dir.path(), &config);
    let page = |event: &str| {
        let alerts = people.alerts();
        let mut pages = alerts
            .iter()
            .filter(|(kind, said, _)| kind == "canary" && said == event);
        pages.next().map(|(_, _, alert)| alert.clone())
    };
    let opened = wait_for("page of the canary", &server, || page("opened"));
    let incident = &opened["incident"];
    assert_eq!(incident["severity"], "page");
    assert_eq!(incident["details"]["stage"], "delivery");
    assert_eq!(incident["details"]["missing"], serde_json::json!(["broken"]));
    assert!(server.ctl(dir.path(), &["incident", "list"]).contains("canary"));
    assert_eq!(
        server.metric("fleet_canary_runs_total{result=\"proven\"}"),
        Some(0.0)
    );
    broken.answers(200);
    wait_for("end of it", &server, || page("resolved"));
    assert!(server.metric(PROVEN).unwrap() >= 1.0);
    // Whoever was asked to take tests gets them marked; nobody else gets any.
    assert!(people.alerts().iter().all(|(kind, _, _)| kind == "canary"));
    let alerts = broken.alerts();
    let (_, _, test) = alerts.iter().find(|(kind, _, _)| kind == "box_dark").unwrap();
    assert_eq!(
        (&test["test"], &test["incident"]["severity"]),
        (&true.into(), &"info".into()),
        "{test}"
    );
}

/// Until the service hears `count` more pings.
fn pings_go_on(service: &Outside, server: &Process, count: usize) {
    let before = service.pings("/ping");
    wait_for("ping", server, || {
        (service.pings("/ping") >= before + count).then_some(())
    });
}

fn pings_have_stopped(service: &Outside, what: &str) {
    let before = service.pings("/ping");
    pause(SECOND * 5 / 2);
    assert_eq!(service.pings("/ping"), before, "{what}");
}

fn reason(service: &Outside, server: &Process, text: &str) {
    wait_for(text, server, || {
        let heard = service.heard();
        heard.iter().any(|heard| heard.body.contains(text)).then_some(())
    });
}

/// A service outside that counts pings, and the configuration that has it pinged.
fn watched(dir: &Path) -> (Outside, String) {
    let service = Outside::start();
    let url_file = dir.join("ping.url");
    std::fs::write(&url_file, service.url("/ping") + "\n").unwrap();
    let config = format!(
        "{QUICK}[dead_man]\nurl_file = {url_file:?}\nfail_url = {:?}\nevery = \"1s\"\nunheard_after = \"3s\"\n",
        service.url("/ping/fail"),
    );
    (service, config)
}

#[test]
fn the_dead_man_stops_with_the_process_and_with_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (service, config) = watched(dir.path());
    let server = Process::start(dir.path(), &config);
    pings_go_on(&service, &server, 2);

    server.signal(Signal::STOP);
    pings_have_stopped(&service, "the whole process is stopped");
    server.signal(Signal::CONT);
    pings_go_on(&service, &server, 1);

    // A backup tool or a shell that holds the database.
    let holder = rusqlite::Connection::open(dir.path().join("data/fleet.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    reason(&service, &server, "the store takes no writes");
    pings_have_stopped(&service, "the store takes no writes");
    assert_eq!(server.metric("fleet_dead_man_sick{reason=\"store\"}"), Some(1.0));
    holder.execute_batch("ROLLBACK").unwrap();
    pings_go_on(&service, &server, 1);
    let log = server.log();
    assert!(log.contains("well again"), "{log}");
    assert!(!log.contains("/ping"), "the URL is a secret: {log}");
}

#[test]
fn the_dead_man_stops_with_the_last_receiver_and_not_with_one_of_two() {
    let dir = tempfile::tempdir().unwrap();
    let (service, config) = watched(dir.path());
    let (people, others) = (Outside::start(), Outside::start());
    let receivers = receiver("people", &people) + &receiver("others", &others);
    let server = Process::start(dir.path(), &(config + &receivers));
    pings_go_on(&service, &server, 1);

    // One of two receivers is down: the other one was told, so somebody hears.
    people.answers(503);
    die(&server, dir.path(), "box-1");
    wait_for("page at the others", &server, || {
        (!others.alerts().is_empty()).then_some(())
    });
    pause(SECOND * 4);
    assert!(
        server
            .metric("fleet_notify_pending{receiver=\"people\"}")
            .unwrap()
            >= 1.0
    );
    pings_go_on(&service, &server, 2);
    assert_eq!(service.pings("/ping/fail"), 0, "the server is well");

    // Both are: nobody does.
    others.answers(503);
    die(&server, dir.path(), "box-2");
    reason(&service, &server, "nobody has heard of a notification");
    pings_have_stopped(&service, "nobody can be told");
    assert_eq!(server.metric("fleet_dead_man_healthy"), Some(0.0));
    others.answers(200);
    pings_go_on(&service, &server, 1);
}

/// A box that beats for a moment and is never heard again.
fn die(server: &Process, dir: &Path, name: &str) {
    let token = server.ctl(dir, &["box", "add", name]);
    let address = server.url.strip_prefix("http://").unwrap();
    for seq in 1..4 {
        let mut beat = crate::fixture::beat(seq);
        beat["every_ms"] = 500.into();
        let body = beat.to_string();
        let bearer = format!("Bearer {}", token.trim());
        let request = crate::fixture::request(
            "POST",
            "/v1/heartbeat",
            &[("authorization", &bearer)],
            body.as_bytes(),
        );
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        pause(Duration::from_millis(400));
    }
}
