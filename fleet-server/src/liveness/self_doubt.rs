//! Is it me? The server's doubt of itself, asked before anybody is judged.
//!
//! Evidence rules:
//! - **A late tick** is time in which little or nothing could arrive: from [`NOTICED`] on every deadline moves by the
//!   excess; from [`LATE`] on it is called a pause. After [`LONG`] or more connections were lost as well: every box gets one full
//!   deadline, and nobody is judged before that ([`ready`](SelfDoubt::ready) says no). A server that is late all the time
//!   may not put judgement off for ever that way: at most [`SHIFT_MAX`] in each [`SHIFT_WINDOW`].
//! - **Overload**: fewer than [`PACE`] of the ticks that [`PACE_WINDOW`] should hold. Such a server does not get round to
//!   what arrives either, so it judges nobody; after [`OVERLOAD_TOLD`] it says so. When it is over everybody gets one full
//!   deadline.
//! - **Dead air**: nobody at all heard for longer than a second and a quarter, of four boxes or more that beat every few
//!   seconds (two seconds, of two or three): when the next beat comes, every deadline moves by that time (`tracker`), again
//!   and again by ten seconds in all. And **a verdict waits until somebody else was heard after it fell due** (`judge`): a
//!   server whose way is cut at that moment says nothing.
//! - **After the start** the same: one full deadline for every box.
//! - **Collapse**: more than [`COLLAPSE`] of the expected boxes are overdue at the moment when the first of them would be
//!   judged (at least [`COLLAPSE_MIN`] boxes, and [`FLEET_MIN`] expected: of one, two or three boxes each is judged by
//!   itself). Then nobody is judged and one incident says that the server may be blind. Unless whole sites explain it:
//!   where other sites with [`HEALTHY_SHARE`] of the boxes are heard well, the server hears.
//! - **No way out** ([`own_way`](super::own_way)): in a fleet too small to collapse, none of the addresses declared for the
//!   server itself answers and nobody is heard. It ends when one answers or somebody is heard.
//! - **It ends** when no more than [`RECOVERED`] are overdue: again one full deadline for everybody. Or when a
//!   [`MINORITY`] has been heard steadily for [`SETTLED`]: a server that hears those is not blind, the others are gone.

use std::collections::VecDeque;
use std::time::Duration;

use super::census::{Census, Count, GroupIx};
use super::own_way::{OwnWay, Says};
use super::time::Mono;

/// Period of the sweep.
pub const TICK: Duration = Duration::from_millis(50);
/// A tick later than this over its period moves the deadlines.
const NOTICED: Duration = Duration::from_millis(25);
/// A tick later than this over its period is a pause.
pub const LATE: Duration = Duration::from_millis(250);
/// A pause that costs connections, not just time.
const LONG: Duration = Duration::from_secs(2);
/// Deadlines move by no more than this …
const SHIFT_MAX: Duration = Duration::from_secs(30);
/// … in each of these.
const SHIFT_WINDOW: Duration = Duration::from_secs(60);
/// The pace of the sweep is watched over this.
const PACE_WINDOW: Duration = Duration::from_secs(5);
/// Share of the ticks that must have come.
const PACE: f64 = 0.6;
/// An overload longer than this is told.
const OVERLOAD_TOLD: Duration = Duration::from_secs(30);
/// Share of overdue boxes that is a collapse.
const COLLAPSE: f64 = 0.4;
/// Overdue boxes that can be one.
const COLLAPSE_MIN: u32 = 3;
/// Fleets smaller than this cannot collapse.
pub const FLEET_MIN: u32 = 4;
/// Share of all boxes, in sites that are well, that clears the server.
const HEALTHY_SHARE: f64 = 0.2;
/// A site is well with no more than this share overdue.
const WELL: f64 = 0.1;
/// Share of overdue boxes that ends a blindness.
const RECOVERED: f64 = 0.3;
/// A minority that is heard for so long counts.
const SETTLED: Duration = Duration::from_secs(60);
/// Which minority.
const MINORITY: f64 = 0.1;

