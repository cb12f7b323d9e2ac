//! The shell of the canary: a box inside this server that beats through its own listener, falls silent on a schedule,
//! and waits for the notification of its death.
//!
//! It is a box like any other for ingest, liveness, incidents, store and outbox; but it lives in memory only (a new token
//! at each start, nothing left behind), counts in no census and no list, and its incidents go to its [`sink`](super::sink).
//! When it dies and what that proves is decided in [`rounds`](super::rounds).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::incident::EventKind;
use protocol::names::Labels;
use protocol::secret::Secret;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use super::metrics::CanaryMetrics;
use super::rounds::{Outcome, Rounds, Sees};
use super::rows::SINK;
use super::sink::Delivery;
use crate::directory::TokenHash;
use crate::incident::canary::{Failed, is_canarys, name};
use crate::liveness::BoxIx;
use crate::liveness::time::Mono;
use crate::settings::CanarySettings;
use crate::store::{BoxId, BoxRecord, TokenRecord};
use crate::sweep::view::NotReady;
use crate::web::state::App;

/// A beat that is not answered in this time is lost.
const BEAT_TIMEOUT: Duration = Duration::from_secs(5);
/// While it is silent the canary looks this often whether a real receiver has been told.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The canary, before it lives.
pub struct Canary {
    settings: CanarySettings,
    token: Secret,
    client: reqwest::Client,
    arrived: mpsc::Receiver<Delivery>,
    metrics: CanaryMetrics,
}

/// While it lives.
struct Life {
    canary: Canary,
    app: Arc<App>,
    ix: BoxIx,
    url: String,
    rounds: Rounds,
    boot_id: Uuid,
    session: Uuid,
    seq: u64,
    taken: Option<Mono>,
    error: Option<String>,
    /// Incidents of which the sink has heard that they opened, the newest last.
    heard: Vec<i64>,
    said: Option<&'static str>,
}

impl Canary {
    /// With the token of its record, and what arrives at its sink.
    pub fn new(
        settings: CanarySettings,
        token: Secret,
        arrived: mpsc::Receiver<Delivery>,
        metrics: CanaryMetrics,
    ) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(concat!("fleet-canary/", env!("CARGO_PKG_VERSION")))
            .timeout(BEAT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(1)
            // It speaks to a port that this very process has bound, by an address that no certificate names.
            .tls_danger_accept_invalid_certs(true)
            .build()?;
        Ok(Self {
            settings,
            token,
            client,
            arrived,
            metrics,
        })
    }

    /// The box that it is.
    pub fn record(&self, at: Timestamp) -> BoxRecord {
        let token = TokenRecord {
            hash: TokenHash::of(&self.token),
            created_at: at,
            expires_at: None,
        };
        BoxRecord {
            id: BoxId::CANARY,
            name: name(),
            labels: Labels::default(),
            declared: Labels::default(),
            witnesses: protocol::witness::Targets::default(),
            added_at: at,
            tokens: vec![token],
        }
    }

    /// Lives as the box at `ix`, beating to the listener at `address`. Never ends.
    pub async fn run(self, app: Arc<App>, ix: BoxIx, address: SocketAddr, tls: bool) {
        let scheme = if tls { "https" } else { "http" };
        let life = Life {
            url: format!("{scheme}://{}/v1/heartbeat", reachable(address)),
            rounds: Rounds::new(&self.settings, app.clock.mono()),
            canary: self,
            app,
            ix,
            boot_id: Uuid::new_v4(),
            session: Uuid::new_v4(),
            seq: 0,
            taken: None,
            error: None,
            heard: Vec::new(),
            said: None,
        };
        life.run().await;
    }
}

