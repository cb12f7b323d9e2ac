//! What a server would see of the plan, whatever it answers: in virtual time, with no connection at all.

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// How the far side treats what it gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Server {
    Answers { after: Duration },
    Hangs,
    RefusesConnections,
    SwallowsConnections,
    Resets { after: Duration },
    Says(Said, Duration),
}

#[derive(Debug)]
enum Event {
    Connected,
    Answered(Said),
    Lost,
}

/// A plan and a server, played in steps of one millisecond at least.
struct Play {
    plan: Plan,
    start: Instant,
    now: Instant,
    due: Vec<(Instant, usize, u64, Event)>,
    generation: [u64; LANES],
    sent: Vec<Duration>,
    opened: Vec<(Duration, u32)>,
    most: usize,
    wakes: u64,
}

#[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
fn start() -> Instant {
    Instant::now()
}

impl Play {
    fn new(every: Duration) -> Self {
        let start = start();
        Self {
            plan: Plan::new(start, every, 7),
            start,
            now: start,
            due: Vec::new(),
            generation: [0; LANES],
            sent: Vec::new(),
            opened: Vec::new(),
            most: 0,
            wakes: 0,
        }
    }

    fn run(&mut self, server: Server, until: Duration) {
        let end = self.start + until;
        loop {
            self.act(server);
            let next = self.due.iter().map(|e| e.0).min();
            let wake = next.into_iter().chain([self.plan.wake(self.now)]).min().unwrap();
            assert!(
                wake > self.now || next.is_some_and(|at| at <= self.now),
                "must not spin"
            );
            if wake >= end {
                self.now = end;
                return;
            }
            self.wakes += 1;
            self.now = wake;
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (ready, later) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|e| e.0 <= now);
        self.due = later;
        let ready: Vec<(Instant, usize, u64, Event)> = ready;
        for (_, lane, generation, event) in ready {
            if self.generation[lane] != generation {
                continue;
            }
            match event {
                Event::Connected => self.plan.connected(now, lane),
                Event::Answered(said) => self.plan.answered(now, lane, said),
                Event::Lost => self.plan.lost(now, lane),
            }
        }
    }

    fn act(&mut self, server: Server) {
        let rtt = Duration::from_millis(20);
        let mut steps = 0;
        while let Some(action) = self.plan.step(self.now) {
            steps += 1;
            assert!(steps <= 2 * LANES + 2, "endless: {action:?}");
            let at = self.now - self.start;
            match action {
                Action::Open { lane, turn } => {
                    self.generation[lane] += 1;
                    self.opened.push((at, turn));
                    match server {
                        Server::SwallowsConnections => {}
                        Server::RefusesConnections => self.later(lane, rtt, Event::Lost),
                        _ => self.later(lane, rtt * 3, Event::Connected),
                    }
                }
                Action::Send { lane } => {
                    self.sent.push(at);
                    match server {
                        Server::Answers { after } => {
                            self.later(lane, after, Event::Answered(Said::Taken { every: SECOND }));
                        }
                        Server::Says(said, after) => self.later(lane, after, Event::Answered(said)),
                        Server::Resets { after } => self.later(lane, after, Event::Lost),
                        Server::RefusesConnections => self.later(lane, rtt, Event::Lost),
                        Server::Hangs | Server::SwallowsConnections => {}
                    }
                }
                Action::Close { lane } => self.generation[lane] += 1,
            }
            self.most = self.most.max(self.plan.connections());
        }
    }

    fn later(&mut self, lane: usize, after: Duration, event: Event) {
        self.due
            .push((self.now + after, lane, self.generation[lane], event));
    }
}

/// The longest time without a beat leaving, from the first one to `end`.
fn longest_gap(sent: &[Duration], end: Duration) -> Duration {
    let ends = sent.iter().skip(1).chain([&end]);
    sent.iter()
        .zip(ends)
        .map(|(a, b)| b.saturating_sub(*a))
        .max()
        .unwrap_or(end)
}

#[test]
fn a_healthy_server_gets_one_a_second_on_one_connection_without_drift() {
    let mut play = Play::new(SECOND);
    play.run(
        Server::Answers {
            after: Duration::from_millis(30),
        },
        SECOND * 100,
    );
    assert_eq!(play.sent.len(), 100);
    assert_eq!(play.opened.len(), 1);
    for (n, at) in play.sent.iter().enumerate().skip(1) {
        assert_eq!(*at, SECOND * n as u32);
    }
}

#[test]
fn a_hanging_answer_costs_one_beat() {
    let mut play = Play::new(SECOND);
    play.run(
        Server::Answers {
            after: Duration::from_millis(30),
        },
        SECOND * 10,
    );
    play.run(Server::Hangs, SECOND * 18);
    // Each second a beat went out, on a connection opened half a second before.
    assert_eq!(play.sent.len(), 18);
    assert!(
        longest_gap(&play.sent, SECOND * 18) <= SECOND + Duration::from_millis(100),
        "{:?}",
        play.sent
    );
    assert!(play.most <= LANES);
}

