//! What the person on call is told, for everything that can happen.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::{GoodbyeWhy, UnitState};
use protocol::incident::{EventKind, Kind, Severity};
use protocol::names::{BoxName, Labels, UnitName, Word as Name};
use protocol::report::{CheckReport, Host, Outcome, RemedyReport, Report, Status};
use protocol::why::KnownWhy;
use protocol::witness::Targets;
use uuid::Uuid;

use super::change::Change;
use super::facts::{BoxInfo, WitnessWord, Word};
use super::ledger::Ledger;
use crate::liveness::BoxIx;
use crate::liveness::beat::WitnessAnswer;
use crate::liveness::event::{BlindWhy, Cause, Event, Group, StormWhy, Transition, What};
use crate::liveness::time::{Moment, Mono};
use crate::store::BoxId;

mod account;
mod checks;
mod flap;
mod gone;
mod hand;
mod units;

const GATEWAY: &str = "hermes-gateway.service";
const BOX: BoxIx = BoxIx(0);

fn at(ms: u64) -> Moment {
    Moment {
        mono: Mono::START + Duration::from_millis(ms),
        wall: Timestamp::from_second(1_763_755_200).unwrap() + Duration::from_millis(ms),
    }
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(1, None);
    for ix in 0..5 {
        let info = BoxInfo {
            ix: BoxIx(ix),
            id: BoxId(i64::from(ix) + 1),
            name: BoxName::new(format!("box-{ix}")).unwrap(),
            labels: Labels::from_texts([("site", "fsn1")]).unwrap(),
            witnesses: Targets::default(),
        };
        ledger.add(info, None);
        ledger.restore_state(BoxIx(ix), Liveness::Live, at(0));
    }
    ledger
}

fn moved(ix: BoxIx, ms: u64, what: What) -> Event {
    Event::Box(Transition {
        ix,
        at: at(ms),
        from: Liveness::Dark,
        what,
        last_seen: Some(at(0).wall),
    })
}

fn dark(ix: BoxIx, ms: u64) -> Event {
    let what = What::Dark {
        cause: Cause::Deadline,
        silent_for: Duration::from_millis(6100),
    };
    moved(ix, ms, what)
}

fn live(ix: BoxIx, ms: u64) -> Event {
    let what = What::Live {
        after: Duration::from_secs(200),
        rebooted: false,
        first: false,
    };
    moved(ix, ms, what)
}

/// Event, kind, severity and whether receivers are told, of each change.
fn told(changes: &[Change]) -> Vec<(EventKind, Kind, Severity, bool)> {
    let line = |change: &Change| {
        (
            change.event,
            change.incident.kind,
            change.incident.severity,
            change.notify,
        )
    };
    changes.iter().map(line).collect()
}

fn row(name: &str, status: Status, why: KnownWhy) -> CheckReport {
    CheckReport {
        name: Name::new(name).unwrap(),
        subject: (name == "gateway").then(|| UnitName::new(GATEWAY).unwrap()),
        status,
        why: why.into(),
        summary: format!("{name} is {status}"),
        consecutive: 1,
        since: at(0).wall,
        values: serde_json::Map::new(),
    }
}

fn report(id: u128, checks: Vec<CheckReport>, remedies: Vec<RemedyReport>) -> Arc<Report> {
    Arc::new(Report {
        id: Uuid::from_u128(id),
        at: at(0).wall,
        took_ms: 10,
        checks,
        remedies,
        host: Host::default(),
        labels: Labels::default(),
    })
}

fn remedy(secs: u64, outcome: Outcome, why: KnownWhy) -> RemedyReport {
    RemedyReport {
        at: at(secs * 1000).wall,
        unit: UnitName::new(GATEWAY).unwrap(),
        outcome,
        why: why.into(),
        summary: format!("{outcome} after {secs} s"),
        evidence: None,
    }
}

fn hear(ledger: &mut Ledger, ms: u64, report: &Arc<Report>) -> Vec<Change> {
    ledger.report(BOX, report, at(ms).wall, at(ms))
}

fn unit(active: &str, sub: &str, restarts: u64, stopped_by_operator: bool) -> Word {
    Word {
        units: vec![UnitState {
            name: UnitName::new(GATEWAY).unwrap(),
            active: Name::new(active).unwrap(),
            sub: Name::new(sub).unwrap(),
            result: Some(Name::new("exit-code").unwrap()),
            restarts,
            stopped_by_operator,
            oom: None,
        }],
        ..Word::default()
    }
}

/// Ticks from `from` to `to`, all changes.
fn pass(ledger: &mut Ledger, from: u64, to: u64) -> Vec<Change> {
    (from..to)
        .step_by(50)
        .flat_map(|ms| ledger.tick(at(ms)))
        .collect()
}
