//! Nothing twice, unless the receiver did not say that it has it, or the server cannot have heard it or written it down.

use super::{Rule, Violation};
use crate::faults::history::{History, ReceiverTruth, Span, Told};

/// From a receiver's 2xx until the server has written it down, at most.
const WRITE_MS: i64 = 1000;
/// Around an answer: what clocks and threads may be apart.
const SLACK_MS: i64 = 100;
/// A sender that has heard nothing for so long sends again.
const TIME_OUT_MS: i64 = 9500;

pub(super) fn judge(history: &History) -> Vec<Violation> {
    let mut found = Vec::new();
    for receiver in &history.receivers {
        for (at, told) in receiver.told.iter().enumerate() {
            let earlier = receiver.told[..at]
                .iter()
                .rfind(|other| other.taken() && other.idempotency_key == told.idempotency_key);
            if let Some(earlier) = earlier
                && !excused(history, receiver, earlier, told)
            {
                found.push(Violation::new(
                    Rule::Repeated,
                    format!(
                        "{}: {} came at {} ms and was answered {}, and came again at {} ms",
                        receiver.name,
                        told.idempotency_key,
                        earlier.at_ms,
                        earlier.answered.unwrap_or_default(),
                        told.at_ms
                    ),
                ));
            }
        }
    }
    found
}

fn excused(history: &History, receiver: &ReceiverTruth, earlier: &Told, again: &Told) -> bool {
    let answered_ms = earlier.answered_ms.unwrap_or(earlier.at_ms);
    // It was under way already when the first one was answered.
    if again.at_ms <= answered_ms {
        return true;
    }
    let answer = Span {
        from_ms: earlier.at_ms - SLACK_MS,
        to_ms: answered_ms + SLACK_MS,
    };
    let mut written = Span {
        to_ms: answered_ms + WRITE_MS,
        ..answer
    };
    // A server that stands still writes nothing down meanwhile.
    for hung in &history.server.hung {
        if hung.meets(written) {
            written.to_ms = written.to_ms.max(hung.to_ms.saturating_add(WRITE_MS));
        }
    }
    let lost = receiver.cut.iter().any(|cut| cut.meets(answer));
    let died = history
        .server
        .died_ms
        .iter()
        .any(|died| (written.from_ms..written.to_ms).contains(died));
    let unwritten = history.server.disk_ill.iter().any(|ill| ill.meets(written));
    // The first one was under way on a cable that was out when its sender ended: what it was answered, nobody heard.
    let ended = history.server.serving.iter().map(|serving| serving.to_ms);
    let ends: Vec<i64> = ended.chain(history.server.died_ms.iter().copied()).collect();
    let orphaned = receiver.cut.iter().any(|cut| {
        let within = cut.from_ms - SLACK_MS..=earlier.at_ms;
        ends.iter().any(|end| within.contains(end))
    });
    // Or the second one was, and arrived late.
    let overtaken = !receiver.cut.is_empty() && again.connection < earlier.connection;
    let late = answered_ms - earlier.at_ms >= TIME_OUT_MS;
    lost || died || unwritten || orphaned || overtaken || late
}
