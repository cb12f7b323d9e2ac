//! The store as its callers see it: what is kept, in which order it is given out, and what a damaged disk costs.

use std::fs;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use protocol::alert::{Alert, VERSION};
use protocol::incident::{Ack, EventKind, Incident, Kind, Severity, TimelineEntry};
use protocol::names::{BoxName, Labels};
use protocol::secret::Secret;

use super::SqliteStore;
use crate::directory::{Role, TokenHash};
use crate::incident::change::{Audience, Change};
use crate::liveness::history::History;
use crate::liveness::record::Record;
use crate::notify::outbox::OutboxRow;
use crate::store::{
    BoxMemory, DELIVERED_KEEP, EnrollCode, IncidentFilter, NewBox, OperatorRecord, RESOLVED_KEEP, Store,
    StoreError, TIMELINE_ENTRIES,
};

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + secs).unwrap()
}

fn hash(text: &str) -> TokenHash {
    TokenHash::of(&Secret::new(text))
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, at(0)).unwrap()
}

fn new_box(name: &str) -> NewBox {
    NewBox {
        name: BoxName::new(name).unwrap(),
        labels: Labels::from_texts([("site", "fsn1")]).unwrap(),
        declared: Labels::from_texts([("os", "debian")]).unwrap(),
        witnesses: "192.0.2.1:22".parse().unwrap(),
        token: hash(name),
        at: at(1),
    }
}

fn incident(id: i64) -> Incident {
    Incident {
        id,
        kind: Kind::BoxDark,
        severity: Severity::Page,
        box_name: Some(BoxName::new("box-1").unwrap()),
        labels: Labels::default(),
        opened_at: at(id),
        resolved_at: None,
        summary: "box-1 is dark".into(),
        details: serde_json::Map::new(),
    }
}

fn change(id: i64, revision: u32, resolved: Option<Timestamp>) -> Change {
    let at = at(id + i64::from(revision));
    let event = if resolved.is_some() {
        EventKind::Resolved
    } else {
        EventKind::Opened
    };
    Change {
        event,
        notify: true,
        to: Audience::Routed,
        ack: None,
        incident: Incident {
            resolved_at: resolved,
            ..incident(id)
        },
        revision,
        entry: TimelineEntry {
            at,
            event: event.to_string(),
            text: "why".into(),
        },
        at,
    }
}

fn told(store: &mut SqliteStore) -> Vec<(i64, String)> {
    let told = store.told().unwrap();
    told.into_iter()
        .map(|told| (told.incident, told.receiver))
        .collect()
}

fn row(receiver: &str, id: i64, revision: u32) -> OutboxRow {
    OutboxRow {
        id: 0,
        receiver: receiver.into(),
        incident_id: id,
        alert: Alert {
            version: VERSION,
            key: format!("k{id}"),
            revision,
            event: EventKind::Opened,
            test: false,
            incident: incident(id),
            ack: None,
            note: String::new(),
        },
        queued_at: at(id),
        attempts: 0,
        next_attempt_at: at(id),
        last_error: None,
        thread: None,
    }
}

fn record(last_seen: i64) -> Record {
    Record {
        state: protocol::api::Liveness::Live,
        since: Some(at(2)),
        last_seen: Some(at(last_seen)),
        every_ms: 1000,
        last: Some((uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2), 17)),
        away: None,
        history: History::default(),
    }
}

fn is_corrupt_aside(dir: &Path, of: &str) -> bool {
    fs::read_dir(dir).unwrap().flatten().any(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("{of}.corrupt-"))
    })
}

