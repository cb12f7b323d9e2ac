//! Whom the server asks before it judges: a box's Tailscale peer by the server's own genuine tailscaled, and, for a fleet
//! of one, whether the server's own uplink is down.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::names::{BoxName, Labels};

use super::fleet::{state, wait_state};
use super::storms::{HERE, apart, cut_link, heal_link, place_apart};
use crate::clock::{now, pause, secs};
use crate::genuine::tailscale::hosted::Daemon;
use crate::genuine::tailscale::{ControlPlane, Policy, Status};
use crate::lab::{HOST, Lab};
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};
use crate::server::FleetServer;
use crate::sim::credentials::{Source, obtain};
use crate::sim::player::Habits;
use crate::sim::{Fleet, Settings};
use crate::webhook::{Arrival, Webhook};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "witnesses::a_peer_of_the_servers_own_tailscaled",
        &[Need::Root, Need::Tailscale],
        45,
        tailscale_peer,
    ),
    Scenario::new(
        "witnesses::the_uplink_of_a_fleet_of_one",
        &[Need::Root],
        50,
        own_uplink,
    ),
];

fn tailscale_peer(lab: &Lab) -> Result<()> {
    let programs = resource(Need::Tailscale)?;
    let plane = ControlPlane::start(lab, &programs, &Policy::default())?;
    let [own, customer] = ["server", "customer"].map(|name| -> Result<Daemon> {
        let daemon = Daemon::start(lab, &programs, name)?;
        daemon.join(&plane, "any", name)?;
        daemon.local_api().wait_for("up", secs(20), Status::is_up)?;
        Ok(daemon)
    });
    let (own, customer) = (own?, customer?);
    let hook = Webhook::start(&format!("{HOST}:9900"))?;
    let socket = own.socket().to_string_lossy().into_owned();
    let config = format!("{}[witness.tailscale]\nsocket = {socket:?}\n", receiver(&hook));
    let server = FleetServer::start(lab, &config)?;
    server.wait_ready(secs(30))?;
    let add = ["box", "add", "box-1", "--witness", "tailscale:customer"];
    server.ctl(&add)?.ok()?;
    let fleet = play(&server)?;
    wait_state(&server, "box-1", "live", secs(20))?;
    pause(secs(2));

    // The watchdog is gone, the host is not: its tailscaled answers the server's.
    let cut = now();
    fleet.obey(&"cut box-1".parse()?)?;
    let told = hook.wait_for_event("opened", "box_silent", "box-1", secs(15))?;
    lab.figure("silent by its Tailscale peer", line(&told, told.at - cut));
    let word = witness(&told)?;
    ensure!(
        word["name"] == "tailscale:customer" && word["answer"] == "reachable" && word["age_secs"].is_number(),
        "{word}"
    );

    // Now the host goes as well.
    drop(customer);
    let gone = now();
    let worse = hook.wait_for_event("updated", "box_silent", "box-1", secs(25))?;
    lab.figure("its host gone as well", line(&worse, worse.at - gone));
    ensure!(worse.summary().contains("dark now"), "{}", worse.summary());
    assert_eq!(state(&server, "box-1")?, "dark");
    fleet.obey(&"heal box-1".parse()?)?;
    hook.wait_for_event("resolved", "box_silent", "box-1", secs(20))?;
    pause(secs(3));

    // And both at once.
    hook.clear();
    let cut = now();
    fleet.obey(&"cut box-1".parse()?)?;
    let told = hook.wait_for_event("opened", "box_dark", "box-1", secs(15))?;
    lab.figure(
        "dark, confirmed by its Tailscale peer",
        line(&told, told.at - cut),
    );
    assert_eq!(witness(&told)?["answer"], "unreachable", "{}", told.summary());
    Ok(())
}

fn own_uplink(lab: &Lab) -> Result<()> {
    apart()?;
    let hook = Webhook::start(&format!("{HERE}:9900"))?;
    let config = format!("{}[witness]\nself = [\"{HERE}:9900\"]\n", receiver(&hook));
    let server = FleetServer::start_at(lab, place_apart(None), &config)?;
    server.wait_ready(secs(30))?;
    let fleet = play(&server)?;
    wait_state(&server, "box-1", "live", secs(20))?;
    pause(secs(3));
    cut_link()?;
    pause(secs(15));
    heal_link()?;
    let back = now();
    let blind = hook.wait_for("a page", secs(40), |arrival| arrival.event() == "opened")?;
    lab.figure(
        "one box, the uplink cut: what is told",
        line(&blind, blind.at - back),
    );
    assert_eq!(blind.kind(), "server_blind", "{}", blind.summary());
    assert_eq!(blind.json["incident"]["details"]["cause"], "no_way_out");
    hook.wait_for("its end", secs(20), |arrival| {
        arrival.event() == "resolved" && arrival.key() == blind.key()
    })?;
    // The box alone, with the uplink open: that is the box.
    pause(secs(10));
    fleet.obey(&"cut box-1".parse()?)?;
    let told = hook.wait_for_event("opened", "box_dark", "box-1", secs(15))?;
    let opened = hook
        .arrivals()
        .iter()
        .filter(|arrival| arrival.event() == "opened")
        .count();
    ensure!(opened == 2, "{opened} openings, the last: {}", told.summary());
    Ok(())
}

fn receiver(hook: &Webhook) -> String {
    format!(
        "[[receiver]]\nname = \"hook\"\nwebhook = {{ url = {:?} }}\n",
        hook.url()
    )
}

/// `box-1`, played.
fn play(server: &FleetServer) -> Result<Fleet> {
    let wanted = [(BoxName::new("box-1")?, Labels::default())];
    let source = Source::Admin(server.data_dir().join("admin.token"));
    let known = obtain(&server.url(), &source, &wanted)?;
    let habits = Habits {
        every: secs(1),
        jitter: 0.02,
        check_every: secs(120),
    };
    let settings = Settings {
        server: server.url(),
        habits,
        from: Vec::new(),
        seed: 20_261_122,
    };
    Fleet::start(&settings, known)
}

fn line(told: &Arrival, took: Duration) -> String {
    format!("{:.2} s: {}", took.as_secs_f64(), told.summary())
}

fn witness(told: &Arrival) -> Result<serde_json::Value> {
    let words = told.json["incident"]["details"]["witnesses"].as_array();
    let first = words.and_then(|words| words.first());
    first
        .cloned()
        .with_context(|| format!("no witness in {}", told.body))
}