#[test]
fn a_slow_server_keeps_two_connections_and_the_grid() {
    let mut play = Play::new(SECOND);
    play.run(
        Server::Answers {
            after: Duration::from_millis(1700),
        },
        SECOND * 60,
    );
    assert_eq!(play.sent.len(), 60);
    assert!(play.opened.len() <= 4, "{:?}", play.opened);
}

#[test]
fn addresses_take_turns_until_one_answers() {
    let mut play = Play::new(SECOND);
    play.run(Server::SwallowsConnections, SECOND * 3);
    let turns: Vec<u32> = play.opened.iter().map(|o| o.1).collect();
    assert_eq!(turns[..4], [0, 1, 2, 3]);
    assert_eq!(
        play.opened[1].0,
        Duration::from_millis(500),
        "the other family has its turn after half a second"
    );
}

#[test]
fn a_dead_server_is_tried_every_few_seconds_and_not_more() {
    let mut play = Play::new(SECOND);
    play.run(Server::RefusesConnections, SECOND * 130);
    let late = play.opened.iter().filter(|o| o.0 > SECOND * 11).count();
    assert!((35..=61).contains(&late), "{late} openings in 119 s");
    let before = play.now - play.start;
    play.run(
        Server::Answers {
            after: Duration::from_millis(30),
        },
        SECOND * 140,
    );
    let first = play.sent.iter().find(|at| **at > before).unwrap();
    assert!(
        first.saturating_sub(before) <= CALM_GAP + CALM_JITTER + SECOND,
        "{:?} after it came back",
        first.saturating_sub(before)
    );
}

#[test]
fn a_connection_closed_under_a_beat_is_replaced_at_once() {
    let mut play = Play::new(SECOND);
    play.run(
        Server::Answers {
            after: Duration::from_millis(30),
        },
        SECOND * 10 + Duration::from_millis(500),
    );
    play.run(
        Server::Resets {
            after: Duration::from_millis(20),
        },
        SECOND * 11 + Duration::from_millis(19),
    );
    play.run(
        Server::Answers {
            after: Duration::from_millis(30),
        },
        SECOND * 11 + Duration::from_millis(500),
    );
    let after: Vec<_> = play.sent.iter().filter(|at| **at >= SECOND * 11).collect();
    assert_eq!(after.len(), 2, "{after:?}");
    assert_eq!(
        after[1].saturating_sub(*after[0]),
        Duration::from_millis(80),
        "20 ms to notice, 60 ms to connect"
    );
}

#[test]
fn refusals_slow_down_and_never_stop() {
    let ms = Duration::from_millis(10);
    let mut play = Play::new(SECOND);
    play.run(
        Server::Says(
            Said::SlowDown {
                pause: Duration::from_secs(9999),
            },
            ms,
        ),
        HELD_MAX * 5,
    );
    assert_eq!(play.sent.len(), 5, "one a minute: {:?}", play.sent);
    play.run(Server::Answers { after: ms }, HELD_MAX * 6);
    assert!(
        play.sent.len() >= 5 + 58,
        "back to one a second: {}",
        play.sent.len()
    );
    let mut play = Play::new(SECOND);
    play.run(
        Server::Says(
            Said::Taken {
                every: Duration::from_secs(999_999),
            },
            ms,
        ),
        limits::INTERVAL_MAX * 3,
    );
    assert_eq!(play.sent.len(), 3);
    assert_eq!(play.plan.interval(), limits::INTERVAL_MAX);
}

#[test]
fn a_500_keeps_the_pace() {
    let mut play = Play::new(SECOND);
    play.run(
        Server::Says(Said::Refused, Duration::from_millis(10)),
        SECOND * 30,
    );
    assert_eq!(play.sent.len(), 30);
    assert_eq!(play.opened.len(), 1);
}

#[test]
fn a_suspend_is_not_caught_up_with() {
    let mut play = Play::new(SECOND);
    let server = Server::Answers {
        after: Duration::from_millis(10),
    };
    play.run(server, SECOND * 10);
    let before = play.sent.len();
    play.now += SECOND * 600;
    play.deliver();
    play.run(server, SECOND * 615);
    assert!(play.sent.len() - before <= 7, "{}", play.sent.len() - before);
}