#[test]
fn boxes_tokens_operators_and_memories_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let added = store.add_box(&new_box("box-1")).unwrap();
    let rotated = store.rotate(added.id, &hash("new"), at(10), at(70)).unwrap();
    assert_eq!(rotated.tokens[0].expires_at, Some(at(70)));
    assert_eq!(rotated.tokens[1].hash, hash("new"));
    let operator = OperatorRecord {
        name: "ann".into(),
        role: Role::Operator,
        hash: hash("ann"),
        created_at: at(3),
    };
    store.put_operator(&operator).unwrap();
    let memory = BoxMemory {
        id: added.id,
        record: record(9),
    };
    store.remember(std::slice::from_ref(&memory), true).unwrap();
    drop(store);
    let loaded = open(dir.path()).load().unwrap();
    assert_eq!(loaded.boxes, [rotated]);
    assert_eq!(loaded.operators, [operator]);
    assert_eq!(loaded.memories, [memory]);
    assert!(loaded.notes.is_empty(), "{:?}", loaded.notes);
}

#[test]
fn names_are_unique_and_revoked_tokens_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let id = store.add_box(&new_box("box-1")).unwrap().id;
    let again = store
        .add_box(&NewBox {
            token: hash("x"),
            ..new_box("box-1")
        })
        .unwrap_err();
    assert!(again.to_string().contains("box-1"), "{again}");
    assert!(store.revoke(id, at(5)).unwrap().tokens.is_empty());
    store.remove_box(id).unwrap();
    assert!(matches!(store.remove_box(id), Err(StoreError::NotFound { .. })));
    assert!(
        store.load().unwrap().boxes.len() <= 1,
        "the first load is of the start"
    );
    assert!(store.load().unwrap().boxes.is_empty());
}

#[test]
fn a_code_enrols_as_often_as_it_says_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let code = EnrollCode {
        hash: hash("code"),
        uses_left: 2,
        expires_at: at(100),
    };
    store.add_enroll_code(&code, at(0)).unwrap();
    store.enroll(&code.hash, &new_box("a")).unwrap();
    assert!(matches!(
        store.enroll(&code.hash, &new_box("a")),
        Err(StoreError::NameTaken(_))
    ));
    store.enroll(&code.hash, &new_box("b")).unwrap();
    let used = store.enroll(&code.hash, &new_box("c"));
    assert!(
        matches!(used, Err(StoreError::BadCode)),
        "a refused enrolment used nothing up: {used:?}"
    );
    let late = EnrollCode {
        hash: hash("late"),
        uses_left: 1,
        expires_at: at(100),
    };
    store.add_enroll_code(&late, at(0)).unwrap();
    let expired = store.enroll(
        &late.hash,
        &NewBox {
            at: at(100),
            ..new_box("d")
        },
    );
    assert!(matches!(expired, Err(StoreError::BadCode)), "{expired:?}");
}

#[test]
fn a_commit_done_twice_is_as_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for _ in 0..2 {
        store
            .commit(&[change(1, 1, None)], &[row("hook", 1, 1), row("am", 1, 1)])
            .unwrap();
    }
    assert_eq!(store.due("hook", at(9), 10).unwrap().len(), 1);
    assert_eq!(store.incident(1).unwrap().unwrap().timeline.len(), 1);
    assert_eq!(store.pending().unwrap().len(), 2);
    drop(store);
    let loaded = open(dir.path()).load().unwrap();
    assert_eq!(loaded.next_incident_id, 2);
    assert_eq!(loaded.incidents.len(), 1);
}

#[test]
fn a_commit_that_fails_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&[change(1, 1, None)], &[row("hook", 1, 1)]).unwrap();
    store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    let pages: i64 = store
        .db
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    store.db.pragma_update(None, "max_page_count", pages).unwrap();
    let big: Vec<OutboxRow> = (0..2000).map(|n| row("hook", 2, n)).collect();
    let err = store.commit(&[change(2, 1, None)], &big).unwrap_err();
    assert!(matches!(err, StoreError::Full { .. }), "{err:?}");
    assert!(
        err.to_string().contains("fleet.db") && err.to_string().contains("make room"),
        "{err}"
    );
    assert!(store.incident(2).unwrap().is_none());
    store.db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.commit(&[change(2, 1, None)], &big).unwrap();
}

