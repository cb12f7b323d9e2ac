//! One `[[receiver]]`: how it is reached, and in which words.

use std::io::Read;
use std::time::Duration;

use fleet_config::section::{Item, Section};
use protocol::names::Word;
use toml::de::DeValue;
use url::Url;

use super::secrets::{any_url, carries_secrets, needed, secret, secret_url};
use super::web_url;
use crate::notify::receivers::email::mailbox;
use crate::notify::template;
use crate::settings::{
    Alertmanager, Discord, Email, Exec, MailTls, Ntfy, PagerDuty, Receiver, ReceiverKind, Slack, Telegram,
    Templates, Webhook,
};

/// URLs of one Alertmanager cluster.
const URLS: usize = 8;
/// Recipients of one mail.
const RECIPIENTS: usize = 32;
/// A program and its arguments.
const ARGUMENTS: usize = 64;
/// How long a program may take, unless the file says otherwise.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a file with a template or with certificates.
const FILE_BYTES: u64 = 256 * 1024;
/// What a receiver can be; one of them stands in each `[[receiver]]`.
const KINDS: [&str; 9] = [
    "webhook",
    "alertmanager",
    "pagerduty",
    "slack",
    "discord",
    "telegram",
    "ntfy",
    "email",
    "command",
];

/// One receiver.
pub(super) fn receiver(section: Section<'_>) -> Option<Receiver> {
    let name = section.item("name");
    if name.is_none() {
        section.wrong("has no name; write name = \"…\", the word by which routes call it");
    }
    let name = name.and_then(|item| item.keep(Word::new(item.text()?)));
    let kind = kind(&section);
    let templates = templates(&section);
    section.finish();
    Some(Receiver {
        name: name?,
        kind: kind?,
        templates: templates?,
    })
}

