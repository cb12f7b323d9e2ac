//! `preset = "hermes"`: what the files of a Hermes home say about the gateway that runs from it.
//!
//! It only reads, and believes a file only as far as it is bound to the running process. `gateway_state.json` is written
//! on events: its age proves nothing, and an idle gateway is never called hung for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use protocol::why::KnownWhy;
use serde_json::{Map, Value};

use super::fences::{self, Fence, World};
use super::process;
use crate::accounts;
use crate::checks::deadline::in_thread;
use crate::checks::{Context, span_text};
use crate::settings::{HermesSettings, Scope};
use crate::systemd::UnitFacts;

pub mod cron;
pub mod file;
pub mod heartbeat;
pub mod state;
pub mod tick;

use heartbeat::{Pulse, Writer};
use tick::Tick;

/// Reading a home takes a few milliseconds; one on a hung network disk gets this long.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// A heartbeat whose second witness may not be asked must be this many times staler before it counts alone.
const UNWITNESSED: u32 = 3;

/// What the home says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Opinion {
    /// The event loop does not turn: a sentence.
    pub hung: Option<String>,
    /// What could not be told, with the fix.
    pub unsure: Option<String>,
    /// Warnings.
    pub worries: Vec<(KnownWhy, String)>,
    /// Fences that hold now.
    pub fences: Vec<Fence>,
    /// Figures.
    pub values: Map<String, Value>,
}

impl Opinion {
    fn unsure(text: String) -> Self {
        Self {
            unsure: Some(text),
            ..Self::default()
        }
    }
}

/// Looks at the home of the gateway with `facts`.
pub async fn look(settings: &HermesSettings, scope: &Scope, facts: &UnitFacts, ctx: &Context) -> Opinion {
    let home = match home(settings, scope, facts, &ctx.root) {
        Ok(home) => home,
        Err(text) => return Opinion::unsure(text),
    };
    let (there, of, now) = (home.clone(), facts.clone(), ctx.clone());
    let read = in_thread(READ_LIMIT, move |_| read(&there, &of, &now)).await;
    let found = match read {
        Ok(Ok(found)) => found,
        Ok(Err(text)) => return Opinion::unsure(text),
        Err(overrun) => return Opinion::unsure(format!("reading {}: {overrun}", home.display())),
    };
    found.opinion(settings, facts, ctx).await
}

/// HERMES_HOME: as configured, else as the unit's environment says, else `~/.hermes` of the unit's user.
fn home(settings: &HermesSettings, scope: &Scope, facts: &UnitFacts, root: &Path) -> Result<PathBuf, String> {
    if let Some(home) = settings.home.as_ref().or(facts.hermes_home.as_ref()) {
        return Ok(under(root, home));
    }
    let user = match scope {
        Scope::User(name) => name.as_str(),
        Scope::System if facts.user.is_empty() => "root",
        Scope::System => facts.user.as_str(),
    };
    accounts::by_name(root, user)
        .map(|account| under(root, &account.home.join(".hermes")))
        .map_err(|error| format!("the Hermes home is not known: {error}; set [gateway] home"))
}

fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What a thread brought back.
struct Found {
    heartbeat: Option<file::File>,
    /// The heartbeat's writer is a process of the unit.
    writer_in_unit: bool,
    state: Option<state::State>,
    ticker: Option<file::File>,
    ticker_success: Option<file::File>,
    fences: Vec<Fence>,
    home: PathBuf,
}

fn read(home: &Path, facts: &UnitFacts, ctx: &Context) -> Result<Found, String> {
    let broken = |error: file::Unreadable| {
        format!(
            "{error}; the watchdog's user must be able to read the Hermes home \
             (AmbientCapabilities=CAP_DAC_READ_SEARCH as in fleet-watchdog.service, or set [gateway] home)"
        )
    };
    file::must_be_dir(home).map_err(broken)?;
    let get = |name: &str| file::read(&home.join(name)).map_err(broken);
    let heartbeat = get("state/gateway.heartbeat")?;
    let writer = heartbeat
        .as_ref()
        .and_then(|file| heartbeat::pid(&file.text))
        .unwrap_or(0);
    let of_unit = |pid: u32| {
        facts.main_pid == Some(pid) || process::in_control_group(&ctx.root, pid, &facts.control_group)
    };
    let state = get("gateway_state.json")?
        .and_then(|file| state::State::parse(&file.text))
        .filter(|state| {
            of_unit(state.pid)
                && process::read(&ctx.root, state.pid)
                    .is_some_and(|process| state.start_ticks == Some(process.start_ticks))
        });
    let world = World::read(&ctx.root, facts, ctx);
    Ok(Found {
        writer_in_unit: writer != 0 && of_unit(writer),
        heartbeat,
        ticker: get("cron/ticker_heartbeat")?,
        ticker_success: get("cron/ticker_last_success")?,
        fences: fences::read(home, facts, &world).map_err(broken)?,
        state,
        home: home.to_owned(),
    })
}