#[test]
fn locked_and_read_only_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let other = rusqlite::Connection::open(dir.path().join(super::FILE)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(store.ping(at(1)), Err(StoreError::Busy { .. })));
    other.execute_batch("ROLLBACK").unwrap();
    store.ping(at(1)).unwrap();
    store.db.pragma_update(None, "query_only", true).unwrap();
    assert!(matches!(store.ping(at(1)), Err(StoreError::ReadOnly { .. })));
}

#[test]
fn a_disk_that_turned_read_only_is_named_with_what_to_look_at() {
    let broken =
        rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_WRITE), None);
    let err = super::rows::classify(Path::new("/d/fleet.db"), "writing", broken);
    assert!(matches!(err, StoreError::DiskFails { .. }), "{err:?}");
    let said = err.to_string();
    assert!(said.contains("/d/fleet.db") && said.contains("dmesg"), "{said}");
}

#[test]
fn who_was_told_and_what_is_firing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store
        .commit(
            &[change(1, 1, None), change(2, 1, None)],
            &[row("am", 1, 1), row("am", 2, 1), row("hook", 2, 1)],
        )
        .unwrap();
    assert_eq!(
        told(&mut store),
        [(1, "am".into()), (2, "am".into()), (2, "hook".into())]
    );
    assert!(
        store.firing("am", 10).unwrap().is_empty(),
        "nothing was delivered yet"
    );
    let first = store.due("am", at(9), 1).unwrap()[0].id;
    store.delivered(first, at(9), None).unwrap();
    assert_eq!(store.firing("am", 10).unwrap(), [incident(1)]);
    store
        .commit(&[change(1, 2, Some(at(50)))], &[row("am", 1, 2)])
        .unwrap();
    assert!(store.firing("am", 10).unwrap().is_empty());
    assert_eq!(store.told().unwrap().len(), 2);
}

#[test]
fn what_is_over_its_time_is_forgotten_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&[change(1, 1, None)], &[row("hook", 1, 1)]).unwrap();
    store
        .commit(&[change(2, 1, Some(at(3)))], &[row("hook", 2, 1)])
        .unwrap();
    store
        .commit(&[change(3, 1, Some(at(3)))], &[row("hook", 3, 1)])
        .unwrap();
    let rows = store.due("hook", at(9), 10).unwrap();
    store.delivered(rows[0].id, at(9), None).unwrap();
    store.delivered(rows[1].id, at(9), None).unwrap();
    let later = at(10) + SignedDuration::try_from(RESOLVED_KEEP.max(DELIVERED_KEEP)).unwrap();
    store.retain(later).unwrap();
    assert!(store.incident(1).unwrap().is_some(), "it is open");
    assert!(store.incident(2).unwrap().is_none(), "it is over, and told");
    assert!(
        store.incident(3).unwrap().is_some(),
        "its notification still waits"
    );
    assert_eq!(
        told(&mut store),
        [(1, "hook".into())],
        "who was told of an open one is kept"
    );
}

#[test]
fn a_timeline_keeps_its_beginning_and_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&[change(1, 1, None)], &[]).unwrap();
    let line = |n: i64| TimelineEntry {
        at: at(100 + n),
        event: "updated".into(),
        text: n.to_string(),
    };
    let lines: Vec<_> = (0..500).map(|n| (1, line(n))).collect();
    store.add_timeline(&lines).unwrap();
    let kept = store.incident(1).unwrap().unwrap().timeline;
    assert_eq!(kept.len(), TIMELINE_ENTRIES);
    assert_eq!(kept[0].event, "opened");
    assert_eq!(kept.last().unwrap().text, "499");
}

