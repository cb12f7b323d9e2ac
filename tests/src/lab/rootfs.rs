//! A box's disk: an overlay over this machine's root that keeps its packages and hides everything else.
//!
//! What the machine's owner installed, enabled, configured or wrote must neither run nor show in a box: system
//! configuration of units, homes, logs, local programs and unknown top-level directories are made empty.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::XattrFlags;

use crate::exec;

/// Top-level directories that come from packages, and those that a booted system mounts over.
const FROM_PACKAGES: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "var"];
const MOUNTED_OVER: [&str; 4] = ["proc", "sys", "dev", "run"];

/// Emptied inside what comes from packages: the owner's choices and traces.
const EMPTIED: [&str; 29] = [
    "usr/local",
    "etc/systemd",
    "etc/polkit-1/rules.d",
    "etc/sysctl.d",
    "etc/modules-load.d",
    "etc/tmpfiles.d",
    "etc/sysusers.d",
    "etc/netplan",
    "etc/NetworkManager",
    "etc/network",
    "etc/udev/rules.d",
    "etc/rc0.d",
    "etc/rc1.d",
    "etc/rc2.d",
    "etc/rc3.d",
    "etc/rc4.d",
    "etc/rc5.d",
    "etc/rc6.d",
    "etc/rcS.d",
    "etc/init.d",
    "etc/fleet-watchdog",
    "etc/fleet-server",
    "var/log",
    "var/tmp",
    "var/cache",
    "var/spool",
    "var/lib/systemd",
    "var/lib/fleet-watchdog",
    "var/lib/docker",
];

/// Units that need real hardware, a console or the outside world.
const MASKED: [&str; 16] = [
    "getty.target",
    "console-getty.service",
    "systemd-timesyncd.service",
    "systemd-pstore.service",
    "systemd-resolved.service",
    "systemd-sysctl.service",
    "systemd-modules-load.service",
    "systemd-firstboot.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-hwdb-update.service",
    "remote-fs.target",
    "tmp.mount",
    "cloud-init.target",
];

/// Where one box's disk lies on the harness's side.
#[derive(Debug, Clone)]
pub struct RootFs {
    dir: PathBuf,
}

impl RootFs {
    /// A new disk in `dir` (on a tmpfs), mounted, configured for a host of this name and address.
    pub fn create(dir: PathBuf, hostname: &str, address: &str) -> Result<Self> {
        let root = Self { dir };
        for part in ["up", "work", "root"] {
            fs::create_dir_all(root.dir.join(part))?;
        }
        fs::set_permissions(root.upper(), Permissions::from_mode(0o755))?;
        root.empty_what_is_not_from_packages()?;
        root.mount()?;
        root.configure_base()?;
        root.configure_host(hostname, address)?;
        Ok(root)
    }

    /// A copy of `other`'s disk as it is now, for a host of another name and address: same machine-id, same tokens.
    pub fn copy_of(other: &Self, dir: PathBuf, hostname: &str, address: &str) -> Result<Self> {
        let root = Self { dir };
        for part in ["work", "root"] {
            fs::create_dir_all(root.dir.join(part))?;
        }
        let (from, to) = (other.upper(), root.upper());
        exec::ok(
            "cp",
            &["-a", "--", &from.to_string_lossy(), &to.to_string_lossy()],
        )?;
        root.mount()?;
        root.configure_host(hostname, address)?;
        Ok(root)
    }

