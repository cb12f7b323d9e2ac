//! Nothing is lost on the way to a receiver: down, hanging, answering 500, and the server killed in between.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::fleet::{GATEWAY, wait_state};
use crate::clock::{now, pause, secs, wait_until};
use crate::lab::{BoxSpec, HOST, Lab, WatchdogSetup};
use crate::scenario::{Need, Scenario};
use crate::server::FleetServer;
use crate::webhook::{Mode, Webhook};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[Scenario::new(
    "delivery::dead_receivers_and_a_killed_server",
    &[Need::Root],
    130,
    dead_receivers,
)];

/// A second server whose first route leads to nobody: what nobody there hears must come to the next route.
struct Routed {
    server: FleetServer,
    second: Webhook,
    pings: Webhook,
}

impl Routed {
    /// Its canary pages by itself: the receiver that takes its tests is down, as is the first route's.
    fn start(lab: &Lab) -> Result<Self> {
        let hook = |port: u16| Webhook::start(&format!("{HOST}:{port}"));
        let (second, pings) = (hook(9905)?, hook(9906)?);
        let config = format!(
            "[canary]\nevery = \"5s\"\ngrace = \"5s\"\nreceiver = \"first\"\n\
             [dead_man]\nurl = {:?}\nmethod = \"POST\"\nevery = \"2s\"\nunheard_after = \"100s\"\n\
             [[receiver]]\nname = \"first\"\nwebhook = {{ url = \"http://{HOST}:9904/alert\" }}\n\
             [[receiver]]\nname = \"second\"\nwebhook = {{ url = {:?} }}\n\
             [[route]]\nmatch = {{ severity = \"page\" }}\nreceivers = [\"first\"]\n\
             [[route]]\nreceivers = [\"second\"]\n",
            pings.url(),
            second.url()
        );
        let server = FleetServer::start_as(lab, "routed", 8479, &config)?;
        Ok(Self {
            server,
            second,
            pings,
        })
    }

    fn check(&self, lab: &Lab) -> Result<()> {
        let told = self.second.wait_for("receiver_failing", OUTAGE + secs(40), |a| {
            a.is("opened", "receiver_failing", "") && a.json["incident"]["details"]["receiver"] == "first"
        })?;
        let page = self.server.ctl(&["incident", "list", "--kind", "canary"])?.ok()?;
        ensure!(
            page.contains("first"),
            "the canary's page names who is missing: {page}"
        );
        let strangers: Vec<_> = self.second.arrivals();
        ensure!(
            strangers.iter().all(|a| a.kind() == "receiver_failing"),
            "the next route hears of the failing receiver only: {strangers:?}"
        );
        // One of two is down, and the other one knows: that is no reason to be silent.
        let before = self.pings.count();
        wait_until("pings", secs(20), || self.pings.count() > before + 2)?;
        let withheld = self.server.metric("fleet_dead_man_pings_total")?;
        ensure!(
            withheld
                .iter()
                .any(|(series, count)| series.contains("withheld") && *count == 0.0),
            "{withheld:?}"
        );
        lab.figure(
            "the next route is told of a dead receiver",
            told.summary().to_owned(),
        );
        Ok(())
    }
}

/// Longer than it takes until a receiver that fails is an incident of its own.
const OUTAGE: Duration = secs(66);
/// What signs one of the receivers' bodies.
const SECRET: &str = "a-secret-of-the-receiver";

