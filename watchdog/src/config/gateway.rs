//! `[gateway]`, once or several times: the units that the box exists for, their probes, and when they are restarted.

use std::path::PathBuf;
use std::time::Duration;

use protocol::limits;
use protocol::names::UnitName;
use toml::de::DeValue;
use url::Url;

use super::section::{Item, Section};
use super::server::timeouts;
use crate::settings::{GatewaySettings, HermesSettings, Probe, ProbeTarget, RestartPolicy, Scope};

/// The unit of a `[gateway]` table that names none.
const DEFAULT_UNIT: &str = "hermes-gateway.service";
/// Probes of one unit.
const PROBES: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the tables say.
#[derive(Default)]
pub(super) struct Gateways {
    pub(super) units: Vec<GatewaySettings>,
    pub(super) disabled: bool,
}

pub(super) fn gateways(item: Option<Item<'_>>, timeout: Duration) -> Gateways {
    let Some(item) = item else {
        return Gateways::default();
    };
    let mut found = Gateways::default();
    for table in item.one_or_list() {
        let Some(section) = table.section() else { continue };
        let (enabled, units) = one_table(section, timeout);
        found.disabled |= !enabled;
        for unit in units {
            let twice = found.units.iter().any(|u| u.unit == unit.unit);
            if twice {
                table.wrong(format!(
                    "names {} a second time; every unit stands once",
                    unit.unit
                ));
            }
            found.units.push(unit);
        }
    }
    if found.units.len() > limits::UNITS {
        item.wrong(format!(
            "names {} units; at most {} are watched",
            found.units.len(),
            limits::UNITS
        ));
    }
    found.disabled &= found.units.is_empty();
    found
}

/// Whether it is enabled, and its units.
fn one_table(section: Section<'_>, timeout: Duration) -> (bool, Vec<GatewaySettings>) {
    let enabled = section.boolean("enabled", true);
    let unit = section.item("unit").as_ref().map(Item::unit);
    let units = section.item("units").map(|i| several(&i));
    let scope = section
        .item("scope")
        .and_then(|i| scope(&i))
        .unwrap_or(Scope::System);
    let policy = Policy::read(&section, None);
    let probes = section.item("probe").map(|i| probes(&i)).unwrap_or_default();
    let hermes = hermes(&section);
    let timeout = section.duration("timeout", timeout, timeouts());

    let names = match (unit, units) {
        (Some(_), Some(_)) => {
            section.wrong_at("units", "stands beside unit; give one of the two");
            Vec::new()
        }
        (Some(unit), None) => unit.into_iter().collect(),
        (None, Some(units)) => {
            only_for_one(&section, units.len());
            units
        }
        (None, None) => UnitName::new(DEFAULT_UNIT).into_iter().collect(),
    };
    section.finish();
    if !enabled {
        return (false, Vec::new());
    }
    let one = |unit: UnitName| GatewaySettings {
        restart: policy.of(&unit),
        unit,
        scope: scope.clone(),
        probes: probes.clone(),
        hermes: hermes.clone(),
        timeout,
    };
    (true, names.into_iter().map(one).collect())
}

fn several(item: &Item<'_>) -> Vec<UnitName> {
    let entries = item.list().unwrap_or_default();
    if entries.is_empty() {
        item.wrong("must name at least one unit");
    }
    entries.iter().filter_map(Item::unit).collect()
}

/// One probe, home or restart unit cannot belong to several units.
fn only_for_one(section: &Section<'_>, units: usize) {
    for key in ["probe", "home", "restart"] {
        if units > 1 && section.has(key) {
            let text = "cannot belong to several units at once; give each unit its own [[gateway]] table";
            section.wrong_at(key, text);
        }
    }
}

fn scope(item: &Item<'_>) -> Option<Scope> {
    match item.text()? {
        "system" => Some(Scope::System),
        text => {
            let name = text.strip_prefix("user:").filter(|name| is_user_name(name));
            if name.is_none() {
                item.wrong("must be \"system\", or \"user:\" and a user's name, such as \"user:alice\"");
            }
            Some(Scope::User(name?.to_owned()))
        }
    }
}

fn is_user_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    !name.is_empty() && name.len() <= 32 && !name.starts_with('-') && name.chars().all(allowed)
}

/// The keys of a restart policy, before the unit is known.
pub(super) struct Policy {
    unit: Option<UnitName>,
    after: u32,
    max: u32,
    window: Duration,
    grace: Duration,
}

