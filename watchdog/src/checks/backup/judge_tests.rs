use super::*;
use crate::settings::BackupSource;
use proptest::prelude::*;

const HOUR: i64 = 3600;

fn settings() -> BackupSettings {
    BackupSettings {
        source: BackupSource::Stamp("/stamp".into()),
        warning_after: Duration::from_secs(26 * 3600),
        failing_after: Duration::from_secs(50 * 3600),
        restart: None,
        timeout: Duration::from_secs(20),
    }
}

fn now() -> Timestamp {
    "2026-11-21T20:00:00Z".parse().unwrap()
}

fn backup(age_secs: i64) -> Backup {
    let at = Timestamp::from_second(now().as_second() - age_secs).unwrap();
    Backup {
        name: format!("b-{age_secs}"),
        at,
        bytes: Some(1 << 30),
    }
}

fn seen(good: &[i64], bad: Option<(i64, Flaw)>) -> Sighting {
    let mut sighting = Sighting::default();
    for &age in good {
        sighting.good(backup(age), now());
    }
    if let Some((age, flaw)) = bad {
        sighting.bad(backup(age), flaw);
    }
    sighting
}

fn judged(sighting: Sighting) -> Verdict {
    judge(&Ok(sighting), &settings(), &BackupHistory::default(), now()).0
}

fn of(good: &[i64], bad: Option<(i64, Flaw)>) -> (Status, KnownWhy) {
    let v = judged(seen(good, bad));
    (v.status, v.why)
}

#[test]
fn the_age_of_the_newest_counts() {
    use KnownWhy::{BackupStale, Fine, NoBackup};
    assert_eq!(of(&[HOUR, 90 * HOUR], None), (Status::Ok, Fine));
    assert_eq!(of(&[26 * HOUR], None), (Status::Ok, Fine));
    assert_eq!(of(&[27 * HOUR], None), (Status::Warning, BackupStale));
    assert_eq!(of(&[51 * HOUR, 99 * HOUR], None), (Status::Failing, BackupStale));
    assert_eq!(of(&[], None), (Status::Failing, NoBackup));
    assert!(
        judged(seen(&[HOUR], None))
            .summary
            .contains("b-3600, is 1 h old (1.0 GiB)")
    );
}

#[test]
fn a_date_in_the_future_is_not_fresh() {
    assert_eq!(
        of(&[-4 * 60], None),
        (Status::Ok, KnownWhy::Fine),
        "a clock that is a little fast"
    );
    assert_eq!(of(&[-6 * 60], None), (Status::Unknown, KnownWhy::BackupInFuture));
    let v = judged(seen(&[-2 * HOUR, 3 * HOUR], None));
    assert_eq!((v.status, v.why), (Status::Unknown, KnownWhy::BackupInFuture));
    assert!(
        v.summary.contains("2 h in the future") && v.summary.contains("b-10800, is 3 h old"),
        "{}",
        v.summary
    );
}

#[test]
fn one_that_is_no_good_is_said_with_the_good_one_before_it() {
    use KnownWhy::{BackupIncomplete, BackupStale, BackupTooSmall, CheckError, Fine};
    let small = || Flaw::TooSmall(1 << 20);
    let parts = || Flaw::Incomplete(vec!["state.db".to_owned()]);
    let garbled = || Flaw::Unreadable("no JSON".to_owned());
    assert_eq!(
        of(&[25 * HOUR], Some((HOUR, small()))),
        (Status::Warning, BackupTooSmall)
    );
    assert_eq!(
        of(&[49 * HOUR], Some((HOUR, small()))),
        (Status::Warning, BackupTooSmall)
    );
    assert_eq!(
        of(&[51 * HOUR], Some((HOUR, small()))),
        (Status::Failing, BackupTooSmall)
    );
    assert_eq!(of(&[], Some((HOUR, small()))), (Status::Failing, BackupTooSmall));
    assert_eq!(
        of(&[HOUR], Some((2 * HOUR, small()))),
        (Status::Ok, Fine),
        "an older flaw is history"
    );
    assert_eq!(
        of(&[2 * HOUR], Some((HOUR, parts()))),
        (Status::Failing, BackupIncomplete)
    );
    assert_eq!(of(&[HOUR], Some((2 * HOUR, parts()))), (Status::Ok, Fine));
    assert_eq!(
        of(&[2 * HOUR], Some((HOUR, garbled()))),
        (Status::Unknown, CheckError)
    );
    assert_eq!(
        of(&[60 * HOUR], Some((HOUR, garbled()))),
        (Status::Failing, BackupStale)
    );
    assert_eq!(of(&[], Some((HOUR, garbled()))), (Status::Unknown, CheckError));
    let v = judged(seen(&[25 * HOUR], Some((HOUR, small()))));
    assert!(
        v.summary.contains("b-3600 (1 h old), has only") && v.summary.contains("b-90000, is 1 d 1 h old"),
        "{}",
        v.summary
    );
}

#[test]
fn what_is_hidden_makes_bad_news_uncertain_and_good_news_not() {
    let hidden = Some("cannot look into /home/agent: permission denied".to_owned());
    let stale = judged(Sighting {
        hidden: hidden.clone(),
        ..seen(&[60 * HOUR], None)
    });
    assert_eq!((stale.status, stale.why), (Status::Unknown, KnownWhy::CheckError));
    assert!(
        stale.summary.contains("/home/agent") && stale.summary.contains("2 d 12 h old"),
        "{}",
        stale.summary
    );
    assert_eq!(
        judged(Sighting {
            hidden,
            ..seen(&[HOUR], None)
        })
        .status,
        Status::Ok
    );
}

#[test]
fn failing_to_look_is_unknown_until_nothing_was_confirmed_for_too_long() {
    let failed = Err(Unseen::CommandFailed("restic ended with status 1".to_owned()));
    let mut history = BackupHistory::default();
    let never = judge(&failed, &settings(), &history, now()).0;
    assert_eq!(
        (never.status, never.why),
        (Status::Unknown, KnownWhy::BackupCommandFailed)
    );

    history = judge(&Ok(seen(&[HOUR], None)), &settings(), &history, now()).1;
    let later = |hours: i64| Timestamp::from_second(now().as_second() + hours * HOUR).unwrap();
    let (soon, kept) = judge(&failed, &settings(), &history, later(40));
    assert_eq!((soon.status, &kept), (Status::Unknown, &history));
    let late = judge(&failed, &settings(), &kept, later(50)).0;
    assert_eq!(
        (late.status, late.why),
        (Status::Failing, KnownWhy::BackupCommandFailed)
    );
    assert!(late.summary.contains("2 d 3 h old"), "{}", late.summary);
}

proptest! {
    #[test]
    fn the_order_of_what_is_found_does_not_matter(mut ages in proptest::collection::vec(-100_000i64..400_000, 0..6), turn in 0usize..6) {
        let one = seen(&ages, None);
        if !ages.is_empty() {
            let turn = turn % ages.len();
            ages.rotate_left(turn);
        }
        prop_assert_eq!(one, seen(&ages, None));
    }

    #[test]
    fn ok_means_that_a_good_one_is_young(ages in proptest::collection::vec(-100_000i64..400_000, 0..6)) {
        let ok = of(&ages, None).0 == Status::Ok;
        let ahead = ages.iter().any(|&a| a < -300);
        let young = ages.iter().any(|&a| a <= 26 * HOUR);
        prop_assert_eq!(ok, young && !ahead);
    }
}
