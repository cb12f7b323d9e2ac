//! Whole histories in virtual time, second by second, against an oracle that knows only the rules: who must be told is
//! told, nobody else, nothing early, nothing after an acknowledgement, the end to exactly those who were told, and a
//! restart at any point changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::{Time, Weekday};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use protocol::api::Liveness;
use protocol::incident::{Ack, Severity};
use protocol::names::{BoxName, Labels, Word};
use protocol::report::{CheckReport, Host, Report, Status};
use protocol::why::KnownWhy;
use protocol::witness::Targets;
use uuid::Uuid;

use super::*;
use crate::hours::{Hours, Window};
use crate::incident::change::Audience;
use crate::incident::facts::BoxInfo;
use crate::incident::ledger::Ledger;
use crate::liveness::BoxIx;
use crate::liveness::event::{Cause, Event, Transition, What};
use crate::liveness::time::{Moment, Mono};
use crate::settings::{Matcher, Step};
use crate::store::BoxId;

const RECEIVERS: [&str; 4] = ["team", "phone", "boss", "mail"];
const BOXES: u32 = 3;

/// A route as the oracle sees it: seconds, and minutes of the hour in which everything happens.
#[derive(Debug, Clone)]
struct Rule {
    page_only: bool,
    receivers: Vec<usize>,
    minutes: Option<(i8, i8)>,
    steps: Vec<(u64, Vec<usize>)>,
    remind: Option<u64>,
    remind_acked: Option<u64>,
}

#[derive(Debug, Clone)]
enum Op {
    Wait(u64),
    Dark(u32),
    Live(u32),
    Disk(u32, u8),
    Ack(usize),
    Unack(usize),
    Mute(bool),
    Restart,
}

