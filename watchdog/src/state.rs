//! What one run leaves for the next: `state.json`.
//!
//! A file that cannot be understood (cut off, garbled, another version's) is set aside and said, never fatal, never
//! deleted. Each check's history is kept as plain JSON and read by the check's own type, so that a change of one of them
//! costs that history only.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use protocol::limits;
use protocol::names::UnitName;
use protocol::report::{CheckName, Outcome, RemedyReport};
use protocol::why::KnownWhy;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::checks::{Finding, sentence};
use crate::clock::Moment;
use crate::remedy::{self, BootMs, CaseMemory, UnitMemory};
use crate::state_dir::{STATE_FILE, StateDir, StateDirError};
use crate::verdict::Streak;

/// The format's version. Another one is set aside: counting wrongly is worse than counting anew.
const VERSION: u32 = 1;
/// The longest window that a configuration allows: no restart is remembered for longer.
const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    version: u32,
    /// The boot that the counters belong to.
    pub boot_id: Option<Uuid>,
    /// Runs in this boot.
    pub runs: u32,
    /// How long each check has had its status.
    pub streaks: Vec<Streak>,
    /// What each check's failing has come to, by [`case_key`].
    pub cases: BTreeMap<String, CaseMemory>,
    /// What was done to each unit.
    pub units: BTreeMap<UnitName, UnitMemory>,
    /// The newest remedies and hold-backs of this boot, oldest first.
    pub remedies: Vec<RemedyReport>,
    /// What of them is still going on, by [`case_key`]: said once, not every run.
    pub noted: BTreeMap<String, (Outcome, KnownWhy)>,
    /// The checks' own histories, by [`case_key`].
    pub histories: BTreeMap<String, Value>,
    /// The newest state file that had to be set aside, in this boot.
    pub set_aside: Option<SetAside>,
}

/// A state file that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAside {
    /// When.
    pub at: Timestamp,
    /// Its new name in the state directory.
    pub file: String,
    /// What was wrong with it.
    pub why: String,
}

/// What was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The state: as kept, or a fresh one.
    pub state: State,
    /// The state could not be read, and is still where it was: it must not be overwritten, and nothing may be counted.
    pub unreadable: Option<StateDirError>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            boot_id: None,
            runs: 0,
            streaks: Vec::new(),
            cases: BTreeMap::new(),
            units: BTreeMap::new(),
            remedies: Vec::new(),
            noted: BTreeMap::new(),
            histories: BTreeMap::new(),
            set_aside: None,
        }
    }
}

/// One check's key: `disk`, `gateway/hermes-gateway.service`.
pub fn case_key(name: CheckName, subject: Option<&UnitName>) -> String {
    match subject {
        Some(unit) => format!("{name}/{unit}"),
        None => name.to_string(),
    }
}

/// A finding's key.
pub fn key_of(finding: &Finding) -> String {
    case_key(finding.name, finding.subject.as_ref())
}

/// Reads the state; what cannot be understood is set aside.
pub fn load(dir: &StateDir, now: Timestamp) -> Loaded {
    let fresh = |unreadable| Loaded {
        state: State::default(),
        unreadable,
    };
    let why = match dir.read(STATE_FILE) {
        Ok(None) => return fresh(None),
        Ok(Some(bytes)) => match decode(&bytes) {
            Ok(state) => {
                return Loaded {
                    state,
                    unreadable: None,
                };
            }
            Err(why) => why,
        },
        Err(err @ (StateDirError::TooLong(_) | StateDirError::NotPlain(_))) => err.to_string(),
        Err(err) => return fresh(Some(err)),
    };
    match dir.set_aside(STATE_FILE, now) {
        Ok(file) => {
            let mut loaded = fresh(None);
            loaded.state.set_aside = Some(SetAside { at: now, file, why });
            loaded
        }
        Err(err) => fresh(Some(err)),
    }
}

/// Reads the state and leaves everything where it is.
pub fn look(dir: &StateDir) -> Loaded {
    let kept = dir.read(STATE_FILE);
    let state = kept.ok().flatten().and_then(|bytes| decode(&bytes).ok());
    Loaded {
        state: state.unwrap_or_default(),
        unreadable: None,
    }
}

fn decode(bytes: &[u8]) -> Result<State, String> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    let wrong = |err: serde_json::Error| format!("it is no state file: {err}");
    let Versioned { version } = serde_json::from_slice(bytes).map_err(wrong)?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}; this watchdog writes version {VERSION}"
        ));
    }
    serde_json::from_slice(bytes).map_err(wrong)
}

impl State {
    /// Writes it.
    pub fn store(&self, dir: &StateDir) -> Result<(), StateDirError> {
        // Every type in it has a JSON form; an empty text would be set aside at the next run, not believed.
        dir.write(STATE_FILE, &serde_json::to_vec_pretty(self).unwrap_or_default())
    }

