//! A real Alertmanager and a real Prometheus beside the server.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fleet::{GATEWAY, wait_state};
use crate::clock::{secs, wait_until};
use crate::lab::{BoxSpec, HOST, Lab, WatchdogSetup};
use crate::monitoring::{Alertmanager, Prometheus, check_metrics};
use crate::scenario::{Need, Scenario};
use crate::server::FleetServer;

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[Scenario::new(
    "monitoring::alertmanager_and_prometheus",
    &[Need::Root, Need::Alertmanager, Need::Prometheus],
    110,
    alertmanager_and_prometheus,
)];

fn alertmanager_and_prometheus(lab: &Lab) -> Result<()> {
    let alertmanager = Alertmanager::start(lab, 9093)?;
    let receiver = format!(
        "[[receiver]]\nname = \"am\"\nalertmanager = {{ urls = [{:?}] }}\n",
        alertmanager.url()
    );
    let server = FleetServer::start(lab, &receiver)?;
    let token = server
        .ctl(&["box", "add", "box-1", "--label", "customer=acme"])?
        .ok()?;
    let config = format!(
        "[box]\nlabels = {{ site = \"fsn1\" }}\n[server]\nurls = [{:?}]\n",
        server.url()
    );
    let setup = WatchdogSetup::new(config, token).check_every(5);
    let made = lab.boot(
        BoxSpec::new("box-1")
            .unit("hermes-gateway.service", GATEWAY)
            .watchdog(setup),
    )?;
    wait_state(&server, "box-1", "live", secs(20))?;
    let prometheus = Prometheus::scraping(lab, &format!("{HOST}:8470"))?;
    let sees = |query: &str| prometheus.query(query).is_ok_and(|rows| rows.len() == 1);
    wait_until("fleet_box_up = 1", secs(20), || {
        sees(r#"fleet_box_up{box="box-1"} == 1"#)
    })?;
    wait_until("a check's status", secs(20), || {
        sees(r#"fleet_check_status{box="box-1",check="disk"}"#)
    })?;
    let metrics = server.get("/metrics")?.body;
    check_metrics(&metrics)?;
    lab.figure(
        "promtool check metrics",
        format!("{} lines accepted", metrics.lines().count()),
    );

    let cut = made.power_cut()?;
    let took = wait_until("an active alert", secs(15), || {
        dark_alert(&alertmanager).is_ok_and(|found| found.is_some())
    })?;
    lab.figure(
        "power cut → active in Alertmanager",
        format!("{:.2} s", (cut.elapsed().min(took + secs(1))).as_secs_f64()),
    );
    let first = dark_alert(&alertmanager)?.context("it was active")?;
    assert_eq!(first["labels"]["severity"], "page");
    assert_eq!(first["labels"]["site"], "fsn1", "the box's own label");
    assert_eq!(first["labels"]["customer"], "acme", "the operator's label");
    wait_until("fleet_box_up = 0", secs(10), || {
        sees(r#"fleet_box_up{box="box-1"} == 0"#)
    })?;

    // It would end by itself: that it is still active with a later end shows the refresh.
    let refreshed =
        || dark_alert(&alertmanager).is_ok_and(|now| now.is_some_and(|now| end(&now) > end(&first)));
    wait_until("a later end of the alert", secs(75), refreshed)?;
    check_metrics(&server.get("/metrics")?.body)?;

    made.boot()?;
    wait_until("the end of the alert", secs(20), || {
        dark_alert(&alertmanager).is_ok_and(|found| found.is_none())
    })?;
    ensure!(
        server
            .ctl_json(&["incident", "list", "--all"])?
            .to_string()
            .contains("resolved_at")
    );
    Ok(())
}

/// The box's alert, if it is active.
fn dark_alert(alertmanager: &Alertmanager) -> Result<Option<Value>> {
    let alerts = alertmanager.active()?;
    let about =
        |alert: &&Value| alert["labels"]["alertname"] == "FleetBoxDark" && alert["labels"]["box"] == "box-1";
    Ok(alerts.iter().find(about).cloned())
}

/// When it would end by itself; RFC 3339 in UTC sorts as text.
fn end(alert: &Value) -> &str {
    alert["endsAt"].as_str().unwrap_or_default()
}
