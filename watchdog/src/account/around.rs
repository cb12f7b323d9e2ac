//! How the box was while its beats failed: pressure and Tailscale's state, sampled now and then.
//!
//! Nothing of it is asked while all is well. It holds back no beat: the shell runs a sample in a task of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::settings::{CheckSettings, Settings, TailscaleSettings};
use crate::tailscale;

/// The first sample, so long after the last beat that was taken; …
pub const FIRST_AFTER: Duration = Duration::from_secs(4);
/// … and the next ones.
pub const EVERY: Duration = Duration::from_secs(15);
/// How long tailscaled may take to answer.
const TAILSCALE_LIMIT: Duration = Duration::from_secs(2);
/// Different states of Tailscale that are kept.
const STATES: usize = 4;
/// Bytes of a file of the kernel's.
const KERNEL_BYTES: u64 = 16 * 1024;

/// Shares of time in which tasks waited, averages over ten seconds, per cent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// Some task waited for the processor.
    pub cpu: f64,
    /// All tasks waited for memory.
    pub memory: f64,
    /// All tasks waited for the disk.
    pub io: f64,
}

/// One look.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// None: this kernel shows none.
    pub pressure: Option<Pressure>,
    /// Tailscale's state in words; none: there is no Tailscale here.
    pub tailscale: Option<String>,
}

/// What all looks of a silence saw.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Around {
    worst: Option<Pressure>,
    tailscale: Vec<String>,
}

impl Around {
    /// Nothing was seen yet.
    pub const fn new() -> Self {
        Self {
            worst: None,
            tailscale: Vec::new(),
        }
    }

    /// Adds a look.
    pub fn add(&mut self, sample: &Sample) {
        if let Some(new) = sample.pressure {
            let worst = self.worst.get_or_insert(new);
            worst.cpu = worst.cpu.max(new.cpu);
            worst.memory = worst.memory.max(new.memory);
            worst.io = worst.io.max(new.io);
        }
        if let Some(state) = &sample.tailscale
            && self.tailscale.last() != Some(state)
            && self.tailscale.len() < STATES
        {
            self.tailscale.push(state.clone());
        }
    }

    /// Lines of evidence.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let pressure = self.worst.map(|worst| {
            format!(
                "pressure (10 s averages, the worst): cpu {:.0} %, memory {:.0} %, io {:.0} %",
                worst.cpu, worst.memory, worst.io
            )
        });
        let tailscale =
            (!self.tailscale.is_empty()).then(|| format!("tailscale: {}", self.tailscale.join("; then ")));
        pressure.into_iter().chain(tailscale)
    }
}

/// tailscaled's socket, where the box has one.
pub fn tailscale_socket(settings: &Settings) -> Option<PathBuf> {
    match &settings.tailscale {
        CheckSettings::On(tailscale) => Some(tailscale.socket.clone()),
        CheckSettings::NotConfigured => {
            let socket = TailscaleSettings::with_defaults(Duration::ZERO).socket;
            socket.exists().then_some(socket)
        }
        CheckSettings::Disabled => None,
    }
}

/// Looks now; takes at most two seconds.
pub async fn look(root: &Path, socket: Option<&Path>) -> Sample {
    let tailscale = match socket {
        Some(socket) => Some(match tailscale::status(socket, TAILSCALE_LIMIT).await {
            Ok(status) => words(&status),
            Err(error) => format!("tailscaled: {error}"),
        }),
        None => None,
    };
    Sample {
        pressure: pressure(root),
        tailscale,
    }
}

fn words(status: &tailscale::NodeStatus) -> String {
    let state = status.state.as_deref().unwrap_or("in an unknown state");
    let online = match status.online {
        Some(true) => ", online",
        Some(false) => ", offline",
        None => "",
    };
    let health = status.health.first();
    let health = health.map(|text| format!(" ({text})")).unwrap_or_default();
    format!("{state}{online}{health}")
}

/// Reads the kernel's pressure files under `root`.
pub fn pressure(root: &Path) -> Option<Pressure> {
    let of = |name: &str, line: &str| average(&text(&root.join("proc/pressure").join(name))?, line);
    Some(Pressure {
        cpu: of("cpu", "some ")?,
        memory: of("memory", "full ").unwrap_or_default(),
        io: of("io", "full ").unwrap_or_default(),
    })
}

fn average(text: &str, line: &str) -> Option<f64> {
    let fields = text.lines().find_map(|found| found.strip_prefix(line))?;
    let value = fields
        .split_whitespace()
        .find_map(|field| field.strip_prefix("avg10="))?;
    value.parse().ok().filter(|value: &f64| value.is_finite())
}

/// How many processes the kernel's OOM killer has ended in this boot (in a container: on the whole host).
pub fn oom_kills(root: &Path) -> Option<u64> {
    let text = text(&root.join("proc/vmstat"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    line.trim().parse().ok()
}

fn text(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(KERNEL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_pressure_and_each_change_of_state_is_kept() {
        let look = |cpu: f64, tailscale: &str| Sample {
            pressure: Some(Pressure {
                cpu,
                memory: 1.0,
                io: 50.0 - cpu,
            }),
            tailscale: Some(tailscale.to_owned()),
        };
        let mut around = Around::default();
        for (cpu, state) in [
            (10.0, "Running, online"),
            (40.0, "Running, offline"),
            (20.0, "Running, offline"),
        ] {
            around.add(&look(cpu, state));
        }
        assert_eq!(
            around.lines().collect::<Vec<_>>(),
            [
                "pressure (10 s averages, the worst): cpu 40 %, memory 1 %, io 40 %",
                "tailscale: Running, online; then Running, offline"
            ]
        );
        assert_eq!(Around::default().lines().count(), 0);
    }

    #[test]
    fn the_kernels_files_are_read_and_missing_ones_are_no_trouble() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((pressure(root.path()), oom_kills(root.path())), (None, None));
        let dir = root.path().join("proc/pressure");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(
            dir.join("cpu"),
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\n",
        )
        .unwrap();
        let io = "some avg10=9.00 avg60=0 avg300=0 total=1\nfull avg10=3.00 avg60=0 avg300=0 total=1\n";
        std::fs::write(dir.join("io"), io).unwrap();
        std::fs::write(
            root.path().join("proc/vmstat"),
            "nr_free_pages 1\noom_kill 7\noom_kill_x 9\n",
        )
        .unwrap();
        let found = pressure(root.path()).unwrap();
        assert_eq!((found.cpu, found.memory, found.io), (12.5, 0.0, 3.0));
        assert_eq!(oom_kills(root.path()), Some(7));
    }
}
