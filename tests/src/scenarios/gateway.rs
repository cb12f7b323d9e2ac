//! A genuine Hermes gateway that hangs or loops is found and mended, and one that is merely idle or busy with itself is
//! not touched.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::hermes_box;
use crate::clock::{self, secs};
use crate::genuine::fastclock;
use crate::genuine::hermes::{self, HEALTH, UNIT};
use crate::lab::{BoxSpec, Lab, TestBox};
use crate::reports::{RUN, by_hand, by_timer, run_now, wait_report};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "gateway::hung_found_by_http",
        &[Need::Root, Need::Hermes],
        150,
        hung_by_http,
    ),
    Scenario::new(
        "gateway::hung_found_by_preset",
        &[Need::Root, Need::Hermes],
        200,
        hung_by_preset,
    ),
    Scenario::new(
        "gateway::busy_seen_by_preset",
        &[Need::Root, Need::Hermes],
        80,
        busy_seen_by_preset,
    ),
    Scenario::new(
        "gateway::busy_seen_by_http",
        &[Need::Root, Need::Hermes],
        80,
        busy_seen_by_http,
    ),
    Scenario::new(
        "gateway::idle_for_ten_minutes",
        &[Need::Root, Need::Hermes, Need::FastClock],
        90,
        idle,
    ),
    Scenario::new(
        "gateway::genuine_crash_loop",
        &[Need::Root, Need::Hermes],
        90,
        crash_loop,
    ),
];

pub(super) const OTHERS_OFF: &str =
    "[disk]\nenabled = false\n[backup]\nenabled = false\n[tailscale]\nenabled = false\n";

fn http(timeout: &str) -> String {
    format!("probe = {{ http = {HEALTH:?}, timeout = {timeout:?} }}\n")
}

pub(super) fn config(gateway: &str) -> String {
    format!("[gateway]\nunit = {UNIT:?}\n{gateway}{OTHERS_OFF}")
}

fn hung_by_http(lab: &Lab) -> Result<()> {
    let gateway = format!("startup_grace = \"15s\"\n{}", http("2s"));
    hung(lab, &config(&gateway), "failing probe_timed_out", secs(60))
}

fn hung_by_preset(lab: &Lab) -> Result<()> {
    let gateway = "startup_grace = \"15s\"\npreset = \"hermes\"\n";
    hung(lab, &config(gateway), "failing loop_hung", secs(180))
}

/// The genuine gateway, hung by its hook: mended at the third failing run, though that takes its whole TimeoutStopSec.
fn hung(lab: &Lab, config: &str, wanted: &str, found_within: Duration) -> Result<()> {
    let made = hermes_box(lab, "box-1", &by_timer(config, 5), |spec| spec)?;
    wait_report(
        &made,
        "the gateway to be fine",
        secs(60),
        |_| {},
        |r| r.gateway() == "ok fine",
    )?;
    // Past its grace.
    clock::pause(secs(16));
    let before = made.unit(UNIT, "InvocationID")?;
    let start = clock::now();
    hermes::hang(&made)?;
    hermes::take_flag_away(&made)?;
    let found = wait_report(&made, wanted, found_within, |_| {}, |r| r.gateway() == wanted)?;
    lab.figure("hung → first failing report", span(start.elapsed()));
    assert_eq!(made.unit(UNIT, "ActiveState")?, "active", "systemd sees nothing");
    ensure!(
        found.remedy() == "held_back too_few_runs",
        "not before the third run: {}",
        found.json()
    );
    let mut failing = Vec::new();
    let begun = wait_report(
        &made,
        "a restart that begins",
        secs(60),
        |r| failing.push(r.gateway()),
        |r| r.remedies().iter().any(|row| row.starts_with("restarted ")),
    )?;
    lab.figure("hung → report that the restart begins", span(start.elapsed()));
    ensure!(
        failing.len() == 3 && failing.iter().all(|row| row == wanted),
        "restarted at another run than the third: {failing:?}"
    );
    assert_eq!(begun.remedy(), "restarted restart_under_way");
    let mended = wait_report(
        &made,
        "a restart that ends well",
        secs(180),
        |_| {},
        |r| r.remedy() == "restarted failing_in_a_row",
    )?;
    let took = start.elapsed();
    lab.figure("hung → report that it ended well", span(took));
    lab.say(&format!("{}", mended.json()["remedies"]));
    ensure!(
        took > secs(60),
        "a hung gateway takes its whole TimeoutStopSec: {took:?}"
    );
    let evidence = mended.json()["remedies"]
        .as_array()
        .and_then(|rows| rows.iter().find_map(|row| row["evidence"].as_str()))
        .context("no evidence")?;
    ensure!(
        evidence.contains("active=active") && evidence.contains("journal, last lines"),
        "{evidence}"
    );
    let kept =
        made.run_ok("find /var/lib/fleet-watchdog/evidence -type f -printf '%m %U\\n' | sort | uniq -c")?;
    ensure!(
        kept.lines().count() == 1 && kept.trim().starts_with("5 600 "),
        "evidence on the box: {kept}"
    );
    ensure!(
        made.unit(UNIT, "InvocationID")? != before,
        "it says so and did not"
    );
    hermes::wait_healthy(&made)?;
    wait_report(
        &made,
        "health by itself",
        secs(60),
        |_| {},
        |r| r.gateway() == "ok fine",
    )?;
    lab.figure("hung → fine again", span(start.elapsed()));
    assert_eq!(
        made.journal(&["-b", "-u", UNIT, "-t", "systemd"])?
            .matches(&format!("Started {UNIT}"))
            .count(),
        2,
        "this boot's start and the restart"
    );
    Ok(())
}

