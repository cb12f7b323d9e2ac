//! A fleet of 5,000 played boxes in ten sites against the real server, built for load: a site goes, then the server's
//! own uplink. What counts is how many notifications a person gets, what they name, and when.
//!
//! The server lives in a network namespace of its own, behind one link; the boxes and the webhook are on this side of it.
//! So its uplink can truly be cut: beats, answers and notifications with it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::clock::{now, pause, secs, wait_until};
use crate::exec;
use crate::lab::Lab;
use crate::runner::needs::resource;
use crate::scenario::{Need, Scenario};
use crate::server::{FleetServer, Place};
use crate::webhook::{Arrival, Webhook};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[Scenario::new(
    "storms::a_site_and_the_uplink_of_5000_boxes",
    &[Need::Root, Need::Load],
    150,
    five_thousand,
)
.alone()];

/// Played boxes …
const BOXES: usize = 5000;
/// … in so many sites.
const SITES: usize = 10;
/// This side of the link …
pub(super) const HERE: &str = "10.98.0.1";
/// … and the server's.
const THERE: &str = "10.98.0.2";
/// The namespace.
const APART: &str = "apart";

struct Played {
    server: FleetServer,
    hook: Webhook,
    fleet: Simulator,
}

fn five_thousand(lab: &Lab) -> Result<()> {
    let played = start(lab)?;
    pause(secs(5));
    let busy = played.server.cpu_secs()?;
    let began = now();
    pause(secs(5));
    let share = (played.server.cpu_secs()? - busy) / began.elapsed().as_secs_f64();
    lab.figure(
        "the server at 5,000 beats a second",
        format!("{:.0} % of a processor", share * 100.0),
    );

    let before = played.hook.arrivals().len();
    ensure!(
        before == 0,
        "told of something before anything happened: {:?}",
        played.told(0)
    );
    one_site(lab, &played)?;
    let before = played.hook.arrivals().len();
    uplink(lab, &played, before)
}

/// One page that names the site and the count; one message when it is back.
fn one_site(lab: &Lab, played: &Played) -> Result<()> {
    let cut = now();
    played.fleet.tell("cut site=s04")?;
    let told = played
        .hook
        .wait_for("opening", secs(15), |arrival| arrival.event() == "opened")?;
    let took = told.at - cut;
    lab.figure(
        "a site of 500 cut → the one page",
        format!("{:.2} s: {}", took.as_secs_f64(), told.summary()),
    );
    ensure!(took <= secs(10), "{took:?} until the page, at most 10 s");
    ensure!(
        told.kind() == "site_dark" && told.summary().starts_with("s04: 500 of 500 boxes dark"),
        "{} {}",
        told.kind(),
        told.summary()
    );
    pause(secs(8));
    ensure!(
        played.hook.arrivals().len() == 1,
        "more than the one page: {:?}",
        played.told(0)
    );
    played.fleet.tell("heal site=s04")?;
    let back = now();
    let over = played.hook.wait_for("its end", secs(40), |arrival| {
        arrival.event() == "resolved" && arrival.key() == told.key()
    })?;
    lab.figure(
        "the site back → told so",
        format!("{:.2} s", (over.at - back).as_secs_f64()),
    );
    pause(secs(8));
    let told = played.told(0);
    ensure!(told.len() == 2, "a burst after the recovery: {told:?}");
    Ok(())
}

/// One page that names nobody, as soon as it can be sent; one message that it is over.
fn uplink(lab: &Lab, played: &Played, before: usize) -> Result<()> {
    cut_link()?;
    let outage = secs(20);
    pause(outage);
    ensure!(played.hook.arrivals().len() == before, "told over a cut link");
    heal_link()?;
    let back = now();
    let blind = played.after(before, "I may be blind", secs(40), |arrival| {
        arrival.event() == "opened"
    })?;
    let over = played.after(before, "its end", secs(40), |arrival| {
        arrival.event() == "resolved" && arrival.key() == blind.key()
    })?;
    lab.figure(
        "the uplink back → told of the blindness, and of its end",
        format!(
            "{:.2} s, {:.2} s: {}",
            since(&blind, back),
            since(&over, back),
            blind.summary()
        ),
    );
    played.all_live(secs(30))?;
    lab.figure(
        "the uplink back → all 5,000 live",
        format!("{:.2} s", back.elapsed().as_secs_f64()),
    );
    pause(secs(12));
    let told = played.told(before);
    ensure!(told.len() == 2, "a burst after the recovery: {told:?}");
    played.nothing_after_an_end()?;
    ensure!(
        blind.kind() == "server_blind" && blind.summary().contains("I may be blind"),
        "{told:?}"
    );
    ensure!(
        !told.iter().any(|line| line.contains("box-")),
        "a box is named: {told:?}"
    );
    Ok(())
}

fn since(arrival: &Arrival, then: Instant) -> f64 {
    arrival.at.saturating_duration_since(then).as_secs_f64()
}

fn start(lab: &Lab) -> Result<Played> {
    let programs = resource(Need::Load)?;
    apart()?;
    let hook = Webhook::start(&format!("{HERE}:9900"))?;
    let place = place_apart(Some(programs.join("fleet-server")));
    let receiver = format!(
        "[[receiver]]\nname = \"hook\"\nwebhook = {{ url = {:?} }}\n",
        hook.url()
    );
    // Adding 5,000 boxes is 5,000 durable writes, and the disk is not what is looked at here.
    let dir = lab.host_dir(&place.name)?;
    exec::ok(
        "mount",
        &["-t", "tmpfs", "-o", "size=512m", "data", &dir.to_string_lossy()],
    )?;
    let server = FleetServer::start_at(lab, place, &receiver)?;
    let began = now();
    let fleet = Simulator::start(lab, &programs.join("fleet-sim"), &server)?;
    let played = Played { server, hook, fleet };
    played.all_live(secs(300))?;
    played.server.wait_ready(secs(30))?;
    lab.figure(
        "5,000 boxes added and live",
        format!("{:.1} s", began.elapsed().as_secs_f64()),
    );
    Ok(played)
}

