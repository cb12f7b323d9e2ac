//! The server's own canary in the books: how its incidents are known, and the page if it went dark and no notification
//! of that arrived.
//!
//! Its own `box_dark` proves the way and concerns nobody: [`is_canarys`] tells it from people's. When the canary goes
//! dark, and what counts as arrived, is decided in `proof`.

use std::time::Duration;

use protocol::incident::{Incident, Kind};
use protocol::names::BoxName;
use serde_json::{Value, json};

use super::change::Change;
use super::checks::object;
use super::gone::plain;
use super::ledger::{Ledger, Say, Tell};
use super::severity;
use super::text::duration;
use crate::liveness::BoxIx;
use crate::liveness::time::Moment;

/// The canary's name; no other box may have it.
pub const NAME: &str = "fleet-canary";
/// In the details of an incident of the canary's own box.
pub(super) const MARK: &str = "canary";

/// How far a run came that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Its heartbeats were not taken.
    Ingest,
    /// It fell silent, and was not judged dark.
    Verdict,
    /// It was judged dark, and the notification did not arrive.
    Delivery,
}

/// A run that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Where.
    pub stage: Stage,
    /// How long was waited.
    pub waited: Duration,
    /// Receivers that have not got it.
    pub missing: Vec<String>,
    /// What was answered last, if anything.
    pub error: Option<String>,
}

/// The canary's name as a box's name.
pub fn name() -> BoxName {
    BoxName::new(NAME).expect("letters and a dash")
}

/// Whether this is an incident of the canary's own box: proof, and nobody's concern.
pub fn is_canarys(incident: &Incident) -> bool {
    incident.details.get(MARK) == Some(&Value::Bool(true))
}

impl Stage {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Verdict => "verdict",
            Self::Delivery => "delivery",
        }
    }
}

impl Ledger {
    /// The canary's run failed, or proved the way (`None`).
    pub fn canary(&mut self, failed: Option<&Failed>, now: Moment) -> Option<Change> {
        let key = plain(Kind::Canary);
        let Some(failed) = failed else {
            let said = "the canary's death was notified again: the way from a heartbeat to a receiver works";
            return self.resolve(&key, said.to_owned(), now);
        };
        let say = Say {
            severity: severity::of(Kind::Canary),
            summary: sentence(failed),
            details: object(json!({
                "stage": failed.stage.as_str(), "waited_secs": failed.waited.as_secs_f64(), "missing": failed.missing,
                "error": failed.error,
            })),
        };
        self.say(key, say, Tell::Nobody, now)
    }

    /// There is no canary in the configuration any more.
    pub fn no_canary(&mut self, now: Moment) -> Option<Change> {
        let said = "there is no canary in the configuration any more".to_owned();
        self.resolve(&plain(Kind::Canary), said, now)
    }

    pub(super) fn is_canary(&self, ix: BoxIx) -> bool {
        self.facts(ix).is_some_and(|facts| facts.info.id.is_canary())
    }
}

fn sentence(failed: &Failed) -> String {
    let waited = duration(failed.waited);
    let error = failed
        .error
        .as_ref()
        .map_or_else(String::new, |error| format!(" ({error})"));
    match failed.stage {
        Stage::Ingest => format!(
            "the canary's heartbeats have not been taken by this server's own listener for {waited}{error}; boxes may \
             fare alike"
        ),
        Stage::Verdict => format!(
            "the canary has been silent for {waited} and was not judged dark; a box that goes dark may not be noticed"
        ),
        Stage::Delivery => format!(
            "the canary is dark, and {waited} after its death the notification has not arrived at {}{error}; pages may \
             not arrive",
            failed.missing.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use protocol::incident::{EventKind, Severity};

    use super::*;
    use crate::liveness::time::Mono;

    fn now() -> Moment {
        Moment {
            mono: Mono::START,
            wall: Timestamp::from_second(1_763_755_200).unwrap(),
        }
    }

    fn failed(stage: Stage) -> Failed {
        Failed {
            stage,
            waited: Duration::from_millis(26_100),
            missing: vec!["fleet-canary".into(), "pager".into()],
            error: None,
        }
    }

    #[test]
    fn a_failed_run_pages_once_and_the_next_proof_ends_it() {
        let mut ledger = Ledger::new(1, None);
        assert_eq!(ledger.canary(None, now()), None, "nothing to end");
        let opened = ledger.canary(Some(&failed(Stage::Delivery)), now()).unwrap();
        let incident = &opened.incident;
        assert_eq!(
            (opened.event, incident.severity),
            (EventKind::Opened, Severity::Page)
        );
        assert_eq!(
            incident.summary,
            "the canary is dark, and 26.1 s after its death the notification has not arrived at fleet-canary, pager; \
             pages may not arrive"
        );
        assert!(!is_canarys(incident), "this one is people's");
        assert_eq!(
            ledger.canary(Some(&failed(Stage::Verdict)), now()),
            None,
            "told once"
        );
        let newest = ledger.open_incidents().next().unwrap();
        assert_eq!(newest.details["stage"], "verdict");
        assert!(
            newest.summary.contains("was not judged dark"),
            "{}",
            newest.summary
        );
        let end = ledger.canary(None, now()).unwrap();
        assert_eq!((end.event, end.notify), (EventKind::Resolved, true));
    }

    #[test]
    fn taken_out_of_the_configuration_it_accuses_nobody_any_more() {
        let mut ledger = Ledger::new(1, None);
        ledger.canary(Some(&failed(Stage::Ingest)), now()).unwrap();
        assert_eq!(ledger.no_canary(now()).unwrap().event, EventKind::Resolved);
        assert_eq!(ledger.no_canary(now()), None);
    }
}
