//! The main process as `/proc` shows it.
//!
//! It reads `stat` and `cgroup` only: both answer at once even when the process hangs, which `cmdline` and `maps` don't.

use std::path::Path;

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// `R`, `S`, `D`, `T` (stopped), `t` (held by a debugger), `Z`, …
    pub state: char,
    /// Field 22: when it started, in clock ticks since boot. With the pid it names one process for good.
    pub start_ticks: u64,
}

/// Process `pid`; none: there is none, or it is hidden from this user.
pub fn read(root: &Path, pid: u32) -> Option<Process> {
    let text = std::fs::read_to_string(root.join(format!("proc/{pid}/stat"))).ok()?;
    parse(&text)
}

/// Whether `pid` is a process of the unit with `control_group` (as systemd writes it, `/system.slice/x.service`).
pub fn in_control_group(root: &Path, pid: u32, control_group: &str) -> bool {
    let of_process = std::fs::read_to_string(root.join(format!("proc/{pid}/cgroup"))).unwrap_or_default();
    !control_group.is_empty()
        && of_process
            .lines()
            .filter_map(|line| line.splitn(3, ':').nth(2))
            .any(|path| path == control_group || path.starts_with(&format!("{control_group}/")))
}

/// Whether there is a process `pid`.
pub fn alive(root: &Path, pid: u32) -> bool {
    pid != 0 && root.join(format!("proc/{pid}")).exists()
}

/// The name may hold spaces and parentheses: what counts is behind the last one.
fn parse(stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some(Process {
        state: fields.next()?.chars().next()?,
        start_ticks: fields.nth(18)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_mislead() {
        let stat = "42 (a) R (b) T 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 0 0";
        assert_eq!(
            parse(stat),
            Some(Process {
                state: 'T',
                start_ticks: 98765
            })
        );
        assert_eq!(parse("42 (x) S 1"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_is_alive_and_in_its_group() {
        let root = Path::new("/");
        let own = std::process::id();
        assert!(alive(root, own) && !alive(root, 0));
        assert!(matches!(read(root, own).unwrap().state, 'R' | 'S'));
        assert!(!in_control_group(root, own, ""));
        assert!(!in_control_group(root, own, "/no/such.service"));
    }
}
