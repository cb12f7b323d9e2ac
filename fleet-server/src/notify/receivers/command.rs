//! A program of the operator's: the notification as JSON on its standard input, exit status 0 for taken.
//!
//! No shell reads anything: arguments are those of the configuration, what boxes say stands only in the JSON.
//! Exit status 75 (`EX_TEMPFAIL`), a signal or a time-out: it passes, everything is held back; any other: this
//! notification is not wanted.

use serde_json::Value;

use super::answer::{ExitAnswer, Taken, colon};
use super::{CommandRequest, Message, Request};
use crate::notify::retry::SendError;
use crate::settings::Exec;

/// `EX_TEMPFAIL` of `sysexits.h`.
const TEMPORARY: i32 = 75;

/// The run for one notification: the webhook's body, with `title` and `text` beside it.
pub fn request(exec: &Exec, message: &Message<'_>) -> Request {
    let mut body = serde_json::to_value(message.alert).expect("an alert has only string keys");
    if let Value::Object(body) = &mut body {
        body.insert("title".into(), message.rendered.title.as_str().into());
        body.insert("text".into(), message.rendered.text.as_str().into());
    }
    let mut stdin = body.to_string().into_bytes();
    stdin.push(b'\n');
    Request::Command(CommandRequest {
        argv: exec.argv.clone(),
        stdin,
        timeout: exec.timeout,
    })
}

/// What an exit status means.
pub fn judge(answer: &ExitAnswer) -> Result<Taken, SendError> {
    match answer.code {
        Some(0) => Ok(Taken {
            said: colon("exit status 0", &answer.output),
            pause: None,
            thread: None,
        }),
        Some(TEMPORARY) => Err(SendError::unavailable(colon("exit status 75", &answer.output))),
        Some(code) => Err(SendError::Refused {
            text: colon(&format!("exit status {code}"), &answer.output),
        }),
        None => Err(SendError::unavailable(colon(
            "was killed by a signal",
            &answer.output,
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::message;
    use super::super::tests::{alert, hostile};
    use super::*;

    fn exec() -> Exec {
        Exec {
            argv: vec!["/usr/local/bin/on-call".into(), "--now".into()],
            timeout: Duration::from_secs(10),
        }
    }

    fn sent(message: &Message<'_>) -> (Vec<String>, Value) {
        let Request::Command(run) = request(&exec(), message) else {
            panic!("no command");
        };
        (run.argv, serde_json::from_slice(&run.stdin).unwrap())
    }

    #[test]
    fn the_programs_input() {
        insta::assert_json_snapshot!(sent(&message(&alert())).1);
    }

    #[test]
    fn nothing_hostile_is_an_argument() {
        let (alert, rendered) = hostile();
        let (argv, body) = sent(&Message {
            alert: &alert,
            rendered: &rendered,
            thread: None,
        });
        assert_eq!(argv, exec().argv);
        assert!(
            body["incident"]["summary"]
                .as_str()
                .unwrap()
                .contains("$(reboot)")
        );
    }

    #[test]
    fn exit_statuses() {
        let word = |code| {
            judge(&ExitAnswer {
                code,
                output: "no".into(),
            })
            .map_or_else(|err| err.word(), |_| "taken")
        };
        assert_eq!(
            [Some(0), Some(75), Some(1), None].map(word),
            ["taken", "unavailable", "refused", "unavailable"]
        );
    }
}
