//! `[liveness] group_by` and `[witness]`: what goes together, and whom to ask in doubt.

use std::net::IpAddr;
use std::path::PathBuf;

use fleet_config::section::{Item, Section};
use protocol::limits;
use protocol::names::Labels;
use protocol::witness::Target;

use crate::liveness::census::GROUP_LABELS;

use crate::settings::{DeadMan, Receiver, WitnessSettings, host};

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

/// Whom the server asks besides the boxes' own witnesses. Where nothing is said of that: those that it must reach anyway.
pub(super) fn witness(
    section: Section<'_>,
    receivers: &[Receiver],
    dead_man: Option<&DeadMan>,
) -> WitnessSettings {
    let mut own = Vec::new();
    if !section.has("self") {
        let ping = dead_man.map(|dead_man| host(dead_man.url.expose()));
        let others = receivers.iter().flat_map(|receiver| receiver.kind.addresses());
        for address in ping
            .into_iter()
            .chain(others)
            .filter(|address| is_outside(address))
        {
            if own.len() < OWN && !own.contains(&address) {
                own.push(address);
            }
        }
    }
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

/// Whether `host:port` is somewhere else than on this machine or in its own network: what is near answers although the
/// uplink is cut.
fn is_outside(address: &str) -> bool {
    let Some((host, _)) = address.rsplit_once(':') else {
        return false;
    };
    // An IPv4 address in IPv6's clothes is what it is; a name is the same in capitals and with the root's dot.
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    match ip.map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            !(ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_unspecified())
        }
        Ok(IpAddr::V6(ip)) => {
            !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local() || ip.is_unspecified())
        }
        Err(_) => {
            let name = host.trim_end_matches('.').to_ascii_lowercase();
            name.contains('.') && !NEAR.iter().any(|suffix| name.ends_with(suffix))
        }
    }
}

/// Ends of names that no public name has (RFC 6762, appendix G; RFC 8375): their hosts are near.
const NEAR: [&str; 10] = [
    ".localhost",
    ".localdomain",
    ".local",
    ".lan",
    ".home",
    ".home.arpa",
    ".corp",
    ".intranet",
    ".internal",
    ".private",
];

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_says_nothing_of_the_uplink() {
        for far in [
            "hooks.slack.com:443",
            "192.0.2.7:25",
            "[2001:db8::1]:443",
            "198.51.100.1:9093",
        ] {
            assert!(is_outside(far), "{far}");
        }
        for near in [
            "localhost:9093",
            "alertmanager:9093",
            "am.lan:9093",
            "127.0.0.1:9900",
            "10.98.0.1:9900",
            "192.168.1.2:25",
            "169.254.1.1:80",
            "[::1]:80",
            "[fd00::1]:80",
            "[::ffff:10.0.0.7]:80",
            "fd00::1:25",
            "localhost.:25",
            "localhost.localdomain:25",
            "am.lan.:9093",
            "Mail.LAN:587",
            "am.corp:9093",
            "?",
        ] {
            assert!(!is_outside(near), "{near}");
        }
    }
}