#[test]
fn incidents_are_listed_newest_first_by_filter_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store
        .commit(
            &[change(1, 1, Some(at(5))), change(2, 1, None), change(3, 1, None)],
            &[],
        )
        .unwrap();
    let ack = Ack {
        at: at(7),
        by: "ann".into(),
        note: "mine".into(),
    };
    let after = store.acknowledge(2, &ack).unwrap();
    assert_eq!(after.ack, Some(ack));
    assert_eq!(after.timeline.last().unwrap().text, "by ann: mine");
    assert!(matches!(
        store.acknowledge(9, &after.ack.unwrap()),
        Err(StoreError::NotFound { .. })
    ));
    let filter = IncidentFilter {
        open: Some(true),
        kind: Some(Kind::BoxDark),
        limit: 1,
        ..IncidentFilter::default()
    };
    let (page, total) = store.incidents(&filter).unwrap();
    assert_eq!((page[0].incident.id, total), (3, 2));
    let other = IncidentFilter {
        box_name: Some(BoxName::new("x").unwrap()),
        limit: 9,
        ..IncidentFilter::default()
    };
    assert_eq!(store.incidents(&other).unwrap().1, 0);
}

#[test]
fn a_newer_database_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.db.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    let err = SqliteStore::open(dir.path(), at(0)).err().unwrap();
    assert!(matches!(err, StoreError::Newer { found: 99, .. }), "{err:?}");
    assert!(!is_corrupt_aside(dir.path(), "fleet.db"));
}

#[test]
fn somebody_elses_file_and_rows_that_are_no_rows_are_set_aside() {
    type Spoil = fn(&Path);
    let spoils: [Spoil; 4] = [
        |db| fs::write(db, "not a database, but long enough to look like one".repeat(200)).unwrap(),
        |db| {
            let _ = fs::remove_file(db);
            rusqlite::Connection::open(db)
                .unwrap()
                .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
                .unwrap();
        },
        |db| {
            rusqlite::Connection::open(db)
                .unwrap()
                .execute_batch("UPDATE boxes SET labels = '{'")
                .unwrap();
        },
        |db| {
            rusqlite::Connection::open(db)
                .unwrap()
                .execute_batch("UPDATE incidents SET body = '[]'")
                .unwrap();
        },
    ];
    for (n, spoil) in spoils.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        store.add_box(&new_box("box-1")).unwrap();
        store.commit(&[change(1, 1, None)], &[]).unwrap();
        store.tidy(at(5), true).unwrap();
        drop(store);
        spoil(&dir.path().join(super::FILE));
        let loaded = open(dir.path()).load().unwrap();
        assert_eq!(loaded.boxes[0].tokens[0].hash, hash("box-1"), "{n}");
        assert!(
            loaded.notes[0].text.contains("set aside"),
            "{n}: {:?}",
            loaded.notes
        );
        assert!(is_corrupt_aside(dir.path(), "fleet.db"), "{n}");
        assert!(
            loaded.next_incident_id > 2,
            "{n}: a number must not mean two incidents"
        );
    }
}

#[test]
fn a_removed_database_is_recovered_and_said() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let id = store.add_box(&new_box("box-1")).unwrap().id;
    store
        .remember(
            &[BoxMemory {
                id,
                record: record(9),
            }],
            false,
        )
        .unwrap();
    store.tidy(at(5), true).unwrap();
    drop(store);
    fs::remove_file(dir.path().join(super::FILE)).unwrap();
    let loaded = open(dir.path()).load().unwrap();
    assert_eq!(loaded.boxes.len(), 1);
    assert_eq!(
        loaded.memories[0].record.last_seen,
        Some(at(9)),
        "it is still paged for if it died meanwhile"
    );
    assert!(loaded.notes[0].text.contains("1 boxes"), "{:?}", loaded.notes);
}

#[test]
fn an_older_database_gets_back_what_it_lost_and_nothing_revoked_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let kept = store.add_box(&new_box("kept")).unwrap();
    let gone = store.add_box(&new_box("gone")).unwrap();
    drop(store);
    let old = fs::read(dir.path().join(super::FILE)).unwrap();
    let mut store = open(dir.path());
    store.remove_box(gone.id).unwrap();
    store.revoke(kept.id, at(3)).unwrap();
    store.add_box(&new_box("later")).unwrap();
    store.tidy(at(5), true).unwrap();
    drop(store);
    fs::write(dir.path().join(super::FILE), old).unwrap();
    let loaded = open(dir.path()).load().unwrap();
    let names: Vec<_> = loaded.boxes.iter().map(|record| record.name.as_str()).collect();
    assert_eq!(names, ["kept", "later"]);
    assert!(loaded.boxes[0].tokens.is_empty());
    assert!(loaded.notes[0].text.contains("older"), "{:?}", loaded.notes);
}

