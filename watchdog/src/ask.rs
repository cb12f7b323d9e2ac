//! Asks every check at once, each within its own time-out; and knows which settings belong to which answer.
//!
//! It judges no answer. A check that does not come back in time is `unknown` (`check_timed_out`), and its history stays.

use std::future::Future;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use protocol::names::UnitName;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde::Serialize;
use serde_json::Value;

use crate::checks::{Context, Finding, Hold, backup, disk, gateway, span_text, tailscale};
use crate::settings::{CheckSettings, GatewaySettings, RestartPolicy, Scope, Settings, TailscaleSettings};
use crate::state::{State, case_key};
use crate::systemd::ServiceManager;

/// One check's answer.
#[derive(Debug)]
pub struct Answer {
    /// The answer.
    pub finding: Finding,
    /// What the check wants to remember; none: nothing new.
    pub history: Option<Value>,
}

/// The service managers in use, one a scope.
#[derive(Debug)]
pub struct Managers<M> {
    system: M,
    users: Vec<(Scope, M)>,
}

impl<M> Managers<M> {
    /// Those that `settings` needs, each made by `open`.
    pub fn new(settings: &Settings, open: impl Fn(&Scope) -> M) -> Self {
        let mut users: Vec<(Scope, M)> = Vec::new();
        for gateway in &settings.gateways {
            let known =
                gateway.scope == Scope::System || users.iter().any(|(scope, _)| *scope == gateway.scope);
            if !known {
                users.push((gateway.scope.clone(), open(&gateway.scope)));
            }
        }
        Self {
            system: open(&Scope::System),
            users,
        }
    }

    /// The one of `scope`.
    pub fn of(&self, scope: &Scope) -> &M {
        let user = self.users.iter().find(|(s, _)| s == scope);
        user.map_or(&self.system, |(_, manager)| manager)
    }
}

/// The answers of all checks, in the report's order.
pub async fn all<M: ServiceManager>(
    settings: &Settings,
    state: &State,
    ctx: &Context,
    managers: &Managers<M>,
) -> Vec<Answer> {
    let mut asked: Vec<LocalBoxFuture<'_, Answer>> = Vec::new();
    for gateway in &settings.gateways {
        let history = state.history(&case_key(CheckName::Gateway, Some(&gateway.unit)));
        let check = gateway::check(gateway, history, ctx, managers.of(&gateway.scope));
        asked.push(Box::pin(timed(
            gateway.timeout,
            CheckName::Gateway,
            Some(&gateway.unit),
            check,
        )));
    }
    if settings.gateways.is_empty() {
        asked.push(ready(no_gateway(settings)));
    }
    asked.push(match &settings.disk {
        CheckSettings::On(on) => {
            let check = disk::check(on, state.history("disk"), ctx);
            Box::pin(timed(on.timeout, CheckName::Disk, None, check))
        }
        CheckSettings::NotConfigured | CheckSettings::Disabled => ready(disabled(CheckName::Disk)),
    });
    asked.push(match &settings.backup {
        CheckSettings::On(on) => {
            let check = backup::check(on, state.history("backup"), ctx);
            Box::pin(timed(on.timeout, CheckName::Backup, None, check))
        }
        CheckSettings::NotConfigured => ready(no_backup()),
        CheckSettings::Disabled => ready(disabled(CheckName::Backup)),
    });
    asked.push(match &settings.tailscale {
        CheckSettings::On(on) => {
            let check = tailscale::check(on, state.history("tailscale"), ctx);
            Box::pin(timed(on.timeout, CheckName::Tailscale, None, check))
        }
        CheckSettings::NotConfigured => Box::pin(unconfigured_tailscale(settings, state, ctx)),
        CheckSettings::Disabled => ready(disabled(CheckName::Tailscale)),
    });
    join_all(asked).await
}

/// The gateway that `finding` is about.
pub fn gateway_of<'a>(settings: &'a Settings, finding: &Finding) -> Option<&'a GatewaySettings> {
    let subject = finding.subject.as_ref()?;
    let gateways = (finding.name == CheckName::Gateway).then_some(&settings.gateways)?;
    gateways.iter().find(|gateway| gateway.unit == *subject)
}

