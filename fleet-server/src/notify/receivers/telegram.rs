//! Telegram's Bot API: `sendMessage` as HTML; later messages about an incident answer the first one.
//!
//! HTML has three characters to escape, and Telegram finds `@names` in any text by itself: a word joiner behind the
//! `@` keeps a label from calling somebody. Limit: 4096 characters.

use jiff::Timestamp;
use protocol::incident::{EventKind, Severity};
use serde_json::{Value, json};

use super::answer::{HttpAnswer, Taken, one_line, seconds};
use super::fit::{fit, html};
use super::{Message, Request, below, post};
use crate::notify::retry::SendError;
use crate::settings::Telegram;

/// A message, after Telegram has read its markup; ours is counted before.
const MESSAGE_CHARS: usize = 4096;
/// A title, so that it never takes the room of the text.
const TITLE_CHARS: usize = 512;
/// What stands around title and text: `<b></b>` and two line ends.
const MARKUP_CHARS: usize = 9;

/// The message for one notification.
pub fn request(telegram: &Telegram, message: &Message<'_>) -> Request {
    let alert = message.alert;
    let title = fit(&message.rendered.title, TITLE_CHARS, literal);
    let room = MESSAGE_CHARS - MARKUP_CHARS - TITLE_CHARS;
    let text = fit(&message.rendered.text, room, literal);
    let mut body = json!({
        "chat_id": chat(&telegram.chat_id),
        "text": format!("<b>{title}</b>\n\n{text}").trim_end(),
        "parse_mode": "HTML",
        "link_preview_options": { "is_disabled": true },
        // Only what wakes somebody rings.
        "disable_notification": alert.incident.severity != Severity::Page && alert.event != EventKind::Resolved,
    });
    if let Some(topic) = telegram.thread_id {
        body["message_thread_id"] = topic.into();
    }
    if let Some(first) = message.thread.and_then(|thread| thread.parse::<i64>().ok()) {
        body["reply_parameters"] = json!({ "message_id": first, "allow_sending_without_reply": true });
    }
    let path = format!("bot{}/sendMessage", telegram.token.expose());
    post(below(&telegram.url, &path), vec![], &body)
}

/// `ok`, or `description` with `parameters`.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let body = answer.json().unwrap_or_default();
    let said = body["description"]
        .as_str()
        .map_or_else(|| answer.said(), one_line);
    if answer.status.is_success() {
        if body["ok"] != true {
            return Err(SendError::unavailable(
                "answered nothing that Telegram's API says; is the url right?",
            ));
        }
        return Ok(Taken {
            said: format!("{}: ok", answer.status),
            pause: None,
            thread: body["result"]["message_id"].as_i64().map(|id| id.to_string()),
        });
    }
    if answer.status.as_u16() == 400
        && let Some(fix) = chat_fix(&said, &body)
    {
        let text = format!("answered {}: {said}; {fix}", answer.status);
        return Err(SendError::Denied { text });
    }
    let fix = match answer.status.as_u16() {
        401 | 404 => "put the token that @BotFather gave you into token_file",
        403 => "let the bot into the chat (in a private chat: press Start), and let it write there",
        _ => "",
    };
    answer.usual(now, &said, seconds(&body["parameters"]["retry_after"]), fix)
}

/// What to do about a 400 that is about the chat and not about the text.
fn chat_fix(said: &str, body: &Value) -> Option<String> {
    if let Some(id) = body["parameters"]["migrate_to_chat_id"].as_i64() {
        return Some(format!("the group has become another one: write chat_id = {id}"));
    }
    let said = said.to_ascii_lowercase();
    let about_the_chat = [
        "chat not found",
        "chat_id is empty",
        "not enough rights",
        "group chat was upgraded",
    ];
    if about_the_chat.iter().any(|word| said.contains(word)) {
        return Some("is chat_id right (a group's starts with -), and is the bot in that chat?".to_owned());
    }
    said.contains("message thread not found")
        .then(|| "is thread_id a topic of that chat?".to_owned())
}

/// A number as a number: Telegram takes names only with their `@`.
fn chat(id: &str) -> Value {
    id.parse::<i64>().map_or_else(|_| id.into(), Value::from)
}

fn literal(c: char, out: &mut String) {
    html(c, out);
    if c == '@' {
        out.push('\u{2060}');
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protocol::secret::Secret;

    use super::super::tests::{alert, answer, hostile, http, long_rendered, message};
    use super::*;

    fn sent(message: &Message<'_>) -> Value {
        let telegram = Telegram {
            url: "https://api.telegram.org".parse().unwrap(),
            token: Secret::new("123:ABC-def"),
            chat_id: "-1001234".into(),
            thread_id: None,
        };
        let request = http(request(&telegram, message));
        assert_eq!(
            request.url.as_str(),
            "https://api.telegram.org/bot123:ABC-def/sendMessage"
        );
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn html_that_rings_for_a_page() {
        insta::assert_json_snapshot!(sent(&message(&alert())));
    }

    #[test]
    fn a_later_message_answers_the_first() {
        let alert = alert();
        let body = sent(&Message {
            thread: Some("42"),
            ..message(&alert)
        });
        assert_eq!(body["reply_parameters"]["message_id"], 42);
    }

    #[test]
    fn nothing_hostile_is_markup_and_nothing_is_too_long() {
        let (alert, rendered) = hostile();
        let body = sent(&Message {
            alert: &alert,
            rendered: &rendered,
            thread: None,
        });
        let text = body["text"].as_str().unwrap();
        assert!(
            text.contains("&lt;script&gt;") && !text.contains("@everyone"),
            "{text}"
        );
        assert_eq!(text.matches('<').count(), 2, "only our own <b></b>: {text}");
        let long = long_rendered();
        let text = sent(&Message {
            alert: &alert,
            rendered: &long,
            thread: None,
        })["text"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(text.encode_utf16().count() <= MESSAGE_CHARS);
    }

    #[test]
    fn every_refusal_has_its_fix() {
        let judged = |status, body: &str| judge(&answer(status, body), Timestamp::UNIX_EPOCH).unwrap_err();
        let flood = judged(
            429,
            r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 35","parameters":{"retry_after":35}}"#,
        );
        assert!(
            matches!(flood, SendError::Unavailable { retry_after: Some(wait), .. } if wait == Duration::from_secs(35))
        );
        for (status, description, word, fix) in [
            (401, "Unauthorized", "denied", "token_file"),
            (404, "Not Found", "denied", "token_file"),
            (
                403,
                "Forbidden: bot was blocked by the user",
                "denied",
                "press Start",
            ),
            (400, "Bad Request: chat not found", "denied", "chat_id"),
            (
                400,
                "Bad Request: can't parse entities",
                "refused",
                "parse entities",
            ),
        ] {
            let err = judged(
                status,
                &json!({ "ok": false, "error_code": status, "description": description }).to_string(),
            );
            assert_eq!(err.word(), word, "{description}");
            assert!(
                err.to_string().contains(description) && err.to_string().contains(fix),
                "{err}"
            );
        }
        let moved = r#"{"ok":false,"error_code":400,"description":"Bad Request: group chat was upgraded to a supergroup chat","parameters":{"migrate_to_chat_id":-100987}}"#;
        assert!(judged(400, moved).to_string().contains("chat_id = -100987"));
    }
}