#[test]
fn a_damaged_second_copy_is_set_aside_and_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.add_box(&new_box("box-1")).unwrap();
    store.tidy(at(5), true).unwrap();
    drop(store);
    let copy = dir.path().join(super::SNAPSHOT_FILE);
    let whole = fs::read(&copy).unwrap();
    fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    let mut store = open(dir.path());
    let loaded = store.load().unwrap();
    assert_eq!(loaded.boxes.len(), 1);
    assert!(loaded.notes[0].text.contains("boxes.json"), "{:?}", loaded.notes);
    assert!(is_corrupt_aside(dir.path(), "boxes.json"));
    store.tidy(at(6), false).unwrap();
    assert_eq!(fs::read(&copy).unwrap().len(), whole.len());
}

/// A power cut or a kill leaves any prefix of either file; a bad disk leaves anything. Whatever it is: the server starts,
/// boxes and tokens are there, and where the database was damaged that is said and the file is kept.
#[test]
fn whatever_is_left_of_the_files_the_server_starts_with_its_boxes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.db.execute_batch("PRAGMA wal_autocheckpoint = 0").unwrap();
    for n in 0..40 {
        store.add_box(&new_box(&format!("box-{n}"))).unwrap();
        if n == 20 {
            store.db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        }
    }
    for id in 1..30 {
        store
            .commit(&[change(id, 1, None)], &[row("hook", id, 1)])
            .unwrap();
    }
    store.tidy(at(5), true).unwrap();
    let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let (db, wal, copy) = (read("fleet.db"), read("fleet.db-wal"), read("boxes.json"));
    drop(store);

    let check = |what: &str, db: &[u8], wal: &[u8]| {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
        put("fleet.db", db);
        put("fleet.db-wal", wal);
        put("boxes.json", &copy);
        let mut store = SqliteStore::open(dir.path(), at(9)).unwrap_or_else(|err| panic!("{what}: {err}"));
        let loaded = store.load().unwrap();
        assert_eq!(loaded.boxes.len(), 40, "{what}");
        let aside = is_corrupt_aside(dir.path(), "fleet.db");
        let said = loaded.notes.iter().any(|note| note.text.contains("set aside"));
        assert_eq!(aside, said, "{what}: {:?}", loaded.notes);
        store
            .commit(&[change(90_000, 1, None)], &[row("hook", 90_000, 1)])
            .unwrap_or_else(|err| panic!("{what}: {err}"));
        assert!(!store.due("hook", at(100_000), 1).unwrap().is_empty(), "{what}");
        aside
    };
    assert!(!check("whole", &db, &wal));
    let mut damaged = 0;
    for n in 0..24 {
        let cut = db.len() * n / 24;
        damaged += u32::from(check(&format!("database cut at {cut}"), &db[..cut], &[]));
        damaged += u32::from(check(
            &format!("database cut at {cut}, with its log"),
            &db[..cut],
            &wal,
        ));
        let cut = wal.len() * n / 24 + n;
        check(&format!("log cut at {cut}"), &db, &wal[..cut]);
    }
    for n in 0..32 {
        let mut bad = db.clone();
        let from = bad.len() * n / 32;
        let to = (from + 700).min(bad.len());
        bad[from..to].iter_mut().for_each(|byte| *byte ^= 0xa5);
        damaged += u32::from(check(&format!("database overwritten at {from}"), &bad, &[]));
        let mut bad = wal.clone();
        let from = bad.len() * n / 32;
        let to = (from + 100).min(bad.len());
        bad[from..to].iter_mut().for_each(|byte| *byte ^= 0xa5);
        check(&format!("log overwritten at {from}"), &db, &bad);
    }
    assert!(
        damaged > 20,
        "the damage must be such that it is found: {damaged}"
    );
}

