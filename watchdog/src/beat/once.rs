//! One beat to every server, for `[heartbeat] mode = "timer"`: carries the report and says when the next is due.
//!
//! It keeps no connection and no state. Units are not followed in this mode, and no goodbye is said.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderValue;
use jiff::Timestamp;
use protocol::heartbeat::Paused;
use protocol::limits;
use protocol::report::Report;
use uuid::Uuid;

use super::BeatError;
use super::answer::{self, Meaning};
use super::body::Body;
use super::lane::{Connection, Order, Progress};
use super::sender::chain;
use super::target::{HEARTBEAT, Target, tls_config};
use crate::clock;
use crate::config::read_token;
use crate::pause::{self, Pause};
use crate::settings::Settings;
use crate::state_dir::StateDir;

/// What a timer's next beat may be late by on a healthy box, besides the checks' own time: the unit's
/// `RandomizedDelaySec=10s` and `AccuracySec=1s`, and a busy machine.
pub const TIMER_SPREAD: Duration = Duration::from_secs(15);
/// All servers are asked at once, and have this long.
const ALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Addresses tried, one after the other.
const TRIES: u32 = 3;

/// See [`super::send_once`].
pub(super) async fn send(settings: &Settings, report: &Report, next_in: Duration) -> Result<(), BeatError> {
    let server = settings.server.as_ref().ok_or(BeatError::NoServer)?;
    let token = read_token(server)?;
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
        .map_err(|_| BeatError::NotTaken("the token has characters that no token has".to_owned()))?;
    authorization.set_sensitive(true);
    let secure = server.urls.iter().any(|url| url.scheme() == "https");
    let tls = if secure {
        Some(tls_config(server.ca_file.as_deref())?)
    } else {
        None
    };
    let wall = clock::now().wall;
    let mut sends = Vec::new();
    for url in &server.urls {
        let target = Arc::new(Target::new(url, HEARTBEAT, tls.as_ref())?);
        let boot_id = clock::boot_id().unwrap_or(Uuid::nil());
        let mut body = Body::new(boot_id, Uuid::new_v4(), settings.run.every);
        body.set_paused(paused(settings, wall));
        if let Err(error) = body.set_report(Box::new(report.clone())) {
            tracing::warn!("the report cannot be sent: {error}");
        }
        let every = (next_in + TIMER_SPREAD + settings.run.check_timeout).min(limits::INTERVAL_MAX);
        let beat = Beat {
            body,
            every,
            wall,
            authorization: authorization.clone(),
        };
        sends.push(async move {
            let timed = tokio::time::timeout(ALL_TIMEOUT, deliver(&target, beat)).await;
            timed.unwrap_or_else(|_| Err(format!("{}: no answer within {ALL_TIMEOUT:?}", target.label)))
        });
    }
    let failed: Vec<String> = join_all(sends)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    if failed.is_empty() {
        Ok(())
    } else {
        Err(BeatError::NotTaken(failed.join("; ")))
    }
}

struct Beat {
    body: Body,
    every: Duration,
    wall: Timestamp,
    authorization: HeaderValue,
}

async fn deliver(target: &Arc<Target>, mut beat: Beat) -> Result<(), String> {
    let mut trouble = String::new();
    let mut report = true;
    for turn in 0..TRIES {
        let mut connection = match Connection::open(target, turn, &Progress::default()).await {
            Ok(connection) => connection,
            Err(error) => {
                trouble = chain(&error);
                continue;
            }
        };
        let order = Order {
            late_too: false,
            authorization: Some(beat.authorization.clone()),
            body: beat.body.write(beat.wall, beat.every, report, None).json,
        };
        let answer = match connection.exchange(order).await {
            Ok(answer) => answer,
            Err(error) => {
                trouble = chain(&error);
                continue;
            }
        };
        let (meaning, text) = answer::read(&answer);
        trouble = format!("{} {text}", target.label);
        match meaning {
            Meaning::Taken(_) => return Ok(()),
            // A box must not go dark over a report.
            Meaning::Invalid => report = false,
            Meaning::Trouble => {}
            Meaning::SlowDown(_) | Meaning::BadToken | Meaning::OldSeq | Meaning::Replaced => break,
        }
    }
    Err(trouble)
}

fn paused(settings: &Settings, now: Timestamp) -> Option<Paused> {
    match pause::read(&StateDir::new(&settings.state_dir), now) {
        Pause::Until(paused) => Some(paused),
        Pause::None | Pause::Unreadable(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::beat::body::tests::report;
    use crate::beat::played::{Does, Server};
    use crate::config::{Surroundings, parse};

    fn settings(dir: &Path, urls: &[&str]) -> Settings {
        let token = dir.join("token");
        std::fs::write(&token, "t0ken\n").unwrap();
        let config =
            format!("[server]\nurls = {urls:?}\ntoken_file = {token:?}\n[heartbeat]\nmode = \"timer\"\n");
        let around = Surroundings {
            hostname: "box-1".to_owned(),
            state_directory: Some(dir.to_owned()),
            runtime_directory: None,
            credentials_directory: None,
        };
        parse(Path::new("test.toml"), config.as_bytes(), &around).unwrap()
    }

    #[tokio::test]
    async fn every_server_is_told_when_the_next_one_is_due() {
        let dir = tempfile::tempdir().unwrap();
        let (one, picky) = (Server::start().await, Server::start().await);
        picky.does(Does::RefusesReports);
        let settings = settings(dir.path(), &[&one.url, &picky.url]);
        let period = Duration::from_secs(120);
        send(&settings, &report(), period).await.unwrap();
        let (_, beat) = one.taken().pop().unwrap();
        let promised = Duration::from_millis(beat.every_ms);
        assert!(
            promised > period + Duration::from_secs(11),
            "the timer's own spread is in it: {promised:?}"
        );
        assert_eq!(beat.report.as_deref(), Some(&*report()));
        let (_, bare) = picky.taken().pop().unwrap();
        assert!(
            bare.report.is_none() && bare.report_id.is_some(),
            "a refused report does not silence the box"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_named_and_delays_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (hangs, takes) = (Server::start().await, Server::start().await);
        hangs.does(Does::Hangs);
        let settings = settings(dir.path(), &[&hangs.url, &takes.url]);
        let report = report();
        let sending = send(&settings, &report, Duration::from_secs(120));
        let error = tokio::time::timeout(ALL_TIMEOUT * 2, sending)
            .await
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&hangs.url) && !error.contains(&takes.url),
            "{error}"
        );
        assert_eq!(takes.taken().len(), 1);
    }
}
