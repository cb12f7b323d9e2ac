//! Mutes in paused time, through judgement, books and planner: who is told, when, also when boxes, mutes and the server
//! come and go in any order.

use crate::incident::ledger::MUTED_AT;
use jiff::SignedDuration;
use proptest::prelude::*;
use protocol::matcher::Matcher;
use protocol::mute::{MuteKind, Signed};
use protocol::names::BoxPattern;

use super::*;

/// A box that goes is told of within this, when nothing mutes it: its margin, or the server's warm-up after a restart,
/// and a look of the planner's.
const TOLD_WITHIN: i64 = 16;

impl World {
    /// A mute of these boxes from now on.
    fn mute(&mut self, kind: MuteKind, boxes: &str, secs: i64) -> i64 {
        let now = self.clock.wall();
        let mut mutes = self.mutes.lock().unwrap();
        let record = MuteRecord {
            id: mutes.new_id(),
            kind,
            matcher: Matcher {
                boxes: vec![BoxPattern::new(boxes).unwrap()],
                ..Matcher::default()
            },
            reason: "rack move".into(),
            from: now,
            until: now.checked_add(SignedDuration::from_secs(secs)).ok(),
            for_secs: None,
            every: None,
            said_until: None,
            created: Signed {
                by: "alice".into(),
                at: now,
            },
            ended: None,
        };
        mutes.put(record.clone());
        self.store.mutes.lock().unwrap().insert(record.id, record.clone());
        record.id
    }

    fn expire(&mut self, id: i64) {
        let mut kept = self.store.mutes.lock().unwrap();
        if let Some(record) = kept.get_mut(&id).filter(|record| record.ended.is_none()) {
            record.ended = Some(Signed {
                by: "bob".into(),
                at: self.clock.wall(),
            });
            self.mutes.lock().unwrap().put(record.clone());
        }
    }

    /// What was queued: kind, event, and when.
    fn queued(&self) -> Vec<(Kind, EventKind, i64)> {
        let rows = self.store.rows.lock().unwrap();
        let row = |row: &OutboxRow| {
            (
                row.alert.incident.kind,
                row.alert.event,
                row.queued_at.as_second(),
            )
        };
        rows.iter().map(row).collect()
    }

    fn now(&self) -> i64 {
        self.clock.wall().as_second()
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_of_a_maintenance_who_is_gone_is_told_and_who_is_back_is_not() {
    let mut world = World::new(10);
    world.run(15).await;
    world.mute(MuteKind::Maintenance, "*", 120);
    let end = world.now() + 120;
    world.run(5).await;
    world.boxes[..4].iter_mut().for_each(|sim| sim.up = false);
    world.run(60).await;
    world.boxes[..2].iter_mut().for_each(|sim| sim.up = true);
    // One more goes just before the end: from there it has its full time.
    world.run(50).await;
    world.boxes[4].up = false;
    world.run(4).await;
    assert_eq!(world.queued(), []);
    world.run(4).await;
    let told = world.queued();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.iter().all(|(kind, event, at)| {
        (*kind, *event) == (Kind::BoxDark, EventKind::Opened) && (end..=end + 2).contains(at)
    }));
    world.run(20).await;
    let told = world.queued();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        (end + 5..end + 10).contains(&told[2].2),
        "{told:?}, the end was at {end}"
    );
}

