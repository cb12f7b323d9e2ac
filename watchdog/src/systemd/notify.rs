//! sd_notify by hand: READY, STATUS, WATCHDOG and STOPPING as datagrams to `$NOTIFY_SOCKET`.
//!
//! It never blocks and never fails the caller: a service manager that does not listen changes nothing for a beat.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Bytes of a STATUS line.
const STATUS_BYTES: usize = 256;

/// Tells the service manager how this process is.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    status: String,
}

impl Notifier {
    /// As this process's environment says; without `NOTIFY_SOCKET` nothing is told to anybody.
    pub fn from_env() -> Self {
        let var = |name| std::env::var_os(name);
        let pid = var("WATCHDOG_PID").and_then(|pid| pid.to_str()?.parse::<u32>().ok());
        let for_us = pid.is_none_or(|pid| pid == std::process::id());
        let usec = var("WATCHDOG_USEC").and_then(|usec| usec.to_str()?.parse().ok());
        Self::new(
            var("NOTIFY_SOCKET").as_deref(),
            usec.filter(|_| for_us).map(Duration::from_micros),
        )
    }

    fn new(path: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let address = path.and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
            [b'/', ..] => SocketAddr::from_pathname(path).ok(),
            _ => None,
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        Self {
            watchdog: watchdog.filter(|limit| socket.is_some() && !limit.is_zero()),
            socket,
            status: String::new(),
        }
    }

    /// How often [`Notifier::alive`] is due: half of `WatchdogSec`. None: nobody watches.
    pub fn watchdog_every(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// Started.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The loop turns.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// Stopping.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// A line for `systemctl status`; sent only when it changed.
    pub fn status(&mut self, text: &str) {
        if self.status == text {
            return;
        }
        text.clone_into(&mut self.status);
        let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
        let line: String = line.take(STATUS_BYTES).collect();
        self.send(&format!("STATUS={line}"));
    }

    fn send(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(socket: &UnixDatagram) -> String {
        socket.set_nonblocking(true).unwrap();
        let mut buffer = [0; 512];
        let n = socket.recv(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }

    #[test]
    fn a_path_and_an_abstract_name_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let named = UnixDatagram::bind(&path).unwrap();
        let mut notifier = Notifier::new(Some(path.as_os_str()), Some(Duration::from_secs(10)));
        assert_eq!(notifier.watchdog_every(), Some(Duration::from_secs(5)));
        notifier.ready();
        assert_eq!(receive(&named), "READY=1");
        notifier.status("one\ntwo");
        assert_eq!(receive(&named), "STATUS=one two");
        notifier.status("one\ntwo");
        assert_eq!(receive(&named), "", "the same line is not sent again");

        let name = format!("fleet-watchdog-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        let hidden = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(Some(OsStr::new(&format!("@{name}"))), None).alive();
        assert_eq!(receive(&hidden), "WATCHDOG=1");
    }

    #[test]
    fn nobody_listening_is_no_trouble() {
        let mut nobody = Notifier::new(None, Some(Duration::from_secs(10)));
        assert_eq!(nobody.watchdog_every(), None);
        nobody.status("x");
        let gone = Notifier::new(Some(OsStr::new("/nonexistent/socket")), None);
        gone.ready();
    }
}
