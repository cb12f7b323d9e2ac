//! Silences, maintenances and pauses through the real binaries: who is told, when, and what is left of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::proof::{Outside, Process, now, pause, receiver, wait_for};

/// A beat every 250 ms, dark after three seconds: a test has no minutes.
pub(crate) const QUICK: &str =
    "[liveness]\nevery = \"250ms\"\ndark_after = \"3s\"\ndark_after_max = \"5s\"\nwarm_up = \"1s\"\n";
const BEAT: Duration = Duration::from_millis(250);

/// A box that beats until it is told not to.
pub(crate) struct SimBox {
    up: Arc<AtomicBool>,
    paused: Arc<Mutex<Option<Timestamp>>>,
}

impl SimBox {
    pub(crate) fn start(url: &Arc<Mutex<String>>, token: &str, n: u8) -> Self {
        let sim = Self {
            up: Arc::new(AtomicBool::new(true)),
            paused: Arc::default(),
        };
        let (up, paused) = (Arc::clone(&sim.up), Arc::clone(&sim.paused));
        let (url, token) = (Arc::clone(url), token.trim().to_owned());
        std::thread::spawn(move || {
            let mut stream = None;
            for seq in 0_u64.. {
                pause(BEAT);
                if up.load(Ordering::Relaxed) {
                    let body = body(n, seq, *paused.lock().unwrap());
                    let address = url.lock().unwrap().trim_start_matches("http://").to_owned();
                    let mut talk = stream.take().or_else(|| TcpStream::connect(address).ok());
                    stream = talk.take().filter(|talk| beat(talk, &token, &body).is_ok());
                }
            }
        });
        sim
    }

    pub(crate) fn is_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }
}

fn body(n: u8, seq: u64, paused: Option<Timestamp>) -> String {
    let mut beat = json!({
        "boot_id": format!("7b0c2b9e-9d0b-4a52-8f27-2f6d6a1f8f{n:02x}"),
        "session": format!("3f1d2f53-8a8e-4f0e-9a57-6f0d1a1b2c{n:02x}"),
        "seq": seq, "every_ms": 250, "sent_at": wall(),
    });
    if let Some(until) = paused {
        beat["paused"] = json!({ "until": until, "reason": "disk swap" });
    }
    beat.to_string()
}

fn beat(mut stream: &TcpStream, token: &str, body: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "POST /v1/heartbeat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    reader.read_exact(&mut vec![0; length.unwrap_or(0)])
}

