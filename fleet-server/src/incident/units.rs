//! What beats say of gateway units between two reports: a crashed gateway shows within a second, long before the next
//! run of checks.
//!
//! Evidence rules:
//! - `failed` for [`SETTLE`] without an operator's stop job is trouble. (A restart passes through `failed` for moments.)
//! - Waiting for an automatic restart for [`WAITING`], or [`RESTARTS`] restarts within [`FLAP_WINDOW`], is trouble too.
//!   One crash that the service manager mends at once is not: it stands in the report.
//! - It is over when the unit has been calm for [`CALM_FAILED`], after flapping for [`CALM_FLAPPING`].
//! - A report that explains the state by an operator's doing wins until the unit's state changes.
//! - A box that is not live, or that has said goodbye, says nothing about its units.

use std::collections::VecDeque;
use std::time::Duration;

use protocol::heartbeat::UnitState;
use protocol::incident::Kind;
use protocol::names::UnitName;
use protocol::why::KnownWhy;

use super::change::Change;
use super::facts::{Facts, Word};
use super::ledger::Ledger;
use crate::liveness::BoxIx;
use crate::liveness::time::{Moment, Mono};

/// How long `failed` must last.
const SETTLE: Duration = Duration::from_millis(700);
/// How long a wait for an automatic restart may last.
const WAITING: Duration = Duration::from_secs(10);
/// So many restarts …
const RESTARTS: usize = 3;
/// … within this are flapping.
const FLAP_WINDOW: Duration = Duration::from_secs(120);
/// Calm after `failed`.
const CALM_FAILED: Duration = Duration::from_secs(3);
/// Calm after flapping.
const CALM_FLAPPING: Duration = Duration::from_secs(30);

/// One unit over time.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    unit: UnitState,
    /// Since when it is in that state.
    since: Mono,
    restarts: VecDeque<Mono>,
    trouble: Option<Trouble>,
    /// Well, or at least not in trouble, since then.
    calm_since: Option<Mono>,
    overruled: bool,
}

/// What is wrong with a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) why: KnownWhy,
    pub(super) sentence: String,
    /// The kernel's OOM killer ended it: what says so.
    pub(super) oom: Option<String>,
}

impl Ledger {
    /// A box's beats say something new besides "alive".
    pub fn word(&mut self, ix: BoxIx, word: Word, now: Moment) -> Vec<Change> {
        let Some(facts) = self.facts_mut(ix) else {
            return Vec::new();
        };
        facts.hear_units(&word.units, now.mono);
        let clock_off = word.clock_off_ms;
        facts.word = word;
        self.watching.insert(ix);
        let mut changes: Vec<Change> = self.clock(ix, clock_off, now).into_iter().collect();
        changes.extend(self.units_of(ix, now));
        changes
    }

    /// Time has passed: what was waited for to settle has, or has not.
    pub(super) fn units(&mut self, now: Moment) -> Vec<Change> {
        let watching: Vec<BoxIx> = self.watching.iter().copied().collect();
        watching
            .into_iter()
            .flat_map(|ix| self.units_of(ix, now))
            .collect()
    }

    /// The newest report explains a unit's state by an operator's doing.
    pub(super) fn overrule_watches(&mut self, ix: BoxIx) {
        let Some(facts) = self.facts_mut(ix) else { return };
        for watch in &mut facts.watches {
            let key = (Kind::Gateway, watch.unit.name.to_string());
            watch.overruled |= facts.checks.get(&key).is_some_and(|check| check.explained);
        }
    }

    fn units_of(&mut self, ix: BoxIx, now: Moment) -> Vec<Change> {
        let Some(facts) = self.facts_mut(ix) else {
            self.watching.remove(&ix);
            return Vec::new();
        };
        if !facts.is_live() {
            self.watching.remove(&ix);
            return Vec::new();
        }
        for watch in &mut facts.watches {
            watch.look(now.mono);
        }
        let units: Vec<UnitName> = facts
            .watches
            .iter()
            .map(|watch| watch.unit.name.clone())
            .collect();
        let settled = facts.watches.iter().all(Watch::is_settled);
        let changes = units
            .iter()
            .filter_map(|unit| self.reconsider_unit(ix, unit.as_str(), now))
            .collect();
        if settled {
            self.watching.remove(&ix);
        }
        changes
    }
}

