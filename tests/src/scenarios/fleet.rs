//! The smallest whole fleet: a server, a webhook, and one real box that beats. What several topics start from.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clock::{self, secs};
use crate::lab::{BoxSpec, HOST, Lab, TestBox, WatchdogSetup};
use crate::server::FleetServer;
use crate::webhook::{Arrival, Webhook};

/// A gateway that a stranger could have written.
pub const GATEWAY: &str = "[Service]\nExecStart=/usr/bin/python3 -m http.server 8642\nRestart=on-failure\n";

/// A server, a webhook, a box.
pub struct Fleet {
    /// On the host's side.
    pub server: FleetServer,
    /// Gets everything.
    pub hook: Webhook,
    /// `box-1`, booted and live.
    pub made: Arc<TestBox>,
}

impl Fleet {
    /// Starts the `n`-th fleet of this lab (ports and addresses follow from it): default settings, and `config` on the
    /// box's side of it. `install` may add to the installation.
    pub fn start(
        lab: &Lab,
        n: u16,
        config: &str,
        install: impl FnOnce(WatchdogSetup) -> WatchdogSetup,
    ) -> Result<Self> {
        let hook = Webhook::start(&format!("{HOST}:{}", 9900 + n))?;
        // The same box goes and comes back many times here, and each time counts.
        let receiver = format!(
            "[flapping]\nenabled = false\n[[receiver]]\nname = \"hook\"\nwebhook = {{ url = {:?} }}\n",
            hook.url()
        );
        let server = FleetServer::start_as(lab, &format!("server-{n}"), 8470 + n, &receiver)?;
        server.wait_ready(secs(30))?;
        let token = server.add_box("box-1")?;
        let config = format!("[server]\nurls = [{:?}]\n{config}", server.url());
        let setup = install(WatchdogSetup::new(config, token));
        let spec = BoxSpec::new(&format!("box-1{}", "x".repeat(usize::from(n))));
        let made = lab.boot(spec.unit("hermes-gateway.service", GATEWAY).watchdog(setup))?;
        let fleet = Self { server, hook, made };
        fleet.wait_live()?;
        Ok(fleet)
    }

    /// Waits until the server calls the box live.
    pub fn wait_live(&self) -> Result<Duration> {
        wait_state(&self.server, "box-1", "live", secs(20))
    }

    /// Waits for the opening of an incident of this kind about the box.
    pub fn opened(&self, kind: &str, limit: Duration) -> Result<Arrival> {
        self.hook.wait_for_event("opened", kind, "box-1", limit)
    }

    /// Waits for the end of one.
    pub fn resolved(&self, kind: &str, limit: Duration) -> Result<Arrival> {
        self.hook.wait_for_event("resolved", kind, "box-1", limit)
    }
}

/// What the server knows of a box.
pub fn detail(server: &FleetServer, name: &str) -> Result<Value> {
    server.admin("GET", &format!("/v1/boxes/{name}"), "")?.json()
}

/// A box's liveness.
pub fn state(server: &FleetServer, name: &str) -> Result<String> {
    let detail = detail(server, name)?;
    Ok(detail["state"].as_str().context("a box has a state")?.to_owned())
}

/// Waits until the server says that a box is in `wanted`.
pub fn wait_state(server: &FleetServer, name: &str, wanted: &str, limit: Duration) -> Result<Duration> {
    let what = format!("{name} to be {wanted}");
    clock::wait_until(&what, limit, || {
        state(server, name).is_ok_and(|state| state == wanted)
    })
    .with_context(|| format!("it is {:?}", state(server, name)))
}
