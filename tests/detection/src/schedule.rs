//! What happens to one fleet, and when: drawn from a profile and a seed, as a plain list that can be written down,
//! replayed, and shortened.
//!
//! It knows nothing of beats.

use fleet_server::liveness::time::{Moment, Mono};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::profile::{self, Profile};

/// Seconds of a day.
pub const DAY_SECS: f64 = 86_400.0;
/// Seconds of a year.
pub const YEAR_SECS: f64 = 365.25 * DAY_SECS;
/// Nothing happens before this: everybody has beaten for a while.
const SETTLE_SECS: f64 = 600.0;
/// The server stops again no sooner than this.
const BETWEEN_STOPS_SECS: f64 = 5.0;

/// Receivers of [`CONFIG`](crate::desk::CONFIG).
const RECEIVERS: u8 = 3;

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Seconds after the start.
    pub at_secs: f64,
    /// For how long.
    pub for_secs: f64,
    /// What.
    pub what: What,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// All packets of a box are lost.
    Burst(u32),
    /// All packets of a site are lost.
    Flap(u32),
    /// A box's address or port changes on the way: its connections are gone.
    Rebind(u32),
    /// Three packets of one beat are lost one after the other, in otherwise fair weather.
    Unlucky(u32),
    /// A box's machine stands still.
    Freeze(u32),
    /// A box's machine is gone, and comes back with another boot id.
    Death(u32),
    /// All machines of a site are gone.
    SiteDeath(u32),
    /// A box's watchdog ends, and another is started.
    Kill(u32),
    /// A box's watchdog hangs and is replaced.
    Hang(u32),
    /// The server stands still.
    ServerPause,
    /// The server ends and is started again.
    ServerRestart,
    /// The server's first or second path is cut.
    ServerHalfCut(u8),
    /// Both are.
    ServerCut,
    /// A receiver takes nothing.
    ReceiverDown(u8),
}

impl What {
    /// Whether it is the server's own trouble.
    pub fn is_the_servers(self) -> bool {
        matches!(
            self,
            Self::ServerPause | Self::ServerRestart | Self::ServerHalfCut(_) | Self::ServerCut
        )
    }
}

impl Fault {
    /// When it begins.
    pub fn from(&self) -> Mono {
        after(self.at_secs)
    }

    /// When it is over.
    pub fn to(&self) -> Mono {
        after(self.at_secs + self.for_secs)
    }
}

/// So many seconds after the start.
pub fn after(secs: f64) -> Mono {
    Mono::from_micros(Mono::START.as_micros() + (secs * 1e6) as u64)
}

/// Seconds after the start.
pub fn secs_of(at: Mono) -> f64 {
    (at.as_micros() as f64 - Mono::START.as_micros() as f64) / 1e6
}

/// Both clocks, which agree here.
pub fn moment(mono: Mono) -> Moment {
    let wall = Timestamp::UNIX_EPOCH + mono.since(Mono::default());
    Moment { mono, wall }
}

/// Everything that happens to fleet number `fleet` within `days`, in order.
pub fn draw(profile: &Profile, seed: u64, fleet: u64, days: f64) -> Vec<Fault> {
    let mut all = Vec::new();
    let boxes = profile.sites * profile.boxes_per_site;
    let horizon = days * DAY_SECS;
    for of in 0..boxes {
        let mut dice = Dice::of(&[seed, fleet, 1, u64::from(of)]);
        // Lines differ: the mean over boxes stays.
        let spread = profile.burst_spread;
        let differs = Dice::of(&[seed, fleet, 8, u64::from(of)]).normal();
        let bursts = (spread * differs - spread * spread / 2.0).exp() * profile.bursts_per_day;
        of_box(profile, (of, bursts), horizon, &mut dice, &mut all);
    }
    for site in 0..profile.sites {
        let mut dice = Dice::of(&[seed, fleet, 2, u64::from(site)]);
        poisson(&mut dice, horizon, profile::FLAPS_PER_YEAR, &mut all, |dice| {
            (dice.between(profile::FLAP_SECS), What::Flap(site))
        });
        let mut dice = Dice::of(&[seed, fleet, 9, u64::from(site)]);
        poisson(
            &mut dice,
            horizon,
            profile::SITE_DEATHS_PER_YEAR,
            &mut all,
            |dice| (dice.between(profile::DEATH_SECS), What::SiteDeath(site)),
        );
    }
    of_server(horizon, &mut Dice::of(&[seed, fleet, 3]), &mut all);
    for receiver in 0..RECEIVERS {
        // A stream of its own: the boxes' weather is the same whatever receivers do.
        let mut dice = Dice::of(&[seed, fleet, 6, u64::from(receiver)]);
        poisson(
            &mut dice,
            horizon,
            profile::RECEIVER_DOWNS_PER_YEAR,
            &mut all,
            |dice| {
                let secs = dice.between(profile::RECEIVER_DOWN_SECS);
                (secs, What::ReceiverDown(receiver))
            },
        );
    }
    all.sort_by(|a, b| a.at_secs.total_cmp(&b.at_secs));
    one_stop_at_a_time(&mut all);
    all
}