#[tokio::test(start_paused = true)]
async fn many_that_are_still_gone_are_one_page_also_when_the_server_was_down_at_the_end() {
    for down in [false, true] {
        let mut world = World::new(60);
        world.run(15).await;
        world.mute(MuteKind::Maintenance, "box-*", 60);
        world.boxes[..30].iter_mut().for_each(|sim| sim.up = false);
        world.run(50).await;
        assert_eq!(world.queued(), []);
        if down {
            world.kill();
            world.run(30).await;
            world.start();
        }
        world.run(30).await;
        let told: Vec<_> = world
            .queued()
            .iter()
            .map(|(kind, event, _)| (*kind, *event))
            .collect();
        assert_eq!(told, [(Kind::SiteDark, EventKind::Opened)], "down: {down}");
        let said = world.store.rows.lock().unwrap()[0].alert.incident.summary.clone();
        assert!(said.contains("30 of 60 boxes are still dark"), "{said}");
        // They come back: one end, and none is left.
        world.boxes.iter_mut().for_each(|sim| sim.up = true);
        world.run(90).await;
        let told = world.queued();
        assert_eq!(
            told.last().map(|(kind, event, _)| (*kind, *event)),
            Some((Kind::SiteDark, EventKind::Resolved))
        );
        assert!(told.iter().all(|(kind, ..)| *kind == Kind::SiteDark), "{told:?}");
        assert!(world.server.as_ref().unwrap().view.open(|_| true).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_box_that_dies_in_its_pause_is_told_at_the_pauses_end() {
    let mut world = World::new(5);
    world.run(15).await;
    let until = world
        .clock
        .wall()
        .checked_add(SignedDuration::from_secs(60))
        .unwrap();
    world.boxes[0].paused = Some(Paused {
        until,
        reason: "disk swap".into(),
    });
    world.run(3).await;
    world.boxes[0].up = false;
    world.run(20).await;
    world.kill();
    world.start();
    world.run(30).await;
    assert_eq!((world.state(0), world.queued()), (Liveness::Dark, vec![]));
    world.run(10).await;
    let told = world.queued();
    assert!(
        matches!(told[..], [(Kind::BoxDark, EventKind::Opened, at)] if (0..3).contains(&(at - until.as_second()))),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_muted_while_everybody_in_it_may_be_gone() {
    let mut world = World::new(60);
    world.run(15).await;
    world.boxes[..20].iter_mut().for_each(|sim| sim.up = false);
    world.run(30).await;
    assert_eq!(world.queued().len(), 1);
    let muted = |world: &World| {
        let open = world.server.as_ref().unwrap().view.open(|_| true);
        open[0].details.get("muted_by").map(ToString::to_string)
    };
    world.mute(MuteKind::Maintenance, "box-1", 60);
    world.run(15).await;
    assert_eq!(muted(&world), None, "one of twenty");
    world.mute(MuteKind::Maintenance, "box-*", 60);
    world.run(15).await;
    assert!(muted(&world).is_some_and(|by| by.contains("alice")));
    world.run(60).await;
    assert_eq!(muted(&world), None);
    assert_eq!(
        world.queued().len(),
        2,
        "told when it began, and again at the end: it is open still"
    );
}

/// Told of one by one over ten minutes, they are not told of all at once.
#[tokio::test(start_paused = true)]
async fn who_was_told_of_one_by_one_is_not_a_burst_at_a_silences_end() {
    let mut world = World::new(300);
    world.run(15).await;
    for at in 0..40 {
        world.boxes[at].up = false;
        world.run(15).await;
    }
    let dark = |world: &World| {
        let queued = world.queued();
        queued.iter().filter(|(kind, ..)| *kind == Kind::BoxDark).count()
    };
    let before = dark(&world);
    world.mute(MuteKind::Silence, "box-*", 60);
    world.run(58).await;
    assert_eq!(dark(&world), before);
    world.run(60).await;
    let told = dark(&world) - before;
    assert!(
        told <= crate::liveness::pace::PER_MINUTE,
        "{told} within a minute, {before} before"
    );
}

/// Over the real sweep: the box's own word.
#[tokio::test(start_paused = true)]
async fn a_box_that_pauses_and_resumes_all_the_time_pages_nobody_all_the_time() {
    let mut world = World::new(5);
    world.run(15).await;
    let mut failing = report(7);
    failing.checks.push(protocol::report::CheckReport {
        name: Word::new("disk").unwrap(),
        subject: None,
        status: protocol::report::Status::Failing,
        why: protocol::why::KnownWhy::CheckError.into(),
        summary: "/ is full".into(),
        consecutive: 3,
        since: world.clock.wall(),
        values: serde_json::Map::new(),
    });
    world.boxes[0].report = Some(failing);
    world.run(10).await;
    let before = world.queued().len();
    assert_eq!(before, 1);
    for _ in 0..60 {
        let until = world
            .clock
            .wall()
            .checked_add(SignedDuration::from_secs(600))
            .unwrap();
        world.boxes[0].paused = Some(Paused {
            until,
            reason: "x".into(),
        });
        world.run(2).await;
        world.boxes[0].paused = None;
        world.run(3).await;
    }
    let queued = world.queued();
    let of_disk = queued.iter().filter(|(kind, ..)| *kind == Kind::Disk).count();
    assert_eq!(of_disk, before + 1, "{queued:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Up(usize),
    Down(usize),
    Mute(bool, usize, i64),
    Everything(i64),
    Expire(i64),
    Pause(usize, i64),
    Resume(usize),
    Kill,
}

const BOXES: usize = 12;

fn step() -> impl Strategy<Value = Step> {
    // Two of twelve go at most: what goes together is another test's.
    let mortal = 0_usize..2;
    prop_oneof![
        2 => mortal.clone().prop_map(Step::Up),
        3 => mortal.clone().prop_map(Step::Down),
        3 => (any::<bool>(), mortal.clone(), 5_i64..120).prop_map(|(silence, at, secs)| Step::Mute(silence, at, secs)),
        1 => (5_i64..60).prop_map(Step::Everything),
        1 => (1_i64..6).prop_map(Step::Expire),
        1 => (mortal.clone(), 5_i64..60).prop_map(|(at, secs)| Step::Pause(at, secs)),
        1 => mortal.prop_map(Step::Resume),
        1 => Just(Step::Kill),
    ]
}

/// What happened to a box, second by second.
#[derive(Debug, Clone, Copy, Default)]
struct Lived {
    /// Not heard, and nothing muted it, for so long.
    owed: i64,
}

async fn live_through(steps: Vec<(Step, u64)>) -> Result<(), TestCaseError> {
    let mut world = World::new(BOXES);
    world.run(15).await;
    let mut lived = [Lived::default(); 2];
    let last = (Step::Resume(0), 140);
    for (step, secs) in steps.into_iter().chain([last]) {
        match step {
            Step::Up(at) => world.boxes[at].up = true,
            Step::Down(at) => world.boxes[at].up = false,
            Step::Mute(silence, at, secs) => {
                let kind = if silence {
                    MuteKind::Silence
                } else {
                    MuteKind::Maintenance
                };
                world.mute(kind, &format!("box-{at}"), secs);
            }
            Step::Everything(secs) => drop(world.mute(MuteKind::Maintenance, "*", secs)),
            Step::Expire(id) => world.expire(id),
            Step::Pause(at, secs) => {
                let until = world
                    .clock
                    .wall()
                    .checked_add(SignedDuration::from_secs(secs))
                    .unwrap();
                world.boxes[at].paused = Some(Paused {
                    until,
                    reason: "x".into(),
                });
            }
            Step::Resume(at) => world.boxes[at].paused = None,
            Step::Kill => {
                world.kill();
                world.start();
            }
        }
        for _ in 0..secs {
            world.run(1).await;
            owed(&world, &mut lived)?;
        }
    }
    told_is_true(&world)
}

/// Whoever is gone and not muted is told of in time.
fn owed(world: &World, lived: &mut [Lived; 2]) -> Result<(), TestCaseError> {
    for (at, lived) in lived.iter_mut().enumerate() {
        let name = info(at as u32, Targets::default()).name;
        let mutes = world.mutes.lock().unwrap();
        let now = world.clock.wall();
        let about = Incident {
            box_name: Some(name.clone()),
            kind: Kind::BoxDark,
            ..world
                .server
                .as_ref()
                .unwrap()
                .view
                .open(|_| true)
                .first()
                .cloned()
                .unwrap_or_else(nothing)
        };
        let muted = mutes.muted(&about, now).is_some();
        drop(mutes);
        lived.owed = if world.boxes[at].up || muted {
            0
        } else {
            lived.owed + 1
        };
        let rows = world.store.rows.lock().unwrap();
        let about_it = rows
            .iter()
            .rev()
            .filter(|row| row.alert.incident.box_name.as_ref() == Some(&name));
        let told = about_it.clone().next().map(|row| {
            let same = about_it
                .filter(|other| other.incident_id == row.incident_id)
                .count();
            // Who heard of it more than once hears of the next mute's end no sooner than in ten minutes.
            let damped = same > 1 && now.duration_since(row.queued_at) < SignedDuration::from_mins(10);
            (row.alert.event != EventKind::Resolved, row.queued_at, damped)
        });
        // Also who heard of it before it was muted.
        let since = now
            .checked_sub(SignedDuration::from_secs(lived.owed + 1))
            .unwrap();
        prop_assert!(
            lived.owed <= TOLD_WITHIN
                || told.is_some_and(|(open, at, damped)| open && (at >= since || damped)),
            "{} is gone, unmuted for {} s, untold since: {:?}",
            name,
            lived.owed,
            told
        );
    }
    Ok(())
}

fn nothing() -> Incident {
    Incident {
        id: 0,
        kind: Kind::BoxDark,
        severity: protocol::incident::Severity::Page,
        box_name: None,
        labels: Labels::default(),
        opened_at: Timestamp::UNIX_EPOCH,
        resolved_at: None,
        summary: String::new(),
        details: serde_json::Map::new(),
    }
}

/// No opening was told while it was muted, none twice; an end was told to whoever heard of the opening, and to nobody else.
fn told_is_true(world: &World) -> Result<(), TestCaseError> {
    let rows = world.store.rows.lock().unwrap();
    let changes = world.store.changes.lock().unwrap();
    let kept = world.store.mutes.lock().unwrap();
    let mut told: HashMap<i64, u32> = HashMap::new();
    let mut over: HashMap<i64, u32> = HashMap::new();
    let mut last: HashMap<i64, Timestamp> = HashMap::new();
    for row in rows.iter() {
        let incident = &row.alert.incident;
        // These boxes never report.
        if incident.kind == Kind::ChecksStopped {
            continue;
        }
        prop_assert_eq!(incident.kind, Kind::BoxDark);
        if row.alert.event == EventKind::Resolved {
            *over.entry(incident.id).or_default() += 1;
            continue;
        }
        if let Some(before) = last.insert(incident.id, row.queued_at) {
            let muted_at = incident
                .details
                .get(MUTED_AT)
                .and_then(|at| at.as_str())
                .map(|at| at.parse().unwrap());
            prop_assert_eq!(row.alert.event, EventKind::Updated);
            prop_assert!(
                muted_at.is_some_and(|at: Timestamp| at > before),
                "told again, and not muted meanwhile: {:?}",
                incident
            );
        } else {
            *told.entry(incident.id).or_default() += 1;
        }
        // As the mutes were then: one that was ended later was not yet, and a pause is kept as it was last.
        let then = row.queued_at;
        let as_of = |record: &MuteRecord| MuteRecord {
            ended: record.ended.clone().filter(|ended| ended.at <= then),
            ..record.clone()
        };
        let then_known = kept
            .values()
            .filter(|record| record.kind != MuteKind::Pause)
            .map(as_of);
        let mutes = Mutes::new(then_known.collect(), 1, |_| None);
        prop_assert!(
            mutes.muted(incident, then).is_none(),
            "told while muted: {:?} at {}",
            incident,
            then
        );
    }
    for change in changes
        .iter()
        .filter(|change| change.incident.resolved_at.is_some() && change.incident.kind == Kind::BoxDark)
    {
        let id = change.incident.id;
        prop_assert_eq!(told.get(&id), over.get(&id), "{:?}", change.incident);
    }
    prop_assert!(
        told.values().chain(over.values()).all(|times| *times == 1),
        "{:?} {:?}",
        told,
        over
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10))]

    #[test]
    fn nobody_is_told_while_muted_and_everybody_is_afterwards(
        steps in prop::collection::vec((step(), 1_u64..40), 4..16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(steps))?;
    }
}
