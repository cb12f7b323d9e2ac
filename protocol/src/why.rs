//! The closed enum of reasons: why a check has its status, why a remedy was done or held back.
//!
//! The same word stands in the log, the metric label, the API and the page. Words are only ever added. A word that
//! this version does not know (the other side is newer) is kept as [`Why::Other`].

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::Word;
use crate::words::words;

words! {
    /// Every reason that this version gives.
    pub enum KnownWhy {
        // Any check.
        /// As it should be.
        Fine = "fine",
        /// Nothing in the configuration says what to look at.
        NotConfigured = "not_configured",
        /// The configuration says that this box has none.
        Disabled = "disabled",
        /// The check did not end within its own time-out.
        CheckTimedOut = "check_timed_out",
        /// The check itself went wrong (permission, parse, I/O); the summary says how.
        CheckError = "check_error",

        // Gateway: the unit.
        /// No such unit is loaded on this box.
        UnitNotFound = "unit_not_found",
        /// Masked by an operator.
        UnitMasked = "unit_masked",
        /// Not running, and never started in this boot.
        NeverStarted = "never_started",
        /// Stopped by an operator (a stop job was seen, or inferred).
        OperatorStopped = "operator_stopped",
        /// Not running although nobody stopped it.
        Inactive = "inactive",
        /// In systemd's `failed` state.
        UnitFailed = "unit_failed",
        /// Restarts again and again without staying up.
        CrashLoop = "crash_loop",
        /// Crashed, and systemd will start it again by itself: not yet a loop.
        AutoRestart = "auto_restart",
        /// Disabled by an operator, and not started in this boot.
        UnitDisabled = "unit_disabled",
        /// There is such a unit, but systemd cannot read it.
        UnitBroken = "unit_broken",
        /// Starting or stopping, within the unit's own time-outs.
        InTransition = "in_transition",
        /// Starting or stopping for longer than its own time-outs allow.
        TransitionStuck = "transition_stuck",
        /// Just (re)started: within its start-up grace.
        StartupGrace = "startup_grace",
        /// Ended with a status that says "fatal configuration": a restart cannot help.
        FatalConfig = "fatal_config",
        /// A process of the unit is stopped (SIGSTOP, a debugger).
        ProcessStopped = "process_stopped",
        /// The service manager did not answer.
        ManagerUnreachable = "manager_unreachable",

        // Gateway: the probes beyond the unit.
        /// Active, but the probe had no answer in time.
        ProbeTimedOut = "probe_timed_out",
        /// Active, but the connection was refused.
        ProbeRefused = "probe_refused",
        /// Active, but the answer was not the wanted one.
        ProbeBadAnswer = "probe_bad_answer",
        /// Active, but the watched file is not there.
        ProbeFileMissing = "probe_file_missing",
        /// Active, but the watched file is older than allowed.
        ProbeFileStale = "probe_file_stale",
        /// Active, but its event loop does not turn (heartbeat stale and loop-tick socket mute).
        LoopHung = "loop_hung",
        /// Its scheduler does not tick.
        CronStalled = "cron_stalled",
        /// It says of itself that it is degraded, or a platform of it is fatal.
        Degraded = "degraded",

        // Disk.
        /// A listed mount is not mounted.
        NotMounted = "not_mounted",
        /// Mounted read-only by its super options.
        ReadOnly = "read_only",
        /// Too few bytes left.
        BytesLow = "bytes_low",
        /// Too few inodes left.
        InodesLow = "inodes_low",
        /// Will be full within hours at the measured rate.
        FillingUp = "filling_up",
        /// Tasks wait for the disk too long (PSI io).
        IoPressure = "io_pressure",

        // Backup.
        /// No backup was found at all.
        NoBackup = "no_backup",
        /// The newest backup is too old.
        BackupStale = "backup_stale",
        /// The newest backup is smaller than the wanted minimum.
        BackupTooSmall = "backup_too_small",
        /// The newest backup is dated in the future.
        BackupInFuture = "backup_in_future",
        /// The backup itself says that parts of it failed.
        BackupIncomplete = "backup_incomplete",
        /// The backup command failed or its answer could not be read.
        BackupCommandFailed = "backup_command_failed",

        // Tailscale.
        /// No tailscaled on this box.
        NotInstalled = "not_installed",
        /// The daemon is down.
        DaemonDown = "daemon_down",
        /// The daemon does not answer.
        DaemonHung = "daemon_hung",
        /// Logged out, or never logged in.
        LoggedOut = "logged_out",
        /// The node's key has expired.
        KeyExpired = "key_expired",
        /// The node's key expires soon.
        KeyExpiring = "key_expiring",
        /// The node waits for an administrator's approval.
        NeedsApproval = "needs_approval",
        /// Switched off by `tailscale down`.
        SwitchedOff = "switched_off",
        /// Still starting.
        Starting = "starting",
        /// The control plane cannot be reached.
        ControlUnreachable = "control_unreachable",
        /// tailscaled says that the network is down.
        NetworkDown = "network_down",
        /// No relay can be reached.
        RelayUnreachable = "relay_unreachable",
        /// tailscaled gives a health warning of another kind.
        HealthWarning = "health_warning",

        // Remedies.
        /// Failing for the wanted number of runs in a row: restarted.
        FailingInARow = "failing_in_a_row",
        /// Failing, but for fewer runs in a row than wanted.
        TooFewRuns = "too_few_runs",
        /// Remedies are paused by an operator.
        Paused = "paused",
        /// The spacing between two restarts has not passed.
        Spacing = "spacing",
        /// The restarts of this window are used up.
        RestartsUsedUp = "restarts_used_up",
        /// A restart asked for earlier is still under way.
        RestartUnderWay = "restart_under_way",
        /// The restart was refused (polkit, permissions).
        NotPermitted = "not_permitted",
        /// The restart job failed.
        JobFailed = "job_failed",
        /// The job ended well, but the unit was not healthy afterwards.
        NotHealthyAfter = "not_healthy_after",
        /// The watchdog cannot write its state, so it could not count its restarts.
        StateUnwritable = "state_unwritable",
        /// The run was asked not to act.
        NoAct = "no_act",
        /// Hermes is being updated.
        FenceUpdate = "fence_update",
        /// Hermes has an interrupted dependency install.
        FenceUpdateIncomplete = "fence_update_incomplete",
        /// Hermes owes itself a restart.
        FenceRestartPending = "fence_restart_pending",
        /// Hermes announced a planned stop.
        FencePlannedStop = "fence_planned_stop",
        /// Another Hermes takes over.
        FenceTakeover = "fence_takeover",
        /// Hermes drains.
        FenceDrain = "fence_drain",
        /// Hermes makes a backup.
        FenceBackup = "fence_backup",
    }
}

/// A reason: one of [`KnownWhy`], or a word from a newer peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Why {
    /// One that this version knows.
    Known(KnownWhy),
    /// One that it does not.
    Other(Word),
}

impl Why {
    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Known(why) => why.as_str(),
            Self::Other(word) => word.as_str(),
        }
    }
}

impl From<KnownWhy> for Why {
    fn from(why: KnownWhy) -> Self {
        Self::Known(why)
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq<KnownWhy> for Why {
    fn eq(&self, other: &KnownWhy) -> bool {
        matches!(self, Self::Known(why) if why == other)
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Why {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(d)?;
        match text.parse::<KnownWhy>() {
            Ok(why) => Ok(Self::Known(why)),
            Err(_) => Word::new(text).map(Self::Other).map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_word_is_kept() {
        let why: Why = serde_json::from_str("\"brand_new\"").unwrap();
        assert_eq!(serde_json::to_string(&why).unwrap(), "\"brand_new\"");
        assert!(serde_json::from_str::<Why>("\"Not a word\"").is_err());
    }

    #[test]
    fn every_word_is_a_word() {
        for why in KnownWhy::ALL {
            assert!(Word::new(why.as_str()).is_ok(), "{why}");
        }
    }
}
