//! The documented APIs, as far as a sender of messages meets them: what they require, what they limit, and what they
//! say to what they do not take.
//!
//! - PagerDuty: Events API v2 (its OpenAPI document); Slack: incoming webhooks, `chat.postMessage`, Block Kit's limits
//! - Discord: execute webhook, its JSON errors; Telegram: Bot API, `sendMessage` and formatting; ntfy: publish as JSON
//! - Alertmanager: API v2, post alerts; our own webhook with its signature

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use super::fake::{Asked, Reply};

pub(super) const ROUTING_KEY: &str = "e93facc04764012d7bfb002500d5d1a6";
pub(super) const SLACK_PATH: &str = "/services/T00000000/B00000000/hunter2hunter2hunter2";
pub(super) const SLACK_TOKEN: &str = "xoxb-17653672481-19874698323-hunter2";
pub(super) const DISCORD_PATH: &str =
    "/api/webhooks/223704706495545344/3d89bb7572e0fb30d8128367b3b1b44f-hunter2";
pub(super) const TELEGRAM_TOKEN: &str = "110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw-hunter2";
/// What they call every message.
pub(super) const SLACK_TS: &str = "1503435956.000247";
pub(super) const TELEGRAM_MESSAGE: i64 = 365;
pub(super) const CHAT_ID: i64 = -1_001_234_567_890;
pub(super) const NTFY_TOPIC: &str = "fleet-hunter2";
pub(super) const NTFY_TOKEN: &str = "tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2-hunter2";
pub(super) const WEBHOOK_SECRET: &str = "hunter2-signs";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn units(text: &str) -> usize {
    text.encode_utf16().count()
}

pub(super) fn pagerduty(asked: &Asked) -> Reply {
    let wrong = |error: &str| {
        Reply::new(
            400,
            json!({ "status": "invalid event", "message": "Event object is invalid", "errors": [error] }),
        )
    };
    let event = &asked.body;
    if asked.path != "/v2/enqueue" {
        return Reply::new(404, "Not Found");
    }
    if asked.raw.len() > 512 * 1024 {
        return Reply::new(413, "");
    }
    let key = text(&event["routing_key"]);
    if key.len() != 32 {
        return wrong("Length of 'routing_key' is incorrect (should be 32 characters)");
    }
    if key != ROUTING_KEY {
        return wrong("Invalid routing key");
    }
    let dedup_key = text(&event["dedup_key"]);
    match text(&event["event_action"]) {
        "trigger" => {
            let payload = &event["payload"];
            for required in ["summary", "source", "severity"] {
                if text(&payload[required]).is_empty() {
                    return wrong(&format!("'payload.{required}' is missing or blank"));
                }
            }
            if text(&payload["summary"]).chars().count() > 1024 {
                return wrong("'payload.summary' is too long");
            }
            if !["critical", "error", "warning", "info"].contains(&text(&payload["severity"])) {
                return wrong(
                    "'payload.severity' is invalid (must be one of the following: critical, warning, error, info)",
                );
            }
        }
        "acknowledge" | "resolve" if !dedup_key.is_empty() => {}
        "acknowledge" | "resolve" => return wrong("'dedup_key' is missing or blank"),
        _ => return wrong("'event_action' is missing or blank"),
    }
    if dedup_key.len() > 255 {
        return wrong("'dedup_key' is too long");
    }
    Reply::new(
        202,
        json!({ "status": "success", "message": "Event processed", "dedup_key": dedup_key }),
    )
}

pub(super) fn slack_webhook(asked: &Asked) -> Reply {
    if asked.path != SLACK_PATH {
        // As a proxy in between may say it.
        return Reply::new(404, format!("no_service at {}", asked.path));
    }
    match slack_message(&asked.body) {
        Ok(()) => Reply::new(200, "ok"),
        Err(error) => Reply::new(400, error),
    }
}

pub(super) fn slack_api(asked: &Asked) -> Reply {
    let no = |error: &str| Reply::new(200, json!({ "ok": false, "error": error }));
    if asked.path != "/api/chat.postMessage" {
        return no("unknown_method");
    }
    if asked.header("authorization") != format!("Bearer {SLACK_TOKEN}") {
        return no("invalid_auth");
    }
    if text(&asked.body["channel"]) != "C0123456789" {
        return no("channel_not_found");
    }
    match slack_message(&asked.body) {
        Ok(()) => Reply::new(
            200,
            json!({ "ok": true, "channel": "C0123456789", "ts": SLACK_TS }),
        ),
        Err(error) => no(error),
    }
}

