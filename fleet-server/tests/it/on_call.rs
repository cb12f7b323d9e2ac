//! Who is told when, through the real binaries: steps, acknowledgement, reminders over a kill; what flaps; hours; how
//! loud an operator wants it.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::mutes::{QUICK, SimBox, wall};
use crate::proof::{Outside, Process, pause, receiver, wait_for};

/// A step is looked for every second, and a busy machine needs its time.
const LATE: f64 = 4.0;

struct World {
    dir: tempfile::TempDir,
    server: Process,
    url: Arc<Mutex<String>>,
    config: String,
}

/// One notification, as it arrived.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    event: String,
    note: String,
    summary: String,
}

impl World {
    fn new(config: String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start(dir.path(), &config);
        let url = Arc::new(Mutex::new(server.url.clone()));
        Self {
            dir,
            server,
            url,
            config,
        }
    }

    fn ctl(&self, args: &[&str]) -> String {
        self.server.ctl(self.dir.path(), args)
    }

    fn add(&self, name: &str, tier: &str, n: u8) -> SimBox {
        let token = self.ctl(&["box", "add", name, "--label", &format!("tier={tier}")]);
        let sim = SimBox::start(&self.url, &token, n);
        self.wait("beat", || {
            self.ctl(&["box", "show", name]).contains("live").then_some(())
        });
        sim
    }

    fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        wait_for(what, &self.server, look)
    }

    /// Waits for the `n`-th notification that `who` gets about `name`.
    fn nth(&self, who: &Outside, name: &str, n: usize) -> Told {
        self.wait(&format!("notification {n} about {name}"), || {
            told(who, name).get(n).cloned()
        })
    }

    fn kill_and_restart(&mut self) {
        self.server.kill();
        self.server = start(self.dir.path(), &self.config);
        self.url.lock().unwrap().clone_from(&self.server.url);
    }
}

fn start(dir: &Path, config: &str) -> Process {
    Process::start(dir, &format!("{QUICK}{config}"))
}

/// What `who` was told about `name`.
fn told(who: &Outside, name: &str) -> Vec<Told> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = who.alerts();
    let about = alerts
        .iter()
        .filter(|(_, _, alert)| alert["incident"]["box"] == name);
    about
        .map(|(_, event, alert)| Told {
            event: event.clone(),
            note: text(&alert["note"]),
            summary: text(&alert["incident"]["summary"]),
        })
        .collect()
}

fn seconds_since(then: Timestamp) -> f64 {
    wall().duration_since(then).as_secs_f64()
}

