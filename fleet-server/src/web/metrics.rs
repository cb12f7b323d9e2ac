//! `/metrics`: the boxes' series streamed from the table, then the server's own from its registry.
//!
//! Series per box are written straight into the answer and kept nowhere: a registry of 10,000 boxes would cost 43 MB
//! and 120 ms a scrape, the writer costs under 3 ms and nothing between scrapes. Names and units follow Prometheus'
//! custom; labels of boxes stand on `fleet_box_info` only, to be joined on `box`.

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use prometheus::{Encoder as _, Registry, TextEncoder};
use protocol::api::Liveness;
use protocol::incident::{Kind, Severity};
use protocol::mute::MuteKind;
use protocol::names::{BoxName, Labels};
use protocol::report::{CheckReport, Report, Status};
use serde_json::Value;

/// One box as the table has it.
#[derive(Debug, Clone)]
pub struct BoxSample {
    /// Its name.
    pub name: BoxName,
    /// Labels, the server's over the box's.
    pub labels: Labels,
    /// Its liveness.
    pub state: Liveness,
    /// The server's time of the last beat.
    pub last_seen: Option<Timestamp>,
    /// Seconds between two beats, as the box says.
    pub interval_secs: f64,
    /// Seconds without a beat after which it is dark, as its history stands.
    pub dark_after_secs: f64,
    /// Beats accepted since the server's start.
    pub beats: u64,
    /// What the box's clock is ahead, milliseconds.
    pub clock_skew_ms: Option<i64>,
    /// Remedies are paused.
    pub paused: bool,
    /// The newest report, and when it arrived.
    pub report: Option<(Arc<Report>, Timestamp)>,
}

/// What a scrape shows.
#[derive(Debug, Clone, Default)]
pub struct Scrape {
    /// Every box.
    pub boxes: Vec<BoxSample>,
    /// Open incidents.
    pub open: Vec<(Kind, Severity)>,
    /// How many of them are muted.
    pub muted: usize,
    /// The mutes that are in force.
    pub mutes: Vec<MuteKind>,
}

/// Writes everything, in the text format.
pub fn render(scrape: &Scrape, registry: &Registry) -> Result<String, prometheus::Error> {
    let mut out = String::with_capacity(4096 + scrape.boxes.len() * 1600);
    boxes(&mut out, &scrape.boxes);
    checks(&mut out, &scrape.boxes);
    fleet(&mut out, scrape);
    let mut own = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut own)?;
    out.push_str(&String::from_utf8_lossy(&own));
    Ok(out)
}

fn boxes(out: &mut String, boxes: &[BoxSample]) {
    family(
        out,
        "fleet_box_up",
        "gauge",
        "Whether the box's beats arrive (1) or not (0).",
    );
    for each in boxes {
        sample(
            out,
            "fleet_box_up",
            &each.name,
            f64::from(u8::from(is_up(each.state))),
        );
    }
    family(
        out,
        "fleet_box_state",
        "gauge",
        "1 for the liveness that the box has: unseen, live, suspect, dark, silent, away.",
    );
    for each in boxes {
        let _ = writeln!(
            out,
            "fleet_box_state{{box=\"{}\",state=\"{}\"}} 1",
            each.name, each.state
        );
    }
    family(
        out,
        "fleet_box_last_seen_timestamp_seconds",
        "gauge",
        "Unix time of the box's last beat, by the server's clock.",
    );
    for each in boxes {
        if let Some(at) = each.last_seen {
            sample(out, "fleet_box_last_seen_timestamp_seconds", &each.name, unix(at));
        }
    }
    family(
        out,
        "fleet_box_heartbeat_interval_seconds",
        "gauge",
        "Seconds between two beats, as the box says.",
    );
    for each in boxes {
        sample(
            out,
            "fleet_box_heartbeat_interval_seconds",
            &each.name,
            each.interval_secs,
        );
    }
    family(
        out,
        "fleet_box_dark_after_seconds",
        "gauge",
        "Seconds without a beat after which the box is dark, as its own history stands.",
    );
    for each in boxes {
        sample(
            out,
            "fleet_box_dark_after_seconds",
            &each.name,
            each.dark_after_secs,
        );
    }
    family(
        out,
        "fleet_box_heartbeats_total",
        "counter",
        "Beats accepted from the box since the server's start.",
    );
    for each in boxes {
        sample(out, "fleet_box_heartbeats_total", &each.name, each.beats as f64);
    }
    family(
        out,
        "fleet_box_clock_skew_seconds",
        "gauge",
        "Seconds that the box's clock is ahead of the server's.",
    );
    for each in boxes {
        if let Some(ms) = each.clock_skew_ms {
            sample(out, "fleet_box_clock_skew_seconds", &each.name, ms as f64 / 1e3);
        }
    }
    family(
        out,
        "fleet_box_paused",
        "gauge",
        "Whether an operator has paused remedies on the box (1) or not (0).",
    );
    for each in boxes {
        sample(
            out,
            "fleet_box_paused",
            &each.name,
            f64::from(u8::from(each.paused)),
        );
    }
    family(
        out,
        "fleet_box_info",
        "gauge",
        "Always 1; carries the box's labels and the versions that it runs.",
    );
    for each in boxes {
        info(out, each);
    }
}

