//! How a boot ended, by the last lines of its journal. Pure: it is given lines as `journalctl -o json` writes them.
//!
//! Evidence rules:
//! - In order: systemd (as PID 1) reached one of the targets that end a system, its shutdown program spoke, or logind
//!   announced that it begins now (a shutdown that is only scheduled may never come). Or the very last line is
//!   journald's own "Journal stopped": journald says that also when it is restarted, but then it is not the last.
//! - Out of memory: a line of the kernel's or systemd's about an OOM kill within [`OOM_NEAR`] before the last line. An
//!   older one the boot survived; and where a unit only met its own limit, the machine had memory left.
//! - Lines about a dying machine (panic, lockup, I/O errors, heat) are kept as evidence; they decide nothing.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::redact::redact;

/// Lines that are asked for.
pub const LINES: usize = 200;
/// An OOM kill this long before the end of the journal may have been the cause of the end.
pub const OOM_NEAR: Duration = Duration::from_secs(300);
/// systemd's line about a kill comes no later after the kernel's.
const ECHO: Duration = Duration::from_secs(30);
/// Lines of each kind that are kept: the last ones.
const KEPT: usize = 4;
/// Bytes of a line that are kept.
const LINE_BYTES: usize = 200;
/// Bytes of a message that are looked at: journalctl shows none that is longer.
const MESSAGE_BYTES: usize = 4096;

/// What the last lines say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalEnd {
    /// When the last line was written.
    pub last: Option<Timestamp>,
    /// What says that the end was in order.
    pub shutdown: Option<String>,
    /// OOM kills.
    pub ooms: Vec<OomKill>,
    /// Signs of a dying machine.
    pub signs: Vec<String>,
    /// The newest OOM kill of a machine without memory.
    short_of_memory: Option<(Timestamp, String)>,
    /// The very last line, as it came.
    raw: Option<String>,
}

/// The kernel, or systemd, killed for lack of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomKill {
    /// When.
    pub at: Timestamp,
    /// What says so.
    pub line: String,
    /// It had met the limit of its own group; the machine had memory left.
    pub of_its_limit: bool,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    at: String,
    #[serde(rename = "MESSAGE")]
    message: Option<serde_json::Value>,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    identifier: Option<String>,
    #[serde(rename = "_TRANSPORT")]
    transport: Option<String>,
}

impl JournalEnd {
    /// Takes in the next line.
    pub fn take(&mut self, json: &str) {
        let Ok(line) = serde_json::from_str::<Line>(json) else {
            return;
        };
        let at = line.at.parse().ok();
        let Some(at) = at.and_then(|us: i64| Timestamp::from_microsecond(us).ok()) else {
            return;
        };
        self.last = Some(at);
        let identifier = line.identifier.unwrap_or_default();
        let kernel = line.transport.as_deref() == Some("kernel");
        let who = if kernel { "kernel" } else { &identifier };
        // A message with odd bytes comes as a list of numbers, a very long one not at all: none of those that are looked
        // for.
        let Some(serde_json::Value::String(message)) = line.message else {
            self.raw = Some(format!("{who}: (no text)"));
            return;
        };
        let message = &message[..message.floor_char_boundary(MESSAGE_BYTES)];
        let raw = format!("{who}: {message}");
        if ends_the_system(&identifier, message) {
            self.shutdown = Some(shown(&raw));
        }
        if let Some(of_its_limit) = self.oom_kill(kernel, &identifier, message, at) {
            let line = shown(&raw);
            if !of_its_limit {
                self.short_of_memory = Some((at, line.clone()));
            }
            let kill = OomKill {
                at,
                line,
                of_its_limit,
            };
            push(&mut self.ooms, kill);
        }
        if kernel && SIGNS.iter().any(|sign| message.contains(sign)) {
            push(&mut self.signs, shown(&raw));
        }
        self.raw = Some(raw);
    }

    /// The very last line.
    pub fn last_line(&self) -> Option<String> {
        self.raw.as_deref().map(shown)
    }