/// A server behind the link.
pub(super) fn place_apart(program: Option<PathBuf>) -> Place {
    Place {
        name: "server".to_owned(),
        address: format!("{THERE}:8470"),
        program,
        under: ["ip", "netns", "exec", APART].map(ToOwned::to_owned).to_vec(),
        environment: Vec::new(),
    }
}

/// The server's own network, and the one link to it.
pub(super) fn apart() -> Result<()> {
    let far = |args: &[&str]| exec::ok("ip", &[&["netns", "exec", APART, "ip"], args].concat()).map(drop);
    exec::ok("ip", &["netns", "add", APART])?;
    exec::ok(
        "ip",
        &["link", "add", "near", "type", "veth", "peer", "name", "far"],
    )?;
    exec::ok("ip", &["link", "set", "far", "netns", APART])?;
    exec::ok("ip", &["address", "add", &format!("{HERE}/24"), "dev", "near"])?;
    exec::ok("ip", &["link", "set", "near", "up"])?;
    for source in sources() {
        exec::ok("ip", &["address", "add", &format!("{source}/24"), "dev", "near"])?;
    }
    far(&["address", "add", &format!("{THERE}/24"), "dev", "far"])?;
    far(&["link", "set", "lo", "up"])?;
    far(&["link", "set", "far", "up"])
}

/// Addresses of the played boxes: a machine has only so many ports on one.
fn sources() -> Vec<String> {
    (11..=30).map(|n| format!("10.98.0.{n}")).collect()
}

/// The server's end of the link goes down: nothing comes in, nothing goes out.
pub(super) fn cut_link() -> Result<()> {
    exec::ok(
        "ip",
        &["netns", "exec", APART, "ip", "link", "set", "far", "down"],
    )
    .map(drop)
}

/// And up again.
pub(super) fn heal_link() -> Result<()> {
    exec::ok("ip", &["netns", "exec", APART, "ip", "link", "set", "far", "up"]).map(drop)
}

impl Played {
    fn all_live(&self, limit: Duration) -> Result<()> {
        let live = || -> Result<f64> {
            let rows = self.server.metric("fleet_boxes")?;
            let row = rows.iter().find(|(series, _)| series.contains("\"live\""));
            Ok(row.context("fleet_boxes has every state")?.1)
        };
        wait_until("all boxes to be live", limit, || {
            live().is_ok_and(|n| n >= BOXES as f64)
        })?;
        Ok(())
    }

    /// What came after the first `skip` arrivals, a line each. What was sent into a cut link may arrive when it is whole
    /// again, besides its repetition: the same key is the same notification.
    fn told(&self, skip: usize) -> Vec<String> {
        let line = |arrival: &Arrival| {
            let (event, kind, name) = (arrival.event(), arrival.kind(), arrival.box_name());
            format!("{event} {kind} {name} {}", arrival.summary())
        };
        let arrivals = self.hook.arrivals();
        let mut seen = BTreeSet::new();
        let first = |arrival: &&Arrival| seen.insert(arrival.header("idempotency-key").to_owned());
        arrivals.iter().skip(skip).filter(first).map(line).collect()
    }

    /// What was given up is not delivered later by the kernel, when its end has been told.
    fn nothing_after_an_end(&self) -> Result<()> {
        let mut over = BTreeSet::new();
        for arrival in self.hook.arrivals() {
            let key = arrival.key().to_owned();
            let is_end = arrival.event() == "resolved";
            ensure!(
                is_end || !over.contains(&key),
                "{key} was told again after its end"
            );
            if is_end {
                over.insert(key);
            }
        }
        Ok(())
    }

    fn after(
        &self,
        skip: usize,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Arrival) -> bool,
    ) -> Result<Arrival> {
        let found = || self.hook.arrivals().into_iter().skip(skip).find(&wanted);
        crate::clock::wait_for(what, limit, found)
    }
}

/// `fleet-sim` as a process of its own: 5,000 boxes want an optimised one.
struct Simulator {
    child: Child,
    orders: ChildStdin,
}

impl Simulator {
    fn start(lab: &Lab, program: &Path, server: &FleetServer) -> Result<Self> {
        let log = lab.host_dir("sim")?.join("sim.log");
        lab.watch_log("fleet-sim", &log);
        let sites: Vec<String> = (1..=SITES).map(|n| format!("s{n:02}")).collect();
        let mut command = Command::new(program);
        command
            .args([
                "--server",
                &server.url(),
                "--prefix",
                "box-",
                "--seed",
                "20261122",
            ])
            .args(["--boxes", &BOXES.to_string(), "--sites", &sites.join(",")])
            .args(["--from", &sources().join(",")])
            .arg("--admin-token-file")
            .arg(server.data_dir().join("admin.token"))
            .stdin(Stdio::piped())
            .stdout(File::create(&log)?)
            .stderr(File::options().append(true).open(&log)?);
        let mut child = command.spawn().context("cannot start fleet-sim")?;
        let orders = child.stdin.take().context("its input is piped")?;
        Ok(Self { child, orders })
    }

    fn tell(&self, line: &str) -> Result<()> {
        writeln!(&self.orders, "{line}").context("fleet-sim has ended")
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
