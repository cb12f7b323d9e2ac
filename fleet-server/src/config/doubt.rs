//! `[liveness] group_by` and `[witness]`: what goes together, and whom to ask in doubt.

use std::path::PathBuf;

use fleet_config::section::{Item, Section};
use protocol::limits;
use protocol::names::Labels;
use protocol::witness::Target;

use crate::liveness::census::GROUP_LABELS;
use crate::settings::WitnessSettings;

/// Unless the file says otherwise; the narrowest first.
const GROUP_BY: [&str; 2] = ["site", "provider"];
/// Addresses that the server may ask about itself.
const OWN: usize = 4;

/// Labels that group boxes.
pub(super) fn group_by(section: &Section<'_>) -> Vec<String> {
    let Some(item) = section.item("group_by") else {
        return GROUP_BY.map(ToOwned::to_owned).to_vec();
    };
    let items = item.list().unwrap_or_default();
    if items.len() > GROUP_LABELS {
        item.wrong(format!(
            "has {} labels; at most {GROUP_LABELS}, the narrowest first",
            items.len()
        ));
    }
    let mut labels: Vec<String> = Vec::new();
    for item in &items {
        let Some(label) = item.text() else { continue };
        match Labels::from_texts([(label, "x")]) {
            Ok(_) if labels.iter().any(|known| known == label) => item.wrong("stands here twice"),
            Ok(_) => labels.push(label.to_owned()),
            Err(err) => item.wrong(format!("is no label: {err}")),
        }
    }
    labels
}

/// Whom the server asks besides the boxes' own witnesses.
pub(super) fn witness(section: Section<'_>) -> WitnessSettings {
    let mut own = Vec::new();
    if let Some(item) = section.item("self") {
        let items = item.one_or_list();
        if items.len() > OWN {
            item.wrong(format!("has {} addresses; at most {OWN}", items.len()));
        }
        own = items.iter().filter_map(address).collect();
    }
    let tailscale = section.section("tailscale");
    let there = tailscale.is_there();
    let tailscale_socket: Option<PathBuf> = tailscale.path("socket");
    if there && !tailscale.has("socket") {
        tailscale.wrong_at(
            "socket",
            "is missing; the server's own tailscaled is at \"/run/tailscale/tailscaled.sock\" as a rule",
        );
    }
    tailscale.finish();
    section.finish();
    WitnessSettings {
        own,
        tailscale_socket,
    }
}

/// Somebody else's `host:port`.
fn address(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    match text.parse::<Target>() {
        Ok(Target::Tcp(address)) if text.len() <= limits::WITNESS_BYTES => Some(address),
        Ok(_) | Err(_) => {
            item.wrong(
                "is no address; write host:port of a machine elsewhere that is always up, such as \"192.0.2.1:443\"",
            );
            None
        }
    }
}
