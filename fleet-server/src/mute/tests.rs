//! What is muted when, and what ends: by example, and for any mutes in virtual time.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use protocol::heartbeat::Paused;
use protocol::incident::{Incident, Kind, Severity};
use protocol::matcher::Matcher;
use protocol::mute::{CreateMute, MuteKind, MuteRecord, MuteState, Signed, Window};
use protocol::names::{BoxName, BoxPattern, Labels, ZoneName};
use protocol::weekly::{Weekly, days_and_time};

use super::Mutes;
use super::schedule::Schedule;

/// Berlin, New York, a zone with half an hour's shift at midnight (Lord Howe), and none.
const ZONES: [(&str, &str); 4] = [
    ("Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"),
    ("America/New_York", "EST5EDT,M3.2.0,M11.1.0"),
    ("Australia/Lord_Howe", "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"),
    ("UTC", "UTC0"),
];

fn zone(name: &ZoneName) -> Option<TimeZone> {
    let rules = ZONES.iter().find(|(known, _)| *known == name.as_str())?.1;
    TimeZone::posix(rules).ok()
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_second(1_774_000_000 + secs).unwrap()
}

fn labelled(site: &str) -> Matcher {
    Matcher {
        labels: Labels::from_texts([("site", site)]).unwrap(),
        ..Matcher::default()
    }
}

fn once(id: i64, kind: MuteKind, matcher: Matcher, from: i64, until: i64) -> MuteRecord {
    MuteRecord {
        id,
        kind,
        matcher,
        reason: "new switch".into(),
        from: at(from),
        until: Some(at(until)),
        for_secs: None,
        every: None,
        said_until: None,
        created: Signed {
            by: "alice".into(),
            at: at(from),
        },
        ended: None,
    }
}

fn weekly(every: &str, tz: &str, hours: u64, from: Timestamp) -> MuteRecord {
    let (days, time) = days_and_time(every).unwrap();
    MuteRecord {
        from,
        until: None,
        for_secs: Some(hours * 3600),
        every: Some(Weekly {
            days,
            at: time,
            tz: ZoneName::new(tz).unwrap(),
        }),
        ..once(1, MuteKind::Maintenance, labelled("fsn1"), 0, 0)
    }
}

fn incident(kind: Kind, name: Option<&str>, site: &str) -> Incident {
    Incident {
        id: 1,
        kind,
        severity: Severity::Page,
        box_name: name.map(|name| BoxName::new(name).unwrap()),
        labels: Labels::from_texts([("site", site)]).unwrap(),
        opened_at: at(0),
        resolved_at: None,
        summary: String::new(),
        details: serde_json::Map::new(),
    }
}

fn mutes(records: impl IntoIterator<Item = MuteRecord>) -> Mutes {
    Mutes::new(records.into_iter().collect(), 1, zone)
}

fn name() -> BoxName {
    BoxName::new("box-1").unwrap()
}

#[test]
fn a_silence_mutes_what_it_matches_for_its_time_and_says_by_whom() {
    let silence = once(
        7,
        MuteKind::Silence,
        Matcher {
            kind: vec![Kind::BoxDark],
            ..labelled("fsn1")
        },
        10,
        20,
    );
    let mutes = mutes([silence]);
    let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
    assert_eq!(mutes.muted(&dark, at(9)), None);
    let by = mutes.muted(&dark, at(10)).unwrap();
    assert_eq!(
        by.to_string(),
        format!(
            "silence 7 of alice until {}: new switch",
            at(20).strftime("%Y-%m-%d %H:%M:%SZ")
        )
    );
    assert!(mutes.muted(&dark, at(19)).is_some() && mutes.muted(&dark, at(20)).is_none());
    assert_eq!(
        mutes.muted(&incident(Kind::Disk, Some("box-1"), "fsn1"), at(15)),
        None
    );
    assert_eq!(
        mutes.muted(&incident(Kind::BoxDark, Some("box-1"), "nbg1"), at(15)),
        None
    );
    // A silence expects nobody to go.
    assert_eq!(mutes.may_be_gone(&name(), &dark.labels, at(15)), None);
}

