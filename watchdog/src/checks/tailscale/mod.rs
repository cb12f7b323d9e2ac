//! The Tailscale check: can operators reach the box, and for how long still?
//!
//! Here it asks tailscaled (and looks whether there is one); [`judge`] says what the answer means.

use std::path::Path;
use std::time::Duration;

use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde_json::{Map, Value, json};

use self::judge::{Snapshot, judge};
use super::{Context, Finding};
use crate::settings::TailscaleSettings;
use crate::tailscale::{self as api, ApiError};

pub use self::judge::TailscaleHistory;

pub mod judge;

/// How long the status may take. A healthy daemon takes milliseconds; one under load, a second.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
/// How long the health warnings may take: daemons before 1.72 never give any.
const HEALTH_DEADLINE: Duration = Duration::from_secs(2);
/// A daemon that is down is asked once more after this: a package upgrade restarts it within a second.
const SECOND_LOOK: Duration = Duration::from_millis(1500);

/// Where a tailscaled lies or is managed. Not its state directory: that outlives the program (`apt remove`).
const TRACES: [&str; 8] = [
    "usr/sbin/tailscaled",
    "usr/bin/tailscaled",
    "usr/local/sbin/tailscaled",
    "usr/local/bin/tailscaled",
    "usr/lib/systemd/system/tailscaled.service",
    "lib/systemd/system/tailscaled.service",
    "etc/systemd/system/tailscaled.service",
    "snap/bin/tailscale",
];
/// What systemd sets up when the unit is enabled: a box that has this means to use it.
const ENABLED: &str = "etc/systemd/system/multi-user.target.wants/tailscaled.service";

/// One run.
pub async fn check(
    settings: &TailscaleSettings,
    history: TailscaleHistory,
    ctx: &Context,
) -> (Finding, TailscaleHistory) {
    let mut snapshot = look(settings, &ctx.root).await;
    if snapshot.may_be_passing() {
        tokio::time::sleep(SECOND_LOOK.min(settings.timeout / 4)).await;
        snapshot = look(settings, &ctx.root).await;
    }
    let (verdict, history) = judge(&snapshot, settings, &history, ctx.now);
    let values = values(&snapshot, ctx);
    (
        Finding::new(CheckName::Tailscale, verdict.status, verdict.why, verdict.summary).with(values),
        history,
    )
}

/// One run on a box whose configuration has no `[tailscale]` table. `usual` is what an empty table would mean: where
/// tailscaled is in use at its usual place it is checked all the same; where it is not, the answer is `unknown`
/// (`not_configured`) with a hint.
pub async fn check_unconfigured(
    usual: &TailscaleSettings,
    history: TailscaleHistory,
    ctx: &Context,
) -> (Finding, TailscaleHistory) {
    if is_there(&usual.socket) || is_there(&ctx.root.join(ENABLED)) {
        return check(usual, history, ctx).await;
    }
    let hint = format!(
        "nothing says whether this box has Tailscale, and there is no {}; set `[tailscale] enabled = false` if it has none",
        usual.socket.display()
    );
    let finding = Finding::new(
        CheckName::Tailscale,
        Status::Unknown,
        KnownWhy::NotConfigured,
        hint,
    );
    (finding, TailscaleHistory::default())
}

async fn look(settings: &TailscaleSettings, root: &Path) -> Snapshot {
    let socket = &settings.socket;
    // Two looks and the pause between them fit into the check's own time-out.
    let status_deadline = STATUS_DEADLINE.min(settings.timeout.mul_f64(0.35));
    let health_deadline = HEALTH_DEADLINE.min(settings.timeout.mul_f64(0.3));
    let (status, health) = tokio::join!(
        api::status(socket, status_deadline),
        api::health(socket, health_deadline)
    );
    match status {
        Ok(node) => Snapshot::Answered {
            node,
            health: health.ok(),
        },
        Err(ApiError::NoSocket) if TRACES.iter().any(|trace| is_there(&root.join(trace))) => {
            Snapshot::NoSocket
        }
        Err(ApiError::NoSocket) => Snapshot::NotInstalled,
        Err(ApiError::Refused) => Snapshot::Refused,
        Err(ApiError::Hung(limit)) => Snapshot::Hung(limit),
        Err(ApiError::Cut) => Snapshot::Cut,
        Err(ApiError::Denied) => Snapshot::Unclear(format!(
            "cannot connect to {}: permission denied; its mode is 0666 by default",
            socket.display()
        )),
        Err(e @ (ApiError::Status(_) | ApiError::TooLarge | ApiError::Form(_))) => {
            Snapshot::Unclear(format!("{} is no LocalAPI as known: {e}", socket.display()))
        }
        Err(ApiError::Io(e)) => Snapshot::Unclear(format!("cannot ask {}: {e}", socket.display())),
    }
}

/// Whether something has this name, even something that may not be looked at.
fn is_there(path: &Path) -> bool {
    match std::fs::symlink_metadata(path) {
        Ok(_) => true,
        Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
    }
}

fn values(snapshot: &Snapshot, ctx: &Context) -> Map<String, Value> {
    let Snapshot::Answered { node, health } = snapshot else {
        return Map::new();
    };
    let codes = health
        .as_ref()
        .map(|all| all.iter().map(|w| w.code.clone()).collect::<Vec<_>>());
    let left = node.key_expiry.map(|at| at.as_second() - ctx.now.as_second());
    let all = [
        ("backend_state", json!(node.state)),
        ("online", json!(node.online)),
        ("key_expiry", json!(node.key_expiry)),
        ("key_left_secs", json!(left)),
        ("relay", json!(node.relay)),
        ("dns_name", json!(node.dns_name)),
        ("addresses", json!(node.addresses)),
        ("version", json!(node.version)),
        ("health_codes", json!(codes)),
    ];
    all.into_iter()
        .filter(|(_, v)| !v.is_null())
        .map(|(name, v)| (name.to_owned(), v))
        .collect()
}

#[cfg(test)]
mod tests;