#[derive(Debug, Clone)]
enum Step {
    Queue { receiver: bool, incident: i64 },
    Deliver { receiver: bool, which: usize },
    Fail { receiver: bool, which: usize, secs: i64 },
    Pass { secs: i64 },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (any::<bool>(), 1..4_i64).prop_map(|(receiver, incident)| Step::Queue { receiver, incident }),
        4 => (any::<bool>(), 0..4_usize).prop_map(|(receiver, which)| Step::Deliver { receiver, which }),
        2 => (any::<bool>(), 0..4_usize, 0..100_i64).prop_map(|(receiver, which, secs)| Step::Fail { receiver, which, secs }),
        1 => (0..100_i64).prop_map(|secs| Step::Pass { secs }),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Against a model: whatever fails, is delivered, waits or restarts, a receiver gets each incident's notifications
    /// in the order in which they were queued, each until it is delivered, and none twice after that.
    #[test]
    fn the_outbox_keeps_the_order(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path());
        let name = |receiver: bool| if receiver { "am" } else { "hook" };
        let mut queued: Vec<(bool, i64, u32)> = Vec::new();
        let mut now = 1000;
        let mut revision = 0;
        for step in steps {
            match step {
                Step::Queue { receiver, incident } => {
                    revision += 1;
                    store.commit(&[change(incident, revision, None)], &[row(name(receiver), incident, revision)]).unwrap();
                    queued.push((receiver, incident, revision));
                }
                Step::Deliver { receiver, which } => {
                    let due = store.due(name(receiver), at(now), 10).unwrap();
                    if let Some(row) = due.get(which) {
                        store.delivered(row.id, at(now), None).unwrap();
                        let model = queued.iter().position(|(r, i, _)| *r == receiver && *i == row.incident_id);
                        let (_, _, expected) = queued.remove(model.expect("it was queued"));
                        prop_assert_eq!(row.alert.revision, expected);
                    }
                }
                Step::Fail { receiver, which, secs } => {
                    let due = store.due(name(receiver), at(now), 10).unwrap();
                    if let Some(row) = due.get(which) {
                        store.attempt_failed(row.id, at(now + secs), "no").unwrap();
                    }
                }
                Step::Pass { secs } => now += secs,
                Step::Restart => {
                    drop(store);
                    store = open(dir.path());
                }
            }
            for receiver in [false, true] {
                let due = store.due(name(receiver), at(now), 10).unwrap();
                for row in &due {
                    let first = queued.iter().find(|(r, i, _)| *r == receiver && *i == row.incident_id);
                    prop_assert_eq!(first.map(|(_, _, revision)| *revision), Some(row.alert.revision));
                }
                prop_assert!(due.windows(2).all(|pair| pair[0].id < pair[1].id));
                // Nothing is held back for ever either: when all waiting is over, every incident with rows has its first due.
                let heads = store.due(name(receiver), at(now + 1000), 10).unwrap().len();
                let incidents: std::collections::BTreeSet<_> =
                    queued.iter().filter(|(r, ..)| *r == receiver).map(|(_, i, _)| i).collect();
                prop_assert_eq!(heads, incidents.len());
                let next = store.next_due(name(receiver)).unwrap();
                prop_assert_eq!(next.is_some(), !incidents.is_empty());
            }
        }
        let waiting: u64 = store.pending().unwrap().iter().map(|pending| pending.count).sum();
        prop_assert_eq!(waiting, queued.len() as u64);
    }
}

