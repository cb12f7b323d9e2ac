//! What forbids a restart although the counters demand it: seen in the last moment, or by a check that shares a unit.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_stop_while_the_run_is_under_way_is_seen_before_the_restart() {
    let it = a_box(Unit::Dead);
    it.run().await;
    it.run().await;
    it.becomes(Unit::StoppedSoon);
    let report = it.run().await;
    assert_eq!(it.restarts(), 0);
    assert_eq!(remedies(&report).last().unwrap(), "held_back operator_stopped");
    let held = report.remedies.last().unwrap();
    assert!(
        held.summary.contains("not restarted after all"),
        "{}",
        held.summary
    );
    let report = it.run().await;
    assert_eq!(
        remedies(&report),
        ["held_back too_few_runs", "held_back operator_stopped"],
        "said once"
    );
    it.becomes(Unit::Dead);
    for _ in 0..3 {
        assert_eq!(it.restarts(), 0);
        it.run().await;
    }
    assert_eq!(it.restarts(), 1, "what was not done is not counted");
}

#[tokio::test(start_paused = true)]
async fn a_pause_in_the_last_moment_is_obeyed() {
    let it = a_box(Unit::Dead);
    it.run().await;
    it.run().await;
    let (dir, now) = (it.dir().clone(), clock::now().wall);
    let (report, ()) = tokio::join!(it.run(), async {
        // Written once the restart is decided and written ahead, while the run gathers evidence.
        let decided = |report: Option<Report>| {
            report.is_some_and(|r| r.remedies.last().is_some_and(|r| r.outcome == Outcome::Restarted))
        };
        while !decided(report::newest(&dir, None).unwrap()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pause::write(&dir, Duration::from_secs(600), "disk swap", now).unwrap();
    });
    assert_eq!(it.restarts(), 0);
    assert_eq!(remedies(&report).last().unwrap(), "held_back paused");
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_does_not_take_is_kept_in_memory_for_the_resident_part() {
    let mut it = a_box(Unit::Healthy);
    let spare = it.temp.path().join("spare");
    std::fs::create_dir(&spare).unwrap();
    it.settings.spare_dir = Some(spare.clone());
    it.run().await;
    let block = it
        .dir()
        .path()
        .join(format!(".{REPORT_FILE}.new-{}", std::process::id()));
    std::fs::create_dir(&block).unwrap();
    let report = it.run().await;
    let newest = || report::newest(it.dir(), Some(&spare)).unwrap().unwrap();
    assert_eq!(
        newest(),
        report,
        "the newest is found although the disk did not take it"
    );
    std::fs::remove_dir(&block).unwrap();
    let report = it.run().await;
    assert_eq!(newest(), report);
    assert!(
        std::fs::read_dir(&spare).unwrap().next().is_none(),
        "the spare one is gone"
    );
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_cannot_even_be_locked_does_not_hide_the_report() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let spare = temp.path().to_owned();
    let mut it = box_at(temp, &file.join("state"), Unit::Dead);
    it.settings.spare_dir = Some(spare.clone());
    let report = it.run().await;
    assert_eq!(
        report::newest(&StateDir::new(&spare), None).unwrap().unwrap(),
        report
    );
}

/// No gateway; the backup is missing, and a unit is to be restarted for it.
fn a_box_that_restarts_for_its_backup(unit: Unit) -> Box1 {
    let temp = tempfile::tempdir().unwrap();
    let state_dir = temp.path().join("state");
    let stamp = temp.path().join("stamp");
    let tables = format!(
        "[gateway]\nenabled = false\n[tailscale]\nenabled = false\n[backup]\nstamp = {stamp:?}\nrestart = \"b.service\"\n"
    );
    box_with(temp, &state_dir, unit, &tables)
}

#[tokio::test(start_paused = true)]
async fn a_unit_that_another_check_restarts_is_left_alone_too_when_an_operator_stopped_it() {
    let it = a_box_that_restarts_for_its_backup(Unit::Stopped);
    for _ in 0..5 {
        let report = it.run().await;
        assert_eq!(row(&report, CheckName::Backup).status, Status::Failing);
        assert_eq!(remedies(&report), ["held_back operator_stopped"]);
    }
    assert_eq!(it.restarts(), 0);
    it.becomes(Unit::Dead);
    for _ in 0..3 {
        it.run().await;
    }
    assert_eq!(it.restarts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_healthy_check_that_shares_the_unit_does_not_call_its_restart_a_success() {
    let temp = tempfile::tempdir().unwrap();
    let state_dir = temp.path().join("state");
    let tables = "[gateway]\nunit = \"g.service\"\n[tailscale]\nenabled = false\n[backup]\nenabled = false\n\
                  [disk]\nfailing_free_bytes = 0\nwarning_free_bytes = 0\nrestart = \"g.service\"\n";
    let it = box_with(temp, &state_dir, Unit::Dead, tables);
    it.run().await;
    it.run().await;
    let report = it.run().await;
    let (before, state) = it.played.seen.lock().unwrap().clone().unwrap();
    assert_eq!(remedies(&before).last().unwrap(), "restarted restart_under_way");
    assert!(state.units.values().next().unwrap().pending.is_some());
    assert_eq!(
        remedies(&report),
        ["held_back too_few_runs", "failed not_healthy_after"]
    );
}
