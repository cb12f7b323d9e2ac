//! Does the box's purpose run, and is it alive? One unit; several gateways are asked one by one, all at once.
//!
//! It restarts nothing and counts no runs of failing; it says what forbids a restart ([`crate::checks::Hold`]).
//!
//! The order of judgement, each step only when the one before left the matter open:
//! 1. [`unit`]: what systemd says outright, with [`crash_loop`] for what it does not say.
//! 2. The main process is stopped ([`process`]), or the unit frozen.
//! 3. Its event loop does not turn ([`hermes`]), or a probe has no answer ([`probes`]): failing, unless it has just
//!    started (grace), or a fence that excuses it holds ([`fences`]).
//!    A failing silence is looked at twice.
//! 4. What could not be told: unknown. What it admits itself, or its scheduler: a warning.

use std::time::Duration;

use futures_util::future;
use protocol::names::UnitName;
use protocol::report::{CheckName, Status};
use protocol::why::KnownWhy;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Context, Finding, Hold, sentence, span_text};
use crate::settings::GatewaySettings;
use crate::systemd::{ActiveState, ManagerError, ServiceManager, UnitFacts};

pub mod crash_loop;
pub mod fences;
pub mod hermes;
pub mod probes;
pub mod process;
pub mod unit;

use fences::Fence;
use hermes::Opinion;
use probes::Miss;
use unit::{Answer, Judged, Moment};

/// Before a refusal counts, it is asked for again after this.
const CONFIRM: Duration = Duration::from_secs(3);

/// What one run leaves for the next, for one unit. It belongs to one boot and is emptied in another.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GatewayHistory {
    boot_id: String,
    /// An earlier run of this boot saw it active.
    seen_active: bool,
    restarts: crash_loop::Restarts,
}

/// What was seen of an active gateway.
struct Life {
    process: Option<process::Process>,
    misses: Vec<Miss>,
    opinion: Opinion,
    up: Duration,
    grace: Duration,
}

/// Asks about the gateway `settings.unit`.
pub async fn check(
    settings: &GatewaySettings,
    history: GatewayHistory,
    ctx: &Context,
    manager: &impl ServiceManager,
) -> (Finding, GatewayHistory) {
    match manager.unit(&settings.unit).await {
        Ok(facts) => look(settings, history, ctx, &facts, manager).await,
        Err(error) => (unreachable(&settings.unit, &error), history),
    }
}

/// What forbids a restart of the gateway `settings.unit` right now. It does not ask whether it is alive.
pub async fn hold(
    settings: &GatewaySettings,
    history: GatewayHistory,
    ctx: &Context,
    manager: &impl ServiceManager,
) -> Option<Hold> {
    let unit = &settings.unit;
    let facts = match manager.unit(unit).await {
        Ok(facts) => facts,
        Err(error) => return Some(blind(unit, &error)),
    };
    let (_, moment) = recall(history, unit, &facts, ctx);
    let process = facts.main_pid.and_then(|pid| process::read(&ctx.root, pid));
    let held = held(unit, &facts, &moment).or_else(|| stopped(unit, &facts, process)?.hold);
    if held.is_some() {
        return held;
    }
    let opinion = hermes::look(settings.hermes.as_ref()?, &settings.scope, &facts, ctx).await;
    opinion.fences.into_iter().next().map(|fence| Hold {
        why: fence.why,
        summary: sentence(&fence.text),
    })
}

/// The same for a unit that no `[gateway]` names: what its own state says.
pub async fn hold_of_other(unit: &UnitName, ctx: &Context, manager: &impl ServiceManager) -> Option<Hold> {
    match manager.unit(unit).await {
        Ok(facts) => held(
            unit,
            &facts,
            &recall(GatewayHistory::default(), unit, &facts, ctx).1,
        ),
        Err(error) => Some(blind(unit, &error)),
    }
}

fn held(unit: &UnitName, facts: &UnitFacts, moment: &Moment) -> Option<Hold> {
    match unit::judge(unit, facts, moment) {
        Judged::Settled(answer) => answer.hold,
        Judged::Active { hold, .. } => hold,
    }
}

/// What cannot be asked about may have been stopped by an operator.
fn blind(unit: &UnitName, error: &ManagerError) -> Hold {
    Hold {
        why: error.why(),
        summary: sentence(&format!(
            "whether {unit} may be restarted cannot be told: {error}"
        )),
    }
}

/// Failing to ask is not failing.
fn unreachable(unit: &UnitName, error: &ManagerError) -> Finding {
    let answer = Answer::new(
        Status::Unknown,
        error.why(),
        format!("what {unit} is doing cannot be told: {error}"),
    );
    finding(unit, answer, Map::new())
}