impl Facts {
    fn hear_units(&mut self, units: &[UnitState], now: Mono) {
        self.watches
            .retain(|watch| units.iter().any(|unit| watch.is_about(unit.name.as_str())));
        for unit in units {
            match self
                .watches
                .iter_mut()
                .find(|watch| watch.is_about(unit.name.as_str()))
            {
                Some(watch) => watch.hear(unit, now),
                None => self.watches.push(Watch::new(unit, now)),
            }
        }
    }
}

impl Watch {
    fn new(unit: &UnitState, now: Mono) -> Self {
        Self {
            unit: unit.clone(),
            since: now,
            restarts: VecDeque::new(),
            trouble: None,
            calm_since: None,
            overruled: false,
        }
    }

    pub(super) fn is_about(&self, unit: &str) -> bool {
        self.unit.name.as_str() == unit
    }

    /// What is wrong with it, unless an operator's doing explains it.
    pub(super) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref().filter(|_| !self.overruled)
    }

    /// Not yet known to be well.
    pub(super) fn unsettled(&self) -> bool {
        !self.overruled && self.calm_since.is_none()
    }

    fn is_settled(&self) -> bool {
        self.overruled || (self.trouble.is_none() && self.calm_since.is_some() && !self.waits())
    }

    fn hear(&mut self, unit: &UnitState, now: Mono) {
        if unit.restarts > self.unit.restarts {
            self.restarts.push_back(now);
            if self.restarts.len() > RESTARTS {
                self.restarts.pop_front();
            }
        }
        let moved = (&unit.active, &unit.sub, unit.stopped_by_operator)
            != (&self.unit.active, &self.unit.sub, self.unit.stopped_by_operator);
        if moved {
            self.since = now;
            self.overruled = false;
        }
        self.unit = unit.clone();
    }

    /// Brings the trouble up to `now`.
    fn look(&mut self, now: Mono) {
        if let Some(trouble) = self.found(now) {
            self.calm_since = None;
            self.trouble = Some(trouble);
            return;
        }
        if self.waits() {
            self.calm_since = None;
            return;
        }
        let since = *self.calm_since.get_or_insert(now);
        let flapped = self
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.why == KnownWhy::CrashLoop);
        let calm = if flapped { CALM_FLAPPING } else { CALM_FAILED };
        if now.since(since) >= calm {
            self.trouble = None;
        }
    }

    fn found(&self, now: Mono) -> Option<Trouble> {
        if self.unit.stopped_by_operator {
            return None;
        }
        let name = &self.unit.name;
        let result = self
            .unit
            .result
            .as_ref()
            .map_or("unknown", |result| result.as_str());
        let lasted = now.since(self.since);
        let oom = self.unit.oom.clone();
        let killed = oom
            .as_ref()
            .map(|line| format!("; killed for lack of memory (oom): {line}"));
        let killed = killed.unwrap_or_default();
        if self.failed() && lasted >= SETTLE {
            return Some(Trouble {
                why: KnownWhy::UnitFailed,
                sentence: format!("{name} has failed ({result}){killed}"),
                oom,
            });
        }
        let recent = self
            .restarts
            .iter()
            .filter(|at| now.since(**at) < FLAP_WINDOW)
            .count();
        if recent >= RESTARTS || (self.waits_for_restart() && lasted >= WAITING) {
            return Some(Trouble {
                why: KnownWhy::CrashLoop,
                sentence: format!(
                    "{name} crashes again and again ({result}; {} automatic restarts){killed}",
                    self.unit.restarts
                ),
                oom,
            });
        }
        None
    }

    /// In a state that may become trouble.
    fn waits(&self) -> bool {
        !self.unit.stopped_by_operator && (self.failed() || self.waits_for_restart())
    }

    fn failed(&self) -> bool {
        self.unit.active.as_str() == "failed"
    }

    fn waits_for_restart(&self) -> bool {
        self.unit.active.as_str() == "activating" && self.unit.sub.as_str() == "auto-restart"
    }
}
