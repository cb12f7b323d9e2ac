//! The shell that pings a service outside while this server is [`healthy`], and stops when it is not. The service then
//! raises the alarm by a way that has nothing to do with this server.
//!
//! It speaks what healthchecks.io, Cronitor and Uptime Kuma take: a `GET` or `POST` of a secret URL; and, if there is a
//! `fail_url`, a `POST` with the reasons in its body once they change. It repairs nothing.
//!
//! On a thread of its own: a task that blocks a thread of the server's runtime may stop every timer of that runtime. The
//! pings would stop as well then, which is right; but nobody could say why.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::healthy::{Facts, Sick, healthy};
use super::metrics::DeadManMetrics;
use crate::liveness::time::Moment;
use crate::notify::retry::RETRY_AFTER_MAX;
use crate::settings::{DeadMan, PingMethod, SecretUrl};
use crate::sweep::view::NotReady;
use crate::web::state::App;

/// The service does not accept a connection in this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The service does not answer in this time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A ping that was not taken is repeated after this: the service waits for a whole interval and its grace only.
const AGAIN: Duration = Duration::from_secs(10);
/// How long the store may take: longer than it waits for somebody else's lock, so that its own words are heard.
const STORE_WAIT: Duration = Duration::from_secs(8);
/// A notification that was not tried for so long is tried by nobody: longer than the longest wait that a receiver may ask
/// for.
const UNTRIED: Duration = Duration::from_secs(RETRY_AFTER_MAX.as_secs() + 60);
/// The first look after the start: the sweep has turned by then.
const FIRST: Duration = Duration::from_secs(1);

/// What is remembered from ping to ping.
#[derive(Default)]
struct Said {
    /// The reasons that were logged last.
    sick: Vec<&'static str>,
    /// The reasons that the service was told.
    told: Vec<&'static str>,
    /// What went wrong with the last ping.
    failure: Option<String>,
}

/// The client that [`run`] pings with.
pub fn client() -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("fleet-server/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .build()
}

/// Pings from a thread of its own, until `stop` ends or is dropped.
pub fn spawn(
    app: Arc<App>,
    settings: DeadMan,
    client: reqwest::Client,
    metrics: DeadManMetrics,
    stop: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let work = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = stop => {}
                () = run(app, settings, client, metrics) => {}
            }
        });
    };
    std::thread::Builder::new()
        .name("dead man".to_owned())
        .spawn(work)
        .map(drop)
}

async fn run(app: Arc<App>, settings: DeadMan, client: reqwest::Client, metrics: DeadManMetrics) {
    let mut said = Said::default();
    tokio::time::sleep(FIRST.min(settings.every)).await;
    let mut looks = tokio::time::interval(settings.every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let facts = look(&app, settings.unheard_after).await;
        let now = Moment {
            mono: app.clock.mono(),
            wall: app.clock.wall(),
        };
        let verdict = healthy(&facts, now);
        show(&metrics, &verdict);
        said.log(&verdict);
        match verdict {
            Ok(()) => {
                said.told.clear();
                let taken = ping(&client, &settings.url, settings.method, String::new()).await;
                let outcome = if taken.is_ok() { "sent" } else { "failed" };
                metrics.pings.with_label_values(&[outcome]).inc();
                if taken.is_ok() {
                    let now = app.clock.wall().as_second();
                    metrics.last_success.with_label_values::<&str>(&[]).set(now);
                } else {
                    looks.reset_after(AGAIN.min(settings.every));
                }
                said.log_failure(taken.err());
            }
            Err(sick) => {
                metrics.pings.with_label_values(&["withheld"]).inc();
                if let Some(url) = &settings.fail_url {
                    said.tell(&client, url, &sick).await;
                }
            }
        }
    }
}

