//! Decides for one server when a beat goes out and on which connection. Pure: takes `now`, reads no clock, sends
//! nothing; `sender` does what it says and tells it what came of it.
//!
//! The rules, and where their numbers come from:
//! - Beats are due on a steady grid (`last_due + interval`), so that answers and load cause no drift; whole missed
//!   intervals (a suspend, a stall) are skipped, never caught up with.
//! - A connection carries one beat at a time. A beat still unanswered after half an interval makes a spare connection
//!   open beside it, so that the next beat finds one ready: a hung path costs the server one beat, not two.
//! - At most [`LANES`] connections exist; when all of them hang, the oldest is given up for a fresh one.
//! - For [`RUSH`] after the last answer every beat may have a fresh connection. After that they are spaced by
//!   [`CALM_GAP`] (and jitter), so that ten thousand boxes do not keep a struggling server down with handshakes. That
//!   is still under half of the six seconds after which a server calls a box dark.
//! - A server's answer stretches the interval (to [`limits::INTERVAL_MAX`]), a refusal (429, 401) holds it longer (to
//!   [`HELD_MAX`]); nothing stops it.

use std::time::{Duration, Instant};

use protocol::limits;

/// Connections to one server at most.
pub const LANES: usize = 4;
/// For this long after the last answer each beat may open a fresh connection.
pub const RUSH: Duration = Duration::from_secs(10);
/// After [`RUSH`]: between two openings at least this, and up to [`CALM_JITTER`] more.
pub const CALM_GAP: Duration = Duration::from_secs(2);
/// See [`CALM_GAP`].
pub const CALM_JITTER: Duration = Duration::from_secs(1);
/// How far a refusal can stretch the interval.
pub const HELD_MAX: Duration = Duration::from_secs(60);
/// Between two beats told by a change on the box (a unit that crashes in a loop changes often).
pub const EXTRA_GAP: Duration = limits::INTERVAL_MIN;
/// An unanswered beat is repeated after this, where the interval is longer than it.
pub const REPEAT_AFTER: Duration = Duration::from_secs(3);
/// A goodbye is repeated after this: its whole time is about three seconds.
pub const FAREWELL_GAP: Duration = Duration::from_millis(700);
/// A connection that hangs may be given up for a fresh one after this.
const GIVE_UP: Duration = Duration::from_secs(2);
/// The backstop over the connection's own time-outs.
const STUCK: Duration = Duration::from_secs(15);
/// A second idle connection is closed after this: not sooner, or a slow server would see a handshake every few beats.
const SPARE_IDLE: Duration = Duration::from_secs(60);
const HEDGE_MIN: Duration = Duration::from_millis(250);
const HEDGE_MAX: Duration = Duration::from_secs(2);

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect in this lane. `turn` counts the openings since the last answer: the address to take in turn.
    Open {
        /// Which, under [`LANES`].
        lane: usize,
        /// 0 for the address that answered last.
        turn: u32,
    },
    /// Send a beat (a goodbye, while leaving) on this lane, which is connected.
    Send {
        /// Which.
        lane: usize,
    },
    /// Drop this lane's connection, whatever it is doing.
    Close {
        /// Which.
        lane: usize,
    },
}

/// What a server said to a beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Taken; how often to send from now on.
    Taken {
        /// As the server asks.
        every: Duration,
    },
    /// Not now: 429 or 503, with its Retry-After.
    SlowDown {
        /// How long to wait.
        pause: Duration,
    },
    /// Not taken, and no reason to be slower: 400, 409, 500, …
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Free,
    Opening { since: Instant },
    Idle { since: Instant },
    Awaiting { since: Instant, farewell: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Beating,
    Leaving,
    Gone,
}

/// The state of sending to one server.
#[derive(Debug)]
pub struct Plan {
    every: Duration,
    asked: Duration,
    held: Option<Duration>,
    last_due: Instant,
    started: bool,
    owed: bool,
    extra_wanted: bool,
    last_extra: Option<Instant>,
    repeat_at: Option<Instant>,
    lanes: [Lane; LANES],
    last_answer: Instant,
    last_open: Option<Instant>,
    calm_gap: Duration,
    turn: u32,
    mode: Mode,
    dice: u64,
}

impl Plan {
    /// A beat every `every` from `now` on, the first one at once. `seed` spreads the boxes' reconnections.
    pub fn new(now: Instant, every: Duration, seed: u64) -> Self {
        Self {
            every,
            asked: Duration::ZERO,
            held: None,
            last_due: now,
            started: false,
            owed: false,
            extra_wanted: false,
            last_extra: None,
            repeat_at: None,
            lanes: [Lane::Free; LANES],
            last_answer: now,
            last_open: None,
            calm_gap: CALM_GAP,
            turn: 0,
            mode: Mode::Beating,
            dice: seed | 1,
        }
    }

    /// Between two beats as of now: what a beat announces.
    pub fn interval(&self) -> Duration {
        let wanted = self.every.max(self.asked.min(limits::INTERVAL_MAX));
        wanted.max(self.held.unwrap_or_default())
    }