/// Away is a planned absence: not up, but nothing to alert on either; see `fleet_box_state`.
fn is_up(state: Liveness) -> bool {
    match state {
        Liveness::Live | Liveness::Suspect => true,
        Liveness::Unseen | Liveness::Dark | Liveness::Silent | Liveness::Away => false,
    }
}

fn info(out: &mut String, each: &BoxSample) {
    let _ = write!(out, "fleet_box_info{{box=\"{}\"", each.name);
    if let Some((report, _)) = &each.report {
        for (name, value) in [
            ("os", &report.host.os),
            ("watchdog_version", &report.host.watchdog_version),
        ] {
            if let Some(value) = value {
                let _ = write!(out, ",{name}=\"");
                escape(out, value);
                out.push('"');
            }
        }
    }
    for (name, value) in each.labels.iter() {
        // A label of the operator's with the name of one of ours would stand twice, which no scraper takes.
        if matches!(name, "os" | "watchdog_version") {
            continue;
        }
        let _ = write!(out, ",{name}=\"");
        escape(out, value);
        out.push('"');
    }
    out.push_str("} 1\n");
}

/// A figure of a check's `values` that has a metric of its own: check, value, metric, help.
const FIGURES: [(&str, &str, &str, &str); 2] = [
    (
        "backup",
        "age_secs",
        "fleet_backup_age_seconds",
        "Age of the newest good backup, seconds, at the time of the report.",
    ),
    (
        "tailscale",
        "key_expires_in_secs",
        "fleet_tailscale_key_expires_in_seconds",
        "Seconds until the Tailscale key expires, at the time of the report.",
    ),
];

fn checks(out: &mut String, boxes: &[BoxSample]) {
    family(
        out,
        "fleet_report_received_timestamp_seconds",
        "gauge",
        "Unix time at which the box's newest report arrived.",
    );
    for each in boxes {
        if let Some((_, at)) = &each.report {
            sample(
                out,
                "fleet_report_received_timestamp_seconds",
                &each.name,
                unix(*at),
            );
        }
    }
    family(
        out,
        "fleet_check_status",
        "gauge",
        "Status of a check in the newest report: 0 ok, 1 warning, 2 failing, 3 unknown.",
    );
    each_check(boxes, |name, check| {
        labelled(
            out,
            "fleet_check_status",
            name,
            check,
            status_number(check.status),
        );
    });
    family(
        out,
        "fleet_check_consecutive_runs",
        "gauge",
        "Runs in a row with the check's present status.",
    );
    each_check(boxes, |name, check| {
        labelled(
            out,
            "fleet_check_consecutive_runs",
            name,
            check,
            f64::from(check.consecutive),
        );
    });
    for (of, value, metric, help) in FIGURES {
        family(out, metric, "gauge", help);
        each_check(boxes, |name, check| {
            if check.name.as_str() == of
                && let Some(number) = check.values.get(value).and_then(Value::as_f64)
            {
                sample(out, metric, name, number);
            }
        });
    }
    disks(out, boxes);
}

/// Per mount: metric, value's name, help.
const MOUNT_FIGURES: [(&str, &str, &str); 3] = [
    (
        "fleet_disk_free_bytes",
        "free_bytes",
        "Bytes that an unprivileged process may still write, by mount.",
    ),
    (
        "fleet_disk_size_bytes",
        "total_bytes",
        "Size of the file system, bytes, by mount.",
    ),
    ("fleet_disk_free_inodes", "free_inodes", "Inodes left, by mount."),
];

fn disks(out: &mut String, boxes: &[BoxSample]) {
    for (metric, value, help) in MOUNT_FIGURES {
        family(out, metric, "gauge", help);
        each_check(boxes, |name, check| {
            let mounts = check.values.get("mounts").and_then(Value::as_object);
            for (path, mount) in mounts.into_iter().flatten() {
                if let Some(number) = mount.get(value).and_then(Value::as_f64) {
                    let _ = write!(out, "{metric}{{box=\"{name}\",mount=\"");
                    escape(out, path);
                    let _ = writeln!(out, "\"}} {number}");
                }
            }
        });
    }
}

fn each_check(boxes: &[BoxSample], mut write: impl FnMut(&BoxName, &CheckReport)) {
    for each in boxes {
        for check in each.report.iter().flat_map(|(report, _)| &report.checks) {
            write(&each.name, check);
        }
    }
}

fn status_number(status: Status) -> f64 {
    match status {
        Status::Ok => 0.0,
        Status::Warning => 1.0,
        Status::Failing => 2.0,
        Status::Unknown => 3.0,
    }
}

