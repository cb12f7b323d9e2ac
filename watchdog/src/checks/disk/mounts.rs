//! Which mount a path lies on, and what the kernel says of it: `/proc/self/mountinfo` (proc(5)), and what `/etc/fstab`
//! would have there. Pure: texts in, answers out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Mount id.
    pub id: u64,
    /// The id of the mount that it stands on.
    pub parent: u64,
    /// `major:minor`: the same for every mount of one file system (also for btrfs, whose `st_dev` differs by subvolume).
    pub device: String,
    /// What of the file system is mounted: `/`, or a directory for a bind mount.
    pub within: PathBuf,
    /// Where it is mounted.
    pub point: PathBuf,
    /// `ext4`, `nfs4`, …
    pub fs_type: String,
    /// Super options: the file system's own. Only these tell whether it is read-only; the mount's options say `ro` of
    /// a healthy `/` inside a sandboxed unit.
    pub super_options: Vec<String>,
}

/// File systems that cannot be written by nature: neither read-only nor full is news.
const READ_ONLY_BY_NATURE: [&str; 5] = ["squashfs", "erofs", "iso9660", "cramfs", "romfs"];

impl Mount {
    /// Whether the file system itself is read-only, or has stopped taking writes after an error (ext4's `emergency_ro`
    /// and `shutdown`, which leave the word `rw` in place).
    pub fn is_read_only(&self) -> bool {
        self.super_options
            .iter()
            .any(|o| matches!(o.as_str(), "ro" | "emergency_ro" | "shutdown"))
    }

    /// Whether read-only and full are its nature.
    pub fn is_image(&self) -> bool {
        READ_ONLY_BY_NATURE.contains(&self.fs_type.as_str())
    }

    /// Whether it is the empty directory that systemd puts over a path which a unit may not see.
    pub fn is_hidden_by_sandbox(&self) -> bool {
        self.within.starts_with("/systemd/inaccessible")
    }
}

