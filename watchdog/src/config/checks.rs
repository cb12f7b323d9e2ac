//! `[disk]`, `[backup]`, `[tailscale]`: what the other three checks look at, and their thresholds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::gateway::optional_policy;
use super::scalar::show;
use super::section::{Item, Section};
use super::server::timeouts;
use crate::settings::{
    BackupFormat, BackupSettings, BackupSource, CheckSettings, DiskSettings, TailscaleSettings,
};

/// Mounts that are watched.
const MOUNTS: usize = 32;
/// Words of a backup command.
const ARGUMENTS: usize = 64;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// What a check has left after its command was ended: to read what it said, and to say so.
const COMMAND_MARGIN: Duration = Duration::from_secs(5);

pub(super) fn disk(
    section: Section<'_>,
    timeout: Duration,
    state_dir: &Path,
    backup: &CheckSettings<BackupSettings>,
) -> CheckSettings<DiskSettings> {
    let enabled = section.boolean("enabled", true);
    let listed = section.item("mounts").map(|i| mounts(&i));
    let also = match &listed {
        Some(_) => Vec::new(),
        None => std::iter::once(state_dir.to_owned())
            .chain(backup_place(backup))
            .collect(),
    };
    let settings = DiskSettings {
        mounts: listed.unwrap_or_else(|| vec![PathBuf::from("/")]),
        also,
        warning_free_ratio: section.ratio("warning_free_ratio", 0.10),
        warning_free_bytes: section.size("warning_free_bytes", 5 << 30),
        failing_free_ratio: section.ratio("failing_free_ratio", 0.02),
        failing_free_bytes: section.size("failing_free_bytes", 1 << 30),
        warning_full_within: section.duration("warning_full_within", DAY, Duration::ZERO..=365 * DAY),
        failing_full_within: section.duration("failing_full_within", 2 * HOUR, Duration::ZERO..=365 * DAY),
        restart: optional_policy(&section),
        timeout: section.duration("timeout", timeout, timeouts()),
    };
    let orders = [
        (
            "free_ratio",
            settings.failing_free_ratio <= settings.warning_free_ratio,
        ),
        (
            "free_bytes",
            settings.failing_free_bytes <= settings.warning_free_bytes,
        ),
        (
            "full_within",
            settings.failing_full_within <= settings.warning_full_within,
        ),
    ];
    for (what, right) in orders {
        if !right {
            section.wrong(format!(
                "failing_{what} is over warning_{what}: the warning must come first"
            ));
        }
    }
    section.finish();
    if enabled {
        CheckSettings::On(settings)
    } else {
        CheckSettings::Disabled
    }
}

fn mounts(item: &Item<'_>) -> Vec<PathBuf> {
    let entries = item.list().unwrap_or_default();
    if entries.is_empty() {
        item.wrong("must name at least one mount, such as [\"/\"]; enabled = false switches the check off");
    }
    if entries.len() > MOUNTS {
        item.wrong(format!(
            "names {} mounts; at most {MOUNTS} are watched",
            entries.len()
        ));
    }
    entries.iter().filter_map(Item::path).collect()
}

/// The directory that backups are written to.
fn backup_place(backup: &CheckSettings<BackupSettings>) -> Option<PathBuf> {
    let CheckSettings::On(backup) = backup else {
        return None;
    };
    match &backup.source {
        BackupSource::Newest { glob, .. } => {
            let fixed = glob.split(['*', '?', '[']).next().unwrap_or("/");
            let end = fixed.rfind('/').map_or(0, |slash| slash.max(1));
            Some(PathBuf::from(&fixed[..end]))
        }
        BackupSource::Stamp(path) => path.parent().map(Path::to_owned),
        BackupSource::HermesSnapshots(home) => Some(home.clone()),
        BackupSource::Command { .. } => None,
    }
}

pub(super) fn backup(section: Section<'_>, timeout: Duration) -> CheckSettings<BackupSettings> {
    let enabled = section.boolean("enabled", true);
    let command_timeout = section.duration("timeout", Duration::from_secs(60), timeouts());
    let timeout = if section.has("timeout") {
        command_timeout
    } else {
        timeout
    };
    let source = source(&section, command_timeout);
    let (warning_after, failing_after) = ages(&section);
    let restart = optional_policy(&section);
    if enabled
        && matches!(source, Source::None)
        && ["warning_after", "failing_after"].iter().any(|k| section.has(k))
    {
        section.wrong(
            "says how old a backup may be, not where one is; give newest, stamp, hermes_snapshots or command",
        );
    }
    section.finish();
    let timeout = match &source {
        Source::One(BackupSource::Command { timeout, .. }) => *timeout + COMMAND_MARGIN,
        Source::One(_) | Source::None | Source::Wrong => timeout,
    };
    match source {
        _ if !enabled => CheckSettings::Disabled,
        Source::None | Source::Wrong => CheckSettings::NotConfigured,
        Source::One(source) => CheckSettings::On(BackupSettings {
            source,
            warning_after,
            failing_after,
            restart,
            timeout,
        }),
    }
}