fn slack_message(body: &Value) -> Result<(), &'static str> {
    let blocks = body["blocks"].as_array().cloned().unwrap_or_default();
    if text(&body["text"]).is_empty() && blocks.is_empty() {
        return Err("no_text");
    }
    if blocks.len() > 50 {
        return Err("invalid_blocks");
    }
    for block in &blocks {
        let object = &block["text"];
        let length = text(&object["text"]).chars().count();
        let good = match text(&block["type"]) {
            "header" => object["type"] == "plain_text" && (1..=150).contains(&length),
            "section" => {
                (1..=3000).contains(&length) && ["plain_text", "mrkdwn"].contains(&text(&object["type"]))
            }
            "context" => block["elements"].as_array().is_some_and(|elements| {
                (1..=10).contains(&elements.len())
                    && elements
                        .iter()
                        .all(|element| (1..=3000).contains(&text(&element["text"]).chars().count()))
            }),
            _ => false,
        };
        if !good {
            return Err("invalid_blocks");
        }
    }
    Ok(())
}

/// Whom Slack would call: `<!channel>`, `<@U…>`, in any text that it reads as markup.
pub(super) fn slack_mentions(body: &Value) -> bool {
    let whole = body.to_string();
    whole.contains("<!") || whole.contains("<@")
}

pub(super) fn discord(asked: &Asked) -> Reply {
    if asked.path != DISCORD_PATH {
        return Reply::new(404, json!({ "message": "Unknown Webhook", "code": 10015 }));
    }
    let wrong = |field: &str| {
        Reply::new(
            400,
            json!({ "message": "Invalid Form Body", "code": 50035, "errors": { field: {} } }),
        )
    };
    let embeds = asked.body["embeds"].as_array().cloned().unwrap_or_default();
    if text(&asked.body["content"]).is_empty() && embeds.is_empty() {
        return Reply::new(
            400,
            json!({ "message": "Cannot send an empty message", "code": 50006 }),
        );
    }
    if units(text(&asked.body["content"])) > 2000 || embeds.len() > 10 {
        return wrong("content");
    }
    let mut all = 0;
    for embed in &embeds {
        let lengths = [("title", 256), ("description", 4096), ("url", 2048)];
        for (field, limit) in lengths {
            let length = units(text(&embed[field]));
            if length > limit {
                return wrong(field);
            }
            all += length;
        }
        all += units(text(&embed["footer"]["text"]));
        if embed["color"].as_u64().is_none_or(|colour| colour > 0xff_ff_ff) {
            return wrong("color");
        }
        if text(&embed["timestamp"]).parse::<jiff::Timestamp>().is_err() {
            return wrong("timestamp");
        }
    }
    if all > 6000 {
        return wrong("embeds");
    }
    if asked.query.split('&').any(|pair| pair == "wait=true") {
        Reply::new(200, json!({ "id": "1" }))
    } else {
        Reply::new(204, "")
    }
}

pub(super) fn telegram(asked: &Asked) -> Reply {
    let no = |status: u16, description: &str| {
        Reply::new(
            status,
            json!({ "ok": false, "error_code": status, "description": description }),
        )
    };
    if asked.path != format!("/bot{TELEGRAM_TOKEN}/sendMessage") {
        return no(401, "Unauthorized");
    }
    let message = &asked.body;
    if message["chat_id"] != CHAT_ID {
        return no(400, "Bad Request: chat not found");
    }
    let shown = match telegram_html(text(&message["text"])) {
        Ok(shown) => shown,
        Err(why) => return no(400, &format!("Bad Request: can't parse entities: {why}")),
    };
    if shown.trim().is_empty() {
        return no(400, "Bad Request: message text is empty");
    }
    if units(&shown) > 4096 {
        return no(400, "Bad Request: message is too long");
    }
    Reply::new(
        200,
        json!({ "ok": true, "result": { "message_id": TELEGRAM_MESSAGE, "chat": { "id": CHAT_ID }, "text": shown } }),
    )
}