    /// Begins a run: in another boot than the last one, counters begin anew.
    pub fn begin(&mut self, boot_id: Option<Uuid>, now: Moment) {
        let now_ms = boot_ms(now);
        if self.boot_id != boot_id || boot_id.is_none() {
            let mut cases: Vec<&mut CaseMemory> = self.cases.values_mut().collect();
            for unit in self.units.values_mut() {
                remedy::into_new_boot(&mut cases, unit, now_ms, now.wall);
            }
            self.boot_id = boot_id;
            self.runs = 0;
            self.remedies.clear();
            self.noted.clear();
            self.set_aside.take_if(|aside| aside.at < now.wall);
        }
        self.runs = self.runs.saturating_add(1);
        for unit in self.units.values_mut() {
            remedy::prune(unit, LONGEST_WINDOW, now_ms);
        }
        self.units.retain(|_, unit| *unit != UnitMemory::default());
    }

    /// A check's history, as its own type; one that does not fit begins anew.
    pub fn history<H: DeserializeOwned + Default>(&self, key: &str) -> H {
        let kept = self.histories.get(key).cloned();
        kept.and_then(|value| serde_json::from_value(value).ok())
            .unwrap_or_default()
    }

    /// Keeps a check's history.
    pub fn keep_history<H: Serialize>(&mut self, key: &str, history: &H) {
        if let Ok(value) = serde_json::to_value(history) {
            self.histories.insert(key.to_owned(), value);
        }
    }

    /// Forgets checks that this run did not ask.
    pub fn retain(&mut self, asked: &[String]) {
        self.cases.retain(|key, _| asked.contains(key));
        self.histories.retain(|key, _| asked.contains(key));
        self.noted.retain(|key, _| asked.contains(key));
    }

    /// Notes what goes on with a check (held back, given up): once while it lasts, its sentence kept up to date.
    pub fn note(&mut self, key: &str, row: RemedyReport, why: KnownWhy) {
        let going_on = self.noted.insert(key.to_owned(), (row.outcome, why)) == Some((row.outcome, why));
        let same = |r: &&mut RemedyReport| r.unit == row.unit && r.outcome == row.outcome && r.why == row.why;
        match self.remedies.iter_mut().rev().find(same) {
            Some(before) if going_on => before.summary = row.summary,
            Some(_) | None => self.log(row),
        }
    }

    /// Nothing goes on with a check any more.
    pub fn quiet(&mut self, key: &str) {
        self.noted.remove(key);
    }

    /// What came of the restart that was asked for at `at`.
    pub fn finish(
        &mut self,
        unit: &UnitName,
        at: Timestamp,
        outcome: Outcome,
        why: KnownWhy,
        summary: &str,
        evidence: Option<String>,
    ) {
        let row = RemedyReport {
            at,
            unit: unit.clone(),
            outcome,
            why: why.into(),
            summary: sentence(summary),
            evidence,
        };
        let asked = self
            .remedies
            .iter_mut()
            .rev()
            .find(|r| r.unit == *unit && r.at == at);
        match asked {
            Some(before) => {
                let evidence = before.evidence.take();
                *before = row;
                before.evidence = before.evidence.take().or(evidence);
            }
            None => self.log(row),
        }
    }

    /// Takes back the newest row about `unit`: what it says did not happen.
    pub fn forget(&mut self, unit: &UnitName) {
        if let Some(at) = self.remedies.iter().rposition(|r| r.unit == *unit) {
            self.remedies.remove(at);
        }
    }

    /// Adds a row to what was done. When there are too many, hold-backs go first: they are the least that happened.
    pub fn log(&mut self, mut row: RemedyReport) {
        row.summary = sentence(&row.summary);
        self.remedies.push(row);
        while self.remedies.len() > limits::REMEDIES {
            let oldest = self.remedies.iter().position(|r| r.outcome == Outcome::HeldBack);
            self.remedies.remove(oldest.unwrap_or(0));
        }
    }
}