#[test]
fn a_site_or_the_server_is_muted_by_its_own_labels_and_kind_alone() {
    let site = incident(Kind::SiteDark, None, "fsn1");
    let mut blind = incident(Kind::ServerBlind, None, "x");
    blind.labels = Labels::default();
    let boxes = Matcher {
        boxes: vec![BoxPattern::new("*").unwrap()],
        ..Matcher::default()
    };
    let by_box = mutes([once(1, MuteKind::Silence, boxes, 0, 10)]);
    assert!(by_box.muted(&site, at(1)).is_none() && by_box.muted(&blind, at(1)).is_none());
    let by_label = mutes([once(1, MuteKind::Maintenance, labelled("fsn1"), 0, 10)]);
    assert!(by_label.muted(&site, at(1)).is_some() && by_label.muted(&blind, at(1)).is_none());
    let kind = Matcher {
        kind: vec![Kind::ServerBlind],
        ..Matcher::default()
    };
    assert!(
        mutes([once(1, MuteKind::Silence, kind, 0, 10)])
            .muted(&blind, at(1))
            .is_some()
    );
}

#[test]
fn an_end_is_told_once_and_another_mute_may_cover_on() {
    let mut mutes = mutes([
        once(1, MuteKind::Silence, labelled("fsn1"), 0, 10),
        once(2, MuteKind::Maintenance, labelled("fsn1"), 5, 20),
    ]);
    let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
    assert!(mutes.ended(at(1)).is_empty() && mutes.ended(at(9)).is_empty());
    let ended: Vec<i64> = mutes.ended(at(10)).iter().map(|ended| ended.id).collect();
    assert_eq!(
        (ended, mutes.muted(&dark, at(10)).map(|by| by.id)),
        (vec![1], Some(2))
    );
    assert!(mutes.ended(at(11)).is_empty());
    let early = MuteRecord {
        ended: Some(Signed {
            by: "bob".into(),
            at: at(12),
        }),
        ..mutes.get(2).unwrap().clone()
    };
    mutes.put(early);
    let ended = mutes.ended(at(12));
    assert_eq!(
        (ended.len(), ended[0].id, ended[0].by.as_deref()),
        (1, 2, Some("bob"))
    );
    assert_eq!(mutes.muted(&dark, at(13)), None);
    assert_eq!(
        mutes.view(mutes.get(2).unwrap().clone(), at(13)).state,
        MuteState::Expired
    );
}

#[test]
fn a_weekly_window_begins_by_the_zones_clocks_and_keeps_its_length() {
    let schedule = |record: &MuteRecord| Schedule::of(record, zone);
    // 2026-03-29: clocks go from 02:00 to 03:00 in Berlin; 2026-10-25: from 03:00 back to 02:00.
    let sundays = schedule(&weekly(
        "sun 02:30",
        "Europe/Berlin",
        2,
        time("2026-01-01T00:00:00Z"),
    ));
    let window = |now: &str| sundays.open(time(now));
    let expect = |from: &str, until: &str| {
        Some(Window {
            from: time(from),
            until: time(until),
        })
    };
    assert_eq!(
        window("2026-03-22T02:00:00Z"),
        expect("2026-03-22T01:30:00Z", "2026-03-22T03:30:00Z")
    );
    // 02:30 does not exist: as much later, 03:30 summer time.
    assert_eq!(window("2026-03-29T01:29:59Z"), None);
    assert_eq!(
        window("2026-03-29T01:30:00Z"),
        expect("2026-03-29T01:30:00Z", "2026-03-29T03:30:00Z")
    );
    // 02:30 comes twice: the first time, once.
    assert_eq!(
        window("2026-10-25T00:30:00Z"),
        expect("2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z")
    );
    assert_eq!(window("2026-10-25T02:30:00Z"), None);
    assert_eq!(
        window("2026-07-05T00:30:00Z"),
        expect("2026-07-05T00:30:00Z", "2026-07-05T02:30:00Z")
    );
    let next = sundays.next(time("2026-10-25T02:30:00Z")).unwrap();
    assert_eq!(next.from, time("2026-11-01T01:30:00Z"));
}

