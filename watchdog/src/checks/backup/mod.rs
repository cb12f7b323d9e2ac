//! The backup check: how old is the newest good backup?

use serde::{Deserialize, Serialize};

use super::{Context, Finding};
use crate::settings::BackupSettings;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;

/// What this check remembers from run to run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackupHistory {}

/// One run.
pub async fn check(
    settings: &BackupSettings,
    history: BackupHistory,
    ctx: &Context,
) -> (Finding, BackupHistory) {
    let _ = (settings, ctx);
    std::future::ready(()).await;
    (
        Finding::new(
            CheckName::Backup,
            Status::Unknown,
            KnownWhy::CheckError,
            "not looked at yet",
        ),
        history,
    )
}
