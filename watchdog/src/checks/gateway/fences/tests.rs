//! Each fence, while it holds and after.

use proptest::prelude::*;

use super::*;

const NOW: i64 = 1_795_291_200;
const ALIVE: u32 = 4242;
const MAIN: u32 = 700;

fn ts(secs: i64) -> Timestamp {
    Timestamp::from_second(secs).unwrap()
}

fn world() -> World<'static> {
    World {
        now: ts(NOW),
        main_pid: Some(MAIN),
        alive: Box::new(|pid| pid == ALIVE),
        boots: vec!["boot-a".into(), "boot-b".into()],
        init_start: Some(11),
    }
}

/// A file of `age` seconds.
fn file(text: impl Into<String>, age: i64) -> File {
    File {
        text: text.into(),
        modified: ts(NOW - age),
    }
}

#[test]
fn an_update_holds_while_its_process_lives_and_is_young() {
    let holds =
        |pid: u32, age: i64| update(&file(format!("{pid}\n{}\n", NOW - age), 0), &world()).map(|f| f.why);
    assert_eq!(holds(ALIVE, 60), Some(KnownWhy::FenceUpdate));
    assert_eq!(holds(ALIVE, 1201), None);
    assert_eq!(holds(4243, 60), None, "its process is dead");
    assert!(
        update(&file("", 60), &world()).is_some(),
        "unreadable and young: rather hold"
    );
    assert!(update(&file("", 1201), &world()).is_none());
}

#[test]
fn an_interrupted_install_holds_but_excuses_nothing() {
    let fence = update_incomplete(&file(format!("started={}.25\npid=1\n", NOW - 100), 0), &world()).unwrap();
    assert_eq!(
        (fence.why, fence.excuses),
        (KnownWhy::FenceUpdateIncomplete, false)
    );
    assert!(update_incomplete(&file("", 3601), &world()).is_none());
}

#[test]
fn a_restart_that_is_owed_comes_or_is_forgotten() {
    assert!(restart_pending(&file("", 100), &world()).is_some());
    assert!(restart_pending(&file(format!("started={}\n", NOW - 2101), 0), &world()).is_none());
}

#[test]
fn markers_are_bound_to_a_process_and_a_minute() {
    let marked = |pid: u32, age: i64, main: Option<u32>| {
        let text = format!(
            r#"{{"target_pid":{pid},"written_at":"{}","stopper_pid":1}}"#,
            ts(NOW - age)
        );
        let world = World {
            main_pid: main,
            ..world()
        };
        marker(
            &file(text, 0),
            &world,
            KnownWhy::FencePlannedStop,
            "announced a planned stop",
        )
        .is_some()
    };
    assert!(marked(MAIN, 10, Some(MAIN)));
    assert!(marked(MAIN, 10, None), "it has stopped by now");
    assert!(!marked(MAIN, 61, Some(MAIN)));
    assert!(
        !marked(699, 10, Some(MAIN)),
        "its target is gone, another one runs"
    );
    for bad in ["", "{}", "[]", r#"{"target_pid":700,"written_at":"yesterday"}"#] {
        assert!(
            marker(&file(bad, 0), &world(), KnownWhy::FenceTakeover, "x").is_none(),
            "{bad}"
        );
    }
}

#[test]
fn a_drain_holds_for_an_hour_of_its_own_boot() {
    let drained = |epoch: &str, age: i64| {
        let text = format!(
            r#"{{"action":"drain","requested_at":"{}","epoch":"{epoch}"}}"#,
            ts(NOW - age)
        );
        drain(&file(text, 0), &world()).is_some()
    };
    assert!(drained("boot-b:11", 3599) && !drained("boot-b:11", 3601));
    assert!(!drained("boot-c:11", 10), "of another boot");
    assert!(!drained("boot-a:12", 10), "of another start of this container");
    assert!(
        drained("", 10) && drain(&file("garbage", 10), &world()).is_some(),
        "as upstream reads it"
    );
}

#[test]
fn a_lock_is_found_by_device_and_inode() {
    let line = "12: FLOCK  ADVISORY  WRITE 4242 fe:01:123456 0 EOF";
    assert!(names(line, (0xfe, 1), 123_456));
    assert!(!names(line, (0xfe, 1), 123_457));
    assert!(!names(line, (8, 1), 123_456));
    assert!(
        names(line, (0, 45), 123_456),
        "overlay: stat shows an unnamed device"
    );
    assert!(!names(
        "12: -> FLOCK  ADVISORY  WRITE 4242 fe:01:123456 0 EOF",
        (0xfe, 1),
        123_456
    ));
    assert!(!names("garbage", (0, 0), 0));
}

#[test]
fn a_genuine_lock_is_seen_without_being_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".backup.lock");
    let lock = std::fs::File::create(&path).unwrap();
    assert!(!locked(&path));
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(locked(&path));
    let all = read(dir.path(), &UnitFacts::default(), &world()).unwrap();
    assert_eq!(
        all.iter().map(|f| f.why).collect::<Vec<_>>(),
        [KnownWhy::FenceBackup]
    );
    drop(lock);
    assert!(!locked(&path));
}

#[test]
fn all_of_a_home_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let world = World {
        now: Timestamp::try_from(dir.path().metadata().unwrap().modified().unwrap()).unwrap(),
        ..world()
    };
    let stamp = world.now;
    std::fs::create_dir(dir.path().join("hermes-agent")).unwrap();
    for (name, text) in [
        (
            ".hermes-update-in-progress",
            format!("{ALIVE}\n{}\n", stamp.as_second()),
        ),
        ("hermes-agent/.update-incomplete", String::new()),
        ("fleet_restart_pending", String::new()),
        (
            ".gateway-planned-stop.json",
            format!(r#"{{"target_pid":{MAIN},"written_at":"{stamp}"}}"#),
        ),
        (
            ".gateway-takeover.json",
            format!(r#"{{"target_pid":{MAIN},"written_at":"{stamp}"}}"#),
        ),
        (
            ".drain_request.json",
            format!(r#"{{"requested_at":"{stamp}","epoch":""}}"#),
        ),
        (".backup.lock", String::new()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let found: Vec<_> = read(dir.path(), &UnitFacts::default(), &world)
        .unwrap()
        .iter()
        .map(|f| f.why)
        .collect();
    assert_eq!(
        found,
        [
            KnownWhy::FenceUpdate,
            KnownWhy::FenceUpdateIncomplete,
            KnownWhy::FenceRestartPending,
            KnownWhy::FencePlannedStop,
            KnownWhy::FenceTakeover,
            KnownWhy::FenceDrain
        ],
        "and a lock file that nobody holds is no fence"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic_and_old_ones_never_hold(text in "[^0-9]{0,200}", age in 4000_i64..1_000_000) {
        let file = file(text, age);
        let world = world();
        let fences = [update(&file, &world), update_incomplete(&file, &world), restart_pending(&file, &world), drain(&file, &world)];
        prop_assert!(fences.iter().all(Option::is_none));
    }
}