#[test]
fn a_change_is_told_at_once_and_a_storm_of_them_is_bounded() {
    let mut play = Play::new(SECOND);
    let server = Server::Answers {
        after: Duration::from_millis(10),
    };
    play.run(server, Duration::from_millis(1_400));
    play.plan.urge();
    play.run(server, Duration::from_millis(1_401));
    assert_eq!(*play.sent.last().unwrap(), Duration::from_millis(1_400));
    let before = play.sent.len();
    for ms in 1_401..2_401 {
        play.plan.urge();
        play.run(server, Duration::from_millis(ms));
    }
    assert!(play.sent.len() - before <= 5, "{}", play.sent.len() - before);
}

#[test]
fn a_goodbye_is_repeated_until_taken_and_then_nothing_follows() {
    let mut play = Play::new(SECOND);
    let server = Server::Answers {
        after: Duration::from_millis(10),
    };
    play.run(server, SECOND * 5);
    play.plan.leave(play.now);
    play.run(Server::Hangs, SECOND * 7);
    let tries = play.sent.iter().filter(|at| **at >= SECOND * 5).count();
    assert!(tries >= 3, "{tries}");
    play.run(server, SECOND * 8);
    assert!(play.plan.is_gone());
    let before = play.sent.len();
    play.run(server, SECOND * 20);
    assert_eq!(play.sent.len(), before);
    play.plan.stay(play.now);
    play.run(server, SECOND * 25);
    assert_eq!(play.sent.len(), before + 5);
}

fn any_server() -> impl Strategy<Value = Server> {
    let ms = |max: u64| (1..max).prop_map(Duration::from_millis);
    prop_oneof![
        ms(4000).prop_map(|after| Server::Answers { after }),
        Just(Server::Hangs),
        Just(Server::RefusesConnections),
        Just(Server::SwallowsConnections),
        ms(3000).prop_map(|after| Server::Resets { after }),
        ms(3000).prop_map(|after| Server::Says(Said::Refused, after)),
        (ms(90_000), ms(500)).prop_map(|(pause, after)| Server::Says(Said::SlowDown { pause }, after)),
    ]
}

proptest! {
    /// Whatever a server does, in whatever order: connections stay bounded, work stays bounded, and something is
    /// always tried within the longest of the interval and the calm gap.
    #[test]
    fn nothing_stops_it(
        every_ms in prop_oneof![250_u64..2_000, 2_000_u64..30_000],
        servers in prop::collection::vec((any_server(), 1_u64..40), 1..8),
    ) {
        let every = Duration::from_millis(every_ms);
        let mut play = Play::new(every);
        let mut until = Duration::ZERO;
        for (server, secs) in servers {
            until += Duration::from_secs(secs);
            play.run(server, until);
        }
        prop_assert!(play.most <= LANES);
        prop_assert!(play.wakes < 100 + until.as_millis() as u64 / 10, "{} wakes in {until:?}", play.wakes);
        let mut tries: Vec<Duration> = play.sent.iter().copied().chain(play.opened.iter().map(|o| o.0)).collect();
        tries.sort();
        let longest = longest_gap(&tries, until);
        let allowed = every.max(HELD_MAX).max(CALM_GAP + CALM_JITTER + GIVE_UP);
        prop_assert!(longest <= allowed, "{longest:?} without a try");
    }

    /// As long as no server asks for a pause, the allowance is the interval or the calm gap.
    #[test]
    fn an_attempt_an_interval(
        every_ms in 250_u64..3_000,
        servers in prop::collection::vec((any_server(), 1_u64..40), 1..8),
    ) {
        let every = Duration::from_millis(every_ms);
        let mut play = Play::new(every);
        let mut until = Duration::ZERO;
        for (server, secs) in servers {
            if matches!(server, Server::Says(Said::SlowDown { .. }, _)) {
                continue;
            }
            until += Duration::from_secs(secs);
            play.run(server, until);
        }
        let mut tries: Vec<Duration> = play.sent.iter().copied().chain(play.opened.iter().map(|o| o.0)).collect();
        tries.sort();
        let longest = longest_gap(&tries, until);
        let allowed = every.max(SECOND) + CALM_GAP + CALM_JITTER;
        prop_assert!(longest <= allowed, "{longest:?} without a try");
    }

    /// In the first ten seconds after an answer, every due beat leaves within its interval.
    #[test]
    fn the_rush_misses_no_beat(every_ms in 500_u64..2_000, answers in 3_u32..20) {
        let every = Duration::from_millis(every_ms);
        let mut play = Play::new(every);
        play.run(Server::Answers { after: Duration::from_millis(20) }, every * answers);
        let end = every * (answers - 1) + Duration::from_secs(9);
        play.run(Server::Hangs, end);
        // With four hanging connections one is given up after two seconds at the earliest.
        let floor = GIVE_UP / LANES as u32 + Duration::from_millis(60);
        prop_assert!(longest_gap(&play.sent, end) <= every.max(floor) + Duration::from_millis(560));
    }
}