/// Runs one after the other as fast as they come, for as long as `work` takes; every answer about the gateway.
fn watched(made: &TestBox, work: impl FnOnce() -> Result<()> + Send) -> Result<Vec<String>> {
    std::thread::scope(|scope| {
        let work = scope.spawn(work);
        let mut seen = Vec::new();
        while !work.is_finished() {
            let report = run_now(made)?;
            let row = format!("{}: {}", report.gateway(), report.check("gateway")["summary"]);
            seen.push(row);
        }
        match work.join() {
            Ok(done) => done?,
            Err(_) => anyhow::bail!("the work panicked"),
        }
        Ok(seen)
    })
}

fn busy_seen_by_preset(lab: &Lab) -> Result<()> {
    busy_with_itself(lab, &format!("preset = \"hermes\"\n{}", http("2s")))
}

fn busy_seen_by_http(lab: &Lab) -> Result<()> {
    busy_with_itself(lab, &http("2s"))
}

/// `hermes gateway restart` and `hermes backup` are never called a hang.
fn busy_with_itself(lab: &Lab, gateway: &str) -> Result<()> {
    let gateway = format!("startup_grace = \"20s\"\nmax_restarts = 0\n{gateway}");
    let made = hermes_box(lab, "box-1", &by_hand(&config(&gateway)), |spec| spec)?;
    // Past its grace, so that nothing is excused by it.
    clock::pause(secs(21));
    assert_eq!(run_now(&made)?.gateway(), "ok fine");
    for words in ["backup", "backup --quick", "gateway restart --system"] {
        let seen = watched(&made, || {
            let done = if words.starts_with("gateway") {
                hermes::admin_command(&made, words)
            } else {
                hermes::command(&made, words)
            }?;
            done.ok()?;
            clock::pause(secs(5));
            Ok(())
        })?;
        lab.say(&format!("hermes {words}, {} looks: {seen:#?}", seen.len()));
        ensure!(seen.len() > 3, "hardly looked: {seen:?}");
        ensure!(
            !seen.iter().any(|row| row.starts_with("failing")),
            "hermes {words}: {seen:#?}"
        );
    }
    hermes::wait_healthy(&made)
}

/// An idle gateway writes its state file never again; that proves nothing. (The check's `CLOCK_MONOTONIC` stays the real
/// one here, so the heartbeat, stamped by the fast one, counts as nobody's; its freshness is seen in the other scenarios.)
fn idle(lab: &Lab) -> Result<()> {
    let gateway = format!("preset = \"hermes\"\n{}", http("20s"));
    let library = resource(Need::FastClock)?;
    let made = hermes_box(lab, "box-1", &by_hand(&config(&gateway)), |spec| {
        fastclock::with_fastclock(spec, &library)
    })?;
    let fast = hermes::put_on_fast_clock(&made, 20)?;
    fast.drop_in(&made, RUN)?;
    for minute in 1..=10 {
        clock::pause(fast.real(secs(60)));
        let report = run_now(&made)?;
        lab.say(&format!("minute {minute}: {}", report.check("gateway")));
        ensure!(
            report.gateway() == "ok fine",
            "minute {minute}: {}",
            report.check("gateway")
        );
    }
    Ok(())
}

/// 200/CHDIR every five seconds, for ever `activating`, until its home is given to its user.
fn crash_loop(lab: &Lab) -> Result<()> {
    let gateway = "startup_grace = \"5s\"\npreset = \"hermes\"\nmax_restarts = 1\n";
    let made = lab.boot(hermes::with_hermes(
        BoxSpec::new("box-1"),
        &resource(Need::Hermes)?,
    ))?;
    hermes::install_crash_looping(&made)?;
    made.shutdown()?;
    lab.install_watchdog(&made, &by_timer(&config(gateway), 4))?;
    made.boot()?;
    let start = clock::now();
    let looping = "failing crash_loop";
    let found = wait_report(&made, looping, secs(60), |_| {}, |r| r.gateway() == looping)?;
    lab.figure("boot → crash loop reported", span(start.elapsed()));
    lab.say(&format!("{}", found.check("gateway")));
    let tried = wait_report(
        &made,
        "a try",
        secs(60),
        |_| {},
        |r| r.json()["remedies"].to_string().contains("failing_in_a_row") || r.remedy().starts_with("failed"),
    )?;
    lab.say(&format!("{:?}", tried.remedies()));
    ensure!(
        !made.journal(&["-u", UNIT])?.contains("repeated too quickly"),
        "it reached `failed`"
    );
    hermes::give_home_to_user(&made)?;
    wait_report(&made, "health", secs(90), |_| {}, |r| r.gateway() == "ok fine").map(drop)
}

pub(super) fn span(of: Duration) -> String {
    format!("{:.1} s", of.as_secs_f64())
}