/// Every well-formed line; others are skipped (a newer kernel may add fields, never take them).
pub fn parse_mountinfo(text: &[u8]) -> Vec<Mount> {
    text.split(|&b| b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    // Optional fields stand between the sixth field and a lone hyphen.
    let hyphen = 6 + fields.get(6..)?.iter().position(|f| *f == b"-")?;
    let text = |n: usize| fields.get(n).map(|f| String::from_utf8_lossy(f).into_owned());
    Some(Mount {
        id: text(0)?.parse().ok()?,
        parent: text(1)?.parse().ok()?,
        device: text(2)?,
        within: unescape(fields.get(3)?),
        point: unescape(fields.get(4)?),
        fs_type: text(hyphen + 1)?,
        super_options: text(hyphen + 3)?.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes `\040` and its like, in which the kernel (and fstab) write blanks, tabs, newlines and backslashes.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|d| first == b'\\' && d.iter().all(|b| (b'0'..=b'7').contains(b)));
        if let Some(code) = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok()) {
            bytes.push(code);
            rest = &tail[3..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    OsString::from_vec(bytes).into()
}

/// The mount that `path` (absolute, without symlinks) lies on, found as the kernel finds it: from the root mount down,
/// at each step into what is mounted there, the topmost last. So a mount that hides another one wins.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let root = mounts
        .iter()
        .find(|m| m.point == Path::new("/") && !mounts.iter().any(|p| p.id == m.parent && p.id != m.id));
    let Some(root) = root else {
        // A root whose parent is shown too: rare (a chroot on a mount point); the last of the longest matches is right.
        return mounts
            .iter()
            .filter(|m| path.starts_with(&m.point))
            .max_by_key(|m| m.point.components().count());
    };
    let mut here = root;
    let mut steps: Vec<&Path> = path.ancestors().collect();
    steps.reverse();
    for step in steps {
        // Bounded by the number of mounts, whatever the ids say.
        for _ in 0..mounts.len() {
            match mounts
                .iter()
                .rev()
                .find(|m| m.parent == here.id && m.id != here.id && m.point == step)
            {
                Some(above) => here = above,
                None => break,
            }
        }
    }
    Some(here)
}

/// What fstab wants mounted at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub point: PathBuf,
    /// Whether read-only is what is wanted.
    pub read_only: bool,
}

/// The mounts of an fstab(5), without those that are not mounted at start (`noauto`) and swap.
pub fn parse_fstab(text: &[u8]) -> Vec<Wanted> {
    let lines = text.split(|&b| b == b'\n');
    lines
        .filter_map(|line| {
            let mut fields = line.split(|b| b" \t".contains(b)).filter(|f| !f.is_empty());
            let source = fields.next().filter(|f| f.first() != Some(&b'#'));
            let (_, point, _, options) = (
                source?,
                unescape(fields.next()?),
                fields.next()?,
                fields.next().unwrap_or(b""),
            );
            let options = String::from_utf8_lossy(options);
            let has = |wanted: &str| options.split(',').any(|o| o == wanted);
            (point.is_absolute() && !has("noauto")).then(|| Wanted {
                point,
                read_only: has("ro"),
            })
        })
        .collect()
}

/// The entry of `fstab` that `path` should lie on.
pub fn wanted_for<'a>(fstab: &'a [Wanted], path: &Path) -> Option<&'a Wanted> {
    fstab
        .iter()
        .filter(|w| path.starts_with(&w.point))
        .max_by_key(|w| w.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
22 1 8:1 / / ro,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
23 22 0:21 / /proc rw,nosuid shared:2 - proc proc rw
24 22 8:2 / /data rw,relatime shared:3 - ext4 /dev/sdb1 ro,emergency
25 22 0:40 / /my\\040disk\\134x rw - tmpfs tmpfs rw,size=10240k
26 24 0:41 / /data/deep rw master:1 propagate_from:2 - xfs /dev/sdc1 rw
27 22 0:42 / /over rw - tmpfs low rw
28 27 0:43 / /over rw - tmpfs high rw
29 22 0:44 / /gone/sub rw - tmpfs hidden rw
30 22 0:45 / /gone rw - tmpfs cover rw
31 22 0:46 /systemd/inaccessible/dir /root ro - tmpfs tmpfs ro
short line
";

    fn device_of(path: &str) -> String {
        holding(&parse_mountinfo(MOUNTINFO), Path::new(path))
            .unwrap()
            .device
            .clone()
    }

    #[test]
    fn a_path_lies_on_its_nearest_mount() {
        assert_eq!(device_of("/"), "8:1");
        assert_eq!(device_of("/var/lib"), "8:1");
        assert_eq!(device_of("/data"), "8:2");
        assert_eq!(device_of("/database"), "8:1", "a name that only begins alike");
        assert_eq!(device_of("/data/deep/down"), "0:41");
        assert_eq!(device_of("/my disk\\x/file"), "0:40", "escaped characters");
    }

    #[test]
    fn what_hides_another_mount_wins() {
        assert_eq!(device_of("/over"), "0:43", "stacked on the same point");
        assert_eq!(device_of("/gone/sub"), "0:45", "below a later mount");
    }

    #[test]
    fn only_the_super_options_say_read_only() {
        let mounts = parse_mountinfo(MOUNTINFO);
        assert_eq!(mounts.len(), 10);
        assert!(
            !holding(&mounts, Path::new("/")).unwrap().is_read_only(),
            "a sandboxed unit's view of a healthy /"
        );
        assert!(holding(&mounts, Path::new("/data")).unwrap().is_read_only());
        assert!(
            holding(&mounts, Path::new("/root"))
                .unwrap()
                .is_hidden_by_sandbox()
        );
        let stopped = parse_mountinfo(b"1 0 8:1 / / rw - ext4 /dev/sda1 rw,emergency_ro\n");
        assert!(stopped[0].is_read_only(), "ext4 after an error");
    }

    #[test]
    fn odd_ids_neither_loop_nor_panic() {
        let own_parent = parse_mountinfo(b"1 1 8:1 / / rw - ext4 a rw\n2 1 8:2 / /x rw - ext4 b rw\n");
        assert_eq!(holding(&own_parent, Path::new("/x/y")).unwrap().device, "8:2");
        let circle = parse_mountinfo(b"1 2 8:1 / / rw - ext4 a rw\n2 1 8:2 / / rw - ext4 b rw\n");
        assert!(holding(&circle, Path::new("/x")).is_some());
        assert_eq!(holding(&[], Path::new("/")), None);
    }

    #[test]
    fn fstab_says_what_should_be_there() {
        let fstab = parse_fstab(
            b"# comment\nUUID=1 / ext4 defaults 0 1\n\n/dev/sdb1\t/data  ext4\tnofail,ro 0 2\n\
              /dev/sdc1 /usb ext4 noauto 0 0\nserver:/x /my\\040nfs nfs _netdev\n/swap none swap sw 0 0\n",
        );
        let at = |path: &str| {
            wanted_for(&fstab, Path::new(path)).map(|w| (w.point.to_str().unwrap(), w.read_only))
        };
        assert_eq!(at("/data/x"), Some(("/data", true)));
        assert_eq!(at("/my nfs"), Some(("/my nfs", false)));
        assert_eq!(at("/usb"), Some(("/", false)), "noauto is not wanted at start");
        assert_eq!(fstab.len(), 3);
    }
}
