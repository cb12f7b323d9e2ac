//! What a server's answer to a beat means. Pure; `sender` acts on it.

use std::time::Duration;

use protocol::heartbeat::HeartbeatAnswer;
use protocol::problem::Problem;

use super::lane::Answer;
use super::plan::{HELD_MAX, Said};

/// The pace while the server knows no such token: a rotation or an enrolment may mend it any time.
pub const UNAUTHORISED_PACE: Duration = Duration::from_secs(30);
/// A 429 without a Retry-After that can be read.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a server's sentence that are kept for the log.
const DETAIL_BYTES: usize = 300;

/// What an answer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Taken.
    Taken(HeartbeatAnswer),
    /// Too many; wait so long.
    SlowDown(Duration),
    /// The token is unknown or revoked.
    BadToken,
    /// The server knows a newer beat of this session.
    OldSeq,
    /// Another machine or process speaks with this box's identity.
    Replaced,
    /// Something in the beat is not accepted.
    Invalid,
    /// The server is in trouble, or is none.
    Trouble,
}

/// The meaning, and a sentence for the log (empty when taken).
pub fn read(answer: &Answer) -> (Meaning, String) {
    match answer.status {
        200 => {
            if let Ok(taken) = serde_json::from_slice(&answer.body) {
                return (Meaning::Taken(taken), String::new());
            }
            let text = "answers 200, but not as a fleet server does; check the URL, and whether a portal stands between";
            (Meaning::Trouble, text.to_owned())
        }
        401 | 403 => {
            let text = "does not know this box's token; enrol the box, or write a new token (`fleetctl box rotate`) into the token file";
            (Meaning::BadToken, format!("{text}{}", detail(answer)))
        }
        409 if is(answer, "old-seq") => (
            Meaning::OldSeq,
            format!("knows a newer beat of this session{}", detail(answer)),
        ),
        409 => {
            let text = "hears another machine with this box's identity; give each box a token of its own";
            (Meaning::Replaced, format!("{text}{}", detail(answer)))
        }
        400 | 413 | 422 => (
            Meaning::Invalid,
            format!("does not accept the beat ({}){}", answer.status, detail(answer)),
        ),
        429 => {
            let pause = answer.retry_after.unwrap_or(DEFAULT_PAUSE).min(HELD_MAX);
            (
                Meaning::SlowDown(pause),
                format!("asks for fewer beats{}", detail(answer)),
            )
        }
        503 if answer.retry_after.is_some() => {
            let pause = answer.retry_after.unwrap_or_default().min(HELD_MAX);
            (
                Meaning::SlowDown(pause),
                format!("is not available for now{}", detail(answer)),
            )
        }
        300..=399 => {
            let text = "redirects; write the URL that it redirects to into [server] urls";
            (Meaning::Trouble, text.to_owned())
        }
        404 | 405 => (
            Meaning::Trouble,
            format!("has no /v1/heartbeat ({}); check the URL", answer.status),
        ),
        status => (Meaning::Trouble, format!("answers {status}{}", detail(answer))),
    }
}

impl Meaning {
    /// What the plan has to know of it.
    pub fn said(&self) -> Said {
        match self {
            Self::Taken(answer) => Said::Taken {
                every: Duration::from_millis(answer.every_ms),
            },
            Self::SlowDown(pause) => Said::SlowDown { pause: *pause },
            Self::BadToken => Said::SlowDown {
                pause: UNAUTHORISED_PACE,
            },
            Self::OldSeq | Self::Replaced | Self::Invalid | Self::Trouble => Said::Refused,
        }
    }
}

fn problem(answer: &Answer) -> Option<Problem> {
    serde_json::from_slice(&answer.body).ok()
}

fn is(answer: &Answer, kind: &str) -> bool {
    problem(answer).is_some_and(|problem| problem.kind.ends_with(kind))
}

/// ": what the server says", on one line, bounded.
fn detail(answer: &Answer) -> String {
    let Some(problem) = problem(answer) else {
        return String::new();
    };
    let field = problem
        .field
        .map(|field| format!("{field}: "))
        .unwrap_or_default();
    let text = format!(": {field}{}", problem.detail.unwrap_or(problem.title));
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut bytes = 0;
    line.take_while(|c| {
        bytes += c.len_utf8();
        bytes <= DETAIL_BYTES
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer {
            status,
            retry_after: None,
            body: body.to_owned().into(),
        }
    }

    #[test]
    fn every_status_has_a_meaning_and_a_sentence() {
        let taken = read(&answer(200, r#"{"every_ms":2000,"new_field":1}"#));
        let wanted = HeartbeatAnswer {
            every_ms: 2000,
            want_report: false,
        };
        assert_eq!(taken, (Meaning::Taken(wanted), String::new()));
        assert_eq!(
            read(&answer(200, "<html>Welcome to HotelNet")).0,
            Meaning::Trouble
        );
        for status in 201..600 {
            let (meaning, text) = read(&answer(status, ""));
            assert!(
                !matches!(meaning, Meaning::Taken(_)) && !text.is_empty(),
                "{status}"
            );
        }
        let old =
            r#"{"type":"/problems/old-seq","title":"Old","status":409,"detail":"seq 3 is not newer than 7"}"#;
        let (meaning, text) = read(&answer(409, old));
        assert_eq!(meaning, Meaning::OldSeq);
        assert!(text.ends_with("seq 3 is not newer than 7"), "{text}");
        assert_eq!(read(&answer(409, "{}")).0, Meaning::Replaced);
    }

    #[test]
    fn a_pause_is_bounded_and_a_servers_text_too() {
        let mut slow = answer(429, "");
        assert_eq!(read(&slow).0, Meaning::SlowDown(DEFAULT_PAUSE));
        slow.retry_after = Some(Duration::from_secs(86_400));
        assert_eq!(read(&slow).0, Meaning::SlowDown(HELD_MAX));
        let long = format!(r#"{{"title":"{}\u0007","status":500}}"#, "é".repeat(9_000));
        let (_, text) = read(&answer(500, &long));
        assert!(
            text.len() < DETAIL_BYTES + 40 && !text.contains('\u{7}'),
            "{} bytes",
            text.len()
        );
    }
}