/// What is shown of a text in Telegram's HTML, of which `<b>` is all that we use.
pub(super) fn telegram_html(text: &str) -> Result<String, String> {
    let mut shown = String::new();
    let mut rest = text;
    let mut open = 0;
    while let Some(at) = rest.find(['<', '>', '&']) {
        shown.push_str(&rest[..at]);
        rest = &rest[at..];
        let marks = [
            ("<b>", "", 1),
            ("</b>", "", -1),
            ("&lt;", "<", 0),
            ("&gt;", ">", 0),
            ("&amp;", "&", 0),
        ];
        let Some((mark, means, step)) = marks.into_iter().find(|(mark, ..)| rest.starts_with(mark)) else {
            return Err(format!(
                "unsupported start tag at {:?}",
                &rest[..rest.len().min(12)]
            ));
        };
        open += step;
        shown.push_str(means);
        rest = &rest[mark.len()..];
    }
    shown.push_str(rest);
    if open == 0 {
        Ok(shown)
    } else {
        Err("can't find end tag".to_owned())
    }
}

pub(super) fn ntfy(asked: &Asked) -> Reply {
    let no = |status: u16, code: u32, error: &str| {
        Reply::new(status, json!({ "code": code, "http": status, "error": error }))
    };
    if asked.path != "/" {
        return no(404, 40401, "page not found");
    }
    if !asked.body.is_object() {
        return no(400, 40024, "invalid request: request body must be valid JSON");
    }
    let topic = text(&asked.body["topic"]);
    if topic.is_empty()
        || topic.len() > 64
        || !topic
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    {
        return no(400, 40009, "invalid request: topic invalid");
    }
    if asked.header("authorization") != format!("Bearer {NTFY_TOKEN}") || topic != NTFY_TOPIC {
        return no(403, 40301, "forbidden");
    }
    if !asked.body["priority"]
        .as_u64()
        .is_some_and(|priority| (1..=5).contains(&priority))
    {
        return no(400, 40007, "invalid request: priority parameter is invalid");
    }
    if text(&asked.body["message"]).len() > 4096 {
        return no(413, 41301, "attachment too large, or bandwidth limit reached");
    }
    if !asked.body["tags"]
        .as_array()
        .is_some_and(|tags| tags.iter().all(Value::is_string))
    {
        return no(400, 40024, "invalid request: request body must be valid JSON");
    }
    Reply::new(
        200,
        json!({ "id": "hwQ2YpKdmg", "event": "message", "topic": topic }),
    )
}

pub(super) fn alertmanager(asked: &Asked) -> Reply {
    if asked.path != "/am/api/v2/alerts" {
        return Reply::new(404, "404 page not found");
    }
    let alerts = asked.body.as_array().cloned().unwrap_or_default();
    let time = |alert: &Value, key: &str| text(&alert[key]).parse::<jiff::Timestamp>().ok();
    let good = |alert: &Value| {
        let labels = alert["labels"].as_object();
        labels.is_some_and(|labels| labels.contains_key("alertname") && labels.values().all(Value::is_string))
            && time(alert, "startsAt")
                .zip(time(alert, "endsAt"))
                .is_some_and(|(from, to)| from <= to)
            && alert["annotations"]
                .as_object()
                .is_some_and(|notes| notes.values().all(Value::is_string))
    };
    if !alerts.is_empty() && alerts.iter().all(good) {
        Reply::new(200, "")
    } else {
        Reply::new(400, json!("invalid label set"))
    }
}

pub(super) fn webhook(asked: &Asked) -> Reply {
    let signature = asked.header("fleet-signature");
    let parts = signature
        .strip_prefix("t=")
        .and_then(|rest| rest.split_once(",v1="));
    let Some((at, given)) = parts else {
        return Reply::new(401, "no signature");
    };
    let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).unwrap();
    mac.update(format!("{at}.").as_bytes());
    mac.update(&asked.raw);
    if hex::encode(mac.finalize().into_bytes()) != given {
        return Reply::new(401, "the signature is wrong");
    }
    let body = &asked.body;
    let key = format!("{}/{}", text(&body["key"]), body["revision"]);
    if asked.header("idempotency-key") != key {
        return Reply::new(400, "the idempotency key is wrong");
    }
    Reply::new(200, "")
}
