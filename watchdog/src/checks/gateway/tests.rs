//! The whole check against a service manager, a `/proc` and a Hermes home made of data.

use std::path::Path;

use jiff::Timestamp;
use tokio::net::TcpListener;

use super::*;
use crate::settings::{HermesSettings, Probe, ProbeTarget, RestartPolicy, Scope};
use crate::systemd::fake::FakeManager;
use crate::systemd::{LoadState, Stamp};

const NOW: i64 = 1_795_291_200;
const MONOTONIC: u64 = 10_000;
const PID: u32 = 700;

/// A box made of files.
struct Place {
    root: tempfile::TempDir,
    ctx: Context,
    settings: GatewaySettings,
    manager: FakeManager,
    history: GatewayHistory,
}

fn unit_name() -> UnitName {
    UnitName::new("hermes-gateway.service").unwrap()
}

fn ago(secs: u64) -> Stamp {
    Stamp {
        realtime_us: (NOW as u64 - secs) * 1_000_000,
        monotonic_us: (MONOTONIC - secs) * 1_000_000,
    }
}

fn running(up: u64) -> UnitFacts {
    UnitFacts {
        load: LoadState::Loaded,
        active: ActiveState::Active,
        sub: "running".into(),
        result: "success".into(),
        restart: "always".into(),
        restart_prevent: vec![78],
        main_pid: Some(PID),
        main_start: ago(up),
        active_enter: ago(up),
        inactive_exit: ago(up),
        state_change: ago(up),
        conditions_held: true,
        ..UnitFacts::default()
    }
}

