//! What a scenario is: a function that asserts what a user would see, in a lab of its own.
//!
//! A scenario fails by returning an error or by panicking (`assert!`), and is bounded by its time-out.

use anyhow::Result;

use crate::lab::Lab;

/// One entry of the table in [`crate::scenarios`].
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// `topic::what_is_shown`, unique.
    pub name: &'static str,
    /// What it cannot run without.
    pub needs: &'static [Need],
    /// Seconds it takes when alone on an idle machine; long ones start first, and thrice this plus a minute is its end.
    pub rough_secs: u32,
    /// How many boxes it has at once; the machine carries a limited number.
    pub boxes: usize,
    /// It measures CPU or memory: nothing else runs beside it.
    pub alone: bool,
    /// The scenario itself.
    pub run: fn(&Lab) -> Result<()>,
}

impl Scenario {
    /// One that may run beside others, with one box.
    pub const fn new(
        name: &'static str,
        needs: &'static [Need],
        rough_secs: u32,
        run: fn(&Lab) -> Result<()>,
    ) -> Self {
        Self {
            name,
            needs,
            rough_secs,
            boxes: 1,
            alone: false,
            run,
        }
    }

    /// The same, with so many boxes at once instead of one.
    #[must_use]
    pub const fn boxes(mut self, boxes: usize) -> Self {
        self.boxes = boxes;
        self
    }

    /// The same, with nothing else beside it.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// After this many seconds it is ended, and has failed.
    pub const fn limit_secs(&self) -> u64 {
        self.rough_secs as u64 * 3 + 60
    }
}

/// What a scenario may need of the machine; [`crate::runner::needs`] finds out and prepares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Real root, systemd-container and a cgroup: booted boxes.
    Root,
    /// Debian's Prometheus with promtool.
    Prometheus,
    /// Debian's Alertmanager.
    Alertmanager,
    /// A genuine Hermes Agent, installed into the cache from PyPI.
    Hermes,
    /// Genuine Tailscale programs, built into the cache by Go.
    Tailscale,
    /// Server and simulated fleet built with optimisation, for thousands of boxes.
    Load,
    /// A C compiler, for the clock that runs fast.
    FastClock,
}

impl Need {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Root,
        Self::Prometheus,
        Self::Alertmanager,
        Self::Hermes,
        Self::Tailscale,
        Self::Load,
        Self::FastClock,
    ];

    /// Its name in messages and in the environment of a scenario.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Prometheus => "prometheus",
            Self::Alertmanager => "alertmanager",
            Self::Hermes => "hermes",
            Self::Tailscale => "tailscale",
            Self::Load => "load",
            Self::FastClock => "fastclock",
        }
    }
}
