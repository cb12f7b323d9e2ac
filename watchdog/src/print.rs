//! A report for people: aligned, coloured on a terminal only, short in the journal.
//!
//! It writes text and reads nothing; the caller knows where the text goes.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use protocol::heartbeat::Paused;
use protocol::report::{CheckReport, Outcome, RemedyReport, Report, Status};

use url::Url;

use crate::checks::span_text;
use crate::settings::{CheckSettings, Settings};

/// How to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// With colours.
    pub colour: bool,
    /// When all is well, one line (for the journal, every two minutes).
    pub short: bool,
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[1;31m";
const BLUE: &str = "\x1b[36m";
const PLAIN: &str = "\x1b[0m";

/// The report as a table.
pub fn report(report: &Report, style: Style, now: Timestamp) -> String {
    let well = report.checks.iter().all(|c| c.status == Status::Ok);
    if style.short && well {
        let names: Vec<_> = report.checks.iter().map(title).collect();
        return format!("ok: {} ({} ms)\n", names.join(", "), report.took_ms);
    }
    let titles: Vec<String> = report.checks.iter().map(title).collect();
    let width = titles.iter().map(|t| t.chars().count()).max().unwrap_or(0);
    let why_width = report
        .checks
        .iter()
        .map(|c| c.why.as_str().len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for (check, title) in report.checks.iter().zip(&titles) {
        let status = painted(check.status, style.colour);
        let _ = writeln!(
            text,
            "{status}  {title:width$}  {:why_width$}  {}{}",
            check.why,
            check.summary,
            lasting(check, now)
        );
    }
    let fresh: Vec<_> = report.remedies.iter().filter(|r| shown(r, report)).collect();
    for remedy in &fresh {
        let _ = writeln!(
            text,
            "remedy   {}: {} ({}) {}",
            remedy.unit, remedy.outcome, remedy.why, remedy.summary
        );
    }
    text
}

/// What `status` says above the table.
pub fn heading(
    report: Option<&Report>,
    paused: Option<&Paused>,
    check_every: Duration,
    now: Timestamp,
) -> String {
    let mut text = String::new();
    match report {
        None => {
            text.push_str(
                "no report yet: no run of the checks has kept one (systemctl status fleet-watchdog.timer)\n",
            );
        }
        Some(report) => {
            let age = since(report.at, now);
            let _ = writeln!(text, "report of {}, {} ago", whole(report.at), span_text(age));
            if age > check_every * 2 {
                let every = span_text(check_every);
                let _ = writeln!(
                    text,
                    "it is old: a run is due every {every} (systemctl status fleet-watchdog.timer)"
                );
            }
        }
    }
    if let Some(paused) = paused {
        let left = span_text(since(now, paused.until));
        let _ = writeln!(text, "remedies are paused for another {left}: {}", paused.reason);
    }
    text
}

/// What a configuration comes to, for `check-config`.
pub fn settings(settings: &Settings) -> String {
    let mut text = format!("box        {}\n", settings.name);
    let servers = settings
        .server
        .as_ref()
        .map(|s| s.urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "));
    let _ = writeln!(
        text,
        "server     {}",
        servers.unwrap_or_else(|| "none: this box tells nobody".to_owned())
    );
    for gateway in &settings.gateways {
        let restart = &gateway.restart;
        let remedy = match restart.max {
            0 => "only reported".to_owned(),
            max => format!(
                "{} restarted after {} failing runs, {max} times within {}",
                restart.unit,
                restart.after,
                span_text(restart.window)
            ),
        };
        let _ = writeln!(
            text,
            "gateway    {} ({} probes): {remedy}",
            gateway.unit,
            gateway.probes.len()
        );
    }
    if settings.gateways.is_empty() {
        let _ = writeln!(
            text,
            "gateway    {}",
            if settings.gateway_disabled {
                "none on this box"
            } else {
                "not configured"
            }
        );
    }
    let _ = writeln!(text, "disk       {}", said(&settings.disk));
    let _ = writeln!(text, "backup     {}", said(&settings.backup));
    let _ = writeln!(text, "tailscale  {}", said(&settings.tailscale));
    text
}

fn said<T>(check: &CheckSettings<T>) -> &'static str {
    match check {
        CheckSettings::On(_) => "checked",
        CheckSettings::NotConfigured => "not configured",
        CheckSettings::Disabled => "none on this box",
    }
}

/// The report keeps a history; people see what came last about each unit, and a hold-back while something fails.
fn shown(remedy: &RemedyReport, report: &Report) -> bool {
    let newest = report.remedies.iter().rev().find(|r| r.unit == remedy.unit);
    let still = match remedy.outcome {
        Outcome::Restarted | Outcome::Failed | Outcome::GaveUp => true,
        Outcome::HeldBack => report.worst() != Status::Ok,
    };
    newest == Some(remedy) && still
}

fn title(check: &CheckReport) -> String {
    match &check.subject {
        Some(unit) => format!("{} {unit}", check.name),
        None => check.name.to_string(),
    }
}

fn lasting(check: &CheckReport, now: Timestamp) -> String {
    if check.status == Status::Ok || check.consecutive < 2 {
        return String::new();
    }
    format!(
        " (for {}, {} runs)",
        span_text(since(check.since, now)),
        check.consecutive
    )
}

/// Seconds are enough for people.
fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::from_secs(to.duration_since(from).as_secs().max(0).unsigned_abs())
}

fn whole(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn painted(status: Status, colour: bool) -> String {
    let word = format!("{status:<7}");
    if !colour {
        return word;
    }
    let paint = match status {
        Status::Ok => GREEN,
        Status::Warning => YELLOW,
        Status::Failing => RED,
        Status::Unknown => BLUE,
    };
    format!("{paint}{word}{PLAIN}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::names::{UnitName, Word};
    use protocol::report::{CheckName, Host};
    use protocol::why::KnownWhy;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn check(name: CheckName, status: Status, why: KnownWhy, consecutive: u32) -> CheckReport {
        CheckReport {
            name: Word::new(name.as_str()).unwrap(),
            subject: (name == CheckName::Gateway).then(|| UnitName::new("g.service").unwrap()),
            status,
            why: why.into(),
            summary: "as it is".to_owned(),
            consecutive,
            since: at(0),
            values: serde_json::Map::new(),
        }
    }

    fn sample(gateway: CheckReport) -> Report {
        Report {
            id: uuid::Uuid::nil(),
            at: at(240),
            took_ms: 12,
            checks: vec![gateway, check(CheckName::Disk, Status::Ok, KnownWhy::Fine, 9)],
            remedies: vec![],
            host: Host::default(),
            labels: protocol::names::Labels::default(),
        }
    }

    const PIPE: Style = Style {
        colour: false,
        short: false,
    };

    #[test]
    fn a_pipe_gets_plain_aligned_text() {
        let report = report(
            &sample(check(CheckName::Gateway, Status::Failing, KnownWhy::LoopHung, 3)),
            PIPE,
            at(240),
        );
        let wanted = "failing  gateway g.service  loop_hung  as it is (for 4 min, 3 runs)\n\
                      ok       disk               fine       as it is\n";
        assert_eq!(report, wanted);
    }

    #[test]
    fn a_terminal_gets_colours() {
        let sample = sample(check(CheckName::Gateway, Status::Failing, KnownWhy::LoopHung, 3));
        let text = report(&sample, Style { colour: true, ..PIPE }, at(240));
        assert!(
            text.contains("\x1b[1;31mfailing\x1b[0m") && text.contains("\x1b[32mok"),
            "{text:?}"
        );
    }

    #[test]
    fn the_journal_gets_one_line_when_all_is_well_and_all_of_it_when_not() {
        let short = Style { short: true, ..PIPE };
        let well = report(
            &sample(check(CheckName::Gateway, Status::Ok, KnownWhy::Fine, 3)),
            short,
            at(240),
        );
        assert_eq!(well, "ok: gateway g.service, disk (12 ms)\n");
        let ill = report(
            &sample(check(
                CheckName::Gateway,
                Status::Unknown,
                KnownWhy::CheckError,
                1,
            )),
            short,
            at(240),
        );
        assert_eq!(ill.lines().count(), 2);
    }

    #[test]
    fn a_hold_back_is_shown_while_something_fails() {
        let mut sample = sample(check(CheckName::Gateway, Status::Failing, KnownWhy::LoopHung, 3));
        sample.remedies.push(RemedyReport {
            at: at(0),
            unit: UnitName::new("g.service").unwrap(),
            outcome: Outcome::HeldBack,
            why: KnownWhy::Paused.into(),
            summary: "paused until noon".to_owned(),
            evidence: None,
        });
        let text = report(&sample, PIPE, at(240));
        assert!(
            text.contains("remedy   g.service: held_back (paused) paused until noon"),
            "{text}"
        );
        sample.checks[0].status = Status::Ok;
        assert!(!report(&sample, PIPE, at(240)).contains("remedy"));
    }

    #[test]
    fn an_old_report_is_called_old_and_a_pause_is_said() {
        let sample = sample(check(CheckName::Gateway, Status::Ok, KnownWhy::Fine, 1));
        let every = Duration::from_secs(120);
        assert!(!heading(Some(&sample), None, every, at(400)).contains("old"));
        let paused = Paused {
            until: at(2000),
            reason: "disk swap".to_owned(),
        };
        let text = heading(Some(&sample), Some(&paused), every, at(1400));
        assert!(
            text.contains("it is old") && text.contains("another 10 min: disk swap"),
            "{text}"
        );
        assert!(heading(None, None, every, at(0)).contains("no report yet"));
    }
}