#[test]
fn an_unknown_zone_mutes_nothing() {
    let lost = weekly("daily 00:00", "Mars/Olympus", 23, at(0));
    let mutes = mutes([lost]);
    let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
    assert!((0..48).all(|hour| mutes.muted(&dark, at(hour * 3600)).is_none()));
}

#[test]
fn a_pause_mutes_its_box_alone_until_its_end_and_a_day_at_most() {
    let mut mutes = mutes([]);
    let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
    let until = |secs: i64| Paused {
        until: at(secs),
        reason: "disk swap".into(),
    };
    let none = SignedDuration::ZERO;
    // Its clock is five minutes ahead.
    let ahead = SignedDuration::from_mins(5);
    let record = mutes.paused(&name(), Some(&until(900)), ahead, at(0)).unwrap();
    assert_eq!(
        (record.kind, record.until, record.created.by.as_str()),
        (MuteKind::Pause, Some(at(600)), "box-1")
    );
    assert_eq!(
        mutes.paused(&name(), Some(&until(901)), none, at(1)),
        None,
        "nothing new"
    );
    assert!(mutes.muted(&dark, at(599)).is_some() && mutes.muted(&dark, at(600)).is_none());
    assert!(
        mutes
            .muted(&incident(Kind::BoxDark, Some("box-2"), "fsn1"), at(1))
            .is_none()
    );
    // It dies, and says nothing any more: over all the same.
    mutes.ended(at(1));
    assert_eq!(mutes.ended(at(600)).len(), 1);

    // A month, as the box has it: a day here.
    let month = until(30 * 86_400);
    let record = mutes.paused(&name(), Some(&month), none, at(10_000)).unwrap();
    assert_eq!(record.until, Some(at(10_000 + 86_400)));
    // Again and again: one pause, and not longer.
    for n in 1..860 {
        let paused = until(30 * 86_400 + n * 100);
        let again = mutes
            .paused(&name(), Some(&paused), none, at(10_000 + n * 100))
            .unwrap();
        assert!(again.until.unwrap() <= at(10_000 + 86_400), "{n}");
        assert_eq!(again.id, record.id);
    }
}

#[test]
fn a_pause_ends_when_the_box_says_so_or_an_operator_does() {
    let mut mutes = mutes([]);
    let paused = Paused {
        until: at(3600),
        reason: "x".into(),
    };
    let say = |mutes: &mut Mutes, paused: Option<&Paused>, secs| {
        mutes.paused(&name(), paused, SignedDuration::ZERO, at(secs))
    };
    let first = say(&mut mutes, Some(&paused), 0).unwrap();
    let resumed = say(&mut mutes, None, 60).unwrap();
    assert_eq!(
        resumed.ended,
        Some(Signed {
            by: "box-1".into(),
            at: at(60)
        })
    );
    let again = say(&mut mutes, Some(&paused), 1000).unwrap();
    assert_ne!(again.id, first.id, "the first one is history");
    mutes.put(MuteRecord {
        ended: Some(Signed {
            by: "alice".into(),
            at: at(1100),
        }),
        ..again.clone()
    });
    assert_eq!(
        say(&mut mutes, Some(&paused), 1200),
        None,
        "the operator's word holds"
    );
    // Through a restart as well.
    let kept: Vec<MuteRecord> = [first.id, again.id]
        .iter()
        .filter_map(|id| mutes.get(*id).cloned())
        .collect();
    let mut restarted = Mutes::new(kept, 1, zone);
    assert_eq!(say(&mut restarted, Some(&paused), 1300), None);
    let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
    assert_eq!(restarted.muted(&dark, at(1300)), None);
    // One that is longer than it may mute is known again, too, and so is one by a clock that is off.
    let month = Paused {
        until: at(30 * 86_400),
        reason: "x".into(),
    };
    let off = SignedDuration::from_hours(3);
    let long = restarted.paused(&name(), Some(&month), off, at(5000)).unwrap();
    let mut restarted = Mutes::new(vec![long], 1, zone);
    assert_eq!(restarted.paused(&name(), Some(&month), off, at(5100)), None);
}