impl Life {
    async fn run(mut self) {
        let mut beats = tokio::time::interval(self.app.every);
        let mut looks = tokio::time::interval(LOOK_EVERY);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = beats.tick(), if self.rounds.beats() => self.beat().await,
                Some(delivery) = self.canary.arrived.recv() => self.hear(&delivery),
                _ = looks.tick(), if !self.rounds.beats() => {}
            }
            let sees = self.sees().await;
            let Some(outcome) = self.rounds.step(&sees) else {
                continue;
            };
            // As a restarted watchdog, so that its silences teach nothing about its path.
            self.session = Uuid::new_v4();
            self.seq = 0;
            self.came(outcome);
        }
    }

    async fn beat(&mut self) {
        self.seq += 1;
        let body = json!({
            "boot_id": self.boot_id, "session": self.session, "seq": self.seq,
            "every_ms": self.app.every.as_millis() as u64, "sent_at": self.app.clock.wall(),
        });
        let sent = self
            .canary
            .client
            .post(&self.url)
            .bearer_auth(self.canary.token.expose())
            .json(&body)
            .send()
            .await;
        // The body is read, so that the connection is kept.
        let answer = match sent {
            Ok(answer) => {
                let status = answer.status();
                answer.bytes().await.map(|_| status)
            }
            Err(err) => Err(err),
        };
        self.error = match answer {
            Ok(status) if status.is_success() => {
                self.taken = Some(self.app.clock.mono());
                None
            }
            Ok(status) => Some(format!("answered {status}")),
            Err(err) => Some(innermost(&err.without_url())),
        };
    }

    fn hear(&mut self, delivery: &Delivery) {
        let alert = &delivery.alert;
        if alert.event == EventKind::Opened && is_canarys(&alert.incident) {
            self.heard.push(alert.incident.id);
            let surplus = self.heard.len().saturating_sub(16);
            self.heard.drain(..surplus);
        }
    }

    async fn sees(&self) -> Sees {
        let health = self.app.view.health();
        let view = self.app.view.one(self.ix);
        let state = view.as_ref().map_or(Liveness::Unseen, |view| view.state);
        Sees {
            now: self.app.clock.mono(),
            judges: health.judges.as_ref().copied().map_err(word),
            pauses: health.pauses,
            state,
            dark_after: view.map_or(Duration::ZERO, |view| view.dark_after),
            taken: self.taken,
            error: self.error.clone(),
            missing: self.missing().await,
        }
    }

    /// Who has not been told of this death. What arrives late of an earlier one tells nothing.
    async fn missing(&self) -> Vec<String> {
        if self.rounds.beats() {
            return Vec::new();
        }
        let real = self.canary.settings.receiver.as_ref().map(ToString::to_string);
        let all = || [SINK.to_owned()].into_iter().chain(real.clone()).collect();
        let open = self.app.view.open(is_canarys).into_iter().next();
        let Some(id) = open.map(|incident| incident.id) else {
            return all();
        };
        let mut missing = Vec::new();
        if !self.heard.contains(&id) {
            missing.push(SINK.to_owned());
        }
        if let Some(real) = real.clone() {
            let waiting = self
                .app
                .store
                .call("read what waits", move |store| store.waiting_for(id));
            // Decided, but perhaps not yet written: what the sink has not heard of nobody has.
            match waiting.await {
                Ok(waiting) if missing.is_empty() && !waiting.contains(&real) => {}
                Ok(_) | Err(_) => missing.push(real),
            }
        }
        missing
    }

    fn came(&mut self, outcome: Outcome) {
        let metrics = &self.canary.metrics;
        let count = |result: &str| metrics.runs.with_label_values(&[result]).inc();
        match outcome {
            Outcome::Proven(took) => {
                count("proven");
                metrics.took.observe(took.as_secs_f64());
                let now = self.app.clock.wall().as_second();
                metrics.last_success.with_label_values::<&str>(&[]).set(now);
                self.app.intake.canary(Ok(()));
                if self.said.take().is_some() {
                    tracing::info!(
                        seconds = took.as_secs_f64(),
                        "the canary's death was notified again"
                    );
                }
            }
            Outcome::Skipped(why) => {
                count("skipped");
                if self.said != Some(why) {
                    tracing::info!(why, "the canary's run is skipped: the server judges nobody now");
                }
                self.said = Some(why);
            }
            Outcome::Failed(failed) => {
                count("failed");
                let stage = failed.stage.as_str();
                if self.said != Some(stage) {
                    let Failed {
                        waited,
                        missing,
                        error,
                        ..
                    } = &failed;
                    tracing::error!(
                        stage,
                        waited_secs = waited.as_secs_f64(),
                        ?missing,
                        ?error,
                        "the canary's run failed"
                    );
                }
                self.said = Some(stage);
                self.app.intake.canary(Err(failed));
            }
        }
    }
}

/// Where an address that is bound can be reached from within.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

fn word(why: &NotReady) -> &'static str {
    match why {
        NotReady::WarmingUp => "warming_up",
        NotReady::Blind => "blind",
        NotReady::Overloaded => "overloaded",
        NotReady::StoreFailing(_) => "store",
    }
}

fn innermost(err: &dyn std::error::Error) -> String {
    match err.source() {
        Some(source) => innermost(source),
        None => err.to_string(),
    }
}
