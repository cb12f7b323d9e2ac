//! Pure: when the canary goes dark, and what came of it.
//!
//! A run: the canary beats until it is live and the server judges, then falls silent right after a beat was taken (the
//! moment of its *death*, the worst one: a whole interval passes before anything is overdue), and beats again when the
//! notification has arrived everywhere, or has not in time. The limit is the canary's own deadline and the grace.
//!
//! A run proves nothing against the server while the server itself says that it judges nobody (warming up, blind,
//! overloaded, store failing: each says so by other ways) or was paused during the run: it is skipped, and tried again
//! soon. A failed one is tried again soon too, so that the page ends soon after the fault.

use std::time::Duration;

use protocol::api::Liveness;

use crate::incident::canary::{Failed, Stage};
use crate::liveness::time::Mono;
use crate::settings::CanarySettings;

/// A skipped or failed run is repeated after this, or after the usual time if that is shorter.
const AGAIN: Duration = Duration::from_secs(60);
/// The first run after the start: the figures are there soon, and boxes come first.
const FIRST: Duration = Duration::from_secs(30);
/// How long it beats before it may die: long enough to be in nobody's books as just come back.
const ALIVE: Duration = Duration::from_secs(3);

/// What the shell sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sees {
    /// Now.
    pub now: Mono,
    /// Whether the server judges; if not, the word for why.
    pub judges: Result<(), &'static str>,
    /// Pauses of the server's own so far.
    pub pauses: u64,
    /// The canary's liveness.
    pub state: Liveness,
    /// How long it may be silent by its own history.
    pub dark_after: Duration,
    /// When its last beat was taken.
    pub taken: Option<Mono>,
    /// Why the last one was not, if it was not.
    pub error: Option<String>,
    /// Receivers that have not got the notification of this death; none: it has arrived everywhere.
    pub missing: Vec<String>,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The notification arrived, so long after the death.
    Proven(Duration),
    /// It proves nothing: the word for why.
    Skipped(&'static str),
    /// It did not arrive in time.
    Failed(Failed),
}

/// The canary's life.
#[derive(Debug, Clone)]
pub struct Rounds {
    every: Duration,
    grace: Duration,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// It beats; the next run is due at `due`.
    Alive { due: Mono, live_since: Option<Mono> },
    /// It is silent.
    Dead { at: Mono, limit: Mono, pauses: u64 },
}

impl Rounds {
    /// From the server's start.
    pub fn new(settings: &CanarySettings, now: Mono) -> Self {
        Self {
            every: settings.every,
            grace: settings.grace,
            phase: Phase::Alive {
                due: now + settings.every.min(FIRST),
                live_since: None,
            },
        }
    }

    /// Whether it beats.
    pub fn beats(&self) -> bool {
        matches!(self.phase, Phase::Alive { .. })
    }

    /// The moment of its death, while it is dead.
    pub fn died(&self) -> Option<Mono> {
        match self.phase {
            Phase::Dead { at, .. } => Some(at),
            Phase::Alive { .. } => None,
        }
    }

    /// Time has passed, or something was seen.
    pub fn step(&mut self, sees: &Sees) -> Option<Outcome> {
        match self.phase {
            Phase::Alive { due, live_since } => self.alive(due, live_since, sees),
            Phase::Dead { at, limit, pauses } => self.dead(at, limit, pauses, sees),
        }
    }

    fn alive(&mut self, due: Mono, live_since: Option<Mono>, sees: &Sees) -> Option<Outcome> {
        let live = sees.state == Liveness::Live && sees.error.is_none() && sees.taken.is_some();
        let live_since = live.then(|| live_since.unwrap_or(sees.now));
        self.phase = Phase::Alive { due, live_since };
        if sees.now < due {
            return None;
        }
        if let Err(why) = sees.judges {
            return Some(self.over(Outcome::Skipped(why), sees.now));
        }
        match (live_since, sees.taken) {
            (Some(since), Some(taken)) => {
                // Only in the moment in which a beat was taken: then the figure is from that beat on.
                let dies = sees.now.since(since) >= ALIVE && taken >= due;
                if dies {
                    self.phase = Phase::Dead {
                        at: taken,
                        limit: taken + sees.dark_after + self.grace,
                        pauses: sees.pauses,
                    };
                }
                None
            }
            (Some(_) | None, _) if sees.now.since(due) >= sees.dark_after + self.grace => {
                let failed = Failed {
                    stage: Stage::Ingest,
                    waited: sees
                        .taken
                        .map_or(sees.now.since(due), |taken| sees.now.since(taken)),
                    missing: Vec::new(),
                    error: sees.error.clone(),
                };
                Some(self.over(Outcome::Failed(failed), sees.now))
            }
            (Some(_) | None, _) => None,
        }
    }