impl Found {
    async fn opinion(self, settings: &HermesSettings, facts: &UnitFacts, ctx: &Context) -> Opinion {
        let mut opinion = Opinion {
            fences: self.fences,
            ..Opinion::default()
        };
        let up = facts.active_enter.age(ctx.monotonic).unwrap_or_default();
        if let Some(state) = &self.state {
            opinion.fences.extend(state.going(ctx.now));
            opinion.worries.extend(state.worries(facts, up));
            opinion
                .values
                .insert("gateway_state".into(), state.word.clone().into());
            if let Some(agents) = state.active_agents {
                opinion.values.insert("active_agents".into(), agents.into());
            }
        }
        let cron = cron::Ticker {
            heartbeat: self.ticker.as_ref().and_then(|file| cron::epoch(&file.text)),
            success: self
                .ticker_success
                .as_ref()
                .and_then(|file| cron::epoch(&file.text)),
        };
        opinion.worries.extend(
            cron.worry(settings, up, ctx.now)
                .map(|text| (KnownWhy::CronStalled, text)),
        );
        if let Some(age) = cron.heartbeat_age(ctx.now) {
            opinion
                .values
                .insert("cron_age_secs".into(), age.as_secs().into());
        }
        let writer = Writer {
            in_unit: self.writer_in_unit,
            main: facts.main_pid,
            main_start: facts.main_start,
        };
        let pulse = heartbeat::judge(self.heartbeat.as_ref(), &writer, settings.heartbeat_stale, ctx);
        opinion.values.insert("heartbeat".into(), pulse.word().into());
        if let Pulse::Beats { age } | Pulse::Stale { age, .. } = &pulse {
            opinion
                .values
                .insert("heartbeat_age_secs".into(), age.as_secs().into());
        }
        if let Pulse::Stale { age, pid, witness } = pulse {
            let tick = tick::ask(&self.home, pid, witness).await;
            opinion.values.insert("loop_tick".into(), tick.as_str().into());
            match verdict(age, tick, settings.heartbeat_stale) {
                Verdict::Turns => {}
                Verdict::Hung(text) => opinion.hung = Some(text),
                Verdict::Unsure(text) => opinion.unsure = Some(text),
            }
        }
        opinion
    }
}

enum Verdict {
    Turns,
    Hung(String),
    Unsure(String),
}

/// The heartbeat is stale. Upstream calls a gateway wedged when the loop's own witness is mute besides; a version
/// without a witness (before the autumn of 2026) has nothing else to say, so its heartbeat counts alone, and the runs in
/// a row that a restart takes are what sustains it.
fn verdict(age: Duration, tick: Tick, stale: Duration) -> Verdict {
    let beat = format!("no heartbeat of its event loop for {}", span_text(age));
    match tick {
        Tick::Answered => Verdict::Turns,
        Tick::Mute => Verdict::Hung(format!(
            "{beat} (30 s are usual), and its loop-tick socket gave no sign three times"
        )),
        Tick::NotOffered => Verdict::Hung(format!("{beat} (30 s are usual)")),
        Tick::Denied if age > stale * UNWITNESSED => Verdict::Hung(format!(
            "{beat} (30 s are usual); its loop-tick socket may not be asked by this user"
        )),
        Tick::Denied => Verdict::Unsure(format!(
            "{beat}, and its loop-tick socket may not be asked by this user"
        )),
        Tick::Gone => Verdict::Unsure(format!("{beat}, and its loop-tick socket is gone")),
    }
}

#[cfg(test)]
mod tests;
