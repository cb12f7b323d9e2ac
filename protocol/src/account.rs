//! A box's own account of a silence: what kept it from being heard, with the evidence that it found on itself.
//!
//! It travels in the first beats after a silence, to each server of its own: every server has heard something else. A
//! box that is still finding out says so (`pending`). Nothing is judged by it: it explains an incident that is over.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;
use crate::names::Word;
use crate::report::{Invalid, count, text};
use crate::words::words;

words! {
    /// What kept a box from being heard.
    pub enum Verdict {
        /// It was alive all the while; its beats did not get through.
        NetworkPath = "network_path",
        /// It went down without a shutdown: power cut, reset, panic.
        PowerOrCrash = "power_or_crash",
        /// It was shut down in order, and is up again.
        Reboot = "reboot",
        /// Memory ran out, and the kernel killed for it.
        Oom = "oom",
        /// The machine as a whole did not run: frozen, paused, asleep, starved.
        MachineHung = "machine_hung",
        /// The machine ran on; only the watchdog on it did not.
        WatchdogOnly = "watchdog_only",
        /// It cannot tell, or a newer box's word.
        Unknown = "unknown",
    }
}

words! {
    /// Which step of a beat did not succeed.
    pub enum Step {
        /// The server's name.
        Dns = "dns",
        /// TCP.
        Connect = "connect",
        /// The TLS handshake.
        Tls = "tls",
        /// The beat was sent, and no answer came.
        Answer = "answer",
        /// An answer came, and it was not "taken".
        HttpStatus = "http_status",
    }
}

impl Verdict {
    /// In a sentence: `network path`.
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::NetworkPath => "network path",
            Self::PowerOrCrash => "power cut or crash",
            Self::Reboot => "reboot",
            Self::Oom => "out of memory (oom)",
            Self::MachineHung => "machine hung",
            Self::WatchdogOnly => "watchdog only",
            Self::Unknown => "cause unknown",
        }
    }
}

/// The account of one silence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Account {
    /// Still finding out: the rest is not to be relied on yet. A whole account follows within seconds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// What it was.
    #[serde(deserialize_with = "newer_word")]
    pub verdict: Verdict,
    /// When this server last took a beat, by the box's clock.
    pub from: Timestamp,
    /// When the silence ended, by the box's clock.
    pub to: Timestamp,
    /// A sentence for people.
    #[serde(default)]
    pub summary: String,
    /// What was tried meanwhile, and at which step it ended; the commonest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What the verdict rests on, a line each, redacted: the service manager's word, journal lines, pressure, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// One way in which beats failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// The server's URL as configured, without user and password.
    pub url: String,
    /// `IP:port`, where one was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// `ipv4` or `ipv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Word>,
    /// A word of [`Step`], or a newer box's.
    pub step: Word,
    /// What went wrong in it.
    pub detail: String,
    /// How often.
    pub times: u64,
    /// For the first time, by the box's clock.
    pub first: Timestamp,
    /// For the last time.
    pub last: Timestamp,
}

/// A newer box's verdict must not make its beat invalid: a box would go dark over a word.
fn newer_word<'de, D: Deserializer<'de>>(d: D) -> Result<Verdict, D::Error> {
    let word = Word::deserialize(d)?;
    Ok(word.as_str().parse().unwrap_or(Verdict::Unknown))
}

impl Account {
    /// "I am finding out", for a silence since `from`.
    pub fn pending(from: Timestamp, to: Timestamp) -> Self {
        Self {
            pending: true,
            verdict: Verdict::Unknown,
            from,
            to,
            summary: String::new(),
            attempts: Vec::new(),
            evidence: Vec::new(),
        }
    }

    /// Holds every bound of [`limits`].
    pub fn validate(&self, at: &str) -> Result<(), Invalid> {
        text(&format!("{at}.summary"), &self.summary, limits::SUMMARY_BYTES)?;
        count(&format!("{at}.attempts"), self.attempts.len(), limits::ATTEMPTS)?;
        for (n, attempt) in self.attempts.iter().enumerate() {
            let here = format!("{at}.attempts[{n}]");
            text(&format!("{here}.url"), &attempt.url, limits::SUMMARY_BYTES)?;
            let address = attempt.address.as_deref().unwrap_or("");
            text(&format!("{here}.address"), address, limits::NAME_BYTES)?;
            text(
                &format!("{here}.detail"),
                &attempt.detail,
                limits::ACCOUNT_LINE_BYTES,
            )?;
        }
        let field = format!("{at}.evidence");
        count(&field, self.evidence.len(), limits::ACCOUNT_LINES)?;
        for (n, line) in self.evidence.iter().enumerate() {
            text(&format!("{field}[{n}]"), line, limits::ACCOUNT_LINE_BYTES)?;
        }
        Ok(())
    }

    /// Cuts every text and list to its bound, and takes control characters out: what others wrote (a journal line, a
    /// resolver's error) never makes a beat invalid.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.summary = cut(&self.summary, limits::SUMMARY_BYTES);
        self.attempts.truncate(limits::ATTEMPTS);
        for attempt in &mut self.attempts {
            attempt.url = cut(&attempt.url, limits::SUMMARY_BYTES);
            attempt.detail = cut(&attempt.detail, limits::ACCOUNT_LINE_BYTES);
        }
        self.evidence.truncate(limits::ACCOUNT_LINES);
        for line in &mut self.evidence {
            *line = cut(line, limits::ACCOUNT_LINE_BYTES);
        }
        self
    }
}

fn cut(line: &str, bytes: usize) -> String {
    let end = line.floor_char_boundary(bytes);
    line[..end].replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heartbeat::Heartbeat;

    const GOLDEN: &str = include_str!("../golden/heartbeat-account.json");

    #[test]
    fn a_golden_account_decodes_and_survives_a_round_trip() {
        let beat = Heartbeat::decode(GOLDEN.as_bytes()).unwrap();
        let account = beat.account.as_deref().unwrap();
        assert_eq!((account.verdict, account.pending), (Verdict::NetworkPath, false));
        assert_eq!(account.attempts[0].step.as_str(), Step::Connect.as_str());
        let again = serde_json::to_vec(&beat).unwrap();
        assert_eq!(Heartbeat::decode(&again).unwrap(), beat);
    }

    #[test]
    fn a_newer_verdict_is_unknown_and_no_reason_to_refuse_a_beat() {
        let newer = GOLDEN.replace("\"network_path\"", "\"solar_flare\"");
        let beat = Heartbeat::decode(newer.as_bytes()).unwrap();
        assert_eq!(beat.account.unwrap().verdict, Verdict::Unknown);
    }

    #[test]
    fn bounds_are_held_and_a_bounded_account_is_within_them() {
        let at = Timestamp::UNIX_EPOCH;
        let mut account = Account::pending(at, at);
        account.summary = "é".repeat(400);
        account.evidence = vec!["a\u{7}b\n".repeat(200); 40];
        assert_eq!(account.validate("account").unwrap_err().field, "account.summary");
        let bounded = account.bounded();
        bounded.validate("account").unwrap();
        assert_eq!(bounded.evidence.len(), limits::ACCOUNT_LINES);
        let long = GOLDEN.replace("timed out", &"x".repeat(300));
        let error = Heartbeat::decode(long.as_bytes()).unwrap_err();
        assert_eq!(error.field, "account.attempts[0].detail");
    }
}