/// One look, and a second one before a silence is believed: a gateway on its way down closes its ports a second or two
/// before systemd sees it go (a genuine `hermes gateway restart` does), and that is no hang.
async fn look(
    settings: &GatewaySettings,
    history: GatewayHistory,
    ctx: &Context,
    facts: &UnitFacts,
    manager: &impl ServiceManager,
) -> (Finding, GatewayHistory) {
    let (finding, history, silence) = pass(settings, history, ctx, facts).await;
    let wait = match silence {
        None => return (finding, history),
        Some(Silence::Sustained) => Duration::ZERO,
        Some(Silence::Quick) => CONFIRM,
    };
    tokio::time::sleep(wait).await;
    let Ok(now) = manager.unit(&settings.unit).await else {
        return (finding, history);
    };
    let as_before = now.active == facts.active && now.invocation == facts.invocation && now.job == facts.job;
    if as_before && wait.is_zero() {
        return (finding, history);
    }
    let later = Context {
        now: ctx.now + wait,
        monotonic: ctx.monotonic + wait,
        ..ctx.clone()
    };
    let (finding, history, _) = pass(settings, history, &later, &now).await;
    (finding, history)
}

/// How a gateway kept silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// For a whole time-out.
    Sustained,
    /// It refused at once.
    Quick,
}

async fn pass(
    settings: &GatewaySettings,
    history: GatewayHistory,
    ctx: &Context,
    facts: &UnitFacts,
) -> (Finding, GatewayHistory, Option<Silence>) {
    let unit = &settings.unit;
    let (history, moment) = recall(history, unit, facts, ctx);
    let mut values = figures(facts, &history, ctx);
    let judged = unit::judge(unit, facts, &moment);
    let opinion = match &settings.hermes {
        Some(hermes) => hermes::look(hermes, &settings.scope, facts, ctx).await,
        None => Opinion::default(),
    };
    if settings.hermes.is_some() {
        let fences: Vec<Value> = opinion
            .fences
            .iter()
            .map(|fence| fence.why.as_str().into())
            .collect();
        values.extend(opinion.values.clone());
        values.insert("fences".into(), fences.into());
    }
    let fence = opinion.fences.first().map(|fence| Hold {
        why: fence.why,
        summary: fence.text.clone(),
    });
    let (mut answer, hold, silence) = match judged {
        Judged::Settled(answer) => (answer, None, None),
        Judged::Active { up, hold } => {
            let misses = ask(settings, ctx, &mut values).await;
            let life = Life {
                process: facts.main_pid.and_then(|pid| process::read(&ctx.root, pid)),
                misses,
                opinion,
                up,
                grace: settings.restart.grace,
            };
            (alive(unit, facts, &life), hold, life.silence())
        }
    };
    let silence = silence.filter(|_| answer.status == Status::Failing);
    answer.hold = answer.hold.or(hold).or(fence);
    (finding(unit, answer, values), history, silence)
}

/// All probes at once; what they missed.
async fn ask(settings: &GatewaySettings, ctx: &Context, values: &mut Map<String, Value>) -> Vec<Miss> {
    let asked = settings.probes.iter().map(|probe| probes::ask(probe, ctx.now));
    let misses: Vec<Miss> = future::join_all(asked)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    values.insert("probes".into(), settings.probes.len().into());
    values.insert("probes_missed".into(), misses.len().into());
    misses
}

impl Life {
    fn silence(&self) -> Option<Silence> {
        let sustained = self.opinion.hung.is_some()
            || self
                .misses
                .iter()
                .any(|miss| matches!(miss.why, KnownWhy::ProbeTimedOut | KnownWhy::ProbeFileStale));
        if sustained {
            return Some(Silence::Sustained);
        }
        (!self.misses.is_empty()).then_some(Silence::Quick)
    }
}

/// Brings the history up to this run.
fn recall(
    history: GatewayHistory,
    unit: &UnitName,
    facts: &UnitFacts,
    ctx: &Context,
) -> (GatewayHistory, Moment) {
    let mut history = if history.boot_id == ctx.boot_id {
        history
    } else {
        GatewayHistory {
            boot_id: ctx.boot_id.clone(),
            ..GatewayHistory::default()
        }
    };
    history.restarts.observe(facts.restarts, ctx.monotonic);
    let active = matches!(facts.active, ActiveState::Active | ActiveState::Reloading);
    let up = active.then(|| facts.active_enter.age(ctx.monotonic).unwrap_or_default());
    let moment = Moment {
        monotonic: ctx.monotonic,
        stop_seen: ctx
            .operator_stops
            .iter()
            .filter(|(stopped, _)| stopped == unit)
            .map(|&(_, at)| at)
            .max(),
        seen_active: history.seen_active,
        crash_loop: history.restarts.going_on(up, ctx.monotonic),
    };
    history.seen_active |= active;
    (history, moment)
}

