//! The genuine third-party programs themselves, without our watchdog: that they still show what its checks rest on.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::genuine::fastclock;
use crate::genuine::hermes;
use crate::genuine::tailscale::boxed;
use crate::genuine::tailscale::hosted::Daemon;
use crate::genuine::tailscale::rows::{ROWS, Rig, Row};
use crate::genuine::tailscale::{ControlPlane, LocalApi, Policy, Status};
use crate::lab::{BoxSpec, Lab};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "genuine::tailscale_rows",
        &[Need::Root, Need::Tailscale],
        60,
        tailscale_rows,
    ),
    Scenario::new(
        "genuine::tailscale_on_the_host",
        &[Need::Root, Need::Tailscale],
        5,
        tailscale_on_the_host,
    ),
    Scenario::new(
        "genuine::hermes_hangs_and_loops",
        &[Need::Root, Need::Hermes],
        90,
        hermes_hangs_and_loops,
    ),
    Scenario::new(
        "genuine::hermes_on_a_fast_clock",
        &[Need::Root, Need::Hermes, Need::FastClock],
        50,
        hermes_on_a_fast_clock,
    ),
];

/// What tailscaled answers in each state: `BackendState`, node key, `Self.Online`, whether a key expiry is told, and
/// the structured warnings; or how its socket fails.
const ANSWERS: &[(&str, &str)] = &[
    ("working", "Running key online"),
    ("control_dead", "Running key offline"),
    ("control_hung", "Running key online"),
    ("network_down", "Running key offline network-status!"),
    ("relay_dead", "Running key online no-derp-connection!"),
    ("never_logged_in", "NeedsLogin no-key offline wantrunning-false"),
    ("logged_out", "NeedsLogin no-key offline wantrunning-false"),
    ("key_expired_told", "NeedsLogin key online expiry"),
    ("key_date_passed_untold", "Running key online expiry"),
    ("key_expires_in_10_days", "Running key online expiry"),
    ("key_expires_in_1_day", "Running key online expiry"),
    ("not_approved", "NeedsMachineAuth key online"),
    ("switched_off", "Stopped key offline wantrunning-false"),
    ("bad_key", "NeedsLogin no-key offline login-state"),
    ("started_without_control", "NoState key offline login-state"),
    ("daemon_terminated", "NotFound"),
    ("daemon_killed", "ConnectionRefused"),
    ("daemon_hung", "WouldBlock"),
];

fn tailscale_rows(lab: &Lab) -> Result<()> {
    assert_eq!(ROWS.len(), ANSWERS.len(), "a row without an answer");
    let mut rig = Rig::new(lab, &resource(Need::Tailscale)?, BoxSpec::new("box-1"))?;
    for (name, answer) in ANSWERS {
        let row = Row::named(name)?;
        row.bring(&mut rig)?;
        let api = rig.local_api()?;
        // Some answers take a moment to settle (a refused login changes its mind for a second).
        let mut last = String::new();
        let settled = clock::wait_until(&format!("{name}: {answer}"), secs(15), || {
            last = answer_of(&api);
            last == *answer
        });
        lab.say(&format!(
            "{name}: {last}; {}",
            api.status().map_or_else(|err| format!("{err:#}"), |s| s.digest())
        ));
        settled.with_context(|| format!("it says {last:?}"))?;
    }
    Ok(())
}

/// For what a fleet server asks its own tailscaled.
fn tailscale_on_the_host(lab: &Lab) -> Result<()> {
    let programs = resource(Need::Tailscale)?;
    let plane = ControlPlane::start(lab, &programs, &Policy::default())?;
    let made = lab.boot(boxed::with_tailscale(BoxSpec::new("box-1"), &programs))?;
    boxed::join(&made, &plane, "any")?;
    let daemon = Daemon::start(lab, &programs, "server")?;
    daemon.join(&plane, "any", "server")?;
    daemon.local_api().wait_for("up", secs(20), Status::is_up)?;
    let line = || daemon.command(&["ping", "--c=1", "--timeout=2s", "box-1"]);
    clock::wait_for("a ping through the tunnel", secs(20), || line().ok()).map(|said| lab.say(&said))
}

