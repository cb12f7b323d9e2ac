//! Discord: execute a channel's webhook, with one embed.
//!
//! `allowed_mentions` with an empty `parse` lets nothing in a text ping anybody, and Markdown's characters are escaped.
//! `wait=true`: otherwise Discord says 204 before it has looked whether the message can be saved. Limits: title 256,
//! description 4096, all of an embed 6000 characters.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::{EventKind, Severity};
use serde_json::{Value, json};

use super::answer::{HttpAnswer, Taken, colon, one_line, seconds};
use super::fit::{fit, plain};
use super::{Message, Request, link, post};
use crate::notify::retry::SendError;
use crate::settings::Discord;

/// `embed.title`.
const TITLE_CHARS: usize = 256;
/// `embed.description`.
const TEXT_CHARS: usize = 4096;
/// `embed.url`.
const URL_CHARS: usize = 2048;

/// The message for one notification.
pub fn request(discord: &Discord, message: &Message<'_>) -> Request {
    let mut url = discord.url.expose().clone();
    url.query_pairs_mut().append_pair("wait", "true");
    let body = json!({ "embeds": [embed(message)], "allowed_mentions": { "parse": [] } });
    post(url, vec![], &body)
}

/// A rate limit stands in headers and body; the webhook's own death in the status.
pub fn judge(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let body = answer.json().unwrap_or_default();
    let fix = "this webhook was deleted: make a new one and put its URL into url_file";
    let mut taken = answer.usual(now, &said(answer, &body), seconds(&body["retry_after"]), fix)?;
    taken.said = answer.status.to_string();
    taken.pause = exhausted(answer);
    Ok(taken)
}

/// How long until the next message is let in, if this was the last one for now.
fn exhausted(answer: &HttpAnswer) -> Option<std::time::Duration> {
    let left: f64 = answer.header("x-ratelimit-remaining")?.parse().ok()?;
    let reset: f64 = answer.header("x-ratelimit-reset-after")?.parse().ok()?;
    if left < 1.0 {
        std::time::Duration::try_from_secs_f64(reset).ok()
    } else {
        None
    }
}

/// `message (code 10015)`, and which field is wrong.
fn said(answer: &HttpAnswer, body: &Value) -> String {
    let Some(message) = body["message"].as_str() else {
        return answer.said();
    };
    let code = body["code"]
        .as_i64()
        .map(|code| format!(" (code {code})"))
        .unwrap_or_default();
    let fields = body.get("errors").map(Value::to_string).unwrap_or_default();
    one_line(&colon(&format!("{message}{code}"), &fields))
}

fn embed(message: &Message<'_>) -> Value {
    let alert = message.alert;
    let mut embed = json!({
        "title": fit(&message.rendered.title, TITLE_CHARS, markdown),
        "description": fit(&message.rendered.text, TEXT_CHARS, markdown),
        "color": colour(alert),
        "timestamp": alert.incident.resolved_at.unwrap_or(alert.incident.opened_at).to_string(),
        "footer": { "text": fit(&alert.key, TITLE_CHARS, plain) },
    });
    if let Some(link) = link(alert).filter(|link| link.len() <= URL_CHARS) {
        embed["url"] = link.into();
    }
    embed
}

/// Green when it is over, else by how loud it is.
fn colour(alert: &Alert) -> u32 {
    match (alert.event, alert.incident.severity) {
        (EventKind::Resolved, _) => 0x2e_a0_43,
        (_, Severity::Page) => 0xda_36_33,
        (_, Severity::Ticket) => 0xd2_99_22,
        (_, Severity::Info) => 0x6e_76_81,
    }
}

/// With a backslash before whatever Markdown reads, as Discord's own documentation escapes it.
fn markdown(c: char, out: &mut String) {
    if r"\*_~`|>[]()<#-@:".contains(c) {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{alert, answer, hostile, http, long_rendered, message};
    use super::*;

    fn sent(message: &Message<'_>) -> Value {
        let discord = Discord {
            url: "https://discord.com/api/webhooks/1/token?thread_id=7"
                .parse()
                .unwrap(),
        };
        let request = http(request(&discord, message));
        assert_eq!(request.url.query(), Some("thread_id=7&wait=true"));
        serde_json::from_slice(&request.body).unwrap()
    }

    #[test]
    fn one_embed_that_mentions_nobody() {
        insta::assert_json_snapshot!(sent(&message(&alert())));
    }

    #[test]
    fn nothing_hostile_is_markup_and_nothing_is_too_long() {
        let (alert, rendered) = hostile();
        let body = sent(&Message {
            alert: &alert,
            rendered: &rendered,
            thread: None,
        });
        let text = body["embeds"][0]["description"].as_str().unwrap();
        for piece in [r"\@everyone", r"\[click\]\(", r"\<\@123\>", r"\*\*bold\*\*"] {
            assert!(text.contains(piece), "{piece}: {text}");
        }
        assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
        let long = long_rendered();
        let embed = &sent(&Message {
            alert: &alert,
            rendered: &long,
            thread: None,
        })["embeds"][0];
        let length = |text: &Value| text.as_str().unwrap().chars().count();
        assert_eq!(
            (length(&embed["title"]), length(&embed["description"])),
            (256, 4096)
        );
        assert!(
            length(&embed["title"]) + length(&embed["description"]) + length(&embed["footer"]["text"]) < 6000
        );
    }

    #[test]
    fn a_rate_limit_is_obeyed_before_and_after() {
        let body = r#"{"message":"You are being rate limited.","retry_after":64.57,"global":false}"#;
        let err = judge(&answer(429, body), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(
            matches!(err, SendError::Unavailable { retry_after: Some(wait), .. } if wait == Duration::from_millis(64_570)),
            "{err:?}"
        );
        let mut last = answer(200, "{}");
        last.headers.insert("x-ratelimit-remaining", "0".parse().unwrap());
        last.headers
            .insert("x-ratelimit-reset-after", "1.5".parse().unwrap());
        let taken = judge(&last, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(taken.pause, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn a_deleted_webhook_and_a_bad_message_are_told_apart() {
        let gone = judge(
            &answer(404, r#"{"message":"Unknown Webhook","code":10015}"#),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap_err();
        assert_eq!(gone.word(), "denied");
        assert!(
            gone.to_string()
                .contains("Unknown Webhook (code 10015); this webhook was deleted"),
            "{gone}"
        );
        let bad = r#"{"message":"Invalid Form Body","code":50035,"errors":{"embeds":{"0":{"title":{}}}}}"#;
        let bad = judge(&answer(400, bad), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(bad.word(), "refused");
        assert!(bad.to_string().contains("\"title\""), "{bad}");
    }
}