fn ages(section: &Section<'_>) -> (Duration, Duration) {
    let range = || Duration::from_secs(1)..=3650 * DAY;
    let warning = section.duration("warning_after", 26 * HOUR, range());
    // A warning age of its own must not end up behind a failing age that nobody chose.
    let default = if section.has("warning_after") {
        (50 * HOUR).max(2 * warning)
    } else {
        50 * HOUR
    };
    let failing = section.duration("failing_after", default, range());
    if warning >= failing {
        let key = if section.has("warning_after") {
            "warning_after"
        } else {
            "failing_after"
        };
        let text = format!(
            "the warning comes at {} and failing at {}: warning_after must be less than failing_after",
            show(warning),
            show(failing)
        );
        section.wrong_at(key, text);
    }
    (warning, failing)
}

/// What the table names.
enum Source {
    One(BackupSource),
    None,
    Wrong,
}

fn source(section: &Section<'_>, timeout: Duration) -> Source {
    let min_bytes = section.size("min_size", 1);
    let format = section.item("format").and_then(|i| i.word(&["restic", "borg"]));
    let newest = section.item("newest").map(|i| newest(&i, min_bytes));
    let stamp = section.path("stamp").map(|path| Some(BackupSource::Stamp(path)));
    let snapshots = section
        .path("hermes_snapshots")
        .map(|path| Some(BackupSource::HermesSnapshots(path)));
    let command = section.item("command").map(|item| {
        let argv = command(&item)?;
        let format = match format {
            Some("borg") => BackupFormat::Borg,
            Some(_) => BackupFormat::Restic,
            None if section.has("format") => return None,
            None => {
                section.wrong_at(
                    "format",
                    "is missing; write format = \"restic\" or format = \"borg\", as the command prints",
                );
                return None;
            }
        };
        Some(BackupSource::Command {
            argv,
            format,
            timeout,
        })
    });
    for (key, owner) in [("min_size", "newest"), ("format", "command")] {
        if section.has(key) && !section.has(owner) {
            section.wrong_at(
                key,
                format!("belongs to {owner}; write that beside it, or take this away"),
            );
        }
    }
    let keys = ["newest", "stamp", "hermes_snapshots", "command"];
    let given = keys
        .iter()
        .filter(|k| section.has(k))
        .copied()
        .collect::<Vec<_>>();
    match given[..] {
        [] => Source::None,
        [_] => {
            let found = newest.or(stamp).or(snapshots).or(command).flatten();
            found.map_or(Source::Wrong, Source::One)
        }
        [_, second, ..] => {
            section.wrong_at(
                second,
                format!(
                    "is one of {} given together; give exactly one",
                    given.join(" and ")
                ),
            );
            Source::Wrong
        }
    }
}

fn newest(item: &Item<'_>, min_bytes: u64) -> Option<BackupSource> {
    let text = item.text()?;
    if !text.starts_with('/') {
        item.wrong("must be an absolute path, starting with \"/\" (\"~\" is not expanded)");
        return None;
    }
    if let Err(err) = glob::Pattern::new(text) {
        item.wrong(format!(
            "is no pattern ({err}); use *, ? and […], such as \"/var/backups/*.zip\""
        ));
        return None;
    }
    Some(BackupSource::Newest {
        glob: text.to_owned(),
        min_bytes,
    })
}

fn command(item: &Item<'_>) -> Option<Vec<String>> {
    if item.value.get_ref().is_str() {
        item.wrong(
            "must be a list of words, such as [\"restic\", \"snapshots\", \"--json\"]: no shell reads it",
        );
        return None;
    }
    let entries = item.list()?;
    if entries.is_empty() || entries.len() > ARGUMENTS {
        item.wrong(format!(
            "must have 1 to {ARGUMENTS} words: the program, then its arguments"
        ));
        return None;
    }
    let argv: Vec<String> = entries.iter().filter_map(Item::text).map(str::to_owned).collect();
    (argv.len() == entries.len()).then_some(argv)
}

pub(super) fn tailscale(section: Section<'_>, timeout: Duration) -> CheckSettings<TailscaleSettings> {
    let enabled = section.boolean("enabled", true);
    let there = section.is_there();
    let default = TailscaleSettings::with_defaults(timeout);
    let settings = TailscaleSettings {
        socket: section.path("socket").unwrap_or(default.socket),
        key_warning: section.duration("key_warning", default.key_warning, Duration::ZERO..=365 * DAY),
        key_failing: section.duration("key_failing", default.key_failing, Duration::ZERO..=365 * DAY),
        restart: optional_policy(&section),
        timeout: section.duration("timeout", timeout, timeouts()),
    };
    if settings.key_failing > settings.key_warning {
        section.wrong("key_failing is longer than key_warning: the warning must come first");
    }
    section.finish();
    match (enabled, there) {
        (false, _) => CheckSettings::Disabled,
        (true, true) => CheckSettings::On(settings),
        (true, false) => CheckSettings::NotConfigured,
    }
}
