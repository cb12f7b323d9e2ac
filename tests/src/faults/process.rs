//! The server's process: killed, stopped, asked to end, and started again when it is wanted and not there, as a service
//! manager would.
//!
//! It writes down when the server served.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use protocol::api::{BoxPage, IncidentPage};
use protocol::mute::SilencePage;
use serde::de::DeserializeOwned;

use super::history::{Books, Restart, ServerTruth, Span, end};
use crate::clock;
use crate::lab::Lab;
use crate::server::FleetServer;

/// Between two attempts to start it.
const START_AGAIN: Duration = Duration::from_millis(200);

/// Turns moments into milliseconds since the start.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    start: Instant,
    wall: Timestamp,
}

impl Clock {
    /// Zero is now.
    #[expect(clippy::disallowed_methods, reason = "incidents carry the wall clock's time")]
    pub(super) fn start() -> Self {
        Self {
            start: clock::now(),
            wall: Timestamp::now(),
        }
    }

    /// Now.
    pub(super) fn ms(&self) -> i64 {
        self.ms_of(clock::now())
    }

    /// A moment.
    pub(super) fn ms_of(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.start).as_millis() as i64
    }

    /// The wall clock's time at zero.
    pub(super) fn wall(&self) -> Timestamp {
        self.wall
    }
}

/// The server under its service manager.
pub(super) struct Process {
    server: Arc<FleetServer>,
    clock: Clock,
    wanted: bool,
    hung: bool,
    next_start: Option<Instant>,
    /// The last books before an end that was not followed by a start yet.
    before: Option<(bool, Books)>,
    pub(super) truth: ServerTruth,
    pub(super) restarts: Vec<Restart>,
}

impl Process {
    /// Not started yet.
    pub(super) fn prepare(
        lab: &Lab,
        clock: Clock,
        config: &str,
        environment: Vec<(String, String)>,
    ) -> Result<Self> {
        Ok(Self {
            server: Arc::new(FleetServer::prepare(lab, ("server", 8470), config, environment)?),
            clock,
            wanted: false,
            hung: false,
            next_start: None,
            before: None,
            truth: ServerTruth::default(),
            restarts: Vec::new(),
        })
    }

    /// Its URL.
    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    /// Where its data is.
    pub(super) fn data_dir(&self) -> &Path {
        self.server.data_dir()
    }

    /// Its log.
    pub(super) fn log(&self) -> String {
        self.server.log()
    }

    /// Whether it can be asked something now.
    pub(super) fn serves(&self) -> bool {
        !self.hung
            && self
                .truth
                .serving
                .last()
                .is_some_and(|span| span.to_ms == Span::OPEN)
    }

    /// Whether it judges.
    pub(super) fn is_ready(&self) -> bool {
        self.server
            .get("/readyz")
            .is_ok_and(|answer| answer.status == 200)
    }

    /// Wanted from now on; [`tend`](Self::tend) starts it.
    pub(super) fn want(&mut self) {
        self.wanted = true;
        self.next_start = None;
    }

    /// Starts it if it is wanted and not there. `ill`: its disk takes nothing.
    pub(super) fn tend(&mut self, ill: bool) {
        if !self.wanted || self.hung {
            return;
        }
        if self.server.is_running() {
            return;
        }
        if self.serves() {
            let at = self.clock.ms();
            end(&mut self.truth.serving, at);
            self.truth.died_ms.push(at);
            if !ill {
                self.truth.fell_ms.push(at);
            }
        }
        if self.next_start.is_some_and(|next| clock::now() < next) {
            return;
        }
        match self.server.start_again() {
            Ok(_) => self.started(),
            Err(_) => self.next_start = Some(clock::now() + START_AGAIN),
        }
    }

    fn started(&mut self) {
        self.next_start = None;
        self.truth.serving.push(Span::begun(self.clock.ms()));
        if let Some((asked, before)) = self.before.take()
            && let Ok(after) = self.books()
        {
            self.restarts.push(Restart { asked, before, after });
        }
    }

    /// SIGKILL, after a look at the books.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.remember(false);
        self.kill_at_once()
    }

    /// SIGKILL, now.
    pub(super) fn kill_at_once(&mut self) -> Result<()> {
        self.wanted = false;
        if !self.server.is_running() {
            return Ok(());
        }
        let at = self.clock.ms();
        self.go_on()?;
        self.server.kill()?;
        end(&mut self.truth.serving, at);
        self.truth.died_ms.push(at);
        Ok(())
    }

    /// SIGTERM, and waits. `ill`: its disk takes nothing, so it may say that it could not write all.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.wanted = false;
        if !self.server.is_running() {
            return Ok(());
        }
        self.go_on()?;
        self.remember(true);
        let at = self.clock.ms();
        self.server.stop()?;
        end(&mut self.truth.serving, at);
        Ok(())
    }

    /// SIGSTOP.
    pub(super) fn hang(&mut self) -> Result<()> {
        if self.server.is_running() && !self.hung {
            self.server.hang()?;
            self.hung = true;
            self.truth.hung.push(Span::begun(self.clock.ms()));
        }
        Ok(())
    }

    /// SIGCONT.
    pub(super) fn go_on(&mut self) -> Result<()> {
        if self.hung {
            if self.server.is_running() {
                self.server.go_on()?;
            }
            self.hung = false;
            end(&mut self.truth.hung, self.clock.ms());
        }
        Ok(())
    }

    /// What the API says now.
    pub(super) fn books(&self) -> Result<Books> {
        self.operator().books()
    }

    /// Somebody who speaks to the API, on a thread of their own if they like.
    pub(super) fn operator(&self) -> Operator {
        Operator {
            server: Arc::clone(&self.server),
            clock: self.clock,
        }
    }

    fn remember(&mut self, asked: bool) {
        if self.server.is_running()
            && self.serves()
            && let Ok(books) = self.books()
        {
            self.before = Some((asked, books));
        }
    }
}

/// Somebody with the admin's token.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    server: Arc<FleetServer>,
    clock: Clock,
}

impl Operator {
    /// Now.
    pub(super) fn ms(&self) -> i64 {
        self.clock.ms()
    }

    /// What the API says now.
    pub(super) fn books(&self) -> Result<Books> {
        let at_ms = self.clock.ms();
        let boxes: BoxPage = self.ask("/v1/boxes")?;
        let incidents: IncidentPage = self.ask("/v1/incidents")?;
        let silences: SilencePage = self.ask("/v1/silences")?;
        if boxes.next_page.is_some() || incidents.next_page.is_some() || silences.next_page.is_some() {
            bail!("more boxes, incidents or silences than one page of the API holds");
        }
        Ok(Books {
            at_ms,
            boxes: boxes.boxes,
            incidents: incidents.incidents,
            silences: silences.silences,
        })
    }

    /// POST by the admin, which must be answered with 2xx.
    pub(super) fn post(&self, path: &str, body: &str) -> Result<serde_json::Value> {
        self.server.admin("POST", path, body)?.json()
    }

    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.server.admin("GET", path, "")?;
        serde_json::from_value(answer.json()?).with_context(|| format!("GET {path}"))
    }
}
