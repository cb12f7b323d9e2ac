//! The server in trouble itself, over 300 played boxes: it hangs, is restarted, is killed, loses them all at once. It
//! cries wolf in none of these, and forgets nobody who died meanwhile.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::fleet::wait_state;
use crate::clock::{now, pause, secs, wait_until};
use crate::lab::{HOST, Lab};
use crate::scenario::{Need, Scenario};
use crate::server::FleetServer;
use crate::sim::credentials::{Source, obtain};
use crate::sim::player::Habits;
use crate::sim::{Fleet, Settings};
use crate::webhook::Webhook;
use protocol::names::{BoxName, Labels};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "doubt::hang_restart_kill_with_300_boxes",
        &[Need::Root],
        100,
        hang_restart_kill,
    ),
    Scenario::new("doubt::all_300_cut_at_once", &[Need::Root], 60, all_cut),
    Scenario::new("doubt::one_site_of_three_cut", &[Need::Root], 50, one_site_cut),
];

/// Played boxes, of three sites.
const BOXES: usize = 300;

struct Played {
    server: FleetServer,
    hook: Webhook,
    fleet: Fleet,
}

fn start(lab: &Lab) -> Result<Played> {
    let hook = Webhook::start(&format!("{HOST}:9900"))?;
    let server = FleetServer::start(
        lab,
        &format!(
            "[[receiver]]\nname = \"hook\"\nwebhook = {{ url = {:?} }}\n",
            hook.url()
        ),
    )?;
    let wanted = (0..BOXES)
        .map(|n| {
            Ok((
                BoxName::new(format!("sim-{n:03}"))?,
                Labels::from_texts([("site", ["fsn1", "hel1", "ash1"][n % 3])])?,
            ))
        })
        .collect::<Result<Vec<_>>>()?;
    let known = obtain(
        &server.url(),
        &Source::Admin(server.data_dir().join("admin.token")),
        &wanted,
    )?;
    let habits = Habits {
        every: secs(1),
        jitter: 0.02,
        check_every: secs(120),
    };
    let fleet = Fleet::start(
        &Settings {
            server: server.url(),
            habits,
            from: Vec::new(),
            seed: 20_261_122,
        },
        known,
    )?;
    let played = Played { server, hook, fleet };
    played.all_live()?;
    played.server.wait_ready(secs(30))?;
    Ok(played)
}

impl Played {
    fn count(&self, state: &str) -> Result<f64> {
        let rows = self.server.metric("fleet_boxes")?;
        let of_state = rows
            .iter()
            .find(|(series, _)| series.contains(&format!("\"{state}\"")));
        Ok(of_state.context("fleet_boxes has every state")?.1)
    }

    fn all_live(&self) -> Result<()> {
        wait_until("all boxes to be live", secs(40), || {
            self.count("live").is_ok_and(|n| n >= BOXES as f64)
        })?;
        Ok(())
    }

    fn tell(&self, line: &str) -> Result<()> {
        self.fleet.obey(&line.parse()?)?;
        Ok(())
    }

    /// Notifications of openings so far, as `kind box`.
    fn opened(&self) -> Vec<String> {
        let arrivals = self.hook.arrivals();
        let opened = arrivals.iter().filter(|arrival| arrival.event() == "opened");
        opened
            .map(|arrival| {
                format!("{} {}", arrival.kind(), arrival.box_name())
                    .trim()
                    .to_owned()
            })
            .collect()
    }

    fn nobody_was_told(&self, after: &str) -> Result<()> {
        let opened = self.opened();
        ensure!(opened.is_empty(), "after {after}: {opened:?}");
        Ok(())
    }
}