/// What [`healthy`] needs to know: a real write to the store is among it.
async fn look(app: &App, unheard_after: Duration) -> Facts {
    let store = app.store.with_timeout(STORE_WAIT);
    let now = app.clock.wall();
    let written = store.call("a write", move |store| store.ping(now)).await;
    let tried_since = now.checked_sub(UNTRIED).unwrap_or(Timestamp::MIN);
    let unheard = store
        .call("read what waits", move |store| store.unheard(tried_since))
        .await;
    let health = app.view.health();
    let store_error = match health.judges {
        Err(NotReady::StoreFailing(error)) => Some(error),
        Err(NotReady::WarmingUp | NotReady::Blind | NotReady::Overloaded) | Ok(()) => None,
    };
    let (unheard, unread) = match unheard {
        Ok(unheard) => (unheard, None),
        Err(err) => (Vec::new(), Some(err.to_string())),
    };
    Facts {
        last_turn: health.last_turn,
        written: written.map_err(|err| err.to_string()),
        store_error: store_error.or(unread),
        // The canary's own sink is nobody.
        unheard: unheard
            .into_iter()
            .filter(|unheard| unheard.receiver != super::rows::SINK)
            .collect(),
        unheard_after,
    }
}

fn show(metrics: &DeadManMetrics, verdict: &Result<(), Vec<Sick>>) {
    metrics.healthy.set(i64::from(verdict.is_ok()));
    let words = verdict.as_ref().err().map(|sick| words(sick)).unwrap_or_default();
    for reason in ["loop", "store", "outbox"] {
        let there = i64::from(words.contains(&reason));
        metrics.sick.with_label_values(&[reason]).set(there);
    }
}

impl Said {
    fn log(&mut self, verdict: &Result<(), Vec<Sick>>) {
        let found = verdict.as_ref().err().map(|sick| words(sick)).unwrap_or_default();
        if found == self.sick {
            return;
        }
        match verdict {
            Ok(()) => tracing::info!("well again: the dead man's service is pinged"),
            Err(sick) => {
                tracing::error!(
                    "not well, so the dead man's service is not pinged: {}",
                    sentence(sick)
                );
            }
        }
        self.sick = found;
    }

    fn log_failure(&mut self, failure: Option<String>) {
        if let Some(text) = failure
            .as_ref()
            .filter(|text| self.failure.as_ref() != Some(*text))
        {
            tracing::warn!("the dead man's service did not take a ping: {text}");
        }
        self.failure = failure;
    }

    /// Tells the service why, once for each set of reasons.
    async fn tell(&mut self, client: &reqwest::Client, url: &SecretUrl, sick: &[Sick]) {
        let reasons = words(sick);
        if reasons == self.told {
            return;
        }
        let taken = ping(client, url, PingMethod::Post, sentence(sick)).await;
        if taken.is_ok() {
            self.told = reasons;
        }
        self.log_failure(taken.err());
    }
}

fn words(sick: &[Sick]) -> Vec<&'static str> {
    let mut words: Vec<&'static str> = sick.iter().map(Sick::as_str).collect();
    words.dedup();
    words
}

fn sentence(sick: &[Sick]) -> String {
    let texts: Vec<String> = sick.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The text of a failure names the host, never the URL.
async fn ping(
    client: &reqwest::Client,
    url: &SecretUrl,
    method: PingMethod,
    body: String,
) -> Result<(), String> {
    let place = url.expose().host_str().unwrap_or("?").to_owned();
    let request = match method {
        PingMethod::Get => client.get(url.expose().clone()),
        PingMethod::Post => client.post(url.expose().clone()).body(body),
    };
    let answer = request
        .send()
        .await
        .map_err(|err| format!("{place}: {}", innermost(&err.without_url())))?;
    if answer.status().is_success() {
        return Ok(());
    }
    Err(format!("{place} answered {}", answer.status()))
}

fn innermost(err: &dyn std::error::Error) -> String {
    match err.source() {
        Some(source) => innermost(source),
        None => err.to_string(),
    }
}
