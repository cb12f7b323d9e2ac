//! The loop against a server in the same process, over real loopback connections, in paused time.

use std::path::Path;

use protocol::heartbeat::Heartbeat;
use tokio::time::Instant as Tick;

use super::*;
use crate::beat::played::{Does, Server, answer, tick};
use crate::config::{Surroundings, parse};
use crate::systemd::follow::{JobKind, Seen};

const SECOND: Duration = Duration::from_secs(1);

/// The clocks that silences are counted by, made to follow the virtual one: each test's begins at a day.
pub(super) fn as_virtual(moment: Moment, now: Instant) -> Moment {
    thread_local! {
        static ORIGIN: std::cell::OnceCell<(Instant, Timestamp)> = const { std::cell::OnceCell::new() };
    }
    ORIGIN.with(|origin| {
        let (began, wall) = *origin.get_or_init(|| (now, moment.wall));
        let since = now.saturating_duration_since(began);
        let boot = Duration::from_secs(86_400) + since;
        Moment {
            wall: wall + since,
            boot,
            monotonic: boot,
        }
    })
}

mod silences;

struct Watchdog {
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    news: mpsc::Sender<News>,
    departures: mpsc::Sender<Departure>,
    ended: tokio::task::JoinHandle<()>,
}

impl Watchdog {
    fn start(urls: &[&str], more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let token = dir.path().join("token");
        std::fs::write(&token, "t0ken\n").unwrap();
        Self::start_in(dir, urls, more)
    }