fn answer_of(api: &LocalApi) -> String {
    match (api.status(), api.warnings()) {
        (Ok(status), Ok(warnings)) => {
            let mut words = vec![status.state().to_owned()];
            words.push(if status.has_node_key() { "key" } else { "no-key" }.to_owned());
            words.push(if status.online() { "online" } else { "offline" }.to_owned());
            words.extend(status.key_expiry().map(|_| "expiry".to_owned()));
            let impacts = |warning: &Value| {
                if warning["ImpactsConnectivity"] == true {
                    "!"
                } else {
                    ""
                }
            };
            words.extend(
                warnings
                    .iter()
                    .map(|(code, warning)| format!("{code}{}", impacts(warning))),
            );
            words.join(" ")
        }
        (Err(err), _) | (_, Err(err)) => {
            let io = err
                .chain()
                .find_map(|cause| cause.downcast_ref::<std::io::Error>());
            io.map_or_else(|| format!("{err:#}"), |io| format!("{:?}", io.kind()))
        }
    }
}

fn hermes_hangs_and_loops(lab: &Lab) -> Result<()> {
    let made = lab.boot(hermes::with_hermes(
        BoxSpec::new("box-1"),
        &resource(Need::Hermes)?,
    ))?;
    hermes::install_crash_looping(&made)?;
    made.wait_until(
        &format!("[ $(systemctl show -P NRestarts {}) -ge 2 ]", hermes::UNIT),
        secs(30),
    )?;
    lab.say(&made.run_ok(&format!(
        "systemctl show {} -p ActiveState,SubState,Result,NRestarts,ExecMainStatus",
        hermes::UNIT
    ))?);
    hermes::give_home_to_user(&made)?;
    let start = clock::now();
    hermes::wait_healthy(&made)?;
    lab.figure(
        "healthy after the crash loop, s",
        format!("{:.1}", start.elapsed().as_secs_f64()),
    );
    hermes::command(&made, "backup --quick")?.ok()?;
    made.run_ok(&format!(
        "test -s {}/state-snapshots/*/manifest.json",
        hermes::HOME
    ))?;
    hermes::admin_command(&made, "gateway restart --system")?.ok()?;
    hermes::wait_healthy(&made)?;
    hermes::hang(&made)?;
    assert_eq!(made.unit(hermes::UNIT, "SubState")?, "running");
    hermes::take_flag_away(&made)?;
    let start = clock::now();
    made.run_within(&format!("systemctl restart {}", hermes::UNIT), secs(150))?
        .ok()?;
    lab.figure(
        "restart of a hung gateway, s",
        format!("{:.1}", start.elapsed().as_secs_f64()),
    );
    hermes::wait_healthy(&made)
}

fn hermes_on_a_fast_clock(lab: &Lab) -> Result<()> {
    let spec = hermes::with_hermes(BoxSpec::new("box-1"), &resource(Need::Hermes)?);
    let made = lab.boot(fastclock::with_fastclock(spec, &resource(Need::FastClock)?))?;
    hermes::install_gateway(&made)?;
    let fast = hermes::put_on_fast_clock(&made, 20)?;
    let started: i64 = made.run_ok(&fast.line("date +%s"))?.parse()?;
    for minute in 1..=10 {
        clock::pause(fast.real(secs(60)));
        let ages = "now=$(date +%s); echo $now $((now - $(stat -c %Y state/gateway.heartbeat))) \
                    $((now - $(stat -c %Y cron/ticker_heartbeat)))";
        let ages = made.run_ok(&format!(
            "cd {}; {}",
            hermes::HOME,
            fast.line(&format!("sh -c '{ages}'"))
        ))?;
        lab.say(&format!(
            "minute {minute}: now, age of the heartbeat, age of the ticker: {ages}"
        ));
        let ages: Vec<i64> = ages.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        ensure!(ages[0] - started >= 60 * minute, "the clock does not run fast");
        ensure!(
            (-1..90).contains(&ages[1]),
            "a heartbeat every 30 s of its own clock"
        );
        ensure!((-1..180).contains(&ages[2]), "a tick every 60 s of its own clock");
        ensure!(hermes::is_healthy(&made, 2.0)?, "the health page answers");
    }
    Ok(())
}