#[test]
fn steps_acknowledgement_and_reminders_over_a_kill() {
    let [team, phone, boss, mail] = std::array::from_fn(|_| Outside::start());
    let receivers = [
        ("team", &team),
        ("phone", &phone),
        ("boss", &boss),
        ("mail", &mail),
    ];
    let receivers: String = receivers
        .iter()
        .map(|(name, outside)| receiver(name, outside))
        .collect();
    // Hours of which now is none: this route is passed over.
    let closed = wall() + SignedDuration::from_hours(3);
    let (from, to) = (
        closed.strftime("%H:00"),
        (closed + SignedDuration::from_hours(2)).strftime("%H:00"),
    );
    let mut world = World::new(format!(
        "{receivers}
        [[route]]
        receivers = [\"mail\"]
        when = {{ hours = \"{from}-{to}\", time_zone = \"UTC\" }}
        [[route]]
        match = {{ severity = \"page\" }}
        receivers = [\"team\"]
        steps = [{{ after = \"3s\", receivers = [\"phone\"] }}, {{ after = \"6s\", receivers = [\"boss\"] }}]
        remind = \"3s\"
        [[route]]
        receivers = [\"mail\"]
        [[severity]]
        match = {{ kind = \"box_dark\", labels = {{ tier = \"dev\" }} }}
        severity = \"ticket\"
        "
    ));
    let web = world.add("web-1", "gold", 1);
    let dev = world.add("dev-1", "dev", 2);

    // A ticket by the operator's rule goes another way.
    dev.is_up(false);
    assert_eq!(world.nth(&mail, "dev-1", 0).event, "opened");
    assert!(told(&team, "dev-1").is_empty());

    // Nobody acknowledges: the phone, in its time, although the server is killed meanwhile.
    web.is_up(false);
    assert_eq!(world.nth(&team, "web-1", 0).event, "opened");
    let opened = team.alerts()[0].2["incident"]["opened_at"].clone();
    let opened: Timestamp = opened.as_str().unwrap().parse().unwrap();
    world.kill_and_restart();
    let step = world.nth(&phone, "web-1", 0);
    let after = seconds_since(opened);
    assert!(
        (3.0..3.0 + LATE).contains(&after),
        "the phone rang after {after} s"
    );
    assert_eq!(
        (step.event.as_str(), step.note.as_str()),
        ("opened", "nobody has acknowledged it within 3.0 s")
    );

    // In hand: those who know hear of it, and nobody else does.
    let id = team.alerts()[0].2["incident"]["id"].to_string();
    let shown = world.ctl(&["incident", "ack", &id, "--note", "on my way"]);
    assert!(shown.contains("acked by admin"), "{shown}");
    for who in [&team, &phone] {
        let heard = || {
            told(who, "web-1")
                .into_iter()
                .find(|told| told.note.starts_with("acknowledged"))
        };
        let heard = world.wait("acknowledgement", heard);
        assert_eq!(
            (heard.event.as_str(), heard.note.as_str()),
            ("updated", "acknowledged by admin: on my way")
        );
    }
    let quiet = told(&team, "web-1").len();
    pause(Duration::from_secs(5));
    assert_eq!(
        told(&team, "web-1").len(),
        quiet,
        "no reminder of what is in hand"
    );
    assert!(told(&boss, "web-1").is_empty(), "no step either");

    // Given back: the steps begin anew, and reminders come.
    let given = wall();
    let shown = world.ctl(&["incident", "unack", &id]);
    assert!(
        shown.contains("unacknowledged") && !shown.contains("acked by"),
        "{shown}"
    );
    let first = world.nth(&boss, "web-1", 0);
    let after = seconds_since(given);
    assert!(
        (6.0..6.0 + LATE).contains(&after),
        "the boss was told after {after} s"
    );
    assert_eq!(first.event, "opened");
    let reminders = || {
        let told = told(&team, "web-1");
        told.into_iter()
            .filter(|told| told.note.starts_with("reminder: open for "))
            .count()
    };
    world.wait("reminder", || (reminders() > 0).then_some(()));

    // The end is for those who know.
    web.is_up(true);
    for who in [&team, &phone, &boss] {
        world.wait("end", || {
            told(who, "web-1")
                .last()
                .is_some_and(|told| told.event == "resolved")
                .then_some(())
        });
    }
    assert!(told(&mail, "web-1").is_empty(), "not in those hours");
    assert_eq!(told(&phone, "dev-1"), vec![]);
    let history = world.ctl(&["incident", "show", &id]);
    for line in [
        "acknowledged",
        "by admin: on my way",
        "unacknowledged",
        "nobody has acknowledged it within 6.0 s",
        "reminder: open for",
    ] {
        assert!(history.contains(line), "{history} lacks {line:?}");
    }
}

#[test]
fn a_box_that_flaps_is_told_with_its_count_and_its_end_once() {
    let people = Outside::start();
    let mut world = World::new(format!(
        "{}[flapping]\nafter = 3\nwithin = \"5m\"\ncalm = \"4s\"\n",
        receiver("people", &people)
    ));
    let web = world.add("web-1", "gold", 3);
    let id = || people.alerts().last().unwrap().2["incident"]["id"].to_string();
    for n in 0..2 {
        web.is_up(false);
        assert_eq!(world.nth(&people, "web-1", 2 * n).event, "opened");
        web.is_up(true);
        assert_eq!(world.nth(&people, "web-1", 2 * n + 1).event, "resolved");
    }
    web.is_up(false);
    let third = world.nth(&people, "web-1", 4);
    assert!(
        third.event == "opened" && third.summary.starts_with("flapping, 3 times in "),
        "{third:?}"
    );
    let held = |world: &World| world.ctl(&["incident", "show", &id()]).contains("calm_since");
    web.is_up(true);
    world.wait("calm", || held(&world).then_some(()));
    // Twice more, and killed in between: nobody hears of it.
    world.kill_and_restart();
    for _ in 0..2 {
        web.is_up(false);
        world.wait("darkness", || (!held(&world)).then_some(()));
        web.is_up(true);
        world.wait("calm", || held(&world).then_some(()));
    }
    let end = world.nth(&people, "web-1", 5);
    assert!(
        end.event == "resolved" && end.summary.contains("after it flapped 5 times in "),
        "{end:?}"
    );
    let history = world.ctl(&["incident", "show", &id()]);
    assert!(history.matches("well for now").count() == 3, "{history}");
    pause(Duration::from_secs(1));
    assert_eq!(told(&people, "web-1").len(), 6, "nothing besides");
}