    /// The mounted tree.
    pub fn path(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A path inside the box, as seen from the harness. Paths under /run and /tmp of a running box are not here.
    pub fn inside(&self, path: &str) -> PathBuf {
        self.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file and its parent directories; `owner` as chown takes it, resolved by the box's own users.
    pub fn write(&self, path: &str, mode: u32, owner: &str, content: &[u8]) -> Result<()> {
        let file = self.inside(path);
        fs::create_dir_all(file.parent().context("a path inside the box starts with /")?)?;
        // A link (such as a masked unit) would be followed, and may lead out of the box.
        if fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_symlink()) {
            fs::remove_file(&file)?;
        }
        fs::write(&file, content).with_context(|| format!("cannot write {path} in the box"))?;
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
        if owner != "root:root" && owner != "root" {
            exec::ok(
                "chroot",
                &[&self.path().to_string_lossy(), "chown", "-h", owner, path],
            )?;
        }
        Ok(())
    }

    /// Links `path` to `target`, replacing what is there.
    pub fn link(&self, path: &str, target: &str) -> Result<()> {
        let link = self.inside(path);
        fs::create_dir_all(link.parent().context("a path inside the box starts with /")?)?;
        if fs::symlink_metadata(&link).is_ok() {
            fs::remove_file(&link)?;
        }
        Ok(symlink(target, &link)?)
    }

    /// A user with a home of its own and no password; replaces one of the same name or number.
    pub fn add_user(&self, name: &str, uid: u32) -> Result<()> {
        self.rewrite(
            "/etc/passwd",
            name,
            uid,
            &format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/bash"),
        )?;
        self.rewrite("/etc/group", name, uid, &format!("{name}:x:{uid}:"))?;
        self.rewrite("/etc/shadow", name, uid, &format!("{name}:!:19000::::::"))?;
        let home = self.inside(&format!("/home/{name}"));
        fs::create_dir_all(&home)?;
        fs::set_permissions(&home, Permissions::from_mode(0o700))?;
        chown(&home, Some(uid), Some(uid))?;
        Ok(())
    }

    fn rewrite(&self, path: &str, name: &str, id: u32, line: &str) -> Result<()> {
        let file = self.inside(path);
        let old = fs::read_to_string(&file)?;
        let id = id.to_string();
        let other = |l: &&str| {
            let mut fields = l.split(':');
            fields.next() != Some(name) && (path == "/etc/shadow" || fields.nth(1) != Some(&id))
        };
        let mut text = old.lines().filter(other).collect::<Vec<_>>().join("\n");
        text.push('\n');
        text.push_str(line);
        text.push('\n');
        Ok(fs::write(&file, text)?)
    }

    fn upper(&self) -> PathBuf {
        self.dir.join("up")
    }

    fn mount(&self) -> Result<()> {
        let options = format!(
            "lowerdir=/,upperdir={},workdir={}",
            self.upper().display(),
            self.dir.join("work").display()
        );
        let at = self.path();
        exec::ok(
            "mount",
            &["-t", "overlay", "overlay", "-o", &options, &at.to_string_lossy()],
        )?;
        if !self.inside("/usr/bin/env").exists() {
            bail!(
                "/usr is a file system of its own on this machine; the test boxes need it on the root file system"
            );
        }
        Ok(())
    }

    fn empty_what_is_not_from_packages(&self) -> Result<()> {
        for entry in fs::read_dir("/")?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let keep = name == "etc" || FROM_PACKAGES.contains(&&*name) || MOUNTED_OVER.contains(&&*name);
            if !keep && entry.file_type()?.is_dir() {
                self.empty(&name)?;
            }
        }
        for path in EMPTIED {
            self.empty(path)?;
        }
        Ok(())
    }

    /// Makes the directory empty for the box, whatever lies below it on this machine (an opaque one, to overlayfs).
    fn empty(&self, path: &str) -> Result<()> {
        if !Path::new("/").join(path).is_dir() {
            return Ok(());
        }
        let (mut at, mut real) = (self.upper(), PathBuf::from("/"));
        for part in Path::new(path) {
            at.push(part);
            real.push(part);
            if !at.exists() {
                let meta = fs::metadata(&real)?;
                DirBuilder::new().mode(0o700).create(&at)?;
                chown(&at, Some(meta.uid()), Some(meta.gid()))?;
                fs::set_permissions(&at, Permissions::from_mode(meta.mode() & 0o7777))?;
            }
        }
        rustix::fs::setxattr(&at, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .with_context(|| format!("cannot mark {} opaque", at.display()))
    }

    fn configure_base(&self) -> Result<()> {
        let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?
            .trim()
            .replace('-', "");
        self.write("/etc/machine-id", 0o444, "root", format!("{id}\n").as_bytes())?;
        for (path, text) in [
            ("/etc/fstab", ""),
            ("/etc/resolv.conf", ""),
            ("/etc/crypttab", ""),
        ] {
            self.write(path, 0o644, "root", text.as_bytes())?;
        }
        for dir in [
            "/usr/local/bin",
            "/usr/local/sbin",
            "/var/log/journal",
            "/var/lib/systemd/linger",
        ] {
            fs::create_dir_all(self.inside(dir))?;
        }
        for unit in MASKED {
            self.link(&format!("/etc/systemd/system/{unit}"), "/dev/null")?;
        }
        self.link(
            "/etc/systemd/system/default.target",
            "/lib/systemd/system/multi-user.target",
        )?;
        self.enable(
            "multi-user.target",
            "/lib/systemd/system/systemd-networkd.service",
        )?;
        self.enable(
            "network-online.target",
            "/lib/systemd/system/systemd-networkd-wait-online.service",
        )?;
        // The default holds lines back before they reach the disk, and a power cut would take them along.
        self.write(
            "/etc/systemd/journald.conf",
            0o644,
            "root",
            b"[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
        )
    }

    fn configure_host(&self, hostname: &str, address: &str) -> Result<()> {
        self.write("/etc/hostname", 0o644, "root", format!("{hostname}\n").as_bytes())?;
        self.write(
            "/etc/hosts",
            0o644,
            "root",
            format!("127.0.0.1 localhost {hostname}\n").as_bytes(),
        )?;
        let network = format!(
            "[Match]\nName=host0\n[Network]\nAddress={address}/24\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n"
        );
        self.write(
            "/etc/systemd/network/10-host0.network",
            0o644,
            "root",
            network.as_bytes(),
        )
    }

    /// Has `target` want the unit in the file `unit`.
    pub fn enable(&self, target: &str, unit: &str) -> Result<()> {
        let name = Path::new(unit)
            .file_name()
            .context("a unit file has a name")?
            .to_string_lossy();
        self.link(&format!("/etc/systemd/system/{target}.wants/{name}"), unit)
    }
}
