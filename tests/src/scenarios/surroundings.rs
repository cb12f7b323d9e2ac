//! What stands around the fleet server in the tests: Prometheus and Alertmanager, as Debian ships them.

use anyhow::{Result, ensure};

use crate::clock::{self, secs};
use crate::http;
use crate::lab::Lab;
use crate::monitoring::{Alertmanager, Prometheus, check_metrics};
use crate::scenario::{Need, Scenario};

/// This topic's scenarios.
pub const ALL: &[Scenario] = &[
    Scenario::new(
        "surroundings::prometheus_scrapes",
        &[Need::Prometheus],
        5,
        prometheus_scrapes,
    ),
    Scenario::new(
        "surroundings::alertmanager_takes_alerts",
        &[Need::Alertmanager],
        5,
        alertmanager_takes_alerts,
    ),
];

fn prometheus_scrapes(lab: &Lab) -> Result<()> {
    let prometheus = Prometheus::scraping(lab, "127.0.0.1:9090")?;
    let up = || {
        prometheus
            .query(r#"up{job="fleet"} == 1"#)
            .is_ok_and(|rows| rows.len() == 1)
    };
    clock::wait_until("a scrape of itself", secs(20), up)?;
    check_metrics("# HELP a_total A.\n# TYPE a_total counter\na_total 1\n")?;
    ensure!(check_metrics("a_total{ 1\n").is_err(), "promtool takes anything");
    Ok(())
}

fn alertmanager_takes_alerts(lab: &Lab) -> Result<()> {
    let alertmanager = Alertmanager::start(lab, 9093)?;
    ensure!(alertmanager.active()?.is_empty());
    let url = format!("{}/api/v2/alerts", alertmanager.url());
    let alert = br#"[{"labels":{"alertname":"BoxDark","box":"b"}}]"#;
    let answer = http::send("POST", &url, &[("content-type", "application/json")], alert)?;
    ensure!(answer.status == 200, "{answer:?}");
    clock::wait_until("the alert to be active", secs(5), || {
        alertmanager.active().is_ok_and(|rows| rows.len() == 1)
    })?;
    assert_eq!(alertmanager.active()?[0]["labels"]["box"], "b");
    Ok(())
}
