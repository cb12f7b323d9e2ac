//! Spoils what was seen, on purpose: each way must be found by the oracle, or the oracle is none. Pure.

use std::fmt;
use std::str::FromStr;

use protocol::incident::EventKind;

use super::history::{History, Told};

/// How to spoil a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tamper {
    /// A notification never arrived.
    Drop,
    /// One came again without need.
    Repeat,
    /// An end came before its beginning.
    Reorder,
    /// A box that was well was called dark.
    Invent,
    /// An incident is not in the books any more.
    Forget,
}

impl Tamper {
    /// Every way.
    pub(super) const ALL: [Self; 5] = [
        Self::Drop,
        Self::Repeat,
        Self::Reorder,
        Self::Invent,
        Self::Forget,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Repeat => "repeat",
            Self::Reorder => "reorder",
            Self::Invent => "invent",
            Self::Forget => "forget",
        }
    }

    /// Spoils it; whether there was anything to spoil.
    pub(super) fn spoil(self, history: &mut History) -> bool {
        match self {
            Self::Drop => history.receivers.iter_mut().any(|receiver| {
                let taken = receiver.told.iter().position(Told::taken);
                let Some(key) = taken.map(|at| receiver.told[at].idempotency_key.clone()) else {
                    return false;
                };
                receiver.told.retain(|told| told.idempotency_key != key);
                true
            }),
            Self::Repeat => history.receivers.iter_mut().any(|receiver| {
                let Some(last) = receiver.told.iter().rfind(|told| told.taken()).cloned() else {
                    return false;
                };
                // Long after whatever could excuse it.
                let at_ms = history.ended_ms + 60_000;
                receiver.told.push(Told {
                    at_ms,
                    ..last.clone()
                });
                receiver.told.push(Told {
                    at_ms: at_ms + 5000,
                    answered_ms: Some(at_ms + 5000),
                    ..last
                });
                if let Some(first) = receiver.told.iter_mut().rev().nth(1) {
                    first.answered_ms = Some(at_ms);
                }
                true
            }),
            Self::Reorder => history.receivers.iter_mut().any(|receiver| {
                let end = receiver
                    .told
                    .iter()
                    .position(|told| told.alert.event == EventKind::Resolved);
                let Some(end) = end else { return false };
                let told = receiver.told.remove(end);
                let begin = receiver
                    .told
                    .iter()
                    .position(|other| other.alert.key == told.alert.key);
                receiver.told.insert(begin.unwrap_or(0), told);
                true
            }),
            Self::Invent => {
                let well = history.boxes.iter().find(|truth| truth.gone.is_empty());
                let Some(name) = well.and_then(|truth| truth.name.parse().ok()) else {
                    return false;
                };
                let about_one = |told: &&mut Told| told.alert.incident.box_name.is_some();
                let mut told = history
                    .receivers
                    .iter_mut()
                    .flat_map(|receiver| &mut receiver.told);
                let Some(told) = told.find(about_one) else {
                    return false;
                };
                told.alert.incident.kind = protocol::incident::Kind::BoxDark;
                told.alert.incident.box_name = Some(name);
                true
            }
            Self::Forget => {
                let told = |id: i64| {
                    let mut all = history.receivers.iter().flat_map(|receiver| &receiver.told);
                    all.any(|told| told.alert.incident.id == id)
                };
                let at = history
                    .last
                    .incidents
                    .iter()
                    .position(|one| told(one.incident.id));
                at.map(|at| history.last.incidents.remove(at)).is_some()
            }
        }
    }
}

impl fmt::Display for Tamper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Tamper {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Self::ALL.map(Self::word).join(", ");
        Self::ALL
            .into_iter()
            .find(|way| way.word() == text)
            .ok_or(format!("{text:?} is none of {words}"))
    }
}