/// The doubt, over time.
#[derive(Debug, Clone)]
pub struct SelfDoubt {
    full_deadline: Duration,
    last_tick: Option<Mono>,
    warm_until: Mono,
    blind_since: Option<Mono>,
    /// While blind: since when a minority has been heard without a break.
    minority_since: Option<Mono>,
    overload: Option<Overload>,
    /// The ticks of the last [`PACE_WINDOW`].
    ticks: VecDeque<Mono>,
    shifted: Duration,
    shifted_since: Mono,
    pauses: u64,
    /// The server's own way out.
    pub(super) own: OwnWay,
}

/// The server does not get round to its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Overload {
    since: Mono,
    told: bool,
}

/// What the time since the last tick says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Nothing.
    None,
    /// Move every deadline by so much.
    Short(Duration),
    /// Every box gets one full deadline.
    Long(Duration),
}

/// What the census says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Judge.
    Clear,
    /// Judge nobody.
    Blind,
    /// Judge nobody: arrivals have just collapsed.
    BlindNow(Count),
    /// Judge nobody: the server's own way out is cut.
    CutOffNow(Count),
    /// Judge nobody: the server has been overloaded for so long that it must be told.
    OverloadedNow,
    /// No longer overloaded, before it was told: everybody gets one full deadline.
    Rested,
    /// Seeing again after so long: everybody gets one full deadline.
    Recovered(Duration),
    /// Not blind after all: the overdue ones are gone together.
    Settled(Duration),
}

impl SelfDoubt {
    /// At the server's start: warming up until `full_deadline` has passed. `blind`: it was so when it ended.
    pub fn new(now: Mono, full_deadline: Duration, blind: bool) -> Self {
        Self {
            full_deadline,
            last_tick: None,
            warm_until: now + full_deadline,
            blind_since: blind.then_some(now),
            overload: None,
            ticks: VecDeque::new(),
            minority_since: None,
            shifted: Duration::ZERO,
            shifted_since: now,
            pauses: 0,
            own: OwnWay::default(),
        }
    }

    /// Whether it can judge: neither warming up nor blind nor overloaded.
    pub fn ready(&self, now: Mono) -> bool {
        !self.warming(now) && self.blind_since.is_none() && self.overload.is_none()
    }

    /// Whether it does not get round to its work.
    pub fn overloaded(&self) -> bool {
        self.overload.is_some()
    }

    /// Whether everybody still has their full deadline.
    pub fn warming(&self, now: Mono) -> bool {
        now < self.warm_until
    }

    /// Whether it may be blind.
    pub fn blind(&self) -> bool {
        self.blind_since.is_some()
    }

    /// Pauses of its own so far.
    pub fn pauses(&self) -> u64 {
        self.pauses
    }

    /// Nobody is judged before a full deadline has passed.
    pub fn warm_up(&mut self, now: Mono) {
        self.warm_until = self.warm_until.max(now + self.full_deadline);
    }

    /// Ticks came on time up to `until`, and there was nothing to do in them.
    pub fn ticks_came(&mut self, until: Mono) {
        self.last_tick = Some(until);
        self.ticks.clear();
        let window = (PACE_WINDOW.as_micros() / TICK.as_micros()) as u32;
        self.ticks
            .extend((0..=window).rev().map(|ago| until - TICK * ago));
    }

    /// To be asked first in each tick.
    pub fn pause(&mut self, now: Mono) -> Pause {
        let before = self.last_tick.replace(now).unwrap_or(now);
        let excess = now.since(before).saturating_sub(TICK);
        self.keep_pace(now);
        if excess < NOTICED {
            return Pause::None;
        }
        self.pauses += u64::from(excess >= LATE);
        if excess >= LONG {
            self.ticks.clear();
            self.warm_up(now);
            return Pause::Long(excess);
        }
        if now.since(self.shifted_since) >= SHIFT_WINDOW {
            self.shifted_since = now;
            self.shifted = Duration::ZERO;
        }
        let shift = excess.min(SHIFT_MAX.saturating_sub(self.shifted));
        self.shifted += shift;
        if shift.is_zero() {
            Pause::None
        } else {
            Pause::Short(shift)
        }
    }

