//! ntfy: publish as JSON, so that a title needs no header's encoding. Nothing in it is markup unless asked for.
//!
//! Limit: 4096 bytes of message; more would arrive as an attachment.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::{EventKind, Severity};
use serde_json::json;

use super::answer::{HttpAnswer, Taken, one_line};
use super::{Message, Request, link, post};
use crate::notify::retry::SendError;
use crate::settings::Ntfy;

/// `message`.
const MESSAGE_BYTES: usize = 4096;
/// `title`: phones show less.
const TITLE_BYTES: usize = 250;

/// The message for one notification.
pub fn request(ntfy: &Ntfy, message: &Message<'_>) -> Request {
    let alert = message.alert;
    let mut body = json!({
        "topic": ntfy.topic.expose(),
        "title": cut(&message.rendered.title, TITLE_BYTES),
        "message": cut(&message.rendered.text, MESSAGE_BYTES),
        "priority": priority(alert),
        "tags": [tag(alert), alert.incident.kind.as_str()],
    });
    if let Some(link) = link(alert) {
        body["click"] = link.into();
    }
    let token = ntfy.token.iter();
    let headers = token
        .map(|token| ("authorization", format!("Bearer {}", token.expose())))
        .collect();
    post(ntfy.url.clone(), headers, &body)
}

/// As usual; the reason stands in `error`.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let body = answer.json().unwrap_or_default();
    let said = body["error"].as_str().map(one_line);
    if answer.status.is_success() {
        return answer.usual(now, "", None, "");
    }
    let fix = match answer.status.as_u16() {
        401 | 403 => "put an access token that may write to the topic into token_file",
        _ => "is the url that of the ntfy server, without the topic?",
    };
    let said = said.unwrap_or_else(|| answer.said());
    answer.usual(now, &said, None, fix)
}

/// 5 rings through "do not disturb", 3 rings, 2 does not.
fn priority(alert: &Alert) -> u8 {
    match (alert.event, alert.incident.severity) {
        (EventKind::Resolved, Severity::Page | Severity::Ticket) | (_, Severity::Ticket) => 3,
        (_, Severity::Page) => 5,
        (_, Severity::Info) => 2,
    }
}

/// ntfy shows these words as a picture.
fn tag(alert: &Alert) -> &'static str {
    match (alert.event, alert.incident.severity) {
        (EventKind::Resolved, _) => "white_check_mark",
        (_, Severity::Page) => "rotating_light",
        (_, Severity::Ticket) => "warning",
        (_, Severity::Info) => "information_source",
    }
}

/// At most so many bytes.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use protocol::secret::Secret;
    use serde_json::Value;

    use super::super::tests::{alert, answer, http, long_rendered, message};
    use super::*;

    fn ntfy() -> Ntfy {
        Ntfy {
            url: "https://ntfy.sh/".parse().unwrap(),
            topic: Secret::new("fleet-7f3a"),
            token: Some(Secret::new("tk_secret")),
        }
    }

    #[test]
    fn a_page_is_urgent_and_can_be_clicked() {
        let request = http(request(&ntfy(), &message(&alert())));
        assert_eq!(request.url.as_str(), "https://ntfy.sh/");
        assert_eq!(
            request.headers,
            [("authorization", "Bearer tk_secret".to_owned())]
        );
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        insta::assert_json_snapshot!(body);
    }

    #[test]
    fn the_limit_is_bytes() {
        let long = long_rendered();
        let alert = alert();
        let request = http(request(
            &ntfy(),
            &Message {
                rendered: &long,
                ..message(&alert)
            },
        ));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let message = body["message"].as_str().unwrap();
        assert!(message.len() <= MESSAGE_BYTES && message.ends_with('…'));
    }

    #[test]
    fn a_refusal_names_the_fix() {
        let body = r#"{"code":40301,"http":403,"error":"forbidden","link":"https://ntfy.sh/docs/publish/#authentication"}"#;
        let err = judge(&answer(403, body), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(err.word(), "denied");
        assert!(
            err.to_string().contains("forbidden; put an access token"),
            "{err}"
        );
        let busy = r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#;
        assert_eq!(
            judge(&answer(429, busy), Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .word(),
            "unavailable"
        );
    }
}