/// A moment on the boot clock.
pub fn boot_ms(now: Moment) -> BootMs {
    BootMs::try_from(now.boot.as_millis()).unwrap_or(BootMs::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::names::Word;
    use protocol::report::Status;
    use protocol::why::Why;

    fn moment(second: i64) -> Moment {
        Moment {
            wall: Timestamp::from_second(1_800_000_000 + second).unwrap(),
            boot: Duration::from_secs(second.unsigned_abs()),
            monotonic: Duration::from_secs(second.unsigned_abs()),
        }
    }

    fn unit() -> UnitName {
        UnitName::new("g.service").unwrap()
    }

    fn row(outcome: Outcome, why: KnownWhy, second: i64) -> RemedyReport {
        RemedyReport {
            at: moment(second).wall,
            unit: unit(),
            outcome,
            why: why.into(),
            summary: format!("at {second}"),
            evidence: None,
        }
    }

    fn full() -> State {
        let mut state = State::default();
        state.begin(Some(Uuid::from_u128(1)), moment(100));
        let finding = Finding::new(CheckName::Disk, Status::Failing, KnownWhy::ReadOnly, "x");
        state.streaks = crate::verdict::judge(&[finding], &[], moment(100).wall);
        state.cases.insert(
            "disk".to_owned(),
            CaseMemory {
                failing: 2,
                ..CaseMemory::default()
            },
        );
        let attempt = remedy::Attempt {
            boot_ms: 90_000,
            at: moment(90).wall,
        };
        state.units.insert(
            unit(),
            UnitMemory {
                attempts: vec![attempt],
                ..UnitMemory::default()
            },
        );
        state.note(
            "disk",
            row(Outcome::HeldBack, KnownWhy::TooFewRuns, 100),
            KnownWhy::TooFewRuns,
        );
        state.keep_history("disk", &vec![1, 2, 3]);
        state
    }

    #[test]
    fn one_shot_runs_add_up() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        let state = full();
        state.store(&dir).unwrap();
        let loaded = load(&dir, moment(220).wall);
        assert!(loaded.unreadable.is_none());
        assert_eq!(loaded.state, state);
        let mut state = loaded.state;
        state.begin(Some(Uuid::from_u128(1)), moment(220));
        assert_eq!((state.runs, state.cases["disk"].failing), (2, 2));
        assert_eq!(state.history::<Vec<u8>>("disk"), [1, 2, 3]);
    }

    #[test]
    fn another_boot_counts_anew_but_remembers_restarts() {
        let mut state = full();
        state.begin(
            Some(Uuid::from_u128(2)),
            Moment {
                boot: Duration::from_secs(5),
                ..moment(300)
            },
        );
        assert_eq!((state.runs, state.cases["disk"].failing), (1, 0));
        assert!(state.remedies.is_empty());
        assert_eq!(
            state.units[&unit()].attempts[0].boot_ms,
            5_000 - 210_000,
            "210 s ago, before this boot"
        );
    }

    #[test]
    fn every_kind_of_damage_is_set_aside_and_said() {
        let temp = tempfile::tempdir().unwrap();
        let dir = StateDir::new(temp.path());
        let whole = serde_json::to_vec(&full()).unwrap();
        let newer = String::from_utf8(whole.clone())
            .unwrap()
            .replace("\"version\":1", "\"version\":2");
        let cut = &whole[..whole.len() / 2];
        let wrong_type = String::from_utf8(whole.clone())
            .unwrap()
            .replace("\"runs\":1", "\"runs\":\"x\"");
        let damages: [(&[u8], &str); 6] = [
            (b"", "empty"),
            (cut, "no state file"),
            (&[0; 100], "no state file"),
            (b"\xff\xfe{}", "no state file"),
            (newer.as_bytes(), "version 2"),
            (wrong_type.as_bytes(), "no state file"),
        ];
        for (n, (bytes, word)) in damages.into_iter().enumerate() {
            dir.write(STATE_FILE, bytes).unwrap();
            let loaded = load(&dir, moment(n as i64).wall);
            let aside = loaded.state.set_aside.unwrap();
            assert!(aside.why.contains(word), "{aside:?}");
            assert_eq!(
                dir.read(&aside.file).unwrap().unwrap(),
                bytes,
                "the damaged file is kept"
            );
            assert!(dir.read(STATE_FILE).unwrap().is_none());
        }
    }

    #[test]
    fn a_history_that_does_not_fit_begins_anew_alone() {
        let mut state = full();
        state.keep_history("disk", &"not a list");
        assert_eq!(state.history::<Vec<u8>>("disk"), Vec::<u8>::new());
        assert_eq!(state.cases["disk"].failing, 2);
    }

    #[test]
    fn what_goes_on_is_said_once_and_kept_up_to_date() {
        let mut state = State::default();
        let mut note = |why, second| {
            state.note("gateway/g.service", row(Outcome::HeldBack, why, second), why);
            state
                .remedies
                .iter()
                .map(|r| (r.why.as_str().to_owned(), r.summary.clone()))
                .collect::<Vec<_>>()
        };
        note(KnownWhy::TooFewRuns, 1);
        assert_eq!(
            note(KnownWhy::TooFewRuns, 2),
            [("too_few_runs".to_owned(), "at 2".to_owned())]
        );
        assert_eq!(note(KnownWhy::Paused, 3).len(), 2);
        state.quiet("gateway/g.service");
        state.note(
            "gateway/g.service",
            row(Outcome::HeldBack, KnownWhy::Paused, 9),
            KnownWhy::Paused,
        );
        assert_eq!(state.remedies.len(), 3, "after a healthy time it is new");
    }

    #[test]
    fn the_log_is_bounded_and_loses_hold_backs_first() {
        let mut state = State::default();
        state.log(row(Outcome::GaveUp, KnownWhy::RestartsUsedUp, 0));
        for second in 1..60 {
            state.log(row(Outcome::HeldBack, KnownWhy::Spacing, second));
        }
        assert_eq!(state.remedies.len(), limits::REMEDIES);
        assert_eq!(state.remedies[0].outcome, Outcome::GaveUp);
        assert_eq!(state.remedies.last().unwrap().summary, "at 59");
        assert_eq!(
            Why::from(KnownWhy::Spacing).as_str(),
            Word::new("spacing").unwrap().as_str()
        );
    }
}
