//! A clock that runs faster for chosen programs, so that "ten minutes of its own clock" take one.
//!
//! `tests/genuine/fastclock/fastclock.c` says what is scaled and what is not; it is preloaded, so the programs stay
//! as they are, and no clock of the machine is touched. For a test to be honest:
//!
//! - All that compares times with each other preloads it with the *same* [`FastClock`]: a gateway and the watchdog's
//!   check of it. (A check on the real clock would see files of the far future; one with a base of its own, wrong ages.)
//! - File times are scaled with it, as read by libc's `stat` and `statx` (Rust's `std::fs`, Python, coreutils). A
//!   program that asks the kernel by itself (rustix, Go) sees the real ones, so ask it no file's age.
//! - systemd's time stamps (`ExecMainStartTimestamp`) are the real clock's. They are right as long as they lie before
//!   the base: start the unit first thing, or count a few seconds of its age as `factor` times as many.
//! - Time-outs shrink on the real clock too: what has 5 s to answer has half a second at tenfold. On a crowded machine
//!   that makes a test stricter than life, never laxer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::time::{ClockId, clock_gettime};

use super::cache;
use crate::lab::{BoxSpec, TestBox};
use crate::{exec, programs};

/// In the repository.
const SOURCE: &str = "tests/genuine/fastclock/fastclock.c";
/// Where the library is inside a box.
const AT: &str = "/opt/fastclock";

/// Compiles the library into the cache; gives its directory.
pub fn prepare() -> Result<PathBuf> {
    ensure!(exec::installed("cc"), "cc is missing (package gcc)");
    let source = programs::repository().join(SOURCE);
    let text = fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    cache::once("fastclock", &[&text], |dir| {
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-shared", "-fPIC", "-o"])
            .arg(dir.join("fastclock.so"));
        exec::run(cc.arg(&source).arg("-ldl"))?.ok().map(drop)
    })
}

/// Shows the library to a box; `dir` is what [`prepare`] gave.
#[must_use]
pub fn with_fastclock(spec: BoxSpec, dir: &Path) -> BoxSpec {
    spec.read_only(dir, AT)
}

/// One fast clock, shared by whatever is started with its environment.
#[derive(Debug, Clone)]
pub struct FastClock {
    factor: u32,
    base_real_ns: i128,
    base_monotonic_ns: i128,
}

impl FastClock {
    /// Runs `factor` times as fast (1 to 1000) as the real one from now on.
    pub fn from_now(factor: u32) -> Self {
        let read = |id| {
            let now = clock_gettime(id);
            i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)
        };
        Self {
            factor,
            base_real_ns: read(ClockId::Realtime),
            base_monotonic_ns: read(ClockId::Monotonic),
        }
    }

    /// How long `span` of the fast clock takes.
    pub fn real(&self, span: Duration) -> Duration {
        span / self.factor
    }

    /// `NAME=value` words that put a program under this clock.
    pub fn environment(&self) -> [String; 2] {
        let Self {
            factor,
            base_real_ns,
            base_monotonic_ns,
        } = self;
        [
            format!("LD_PRELOAD={AT}/fastclock.so"),
            format!("FASTCLOCK={factor}:{base_real_ns}:{base_monotonic_ns}"),
        ]
    }

    /// Puts a unit under this clock, through a drop-in, from its next start on.
    pub fn drop_in(&self, made: &TestBox, unit: &str) -> Result<()> {
        let text = format!("[Service]\nEnvironment={}\n", self.environment().join(" "));
        made.write_file(
            &format!("/etc/systemd/system/{unit}.d/fastclock.conf"),
            0o644,
            "root",
            text,
        )?;
        made.run_ok("systemctl daemon-reload").map(drop)
    }

    /// A shell line under this clock.
    pub fn line(&self, line: &str) -> String {
        format!("env {} {line}", self.environment().join(" "))
    }
}