fn kind(section: &Section<'_>) -> Option<ReceiverKind> {
    let given: Vec<(&str, Item<'_>)> = KINDS
        .iter()
        .filter_map(|&word| Some((word, section.item(word)?)))
        .collect();
    let [(word, item)] = given.as_slice() else {
        let words: Vec<&str> = given.iter().map(|(word, _)| *word).collect();
        section.wrong(match words.as_slice() {
            [] => format!(
                "does not say how it is reached; write one of {}",
                KINDS.join(", ")
            ),
            [..] => format!("is both {}; make two receivers of it", words.join(" and ")),
        });
        return None;
    };
    let inner = item.section()?;
    let read = match *word {
        "webhook" => webhook(&inner).map(ReceiverKind::Webhook),
        "alertmanager" => alertmanager(&inner).map(ReceiverKind::Alertmanager),
        "pagerduty" => pagerduty(&inner).map(ReceiverKind::PagerDuty),
        "slack" => slack(&inner).map(ReceiverKind::Slack),
        "discord" => discord(&inner).map(ReceiverKind::Discord),
        "telegram" => telegram(&inner).map(ReceiverKind::Telegram),
        "ntfy" => ntfy(&inner).map(ReceiverKind::Ntfy),
        "email" => email(&inner).map(|email| ReceiverKind::Email(Box::new(email))),
        _ => command(&inner).map(ReceiverKind::Command),
    };
    inner.finish();
    read
}

fn webhook(section: &Section<'_>) -> Option<Webhook> {
    let url = any_url(section, "webhook = { url = \"https://…\" }");
    let signing = section
        .item("secret_file")
        .map(|item| secret(&item, "the secret that the receiver checks signatures with"));
    Some(Webhook {
        url: url?,
        secret: match signing {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

fn alertmanager(section: &Section<'_>) -> Option<Alertmanager> {
    let Some(item) = section.item("urls") else {
        section.wrong("has no urls; write alertmanager = { urls = [\"http://127.0.0.1:9093\"] }");
        return None;
    };
    let entries = item.list()?;
    if entries.is_empty() || entries.len() > URLS {
        item.wrong(format!(
            "must name 1 to {URLS} Alertmanagers, all those of one cluster"
        ));
        return None;
    }
    let urls: Vec<_> = entries.iter().filter_map(web_url).collect();
    (urls.len() == entries.len()).then_some(Alertmanager { urls })
}

fn pagerduty(section: &Section<'_>) -> Option<PagerDuty> {
    let url = api(section, "https://events.pagerduty.com");
    let routing_key = needed(section, "routing_key_file", "the integration key of the service")?;
    if let Some(item) = section.item("routing_key_file")
        && routing_key.expose().len() != 32
    {
        item.wrong("must name a file that holds an integration key, which has 32 characters");
        return None;
    }
    Some(PagerDuty {
        url: url?,
        routing_key,
    })
}

fn slack(section: &Section<'_>) -> Option<Slack> {
    let (token, channel) = (section.item("token_file"), section.item("channel"));
    if token.is_none() && channel.is_none() {
        return secret_url(section, "the URL of an incoming webhook").map(|url| Slack::Webhook { url });
    }
    if section.item("url_file").is_some() {
        section.wrong("is both a webhook (url_file) and a bot (token_file, channel); keep one");
    }
    let url = api(section, "https://slack.com/api");
    let what = "a bot's token, xoxb-…";
    let token = token.map_or_else(|| needed(section, "token_file", what), |item| secret(&item, what));
    if channel.is_none() {
        section.wrong("has no channel; write channel = \"C…\", its id, as its details in Slack show it");
    }
    Some(Slack::Bot {
        url: url?,
        token: token?,
        channel: channel?.text()?.to_owned(),
    })
}

fn discord(section: &Section<'_>) -> Option<Discord> {
    let url = secret_url(section, "the URL of a channel's webhook")?;
    Some(Discord { url })
}

fn telegram(section: &Section<'_>) -> Option<Telegram> {
    let url = api(section, "https://api.telegram.org");
    let token = needed(section, "token_file", "the bot's token");
    let chat_id = section.item("chat_id");
    if chat_id.is_none() {
        section.wrong("has no chat_id; write chat_id = -100…, the chat's number, or chat_id = \"@channel\"");
    }
    let chat_id = chat_id.and_then(|item| chat(&item));
    let topic = section.item("thread_id").map(|item| item.integer(1..=u32::MAX));
    Some(Telegram {
        url: url?,
        token: token?,
        chat_id: chat_id?,
        thread_id: match topic {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

/// A number, in quotes or not, or `@channel`.
fn chat(item: &Item<'_>) -> Option<String> {
    let text = match item.value.get_ref() {
        DeValue::Integer(number) => number.as_str().replace('_', ""),
        _ => item.text()?.to_owned(),
    };
    let good = text.parse::<i64>().is_ok() || text.strip_prefix('@').is_some_and(|name| !name.is_empty());
    if !good {
        item.wrong("must be a chat's number, such as -1001234567890, or a public channel's \"@name\"");
    }
    good.then_some(text)
}

fn ntfy(section: &Section<'_>) -> Option<Ntfy> {
    let url = api(section, "https://ntfy.sh");
    let topic = match (section.item("topic"), section.item("topic_file")) {
        (Some(item), None) => item.text().map(protocol::secret::Secret::new),
        (None, Some(item)) => secret(&item, "the topic"),
        (Some(_), Some(_)) => {
            section.wrong("has both topic and topic_file; keep one");
            None
        }
        (None, None) => {
            section.wrong("has no topic; write topic = \"…\", or topic_file where the topic is a secret (on ntfy.sh it is)");
            None
        }
    };
    let topic = topic.filter(|topic| {
        let text = topic.expose();
        let good = text.len() <= 64
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if !good {
            section.wrong(
                "has a topic that ntfy does not take: letters, digits, '_' and '-', at most 64 of them",
            );
        }
        good
    });
    let token = section
        .item("token_file")
        .map(|item| secret(&item, "an access token, tk_…"));
    Some(Ntfy {
        url: url?,
        topic: topic?,
        token: match token {
            Some(read) => Some(read?),
            None => None,
        },
    })
}

fn email(section: &Section<'_>) -> Option<Email> {
    let host = section.item("server");
    if host.is_none() {
        section
            .wrong("has no server; write server = \"smtp.example.net\", the host that takes mail from you");
    }
    let tls = section
        .item("tls")
        .map(|item| item.word(&["starttls", "tls", "none"]));
    let tls = match tls {
        None | Some(Some("starttls")) => Some(MailTls::StartTls),
        Some(Some("tls")) => Some(MailTls::Implicit),
        Some(Some(_)) => Some(MailTls::None),
        Some(None) => None,
    };
    let usual = match tls {
        Some(MailTls::Implicit) => 465,
        Some(MailTls::StartTls) | None => 587,
        Some(MailTls::None) => 25,
    };
    let port = section.integer("port", usual, 1..=65535) as u16;
    let ca = section
        .item("ca_file")
        .map(|item| item.keep(file(&item)?.map(String::into_bytes)));
    let user = section
        .item("username")
        .map(|item| item.text().map(str::to_owned));
    let password = section
        .item("password_file")
        .map(|item| secret(&item, "the password"));
    if user.is_some() != password.is_some() {
        section.wrong("has only one of username and password_file; it needs both or neither");
    }
    let host = host.and_then(|item| {
        let text = item.text()?;
        let private = Url::parse(&format!("smtp://{text}")).is_ok_and(|url| fleet_config::address::is_private(&url));
        if text.contains(|c: char| c.is_whitespace() || "/:@".contains(c)) {
            item.wrong("must be a host's name alone; the port stands in port");
            return None;
        }
        if tls == Some(MailTls::None) && (password.is_some() || !private) {
            item.wrong("would get mail or a password in the clear: tls = \"none\" is for a server on this machine or in a private network, without a password");
            return None;
        }
        Some(text.to_owned())
    });
    let from = section.item("from").and_then(|item| address(&item));
    let to = section.item("to").map(|item| (item.one_or_list(), item));
    for key in ["from", "to"] {
        if !section.has(key) {
            section.wrong(format!("has no {key}; write {key} = \"ops@example.net\""));
        }
    }
    let (entries, item) = to?;
    if entries.is_empty() || entries.len() > RECIPIENTS {
        item.wrong(format!("must name 1 to {RECIPIENTS} addresses"));
    }
    let to: Vec<String> = entries.iter().filter_map(address).collect();
    Some(Email {
        host: host?,
        port,
        tls: tls?,
        ca: match ca {
            Some(read) => Some(read?),
            None => None,
        },
        login: match (user, password) {
            (Some(user), Some(password)) => Some((user?, password?)),
            (None, None) => None,
            (None, Some(_)) | (Some(_), None) => return None,
        },
        from: from?,
        to: (to.len() == entries.len() && !to.is_empty()).then_some(to)?,
    })
}

fn address(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    item.keep(mailbox(text))?;
    Some(text.to_owned())
}

fn command(section: &Section<'_>) -> Option<Exec> {
    let timeout = section.duration(
        "timeout",
        COMMAND_TIMEOUT,
        Duration::from_secs(1)..=Duration::from_secs(60),
    );
    let Some(item) = section.item("argv") else {
        section.wrong("has no argv; write command = { argv = [\"/usr/local/bin/on-call\"] }");
        return None;
    };
    let entries = item.list()?;
    if entries.is_empty() || entries.len() > ARGUMENTS {
        item.wrong(format!(
            "must be a program and its arguments, 1 to {ARGUMENTS} texts"
        ));
        return None;
    }
    let program = entries.first()?.path()?;
    if !program.is_file() {
        entries.first()?.wrong("there is no such program");
        return None;
    }
    let argv: Option<Vec<String>> = entries
        .iter()
        .map(|entry| match entry.value.get_ref().as_str() {
            Some(text) => Some(text.to_owned()),
            None => entry.text().map(str::to_owned),
        })
        .collect();
    Some(Exec { argv: argv?, timeout })
}

/// The base URL of an API, which gets a secret.
fn api(section: &Section<'_>, usual: &str) -> Option<Url> {
    match section.item("url") {
        Some(item) => carries_secrets(&item, web_url(&item)?),
        None => Url::parse(usual).ok(),
    }
}

fn templates(section: &Section<'_>) -> Option<Templates> {
    let title = section.item("title");
    let (inline, in_file) = (section.item("text"), section.item("text_file"));
    if inline.is_some() && in_file.is_some() {
        section.wrong("has both text and text_file; keep one");
        return None;
    }
    let title = match title {
        Some(item) => Some(checked(&item, item.text()?.to_owned(), None, true)?),
        None => None,
    };
    let text = match (inline, in_file) {
        (Some(item), _) => Some(checked(&item, item.text()?.to_owned(), None, false)?),
        (None, Some(item)) => {
            let path = item.path()?;
            let text = item.keep(file(&item)?)?;
            Some(checked(&item, text, Some(&path), false)?)
        }
        (None, None) => None,
    };
    Some(Templates { title, text })
}

/// Renders the template for an incident of every kind, and names its mistake where it stands.
fn checked(
    item: &Item<'_>,
    source: String,
    path: Option<&std::path::Path>,
    is_title: bool,
) -> Option<String> {
    let mut tried = Templates::default();
    *(if is_title {
        &mut tried.title
    } else {
        &mut tried.text
    }) = Some(source.clone());
    let Err(err) = template::check(&tried) else {
        return Some(source);
    };
    item.wrong(match (path, err.line) {
        (Some(path), Some(line)) => format!("{}:{line}: {}", path.display(), err.text),
        (Some(path), None) => format!("{}: {}", path.display(), err.text),
        (None, _) => err.to_string(),
    });
    None
}

/// The text of the file that `item` names.
fn file(item: &Item<'_>) -> Option<Result<String, String>> {
    let path = item.path()?;
    let mut text = String::new();
    let read =
        std::fs::File::open(&path).and_then(|file| file.take(FILE_BYTES + 1).read_to_string(&mut text));
    Some(match read {
        Err(err) => Err(format!(
            "cannot be read: {err}; the server's user must be able to read it"
        )),
        Ok(bytes) if bytes as u64 > FILE_BYTES => Err(format!("is over {FILE_BYTES} bytes long")),
        Ok(_) => Ok(text),
    })
}
