//! What a receiver answered, as it came, and what that usually means. What is special to one receiver stands in its
//! own file.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::notify::retry::{SendError, asked};

/// How much of an answer is shown to people, characters.
const SAID_CHARS: usize = 300;

/// An answer, of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Over HTTP, whatever its status.
    Http(HttpAnswer),
    /// Of a mail server.
    Smtp(SmtpAnswer),
    /// Of a program that ended.
    Exit(ExitAnswer),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// The start of its body.
    pub body: Vec<u8>,
}

/// A mail server's last word about a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmtpAnswer {
    /// The reply code: 250 is taken, 4xx is not now, 5xx is no.
    pub code: u16,
    /// What it said.
    pub text: String,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitAnswer {
    /// Its exit status; none if a signal killed it.
    pub code: Option<i32>,
    /// The start of what it wrote to stderr, or else to stdout.
    pub output: String,
}

/// A notification that was taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taken {
    /// What the receiver said, for people.
    pub said: String,
    /// How long it asks to be left alone before the next one.
    pub pause: Option<Duration>,
    /// What it calls this message: later ones about the same incident can go under it.
    pub thread: Option<String>,
}

impl HttpAnswer {
    /// The usual meaning of a status. `said`: its answer in words; `wait`: what it asked for elsewhere than in
    /// `Retry-After`; `fix`: what to do if it lets us in no more.
    pub fn usual(
        &self,
        now: Timestamp,
        said: &str,
        wait: Option<Duration>,
        fix: &str,
    ) -> Result<Taken, SendError> {
        if self.status.is_success() {
            return Ok(Taken {
                said: colon(&self.status.to_string(), said),
                pause: None,
                thread: None,
            });
        }
        let text = colon(&format!("answered {}", self.status), said);
        match self.status.as_u16() {
            401 | 403 | 404 | 410 => Err(SendError::Denied {
                text: advised(&text, fix),
            }),
            408 | 425 | 429 | 500..=599 => Err(SendError::Unavailable {
                text,
                retry_after: self.asked(now).max(wait),
            }),
            300..=399 => Err(SendError::Denied {
                text: format!("{text}; redirects are not followed: write the address that it leads to"),
            }),
            _ => Err(SendError::Refused { text }),
        }
    }

    /// Its `Retry-After`.
    pub fn asked(&self, now: Timestamp) -> Option<Duration> {
        asked(self.header(header::RETRY_AFTER.as_str())?, now)
    }

    /// One header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The start of the body, in one line.
    pub fn said(&self) -> String {
        one_line(&String::from_utf8_lossy(&self.body))
    }
}

/// The start of `text` in one line, with nothing in it that could steer a terminal.
pub fn one_line(text: &str) -> String {
    let clean = text.replace(char::is_control, " ");
    let mut line: String = clean.trim().chars().take(SAID_CHARS).collect();
    if line.len() < clean.trim().len() {
        line.push('…');
    }
    line
}

/// A duration in seconds as a JSON number.
pub fn seconds(value: &Value) -> Option<Duration> {
    Duration::try_from_secs_f64(value.as_f64()?).ok()
}

/// `what: said`, or `what`.
pub fn colon(what: &str, said: &str) -> String {
    if said.is_empty() {
        what.to_owned()
    } else {
        format!("{what}: {said}")
    }
}

/// `text; fix`, or `text`.
pub fn advised(text: &str, fix: &str) -> String {
    if fix.is_empty() {
        text.to_owned()
    } else {
        format!("{text}; {fix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> HttpAnswer {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        }
        HttpAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: b"no\r\n\x1b[2J".to_vec(),
        }
    }

    fn usual(status: u16, retry_after: Option<&str>) -> Result<Taken, SendError> {
        let answer = answer(status, retry_after);
        answer.usual(Timestamp::UNIX_EPOCH, &answer.said(), None, "mend it")
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in [200, 202, 204] {
            assert!(usual(status, None).is_ok(), "{status}");
        }
        for (status, word) in [
            (301, "denied"),
            (400, "refused"),
            (401, "denied"),
            (403, "denied"),
            (404, "denied"),
            (408, "unavailable"),
            (410, "denied"),
            (413, "refused"),
            (422, "refused"),
            (429, "unavailable"),
            (500, "unavailable"),
            (503, "unavailable"),
        ] {
            assert_eq!(usual(status, None).unwrap_err().word(), word, "{status}");
        }
    }

    #[test]
    fn the_text_has_the_status_the_answer_and_the_fix_and_no_control_characters() {
        let text = usual(401, None).unwrap_err().to_string();
        assert_eq!(text, "answered 401 Unauthorized: no   [2J; mend it");
    }

    #[test]
    fn the_longer_of_two_wishes_is_obeyed() {
        let answer = answer(429, Some("3"));
        let wish = |secs| match answer.usual(Timestamp::UNIX_EPOCH, "", Some(Duration::from_secs(secs)), "") {
            Err(SendError::Unavailable { retry_after, .. }) => retry_after.unwrap().as_secs(),
            other => panic!("{other:?}"),
        };
        assert_eq!((wish(1), wish(5)), (3, 5));
    }
}