    /// How many connections exist.
    pub fn connections(&self) -> usize {
        self.lanes.iter().filter(|lane| **lane != Lane::Free).count()
    }

    /// Whether the goodbye was taken.
    pub fn is_gone(&self) -> bool {
        self.mode == Mode::Gone
    }

    /// The box changed: tell it now, or [`EXTRA_GAP`] after the last such beat.
    pub fn urge(&mut self) {
        self.extra_wanted = true;
    }

    /// The goodbye is to be sent, at once, again and again until it is taken.
    pub fn leave(&mut self, now: Instant) {
        self.mode = Mode::Leaving;
        self.owed = true;
        self.repeat_at = Some(now + FAREWELL_GAP);
    }

    /// The box stays after all, or is back.
    pub fn stay(&mut self, now: Instant) {
        if self.mode != Mode::Beating {
            self.mode = Mode::Beating;
            self.last_due = now;
            self.owed = true;
            self.last_answer = now;
        }
    }

    /// Whatever held it back is mended (a new token): the usual interval again.
    pub fn unhold(&mut self) {
        self.held = None;
    }

    /// At most one beat in `pause` (bounded by [`HELD_MAX`]) until the server takes one.
    pub fn hold(&mut self, pause: Duration) {
        self.held = Some(pause.min(HELD_MAX));
    }

    /// A lane's connection stands.
    pub fn connected(&mut self, now: Instant, lane: usize) {
        self.lanes[lane] = Lane::Idle { since: now };
    }

    /// A lane's beat was answered; it is free for the next.
    pub fn answered(&mut self, now: Instant, lane: usize, said: Said) {
        let farewell = matches!(self.lanes[lane], Lane::Awaiting { farewell: true, .. });
        self.lanes[lane] = Lane::Idle { since: now };
        self.last_answer = now;
        self.turn = 0;
        if self.mode == Mode::Beating {
            self.repeat_at = None;
        }
        match said {
            Said::Taken { every } => {
                self.asked = every;
                self.held = None;
                if farewell && self.mode == Mode::Leaving {
                    self.mode = Mode::Gone;
                }
            }
            Said::SlowDown { pause } => self.hold(pause),
            Said::Refused => {}
        }
    }

    /// A lane's connection could not be had, or is gone; a beat on it was not answered.
    pub fn lost(&mut self, now: Instant, lane: usize) {
        let lost_a_beat = matches!(self.lanes[lane], Lane::Awaiting { .. });
        self.lanes[lane] = Lane::Free;
        // The usual race on a kept-alive connection: the server closed it while the beat was under way. Once at once;
        // a path that fails again and again is left to the grid.
        let fresh = self
            .last_open
            .is_none_or(|at| now.saturating_duration_since(at) >= self.gap(now));
        if lost_a_beat && fresh && self.held.is_none() {
            self.owed = true;
        }
    }

    /// What is to be done at `now`; call again until there is nothing.
    pub fn step(&mut self, now: Instant) -> Option<Action> {
        if self.mode == Mode::Gone {
            return None;
        }
        self.note_due(now);
        self.close_stuck(now)
            .or_else(|| self.send_owed(now))
            .or_else(|| self.open(now))
            .or_else(|| self.close_spare(now))
    }

    /// When [`Plan::step`] may have something to do next, if nothing else happens before.
    pub fn wake(&self, now: Instant) -> Instant {
        if self.mode == Mode::Gone {
            return now + limits::INTERVAL_MAX;
        }
        let mut wake = self.due_at();
        let mut consider = |at: Instant| {
            // What has passed waits for something else (a lane to become free), so it is no reason to wake up.
            if at > now {
                wake = wake.min(at);
            }
        };
        if let Some(at) = self.repeat_at {
            consider(at);
        }
        if self.extra_wanted {
            consider(self.last_extra.map_or(now, |at| at + EXTRA_GAP));
        }
        for lane in self.lanes {
            match lane {
                Lane::Free => {}
                Lane::Opening { since } | Lane::Awaiting { since, .. } => {
                    consider(since + self.hedge());
                    consider(since + GIVE_UP);
                    consider(since + STUCK);
                }
                Lane::Idle { since } => consider(since + SPARE_IDLE),
            }
        }
        if let Some(at) = self.last_open {
            consider(at + self.gap(now));
        }
        wake.max(now + Duration::from_millis(1))
    }

    fn due_at(&self) -> Instant {
        match (self.mode, self.started) {
            (Mode::Beating, true) => self.last_due + self.interval(),
            (Mode::Beating, false) => self.last_due,
            (Mode::Leaving | Mode::Gone, _) => self.repeat_at.unwrap_or(self.last_due),
        }
    }

