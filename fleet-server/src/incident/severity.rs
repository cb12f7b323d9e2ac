//! How loud each kind of incident is, in one table.
//!
//! | kind | severity | why |
//! |---|---|---|
//! | `box_dark` `box_silent` `site_dark` `planned_overdue` | page | a customer's agent may be down, and nobody on the box can say so |
//! | `server_blind` | page | while it lasts nobody is watched |
//! | `gateway` `disk` failing | page | the box's purpose is, or is about to be, down |
//! | `remedy_gave_up` | page | the machine has done what it can |
//! | `duplicate_identity` | page | one of two machines is unwatched, and a token may be stolen |
//! | `receiver_failing` | page | the next alert may reach nobody |
//! | `canary` | page | the way from a death to a notification does not work; nobody may hear of the next one |
//! | `backup` `tailscale` failing | ticket | in office hours is early enough |
//! | `checks_stopped` | ticket | the box is live and its gateway unit is still followed |
//! | `clock_skew` | ticket | nothing is judged by that clock |
//! | any check warning | info | not yet wrong |
//!
//! The operator's `[[severity]]` rules overrule the table, the first that matches. A warning stays info unless the rule
//! asks for it by name (`match = { severity = "info" }`): who makes failing backups a page does not mean "7 days left".
//!
//! An incident only ever gets louder: who was woken by it hears of its end, not that it is half over.

use protocol::incident::{Incident, Kind, Severity};
use protocol::report::Status;

use crate::settings::SeverityRule;

/// The severity of a check's incident; `None`: this status opens none.
pub fn of_check(kind: Kind, status: Status) -> Option<Severity> {
    match status {
        Status::Ok | Status::Unknown => None,
        Status::Warning => Some(Severity::Info),
        Status::Failing => Some(of(kind)),
    }
}

/// The severity of a kind (for a check: when it fails).
pub fn of(kind: Kind) -> Severity {
    match kind {
        Kind::BoxDark
        | Kind::BoxSilent
        | Kind::SiteDark
        | Kind::ServerBlind
        | Kind::PlannedOverdue
        | Kind::Gateway
        | Kind::Disk
        | Kind::RemedyGaveUp
        | Kind::DuplicateIdentity
        | Kind::ReceiverFailing
        | Kind::Canary => Severity::Page,
        Kind::Backup | Kind::Tailscale | Kind::ChecksStopped | Kind::ClockSkew => Severity::Ticket,
    }
}

/// What the operator's rules make of `incident` where the table says `table`.
pub fn ruled(rules: &[SeverityRule], incident: &Incident, table: Severity) -> Severity {
    if rules.is_empty() {
        return table;
    }
    let by_table = Incident {
        severity: table,
        ..incident.clone()
    };
    rules
        .iter()
        .filter(|rule| table != Severity::Info || !rule.matcher.severity.is_empty())
        .find(|rule| rule.matcher.matches(&by_table))
        .map_or(table, |rule| rule.severity)
}

/// The louder of two.
pub fn louder(a: Severity, b: Severity) -> Severity {
    let rank = |severity: Severity| match severity {
        Severity::Info => 0,
        Severity::Ticket => 1,
        Severity::Page => 2,
    };
    if rank(b) > rank(a) { b } else { a }
}