#[test]
fn what_is_no_mute_is_refused_with_field_and_fix() {
    let good = CreateMute {
        matcher: labelled("fsn1"),
        reason: "new switch".into(),
        from: None,
        until: None,
        for_secs: Some(3600),
        every: None,
    };
    assert_eq!(good.check(MuteKind::Maintenance, at(0)), Ok(()));
    let every = |text: &str| {
        let (days, at) = days_and_time(text).unwrap();
        Some(Weekly {
            days,
            at,
            tz: ZoneName::new("UTC").unwrap(),
        })
    };
    let kinds = Matcher {
        kind: vec![Kind::BoxDark],
        ..Matcher::default()
    };
    for (field, bad) in [
        (
            "match",
            CreateMute {
                matcher: Matcher::default(),
                ..good.clone()
            },
        ),
        (
            "match.kind",
            CreateMute {
                matcher: kinds,
                ..good.clone()
            },
        ),
        (
            "reason",
            CreateMute {
                reason: " ".into(),
                ..good.clone()
            },
        ),
        (
            "reason",
            CreateMute {
                reason: "a\nb".into(),
                ..good.clone()
            },
        ),
        (
            "until",
            CreateMute {
                for_secs: None,
                ..good.clone()
            },
        ),
        (
            "until",
            CreateMute {
                for_secs: None,
                until: Some(at(-1)),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                until: Some(at(10)),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                for_secs: Some(0),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                for_secs: Some(u64::MAX),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                from: Some(at(-7200)),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                every: every("daily 03:00"),
                for_secs: Some(24 * 3600),
                ..good.clone()
            },
        ),
        (
            "for_secs",
            CreateMute {
                every: every("sun 03:00"),
                for_secs: None,
                ..good.clone()
            },
        ),
    ] {
        let err = bad.check(MuteKind::Maintenance, at(0)).unwrap_err();
        assert_eq!(err.field, field, "{err}");
    }
    let weekly = CreateMute {
        every: every("daily 03:00"),
        for_secs: Some(23 * 3600),
        ..good
    };
    assert_eq!(weekly.check(MuteKind::Maintenance, at(0)), Ok(()));
}

/// Mutes in any order, overlapping, some weekly, over four weeks that hold a change of clocks in each zone's year.
fn any_mute() -> impl Strategy<Value = MuteRecord> {
    let start = time("2026-10-11T00:00:00Z").as_second();
    let when = (0_i64..28 * 86_400, 60_i64..3 * 86_400);
    let days = prop::sample::select(vec!["sun", "mon,thu", "daily", "sat-sun", "fri"]);
    let every = prop::option::of((days, 0_u8..24, 0_usize..4, 1_u64..20));
    let ended = prop::option::weighted(0.3, 0_i64..28 * 86_400);
    (any::<bool>(), prop::bool::ANY, when, every, ended).prop_map(
        move |(silence, here, (from, length), every, ended)| {
            let kind = if silence {
                MuteKind::Silence
            } else {
                MuteKind::Maintenance
            };
            let from = Timestamp::from_second(start + from).unwrap();
            let mut record = once(0, kind, labelled(if here { "fsn1" } else { "nbg1" }), 0, 0);
            (record.from, record.until) = (from, from.checked_add(SignedDuration::from_secs(length)).ok());
            if let Some((days, hour, tz, hours)) = every {
                let (days, at) = days_and_time(&format!("{days} {hour:02}:30")).unwrap();
                record.every = Some(Weekly {
                    days,
                    at,
                    tz: ZoneName::new(ZONES[tz].0).unwrap(),
                });
                record.for_secs = Some(hours * 3600);
                record.until = None;
            }
            let at = ended.and_then(|secs| Timestamp::from_second(start + secs).ok());
            record.ended = at
                .filter(|at| *at > from)
                .map(|at| Signed { by: "bob".into(), at });
            record
        },
    )
}

/// Whether `record` mutes at `now`, worked out minute by minute from what its zone's clocks show.
fn muted_by_hand(record: &MuteRecord, now: Timestamp) -> bool {
    if now < record.from || record.until.is_some_and(|until| now >= until) {
        return false;
    }
    let (Some(every), Some(secs)) = (&record.every, record.for_secs) else {
        return true;
    };
    let zone = zone(&every.tz).unwrap();
    let minutes = i64::try_from(secs / 60).unwrap();
    (0..minutes).any(|back| {
        let begun = now.checked_sub(SignedDuration::from_mins(back)).unwrap();
        let begun = begun
            .checked_sub(SignedDuration::from_secs(begun.as_second().rem_euclid(60)))
            .unwrap();
        begins(&zone, every, begun)
    })
}

