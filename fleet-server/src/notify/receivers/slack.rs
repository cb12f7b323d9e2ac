//! Slack: an incoming webhook, or `chat.postMessage` of a bot, which puts later messages about an incident into the
//! first one's thread.
//!
//! The body is a `plain_text` object: Slack reads no markup in it, so no name or label can bring a link or a mention.
//! `&`, `<` and `>` are escaped everywhere, as its documentation wants for every text object. Limits: 150 characters
//! in a header, 3000 in a text.

use jiff::Timestamp;
use protocol::alert::Alert;
use protocol::incident::EventKind;
use serde_json::{Value, json};

use super::answer::{HttpAnswer, Taken, advised};
use super::fit::{fit, html};
use super::{Message, Request, below, link, post};
use crate::notify::retry::SendError;
use crate::settings::Slack;

/// A header block's text.
const HEADER_CHARS: usize = 150;
/// A text object.
const TEXT_CHARS: usize = 3000;

/// The message for one notification.
pub fn request(slack: &Slack, message: &Message<'_>) -> Request {
    let mut body = json!({
        // What a phone shows.
        "text": fit(&message.rendered.title, TEXT_CHARS, html),
        "blocks": blocks(message),
        "unfurl_links": false,
        "unfurl_media": false,
    });
    match slack {
        Slack::Webhook { url } => post(url.expose().clone(), vec![], &body),
        Slack::Bot { url, token, channel } => {
            body["channel"] = channel.as_str().into();
            if let Some(thread) = message.thread {
                body["thread_ts"] = thread.into();
                // Who only reads the channel sees the end, too.
                body["reply_broadcast"] = (message.alert.event == EventKind::Resolved).into();
            }
            let authorization = format!("Bearer {}", token.expose());
            post(
                below(url, "chat.postMessage"),
                vec![("authorization", authorization)],
                &body,
            )
        }
    }
}

/// A webhook says `ok` or a word; the Web API says 200 and `ok: false`.
pub fn judge(slack: &Slack, answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    match slack {
        Slack::Webhook { .. } => {
            let said = answer.said();
            let fix = webhook_fix(&said);
            answer.usual(now, &said, None, fix)
        }
        Slack::Bot { .. } => judge_bot(answer, now),
    }
}

fn judge_bot(answer: &HttpAnswer, now: Timestamp) -> Result<Taken, SendError> {
    let body = answer.json().unwrap_or_default();
    let word = body["error"].as_str().unwrap_or_default().to_owned();
    if !answer.status.is_success() {
        let said = if word.is_empty() { answer.said() } else { word };
        return answer.usual(now, &said, None, "is the bot's token good?");
    }
    if body["ok"] == true {
        return Ok(Taken {
            said: format!("{}: ok", answer.status),
            pause: None,
            thread: body["ts"].as_str().map(str::to_owned),
        });
    }
    let text = format!("answered {word:?}");
    match word.as_str() {
        "ratelimited"
        | "rate_limited"
        | "internal_error"
        | "fatal_error"
        | "service_unavailable"
        | "request_timeout"
        | "team_added_to_org" => Err(SendError::Unavailable {
            text,
            retry_after: answer.asked(now),
        }),
        "" => Err(SendError::unavailable(
            "answered nothing that Slack's API says; is the url right?",
        )),
        _ => match bot_fix(&word) {
            "" => Err(SendError::Refused { text }),
            fix => Err(SendError::Denied {
                text: advised(&text, fix),
            }),
        },
    }
}

fn webhook_fix(word: &str) -> &'static str {
    match word {
        "no_service" | "no_service_id" | "no_team" | "team_disabled" | "invalid_token" => {
            "this webhook was removed: make a new one and put its URL into url_file"
        }
        "channel_not_found" | "channel_is_archived" => {
            "its channel is gone: make a webhook for another one and put its URL into url_file"
        }
        "action_prohibited" | "posting_to_general_channel_denied" => {
            "an administrator of the workspace does not let this webhook write to its channel"
        }
        _ => "is the URL in url_file whole, https://hooks.slack.com/services/…?",
    }
}

/// What to do about an error that every message will meet; empty for one that is about this message.
fn bot_fix(word: &str) -> &'static str {
    match word {
        "invalid_auth" | "not_authed" | "account_inactive" | "token_revoked" | "token_expired" => {
            "put a good bot token (xoxb-…) into token_file"
        }
        "missing_scope"
        | "no_permission"
        | "not_allowed_token_type"
        | "ekm_access_denied"
        | "access_denied" => "give the app the scope chat:write and install it again",
        "channel_not_found" => "write the channel's id, and invite the bot if the channel is private",
        "not_in_channel" => "invite the bot to the channel (/invite @its-name)",
        "is_archived" => "the channel is archived; name another one",
        "restricted_action" => "an administrator does not let the bot write to this channel",
        _ => "",
    }
}