    fn dead(&mut self, at: Mono, limit: Mono, pauses: u64, sees: &Sees) -> Option<Outcome> {
        let waited = sees.now.since(at);
        let outcome = if sees.missing.is_empty() {
            Outcome::Proven(waited)
        } else if let Err(why) = sees.judges {
            Outcome::Skipped(why)
        } else if sees.now < limit {
            return None;
        } else if sees.pauses != pauses {
            Outcome::Skipped("paused")
        } else {
            Outcome::Failed(Failed {
                stage: match sees.state {
                    Liveness::Dark | Liveness::Silent => Stage::Delivery,
                    Liveness::Unseen | Liveness::Live | Liveness::Suspect | Liveness::Away => Stage::Verdict,
                },
                waited,
                missing: sees.missing.clone(),
                error: None,
            })
        };
        Some(self.over(outcome, sees.now))
    }

    fn over(&mut self, outcome: Outcome, now: Mono) -> Outcome {
        let wait = match &outcome {
            // From death to death, however long a run takes.
            Outcome::Proven(took) => self.every.saturating_sub(*took),
            Outcome::Skipped(_) | Outcome::Failed(_) => self.every.min(AGAIN),
        };
        self.phase = Phase::Alive {
            due: now + wait,
            live_since: None,
        };
        outcome
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A canary on a server that takes its beats, judges after 6 s, and delivers half a second later; as told.
    struct World {
        rounds: Rounds,
        now: Mono,
        takes: bool,
        judges: Result<(), &'static str>,
        notices: bool,
        delivers: bool,
        pauses: u64,
        taken: Option<Mono>,
        out: Vec<(u64, Outcome)>,
    }

    impl World {
        fn new(every: u64) -> Self {
            let settings = CanarySettings {
                every: Duration::from_secs(every),
                grace: Duration::from_secs(20),
                receiver: None,
            };
            Self {
                rounds: Rounds::new(&settings, Mono::START),
                now: Mono::START,
                takes: true,
                judges: Ok(()),
                notices: true,
                delivers: true,
                pauses: 0,
                taken: None,
                out: Vec::new(),
            }
        }

        fn run(&mut self, secs: u64) {
            for tenth in 0..secs * 10 {
                self.now = self.now + 100 * MS;
                let beats = self.rounds.beats() && tenth % 10 == 0;
                if beats && self.takes {
                    self.taken = Some(self.now);
                }
                let silent = self.taken.map_or(Duration::MAX, |taken| self.now.since(taken));
                let dark = self.notices && self.judges.is_ok() && silent >= Duration::from_secs(6);
                let told = dark && self.delivers && silent >= Duration::from_millis(6500);
                let sees = Sees {
                    now: self.now,
                    judges: self.judges,
                    pauses: self.pauses,
                    state: if dark { Liveness::Dark } else { Liveness::Live },
                    dark_after: Duration::from_secs(6),
                    taken: self.taken,
                    error: (!self.takes).then(|| "connection refused".to_owned()),
                    missing: if told { vec![] } else { vec!["fleet-canary".into()] },
                };
                if let Some(outcome) = self.rounds.step(&sees) {
                    self.out.push((self.now.since(Mono::START).as_secs(), outcome));
                }
            }
        }

        fn stage(&self) -> Stage {
            match &self.out.last().unwrap().1 {
                Outcome::Failed(failed) => failed.stage,
                other @ (Outcome::Proven(_) | Outcome::Skipped(_)) => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn it_dies_on_schedule_and_is_told_from_its_last_beat_on() {
        let mut world = World::new(60);
        world.run(600);
        let took: Vec<_> = world.out.iter().map(|(_, outcome)| outcome.clone()).collect();
        assert_eq!(
            took,
            vec![Outcome::Proven(Duration::from_millis(6500)); took.len()]
        );
        let at: Vec<u64> = world.out.iter().map(|(at, _)| *at).collect();
        assert!(at[0] <= 40 && (9..=10).contains(&at.len()), "{at:?}");
        assert!(
            at.windows(2).all(|pair| (59..=62).contains(&(pair[1] - pair[0]))),
            "{at:?}"
        );
    }

    #[test]
    fn each_break_of_the_way_is_named_after_the_deadline_and_the_grace() {
        let mut world = World::new(60);
        world.takes = false;
        world.run(70);
        assert_eq!((world.out[0].0, world.stage()), (56, Stage::Ingest));
        let mut world = World::new(60);
        world.notices = false;
        world.run(70);
        assert_eq!(world.stage(), Stage::Verdict);
        let mut world = World::new(60);
        world.delivers = false;
        world.run(70);
        assert_eq!((world.out[0].0, world.stage()), (56, Stage::Delivery));
        world.delivers = true;
        world.run(70);
        assert!(
            matches!(world.out[1], (_, Outcome::Proven(_))),
            "tried again soon: {:?}",
            world.out
        );
    }

    #[test]
    fn while_nobody_is_judged_or_the_server_was_away_nothing_is_proven() {
        let mut world = World::new(900);
        world.judges = Err("warming_up");
        world.run(100);
        assert_eq!(world.out[0], (30, Outcome::Skipped("warming_up")));
        assert_eq!(
            world.out[1],
            (90, Outcome::Skipped("warming_up")),
            "tried again soon"
        );
        world.judges = Ok(());
        world.run(65);
        assert!(matches!(world.out[2].1, Outcome::Proven(_)));
        world.run(890);
        assert!(world.rounds.died().is_some() || world.out.len() > 3);
        world.judges = Err("blind");
        world.run(10);
        let mut world = World::new(60);
        world.notices = false;
        world.run(40);
        world.pauses += 1;
        world.run(30);
        assert_eq!(world.out.last().unwrap().1, Outcome::Skipped("paused"));
    }

    proptest! {
        /// Whatever it sees: it is never silent for longer than its deadline and the grace, proves nothing that did not
        /// arrive, and accuses nobody who says that he judges nobody.
        #[test]
        fn no_sequence_of_sights_leaves_it_dead_or_lets_it_lie(
            sights in prop::collection::vec(
                (1_u64..3000, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), 0_u64..2), 1..300,
            ),
        ) {
            let mut world = World::new(60);
            let (mut taken, mut pauses) = (None, 0);
            for (step, judges, dark, arrived, takes, pause) in sights {
                world.now = world.now + step as u32 * MS;
                pauses += pause;
                if world.rounds.beats() && takes {
                    taken = Some(world.now);
                }
                let sees = Sees {
                    now: world.now,
                    judges: if judges { Ok(()) } else { Err("blind") },
                    pauses,
                    state: if dark { Liveness::Dark } else { Liveness::Live },
                    dark_after: Duration::from_secs(6),
                    taken,
                    error: (!takes).then(|| "refused".to_owned()),
                    missing: if arrived { vec![] } else { vec!["fleet-canary".into()] },
                };
                let died = world.rounds.died();
                match world.rounds.step(&sees) {
                    Some(Outcome::Proven(took)) => {
                        prop_assert!(arrived && died.is_some_and(|at| world.now.since(at) == took));
                    }
                    Some(Outcome::Failed(failed)) => {
                        prop_assert!(judges && (died.is_none() || !arrived), "{:?}", failed);
                        prop_assert!(died.is_none() == (failed.stage == Stage::Ingest));
                    }
                    Some(Outcome::Skipped(why)) => prop_assert!(!judges || why == "paused"),
                    None => {}
                }
                if let Some(at) = world.rounds.died() {
                    prop_assert!(world.now.since(at) < Duration::from_secs(26));
                }
            }
        }
    }

    #[test]
    fn it_beats_unless_it_is_dead() {
        let mut world = World::new(60);
        world.run(28);
        assert!(world.rounds.beats() && world.rounds.died().is_none());
        world.run(5);
        assert!(!world.rounds.beats() && world.rounds.died().is_some());
    }
}