    /// What says that this boot ended in order; none: nothing does.
    pub fn in_order(&self) -> Option<&str> {
        let stopped = self
            .raw
            .as_deref()
            .filter(|line| line.starts_with("systemd-journald") && line.ends_with("Journal stopped"));
        self.shutdown.as_deref().or(stopped)
    }

    /// The OOM kill near its end.
    pub fn oom(&self) -> Option<&str> {
        let (at, line) = self.short_of_memory.as_ref()?;
        let age = self.last?.duration_since(*at);
        (age.unsigned_abs() <= OOM_NEAR).then_some(line)
    }

    /// Whether the line tells of an OOM kill; and if so, whether only of one by a group's own limit.
    fn oom_kill(&self, kernel: bool, identifier: &str, message: &str, at: Timestamp) -> Option<bool> {
        let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
        if kernel {
            let limit = has(&[
                "Memory cgroup out of memory",
                "oom-kill:constraint=CONSTRAINT_MEMCG",
            ]);
            return (limit || has(&["Out of memory: ", "oom-kill:"])).then_some(limit);
        }
        match identifier {
            // Of the kill that the kernel has just told of, where it told of one.
            "systemd" if has(&["killed by the OOM killer", "result 'oom-kill'"]) => {
                let echoes = |kill: &&OomKill| at.duration_since(kill.at).unsigned_abs() <= ECHO;
                let last = self.ooms.last().filter(echoes);
                Some(last.is_some_and(|kill| kill.of_its_limit))
            }
            "systemd-oomd" if message.starts_with("Killed ") => Some(false),
            _ => None,
        }
    }
}

/// As it may leave the box. A secret is known by its looks: it goes before the line is cut.
fn shown(raw: &str) -> String {
    let mut line = redact(raw);
    line.truncate(line.floor_char_boundary(LINE_BYTES));
    line
}

/// Signs of a dying machine, as the kernel spells them.
const SIGNS: [&str; 10] = [
    "Kernel panic",
    "BUG:",
    "Oops",
    "soft lockup",
    "hard LOCKUP",
    "blocked for more than",
    "I/O error",
    "EXT4-fs error",
    "critical temperature",
    "Under-voltage",
];

fn ends_the_system(identifier: &str, message: &str) -> bool {
    match identifier {
        // A user's own manager reaches a `shutdown.target`, too, but none of these.
        "systemd" => {
            const TARGETS: [&str; 8] = [
                "reboot.target",
                "poweroff.target",
                "halt.target",
                "kexec.target",
                "System Reboot",
                "System Power Off",
                "System Halt",
                "System Shutdown",
            ];
            message.starts_with("Reached target") && TARGETS.iter().any(|target| message.contains(target))
        }
        "systemd-shutdown" => true,
        "systemd-logind" => {
            let announced = [
                "System is rebooting",
                "System is powering down",
                "System is halting",
            ];
            let now = message.starts_with("The system will ") && message.ends_with("now!");
            now || announced.iter().any(|text| message.starts_with(text))
        }
        _ => false,
    }
}