/// A server that stands still cannot be restarted, nor the other way round.
fn one_stop_at_a_time(all: &mut Vec<Fault>) {
    let mut until = 0.0;
    all.retain(|fault| {
        if !matches!(fault.what, What::ServerPause | What::ServerRestart) {
            return true;
        }
        let free = fault.at_secs > until;
        if free {
            until = fault.at_secs + fault.for_secs + BETWEEN_STOPS_SECS;
        }
        free
    });
}

fn of_box(
    profile: &Profile,
    (of, bursts_per_day): (u32, f64),
    horizon: f64,
    dice: &mut Dice,
    all: &mut Vec<Fault>,
) {
    let year = YEAR_SECS / DAY_SECS;
    poisson(dice, horizon, bursts_per_day * year, all, |dice| {
        let secs = dice.pareto(
            profile::BURST_LEAST_SECS,
            profile::BURST_SHAPE,
            profile::BURST_MOST_SECS,
        );
        (secs, What::Burst(of))
    });
    poisson(dice, horizon, profile.rebinds_per_day * year, all, |_| {
        (profile::REBIND_SECS, What::Rebind(of))
    });
    for (secs, per_year) in profile::FREEZES {
        poisson(dice, horizon, per_year, all, |dice| {
            (dice.between(secs), What::Freeze(of))
        });
    }
    let gone = [
        (profile::REBOOTS_PER_YEAR, profile::REBOOT_SECS, What::Death(of)),
        (profile::DEATHS_PER_YEAR, profile::DEATH_SECS, What::Death(of)),
        (profile::KILLS_PER_YEAR, profile::DEATH_SECS, What::Kill(of)),
        (profile::HANGS_PER_YEAR, profile::DEATH_SECS, What::Hang(of)),
        (profile::RESTARTS_PER_YEAR, profile::RESTART_SECS, What::Kill(of)),
    ];
    for (per_year, secs, what) in gone {
        poisson(dice, horizon, per_year, all, |dice| (dice.between(secs), what));
    }
    // Three in a row, of a beat a second: what fewer losses do is in the bulk's figures.
    let hours = f64::from(profile::CONGESTED_HOURS.end() - profile::CONGESTED_HOURS.start() + 1);
    let cube = |(low, high): (f64, f64)| (low.powi(4) - high.powi(4)) / (4.0 * (low - high));
    let per_day = 3600.0 * (hours * cube(profile.loss_congested) + (24.0 - hours) * cube(profile.loss_calm));
    poisson(dice, horizon, per_day * year, all, |_| (3.0, What::Unlucky(of)));
}

fn of_server(horizon: f64, dice: &mut Dice, all: &mut Vec<Fault>) {
    poisson(dice, horizon, profile::SERVER_PAUSES_PER_YEAR, all, |dice| {
        (dice.between(profile::SERVER_PAUSE_SECS), What::ServerPause)
    });
    poisson(dice, horizon, profile::SERVER_RESTARTS_PER_YEAR, all, |dice| {
        (dice.between(profile::SERVER_DOWN_SECS), What::ServerRestart)
    });
    poisson(dice, horizon, profile::SERVER_HALF_CUTS_PER_YEAR, all, |dice| {
        let secs = dice.between(profile::SERVER_CUT_SECS);
        (secs, What::ServerHalfCut(dice.pick(2) as u8))
    });
    poisson(dice, horizon, profile::SERVER_CUTS_PER_YEAR, all, |dice| {
        (dice.between(profile::SERVER_CUT_SECS), What::ServerCut)
    });
}

fn poisson(
    dice: &mut Dice,
    horizon: f64,
    per_year: f64,
    all: &mut Vec<Fault>,
    mut one: impl FnMut(&mut Dice) -> (f64, What),
) {
    if per_year <= 0.0 {
        return;
    }
    let mut at_secs = SETTLE_SECS;
    loop {
        at_secs += dice.exponential(YEAR_SECS / per_year);
        if at_secs >= horizon {
            return;
        }
        let (for_secs, what) = one(dice);
        all.push(Fault {
            at_secs,
            for_secs,
            what,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_have_their_mean_and_silences_come_as_often_as_measured() {
        let faults = draw(&profile::HOME, 1, 0, 365.0);
        let bursts: Vec<f64> = faults
            .iter()
            .filter(|fault| matches!(fault.what, What::Burst(_)))
            .map(|fault| fault.for_secs)
            .collect();
        let mean = bursts.iter().sum::<f64>() / bursts.len() as f64;
        assert!((2.75..3.05).contains(&mean), "{mean}");
        // A silence is as long as its burst, and half an interval, and what a connection takes to be had again.
        let long = bursts.iter().filter(|secs| **secs + 0.8 >= 4.5).count() as f64;
        let per_day = long / (60.0 * 365.0);
        assert!((0.4..0.7).contains(&per_day), "{per_day}");
    }

    #[test]
    fn a_seed_is_a_schedule() {
        let draw = |seed| draw(&profile::DATACENTRE, seed, 3, 30.0);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert!(draw(1).is_sorted_by(|a, b| a.at_secs <= b.at_secs));
    }
}