impl Policy {
    /// From the keys of `section`; `Some(())` for `needs_unit` reports them where no `restart` gives them a meaning.
    fn read(section: &Section<'_>, needs_unit: Option<()>) -> Self {
        let policy = Self {
            unit: section.item("restart").and_then(|i| i.unit()),
            after: section.integer("restart_after", 3, 1..=1000),
            max: section.integer("max_restarts", 3, 0..=100),
            window: section.duration("restart_window", 60 * MINUTE, Duration::from_secs(1)..=7 * DAY),
            grace: section.duration("startup_grace", 2 * MINUTE, Duration::ZERO..=60 * MINUTE),
        };
        if needs_unit.is_some() && !section.has("restart") {
            for key in ["restart_after", "max_restarts", "restart_window", "startup_grace"] {
                if section.has(key) {
                    let text = "does nothing without restart = \"<unit>\" beside it: this check restarts nothing by itself";
                    section.wrong_at(key, text);
                }
            }
        }
        policy
    }

    fn of(&self, unit: &UnitName) -> RestartPolicy {
        RestartPolicy {
            unit: self.unit.clone().unwrap_or_else(|| unit.clone()),
            after: self.after,
            max: self.max,
            window: self.window,
            grace: self.grace,
        }
    }
}

/// `restart = "<unit>"` and its companions, in the table of a check that restarts nothing by default.
pub(super) fn optional_policy(section: &Section<'_>) -> Option<RestartPolicy> {
    let policy = Policy::read(section, Some(()));
    let unit = policy.unit.clone()?;
    Some(policy.of(&unit))
}

fn probes(item: &Item<'_>) -> Vec<Probe> {
    let entries = item.one_or_list();
    if entries.len() > PROBES {
        item.wrong(format!(
            "has {} probes; at most {PROBES} are asked",
            entries.len()
        ));
    }
    entries.iter().filter_map(probe).collect()
}

fn probe(item: &Item<'_>) -> Option<Probe> {
    let section = item.section()?;
    let http = section.item("http").map(|i| http(&i));
    let tcp = section.item("tcp").map(|i| tcp(&i));
    let unix = section.item("unix").map(|i| i.path().map(ProbeTarget::Unix));
    let max_age = section.duration("max_age", 3 * MINUTE, Duration::from_secs(1)..=30 * DAY);
    let file = section
        .item("file")
        .map(|i| i.path().map(|path| ProbeTarget::File { path, max_age }));
    let timeout = section.duration("timeout", Duration::from_secs(5), timeouts());
    if section.has("max_age") && !section.has("file") {
        section.wrong_at(
            "max_age",
            "belongs to a file probe; take it away, or write file = \"/path\" beside it",
        );
    }
    let given: Vec<_> = [http, tcp, unix, file].into_iter().flatten().collect();
    if given.len() != 1 {
        let found = given.len();
        item.wrong(format!(
            "asks {found} things; a probe has exactly one of http, tcp, unix, file (several probes: a list)"
        ));
    }
    section.finish();
    let target = given.into_iter().next()??;
    Some(Probe { target, timeout })
}

fn http(item: &Item<'_>) -> Option<ProbeTarget> {
    let text = item.text()?;
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(err) => {
            item.wrong(format!(
                "is no URL ({err}); write it like \"http://127.0.0.1:8642/health\""
            ));
            return None;
        }
    };
    if !url.username().is_empty() || url.password().is_some() {
        item.wrong_and_secret("must not carry a user or password; probe an address that needs none");
        return None;
    }
    match url.scheme() {
        "http" | "https" => Some(ProbeTarget::Http(url)),
        scheme => {
            item.wrong(format!(
                "has the scheme {scheme:?}; it must be http:// or https://"
            ));
            None
        }
    }
}

fn tcp(item: &Item<'_>) -> Option<ProbeTarget> {
    let text = item.text()?;
    let wrong = |_| "must be an address and a port, such as \"127.0.0.1:8642\" or \"[::1]:8642\"";
    item.keep(
        text.parse()
            .map(ProbeTarget::Tcp)
            .map_err(|err: std::net::AddrParseError| wrong(err)),
    )
}

fn hermes(section: &Section<'_>) -> Option<HermesSettings> {
    let preset = section.item("preset");
    let wanted = preset.as_ref().is_some_and(|i| i.word(&["hermes"]).is_some());
    let seconds = |n| Duration::from_secs(n);
    let range = || seconds(1)..=DAY;
    let settings = HermesSettings {
        home: section.path("home") as Option<PathBuf>,
        heartbeat_stale: section.duration("heartbeat_stale", seconds(90), range()),
        cron_stale: section.duration("cron_stale", seconds(180), range()),
        cron_success_stale: section.duration("cron_success_stale", seconds(300), range()),
    };
    if preset.is_none() {
        for key in ["home", "heartbeat_stale", "cron_stale", "cron_success_stale"] {
            if section.has(key) {
                section.wrong_at(
                    key,
                    "belongs to preset = \"hermes\"; write that beside it, or take this away",
                );
            }
        }
    }
    if let Some(Item { value, .. }) = &preset
        && matches!(value.get_ref(), DeValue::String(_))
        && !wanted
    {
        return None;
    }
    wanted.then_some(settings)
}