/// What is restarted when the check of `finding` fails; none: nothing is.
pub fn policy_of<'a>(settings: &'a Settings, finding: &Finding) -> Option<&'a RestartPolicy> {
    fn on<T>(settings: &CheckSettings<T>) -> Option<&T> {
        match settings {
            CheckSettings::On(on) => Some(on),
            CheckSettings::NotConfigured | CheckSettings::Disabled => None,
        }
    }
    match finding.name {
        CheckName::Gateway => gateway_of(settings, finding).map(|gateway| &gateway.restart),
        CheckName::Disk => on(&settings.disk)?.restart.as_ref(),
        CheckName::Backup => on(&settings.backup)?.restart.as_ref(),
        CheckName::Tailscale => on(&settings.tailscale)?.restart.as_ref(),
    }
}

/// Whose unit is restarted for `finding`: that of the gateway that it is, else of the gateway that `finding` is about.
pub fn scope_of<'a>(settings: &'a Settings, finding: &Finding, unit: &UnitName) -> &'a Scope {
    let itself = settings.gateways.iter().find(|gateway| gateway.unit == *unit);
    let gateway = itself.or_else(|| gateway_of(settings, finding));
    gateway.map_or(&Scope::System, |gateway| &gateway.scope)
}

/// What forbids a restart of `unit`, which belongs to `scope`, right now.
pub async fn hold<M: ServiceManager>(
    settings: &Settings,
    state: &State,
    ctx: &Context,
    (unit, scope): (&UnitName, &Scope),
    managers: &Managers<M>,
) -> Option<Hold> {
    let manager = managers.of(scope);
    match settings.gateways.iter().find(|gateway| gateway.unit == *unit) {
        Some(gateway) => {
            let history = state.history(&case_key(CheckName::Gateway, Some(unit)));
            gateway::hold(gateway, history, ctx, manager).await
        }
        None => gateway::hold_of_other(unit, ctx, manager).await,
    }
}

async fn timed<H: Serialize>(
    limit: Duration,
    name: CheckName,
    subject: Option<&UnitName>,
    check: impl Future<Output = (Finding, H)>,
) -> Answer {
    if let Ok((finding, history)) = tokio::time::timeout(limit, check).await {
        let history = serde_json::to_value(history).ok();
        return Answer { finding, history };
    }
    let text = format!(
        "the check did not end within {}; see [checks] timeout",
        span_text(limit)
    );
    let mut finding = Finding::new(name, Status::Unknown, KnownWhy::CheckTimedOut, text);
    finding.subject = subject.cloned();
    Answer {
        finding,
        history: None,
    }
}

async fn unconfigured_tailscale(settings: &Settings, state: &State, ctx: &Context) -> Answer {
    let defaults = TailscaleSettings::with_defaults(settings.run.check_timeout);
    let check = tailscale::check_unconfigured(&defaults, state.history("tailscale"), ctx);
    timed(defaults.timeout, CheckName::Tailscale, None, check).await
}

fn ready(finding: Finding) -> LocalBoxFuture<'static, Answer> {
    Box::pin(std::future::ready(Answer {
        finding,
        history: None,
    }))
}

fn no_gateway(settings: &Settings) -> Finding {
    if settings.gateway_disabled {
        return disabled(CheckName::Gateway);
    }
    Finding::new(
        CheckName::Gateway,
        Status::Unknown,
        KnownWhy::NotConfigured,
        "nothing says which unit this box exists for; add [gateway] unit = \"hermes-gateway.service\", or enabled = false",
    )
}

fn no_backup() -> Finding {
    Finding::new(
        CheckName::Backup,
        Status::Unknown,
        KnownWhy::NotConfigured,
        "nothing says where backups are; add [backup] newest = \"/path/*.zip\" (or stamp, hermes_snapshots, command), \
         or enabled = false",
    )
}

fn disabled(name: CheckName) -> Finding {
    let text = format!("the configuration says that this box has none ([{name}] enabled = false)");
    Finding::new(name, Status::Ok, KnownWhy::Disabled, text)
}