#[test]
fn a_wall_clock_that_is_set_back_delays_no_notification() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let (new, tried) = (row("hook", 4000, 1), row("hook", 5000, 1));
    store
        .commit(&[change(4000, 1, None), change(5000, 1, None)], &[new, tried])
        .unwrap();
    store.attempt_failed(2, at(5030), "refused").unwrap();
    let ids = |rows: Vec<OutboxRow>| rows.iter().map(|row| row.id).collect::<Vec<_>>();
    assert_eq!(
        ids(store.due("hook", at(5010), 10).unwrap()),
        [1],
        "2 waits its 20 s"
    );
    assert_eq!(
        ids(store.due("hook", at(0), 10).unwrap()),
        [1, 2],
        "an hour earlier"
    );
}

#[test]
fn a_full_disk_takes_the_reserve_and_the_next_attempt_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let reserve = dir.path().join(super::reserve::FILE);
    let mut store = open(dir.path());
    store.tidy(at(0), false).unwrap();
    assert!(
        reserve.exists(),
        "this machine has no 32 MiB free under its temporary directory"
    );
    let pages: i64 = store
        .db
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap();
    store.db.pragma_update(None, "max_page_count", pages).unwrap();
    let mut big = change(1, 1, None);
    big.incident.summary = "x".repeat(100_000);
    let full = store.commit(&[big.clone()], &[row("hook", 1, 1)]).unwrap_err();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    assert!(!reserve.exists(), "its room is free now");
    store.db.pragma_update(None, "max_page_count", 1_000_000).unwrap();
    store.commit(&[big], &[row("hook", 1, 1)]).unwrap();
    store.tidy(at(120), false).unwrap();
    assert!(reserve.exists(), "it comes again when there is room");
}

#[test]
fn what_nobody_has_heard_of_is_told_apart_from_what_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let unheard = |store: &mut SqliteStore| -> Vec<(String, Timestamp)> {
        let found = store.unheard(at(100)).unwrap();
        found
            .into_iter()
            .map(|each| (each.receiver, each.oldest))
            .collect()
    };
    let rows = [row("mail", 1, 1), row("hook", 1, 1), row("mail", 2, 1)];
    store
        .commit(&[change(1, 1, None), change(2, 1, None)], &rows)
        .unwrap();
    assert_eq!(
        unheard(&mut store),
        [("hook".into(), at(1)), ("mail".into(), at(1))]
    );
    assert_eq!(store.waiting_for(1).unwrap(), ["hook", "mail"]);
    // The hook takes incident 1. Mail is not even tried: that is our fault, whoever else has heard.
    store.delivered(2, at(5), None).unwrap();
    assert_eq!(unheard(&mut store), [("mail".into(), at(1))]);
    assert_eq!(store.waiting_for(1).unwrap(), ["mail"]);
    // It is tried: of incident 1 somebody has heard, of incident 2 nobody.
    store.attempt_failed(1, at(110), "busy").unwrap();
    store.attempt_failed(3, at(110), "busy").unwrap();
    assert_eq!(unheard(&mut store), [("mail".into(), at(2))]);
    // A later notification of incident 1 waits for the first one and says nothing.
    store.commit(&[change(1, 2, None)], &[row("mail", 1, 2)]).unwrap();
    assert_eq!(unheard(&mut store), [("mail".into(), at(2))]);
    // They were tried, and are no more.
    store.attempt_failed(1, at(99), "busy").unwrap();
    store.attempt_failed(3, at(99), "busy").unwrap();
    assert_eq!(unheard(&mut store), [("mail".into(), at(1))]);
    // That mail fails is told to the hook: only once it has taken that, somebody knows.
    let mut failing = change(3, 1, None);
    failing.incident.kind = Kind::ReceiverFailing;
    failing.incident.details.insert("receiver".into(), "mail".into());
    store
        .commit(std::slice::from_ref(&failing), &[row("hook", 3, 1)])
        .unwrap();
    assert_eq!(
        unheard(&mut store),
        [("hook".into(), at(3)), ("mail".into(), at(1))]
    );
    store.delivered(5, at(6), None).unwrap();
    assert_eq!(unheard(&mut store), []);
    // It is said to be well again, and still has not taken it.
    failing.incident.resolved_at = Some(at(9));
    failing.revision = 2;
    store.commit(&[failing], &[]).unwrap();
    assert_eq!(unheard(&mut store), [("mail".into(), at(1))]);
}