impl Place {
    fn new(facts: UnitFacts) -> Self {
        let root = tempfile::tempdir().unwrap();
        let ctx = Context {
            now: Timestamp::from_second(NOW).unwrap(),
            root: root.path().to_owned(),
            operator_stops: vec![],
            uptime_secs: MONOTONIC,
            monotonic: Duration::from_secs(MONOTONIC),
            boot_id: "boot-a".into(),
        };
        let unit = unit_name();
        let settings = GatewaySettings {
            unit: unit.clone(),
            scope: Scope::System,
            restart: RestartPolicy {
                unit: unit.clone(),
                after: 3,
                max: 3,
                window: Duration::from_secs(3600),
                grace: Duration::from_secs(120),
            },
            probes: vec![],
            hermes: None,
            timeout: Duration::from_secs(20),
        };
        let place = Self {
            root,
            ctx,
            settings,
            manager: FakeManager::with(&unit, facts),
            history: GatewayHistory::default(),
        };
        place.process('S');
        place
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn process(&self, state: char) {
        self.write(
            &format!("proc/{PID}/stat"),
            &format!("{PID} (hermes) {state} 1 0 0 0 0 0 0 0 0 0 0 0 0 0 20 0 1 0 55 0 0"),
        );
    }

    /// With a Hermes home whose heartbeat is `age` seconds old.
    fn hermes(mut self, age: u64) -> Self {
        self.settings.hermes = Some(HermesSettings {
            home: Some("/hermes".into()),
            heartbeat_stale: Duration::from_secs(90),
            cron_stale: Duration::from_secs(180),
            cron_success_stale: Duration::from_secs(300),
        });
        self.write(
            "hermes/state/gateway.heartbeat",
            &format!(r#"{{"pid":{PID},"monotonic":{}.0}}"#, MONOTONIC - age),
        );
        self
    }

    fn probe(mut self, target: ProbeTarget) -> Self {
        self.settings.probes.push(Probe {
            target,
            timeout: Duration::from_millis(200),
        });
        self
    }

    async fn check(&mut self) -> Finding {
        let history = std::mem::take(&mut self.history);
        let (finding, history) = check(&self.settings, history, &self.ctx, &self.manager).await;
        // What is kept must survive the state file.
        self.history = serde_json::from_str(&serde_json::to_string(&history).unwrap()).unwrap();
        assert_eq!(self.history, history);
        assert!(
            finding.summary.contains("hermes-gateway.service"),
            "{}",
            finding.summary
        );
        assert_eq!(finding.subject, Some(unit_name()));
        finding
    }
}

fn said(finding: &Finding) -> (Status, KnownWhy, Option<KnownWhy>) {
    (
        finding.status,
        finding.why,
        finding.hold.as_ref().map(|hold| hold.why),
    )
}

/// A port that accepts and never answers, as a hung gateway does.
async fn mute_port() -> (TcpListener, ProbeTarget) {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/health", port.local_addr().unwrap());
    (port, ProbeTarget::Http(url.parse().unwrap()))
}

#[tokio::test]
async fn a_plain_running_unit_is_fine_and_a_stopped_process_is_found_without_a_probe() {
    let mut place = Place::new(running(3600));
    let fine = place.check().await;
    assert_eq!(said(&fine), (Status::Ok, KnownWhy::Fine, None));
    assert_eq!(fine.values["active_state"], "active");
    place.process('T');
    let stopped = place.check().await;
    assert_eq!(said(&stopped), (Status::Failing, KnownWhy::ProcessStopped, None));
    place.process('t');
    let debugged = place.check().await;
    assert_eq!(debugged.hold.map(|hold| hold.why), Some(KnownWhy::ProcessStopped));
    // A process that this user may not see says nothing.
    std::fs::remove_dir_all(place.root.path().join("proc")).unwrap();
    assert_eq!(place.check().await.why, KnownWhy::Fine);
}

#[tokio::test]
async fn active_but_hung_is_found_after_the_grace() {
    let (_port, target) = mute_port().await;
    let mut place = Place::new(running(3600)).probe(target);
    let hung = place.check().await;
    assert_eq!(said(&hung), (Status::Failing, KnownWhy::ProbeTimedOut, None));
    assert!(
        hung.summary.contains("hangs") && hung.summary.contains("no answer within 200 ms"),
        "{}",
        hung.summary
    );
    place.manager.set(&unit_name(), Ok(running(119)));
    let young = place.check().await;
    assert_eq!(said(&young), (Status::Unknown, KnownWhy::StartupGrace, None));
    place.manager.set(&unit_name(), Ok(running(120)));
    assert_eq!(place.check().await.why, KnownWhy::ProbeTimedOut);
}

/// A gateway on its way down closes its port before systemd sees it go.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_asked_for_again_before_it_counts() {
    let closed = {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap();
        ProbeTarget::Tcp(port.local_addr().unwrap())
    };
    let mut place = Place::new(running(3600)).probe(closed);
    assert_eq!(
        said(&place.check().await),
        (Status::Failing, KnownWhy::ProbeRefused, None)
    );

    let stopping = UnitFacts {
        active: ActiveState::Deactivating,
        sub: "stop-post".into(),
        state_change: ago(0),
        timeout_stop: Some(Duration::from_secs(60)),
        ..running(3600)
    };
    place.manager.then(&unit_name(), stopping);
    assert_eq!(place.check().await.why, KnownWhy::InTransition);
}

#[tokio::test]
async fn a_stale_heartbeat_is_a_hang_and_an_idle_gateway_is_not() {
    let mut hung = Place::new(running(3600)).hermes(91);
    assert_eq!(
        said(&hung.check().await),
        (Status::Failing, KnownWhy::LoopHung, None)
    );

    let mut idle = Place::new(running(9000)).hermes(20);
    idle.write(
        "hermes/gateway_state.json",
        &format!(
            r#"{{"pid":{PID},"start_time":55,"gateway_state":"running","updated_at":"2020-01-01T00:00:00Z"}}"#
        ),
    );
    let finding = idle.check().await;
    assert_eq!(said(&finding), (Status::Ok, KnownWhy::Fine, None));
    assert_eq!(finding.values["gateway_state"], "running");
    assert_eq!(finding.values["heartbeat_age_secs"], 20);
}

#[tokio::test]
async fn another_process_state_is_not_believed() {
    let mut place = Place::new(running(9000)).hermes(20);
    let state =
        |start: u32| format!(r#"{{"pid":{PID},"start_time":{start},"gateway_state":"startup_failed"}}"#);
    place.write("hermes/gateway_state.json", &state(54));
    assert_eq!(place.check().await.why, KnownWhy::Fine);
    place.write("hermes/gateway_state.json", &state(55));
    assert_eq!(
        said(&place.check().await),
        (Status::Warning, KnownWhy::Degraded, None)
    );
}

#[tokio::test]
async fn a_fence_excuses_silence_and_forbids_a_restart() {
    let mut place = Place::new(running(3600)).hermes(500);
    place.write(
        "hermes/.drain_request.json",
        &format!(r#"{{"requested_at":"{}"}}"#, place.ctx.now),
    );
    let fenced = place.check().await;
    let drains = Some(KnownWhy::FenceDrain);
    assert_eq!(said(&fenced), (Status::Warning, KnownWhy::FenceDrain, drains));
    assert_eq!(fenced.values["fences"], serde_json::json!(["fence_drain"]));
    // It does not excuse a process that was stopped, but no restart comes either.
    place.process('T');
    assert_eq!(
        said(&place.check().await),
        (Status::Failing, KnownWhy::ProcessStopped, drains)
    );
    place.process('S');
    place.ctx.now += jiff::SignedDuration::from_secs(3601);
    assert_eq!(
        said(&place.check().await),
        (Status::Failing, KnownWhy::LoopHung, None),
        "a stale fence holds nothing"
    );
}

#[tokio::test]
async fn an_interrupted_install_hides_no_hang_but_forbids_a_restart() {
    let mut place = Place::new(running(3600)).hermes(500);
    place.write(
        "hermes/hermes-agent/.update-incomplete",
        &format!("started={}\npid=1\n", NOW - 60),
    );
    assert_eq!(
        said(&place.check().await),
        (
            Status::Failing,
            KnownWhy::LoopHung,
            Some(KnownWhy::FenceUpdateIncomplete)
        )
    );
}

#[tokio::test]
async fn an_unreadable_home_is_unknown_unless_the_unit_tells() {
    let mut place = Place::new(running(3600)).hermes(20);
    std::fs::remove_dir_all(place.root.path().join("hermes")).unwrap();
    let unknown = place.check().await;
    assert_eq!(said(&unknown), (Status::Unknown, KnownWhy::CheckError, None));
    let fallen = UnitFacts {
        active: ActiveState::Failed,
        result: "start-limit-hit".into(),
        ..running(3600)
    };
    place.manager.set(&unit_name(), Ok(fallen));
    assert_eq!(place.check().await.why, KnownWhy::UnitFailed);
}

#[tokio::test]
async fn a_crash_loop_is_found_over_the_runs_and_forgotten_with_the_boot() {
    let looping = |restarts| UnitFacts {
        active: ActiveState::Activating,
        sub: "auto-restart".into(),
        result: "exit-code".into(),
        exit_code: 1,
        exit_status: 200,
        restarts,
        main_pid: None,
        ..running(1)
    };
    let mut place = Place::new(looping(4));
    assert_eq!(place.check().await.why, KnownWhy::AutoRestart);
    place.ctx.monotonic += Duration::from_secs(120);
    place.manager.set(&unit_name(), Ok(looping(28)));
    let found = place.check().await;
    assert_eq!(said(&found), (Status::Failing, KnownWhy::CrashLoop, None));
    assert!(found.summary.contains("status 200"), "{}", found.summary);
    place.ctx.boot_id = "boot-b".into();
    place.ctx.monotonic = Duration::from_secs(60);
    place.manager.set(&unit_name(), Ok(looping(2)));
    assert_eq!(place.check().await.why, KnownWhy::AutoRestart);
}

#[tokio::test]
async fn a_stop_seen_by_the_resident_part_counts_for_its_own_unit_only() {
    let fallen = UnitFacts {
        active: ActiveState::Failed,
        restart: "no".into(),
        result: "exit-code".into(),
        exit_code: 1,
        exit_status: 1,
        main_exit: ago(20),
        active_exit: ago(19),
        ..running(3600)
    };
    let mut place = Place::new(fallen);
    let other = UnitName::new("other.service").unwrap();
    place.ctx.operator_stops = vec![(other, place.ctx.now)];
    assert_eq!(
        said(&place.check().await),
        (Status::Failing, KnownWhy::UnitFailed, None)
    );
    place.ctx.operator_stops.push((unit_name(), place.ctx.now));
    let held = Some(KnownWhy::OperatorStopped);
    assert_eq!(
        said(&place.check().await),
        (Status::Warning, KnownWhy::OperatorStopped, held)
    );
}

#[tokio::test]
async fn a_manager_that_does_not_answer_is_unknown_and_keeps_the_history() {
    let mut place = Place::new(running(3600));
    place.check().await;
    let before = place.history.clone();
    let error = ManagerError::TimedOut {
        bus: "the system bus".into(),
        call: "LoadUnit".into(),
    };
    place.manager.set(&unit_name(), Err(error));
    assert_eq!(
        said(&place.check().await),
        (Status::Unknown, KnownWhy::ManagerUnreachable, None)
    );
    assert_eq!(place.history, before);
}

#[tokio::test]
async fn a_probe_that_cannot_be_made_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let stamp = dir.path().join("stamp");
    std::fs::write(&stamp, "").unwrap();
    // Dated after this box's now: no age can be told.
    let target = ProbeTarget::File {
        path: Path::new(&stamp).to_owned(),
        max_age: Duration::from_secs(180),
    };
    let mut place = Place::new(running(3600)).probe(target);
    place.ctx.now = Timestamp::from_second(1_000_000_000).unwrap();
    assert_eq!(
        said(&place.check().await),
        (Status::Unknown, KnownWhy::CheckError, None)
    );
}