    /// To be asked before anybody is judged. `due`: somebody would be judged now.
    pub fn look(&mut self, now: Mono, census: &Census, due: bool) -> Sight {
        if let Some(sight) = self.look_at_pace(now) {
            return sight;
        }
        let all = census.all(GroupIx::FLEET);
        if all.expected < FLEET_MIN {
            return self.look_at_own_way(now, all, due);
        }
        let count = census.count(GroupIx::FLEET, FLEET_MIN);
        let Some(since) = self.blind_since else {
            if !due || !collapsed(count) || sites_explain(census) {
                return Sight::Clear;
            }
            self.blind_since = Some(now);
            return Sight::BlindNow(count);
        };
        let blind_for = now.since(since);
        let share = share(count);
        if count.expected > 0 && share <= RECOVERED {
            self.sees();
            self.warm_up(now);
            return Sight::Recovered(blind_for);
        }
        let heard = count.expected - count.overdue;
        if heard == 0 || 1.0 - share < MINORITY {
            self.minority_since = None;
            return Sight::Blind;
        }
        // Steady: when an outage ends, everybody passes through "a few are heard" on the way back.
        let steady_since = *self.minority_since.get_or_insert(now);
        if now.since(steady_since) >= SETTLED {
            self.sees();
            return Sight::Settled(blind_for);
        }
        Sight::Blind
    }

    /// Of one, two or three boxes.
    fn look_at_own_way(&mut self, now: Mono, all: Count, due: bool) -> Sight {
        if let Some(since) = self.blind_since {
            if !self.own.open_after(since) {
                return Sight::Blind;
            }
            self.sees();
            self.warm_up(now);
            return Sight::Recovered(now.since(since));
        }
        match self.own.says(now) {
            Says::Wait if due => Sight::Blind,
            Says::Cut if due => {
                self.blind_since = Some(now);
                Sight::CutOffNow(all)
            }
            Says::Nothing | Says::Open | Says::Wait | Says::Cut => Sight::Clear,
        }
    }

    fn sees(&mut self) {
        self.blind_since = None;
        self.minority_since = None;
    }

    fn keep_pace(&mut self, now: Mono) {
        self.ticks.push_back(now);
        // One tick older than the window stays: it shows that the window is covered.
        while self
            .ticks
            .get(1)
            .is_some_and(|second| now.since(*second) >= PACE_WINDOW)
        {
            self.ticks.pop_front();
        }
    }

    fn too_slow(&self, now: Mono) -> bool {
        let first = self.ticks.front();
        let covered = first.is_some_and(|first| now.since(*first) >= PACE_WINDOW);
        let wanted = PACE_WINDOW.as_secs_f64() / TICK.as_secs_f64();
        covered && (self.ticks.len() as f64) < wanted * PACE
    }

    fn look_at_pace(&mut self, now: Mono) -> Option<Sight> {
        match (self.too_slow(now), &mut self.overload) {
            (false, None) => None,
            (true, None) => {
                self.overload = Some(Overload {
                    since: now,
                    told: false,
                });
                Some(Sight::Blind)
            }
            (true, Some(overload)) if !overload.told && now.since(overload.since) >= OVERLOAD_TOLD => {
                overload.told = true;
                Some(Sight::OverloadedNow)
            }
            (true, Some(_)) => Some(Sight::Blind),
            (false, Some(overload)) => {
                let Overload { since, told } = *overload;
                self.overload = None;
                self.warm_up(now);
                // A blindness besides it goes on, and has the incident.
                let over = told && self.blind_since.is_none();
                Some(if over {
                    Sight::Recovered(now.since(since))
                } else {
                    Sight::Rested
                })
            }
        }
    }
}

fn collapsed(count: Count) -> bool {
    count.expected >= FLEET_MIN && count.overdue >= COLLAPSE_MIN && share(count) > COLLAPSE
}

/// Whether groups that are well hold enough boxes to show that the server hears. Any of the labels may show it.
fn sites_explain(census: &Census) -> bool {
    let all = census.all(GroupIx::FLEET);
    census.by_label().any(|groups| {
        let well: u32 = groups
            .map(|group| census.all(group))
            .filter(|count| count.expected > 0 && share(*count) <= WELL)
            .map(|count| count.expected - count.overdue)
            .sum();
        well >= COLLAPSE_MIN && f64::from(well) >= HEALTHY_SHARE * f64::from(all.expected)
    })
}

fn share(count: Count) -> f64 {
    f64::from(count.overdue) / f64::from(count.expected.max(1))
}
