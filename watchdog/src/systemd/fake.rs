//! A service manager made of data, for tests.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use protocol::names::UnitName;

use super::{JobOutcome, JobResult, ManagerError, ServiceManager, UnitFacts};

/// Answers with what it was given, and remembers what was restarted.
#[derive(Debug, Default)]
pub struct FakeManager {
    /// Units by name; others do not exist.
    pub units: Mutex<HashMap<String, Result<UnitFacts, ManagerError>>>,
    /// What a unit turns into after it was asked about once.
    pub next: Mutex<HashMap<String, UnitFacts>>,
    /// How restarts end; none: `done`.
    pub restart_ends: Option<Result<JobOutcome, ManagerError>>,
    /// What was restarted, in order.
    pub restarted: Mutex<Vec<UnitName>>,
}

impl FakeManager {
    /// One that knows `unit`.
    pub fn with(unit: &UnitName, facts: UnitFacts) -> Self {
        let fake = Self::default();
        fake.set(unit, Ok(facts));
        fake
    }

    /// After the next question.
    pub fn then(&self, unit: &UnitName, facts: UnitFacts) {
        self.next
            .lock()
            .expect("no test panics with it")
            .insert(unit.to_string(), facts);
    }

    /// From now on.
    pub fn set(&self, unit: &UnitName, facts: Result<UnitFacts, ManagerError>) {
        self.units
            .lock()
            .expect("no test panics with it")
            .insert(unit.to_string(), facts);
    }
}

impl ServiceManager for FakeManager {
    async fn unit(&self, unit: &UnitName) -> Result<UnitFacts, ManagerError> {
        let mut units = self.units.lock().expect("no test panics with it");
        let now = units
            .get(unit.as_str())
            .cloned()
            .unwrap_or_else(|| Ok(UnitFacts::default()));
        let next = self
            .next
            .lock()
            .expect("no test panics with it")
            .remove(unit.as_str());
        units.extend(next.map(|facts| (unit.to_string(), Ok(facts))));
        now
    }

    async fn restart(&self, unit: &UnitName, _deadline: Duration) -> Result<JobOutcome, ManagerError> {
        self.restarted
            .lock()
            .expect("no test panics with it")
            .push(unit.clone());
        self.restart_ends.clone().unwrap_or(Ok(JobOutcome {
            result: JobResult::Done,
            took: Duration::from_millis(500),
        }))
    }
}
