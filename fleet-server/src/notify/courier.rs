//! Brings one notification to one receiver: words, request, sending, meaning of the answer, in this order. The worker
//! and an operator's test go through the same one.
//!
//! It repeats nothing and remembers nothing. No text that leaves it holds one of the receiver's secrets.

use futures_util::future::join_all;
use jiff::Timestamp;
use protocol::alert::Alert;

use super::net::Sender;
use super::receivers::answer::{Taken, one_line};
use super::receivers::{self, Message, Request};
use super::retry::SendError;
use super::template::{Rendered, TemplateError, Voice};
use crate::settings::Receiver;

/// A shorter one (a topic called `ops`) would make an error unreadable, and is guessed sooner than read.
const SECRET_BYTES: usize = 4;

/// One receiver, with what it takes to reach it.
pub struct Courier<S> {
    receiver: Receiver,
    voice: Voice,
    sender: S,
}

impl<S: Sender> Courier<S> {
    /// For `receiver`, by `sender`. The configuration's templates were checked before.
    pub fn new(receiver: Receiver, sender: S) -> Result<Self, TemplateError> {
        let voice = Voice::new(receiver.name.as_str(), &receiver.templates)?;
        Ok(Self {
            receiver,
            voice,
            sender,
        })
    }

    /// Whom it serves.
    pub const fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// `alert` in the receiver's words.
    pub fn words(&self, alert: &Alert) -> Rendered {
        self.voice.render(alert)
    }

    /// Brings `alert`; `thread` is what the receiver called the first message about the incident.
    pub async fn bring(
        &self,
        alert: &Alert,
        thread: Option<&str>,
        now: Timestamp,
    ) -> Result<Taken, SendError> {
        let message = Message {
            alert,
            rendered: &self.words(alert),
            thread,
        };
        let requests = receivers::requests(&self.receiver.kind, &message, now);
        // Members of a cluster tell each other: one that takes it is enough.
        let mut last = Err(SendError::unavailable("no URL"));
        for answer in self.send_all(&requests, now).await {
            if answer.is_ok() {
                return answer;
            }
            last = answer;
        }
        last
    }

    /// Sends `requests` side by side, and says what each answer means.
    pub async fn send_all(&self, requests: &[Request], now: Timestamp) -> Vec<Result<Taken, SendError>> {
        let kind = &self.receiver.kind;
        let one = async |request: &Request| {
            let answer = self.sender.send(request).await;
            let judged = answer.and_then(|answer| receivers::judge(kind, &answer, now));
            match judged {
                Ok(taken) => Ok(Taken {
                    said: one_line(&self.redacted(taken.said)),
                    ..taken
                }),
                Err(err) => Err(err.reworded(|text| self.redacted(format!("{}: {text}", request.place())))),
            }
        };
        join_all(requests.iter().map(one)).await
    }

    /// A proxy may well repeat the path that it does not know, or a server the password that it does not like.
    fn redacted(&self, text: String) -> String {
        let secrets = self.receiver.kind.secrets();
        secrets
            .into_iter()
            .filter(|secret| secret.len() >= SECRET_BYTES)
            .fold(text, |text, secret| without(&text, secret))
    }
}

/// `text` without `secret`, nor the start of it where the text was cut off in its middle.
fn without(text: &str, secret: &str) -> String {
    let text = text.replace(secret, "[redacted]");
    let starts = (SECRET_BYTES..secret.len()).rev();
    let cut = starts
        .filter_map(|end| Some(format!("{}…", secret.get(..end)?)))
        .find(|start| text.contains(start));
    cut.map_or_else(|| text.clone(), |start| text.replace(&start, "[redacted]…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown_where_an_answer_was_cut_off_either() {
        for (said, shown) in [
            ("no such hook T0/B0/XYZabc here", "no such hook [redacted] here"),
            (
                "no such hook T0/B0/X…; is it whole?",
                "no such hook [redacted]…; is it whole?",
            ),
            ("no such hook…", "no such hook…"),
        ] {
            assert_eq!(without(said, "T0/B0/XYZabc"), shown);
        }
    }
}