#[expect(clippy::disallowed_methods, reason = "a test of processes runs in real time")]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// A server, its operator, its boxes and who is told.
struct World {
    dir: tempfile::TempDir,
    server: Process,
    url: Arc<Mutex<String>>,
    people: Outside,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let people = Outside::start();
        let server = start(dir.path(), &people);
        let url = Arc::new(Mutex::new(server.url.clone()));
        Self {
            dir,
            server,
            url,
            people,
        }
    }

    fn ctl(&self, args: &[&str]) -> String {
        self.server.ctl(self.dir.path(), args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = ["--json"].iter().chain(args).copied().collect();
        let text = self.ctl(&args);
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{args:?}: {err}: {text}"))
    }

    fn add(&self, name: &str, site: &str, n: u8) -> SimBox {
        let token = self.ctl(&["box", "add", name, "--label", &format!("site={site}")]);
        let sim = SimBox::start(&self.url, &token, n);
        self.wait("beat", || (self.state(name) == "live").then_some(()));
        sim
    }

    fn state(&self, name: &str) -> String {
        self.json(&["box", "show", name])["state"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        wait_for(what, &self.server, look)
    }

    /// The newest incident about this box, with its timeline.
    fn incident(&self, name: &str) -> Option<Value> {
        let page = self.json(&["incident", "list", "--all", "--box", name]);
        page["incidents"].get(0).cloned()
    }

    fn open_incident(&self, name: &str) -> Option<Value> {
        self.incident(name)
            .filter(|incident| incident["resolved_at"].is_null())
    }

    /// What people were told about this box: event and time.
    fn told(&self, name: &str) -> Vec<String> {
        let alerts = self.people.alerts();
        let about = alerts
            .iter()
            .filter(|(_, _, alert)| alert["incident"]["box"] == name);
        about.map(|(kind, event, _)| format!("{kind} {event}")).collect()
    }

    fn restart(&mut self) {
        self.server.kill();
        self.server = start(self.dir.path(), &self.people);
        self.url.lock().unwrap().clone_from(&self.server.url);
    }
}

fn start(dir: &Path, people: &Outside) -> Process {
    Process::start(dir, &format!("{QUICK}{}", receiver("people", people)))
}

fn id(view: &Value) -> String {
    view["id"].to_string()
}

fn events(incident: &Value) -> Vec<String> {
    let lines = incident["timeline"].as_array().unwrap();
    lines
        .iter()
        .map(|line| line["event"].as_str().unwrap().to_owned())
        .collect()
}

fn until(view: &Value) -> Timestamp {
    view["until"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_box_that_dies_in_a_silence_or_in_its_own_pause_is_told_at_the_end_through_a_restart() {
    let mut world = World::new();
    let silenced = world.add("web-1", "fsn1", 1);
    let paused = world.add("db-1", "nbg1", 2);
    let silence = world.json(&[
        "silence",
        "add",
        "--match",
        "site=fsn1",
        "--for",
        "11s",
        "--reason",
        "new switch",
    ]);
    let until_pause = wall() + SignedDuration::from_secs(9);
    *paused.paused.lock().unwrap() = Some(until_pause);
    let pause_view = world.wait("pause", || {
        let page = world.json(&["maintenance", "list"]);
        page["maintenance"].get(0).cloned()
    });
    assert_eq!(
        (&pause_view["kind"], &pause_view["state"]),
        (&json!("pause"), &json!("active"))
    );
    assert_eq!(
        (&pause_view["created"]["by"], &pause_view["match"]["box"][0]),
        (&json!("db-1"), &json!("db-1"))
    );
    silenced.is_up(false);
    paused.is_up(false);
    for name in ["web-1", "db-1"] {
        let incident = world.wait("muted incident", || {
            world
                .open_incident(name)
                .filter(|incident| incident["details"]["muted_by"].is_string())
        });
        assert_eq!(incident["kind"], "box_dark");
    }
    let web = world.incident("web-1").unwrap();
    let by = web["details"]["muted_by"].as_str().unwrap().to_owned();
    assert!(
        by.starts_with(&format!("silence {} of admin until ", id(&silence))) && by.ends_with(": new switch"),
        "{by}"
    );

    // What was muted is so after a kill, and nobody has heard of it.
    world.restart();
    assert_eq!(world.json(&["silence", "show", &id(&silence)])["state"], "active");
    for (name, ends) in [("db-1", until_pause), ("web-1", until(&silence))] {
        let told_at = world.wait("page", || (!world.told(name).is_empty()).then(wall));
        let late = told_at.duration_since(ends).as_secs_f64();
        eprintln!("{name}: told {late:.2} s after the end");
        assert!((-0.1..5.0).contains(&late), "{name}: {late} s after the end");
        assert_eq!(world.told(name), ["box_dark opened"]);
    }
    let web = world.incident("web-1").unwrap();
    let lines = events(&web);
    let order = ["opened", "muted", "unmuted"].map(|event| lines.iter().position(|line| line == event));
    assert!(order.is_sorted() && order[0].is_some(), "{lines:?}");
    assert!(web["details"]["muted_by"].is_null(), "{web}");

    // History, not gone; and who heard of it hears of its end.
    assert_eq!(world.ctl(&["silence", "list"]), "none\n");
    let all = world.ctl(&["silence", "list", "--all"]);
    assert!(
        all.contains("expired") && all.contains("site=fsn1") && all.contains("admin"),
        "{all}"
    );
    let over = world.ctl(&["maintenance", "list", "--all"]);
    assert!(
        over.contains("db-1 (its own pause)") && over.contains("disk swap"),
        "{over}"
    );
    silenced.is_up(true);
    world.wait("end", || (world.told("web-1").len() == 2).then_some(()));
    assert_eq!(world.told("web-1")[1], "box_dark resolved");
}

#[test]
fn a_box_that_was_told_of_before_a_silence_is_told_of_again_at_its_end() {
    let mut world = World::new();
    let forgotten = world.add("web-1", "fsn1", 1);
    let in_hand = world.add("web-2", "fsn1", 2);
    forgotten.is_up(false);
    in_hand.is_up(false);
    for name in ["web-1", "web-2"] {
        world.wait("page", || (!world.told(name).is_empty()).then_some(()));
    }
    let silence = world.json(&[
        "silence",
        "add",
        "--match",
        "site=fsn1",
        "--for",
        "6s",
        "--reason",
        "I am on it",
    ]);
    let id = world.open_incident("web-2").unwrap()["id"].to_string();
    world.ctl(&["incident", "ack", &id]);
    world.restart();
    let told_at = world.wait("page", || (world.told("web-1").len() > 1).then(wall));
    let late = told_at.duration_since(until(&silence)).as_secs_f64();
    eprintln!("web-1: told again {late:.2} s after the end");
    assert!((-0.1..5.0).contains(&late), "{late} s after the end");
    pause(Duration::from_secs(2));
    assert_eq!(world.told("web-1"), ["box_dark opened", "box_dark updated"]);
    assert_eq!(
        world.told("web-2"),
        ["box_dark opened"],
        "somebody has it in hand"
    );
}

#[test]
fn a_maintenance_lets_boxes_go_and_come_and_its_end_gives_a_fresh_start() {
    let world = World::new();
    let moved = world.add("web-1", "fsn1", 1);
    let gone = world.add("web-2", "fsn1", 2);
    let weekly = world.add("db-1", "nbg1", 3);
    let maintenance = world.json(&[
        "maintenance",
        "add",
        "--box",
        "web-*",
        "--for",
        "1h",
        "--reason",
        "rack move",
    ]);
    // Now lies in a window that begins each week, by the clocks of Berlin, within the last hour.
    let zone = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    let begun = zone.to_datetime(wall().checked_sub(SignedDuration::from_mins(50)).unwrap());
    let every = begun.strftime("%a %H:%M").to_string().to_lowercase();
    let recurring = world.json(&[
        "maintenance",
        "add",
        "--match",
        "site=nbg1",
        "--every",
        &every,
        "--for",
        "2h",
        "--tz",
        "Europe/Berlin",
        "--reason",
        "patches",
    ]);
    assert_eq!(
        (&recurring["state"], &recurring["until"]),
        (&json!("active"), &Value::Null)
    );
    assert!(
        world
            .ctl(&["box", "show", "db-1"])
            .contains("may be gone  maintenance ")
    );
    for sim in [&moved, &gone, &weekly] {
        sim.is_up(false);
    }
    for name in ["web-1", "web-2", "db-1"] {
        world.wait("muted incident", || {
            world
                .open_incident(name)
                .filter(|incident| incident["details"]["muted_by"].is_string())
        });
    }
    // One comes back in time: resolved, and nobody is told.
    moved.is_up(true);
    world.wait("return", || (world.state("web-1") == "live").then_some(()));
    assert_eq!(world.people.alerts().len(), 0);

    // It misses beats as the maintenance ends, for longer than it may, but not from the end on.
    moved.is_up(false);
    let silent = now();
    pause(Duration::from_secs(2));
    let ended = now();
    let view = world.json(&["maintenance", "end", &id(&maintenance)]);
    assert_eq!(
        (&view["state"], &view["ended"]["by"]),
        (&json!("expired"), &json!("admin"))
    );
    pause(Duration::from_millis(1200));
    assert!(silent.elapsed() > Duration::from_secs(3));
    moved.is_up(true);
    world.wait("page", || (!world.told("web-2").is_empty()).then_some(()));
    eprintln!(
        "still gone: told {:.2} s after the end",
        ended.elapsed().as_secs_f64()
    );

    // The weekly one, ended early, is history; the box is told of at once.
    assert!(world.told("db-1").is_empty());
    let shown = world.ctl(&["maintenance", "list"]);
    assert!(
        shown.contains("Europe/Berlin for 2h") && shown.contains("active"),
        "{shown}"
    );
    world.ctl(&["maintenance", "end", &id(&recurring)]);
    world.wait("page", || {
        (world.told("db-1") == ["box_dark opened"]).then_some(())
    });
    assert!(ended.elapsed() < Duration::from_secs(15));
    let again = world.ctl(&["maintenance", "end", &id(&recurring)]);
    assert!(
        again.contains("is over since") && again.contains("ended by admin"),
        "{again}"
    );
    pause(Duration::from_secs(1));
    assert_eq!(
        world.told("web-1"),
        Vec::<String>::new(),
        "live at the end, and live now"
    );
    let shown = world.ctl(&["maintenance", "show", &id(&recurring)]);
    assert!(
        shown.contains("ended by") && shown.contains("made by") && shown.contains("patches"),
        "{shown}"
    );
}

#[test]
fn what_is_no_mute_is_refused_with_field_and_fix() {
    let world = World::new();
    let said = |args: &[&str]| world.ctl(args);
    for (args, wanted) in [
        (
            &["silence", "add", "--for", "1h", "--reason", "x"][..],
            "match: has no condition",
        ),
        (
            &["silence", "add", "--box", "*", "--reason", "x"],
            "until: say how long",
        ),
        (
            &["silence", "add", "--box", "*", "--for", "1h", "--reason", " "],
            "reason: give one line",
        ),
        (&["silence", "add", "--box", "*", "--for", "1h"], "--reason"),
        (
            &[
                "silence", "add", "--match", "box=x", "--for", "1h", "--reason", "x",
            ],
            "--match: label \"box\"",
        ),
        (
            &[
                "maintenance",
                "add",
                "--box",
                "*",
                "--for",
                "1h",
                "--reason",
                "x",
                "--kind",
                "disk",
            ],
            "--kind",
        ),
        (
            &[
                "maintenance",
                "add",
                "--box",
                "*",
                "--for",
                "1h",
                "--reason",
                "x",
                "--tz",
                "Mars/Olympus",
            ],
            "no such time zone",
        ),
        (
            &[
                "maintenance",
                "add",
                "--box",
                "*",
                "--for",
                "25h",
                "--reason",
                "x",
                "--every",
                "daily 03:00",
            ],
            "at most 23 hours",
        ),
        (
            &[
                "maintenance",
                "add",
                "--box",
                "*",
                "--for",
                "1h",
                "--reason",
                "x",
                "--every",
                "sunday 3",
            ],
            "write it like",
        ),
        (
            &[
                "maintenance",
                "add",
                "--box",
                "*",
                "--from",
                "tomorrow",
                "--for",
                "1h",
                "--reason",
                "x",
            ],
            "write it like",
        ),
        (&["silence", "show", "77"], "there is no silence \"77\""),
        (&["maintenance", "end", "77"], "there is no maintenance \"77\""),
    ] {
        let text = said(args);
        assert!(text.contains(wanted), "{args:?}: {text:?} lacks {wanted:?}");
    }
    let viewer = world.dir.path().join("viewer");
    std::fs::write(&viewer, said(&["operator", "add", "eve", "--role", "viewer"])).unwrap();
    let viewer = viewer.to_str().unwrap();
    let all = [
        "silence",
        "add",
        "--box",
        "*",
        "--for",
        "1h",
        "--reason",
        "x",
        "--token-file",
        viewer,
    ];
    assert!(said(&all).contains("needs the role operator"));
    let pending = world.json(&[
        "silence",
        "add",
        "--kind",
        "disk",
        "--severity",
        "page",
        "--from",
        "2099-12-24T22:00",
        "--until",
        "2099-12-26T00:00",
        "--tz",
        "Europe/Berlin",
        "--reason",
        "holidays",
    ]);
    assert_eq!(
        (&pending["state"], &pending["from"]),
        (&json!("pending"), &json!("2099-12-24T21:00:00Z"))
    );
    assert!(said(&["silence", "list", "--token-file", viewer]).contains("kind=disk severity=page"));
    let ended = world.json(&["silence", "expire", &id(&pending)]);
    assert_eq!(ended["state"], "expired");
}