fn push<T>(kept: &mut Vec<T>, one: T) {
    if kept.len() == KEPT {
        kept.remove(0);
    }
    kept.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(secs: i64, identifier: &str, message: &str) -> String {
        let transport = if identifier == "kernel" {
            "kernel"
        } else {
            "journal"
        };
        serde_json::json!({
            "__REALTIME_TIMESTAMP": format!("{}", (1_763_755_200 + secs) * 1_000_000), "MESSAGE": message,
            "SYSLOG_IDENTIFIER": identifier, "_TRANSPORT": transport, "__CURSOR": "s=1",
        })
        .to_string()
    }

    fn end(lines: &[(i64, &str, &str)]) -> JournalEnd {
        let mut end = JournalEnd::default();
        for (secs, identifier, message) in lines {
            end.take(&line(*secs, identifier, message));
        }
        end
    }

    #[test]
    fn a_shutdown_in_order_is_told_in_many_ways() {
        for last in [
            ("systemd", "Reached target reboot.target - System Reboot."),
            ("systemd", "Reached target Power-Off (poweroff.target)."),
            ("systemd-shutdown", "Syncing filesystems and block devices."),
            ("systemd-logind", "System is rebooting."),
            ("systemd-logind", "The system will power off now!"),
            ("systemd-journald", "Journal stopped"),
        ] {
            let end = end(&[(0, "app", "x"), (1, last.0, last.1)]);
            assert!(end.in_order().is_some(), "{last:?}");
        }
    }

    #[test]
    fn a_power_cut_leaves_whatever_came_last() {
        for last in [
            ("app", "working"),
            ("systemd", "Reached target multi-user.target - Multi-User System."),
            ("systemd", "Reached target shutdown.target - Shutdown."),
            ("app", "Reached target reboot.target - System Reboot."),
            (
                "systemd-logind",
                "The system will reboot at Sun 2026-11-22 03:00:00 UTC!",
            ),
        ] {
            let end = end(&[(0, "systemd-journald", "Journal stopped"), (9, last.0, last.1)]);
            assert_eq!(end.in_order(), None, "{last:?}");
            assert_eq!(end.last.unwrap().as_second(), 1_763_755_209);
        }
        assert_eq!(JournalEnd::default().in_order(), None);
    }

    #[test]
    fn an_oom_kill_counts_near_the_end() {
        let kill = "Out of memory: Killed process 811 (hermes) total-vm:4000kB, anon-rss:3000kB";
        let near = end(&[(0, "kernel", kill), (200, "app", "x")]);
        assert!(
            near.oom()
                .unwrap()
                .starts_with("kernel: Out of memory: Killed process 811")
        );
        assert_eq!(end(&[(0, "kernel", kill), (900, "app", "x")]).oom(), None);
        assert_eq!(
            end(&[(0, "app", kill), (1, "app", "x")]).oom(),
            None,
            "an application says so"
        );
        let systemd = "hermes.service: A process of this unit has been killed by the OOM killer.";
        assert!(end(&[(0, "systemd", systemd)]).oom().is_some());
    }

    #[test]
    fn a_unit_that_met_its_own_limit_is_no_machine_without_memory() {
        let constraint = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),task=hermes,pid=7,uid=0";
        let limit = "Memory cgroup out of memory: Killed process 7 (hermes) total-vm:4000kB";
        let systemd = "hermes.service: A process of this unit has been killed by the OOM killer.";
        let lines = [
            (100, "kernel", constraint),
            (100, "kernel", limit),
            (101, "systemd", systemd),
            (130, "app", "x"),
        ];
        let of_its_limit = end(&lines);
        assert_eq!((of_its_limit.oom(), of_its_limit.ooms.len()), (None, 3));
        let machine = "Out of memory: Killed process 9 (hermes) total-vm:4000kB";
        let both = end(&[&[(90, "kernel", machine)], &lines[..]].concat());
        assert!(both.oom().unwrap().contains("process 9"));
    }

    #[test]
    fn a_secret_goes_before_the_line_is_cut() {
        // Cut in its middle it would no longer look like one.
        let secret = "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0";
        let line = format!("{} {secret}", "x ".repeat(85));
        let end = end(&[(0, "kernel", &format!("Oops {line}")), (1, "hermes", &line)]);
        for line in [&end.signs[0], &end.last_line().unwrap()] {
            assert!(!line.contains("Ab1Cd2"), "{line}");
        }
    }

    #[test]
    fn odd_lines_are_bounded_and_passed_over() {
        let mut end = end(&[(0, "kernel", &"Kernel panic ".repeat(50))]);
        for text in ["", "{", "[]", r#"{"__REALTIME_TIMESTAMP":"x","MESSAGE":"y"}"#] {
            end.take(text);
        }
        end.take(r#"{"__REALTIME_TIMESTAMP":"1763755300000000","MESSAGE":[1,2,3]}"#);
        assert_eq!(end.signs.len(), 1);
        assert_eq!(end.last_line().as_deref(), Some(": (no text)"));
        assert!(end.signs[0].len() <= LINE_BYTES);
    }
}