fn dead_receivers(lab: &Lab) -> Result<()> {
    let hook = |port: u16| Webhook::start(&format!("{HOST}:{port}"));
    let (fine, dead) = (
        hook(9900)?,
        [("down", hook(9901)?), ("hang", hook(9902)?), ("err", hook(9903)?)],
    );
    let secret = lab.host_file("hook.secret", format!("{SECRET}\n"))?;
    let mut config = format!(
        "[[receiver]]\nname = \"fine\"\nwebhook = {{ url = {:?}, secret_file = {:?} }}\n",
        fine.url(),
        secret.to_string_lossy()
    );
    for (name, hook) in &dead {
        let _ = write!(
            config,
            "[[receiver]]\nname = {name:?}\nwebhook = {{ url = {:?} }}\n",
            hook.url()
        );
    }
    let routed = Routed::start(lab)?;
    let server = FleetServer::start(lab, &config)?;
    let setup = WatchdogSetup::new(
        format!("[server]\nurls = [{:?}]\n", server.url()),
        server.add_box("box-1")?,
    );
    let made = lab.boot(
        BoxSpec::new("box-1")
            .unit("hermes-gateway.service", GATEWAY)
            .watchdog(setup),
    )?;
    wait_state(&server, "box-1", "live", secs(20))?;
    server.wait_ready(secs(20))?;
    dead[0].1.set(Mode::Down)?;
    dead[1].1.set(Mode::Hang)?;
    dead[2].1.set(Mode::Answer(500))?;

    let cut = made.power_cut()?;
    let opened = fine.wait_for_event("opened", "box_dark", "box-1", secs(12))?;
    lab.figure(
        "cut → the working receiver, beside three dead ones",
        format!("{:.2} s", (opened.at - cut).as_secs_f64()),
    );
    ensure!(opened.at - cut < secs(8), "a dead receiver delayed it");
    opened.verify(SECRET)?;
    wait_until("an attempt at the one that answers 500", secs(5), || {
        !dead[2].1.arrivals().is_empty()
    })?;

    server.kill()?;
    server.start_again()?;
    let end = now() + OUTAGE;
    for (name, _) in &dead {
        fine.wait_for("receiver_failing", OUTAGE + secs(25), |a| {
            a.kind() == "receiver_failing" && a.json["incident"]["details"]["receiver"] == *name
        })?;
    }
    routed.check(lab)?;
    pause(end.saturating_duration_since(now()));
    for (_, hook) in &dead {
        hook.set(Mode::Up)?;
    }
    let up = now();
    for (name, hook) in &dead {
        // An attempt that got no answer may have been recorded before: the one that counts was answered with 200.
        wait_until("the notification", secs(45), || {
            hook.delivered()
                .iter()
                .any(|a| a.is("opened", "box_dark", "box-1"))
        })
        .with_context(|| format!("receiver {name}"))?;
        let told = hook
            .delivered()
            .into_iter()
            .find(|a| a.is("opened", "box_dark", "box-1"))
            .context("just seen")?;
        lab.figure(
            &format!("{name}: up again → delivered"),
            format!("{:.1} s", (told.at.max(up) - up).as_secs_f64()),
        );
        assert_eq!(told.key(), opened.key(), "{name}");
        assert_eq!(
            told.header("idempotency-key"),
            opened.header("idempotency-key"),
            "{name}"
        );
    }

    made.boot()?;
    for (name, hook) in dead
        .iter()
        .map(|(name, hook)| (*name, hook))
        .chain([("fine", &fine)])
    {
        hook.wait_for_event("resolved", "box_dark", "box-1", secs(40))?;
        let about_it = hook.delivered().into_iter().filter(|a| a.key() == opened.key());
        let order: Vec<String> = about_it.map(|a| a.event().to_owned()).collect();
        ensure!(
            order.first().is_some_and(|e| e == "opened") && order.last().is_some_and(|e| e == "resolved"),
            "{name}: {order:?}"
        );
        let first_end = order.iter().position(|e| e == "resolved").unwrap_or(order.len());
        ensure!(
            order[first_end..].iter().all(|e| e == "resolved"),
            "{name}: a trigger after the end: {order:?}"
        );
    }
    for (name, _) in &dead {
        fine.wait_for("end of receiver_failing", secs(30), |a| {
            a.event() == "resolved"
                && a.kind() == "receiver_failing"
                && a.json["incident"]["details"]["receiver"] == *name
        })?;
    }
    Ok(())
}
