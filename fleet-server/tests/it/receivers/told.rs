//! All receivers at once are told of an incident and its end, each after its rate limit was obeyed; then each is tried.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::apis::{self, telegram_html};
use super::fake::{Fake, Reply, now, until};
use super::smtp::{MailServer, PASSWORD, USER, Way};
use super::{Process, disk, secret_file};

/// What a box's owner who wishes us ill puts into what a box may say.
const HOSTILE: &str =
    "/ is full <!channel> @everyone <@U1> [x](https://evil.example) </b><i>bad</i> $(reboot)";

struct Others {
    webhook: Fake,
    alertmanager: Fake,
    pagerduty: Fake,
    slack: Fake,
    bot: Fake,
    discord: Fake,
    telegram: Fake,
    ntfy: Fake,
    mail: MailServer,
    mail_tls: MailServer,
}

impl Others {
    async fn start() -> Self {
        let limited = |reply: Reply| reply.with("retry-after", "1");
        let discord = r#"{"message":"You are being rate limited.","retry_after":1.25,"global":false}"#;
        let telegram = r#"{"ok":false,"error_code":429,"description":"Too Many Requests: retry after 2","parameters":{"retry_after":2}}"#;
        Self {
            webhook: Fake::start(apis::webhook)
                .await
                .first(limited(Reply::new(503, "busy"))),
            alertmanager: Fake::start(apis::alertmanager)
                .await
                .first(Reply::new(500, "busy")),
            pagerduty: Fake::start(apis::pagerduty).await.first(Reply::new(429, "")),
            slack: Fake::start(apis::slack_webhook)
                .await
                .first(limited(Reply::new(429, "rate_limited"))),
            bot: Fake::start(apis::slack_api)
                .await
                .first(limited(Reply::new(429, r#"{"ok":false,"error":"ratelimited"}"#))),
            discord: Fake::start(apis::discord)
                .await
                .first(limited(Reply::new(429, discord))),
            telegram: Fake::start(apis::telegram).await.first(Reply::new(429, telegram)),
            ntfy: Fake::start(apis::ntfy).await.first(Reply::new(
                429,
                r#"{"code":42901,"http":429,"error":"limit reached: too many requests"}"#,
            )),
            mail: MailServer::start(Way::StartTls)
                .await
                .first("451 4.7.1 try again later"),
            mail_tls: MailServer::start(Way::Implicit).await.first("421 4.3.2 busy"),
        }
    }

    /// With how long each had asked to be left alone, milliseconds.
    fn over_http(&self) -> [(&'static str, &Fake, u64); 8] {
        [
            ("webhook", &self.webhook, 1000),
            ("alertmanager", &self.alertmanager, 700),
            ("pagerduty", &self.pagerduty, 700),
            ("slack", &self.slack, 1000),
            ("bot", &self.bot, 1000),
            ("discord", &self.discord, 1250),
            ("telegram", &self.telegram, 2000),
            ("ntfy", &self.ntfy, 700),
        ]
    }

    fn config(&self, dir: &std::path::Path) -> String {
        let file = |name: &str, content: &str| secret_file(dir, name, content);
        let script = file(
            "on-call",
            &format!(
                "#!/bin/sh\nif [ ! -e {0}/tried ]; then touch {0}/tried; echo later >&2; exit 75; fi\ncat >> {0}/told\necho noted",
                dir.display()
            ),
        );
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        let mail = |name: &str, server: &MailServer, tls: &str| {
            format!(
                "[[receiver]]\nname = \"{name}\"\ntext = \"one\\n.\\n.two\\nMAIL FROM:<x@evil.example>\\n{{{{ summary }}}}\"\n\
                 email = {{ server = \"localhost\", port = {}, tls = \"{tls}\", username = \"{USER}\", password_file = {:?}, \
                 ca_file = {:?}, from = \"Fleet <fleet@example.net>\", to = [\"ops@example.net\", \"zoe@example.net\"] }}\n",
                server.port,
                file(&format!("{name}.password"), PASSWORD),
                file(&format!("{name}.pem"), &server.ca),
            )
        };
        format!(
            "[[receiver]]\nname = \"webhook\"\nwebhook = {{ url = \"{webhook}/hook\", secret_file = {:?} }}\n\
             [[receiver]]\nname = \"alertmanager\"\nalertmanager = {{ urls = [\"http://127.0.0.1:1\", \"{am}/am/\"] }}\n\
             [[receiver]]\nname = \"pagerduty\"\npagerduty = {{ url = \"{pagerduty}\", routing_key_file = {:?} }}\n\
             [[receiver]]\nname = \"slack\"\nslack = {{ url_file = {:?} }}\n\
             [[receiver]]\nname = \"bot\"\nslack = {{ url = \"{bot}/api\", token_file = {:?}, channel = \"C0123456789\" }}\n\
             [[receiver]]\nname = \"discord\"\ndiscord = {{ url_file = {:?} }}\n\
             [[receiver]]\nname = \"telegram\"\ntelegram = {{ url = \"{telegram}\", token_file = {:?}, chat_id = {chat} }}\n\
             [[receiver]]\nname = \"ntfy\"\ntitle = \"{{{{ event }}}} é {{{{ box }}}}\"\nntfy = {{ url = \"{ntfy}\", topic_file = {:?}, token_file = {:?} }}\n\
             {}{}\
             [[receiver]]\nname = \"command\"\ncommand = {{ argv = [{script:?}], timeout = \"20s\" }}\n",
            file("webhook.secret", apis::WEBHOOK_SECRET),
            file("routing.key", apis::ROUTING_KEY),
            file("slack.url", &format!("{}{}", self.slack.url, apis::SLACK_PATH)),
            file("slack.token", apis::SLACK_TOKEN),
            file(
                "discord.url",
                &format!("{}{}", self.discord.url, apis::DISCORD_PATH)
            ),
            file("telegram.token", apis::TELEGRAM_TOKEN),
            file("ntfy.topic", apis::NTFY_TOPIC),
            file("ntfy.token", apis::NTFY_TOKEN),
            mail("mail", &self.mail, "starttls"),
            mail("mail-tls", &self.mail_tls, "tls"),
            webhook = self.webhook.url,
            am = self.alertmanager.url,
            pagerduty = self.pagerduty.url,
            bot = self.bot.url,
            telegram = self.telegram.url,
            chat = apis::CHAT_ID,
            ntfy = self.ntfy.url,
        )
    }
}

const RECEIVERS: [&str; 11] = [
    "webhook",
    "alertmanager",
    "pagerduty",
    "slack",
    "bot",
    "discord",
    "telegram",
    "ntfy",
    "mail",
    "mail-tls",
    "command",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_is_told_and_tried_over_a_real_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let others = Others::start().await;
    let server = Process::start(dir.path(), &others.config(dir.path())).await;
    let (_, token) = server
        .ctl(&["box", "add", "box-1", "--label", "site=<!here> & @everyone"])
        .await;
    let token = token.trim().to_owned();
    let began = now();
    let answer = server
        .send("POST", "/v1/heartbeat", &token, &disk(1, "failing", HOSTILE))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    everybody_has(&others, dir.path(), 1).await;
    let answer = server
        .send("POST", "/v1/heartbeat", &token, &disk(2, "ok", "/ has room"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    everybody_has(&others, dir.path(), 2).await;

    rate_limits_were_obeyed(&others, began);
    the_programs_ones(&others);
    the_chats(&others);
    the_mails(&others);
    the_command(dir.path());

    let (code, text) = server.ctl(&["receiver", "list"]).await;
    assert_eq!(code, 0, "{text}");
    for name in RECEIVERS {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))
            .unwrap();
        assert!(line.contains(" ok "), "{line}");
    }
    each_is_tried(&server, &others).await;
    let read = server.all_that_can_be_read().await;
    assert!(
        !read.contains("hunter2") && !read.contains(apis::ROUTING_KEY),
        "{read}"
    );
    server.end().await;
}

async fn everybody_has(others: &Others, dir: &std::path::Path, count: usize) {
    for (name, fake, _) in others.over_http() {
        until(&format!("{name} to take {count}"), || of_box(fake).len() >= count).await;
    }
    until("mail", || others.mail.letters().len() >= count).await;
    until("mail over TLS", || others.mail_tls.letters().len() >= count).await;
    until("the command", || commands(dir).len() >= count).await;
}

/// What a fake took; an Alertmanager is also kept reminded.
fn of_box(fake: &Fake) -> Vec<Value> {
    let mut bodies: Vec<Value> = fake.taken().into_iter().map(|heard| heard.asked.body).collect();
    bodies.dedup_by(|a, b| a.is_array() && a[0]["annotations"] == b[0]["annotations"]);
    bodies
}

fn commands(dir: &std::path::Path) -> Vec<Value> {
    let told = std::fs::read_to_string(dir.join("told")).unwrap_or_default();
    told.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

fn rate_limits_were_obeyed(others: &Others, began: Instant) {
    for (name, fake, ms) in others.over_http() {
        let heard = fake.heard();
        assert!(
            heard[0].at.duration_since(began) < Duration::from_secs(10),
            "{name} was told late"
        );
        let waited = heard[1].at.duration_since(heard[0].at);
        assert!(
            waited >= Duration::from_millis(ms),
            "{name} asked for {ms} ms and got {waited:?}"
        );
    }
    for mail in [&others.mail, &others.mail_tls] {
        let waited = mail.letters()[0].at.duration_since(mail.refused_at().unwrap());
        assert!(waited >= Duration::from_millis(700), "{waited:?}");
    }
}

fn the_programs_ones(others: &Others) {
    let told = of_box(&others.webhook);
    assert_eq!(
        (&told[0]["event"], &told[1]["event"]),
        (&json!("opened"), &json!("resolved"))
    );
    assert_eq!(told[0]["key"], told[1]["key"]);
    assert!(told[0].get("test").is_none());
    let told = of_box(&others.pagerduty);
    assert_eq!(
        (&told[0]["event_action"], &told[1]["event_action"]),
        (&json!("trigger"), &json!("resolve"))
    );
    assert_eq!(told[0]["dedup_key"], told[1]["dedup_key"]);
    assert_eq!(told[0]["payload"]["severity"], "critical");
    assert_eq!(told[0]["payload"]["source"], "box-1");
    let told = of_box(&others.alertmanager);
    assert_eq!(told[0][0]["labels"]["alertname"], "FleetDisk");
    assert_eq!(
        told[0][0]["labels"], told[1][0]["labels"],
        "the end is of the same alert"
    );
}

fn the_chats(others: &Others) {
    for fake in [&others.slack, &others.bot] {
        let told = of_box(fake);
        assert!(
            told[0]["text"].as_str().unwrap().starts_with("PAGE: disk box-1"),
            "{}",
            told[0]
        );
        assert!(
            told[1]["text"]
                .as_str()
                .unwrap()
                .starts_with("RESOLVED: disk box-1"),
            "{}",
            told[1]
        );
        assert!(!told.iter().any(apis::slack_mentions), "{told:?}");
        assert!(
            told[0]["blocks"][1]["text"]["text"]
                .as_str()
                .unwrap()
                .contains("/ is full")
        );
    }
    let told = of_box(&others.discord);
    assert!(
        told.iter()
            .all(|body| body["allowed_mentions"] == json!({ "parse": [] }))
    );
    assert!(
        told[0]["embeds"][0]["url"]
            .as_str()
            .unwrap()
            .starts_with("https://fleet.example.net/")
    );
    let told = of_box(&others.telegram);
    assert_eq!(told[1]["reply_parameters"]["message_id"], apis::TELEGRAM_MESSAGE);
    let shown = telegram_html(told[0]["text"].as_str().unwrap()).unwrap();
    assert!(shown.contains("</b><i>bad</i>"), "shown as it is: {shown}");
    let told = of_box(&others.ntfy);
    assert_eq!(
        (&told[0]["title"], &told[0]["priority"]),
        (&json!("opened é box-1"), &json!(5))
    );
    assert_eq!(told[1]["tags"][0], "white_check_mark");
}

fn the_mails(others: &Others) {
    for mail in [&others.mail, &others.mail_tls] {
        let letters = mail.letters();
        assert_eq!(letters.len(), 2, "no dot ended one early: {letters:?}");
        let first = &letters[0];
        assert!(first.encrypted);
        assert_eq!((first.from.as_str(), first.to.len()), ("fleet@example.net", 2));
        let (head, body) = first.data.split_once("\n\n").unwrap();
        assert!(head.contains("Subject: PAGE: disk box-1"), "{head}");
        assert!(
            body.starts_with("one\n.\n.two\nMAIL FROM:<x@evil.example>\n"),
            "{body}"
        );
        assert!(letters[1].data.contains("In-Reply-To: <"), "{}", letters[1].data);
    }
}

fn the_command(dir: &std::path::Path) {
    let told = commands(dir);
    assert_eq!(
        (&told[0]["event"], &told[1]["event"]),
        (&json!("opened"), &json!("resolved"))
    );
    assert!(
        told[0]["text"].as_str().unwrap().contains("$(reboot)"),
        "{}",
        told[0]
    );
}

async fn each_is_tried(server: &Process, others: &Others) {
    for name in RECEIVERS {
        let (code, test) = server.ctl_json(&["receiver", "test", name]).await;
        assert_eq!((code, &test["delivered"]), (0, &json!(true)), "{name}: {test}");
        let answer = test["steps"][0]["answer"].as_str().unwrap();
        let wanted = match name {
            "pagerduty" => "202 Accepted: Event processed",
            "mail" | "mail-tls" => "250 2.0.0 queued",
            "command" => "exit status 0: noted",
            _ => "200 OK",
        };
        assert!(answer.starts_with(wanted), "{name}: {answer}");
    }
    let last = |fake: &Fake| fake.taken().pop().unwrap().asked.body;
    assert_eq!(last(&others.webhook)["test"], true);
    assert_eq!(last(&others.webhook)["event"], "resolved", "nothing stays open");
    assert_eq!(last(&others.pagerduty)["event_action"], "resolve");
    assert_eq!(last(&others.alertmanager)[0]["labels"]["test"], "true");
    assert!(
        last(&others.slack)["text"]
            .as_str()
            .unwrap()
            .starts_with("[TEST] INFO: ")
    );
    assert!(
        others
            .mail
            .letters()
            .pop()
            .unwrap()
            .data
            .contains("Subject: [TEST] INFO: ")
    );
    let (_, viewer) = server.ctl(&["operator", "add", "vi", "--role", "viewer"]).await;
    let sent = others.webhook.taken().len();
    let answer = server
        .send("POST", "/v1/receivers/webhook/test", viewer.trim(), &json!({}))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 403") && others.webhook.taken().len() == sent,
        "{answer}"
    );
    let answer = server
        .send("GET", "/v1/receivers", viewer.trim(), &Value::Null)
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (code, text) = server.ctl(&["receiver", "test", "nobody"]).await;
    assert!(
        code == 1 && text.contains("there are: webhook, alertmanager"),
        "{text}"
    );
}
