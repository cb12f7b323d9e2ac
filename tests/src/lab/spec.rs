//! What a test wants of a box before it boots.

use std::path::PathBuf;

/// A box to be booted. Start from [`BoxSpec::new`] and add.
#[derive(Debug, Clone, Default)]
pub struct BoxSpec {
    pub(crate) hostname: String,
    pub(crate) last_octet: Option<u8>,
    pub(crate) files: Vec<File>,
    pub(crate) links: Vec<(String, String)>,
    pub(crate) users: Vec<(String, u32)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) nspawn_args: Vec<String>,
    pub(crate) watchdog: Option<WatchdogSetup>,
}

/// A file put into the box's disk.
#[derive(Debug, Clone)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) mode: u32,
    pub(crate) owner: String,
    pub(crate) content: Vec<u8>,
}

/// A directory of this machine shown in the box.
#[derive(Debug, Clone)]
pub(crate) enum Mount {
    /// As it is, not writable.
    ReadOnly { from: PathBuf, at: String },
    /// As it is, and what the box writes is there on the machine.
    Shared { from: PathBuf, at: String },
    /// The box may write; what it writes stays with the box, over its boots.
    Overlay { from: PathBuf, at: String },
}

/// The watchdog as an operator would install it.
#[derive(Debug, Clone, Default)]
pub struct WatchdogSetup {
    /// Text of /etc/fleet-watchdog/config.toml.
    pub config: String,
    /// The box's token, as `fleetctl box add` printed it.
    pub token: Option<String>,
    /// Drop-ins: unit name and text, such as a shorter timer.
    pub drop_ins: Vec<(String, String)>,
}

impl WatchdogSetup {
    /// With this config and token, and the units as they are shipped.
    pub fn new(config: impl Into<String>, token: impl Into<String>) -> Self {
        Self {
            config: config.into(),
            token: Some(token.into()),
            drop_ins: Vec::new(),
        }
    }

    /// Adds a drop-in for `unit` (`fleet-watchdog.timer`), as `systemctl edit` would.
    #[must_use]
    pub fn drop_in(mut self, unit: &str, text: &str) -> Self {
        self.drop_ins.push((unit.to_owned(), text.to_owned()));
        self
    }

    /// The check runs `every_secs` instead of every two minutes, through a drop-in as an operator would write it.
    #[must_use]
    pub fn check_every(self, every_secs: u32) -> Self {
        let text = format!(
            "[Timer]\nOnBootSec=\nOnUnitActiveSec=\nOnUnitInactiveSec=\nOnActiveSec=1s\nOnUnitActiveSec={every_secs}s\n\
             AccuracySec=100ms\nRandomizedDelaySec=0\n"
        );
        self.drop_in("fleet-watchdog.timer", &text)
    }
}

impl BoxSpec {
    /// A bare box of this host name (letters, digits, dashes): systemd, D-Bus, polkit, logind, networkd, journald.
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            ..Self::default()
        }
    }

    /// The address 10.99.0.`last_octet`; otherwise the next free one from 11.
    #[must_use]
    pub fn address(mut self, last_octet: u8) -> Self {
        self.last_octet = Some(last_octet);
        self
    }

    /// A file; `owner` as chown takes it.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, owner: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref().to_vec();
        self.files.push(File {
            path: path.to_owned(),
            mode,
            owner: owner.to_owned(),
            content,
        });
        self
    }

    /// A unit in /etc/systemd/system that starts at boot.
    #[must_use]
    pub fn unit(mut self, name: &str, text: &str) -> Self {
        self = self.unit_off(name, text);
        let target = if name.rsplit_once('.').is_some_and(|(_, suffix)| suffix == "timer") {
            "timers.target"
        } else {
            "multi-user.target"
        };
        self.links.push((
            format!("/etc/systemd/system/{target}.wants/{name}"),
            format!("../{name}"),
        ));
        self
    }

    /// A unit in /etc/systemd/system that does not start by itself.
    #[must_use]
    pub fn unit_off(self, name: &str, text: &str) -> Self {
        self.file(&format!("/etc/systemd/system/{name}"), 0o644, "root", text)
    }

    /// A user with a home, made before the files are written.
    #[must_use]
    pub fn user(mut self, name: &str, uid: u32) -> Self {
        self.users.push((name.to_owned(), uid));
        self
    }

    /// A directory of this machine, not writable in the box.
    #[must_use]
    pub fn read_only(mut self, from: impl Into<PathBuf>, at: &str) -> Self {
        self.mounts.push(Mount::ReadOnly {
            from: from.into(),
            at: at.to_owned(),
        });
        self
    }

    /// A directory of this machine, shared for writing.
    #[must_use]
    pub fn shared(mut self, from: impl Into<PathBuf>, at: &str) -> Self {
        self.mounts.push(Mount::Shared {
            from: from.into(),
            at: at.to_owned(),
        });
        self
    }

    /// A directory of this machine that the box may change for itself alone.
    #[must_use]
    pub fn overlay(mut self, from: impl Into<PathBuf>, at: &str) -> Self {
        self.mounts.push(Mount::Overlay {
            from: from.into(),
            at: at.to_owned(),
        });
        self
    }

    /// One more argument to systemd-nspawn, such as `--bind=/dev/net/tun`.
    #[must_use]
    pub fn nspawn(mut self, arg: &str) -> Self {
        self.nspawn_args.push(arg.to_owned());
        self
    }

    /// The watchdog, installed and enabled before the first boot.
    #[must_use]
    pub fn watchdog(mut self, setup: WatchdogSetup) -> Self {
        self.watchdog = Some(setup);
        self
    }
}
