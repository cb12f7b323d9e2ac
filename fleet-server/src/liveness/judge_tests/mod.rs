//! Fleets in virtual time: what an operator would be told, and when.

use std::time::Duration;

use jiff::Timestamp;
use protocol::api::Liveness;
use protocol::heartbeat::GoodbyeWhy;
use protocol::names::Labels;
use uuid::Uuid;

use super::*;
use crate::liveness::event::{BlindWhy, Cause, What};
use crate::liveness::self_doubt::TICK;

mod alone;
mod aside;
mod bounded;
mod bulk;
mod excused;
mod server;
mod storms;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// A fleet that beats, and a server that ticks.
struct World {
    judge: Judge,
    now: Mono,
    boxes: Vec<SimBox>,
    /// Events with their times, seconds after the start.
    log: Vec<(f64, Event)>,
    random: u64,
}

struct SimBox {
    next: Mono,
    last: Mono,
    every: Duration,
    session: u128,
    boot: u128,
    seq: u64,
    up: bool,
    /// Beats up to this moment are lost on the way.
    cut_until: Mono,
}

impl World {
    fn new(sites: &[(&str, usize)]) -> Self {
        let mut world = Self {
            judge: judge(),
            now: Mono::START,
            boxes: Vec::new(),
            log: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        };
        for (site, count) in sites {
            for _ in 0..*count {
                world.add(site);
            }
        }
        world
    }

    fn add(&mut self, site: &str) {
        let ix = BoxIx(self.boxes.len() as u32);
        let offset = self.chance(1000);
        self.judge.add(ix, &labels(site), None, moment(self.now));
        self.boxes.push(SimBox {
            next: self.now + MS * offset,
            last: self.now,
            every: SECOND,
            session: u128::from(ix.0) + 1,
            boot: u128::from(ix.0) + 1,
            seq: 0,
            up: true,
            cut_until: Mono::default(),
        });
    }

    fn chance(&mut self, below: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((self.random >> 33) % u64::from(below.max(1))) as u32
    }

    fn run(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        while self.now < end {
            let tick = self.now + TICK;
            self.arrivals(tick);
            self.now = tick;
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.judge.tick(moment(self.now));
        let at = self.now.since(Mono::START).as_secs_f64();
        let events = self.judge.take_events();
        self.log.extend(events.into_iter().map(|event| (at, event)));
    }

    /// The server does nothing for so long; the boxes go on, and what they sent waits in sockets.
    fn stop(&mut self, how_long: Duration) {
        let end = self.now + how_long;
        for sim in &mut self.boxes {
            while sim.up && sim.next < end {
                sim.next = sim.next + sim.every;
                sim.seq += 1;
            }
        }
        self.now = end;
        self.tick();
    }

    fn arrivals(&mut self, until: Mono) {
        for at in 0..self.boxes.len() {
            let jitter = MS * self.chance(50);
            let sim = &mut self.boxes[at];
            if !sim.up || sim.next > until {
                continue;
            }
            let arrives = sim.next;
            sim.seq += 1;
            sim.next = arrives + sim.every - 25 * MS + jitter;
            if arrives > sim.cut_until {
                sim.last = arrives;
                let beat = sim.beat(at);
                self.judge.beat(BoxIx(at as u32), moment(arrives), &beat).unwrap();
            }
        }
    }

    fn kill(&mut self, boxes: std::ops::Range<usize>) {
        self.boxes[boxes].iter_mut().for_each(|sim| sim.up = false);
    }

    fn revive(&mut self, boxes: std::ops::Range<usize>) {
        let now = self.now;
        for sim in &mut self.boxes[boxes] {
            sim.up = true;
            sim.next = sim.next.max(now);
        }
    }

    fn state(&self, at: usize) -> Liveness {
        self.judge.row(BoxIx(at as u32)).unwrap().state
    }

    /// Verdicts that would be told of one by one.
    fn dark(&self) -> Vec<(f64, u32, Cause)> {
        self.log
            .iter()
            .filter_map(|(at, event)| match event {
                Event::Box(change) => match change.what {
                    What::Dark { cause, .. } if cause != Cause::Group => Some((*at, change.ix.0, cause)),
                    What::Silent { .. } => Some((*at, change.ix.0, Cause::HostAnswers)),
                    _ => None,
                },
                _ => None,
            })
            .collect()
    }

    /// All other news: words in order.
    fn news(&self) -> Vec<String> {
        self.log
            .iter()
            .filter_map(|(_, event)| match event {
                Event::StormOpened {
                    group,
                    members,
                    expected,
                    ..
                } => Some(format!("{group}: {} of {expected}", members.len())),
                Event::StormOver {
                    group, stragglers, ..
                } => Some(format!("{group} over, {} left", stragglers.len())),
                Event::Blind { why, .. } => Some(match why {
                    BlindWhy::Collapse => "blind".to_owned(),
                    BlindWhy::Overload => "overloaded".to_owned(),
                    BlindWhy::NoWayOut => "no way out".to_owned(),
                }),
                Event::SeesAgain { .. } => Some("sees again".to_owned()),
                Event::Duplicate { ix, .. } => Some(format!("duplicate {}", ix.0)),
                Event::DuplicateOver { ix, .. } => Some(format!("duplicate {} over", ix.0)),
                Event::Straggler { ix, .. } => Some(format!("straggler {}", ix.0)),
                Event::Box(_) | Event::StormChanged { .. } => None,
            })
            .collect()
    }

    /// The server's process ends and starts again after `down`; what it saved it still knows.
    fn restart(&mut self, down: Duration) {
        let saved: Vec<_> = (0..self.boxes.len() as u32)
            .map(|at| self.judge.memory(BoxIx(at), moment(self.now)).unwrap())
            .collect();
        self.stop(down);
        self.judge = Judge::new(&LivenessSettings::default(), &["site".into()], self.now, false);
        for (at, memory) in saved.iter().enumerate() {
            self.judge.add(
                BoxIx(at as u32),
                &Labels::default(),
                Some(memory),
                moment(self.now),
            );
        }
    }
}

impl SimBox {
    fn beat(&self, conn: usize) -> Arrival {
        Arrival {
            conn: ConnId(conn as u64),
            session: Uuid::from_u128(self.session),
            boot_id: Uuid::from_u128(self.boot),
            seq: self.seq,
            every: self.every,
            goodbye: None,
        }
    }
}

fn judge() -> Judge {
    let labels = ["site".to_owned(), "provider".to_owned()];
    Judge::new(&LivenessSettings::default(), &labels, Mono::START, false)
}

/// `site`, or `site@provider`.
fn labels(site: &str) -> Labels {
    let (site, provider) = site.split_once('@').unwrap_or((site, ""));
    let given = [("site", site), ("provider", provider)];
    Labels::from_texts(given.into_iter().filter(|(_, value)| !value.is_empty())).unwrap()
}

fn moment(mono: Mono) -> Moment {
    let start = Timestamp::from_second(1_763_755_200).unwrap();
    Moment {
        mono,
        wall: start + mono.since(Mono::default()),
    }
}
