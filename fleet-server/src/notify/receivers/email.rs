//! Mail: one plain letter to all recipients, in one thread an incident.
//!
//! Header and body are made here, by lettre's builder, which encodes what a header cannot hold; a title is one line
//! before it comes here. `Message-ID` is the same for a repeat, so that a mailbox can drop it; `Auto-Submitted` keeps
//! holiday notices from answering (RFC 3834).

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use lettre::message::header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, SinglePart};
use protocol::incident::{EventKind, Severity};
use sha2::{Digest, Sha256};

use super::answer::{SmtpAnswer, Taken, advised};
use super::fit::{fit, plain};
use super::{MailRequest, Message, Request};
use crate::notify::retry::SendError;
use crate::settings::Email;

/// A subject: mail programs show less.
const SUBJECT_CHARS: usize = 250;

/// The letter for one notification.
pub fn request(email: &Email, message: &Message<'_>, now: Timestamp) -> Request {
    let letter = letter(email, message, now);
    Request::Mail(Box::new(MailRequest {
        host: email.host.clone(),
        port: email.port,
        tls: email.tls,
        ca: email.ca.clone(),
        login: email.login.clone(),
        envelope: letter.envelope().clone(),
        letter: letter.formatted(),
    }))
}

/// What a mail server's reply code means (RFC 5321, 4.2).
pub fn judge(answer: &SmtpAnswer) -> Result<Taken, SendError> {
    let said = format!("{} {}", answer.code, answer.text);
    let text = format!("answered {said}");
    match answer.code {
        200..=299 => Ok(Taken {
            said,
            pause: None,
            thread: None,
        }),
        // 530, 534, 535, 538: who we are; 550 to 553: who is written to, or from.
        530..=538 => Err(SendError::Denied {
            text: advised(
                &text,
                "are username and password_file right, and does the server want tls?",
            ),
        }),
        500..=599 => Err(SendError::Refused {
            text: advised(
                &text,
                "does the server let this sender write to these addresses (from, to)?",
            ),
        }),
        _ => Err(SendError::Unavailable {
            text,
            retry_after: None,
        }),
    }
}

/// Whether `address` can stand in `from` or `to`: `ops@example.net` or `On call <ops@example.net>`.
pub fn mailbox(address: &str) -> Result<Mailbox, String> {
    address
        .parse::<Mailbox>()
        .map_err(|err| format!("is no mail address ({err}); write it like \"On call <ops@example.net>\""))
}

fn letter(email: &Email, message: &Message<'_>, now: Timestamp) -> lettre::Message {
    let alert = message.alert;
    let domain =
        mailbox(&email.from).map_or_else(|_| "localhost".to_owned(), |from| from.email.domain().to_owned());
    let thread = message_id(&alert.key, &domain);
    let mut builder = lettre::Message::builder()
        .date(SystemTime::UNIX_EPOCH + Duration::from_secs(now.as_second().unsigned_abs()))
        .message_id(Some(message_id(&alert.idempotency_key(), &domain)))
        .subject(fit(&message.rendered.title, SUBJECT_CHARS, plain))
        .references(thread.clone());
    if alert.event != EventKind::Opened {
        builder = builder.in_reply_to(thread);
    }
    if let Ok(from) = mailbox(&email.from) {
        builder = builder.from(from);
    }
    for to in email.to.iter().filter_map(|to| mailbox(to).ok()) {
        builder = builder.to(to);
    }
    if alert.incident.severity == Severity::Page && alert.event != EventKind::Resolved {
        builder = builder
            .raw_header(raw("Importance", "high"))
            .raw_header(raw("X-Priority", "1"));
    }
    let body = SinglePart::builder()
        .header(ContentType::TEXT_PLAIN)
        .header(ContentTransferEncoding::QuotedPrintable)
        .body(format!("{}\n", message.rendered.text));
    builder
        .raw_header(raw("Auto-Submitted", "auto-generated"))
        .raw_header(raw("X-Fleet-Event", alert.event.as_str()))
        .raw_header(raw("X-Fleet-Kind", alert.incident.kind.as_str()))
        .raw_header(raw("X-Fleet-Severity", alert.incident.severity.as_str()))
        .singlepart(body)
        .expect("sender and recipients were checked with the configuration")
}