fn hang_restart_kill(lab: &Lab) -> Result<()> {
    let played = start(lab)?;
    pause(secs(5));

    played.server.hang()?;
    pause(secs(20));
    played.server.go_on()?;
    pause(secs(14));
    played.nobody_was_told("20 s of SIGSTOP")?;
    played.all_live()?;

    let took = played.server.stop()?;
    lab.figure("SIGTERM → ended", format!("{:.2} s", took.as_secs_f64()));
    played.server.start_again()?;
    played.server.wait_ready(secs(30))?;
    pause(secs(8));
    played.nobody_was_told("a restart")?;
    played.all_live()?;

    played.server.kill()?;
    played.tell("cut sim-007")?;
    let died = now();
    let restarted = played.server.start_again()?;
    let ready = played.server.wait_ready(secs(30))?;
    lab.figure("kill -9 → ready again", format!("{:.2} s", ready.as_secs_f64()));
    let told = played
        .hook
        .wait_for_event("opened", "box_dark", "sim-007", secs(30))?;
    lab.figure(
        "died while the server was down → told after the restart",
        format!("{:.2} s", (told.at - restarted).as_secs_f64()),
    );
    ensure!(
        told.at >= restarted + ready.saturating_sub(secs(1)),
        "judged before it was ready"
    );
    let silent = told.json["incident"]["details"]["silent_for_secs"]
        .as_f64()
        .context("details.silent_for_secs")?;
    let truly = (told.at - died).as_secs_f64();
    // What the store knew at the kill may be some seconds older than the last beat; never younger.
    ensure!(
        silent > truly - 2.0 && silent < truly + 9.0,
        "it says {silent} s, it was {truly:.1} s"
    );
    pause(secs(8));
    assert_eq!(played.opened(), ["box_dark sim-007"], "after kill -9");
    played.tell("heal sim-007")?;
    played
        .hook
        .wait_for_event("resolved", "box_dark", "sim-007", secs(10))?;
    Ok(())
}

fn all_cut(lab: &Lab) -> Result<()> {
    let played = start(lab)?;
    pause(secs(3));
    let cut = now();
    played.tell("cut all")?;
    let told = played
        .hook
        .wait_for("opening", secs(15), |arrival| arrival.event() == "opened")?;
    lab.figure(
        "all 300 cut → the one incident",
        format!("{:.2} s, {}", (told.at - cut).as_secs_f64(), told.kind()),
    );
    pause(secs(20));
    let opened = played.opened();
    ensure!(opened.len() == 1, "{} incidents: {opened:?}", opened.len());
    assert_eq!(told.json["incident"]["severity"], "page");
    played.tell("heal all")?;
    played.all_live()?;
    played.hook.wait_for("its end", secs(15), |arrival| {
        arrival.event() == "resolved" && arrival.key() == told.key()
    })?;
    pause(secs(8));
    assert_eq!(
        played.opened().len(),
        1,
        "a burst after the recovery: {:?}",
        played.opened()
    );
    Ok(())
}

fn one_site_cut(lab: &Lab) -> Result<()> {
    let played = start(lab)?;
    pause(secs(3));
    let cut = now();
    played.tell("cut site=hel1")?;
    let told = played
        .hook
        .wait_for("opening", secs(15), |arrival| arrival.event() == "opened")?;
    lab.figure(
        "a site of 100 cut → the one incident",
        format!("{:.2} s", (told.at - cut).as_secs_f64()),
    );
    assert_eq!(told.kind(), "site_dark");
    ensure!(
        told.summary().contains("hel1") && told.summary().contains("100"),
        "{}",
        told.summary()
    );
    pause(secs(10));
    assert_eq!(played.opened(), ["site_dark"]);
    // One of them stays dark when the site is back: it gets an incident of its own.
    let others: BTreeSet<usize> = (0..BOXES).filter(|n| n % 3 == 1 && *n != 4).collect();
    for n in others {
        played.tell(&format!("heal sim-{n:03}"))?;
    }
    played.hook.wait_for("its end", secs(40), |arrival| {
        arrival.event() == "resolved" && arrival.key() == told.key()
    })?;
    played
        .hook
        .wait_for_event("opened", "box_dark", "sim-004", secs(30))?;
    wait_state(&played.server, "sim-004", "dark", secs(5))?;
    assert_eq!(played.opened(), ["site_dark", "box_dark sim-004"]);
    Ok(())
}