/// Whether a window begins at `minute`: the clock shows its time for the first time that day, or has just skipped it.
fn begins(zone: &TimeZone, every: &Weekly, minute: Timestamp) -> bool {
    let shown = zone.to_datetime(minute);
    let wanted = (every.at.hour(), every.at.minute());
    let day = protocol::weekly::Day::ALL[usize::from(shown.date().weekday().to_monday_zero_offset() as u8)];
    if !every.days.contains(&day) {
        return false;
    }
    let earlier = |mins: i64| zone.to_datetime(minute.checked_sub(SignedDuration::from_mins(mins)).unwrap());
    if (shown.hour(), shown.minute()) == wanted {
        return (1..=120).all(|mins| earlier(mins) != shown);
    }
    // Skipped: the time that is wanted never shows, and this is as much later as the clocks were put forward.
    (1..=60).any(|shift| {
        let before = shown.checked_sub(SignedDuration::from_mins(shift)).unwrap();
        let skips = zone
            .to_ambiguous_timestamp(before)
            .compatible()
            .is_ok_and(|then| then == minute);
        skips
            && before.date() == shown.date()
            && (before.hour(), before.minute()) == wanted
            && zone.to_datetime(minute) != before
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// What is muted follows from the windows and `now` alone; each end that leaves something unmuted is told, also when
    /// the clock goes back, also after a restart in the middle.
    #[test]
    fn what_is_muted_is_covered_now_and_every_end_is_told(
        records in prop::collection::vec(any_mute(), 1..6),
        steps in prop::collection::vec((1_i64..9000, prop::bool::weighted(0.1), prop::bool::weighted(0.05)), 50..200),
    ) {
        let dark = incident(Kind::BoxDark, Some("box-1"), "fsn1");
        let numbered: Vec<MuteRecord> = records.into_iter().zip(1..).map(|(record, id)| MuteRecord { id, ..record }).collect();
        // What is known at a time: an end that is yet to come is not.
        let known = |now: Timestamp| -> Vec<MuteRecord> {
            let as_of = |record: &MuteRecord| MuteRecord {
                ended: record.ended.clone().filter(|ended| ended.at <= now),
                ..record.clone()
            };
            numbered.iter().map(as_of).collect()
        };
        let mut now = time("2026-10-11T00:00:00Z");
        let mut latest = now;
        let mut mutes = Mutes::new(known(now), 1, zone);
        mutes.ended(now);
        let mut muted_before = mutes.muted(&dark, now);
        for (secs, back, restart) in steps {
            let step = SignedDuration::from_secs(if back { -secs } else { secs });
            now = now.checked_add(step).unwrap();
            latest = latest.max(now);
            // Nobody unsays that a mute was ended: the records are as of the latest time there was.
            for record in known(latest) {
                if record.ended != mutes.get(record.id).and_then(|known| known.ended.clone()) && mutes.get(record.id).is_some() {
                    mutes.put(record);
                }
            }
            if restart {
                mutes = Mutes::new(known(latest), 1, zone);
                mutes.ended(now);
                muted_before = mutes.muted(&dark, now);
            }
            let ended = mutes.ended(now);
            let muted = mutes.muted(&dark, now);
            let by_hand = known(latest).iter().any(|record| {
                record.ended.is_none() && record.matcher.matches(&dark) && muted_by_hand(record, now)
            });
            prop_assert_eq!(muted.is_some(), by_hand, "{}", now);
            if let (Some(before), None) = (&muted_before, &muted) {
                prop_assert!(ended.iter().any(|ended| ended.id == before.id), "{} ended unheard at {}", before, now);
            }
            if let Some(by) = &muted {
                prop_assert!(by.until > now);
                prop_assert!(mutes.may_be_gone(&name(), &dark.labels, now).is_none_or(|gone| gone.kind == MuteKind::Maintenance));
            }
            muted_before = muted;
        }
    }
}