/// Keys hold what a message id may not; a digest of one does not.
fn message_id(key: &str, domain: &str) -> String {
    let digest = hex::encode(&Sha256::digest(key.as_bytes())[..16]);
    format!("<{digest}@{domain}>")
}

/// Only words of our own enums come here.
fn raw(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{alert, hostile, message};
    use super::*;
    use crate::settings::MailTls;

    fn email() -> Email {
        Email {
            host: "smtp.example.net".into(),
            port: 587,
            tls: MailTls::StartTls,
            ca: None,
            login: None,
            from: "Fleet <fleet@example.net>".into(),
            to: vec!["ops@example.net".into(), "Zoë <zoe@example.net>".into()],
        }
    }

    fn sent(message: &Message<'_>) -> (MailRequest, String) {
        let now = Timestamp::from_second(1_763_755_210).unwrap();
        let Request::Mail(mail) = request(&email(), message, now) else {
            panic!("no mail");
        };
        let letter = String::from_utf8(mail.letter.clone()).unwrap();
        (*mail, letter)
    }

    #[test]
    fn the_letter() {
        let (mail, letter) = sent(&message(&alert()));
        insta::assert_snapshot!(letter.replace("\r\n", "\n"));
        let to: Vec<&str> = mail.envelope.to().iter().map(AsRef::as_ref).collect();
        assert_eq!(to, ["ops@example.net", "zoe@example.net"]);
    }

    #[test]
    fn a_repeat_has_the_same_id_and_the_end_answers_the_opening() {
        let id = |letter: &str, name: &str| {
            let line = letter
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.rsplit(' ').next().unwrap().to_owned()
        };
        let (_, first) = sent(&message(&alert()));
        let (_, again) = sent(&message(&alert()));
        assert_eq!(id(&first, "Message-ID:"), id(&again, "Message-ID:"));
        let mut end = alert();
        end.event = EventKind::Resolved;
        end.revision = 2;
        let (_, last) = sent(&message(&end));
        assert_ne!(id(&first, "Message-ID:"), id(&last, "Message-ID:"));
        assert_eq!(id(&first, "References:"), id(&last, "In-Reply-To:"));
    }

    #[test]
    fn nothing_hostile_makes_a_header_or_ends_the_letter() {
        let (alert, rendered) = hostile();
        let (mail, letter) = sent(&Message {
            alert: &alert,
            rendered: &rendered,
            thread: None,
        });
        let (head, _) = letter.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = head
            .lines()
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        assert!(
            !names.iter().any(|name| name.eq_ignore_ascii_case("bcc")),
            "{head}"
        );
        assert_eq!(mail.envelope.to().len(), 2);
        assert!(
            !letter.replace("\r\n", "").contains(['\r', '\n']),
            "a bare line end: {letter:?}"
        );
    }

    #[test]
    fn reply_codes() {
        let judged = |code| {
            judge(&SmtpAnswer {
                code,
                text: "x".into(),
            })
        };
        assert!(judged(250).is_ok());
        for (code, word) in [
            (421, "unavailable"),
            (451, "unavailable"),
            (535, "denied"),
            (550, "refused"),
            (554, "refused"),
        ] {
            assert_eq!(judged(code).unwrap_err().word(), word, "{code}");
        }
        assert!(judged(535).unwrap_err().to_string().contains("password_file"));
    }

    #[test]
    fn addresses() {
        assert!(mailbox("On call <ops@example.net>").is_ok());
        for bad in ["ops", "a@b\r\nBcc: c@d", "<>", ""] {
            assert!(mailbox(bad).is_err(), "{bad:?}");
        }
    }
}
