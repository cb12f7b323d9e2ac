//! An hour of virtual time with dead receivers of every kind beside living ones: nobody else is late by them, and when
//! they are back they get everything, in order.

use http::StatusCode;
use protocol::secret::Secret;

use super::*;
use crate::notify::receivers::answer::{ExitAnswer, HttpAnswer, SmtpAnswer};
use crate::settings::{Discord, Email, Exec, MailTls, Ntfy, PagerDuty, Slack, Telegram};

const HOUR: Duration = Duration::from_hours(1);
/// Incidents in that hour, each with its end.
const ROUNDS: i64 = 4;
/// An idle worker looks once a second; a rung one at once. Nobody rings here.
const IN_TIME: Duration = Duration::from_secs(2);

/// How a receiver is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    NoConnection,
    Hangs,
    /// It says to come again in two hours.
    RateLimited,
    Denied,
    Refuses,
}

const DEATHS: [Death; 5] = [
    Death::NoConnection,
    Death::Hangs,
    Death::RateLimited,
    Death::Denied,
    Death::Refuses,
];

/// Answers as the kind of request wants it, after [`HOUR`] always well.
struct Mortal {
    death: Option<Death>,
    back: Instant,
}

impl Sender for Mortal {
    async fn send(&self, request: &Request) -> Result<Answer, SendError> {
        let death = self.death.filter(|_| mono_now() < self.back);
        let (status, code, exit) = match death {
            None => (200, 250, 0),
            Some(Death::NoConnection) => return Err(SendError::unavailable("connection refused")),
            Some(Death::Hangs) => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                return Err(SendError::unavailable("no answer within 10 s"));
            }
            Some(Death::RateLimited) => (429, 421, 75),
            Some(Death::Denied) => (401, 535, 1),
            Some(Death::Refuses) => (400, 550, 1),
        };
        Ok(match request {
            Request::Http(_) => Answer::Http(http_answer(status)),
            Request::Mail(_) => Answer::Smtp(SmtpAnswer {
                code,
                text: String::new(),
            }),
            Request::Command(_) => Answer::Exit(ExitAnswer {
                code: Some(exit),
                output: String::new(),
            }),
        })
    }
}

fn http_answer(status: u16) -> HttpAnswer {
    let mut answer = answer(status, r#"{"ok":true}"#);
    answer.status = StatusCode::from_u16(status).unwrap();
    if status == 429 {
        answer.headers.insert("retry-after", "7200".parse().unwrap());
    }
    answer
}

fn kinds() -> Vec<ReceiverKind> {
    let url: Url = "https://example.net/hook".parse().unwrap();
    let token = || Secret::new("token");
    vec![
        webhook(),
        ReceiverKind::Alertmanager(Alertmanager {
            urls: vec![url.clone()],
        }),
        ReceiverKind::PagerDuty(PagerDuty {
            url: url.clone(),
            routing_key: token(),
        }),
        ReceiverKind::Slack(Slack::Webhook {
            url: "https://example.net/x".parse().unwrap(),
        }),
        ReceiverKind::Slack(Slack::Bot {
            url: url.clone(),
            token: token(),
            channel: "C1".into(),
        }),
        ReceiverKind::Discord(Discord {
            url: "https://example.net/x".parse().unwrap(),
        }),
        ReceiverKind::Telegram(Telegram {
            url: url.clone(),
            token: token(),
            chat_id: "1".into(),
            thread_id: None,
        }),
        ReceiverKind::Ntfy(Ntfy {
            url,
            topic: token(),
            token: None,
        }),
        ReceiverKind::Email(Box::new(Email {
            host: "smtp.example.net".into(),
            port: 587,
            tls: MailTls::StartTls,
            ca: None,
            login: None,
            from: "a@example.net".into(),
            to: vec!["b@example.net".into()],
        })),
        ReceiverKind::Command(Exec {
            argv: vec!["/bin/true".into()],
            timeout: Duration::from_secs(10),
        }),
    ]
}

/// Its worker, and its name.
fn hire(
    name: String,
    kind: ReceiverKind,
    death: Option<Death>,
    outbox: &Arc<FakeOutbox>,
    stop: &watch::Receiver<bool>,
) -> String {
    let receiver = Receiver {
        name: Word::new(&name).unwrap(),
        kind,
        templates: Templates::default(),
    };
    let sender = Mortal {
        death,
        back: mono_now() + HOUR,
    };
    let worker = Worker {
        courier: Arc::new(Courier::new(receiver, sender).unwrap()),
        outbox: Arc::clone(outbox),
        wake: Arc::new(Notify::new()),
        metrics: NotifyMetrics::new(&Registry::new()).unwrap(),
        standing: Arc::default(),
        health: |_| {},
    };
    tokio::spawn(worker.run(stop.clone()));
    name
}

#[tokio::test(start_paused = true)]
async fn an_hour_of_dead_receivers_of_every_kind_delays_no_other() {
    let (stop, stopped) = watch::channel(false);
    let outbox = FakeOutbox::with(vec![]);
    let (mut living, mut dead) = (Vec::new(), Vec::new());
    for (n, kind) in kinds().into_iter().enumerate() {
        let word = kind.word();
        living.push(hire(format!("{word}-{n}"), kind.clone(), None, &outbox, &stopped));
        for (m, death) in DEATHS.into_iter().enumerate() {
            dead.push(hire(
                format!("{word}-{n}-dead-{m}"),
                kind.clone(),
                Some(death),
                &outbox,
                &stopped,
            ));
        }
    }
    for round in 0..ROUNDS {
        for (n, name) in living.iter().chain(&dead).enumerate() {
            for (event, id) in [(EventKind::Opened, 0), (EventKind::Resolved, 1)] {
                let mut row = row((round * 100 + n as i64) * 2 + id, round, event);
                row.receiver.clone_from(name);
                outbox.put(row);
            }
        }
        tokio::time::sleep(HOUR / ROUNDS as u32).await;
    }
    let undelivered = dead.len() * 2 * ROUNDS as usize;
    assert_eq!(
        outbox.pending(),
        undelivered,
        "only the dead have not got everything"
    );
    for (at, kept) in outbox.done.lock().unwrap().iter() {
        let late = at.duration_since(kept.put);
        assert!(late <= IN_TIME, "{} was told {late:?} late", kept.row.receiver);
    }
    // Whatever a receiver asked for: this is the longest that it is obeyed.
    tokio::time::sleep(RETRY_AFTER_MAX + Duration::from_mins(1)).await;
    assert_eq!(outbox.pending(), 0, "everybody has everything");
    in_order(&outbox);
    stop.send_replace(true);
}

/// No end of an incident was told before its beginning.
fn in_order(outbox: &FakeOutbox) {
    let mut begun = std::collections::BTreeSet::new();
    for (_, kept) in outbox.done.lock().unwrap().iter() {
        let of = (kept.row.receiver.clone(), kept.row.incident_id);
        match kept.row.alert.event {
            EventKind::Resolved => assert!(begun.contains(&of), "{of:?} ended before it began"),
            EventKind::Opened | EventKind::Updated => {
                begun.insert(of);
            }
        }
    }
}
