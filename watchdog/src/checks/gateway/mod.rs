//! Does the box's purpose run, and is it alive? One unit; several gateways are asked one by one, all at once.
//!
//! It restarts nothing and counts no runs of failing; it says what forbids a restart ([`crate::checks::Hold`]).

use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde::{Deserialize, Serialize};

use super::{Context, Finding};
use crate::settings::GatewaySettings;
use crate::systemd::ServiceManager;

/// What one run leaves for the next, for one unit. It belongs to one boot and is emptied in another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayHistory {}

/// Asks about the gateway `settings.unit`.
pub async fn check(
    settings: &GatewaySettings,
    history: GatewayHistory,
    _ctx: &Context,
    manager: &impl ServiceManager,
) -> (Finding, GatewayHistory) {
    let mut finding = Finding {
        name: CheckName::Gateway,
        subject: Some(settings.unit.clone()),
        status: Status::Unknown,
        why: KnownWhy::ManagerUnreachable,
        summary: String::new(),
        values: serde_json::Map::new(),
        hold: None,
    };
    match manager.unit(&settings.unit).await {
        Err(error) => {
            finding.why = error.why();
            finding.summary = error.to_string();
        }
        Ok(facts) => {
            finding.status = Status::Ok;
            finding.why = KnownWhy::Fine;
            finding.summary = format!("{} is {}", settings.unit, facts.sub);
        }
    }
    (finding, history)
}
