//! What is told in bulk comes out as what is told one by one: the simulation of years rests on it.

use proptest::prelude::*;

use super::*;
use crate::liveness::beat::OnTime;
use crate::liveness::history::Steady;

/// Arrivals of all boxes in the order of time: when, which box, its number, and whether the ones around it are on time.
type Arrivals = Vec<(Mono, u32, u64, Kind)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Bulk,
    BulkEnds,
}

const BOXES: u32 = 12;

fn arrivals(gaps: &[(u32, u32, u32)], end: Mono) -> Arrivals {
    let mut all = Vec::new();
    for of in 0..BOXES {
        let mut lost: Vec<(Mono, Mono)> = Vec::new();
        let mut at = Mono::START + 30 * SECOND;
        for (wait_ms, who, gap_ms) in gaps {
            at = at + MS * *wait_ms;
            if *who % BOXES == of {
                lost.push((at, at + MS * *gap_ms));
            }
        }
        let mut mine = Vec::new();
        let mut beat = Mono::START + MS * (of * 83);
        let mut seq = 1;
        while beat < end {
            if !lost.iter().any(|(from, to)| (*from..*to).contains(&beat)) {
                mine.push((beat, of, seq));
            }
            beat = beat + SECOND;
            seq += 1;
        }
        let near = |a: usize, b: usize| match (mine.get(a), mine.get(b)) {
            (Some(a), Some(b)) => b.0.since(a.0) <= SECOND,
            _ => false,
        };
        let calm = |n: usize| n >= 3 && (n - 3..n + 3).all(|at| near(at, at + 1));
        for (n, (beat, of, seq)) in mine.iter().enumerate() {
            let kind = match (calm(n), calm(n + 1)) {
                (true, true) => Kind::Bulk,
                (true, false) => Kind::BulkEnds,
                (false, _) => Kind::Single,
            };
            all.push((*beat, *of, *seq, kind));
        }
    }
    all.sort_by_key(|(at, of, ..)| (*at, *of));
    all
}

fn fleet() -> Judge {
    let mut judge = judge();
    for of in 0..BOXES {
        let site = if of < 6 { "fsn1" } else { "hel1" };
        judge.add(BoxIx(of), &labels(site), None, moment(Mono::START));
    }
    judge
}

fn beat_of(of: u32, seq: u64) -> Arrival {
    Arrival {
        conn: ConnId(u64::from(of)),
        session: Uuid::from_u128(u128::from(of) + 1),
        boot_id: Uuid::from_u128(u128::from(of) + 1),
        seq,
        every: SECOND,
        goodbye: None,
    }
}

fn one_by_one(all: &Arrivals, end: Mono) -> Vec<Event> {
    let mut judge = fleet();
    let mut next = all.iter().peekable();
    let mut tick = Mono::START + TICK;
    let mut events = Vec::new();
    while tick < end {
        while let Some((at, of, seq, _)) = next.next_if(|arrival| arrival.0 <= tick) {
            judge.beat(BoxIx(*of), moment(*at), &beat_of(*of, *seq)).unwrap();
        }
        judge.tick(moment(tick));
        events.extend(judge.take_events());
        tick = tick + TICK;
    }
    events
}

fn in_bulk(all: &Arrivals, end: Mono) -> (Vec<Event>, usize) {
    let mut judge = fleet();
    let mut next = all.iter().peekable();
    let mut counts = [0_u32; BOXES as usize];
    let mut last = Mono::START;
    let mut ticks = 0;
    let mut events = Vec::new();
    let mut arrived = last;
    loop {
        let wanted = judge.next_look(last).max(arrived);
        let ahead = wanted.since(last).as_micros().div_ceil(TICK.as_micros()).max(1);
        let tick = last + TICK * ahead.min(u128::from(u32::MAX)) as u32;
        if let Some((at, of, seq, kind)) = next.next_if(|arrival| arrival.0 <= tick.min(end)) {
            arrived = *at;
            let count = &mut counts[*of as usize];
            if *kind == Kind::Single {
                judge.beat(BoxIx(*of), moment(*at), &beat_of(*of, *seq)).unwrap();
                continue;
            }
            if *count == 0 {
                judge.in_bulk(BoxIx(*of));
            }
            *count += 1;
            if *kind == Kind::BulkEnds {
                let steady = Steady {
                    count: std::mem::take(count),
                    over_secs: 0.0,
                    late_mean_secs: 0.0,
                    late_var_secs2: 0.0,
                };
                let over_secs = f64::from(steady.count);
                let steady = Steady { over_secs, ..steady };
                judge.beats_came(
                    BoxIx(*of),
                    &OnTime {
                        steady,
                        last: moment(*at),
                        seq: *seq,
                    },
                );
            }
            continue;
        }
        if tick >= end {
            return (events, ticks);
        }
        if tick.since(last) > TICK {
            judge.ticks_came(tick - TICK);
        }
        judge.tick(moment(tick));
        events.extend(judge.take_events());
        ticks += 1;
        last = tick;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn bulk_is_what_one_by_one_is(
        gaps in prop::collection::vec((0_u32..30_000, 0_u32..BOXES, 3_000_u32..40_000), 1..25),
        together in prop::collection::vec((0_u32..60_000, 4_000_u32..30_000), 0..3),
    ) {
        // (Shorter gaps change the body, which one by one is reckoned anew only with every 16th beat.)
        // Some whole sites, and once in a while everybody.
        let mut all = gaps;
        for (wait, gap) in together {
            all.push((wait, 0, gap));
            all.extend((1..if gap % 3 == 0 { BOXES } else { 6 }).map(|of| (0, of, gap)));
        }
        let total: u32 = all.iter().map(|(wait, ..)| *wait).sum();
        let end = Mono::START + 200 * SECOND + MS * total;
        let arrivals = arrivals(&all, end);
        let expected = one_by_one(&arrivals, end);
        let (events, ticks) = in_bulk(&arrivals, end);
        let differs = events.iter().zip(&expected).find(|(one, other)| one != other);
        prop_assert!(differs.is_none(), "{differs:#?}");
        prop_assert_eq!(events.len(), expected.len());
        prop_assert!(!events.is_empty() && (ticks as u128) < end.since(Mono::START).as_millis() / 50);
    }
}