#[test]
fn the_canarys_incidents_are_listed_only_if_asked_for_and_kept_for_a_week() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut proof = change(1, 1, Some(at(10)));
    proof.incident.box_name = Some(crate::incident::canary::name());
    store.commit(&[proof, change(2, 1, Some(at(10)))], &[]).unwrap();
    let listed = |store: &mut SqliteStore, except_box| {
        let filter = IncidentFilter {
            except_box,
            limit: 9,
            ..IncidentFilter::default()
        };
        store.incidents(&filter).unwrap().1
    };
    let canary = Some(crate::incident::canary::name());
    assert_eq!((listed(&mut store, canary), listed(&mut store, None)), (1, 2));
    store.retain(at(10 + 8 * 24 * 3600)).unwrap();
    assert_eq!(listed(&mut store, None), 1, "people's are kept for a year");
}

#[test]
fn what_was_given_up_before_it_arrived_was_told_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let changes = [change(1, 1, None), change(2, 1, None)];
    let rows = [row("hook", 1, 1), row("hook", 2, 1)];
    store.commit(&changes, &rows).unwrap();
    let due = store.due("hook", at(10), 10).unwrap();
    store.delivered(due[1].id, at(10), None).unwrap();
    store.commit(&[], &[row("hook", 2, 2)]).unwrap();
    // Out of the configuration for a start, and in it again.
    assert_eq!(store.abandon_others(&[], at(11)).unwrap(), 2);
    assert_eq!(told(&mut store), [(2, "hook".into())], "the first never arrived");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn ten_thousand_that_wait_cost_no_more_than_a_few() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    for from in (1..=10_000).step_by(1000) {
        let ids = from..from + 1000;
        let changes: Vec<Change> = ids.clone().map(|id| change(id, 1, None)).collect();
        let rows: Vec<OutboxRow> = ids.map(|id| row("hook", id, 1)).collect();
        store.commit(&changes, &rows).unwrap();
    }
    let start = std::time::Instant::now();
    assert_eq!(store.due("hook", at(20_000), 4).unwrap().len(), 4);
    let due = start.elapsed();
    let start = std::time::Instant::now();
    assert_eq!(store.unheard(at(0)).unwrap().len(), 1);
    let unheard = start.elapsed();
    println!("due: {due:?}, unheard: {unheard:?}");
    assert!(
        due.as_millis() < 20 && unheard.as_millis() < 1000,
        "{due:?} {unheard:?}"
    );
}

#[test]
fn a_commit_is_on_the_disk_whatever_was_written_or_failed_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let level = |store: &SqliteStore| -> i64 {
        let level = store.db.pragma_query_value(None, "synchronous", |row| row.get(0));
        level.unwrap()
    };
    let (normal, full) = (1, 2);
    store.ping(at(1)).unwrap();
    assert_eq!(level(&store), normal);
    store.commit(&[change(1, 1, None)], &[row("hook", 1, 1)]).unwrap();
    assert_eq!(level(&store), full);
    store.attempt_failed(1, at(2), "no").unwrap();
    let ack = Ack {
        at: at(3),
        by: "ann".into(),
        note: String::new(),
    };
    assert!(store.acknowledge(99, &ack).is_err(), "refused in the transaction");
    assert_eq!(level(&store), full);
    // Somebody else's lock: what was to be written loosely never began.
    store.db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("fleet.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.ping(at(4)).is_err());
    assert!(store.commit(&[change(1, 2, None)], &[]).is_err());
    assert_eq!(level(&store), full);
    other.execute_batch("ROLLBACK").unwrap();
    store.ping(at(5)).unwrap();
    store.commit(&[change(1, 2, None)], &[]).unwrap();
    assert_eq!(level(&store), full);
}