    fn start_in(dir: tempfile::TempDir, urls: &[&str], more: &str) -> Self {
        let token = dir.path().join("token");
        let config = format!(
            "[box]\nname = \"box-1\"\n[server]\nurls = {urls:?}\ntoken_file = {token:?}\n{more}\n[gateway]\nunit = \"gateway.service\"\n"
        );
        let around = Surroundings {
            hostname: "box-1".to_owned(),
            state_directory: Some(dir.path().to_owned()),
            runtime_directory: None,
            credentials_directory: None,
        };
        let settings = parse(Path::new("test.toml"), config.as_bytes(), &around).unwrap();
        let (mut resident, mut inbox) = Resident::new(settings, Notifier::from_env()).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (news, departures) = (inbox.tell_news.clone(), inbox.tell_departure.clone());
        let ended = tokio::spawn(async move {
            resident
                .turn(&mut inbox, async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self {
            dir,
            stop: Some(stop),
            news,
            departures,
            ended,
        }
    }

    async fn end(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(SECOND * 8, self.ended)
            .await
            .expect("shutdown is bounded")
            .unwrap();
    }
}

fn sleep(time: Duration) -> tokio::time::Sleep {
    tokio::time::sleep(time)
}

fn between(taken: &[(Tick, Heartbeat)], from: Tick, to: Tick) -> usize {
    taken.iter().filter(|(at, _)| *at >= from && *at < to).count()
}

fn seen(active: &str) -> News {
    News::Unit {
        unit: "gateway.service".parse().unwrap(),
        seen: Seen {
            active: active.to_owned(),
            sub: "running".to_owned(),
            result: None,
            restarts: 0,
        },
    }
}

#[tokio::test(start_paused = true)]
async fn one_beat_a_second_on_one_connection_numbered_in_order() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 60 + SECOND / 2).await;
    let taken = server.taken();
    assert_eq!(taken.len(), 61);
    assert_eq!(server.seen.lock().unwrap().most_open, 1);
    for (n, (_, beat)) in taken.iter().enumerate() {
        assert_eq!(beat.seq, n as u64 + 1);
        assert_eq!((beat.every_ms, beat.check_every_secs), (1000, Some(120)));
    }
    a_box.end().await;
}

/// Each kind of trouble: neither the trouble nor its end costs more than it must.
#[tokio::test(start_paused = true)]
async fn no_server_blocks_the_schedule() {
    let troubles = [
        Does::Hangs,
        Does::HalfAnswers,
        Does::Garbles,
        Does::Floods,
        Does::Closes,
        Does::Resets,
        Does::TakesLate(Duration::from_millis(2500)),
        Does::TakesLate(SECOND * 30),
        Does::Says("HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"),
        Does::Says("HTTP/1.1 302 Found\r\nlocation: https://elsewhere/\r\ncontent-length: 0\r\n\r\n"),
    ];
    for trouble in troubles {
        let server = Server::start().await;
        let healthy = Server::start().await;
        let a_box = Watchdog::start(&[&server.url, &healthy.url], "");
        sleep(SECOND * 5 + SECOND / 2).await;
        server.does(trouble);
        let (begin, before) = (tick(), server.seen.lock().unwrap().received);
        sleep(SECOND * 9).await;
        let received = server.seen.lock().unwrap().received - before;
        assert!(received >= 9, "{trouble:?}: {received} beats in its first 9 s");
        sleep(SECOND * 21).await;
        server.does(Does::Takes);
        let end = tick();
        sleep(SECOND * 10).await;
        let taken = server.taken();
        let back = taken
            .iter()
            .map(|t| t.0)
            .find(|at| *at > end)
            .expect("beats again");
        assert!(
            back - end <= SECOND * 4,
            "{trouble:?}: back after {:?}",
            back - end
        );
        assert!(
            between(&taken, end + SECOND * 4, end + SECOND * 10) >= 6,
            "{trouble:?}"
        );
        assert!(server.seen.lock().unwrap().most_open <= LANES + 1, "{trouble:?}");
        let mut seqs: Vec<u64> = taken.iter().map(|(_, beat)| beat.seq).collect();
        seqs.dedup();
        assert!(seqs.is_sorted(), "{trouble:?}: {seqs:?}");
        // The other server did not notice.
        let beats = between(&healthy.taken(), begin, begin + SECOND * 40);
        assert_eq!(beats, 40, "{trouble:?}");
        a_box.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_goes_out_once_again_when_asked_and_never_silences_the_box() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 3).await;
    let report = crate::beat::body::tests::report();
    std::fs::write(
        a_box.dir.path().join("report.json"),
        serde_json::to_vec(&report).unwrap(),
    )
    .unwrap();
    sleep(SECOND * 5).await;
    let carried = || {
        server
            .taken()
            .iter()
            .filter(|(_, beat)| beat.report.is_some())
            .count()
    };
    assert_eq!(carried(), 1);
    assert_eq!(server.taken().last().unwrap().1.report_id, Some(report.id));

    let again = answer("200 OK", r#"{"every_ms":1000,"want_report":true}"#);
    server.first.lock().unwrap().push_back(again);
    sleep(SECOND * 3).await;
    assert_eq!(carried(), 2);

    let mut other = report.clone();
    other.id = Uuid::new_v4();
    std::fs::write(
        a_box.dir.path().join("report.json"),
        serde_json::to_vec(&other).unwrap(),
    )
    .unwrap();
    server.does(Does::RefusesReports);
    let begin = tick();
    sleep(SECOND * 6).await;
    assert_eq!(carried(), 2, "what was refused is not sent again");
    assert!(
        between(&server.taken(), begin, tick()) >= 5,
        "the beats go on without it"
    );
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_report_is_said_to_be_old() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "[checks]\nevery = \"10s\"");
    sleep(SECOND * 19).await;
    assert_eq!(server.taken().last().unwrap().1.report_stale_secs, None);
    sleep(SECOND * 4).await;
    let stale = server.taken().last().unwrap().1.report_stale_secs;
    assert!(stale.is_some_and(|secs| (20..=23).contains(&secs)), "{stale:?}");
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_told_at_once_and_an_operators_stop_is_kept() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    a_box.news.send(seen("active")).await.unwrap();
    sleep(SECOND * 3 + SECOND / 2).await;
    let at = tick();
    a_box.news.send(seen("failed")).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let (when, beat) = server.taken().last().unwrap().clone();
    assert!(when - at < Duration::from_millis(50));
    assert_eq!(beat.units[0].active.as_str(), "failed");
    assert!(!beat.units[0].stopped_by_operator);

    a_box.news.send(seen("active")).await.unwrap();
    let unit = || "gateway.service".parse().unwrap();
    let job = News::JobNew { unit: unit(), id: 1 };
    a_box.news.send(job).await.unwrap();
    let kind = JobKind::Stop;
    let stop = News::JobKind {
        unit: unit(),
        id: 1,
        kind,
    };
    a_box.news.send(stop).await.unwrap();
    a_box.news.send(seen("failed")).await.unwrap();
    sleep(SECOND * 2).await;
    assert!(server.taken().last().unwrap().1.units[0].stopped_by_operator);
    let stops = files::read_stops(a_box.dir.path()).unwrap();
    assert_eq!(stops.len(), 1);
    a_box.news.send(seen("active")).await.unwrap();
    sleep(SECOND * 2).await;
    assert_eq!(files::read_stops(a_box.dir.path()).unwrap(), []);
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_said_before_the_machine_goes_and_taken_back_when_it_stays() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "[heartbeat]\nback_within = \"5m\"");
    sleep(SECOND * 3 + SECOND / 2).await;
    let (said, heard) = oneshot::channel();
    let going = Departure::Going {
        why: GoodbyeWhy::Reboot,
        said,
    };
    let asked = tick();
    a_box.departures.send(going).await.unwrap();
    let _ = heard.await;
    assert!(
        tick() - asked < SECOND,
        "logind's lock is held {:?}",
        tick() - asked
    );
    let beat = server.taken().last().unwrap().1.clone();
    assert_eq!(
        beat.goodbye,
        Some(Goodbye {
            why: GoodbyeWhy::Reboot,
            back_within_secs: 300
        })
    );
    let before = server.taken().len();
    sleep(SECOND * 5).await;
    assert_eq!(
        server.taken().len(),
        before,
        "a beat after the goodbye would take it back"
    );
    a_box.departures.send(Departure::Staying).await.unwrap();
    sleep(SECOND * 3).await;
    let taken = server.taken();
    assert!(taken.len() >= before + 3 && taken.last().unwrap().1.goodbye.is_none());
    a_box.end().await;
    assert_eq!(
        server.seen.lock().unwrap().goodbyes.len(),
        2,
        "SIGTERM said one, too"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_hangs_holds_the_shutdown_three_seconds_at_most() {
    let (hanging, fine) = (Server::start().await, Server::start().await);
    let a_box = Watchdog::start(&[&hanging.url, &fine.url], "");
    sleep(SECOND * 3).await;
    hanging.does(Does::Hangs);
    let (said, heard) = oneshot::channel();
    let asked = tick();
    a_box
        .departures
        .send(Departure::Going {
            why: GoodbyeWhy::Poweroff,
            said,
        })
        .await
        .unwrap();
    let _ = heard.await;
    assert!(tick() - asked <= GOODBYE_MAX + SECOND / 10);
    assert_eq!(fine.seen.lock().unwrap().goodbyes, [GoodbyeWhy::Poweroff]);
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_taken_up_and_a_wrong_one_beats_slowly() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 3).await;
    "n3w".clone_into(&mut server.token.lock().unwrap());
    let before = server.seen.lock().unwrap().received;
    sleep(SECOND * 120).await;
    let slow = server.seen.lock().unwrap().received - before;
    assert!((3..=6).contains(&slow), "{slow} beats in two minutes");
    std::fs::write(a_box.dir.path().join("token"), "n3w\n").unwrap();
    let begin = tick();
    sleep(SECOND * 60).await;
    assert!(
        between(&server.taken(), begin, tick()) >= 29,
        "rotated within half a minute"
    );
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_box_enrolled_later_needs_no_restart() {
    let server = Server::start().await;
    let dir = tempfile::tempdir().unwrap();
    let a_box = Watchdog::start_in(dir, &[&server.url], "");
    sleep(SECOND * 30).await;
    assert_eq!(server.seen.lock().unwrap().received, 0);
    std::fs::write(a_box.dir.path().join("token"), "t0ken\n").unwrap();
    sleep(SECOND * 10).await;
    assert!(server.taken().len() >= 5);
    a_box.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_knows_a_newer_beat_gets_a_new_session() {
    let server = Server::start().await;
    let a_box = Watchdog::start(&[&server.url], "");
    sleep(SECOND * 3).await;
    let old = server.taken().last().unwrap().1.session;
    let newer = r#"{"type":"/problems/old-seq","title":"Old","status":409}"#;
    server
        .first
        .lock()
        .unwrap()
        .push_back(answer("409 Conflict", newer));
    sleep(SECOND * 3).await;
    let (_, beat) = server.taken().last().unwrap().clone();
    assert_ne!(beat.session, old);
    assert!(beat.seq <= 3, "{}", beat.seq);
    a_box.end().await;
}
