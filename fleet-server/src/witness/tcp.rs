//! A TCP connection to an address that an operator declared: whoever accepts or refuses it is a host that lives.
//!
//! Refused counts as an answer: only a host's own kernel (or a firewall told to answer in its name) refuses. A firewall
//! that drops is told from a dead host by nothing: declare an address that answers.

use std::io::{Error, ErrorKind};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::liveness::beat::WitnessAnswer;

/// How long a question may take: the first SYN and, a second later, its repetition.
pub const LIMIT: Duration = Duration::from_millis(1500);

/// Asks `address` (`host:port`). Answers within [`LIMIT`], with a sentence for people.
pub async fn ask(address: &str) -> (WitnessAnswer, String) {
    match timeout(LIMIT, TcpStream::connect(address)).await {
        Ok(Ok(_)) => (WitnessAnswer::Reachable, "connection accepted".to_owned()),
        Ok(Err(err)) => (answer(&err), err.to_string()),
        Err(_) => {
            let said = format!("no answer within {:.1} s", LIMIT.as_secs_f64());
            (WitnessAnswer::Unreachable, said)
        }
    }
}

fn answer(err: &Error) -> WitnessAnswer {
    match err.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => WitnessAnswer::Reachable,
        ErrorKind::HostUnreachable | ErrorKind::TimedOut => WitnessAnswer::Unreachable,
        // No route, no name, no file descriptor: that is about this server.
        _ => WitnessAnswer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn accepted_and_refused_are_both_a_host_that_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(ask(&address).await.0, WitnessAnswer::Reachable);
        drop(listener);
        let (answer, said) = ask(&address).await;
        assert_eq!(answer, WitnessAnswer::Reachable);
        assert!(said.contains("refused"), "{said}");
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_says_nothing_about_the_host() {
        assert_eq!(ask("no-such-host.invalid:22").await.0, WitnessAnswer::Unknown);
    }

    #[test]
    fn errors_are_sorted() {
        for (kind, wanted) in [
            (ErrorKind::HostUnreachable, WitnessAnswer::Unreachable),
            (ErrorKind::TimedOut, WitnessAnswer::Unreachable),
            (ErrorKind::NetworkUnreachable, WitnessAnswer::Unknown),
            (ErrorKind::PermissionDenied, WitnessAnswer::Unknown),
        ] {
            assert_eq!(answer(&kind.into()), wanted, "{kind}");
        }
    }
}
