//! A box's account through the whole of intake, judge and books.

use protocol::account::Verdict;

use super::*;

fn says(verdict: Option<Verdict>) -> Account {
    let at = Timestamp::UNIX_EPOCH;
    let mut account = Account::pending(at, at);
    if let Some(verdict) = verdict {
        account.pending = false;
        account.verdict = verdict;
        "the old boot's journal ends in the middle".clone_into(&mut account.summary);
    }
    account
}

fn ends(world: &World) -> Vec<String> {
    let changes = world.store.changes.lock().unwrap();
    let ended = changes
        .iter()
        .filter(|change| change.event == EventKind::Resolved);
    ended.map(|change| change.incident.summary.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_beat_that_brings_a_box_back_brings_its_account_and_an_unfinished_one_is_waited_for() {
    let mut world = World::new(12);
    world.run(20).await;
    world.boxes[0].up = false;
    world.boxes[1].up = false;
    world.run(30).await;
    assert_eq!(world.store.told(), [(EventKind::Opened, Kind::BoxDark); 2]);

    world.boxes[0].up = true;
    world.boxes[0].account = Some(says(Some(Verdict::PowerOrCrash)).into());
    world.boxes[1].up = true;
    world.boxes[1].account = Some(says(None).into());
    world.run(4).await;
    let [end] = &ends(&world)[..] else {
        panic!("{:#?}", ends(&world))
    };
    assert!(
        end.contains("power cut or crash (the old boot's journal ends in the middle)"),
        "{end}"
    );

    world.boxes[0].account = None;
    world.boxes[1].account = Some(says(Some(Verdict::Oom)).into());
    world.run(2).await;
    let all = ends(&world);
    assert!(
        all.len() == 2 && all[1].contains("out of memory (oom)"),
        "{all:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_refused_beat_says_explains_nothing() {
    let mut world = World::new(12);
    world.run(20).await;
    world.boxes[0].up = false;
    world.run(30).await;

    // The newer beat was faster; the one before it arrives behind it, within the same turn of the sweep.
    world.boxes[0].account = Some(says(Some(Verdict::Reboot)).into());
    world.boxes[0].seq += 1;
    world.beat(0);
    let late = Heartbeat {
        boot_id: Uuid::from_u128(1),
        session: Uuid::from_u128(1),
        seq: world.boxes[0].seq - 1,
        every_ms: 1000,
        sent_at: world.clock.wall(),
        units: vec![],
        goodbye: None,
        paused: None,
        report_id: None,
        report_stale_secs: None,
        check_every_secs: Some(120),
        report: None,
        account: Some(says(None).into()),
    };
    let intake = &world.server.as_ref().unwrap().intake;
    let (mono, wall) = (world.clock.mono(), world.clock.wall());
    assert!(intake.beat(BoxIx(0), ConnId(99), mono, wall, late).is_err());
    world.boxes[0].account = None;
    world.boxes[0].up = true;
    world.run(3).await;
    let all = ends(&world);
    assert!(all.len() == 1 && all[0].contains("reboot ("), "{all:#?}");
}