    fn note_due(&mut self, now: Instant) {
        if self.mode == Mode::Beating && now >= self.due_at() {
            let due = self.due_at();
            let late = now.saturating_duration_since(due);
            self.last_due = if late >= self.interval() { now } else { due };
            self.started = true;
            self.owed = true;
        }
        if self.extra_wanted && self.last_extra.is_none_or(|at| now >= at + EXTRA_GAP) {
            self.extra_wanted = false;
            self.last_extra = Some(now);
            // While a server wants to be left alone, a change waits for the next beat; a goodbye has its own pace.
            self.owed |= self.held.is_none() && self.mode == Mode::Beating;
        }
        if self.repeat_at.is_some_and(|at| now >= at) {
            self.owed = true;
            self.repeat_at = (self.mode == Mode::Leaving).then(|| now + FAREWELL_GAP);
        }
    }

    fn close_stuck(&mut self, now: Instant) -> Option<Action> {
        let stuck = |lane: &Lane| match *lane {
            Lane::Free | Lane::Idle { .. } => false,
            Lane::Opening { since } | Lane::Awaiting { since, .. } => now >= since + STUCK,
        };
        let lane = self.lanes.iter().position(stuck)?;
        self.lanes[lane] = Lane::Free;
        Some(Action::Close { lane })
    }

    fn send_owed(&mut self, now: Instant) -> Option<Action> {
        if !self.owed {
            return None;
        }
        let lane = self.freshest_idle()?;
        let farewell = self.mode == Mode::Leaving;
        self.lanes[lane] = Lane::Awaiting { since: now, farewell };
        self.owed = false;
        if self.mode == Mode::Beating {
            let repeats = self.held.is_none() && self.interval() > REPEAT_AFTER;
            self.repeat_at = repeats.then(|| now + REPEAT_AFTER);
        }
        Some(Action::Send { lane })
    }

    /// The connection that answered last is the likeliest to answer again.
    fn freshest_idle(&self) -> Option<usize> {
        let idle = |lane: &Lane| match *lane {
            Lane::Idle { since } => Some(since),
            Lane::Free | Lane::Opening { .. } | Lane::Awaiting { .. } => None,
        };
        let lanes = self.lanes.iter().enumerate();
        lanes
            .filter_map(|(n, lane)| idle(lane).map(|since| (since, n)))
            .max()
            .map(|(_, n)| n)
    }

    fn open(&mut self, now: Instant) -> Option<Action> {
        if !self.wants_connection(now) {
            return None;
        }
        if self.last_open.is_some_and(|at| now < at + self.gap(now)) {
            return None;
        }
        let Some(lane) = self.lanes.iter().position(|lane| *lane == Lane::Free) else {
            return self.give_up_oldest(now);
        };
        self.lanes[lane] = Lane::Opening { since: now };
        self.last_open = Some(now);
        self.calm_gap = CALM_GAP + CALM_JITTER.mul_f64(self.roll());
        let turn = self.turn;
        self.turn = self.turn.wrapping_add(1);
        Some(Action::Open { lane, turn })
    }

    /// A beat is owed, or one hangs and the next would find no connection ready.
    fn wants_connection(&self, now: Instant) -> bool {
        let mut hangs = false;
        for lane in self.lanes {
            match lane {
                Lane::Idle { .. } => return false,
                Lane::Opening { since } if now < since + self.hedge() => return false,
                Lane::Awaiting { since, .. } => hangs |= now >= since + self.hedge(),
                Lane::Opening { .. } | Lane::Free => {}
            }
        }
        self.owed || hangs
    }

    fn give_up_oldest(&mut self, now: Instant) -> Option<Action> {
        if !self.owed {
            return None;
        }
        let since = |lane: &Lane| match *lane {
            Lane::Free | Lane::Idle { .. } => None,
            Lane::Opening { since } | Lane::Awaiting { since, .. } => Some(since),
        };
        let lanes = self.lanes.iter().enumerate();
        let (since, lane) = lanes
            .filter_map(|(n, lane)| since(lane).map(|at| (at, n)))
            .min()?;
        if now < since + GIVE_UP {
            return None;
        }
        self.lanes[lane] = Lane::Free;
        Some(Action::Close { lane })
    }

    fn close_spare(&mut self, now: Instant) -> Option<Action> {
        let freshest = self.freshest_idle()?;
        let spare = |lane: &Lane| matches!(*lane, Lane::Idle { since } if now >= since + SPARE_IDLE);
        let lane = (0..LANES).find(|&n| n != freshest && spare(&self.lanes[n]))?;
        self.lanes[lane] = Lane::Free;
        Some(Action::Close { lane })
    }

    /// How long a beat or an opening may hang before a spare connection opens beside it.
    fn hedge(&self) -> Duration {
        (self.interval() / 2).clamp(HEDGE_MIN, HEDGE_MAX)
    }

    /// Between two openings.
    fn gap(&self, now: Instant) -> Duration {
        if self.mode == Mode::Leaving || now.saturating_duration_since(self.last_answer) < RUSH {
            (self.interval() / 2).clamp(HEDGE_MIN, Duration::from_millis(500))
        } else {
            self.calm_gap
        }
    }

    /// 0 to 1 (xorshift: spreads reconnections, decides nothing).
    fn roll(&mut self) -> f64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests;
