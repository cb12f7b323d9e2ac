//! The way between one box and the server: what interrupts it, what it loses, and when a message arrives that TCP
//! repeats until it does.
//!
//! Linux's figures: the first repetition after the smoothed round trip and at least 200 ms (`TCP_RTO_MIN`), then twice
//! as long each time; a SYN after 1 s, 3 s, 7 s.

use std::time::Duration;

use fleet_server::liveness::time::Mono;

use crate::dice::Dice;
use crate::profile::{self, Profile};
use crate::schedule::{DAY_SECS, Fault, secs_of};

/// Repetitions of one message at most.
const TRIES: u32 = 9;
/// Linux's least time before a repetition.
const RTO_MIN: Duration = Duration::from_millis(200);
/// Before a first SYN is repeated.
pub const SYN_RTO: Duration = Duration::from_secs(1);
/// Interruptions that ended so long ago are looked at no more.
const PAST: Duration = Duration::from_secs(600);

/// Time in which something of a box did not work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interruption {
    /// Its first moment.
    pub from: Mono,
    /// The first moment after it.
    pub to: Mono,
    /// What did not work.
    pub of: Broken,
}

/// What can be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Packets are lost.
    Path,
    /// Packets are lost, and connections from before never work again.
    Rebind,
    /// The machine stands still, and goes on as if nothing had been.
    Frozen,
    /// The machine is off; nothing of before comes back.
    Off,
    /// Only the watchdog is gone.
    Watchdog,
}

impl Interruption {
    /// Whether nothing was left that could beat.
    pub fn is_death(&self) -> bool {
        match self.of {
            Broken::Off | Broken::Watchdog => true,
            Broken::Path | Broken::Rebind | Broken::Frozen => false,
        }
    }
}

/// Who is to blame for a lost packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The box, its path.
    Own,
    /// The server's own paths.
    Server,
}

/// When the server's paths are cut, and when it stands still or is down.
#[derive(Debug, Clone, Default)]
pub struct ServerTimes {
    /// By path.
    pub cuts: [Vec<(Mono, Mono)>; 2],
    /// Standing still: what arrives waits.
    pub pauses: Vec<(Mono, Mono)>,
    /// No process: what arrives is refused.
    pub downs: Vec<(Mono, Mono)>,
}

impl ServerTimes {
    /// Whether nothing passes on `route`.
    pub fn cut(&self, route: usize, at: Mono) -> bool {
        within(&self.cuts[route % 2], at).is_some()
    }

    /// When something that arrives `at` is looked at; `None`: it is refused.
    pub fn handled(&self, at: Mono) -> Option<Mono> {
        let at = within(&self.pauses, at).unwrap_or(at);
        within(&self.downs, at).is_none().then_some(at)
    }

    /// When a process that would say something at `at`, of a silence since `last`, can say it: not while it stands still; and
    /// one that is started anew has heard of nobody, so that the silence begins with its start.
    pub fn spoken(&self, last: Mono, mut at: Mono) -> Mono {
        let after = at.since(last);
        for (from, to) in &self.downs {
            if *to > last && *from < at {
                at = *to + after;
            }
        }
        within(&self.pauses, at).unwrap_or(at)
    }

    /// Whether the server itself was in trouble at any time of this.
    pub fn troubled(&self, from: Mono, to: Mono) -> bool {
        let all = self.cuts.iter().chain([&self.pauses, &self.downs]).flatten();
        all.clone().any(|(start, end)| *start < to && *end > from)
    }
}

fn within(all: &[(Mono, Mono)], at: Mono) -> Option<Mono> {
    let next = all.partition_point(|(_, to)| *to <= at);
    all.get(next).filter(|(from, _)| *from <= at).map(|(_, to)| *to)
}

/// One box's way.
#[derive(Debug, Clone)]
pub struct Path {
    /// Round trip in fair weather, seconds.
    pub rtt_secs: f64,
    loss_calm: f64,
    loss_congested: f64,
    /// Own interruptions, by their beginning.
    own: Vec<Interruption>,
    seen: usize,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// When it arrived; `None`: never.
    pub arrived: Option<Mono>,
    /// When it would have arrived at the first try that only the server's own trouble cost.
    pub but_for_server: Option<Mono>,
}

/// How one message is sent.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    /// First try.
    pub at: Mono,
    /// Of the server's two paths.
    pub route: usize,
    /// Since when the connection stands.
    pub conn_since: Mono,
    /// Before the first repetition.
    pub rto: Duration,
    /// Tries that are lost whatever the weather.
    pub unlucky: u32,
}