fn rule() -> impl Strategy<Value = Rule> {
    let names = || prop::collection::btree_set(0..RECEIVERS.len(), 0..3);
    let steps = prop::collection::btree_map(1_u64..90, names(), 0..3);
    let every = || prop::option::of(5_u64..90);
    let minutes = prop::option::of((0_i8..8).prop_flat_map(|from| (Just(from), from + 1..10)));
    (any::<bool>(), names(), minutes, steps, every(), every()).prop_map(
        |(page_only, receivers, minutes, steps, remind, remind_acked)| Rule {
            page_only,
            receivers: receivers.into_iter().collect(),
            minutes,
            steps: steps
                .into_iter()
                .map(|(after, names)| (after, names.into_iter().collect()))
                .collect(),
            remind,
            remind_acked,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (1_u64..60).prop_map(Op::Wait),
        4 => (0..BOXES).prop_map(Op::Dark),
        2 => (0..BOXES).prop_map(Op::Live),
        3 => (0..BOXES, 0_u8..3).prop_map(|(ix, how)| Op::Disk(ix, how)),
        2 => (0_usize..4).prop_map(Op::Ack),
        1 => (0_usize..4).prop_map(Op::Unack),
        1 => any::<bool>().prop_map(Op::Mute),
        2 => Just(Op::Restart),
    ]
}

fn start() -> Timestamp {
    "2026-11-23T12:00:00Z".parse().unwrap()
}

/// One row as it was told: second, incident, receiver, event, revision.
type Line = (i64, i64, String, EventKind, u32);

/// The real books and the real planner, over what a store would hold.
struct World {
    rules: Vec<Rule>,
    ledger: Ledger,
    planner: Planner,
    muted: Arc<AtomicBool>,
    open: BTreeMap<i64, store::StoredIncident>,
    next_id: i64,
    told: BTreeMap<(i64, String), store::Told>,
    lines: Vec<Line>,
    now: i64,
    reports: u128,
    cases: BTreeMap<i64, Case>,
}

/// An open incident as the oracle sees it.
#[derive(Debug)]
struct Case {
    page: bool,
    acked: bool,
    /// Its history says that it is muted.
    noted: bool,
    /// When that was noted last: who was told before is told again once it is over.
    muted_at: Option<i64>,
    active: Option<usize>,
    /// Since when the active route has it.
    since: i64,
    /// When each was told first and last.
    told: BTreeMap<String, (i64, i64)>,
}

impl World {
    fn new(rules: &[Rule]) -> Self {
        let muted = Arc::new(AtomicBool::new(false));
        let mut world = Self {
            rules: rules.to_vec(),
            ledger: Ledger::new(1, None),
            planner: planner(rules, &muted),
            muted,
            open: BTreeMap::new(),
            next_id: 1,
            told: BTreeMap::new(),
            lines: Vec::new(),
            now: 0,
            reports: 0,
            cases: BTreeMap::new(),
        };
        world.restart();
        world
    }

    fn restart(&mut self) {
        self.ledger = Ledger::new(self.next_id, None);
        for ix in 0..BOXES {
            let info = BoxInfo {
                ix: BoxIx(ix),
                id: BoxId(i64::from(ix) + 1),
                name: BoxName::new(format!("box-{ix}")).unwrap(),
                labels: Labels::default(),
                witnesses: Targets::default(),
            };
            self.ledger.add(info, None);
            self.ledger
                .restore_state(BoxIx(ix), Liveness::Live, self.moment());
        }
        for stored in self.open.values() {
            self.ledger.restore(stored.incident.clone(), stored.revision);
            self.ledger.restore_ack(stored.incident.id, stored.ack.clone());
        }
        self.planner = planner(&self.rules, &self.muted);
        let open: Vec<_> = self.open.values().cloned().collect();
        let told: Vec<_> = self.told.values().cloned().collect();
        self.planner.restore(&open, &told);
    }

    fn moment(&self) -> Moment {
        Moment {
            mono: Mono::START + Duration::from_secs(self.now as u64),
            wall: start() + SignedDuration::from_secs(self.now),
        }
    }

    fn step(&mut self, op: &Op) {
        let now = self.moment();
        let pick = |n: &usize| self.open.keys().nth(*n).copied();
        let changes: Vec<Change> = match op {
            Op::Wait(secs) => {
                for _ in 0..*secs {
                    self.second();
                }
                vec![]
            }
            Op::Dark(ix) => {
                let what = What::Dark {
                    cause: Cause::Deadline,
                    silent_for: Duration::from_secs(6),
                };
                self.ledger.liveness(&moved(*ix, what, now))
            }
            Op::Live(ix) => {
                let what = What::Live {
                    after: Duration::from_secs(60),
                    rebooted: false,
                    first: false,
                };
                self.ledger.liveness(&moved(*ix, what, now))
            }
            Op::Disk(ix, how) => {
                self.reports += 1;
                let report = disk(self.reports, *how, now.wall);
                self.ledger.report(BoxIx(*ix), &Arc::new(report), now.wall, now)
            }
            Op::Ack(n) => {
                let ack = Ack {
                    at: now.wall,
                    by: "ann".into(),
                    note: String::new(),
                };
                let changed = pick(n).and_then(|id| self.ledger.acknowledge(id, ack, now));
                changed.into_iter().collect()
            }
            Op::Unack(n) => {
                let changed = pick(n).and_then(|id| self.ledger.unacknowledge(id, "ann", "", now));
                changed.into_iter().collect()
            }
            Op::Mute(on) => {
                self.muted.store(*on, Ordering::Relaxed);
                vec![]
            }
            Op::Restart => {
                self.restart();
                vec![]
            }
        };
        self.commit(&changes, false);
    }

    /// Time goes on by a second: what is due is said again.
    fn second(&mut self) {
        self.now += 1;
        self.routes_move_on();
        self.books();
        let now = self.moment();
        for nudge in self.planner.due(now.wall) {
            let to = Audience::Only(nudge.to);
            let change = self
                .ledger
                .again(nudge.incident, nudge.event, nudge.text, now, to)
                .expect("it is open");
            self.commit(&[change], true);
        }
        self.everybody_knows();
    }

    /// It stands in the history that something is muted, or not any more, as the sweep writes it down.
    fn books(&mut self) {
        let muted = self.muted.load(Ordering::Relaxed);
        let now = self.moment();
        for id in self.open.keys().copied().collect::<Vec<_>>() {
            let case = self.cases.get_mut(&id).unwrap();
            if std::mem::replace(&mut case.noted, muted) == muted {
                continue;
            }
            if muted {
                case.muted_at = Some(self.now);
            }
            let by = muted.then(|| "silence 1".to_owned());
            let change = self.ledger.muted(id, by, now).expect("it is open");
            self.commit(&[change], false);
        }
    }

    fn commit(&mut self, changes: &[Change], nudged: bool) {
        for change in changes {
            let id = change.incident.id;
            self.next_id = self.next_id.max(id + 1);
            self.heard(change);
            let rows = self.planner.plan(change, self.moment().wall);
            self.may_be_told(change, &rows, nudged);
            for row in &rows {
                let told = self
                    .told
                    .entry((id, row.receiver.clone()))
                    .or_insert_with(|| store::Told {
                        incident: id,
                        receiver: row.receiver.clone(),
                        first: row.queued_at,
                        last: row.queued_at,
                    });
                told.last = told.last.max(row.queued_at);
                let line = (
                    self.now,
                    id,
                    row.receiver.clone(),
                    row.alert.event,
                    row.alert.revision,
                );
                self.lines.push(line);
            }
            if change.incident.resolved_at.is_some() {
                self.open.remove(&id);
                self.cases.remove(&id);
                self.told.retain(|(incident, _), _| *incident != id);
            } else {
                let stored = store::StoredIncident {
                    incident: change.incident.clone(),
                    revision: change.revision,
                    ack: change.ack.clone(),
                    timeline: vec![],
                };
                self.open.insert(id, stored);
            }
        }
    }

    // The oracle.

    /// The oracle hears of the change itself, not of whom it goes to.
    fn heard(&mut self, change: &Change) {
        let now = self.now;
        let page = change.incident.severity == Severity::Page;
        let case = self.cases.entry(change.incident.id).or_insert(Case {
            page,
            acked: false,
            noted: false,
            muted_at: None,
            active: None,
            since: now,
            told: BTreeMap::new(),
        });
        let acked = change.ack.is_some();
        // Louder, or given back: everything begins anew.
        if (page && !case.page) || (case.acked && !acked) {
            case.since = now;
        }
        case.page = page;
        case.acked = acked;
        self.routes_move_on();
    }

    fn routes_move_on(&mut self) {
        for case in self.cases.values_mut() {
            let active = active(&self.rules, case.page, self.now);
            if active != case.active {
                case.active = active;
                case.since = self.now;
            }
        }
    }

    /// Receivers that are to be told of `case` by now.
    fn wanted(&self, case: &Case) -> BTreeSet<String> {
        if self.rules.is_empty() {
            return RECEIVERS.map(ToOwned::to_owned).into();
        }
        let Some(rule) = case.active.map(|at| &self.rules[at]) else {
            return BTreeSet::new();
        };
        let names = |of: &[usize]| {
            of.iter()
                .map(|at| RECEIVERS[*at].to_owned())
                .collect::<BTreeSet<_>>()
        };
        let mut wanted = names(&rule.receivers);
        let first_told = wanted
            .iter()
            .filter_map(|name| case.told.get(name))
            .map(|told| told.0)
            .min();
        let began = if wanted.is_empty() {
            Some(case.since)
        } else {
            first_told.map(|told| told.max(case.since))
        };
        for (after, step) in &rule.steps {
            if began.is_some_and(|began| began + *after as i64 <= self.now) {
                wanted.extend(names(step));
            }
        }
        wanted
    }

    /// Nobody who need not be told is told, and nobody too early.
    fn may_be_told(&mut self, change: &Change, rows: &[OutboxRow], nudged: bool) {
        let id = change.incident.id;
        let to: BTreeSet<String> = rows.iter().map(|row| row.receiver.clone()).collect();
        assert_eq!(to.len(), rows.len(), "nobody twice");
        let case = &self.cases[&id];
        let told: BTreeSet<String> = case.told.keys().cloned().collect();
        let muted = self.muted.load(Ordering::Relaxed);
        if change.incident.resolved_at.is_some() {
            assert_eq!(to, told, "the end is for exactly those who were told");
            return;
        }
        if !change.notify || muted {
            assert_eq!(to, BTreeSet::new(), "muted, or nothing to tell");
            return;
        }
        let wanted = self.wanted(case);
        if nudged {
            let rule = case.active.map(|at| &self.rules[at]);
            let every = rule.and_then(|rule| {
                if case.acked {
                    rule.remind_acked
                } else {
                    rule.remind
                }
            });
            for name in &to {
                match case.told.get(name) {
                    None => assert!(
                        !case.acked && wanted.contains(name),
                        "{name} at {} for {change:?}",
                        self.now
                    ),
                    Some(told)
                        if !case.acked && wanted.contains(name) && again_due(case, *told, self.now) => {}
                    Some((_, last)) => {
                        let every = every.expect("a reminder") as i64;
                        assert!(
                            last + every <= self.now,
                            "{name} reminded too early at {}",
                            self.now
                        );
                    }
                }
            }
        } else {
            let all = if case.acked {
                told
            } else {
                told.union(&wanted).cloned().collect()
            };
            assert_eq!(to, all, "a change is for those who know, and those who should");
        }
        let now = self.now;
        let case = self.cases.get_mut(&id).unwrap();
        for row in rows {
            let first = !case.told.contains_key(&row.receiver);
            assert_eq!(
                first,
                row.alert.event == EventKind::Opened,
                "what is heard first is that it opened"
            );
            case.told.entry(row.receiver.clone()).or_insert((now, now)).1 = now;
        }
    }

    /// Whoever must be told by now has been.
    fn everybody_knows(&self) {
        if self.muted.load(Ordering::Relaxed) {
            return;
        }
        for (id, case) in &self.cases {
            let wanted = self.wanted(case);
            if !case.acked {
                for name in &wanted {
                    let told = case.told.get(name);
                    assert!(
                        told.is_some_and(|told| !again_due(case, *told, self.now)),
                        "{name} does not know of {id} at {}, or not since it was muted",
                        self.now
                    );
                }
            }
            let Some(rule) = case.active.map(|at| &self.rules[at]) else {
                continue;
            };
            let steps = rule.steps.iter().flat_map(|(_, step)| step);
            let named = rule.receivers.iter().chain(steps);
            let all: BTreeSet<String> = named.map(|at| RECEIVERS[*at].to_owned()).collect();
            let (every, among) = if case.acked {
                (rule.remind_acked, all)
            } else {
                (rule.remind, wanted)
            };
            let Some(every) = every else { continue };
            for name in among.iter().filter(|name| case.told.contains_key(*name)) {
                let last = case.told[name].1;
                assert!(
                    last + every as i64 > self.now,
                    "{name} was not reminded of {id} at {}",
                    self.now
                );
            }
        }
    }
}

/// Told before it was muted, and to be told again: at once who was told once, else ten minutes after the last time.
fn again_due(case: &Case, (first, last): (i64, i64), now: i64) -> bool {
    let before = case.muted_at.is_some_and(|at| last < at);
    before && (first == last || last + 600 <= now)
}

fn active(rules: &[Rule], page: bool, now: i64) -> Option<usize> {
    let minute = (now / 60) as i8;
    rules.iter().position(|rule| {
        let in_hours = rule
            .minutes
            .is_none_or(|(from, to)| from <= minute && minute < to);
        (page || !rule.page_only) && in_hours
    })
}

fn planner(rules: &[Rule], muted: &Arc<AtomicBool>) -> Planner {
    let muted = Arc::clone(muted);
    let names = |of: &[usize]| of.iter().map(|at| Word::new(RECEIVERS[*at]).unwrap()).collect();
    let week = (0..7).map(|day| Weekday::from_monday_zero_offset(day).unwrap());
    let hours = |(from, to): (i8, i8)| {
        let window = Window {
            from: Time::constant(12, from, 0, 0),
            to: Time::constant(12, to, 0, 0),
        };
        Hours::new(week.clone(), vec![window], TimeZone::UTC)
    };
    let route = |rule: &Rule| Route {
        matcher: Matcher {
            severity: if rule.page_only {
                vec![Severity::Page]
            } else {
                vec![]
            },
            ..Matcher::default()
        },
        receivers: names(&rule.receivers),
        when: rule.minutes.map(hours),
        steps: rule
            .steps
            .iter()
            .map(|(after, of)| Step {
                after: Duration::from_secs(*after),
                receivers: names(of),
            })
            .collect(),
        remind: rule.remind.map(Duration::from_secs),
        remind_acked: rule.remind_acked.map(Duration::from_secs),
    };
    Planner::new(
        RECEIVERS.map(ToOwned::to_owned).into(),
        rules.iter().map(route).collect(),
    )
    .with_muted(Box::new(move |_, _| muted.load(Ordering::Relaxed)))
}

fn moved(ix: u32, what: What, at: Moment) -> Event {
    Event::Box(Transition {
        ix: BoxIx(ix),
        at,
        from: Liveness::Dark,
        what,
        last_seen: None,
    })
}

/// A report whose disk is well (0), warns (1) or fails (2).
fn disk(id: u128, how: u8, at: Timestamp) -> Report {
    let (status, why) = match how {
        0 => (Status::Ok, KnownWhy::Fine),
        1 => (Status::Warning, KnownWhy::FillingUp),
        _ => (Status::Failing, KnownWhy::BytesLow),
    };
    let row = CheckReport {
        name: Word::new("disk").unwrap(),
        subject: None,
        status,
        why: why.into(),
        summary: format!("disk is {status}"),
        consecutive: 1,
        since: at,
        values: serde_json::Map::new(),
    };
    Report {
        id: Uuid::from_u128(id),
        at,
        took_ms: 1,
        checks: vec![row],
        remedies: vec![],
        host: Host::default(),
        labels: Labels::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn everybody_is_told_what_and_when_the_rules_say(
        rules in prop::collection::vec(rule(), 0..4),
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let mut world = World::new(&rules);
        let mut without = World::new(&rules);
        for op in &ops {
            world.step(op);
            if !matches!(op, Op::Restart) {
                without.step(op);
            }
        }
        prop_assert_eq!(world.lines, without.lines, "a restart changes nothing");
    }
}
