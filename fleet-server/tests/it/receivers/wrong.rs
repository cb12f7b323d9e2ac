//! What an operator is told when a receiver does not let us in: what it said, and what to mend; never a secret.

use super::apis;
use super::fake::Fake;
use super::smtp::{MailServer, PASSWORD, USER, Way};
use super::{Process, secret_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permanent_refusal_is_named_with_its_fix_and_without_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| secret_file(dir.path(), name, content);
    let slack = Fake::start(apis::slack_webhook).await;
    let bot = Fake::start(apis::slack_api).await;
    let pagerduty = Fake::start(apis::pagerduty).await;
    let discord = Fake::start(apis::discord).await;
    let telegram = Fake::start(apis::telegram).await;
    let ntfy = Fake::start(apis::ntfy).await;
    let starttls = MailServer::start(Way::StartTls).await;
    let clear = MailServer::start(Way::Clear).await;
    let mail = |name: &str, server: &MailServer, ca: &str, password: &str, to: &str| {
        format!(
            "[[receiver]]\nname = \"{name}\"\nemail = {{ server = \"localhost\", port = {}, username = \"{USER}\", password_file = {:?}, \
             ca_file = {:?}, from = \"fleet@example.net\", to = \"{to}\" }}\n",
            server.port,
            file(&format!("{name}.password"), password),
            file(&format!("{name}.pem"), ca),
        )
    };
    let config = format!(
        "[[receiver]]\nname = \"slack\"\nslack = {{ url_file = {:?} }}\n\
         [[receiver]]\nname = \"bot\"\nslack = {{ url = \"{}/api\", token_file = {:?}, channel = \"C0123456789\" }}\n\
         [[receiver]]\nname = \"pagerduty\"\npagerduty = {{ url = \"{}\", routing_key_file = {:?} }}\n\
         [[receiver]]\nname = \"discord\"\ndiscord = {{ url_file = {:?} }}\n\
         [[receiver]]\nname = \"telegram\"\ntelegram = {{ url = \"{}\", token_file = {:?}, chat_id = \"-100\" }}\n\
         [[receiver]]\nname = \"chat\"\ntelegram = {{ url = \"{}\", token_file = {:?}, chat_id = -100 }}\n\
         [[receiver]]\nname = \"ntfy\"\nntfy = {{ url = \"{}\", topic = \"fleet\" }}\n\
         [[receiver]]\nname = \"gone\"\nslack = {{ url_file = {:?} }}\n\
         [[receiver]]\nname = \"command\"\ncommand = {{ argv = [\"/bin/sh\", \"-c\", \"echo I am ill >&2; exit 3\"] }}\n{}{}{}{}",
        file(
            "slack.url",
            &format!("{}/services/T0/B0/hunter2-is-old", slack.url)
        ),
        bot.url,
        file("slack.token", "xoxb-hunter2-is-old"),
        pagerduty.url,
        file("routing.key", "hunter2-hunter2-hunter2-hunter2-"),
        file(
            "discord.url",
            &format!("{}/api/webhooks/1/hunter2-is-old", discord.url)
        ),
        telegram.url,
        file("telegram.token", "1:hunter2-is-old"),
        telegram.url,
        file("telegram2.token", apis::TELEGRAM_TOKEN),
        ntfy.url,
        file("gone.url", "http://127.0.0.1:1/services/hunter2"),
        mail(
            "mail-password",
            &starttls,
            &starttls.ca,
            "hunter2-is-old",
            "ops@example.net"
        ),
        mail("mail-to", &starttls, &starttls.ca, PASSWORD, "nobody@example.net"),
        mail("mail-ca", &starttls, &clear.ca, PASSWORD, "ops@example.net"),
        mail("mail-clear", &clear, &clear.ca, PASSWORD, "ops@example.net"),
    );
    let server = Process::start(dir.path(), &config).await;
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "slack",
            "denied",
            &["404 Not Found: no_service", "[redacted]", "url_file"],
        ),
        ("bot", "denied", &["invalid_auth", "token_file"]),
        (
            "pagerduty",
            "denied",
            &["400 Bad Request", "Invalid routing key", "routing_key_file"],
        ),
        (
            "discord",
            "denied",
            &["404 Not Found", "Unknown Webhook (code 10015)", "url_file"],
        ),
        (
            "telegram",
            "denied",
            &["401 Unauthorized", "@BotFather", "token_file"],
        ),
        ("chat", "denied", &["chat not found", "chat_id"]),
        ("ntfy", "denied", &["403 Forbidden: forbidden", "token_file"]),
        ("gone", "unavailable", &["127.0.0.1:1", "refused"]),
        ("command", "refused", &["/bin/sh", "exit status 3: I am ill"]),
        ("mail-password", "denied", &["535", "password_file"]),
        ("mail-to", "refused", &["550", "no such user here", "to"]),
        ("mail-ca", "unavailable", &["certificate"]),
        ("mail-clear", "unavailable", &["STARTTLS"]),
    ];
    for (name, outcome, words) in cases {
        let (code, test) = server.ctl_json(&["receiver", "test", name]).await;
        assert_eq!(code, 1, "{test}");
        let step = &test["steps"][0];
        assert_eq!(step["outcome"], *outcome, "{name}: {test}");
        let answer = step["answer"].as_str().unwrap();
        for word in *words {
            assert!(answer.contains(word), "{name}: {answer:?} lacks {word:?}");
        }
        assert!(!test.to_string().contains("hunter2"), "{name}: {test}");
    }
    let (code, text) = server.ctl(&["receiver", "test", "slack"]).await;
    assert!(
        code == 1 && text.contains("denied") && text.contains("did not arrive at slack"),
        "{text}"
    );
    assert_eq!(
        clear.letters().len() + starttls.letters().len(),
        0,
        "nothing went out in the clear"
    );
    let read = server.all_that_can_be_read().await;
    assert!(!read.contains("hunter2"), "{read}");
    server.end().await;
}
