//! The server's desk: its real planner of notifications, and its real store with the outbox, in memory.
//!
//! What the sweep's shell does around them, without the shell: a change is planned and written with its rows in one
//! transaction; once a second the planner is asked what time alone has made due. Sending is [`post`](crate::post)'s.

use std::path::Path;
use std::time::Duration;

use fleet_server::incident::change::Change;
use fleet_server::liveness::time::{Moment, Mono};
use fleet_server::notify::outbox::OutboxRow;
use fleet_server::notify::plan::{Nudge, Planner};
use fleet_server::settings::Settings;
use fleet_server::store::sqlite::SqliteStore;
use fleet_server::store::{Loaded, Store, StoreError};
use jiff::Timestamp;

/// Who is told of what: as a small team has it. Everything else is the default.
pub const CONFIG: &str = r#"
[[receiver]]
name = "on-call"
webhook = { url = "http://on-call.invalid/" }
[[receiver]]
name = "second"
webhook = { url = "http://second.invalid/" }
[[receiver]]
name = "chat"
webhook = { url = "http://chat.invalid/" }
[[route]]
match = { severity = "page" }
receivers = ["on-call", "chat"]
steps = [{ after = "5m", receivers = ["second"] }]
remind = "1h"
[[route]]
receivers = ["chat"]
"#;

/// The receiver whose openings are what the person on call feels.
pub const ON_CALL: &str = "on-call";

/// As the sweep has it.
const LOOK: Duration = Duration::from_secs(1);
/// Incidents that ended lately and are read at a start, as the server has it.
const ENDED: u32 = 20_000;

/// The server's settings in every simulation.
pub fn settings() -> Settings {
    let parsed = fleet_server::config::parse(Path::new("simulated.toml"), CONFIG.as_bytes());
    parsed.unwrap_or_else(|error| unreachable!("the configuration is valid: {error}"))
}

/// Planner and store.
pub struct Desk {
    planner: Planner,
    store: SqliteStore,
    receivers: Vec<String>,
    looked_at: Mono,
    next: Mono,
}

impl Desk {
    /// Nothing is open, nothing waits.
    pub fn new(settings: &Settings) -> Self {
        let receivers: Vec<String> = settings
            .receivers
            .iter()
            .map(|one| one.name.to_string())
            .collect();
        Self {
            planner: planner(settings, &receivers),
            store: must(SqliteStore::in_memory()),
            receivers,
            looked_at: Mono::default(),
            next: Mono::NEVER,
        }
    }

    /// The receivers' names, in the configuration's order.
    pub fn receivers(&self) -> &[String] {
        &self.receivers
    }

    /// The outbox.
    pub fn store(&mut self) -> &mut SqliteStore {
        &mut self.store
    }

    /// Another process reads what this one wrote.
    pub fn restart(&mut self, settings: &Settings, now: Moment) -> Loaded {
        let mut loaded = must(self.store.load());
        self.planner = planner(settings, &self.receivers);
        let told = must(self.store.told());
        self.planner.restore(&loaded.incidents, &told);
        if let Some(flapping) = settings.incidents.flapping {
            let since = now.wall.saturating_sub(flapping.within).unwrap_or(Timestamp::MIN);
            loaded.ended = must(self.store.ended_since(since, ENDED));
        }
        self.looked_at = now.mono;
        self.looks_again();
        loaded
    }

    /// Plans `changes`, and writes them with their rows. Answers with those rows.
    pub fn decided(&mut self, changes: &[Change], now: Moment) -> Vec<OutboxRow> {
        if changes.is_empty() {
            return Vec::new();
        }
        let plan = |change| self.planner.plan(change, now.wall);
        let rows: Vec<OutboxRow> = changes.iter().flat_map(plan).collect();
        must(self.store.commit(changes, &rows));
        self.looks_again();
        rows
    }

    /// What time alone has made due.
    pub fn due(&mut self, now: Moment) -> Vec<Nudge> {
        if now.mono < self.next {
            return Vec::new();
        }
        self.looked_at = now.mono;
        let due = self.planner.due(now.wall);
        self.looks_again();
        due
    }

    /// Before this nothing is.
    pub fn next_look(&self) -> Mono {
        self.next
    }

    fn looks_again(&mut self) {
        self.next = self.planner.next_look().map_or(Mono::NEVER, |wall| {
            let since = Duration::try_from(wall.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
            (Mono::default() + since).max(self.looked_at + LOOK)
        });
    }
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("planner", &self.planner)
            .finish_non_exhaustive()
    }
}

fn planner(settings: &Settings, receivers: &[String]) -> Planner {
    Planner::new(receivers.to_vec(), settings.routes.clone())
}

/// A database in memory does not fail; if it does, nothing that follows is worth anything.
pub(crate) fn must<T>(done: Result<T, StoreError>) -> T {
    done.unwrap_or_else(|error| panic!("the store in memory: {error}"))
}