fn fleet(out: &mut String, scrape: &Scrape) {
    family(out, "fleet_boxes", "gauge", "Boxes by liveness.");
    for state in Liveness::ALL {
        let count = scrape.boxes.iter().filter(|each| each.state == *state).count();
        let _ = writeln!(out, "fleet_boxes{{state=\"{state}\"}} {count}");
    }
    family(
        out,
        "fleet_incidents_open",
        "gauge",
        "Open incidents by kind and severity.",
    );
    for kind in Kind::ALL {
        for severity in Severity::ALL {
            let count = scrape
                .open
                .iter()
                .filter(|open| **open == (*kind, *severity))
                .count();
            let _ = writeln!(
                out,
                "fleet_incidents_open{{kind=\"{kind}\",severity=\"{severity}\"}} {count}"
            );
        }
    }
    family(
        out,
        "fleet_incidents_muted",
        "gauge",
        "Open incidents that a silence, a maintenance or a pause mutes.",
    );
    let _ = writeln!(out, "fleet_incidents_muted {}", scrape.muted);
    family(
        out,
        "fleet_mutes_active",
        "gauge",
        "Silences, maintenances and boxes' own pauses that are in force.",
    );
    for kind in MuteKind::ALL {
        let count = scrape.mutes.iter().filter(|mute| *mute == kind).count();
        let _ = writeln!(out, "fleet_mutes_active{{kind=\"{kind}\"}} {count}");
    }
    family(
        out,
        "fleet_server_build_info",
        "gauge",
        "Always 1; the server's version.",
    );
    let _ = writeln!(
        out,
        "fleet_server_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
}

fn family(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(out: &mut String, metric: &str, name: &BoxName, value: f64) {
    let _ = writeln!(out, "{metric}{{box=\"{name}\"}} {value}");
}

fn labelled(out: &mut String, metric: &str, name: &BoxName, check: &CheckReport, value: f64) {
    let _ = write!(out, "{metric}{{box=\"{name}\",check=\"{}\"", check.name);
    if let Some(unit) = &check.subject {
        let _ = write!(out, ",unit=\"");
        escape(out, unit.as_str());
        out.push('"');
    }
    let _ = writeln!(out, "}} {value}");
}

fn unix(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1e3
}

/// The text format's escapes for a label's value.
fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_box() -> BoxSample {
        let beat = protocol::heartbeat::Heartbeat::decode(include_bytes!(
            "../../../protocol/golden/heartbeat-full.json"
        ));
        let at = Timestamp::from_millisecond(1_763_755_200_500).unwrap();
        BoxSample {
            name: BoxName::new("box-17").unwrap(),
            labels: Labels::from_texts([("site", "fsn1"), ("note", "a \"b\" \\ c"), ("os", "mine")]).unwrap(),
            state: Liveness::Live,
            last_seen: Some(at),
            interval_secs: 1.0,
            dark_after_secs: 6.0,
            beats: 42,
            clock_skew_ms: Some(-250),
            paused: true,
            report: Some((Arc::new(*beat.unwrap().report.unwrap()), at)),
        }
    }

    #[test]
    fn a_box_in_full() {
        let scrape = Scrape {
            boxes: vec![sample_box()],
            open: vec![(Kind::Gateway, Severity::Page)],
            muted: 1,
            mutes: vec![MuteKind::Pause],
        };
        let text = render(&scrape, &Registry::new()).unwrap();
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for wanted in [
            "fleet_box_up{box=\"box-17\"} 1",
            "fleet_box_state{box=\"box-17\",state=\"live\"} 1",
            "fleet_box_last_seen_timestamp_seconds{box=\"box-17\"} 1763755200.5",
            "fleet_box_clock_skew_seconds{box=\"box-17\"} -0.25",
            "fleet_check_status{box=\"box-17\",check=\"gateway\",unit=\"hermes-gateway.service\"} 2",
            "fleet_tailscale_key_expires_in_seconds{box=\"box-17\"} 777600",
            "fleet_disk_free_bytes{box=\"box-17\",mount=\"/\"} 12884901888",
            "fleet_incidents_open{kind=\"gateway\",severity=\"page\"} 1",
            "fleet_boxes{state=\"live\"} 1",
            "fleet_incidents_muted 1",
            "fleet_mutes_active{kind=\"silence\"} 0",
            "fleet_mutes_active{kind=\"pause\"} 1",
        ] {
            assert!(lines.contains(&wanted), "{wanted} is missing in\n{text}");
        }
        let info = lines
            .iter()
            .find(|line| line.starts_with("fleet_box_info"))
            .unwrap();
        assert!(info.contains(r#"note="a \"b\" \\ c""#), "{info}");
        assert_eq!(info.matches("os=").count(), 1, "{info}");
    }

    #[test]
    fn each_series_stands_once_below_its_family() {
        let scrape = Scrape {
            boxes: vec![sample_box()],
            ..Scrape::default()
        };
        let text = render(&scrape, &Registry::new()).unwrap();
        let mut family = "";
        let mut seen = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                let series = line.rsplit_once(' ').unwrap().0;
                assert!(series.starts_with(family), "{series} below {family}");
                assert!(seen.insert(series.to_owned()), "{series} stands twice");
            }
        }
    }
}
