//! What of a bundle leaves the box: the telling lines, redacted, bounded. Pure.

use protocol::limits::EVIDENCE_BYTES;

use super::Part;
use crate::redact::redact;

/// Keys of `unit.json` that are told, in this order.
const UNIT_KEYS: [&str; 10] = [
    "active",
    "sub",
    "result",
    "restarts",
    "exit_code",
    "exit_status",
    "main_pid",
    "memory_bytes",
    "tasks",
    "status_text",
];
/// Beginnings of lines of `processes.txt` and `machine.txt` that are told.
const TELLING: [&str; 12] = [
    "== process",
    "Name:",
    "State:",
    "Threads:",
    "VmRSS:",
    "VmSwap:",
    "MemTotal:",
    "MemAvailable:",
    "SwapFree:",
    "-- pressure",
    "some ",
    "full ",
];
/// Of the room, this many bytes at most for everything but the journal.
const FACTS_BYTES: usize = EVIDENCE_BYTES / 2;

/// The digest of `parts`: facts first, then as many of the last journal lines as fit.
pub(super) fn of(parts: &[Part]) -> String {
    let part = |name: &str| {
        parts
            .iter()
            .find(|part| part.name == name)
            .map_or("", |part| part.text.as_str())
    };
    let mut facts = unit(part("unit.json"));
    for name in ["processes.txt", "machine.txt"] {
        for line in part(name).lines().filter(|line| telling(line)) {
            facts.push_str(&line.split_whitespace().collect::<Vec<_>>().join(" "));
            facts.push('\n');
        }
    }
    let facts = head(&clean(&redact(&facts)), FACTS_BYTES).to_owned();
    // Redacted whole: a key block whose first line is cut off could not be told from other lines.
    let journal = clean(&redact(part("journal.txt")));
    let title = "journal, last lines:\n";
    let room = EVIDENCE_BYTES - facts.len() - title.len();
    format!("{facts}{title}{}", tail(&journal, room))
}

/// `text` within the limit, its end cut off.
pub(super) fn bounded(text: &str) -> String {
    head(text, EVIDENCE_BYTES).to_owned()
}

fn unit(json: &str) -> String {
    let Ok(serde_json::Value::Object(facts)) = serde_json::from_str(json) else {
        return format!("unit: {json}\n");
    };
    let told = UNIT_KEYS
        .iter()
        .filter_map(|&key| facts.get(key).map(|value| (key, value)))
        .filter(|(_, value)| !value.is_null() && *value != "")
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => format!("{key}={text}"),
            other => format!("{key}={other}"),
        });
    format!("unit: {}\n", told.collect::<Vec<_>>().join(" "))
}

/// A line of a list of threads counts when the thread is not merely asleep.
fn telling(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    let thread = fields.next().is_some_and(|id| id.parse::<u32>().is_ok())
        && matches!(fields.next(), Some("D" | "T" | "t" | "R"));
    thread || line.ends_with(" in all") || TELLING.iter().any(|start| line.starts_with(start))
}

/// As a report may hold it.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                ' '
            } else {
                c
            }
        })
        .collect()
}

fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The last whole lines within `bytes`.
fn tail(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let from = text.ceil_char_boundary(text.len() - bytes);
    match text[from..].find('\n') {
        Some(end) if from + end + 1 < text.len() => &text[from + end + 1..],
        Some(_) | None => &text[from..],
    }
}
