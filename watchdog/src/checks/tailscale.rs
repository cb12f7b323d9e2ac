//! The Tailscale check: can operators reach the box, and for how long still?

use serde::{Deserialize, Serialize};

use super::{Context, Finding};
use crate::settings::TailscaleSettings;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;

/// What this check remembers from run to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TailscaleHistory {}

/// One run.
pub async fn check(
    settings: &TailscaleSettings,
    history: TailscaleHistory,
    ctx: &Context,
) -> (Finding, TailscaleHistory) {
    let _ = (settings, ctx);
    std::future::ready(()).await;
    (
        Finding::new(
            CheckName::Tailscale,
            Status::Unknown,
            KnownWhy::CheckError,
            "not looked at yet",
        ),
        history,
    )
}

/// One run on a box whose configuration has no `[tailscale]` table. `defaults` are what an empty table would mean:
/// where tailscaled is in use at its usual place it is checked all the same; where it is not, the answer is
/// `unknown` (`not_configured`) with a hint.
pub async fn check_unconfigured(
    defaults: &TailscaleSettings,
    history: TailscaleHistory,
    ctx: &Context,
) -> (Finding, TailscaleHistory) {
    check(defaults, history, ctx).await
}