impl Path {
    /// Drawn for one box.
    pub fn draw(profile: &Profile, dice: &mut Dice, own: Vec<Interruption>) -> Self {
        let rtt = profile.rtt_median_secs * (profile::RTT_SHAPE * dice.normal()).exp();
        Self {
            rtt_secs: rtt.clamp(profile::RTT_SECS.0, profile::RTT_SECS.1),
            loss_calm: dice.between(profile.loss_calm),
            loss_congested: dice.between(profile.loss_congested),
            own,
            seen: 0,
        }
    }

    /// The same way without interruptions.
    #[must_use]
    pub fn fair(&self) -> Self {
        Self {
            own: Vec::new(),
            seen: 0,
            ..*self
        }
    }

    /// Whether this death is one of its interruptions (another may have been under way).
    pub fn is_own(&self, fault: &Fault) -> bool {
        let (from, to) = (fault.from(), fault.to());
        self.own[self.seen..]
            .iter()
            .any(|one| one.is_death() && (one.from, one.to) == (from, to))
    }

    /// What ended long before `now` is looked at no more.
    pub fn forget(&mut self, now: Mono) {
        while self.own.get(self.seen).is_some_and(|one| one.to + PAST < now) {
            self.seen += 1;
        }
    }

    /// Interruptions that touch this time.
    pub fn between(&self, from: Mono, to: Mono) -> impl Iterator<Item = &Interruption> {
        self.own[self.seen..]
            .iter()
            .take_while(move |one| one.from < to)
            .filter(move |one| one.to > from)
    }

    /// The interruption of the machine or its watchdog at this moment, the longest.
    pub fn standing_still(&self, at: Mono) -> Option<&Interruption> {
        self.at(at)
            .filter(|one| match one.of {
                Broken::Frozen | Broken::Off | Broken::Watchdog => true,
                Broken::Path | Broken::Rebind => false,
            })
            .max_by_key(|one| one.to)
    }

    /// RTO of a connection that stands.
    pub fn rto(&self) -> Duration {
        RTO_MIN + Duration::from_secs_f64(self.rtt_secs)
    }

    /// One way of a packet, at this time of day.
    pub fn delay(&self, dice: &mut Dice, at: Mono) -> Duration {
        let spread = if congested(at) {
            profile::SPREAD_CONGESTED_SECS
        } else {
            profile::SPREAD_CALM_SECS
        };
        Duration::from_secs_f64(self.rtt_secs / 2.0 + (spread * dice.normal()).abs())
    }

    /// Sends a message until it arrives, or is given up.
    pub fn send(&self, dice: &mut Dice, server: &ServerTimes, sending: Sending) -> Passage {
        let mut at = sending.at;
        let mut wait = sending.rto;
        let mut but_for_server = None;
        for n in 0..TRIES {
            let lost = n < sending.unlucky || dice.chance(self.loss(at));
            let delay = self.delay(dice, at);
            match self.blocked(server, at, sending) {
                None if !lost => {
                    return Passage {
                        arrived: Some(at + delay),
                        but_for_server,
                    };
                }
                Some(Blame::Server) if !lost && but_for_server.is_none() => but_for_server = Some(at + delay),
                None | Some(Blame::Own | Blame::Server) => {}
            }
            at = at + wait;
            wait *= 2;
        }
        Passage {
            arrived: None,
            but_for_server,
        }
    }

    /// Whether a packet has no chance, and why.
    pub fn blocked(&self, server: &ServerTimes, at: Mono, sending: Sending) -> Option<Blame> {
        let now_broken = self.at(at).any(|one| one.of != Broken::Watchdog);
        if now_broken || self.outlived(at, sending.conn_since) {
            return Some(Blame::Own);
        }
        server.cut(sending.route, at).then_some(Blame::Server)
    }

    /// Share of packets lost at this time of day.
    pub fn loss(&self, at: Mono) -> f64 {
        if congested(at) {
            self.loss_congested
        } else {
            self.loss_calm
        }
    }

    fn at(&self, at: Mono) -> impl Iterator<Item = &Interruption> {
        self.between(at, at + Duration::from_micros(1))
    }

    /// A connection from before this cannot work any more.
    fn outlived(&self, at: Mono, conn_since: Mono) -> bool {
        self.between(conn_since, at)
            .any(|one| matches!(one.of, Broken::Rebind | Broken::Off) && one.from >= conn_since)
    }
}

/// Whether it is evening.
pub fn congested(at: Mono) -> bool {
    let hour = (secs_of(at).rem_euclid(DAY_SECS) / 3600.0) as u32;
    profile::CONGESTED_HOURS.contains(&hour)
}