fn blocks(message: &Message<'_>) -> Value {
    let mut blocks =
        vec![json!({ "type": "header", "text": literal(&message.rendered.title, HEADER_CHARS) })];
    if !message.rendered.text.is_empty() {
        blocks.push(json!({ "type": "section", "text": literal(&message.rendered.text, TEXT_CHARS) }));
    }
    if let Some(link) = link_markup(message.alert) {
        blocks.push(
            json!({ "type": "context", "elements": [{ "type": "mrkdwn", "text": link, "verbatim": true }] }),
        );
    }
    blocks.into()
}

fn literal(text: &str, limit: usize) -> Value {
    json!({ "type": "plain_text", "text": fit(text, limit, html), "emoji": false })
}

fn link_markup(alert: &Alert) -> Option<String> {
    let url = link(alert)?.replace('|', "%7C");
    let url = fit(&url, TEXT_CHARS - 100, html);
    Some(format!("<{url}|Incident {}>", alert.incident.id))
}

#[cfg(test)]
mod tests {
    use protocol::secret::Secret;

    use super::super::tests::{alert, answer, hostile, http, long_rendered, message};
    use super::*;

    fn webhook() -> Slack {
        Slack::Webhook {
            url: "https://hooks.slack.com/services/T0/B0/XYZ".parse().unwrap(),
        }
    }

    fn bot() -> Slack {
        Slack::Bot {
            url: "https://slack.com/api".parse().unwrap(),
            token: Secret::new("xoxb-1-2-3"),
            channel: "C0123".into(),
        }
    }

    fn sent(slack: &Slack, message: &Message<'_>) -> Value {
        serde_json::from_slice(&http(request(slack, message)).body).unwrap()
    }

    #[test]
    fn a_webhooks_message() {
        insta::assert_json_snapshot!(sent(&webhook(), &message(&alert())));
    }

    #[test]
    fn a_bot_answers_in_the_thread_and_tells_the_channel_of_the_end() {
        let mut end = alert();
        end.event = EventKind::Resolved;
        let message = Message {
            thread: Some("1763755200.000100"),
            ..message(&end)
        };
        let request = http(request(&bot(), &message));
        assert_eq!(request.url.as_str(), "https://slack.com/api/chat.postMessage");
        assert_eq!(
            request.headers,
            [("authorization", "Bearer xoxb-1-2-3".to_owned())]
        );
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["channel"], "C0123");
        assert_eq!(body["thread_ts"], "1763755200.000100");
        assert_eq!(body["reply_broadcast"], true);
    }

    #[test]
    fn nothing_hostile_is_markup_and_nothing_is_too_long() {
        let (alert, rendered) = hostile();
        let body = sent(
            &webhook(),
            &Message {
                alert: &alert,
                rendered: &rendered,
                thread: None,
            },
        );
        let text = body["text"].as_str().unwrap();
        assert!(
            text.contains("&lt;!channel&gt;") && !text.contains(['<', '>']),
            "{text}"
        );
        for block in body["blocks"].as_array().unwrap().iter().take(2) {
            assert_eq!(block["text"]["type"], "plain_text");
            assert!(
                !block["text"]["text"].as_str().unwrap().contains(['<', '>']),
                "{block}"
            );
        }
        let long = long_rendered();
        let body = sent(
            &webhook(),
            &Message {
                alert: &alert,
                rendered: &long,
                thread: None,
            },
        );
        assert_eq!(
            body["blocks"][0]["text"]["text"]
                .as_str()
                .unwrap()
                .chars()
                .count(),
            150
        );
        let length = body["blocks"][1]["text"]["text"]
            .as_str()
            .unwrap()
            .chars()
            .count();
        assert!((2990..=3000).contains(&length), "{length}");
    }

    #[test]
    fn what_the_webhook_says_is_told_with_the_fix() {
        let err = judge(&webhook(), &answer(404, "no_service"), Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(
            err.to_string(),
            "answered 404 Not Found: no_service; this webhook was removed: make a new one and put its URL into url_file"
        );
        assert_eq!(
            judge(&webhook(), &answer(400, "invalid_payload"), Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .word(),
            "refused"
        );
        assert!(judge(&webhook(), &answer(200, "ok"), Timestamp::UNIX_EPOCH).is_ok());
    }

    #[test]
    fn the_web_apis_200_is_no_yes() {
        let word = |body: &str| {
            judge(&bot(), &answer(200, body), Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .word()
        };
        assert_eq!(word(r#"{"ok":false,"error":"invalid_auth"}"#), "denied");
        assert_eq!(word(r#"{"ok":false,"error":"not_in_channel"}"#), "denied");
        assert_eq!(word(r#"{"ok":false,"error":"invalid_blocks"}"#), "refused");
        assert_eq!(word(r#"{"ok":false,"error":"internal_error"}"#), "unavailable");
        assert_eq!(word("<html>"), "unavailable");
        let taken = judge(
            &bot(),
            &answer(200, r#"{"ok":true,"ts":"1.2"}"#),
            Timestamp::UNIX_EPOCH,
        )
        .unwrap();
        assert_eq!(taken.thread.as_deref(), Some("1.2"));
    }
}
