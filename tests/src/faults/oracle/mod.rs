//! Judges a history: what must hold whatever went wrong. Pure.
//!
//! - `delivered`: no incident without its notifications, and nobody who is gone without an incident
//! - `explained`: no notification without a cause in what was done
//! - `order`: of one incident, each receiver hears the beginning first and the end last
//! - `repeats`: nothing twice, unless the first answer may not have been heard or written down
//! - `restart`: the books after an end of the server's process are the books before it
//!
//! It knows the server's rules from its documentation and what was configured ([`super::history::Rules`]), nothing from
//! its code. Where what was done leaves two outcomes open it takes both: each such place says why.

mod delivered;
mod explained;
mod order;
mod repeats;
mod restart;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

pub(super) use self::delivered::lacks;
use super::history::History;

/// Which rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    /// Something was not told.
    Lost,
    /// Something was told that did not happen.
    Unexplained,
    /// Something was told in the wrong order.
    Order,
    /// Something was told twice without need.
    Repeated,
    /// Something was forgotten, or made up, over a restart.
    Restart,
    /// The server ended by itself.
    Fell,
    /// What arrived is no notification.
    Garbled,
}

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Violation {
    /// Which.
    pub(super) rule: Rule,
    /// How.
    pub(super) text: String,
}

/// What does not hold.
pub(super) fn judge(history: &History) -> Vec<Violation> {
    let mut found = delivered::judge(history);
    found.extend(explained::judge(history));
    found.extend(order::judge(history));
    found.extend(repeats::judge(history));
    found.extend(restart::judge(history));
    for at_ms in &history.server.fell_ms {
        found.push(Violation::new(
            Rule::Fell,
            format!("the server ended by itself at {at_ms} ms, with nothing wrong with its disk"),
        ));
    }
    for receiver in &history.receivers {
        for text in &receiver.garbled {
            found.push(Violation::new(
                Rule::Garbled,
                format!("{}: {text}", receiver.name),
            ));
        }
    }
    found
}

impl Violation {
    fn new(rule: Rule, text: impl Into<String>) -> Self {
        Self {
            rule,
            text: text.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.text)
    }
}