/// Whether an active gateway is alive.
fn alive(unit: &UnitName, facts: &UnitFacts, life: &Life) -> Answer {
    if let Some(answer) = stopped(unit, facts, life.process) {
        return answer;
    }
    let opinion = &life.opinion;
    let misses = life.misses.iter();
    let miss = misses.clone().find(|miss| miss.why != KnownWhy::CheckError);
    let hung = opinion
        .hung
        .as_ref()
        .map(|text| (KnownWhy::LoopHung, text))
        .or_else(|| miss.map(|miss| (miss.why, &miss.text)));
    if let Some((why, text)) = hung {
        let excuse = opinion.fences.iter().find(|fence| fence.excuses);
        return silent(unit, why, text, excuse, life);
    }
    let unsure = misses
        .clone()
        .map(|miss| &miss.text)
        .chain(&opinion.unsure)
        .next();
    if let Some(text) = unsure {
        let text = format!("{unit} is active; whether it is alive cannot be told: {text}");
        return Answer::new(Status::Unknown, KnownWhy::CheckError, text);
    }
    if let Some((why, text)) = opinion.worries.first() {
        return Answer::new(Status::Warning, *why, format!("{unit} is active, but {text}"));
    }
    let text = format!("{unit} is active ({}) for {}", facts.sub, span_text(life.up));
    Answer::new(Status::Ok, KnownWhy::Fine, text)
}

/// Active, and no sign of life.
fn silent(unit: &UnitName, why: KnownWhy, text: &str, excuse: Option<&Fence>, life: &Life) -> Answer {
    let up = span_text(life.up);
    if let Some(fence) = excuse {
        let text = format!(
            "{unit} gives no sign of life ({text}), for a reason: {}",
            fence.text
        );
        return Answer::new(Status::Warning, fence.why, text);
    }
    if life.up < life.grace {
        let text = format!(
            "{unit} started {up} ago and gives no sign of life yet ({text}); it has {} to start",
            span_text(life.grace)
        );
        return Answer::new(Status::Unknown, KnownWhy::StartupGrace, text);
    }
    let text = format!("{unit} is active for {up} and hangs: {text}");
    Answer::new(Status::Failing, why, text)
}

fn stopped(unit: &UnitName, facts: &UnitFacts, process: Option<process::Process>) -> Option<Answer> {
    if matches!(facts.freezer.as_str(), "frozen" | "freezing") {
        let text = format!("{unit} is active and frozen; `systemctl thaw {unit}` lets it go on");
        return Some(Answer::new(Status::Failing, KnownWhy::ProcessStopped, text).held());
    }
    let pid = facts.main_pid.unwrap_or_default();
    match process?.state {
        'T' => {
            let text = format!("{unit} is active, and its main process {pid} is stopped (SIGSTOP)");
            Some(Answer::new(Status::Failing, KnownWhy::ProcessStopped, text))
        }
        't' => {
            let text = format!("{unit} is active, and a debugger holds its main process {pid}");
            Some(Answer::new(Status::Failing, KnownWhy::ProcessStopped, text).held())
        }
        _ => None,
    }
}

fn figures(facts: &UnitFacts, history: &GatewayHistory, ctx: &Context) -> Map<String, Value> {
    let mut values = Map::new();
    let mut put = |name: &str, value: Value| {
        values.insert(name.to_owned(), value);
    };
    put("active_state", facts.active.as_str().into());
    put("sub_state", facts.sub.clone().into());
    put("result", facts.result.clone().into());
    put("restarts", facts.restarts.into());
    put("crashes_in_10_min", history.restarts.crashes().into());
    if let Some(pid) = facts.main_pid {
        put("main_pid", pid.into());
    }
    if let Some(bytes) = facts.memory_bytes {
        put("memory_bytes", bytes.into());
    }
    if let Some(age) = facts.state_change.age(ctx.monotonic) {
        put("state_age_secs", age.as_secs().into());
    }
    values
}

fn finding(unit: &UnitName, answer: Answer, values: Map<String, Value>) -> Finding {
    Finding {
        subject: Some(unit.clone()),
        hold: answer.hold.map(|hold| Hold {
            summary: sentence(&hold.summary),
            ..hold
        }),
        ..Finding::new(CheckName::Gateway, answer.status, answer.why, answer.summary).with(values)
    }
}

#[cfg(test)]
mod tests;
