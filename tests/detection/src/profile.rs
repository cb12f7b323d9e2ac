//! What the weather is made of: every parameter of the generator, with its source. All of them are superposed.
//!
//! Where no source is named the value is this project's choice, made so that the rare things are seen often enough.
//! Nothing here is drawn; [`schedule`](crate::schedule) does that.

use std::ops::RangeInclusive;

/// A range of seconds, evenly drawn.
pub type Secs = (f64, f64);

/// One kind of fleet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Profile {
    /// Its name on the command line.
    pub name: &'static str,
    /// Sites of one fleet; a route flap takes a whole site.
    pub sites: u32,
    /// Boxes of each site.
    pub boxes_per_site: u32,
    /// From the moment a beat is due to its first byte: timer slack, scheduling, other work. 1–50 ms.
    pub jitter_secs: Secs,
    /// Round trip of a box: lognormal with this median, shape [`RTT_SHAPE`], kept within [`RTT_SECS`].
    pub rtt_median_secs: f64,
    /// Share of packets lost in calm hours; each box has its own.
    pub loss_calm: (f64, f64),
    /// … and in the congested ones.
    pub loss_congested: (f64, f64),
    /// Bursts of total loss (the bad state of Gilbert and Elliott, in time) a box-day. With [`BURST_SHAPE`] and
    /// [`BURST_LEAST_SECS`] so many that silences of 4.5 s or more come 0.4–0.7 times a box-day on a home line: FCC,
    /// Measuring Broadband America, raw latency data (0.38–0.7 on fibre). A datacentre: a tenth.
    pub bursts_per_day: f64,
    /// How much boxes differ in that: lognormal with this shape (sigma) and the mean above; 0: all are alike.
    pub burst_spread: f64,
    /// NAT rebinds a box-day: the path is gone for [`REBIND_SECS`], and every connection for good.
    pub rebinds_per_day: f64,
}

/// Home lines: consumer access networks.
pub const HOME: Profile = Profile {
    name: "home",
    sites: 6,
    boxes_per_site: 10,
    jitter_secs: (0.001, 0.050),
    rtt_median_secs: 0.050,
    loss_calm: (0.0005, 0.003),
    loss_congested: (0.01, 0.04),
    bursts_per_day: 3.6,
    burst_spread: 0.0,
    rebinds_per_day: 1.0 / 30.0,
};

/// Rented machines.
pub const DATACENTRE: Profile = Profile {
    name: "datacentre",
    rtt_median_secs: 0.080,
    bursts_per_day: 0.36,
    rebinds_per_day: 1.0 / 365.0,
    ..HOME
};

/// The datacentre's weather on lines that differ: some have a tenth of the bursts, some ten times as many.
pub const MIXED: Profile = Profile {
    name: "mixed",
    burst_spread: 1.0,
    ..DATACENTRE
};

/// A fleet of two boxes in a datacentre: too small for its server to see that everybody falls silent.
pub const SMALL: Profile = Profile {
    name: "small",
    sites: 1,
    boxes_per_site: 2,
    ..DATACENTRE
};

/// Those that are run without a witness as well.
pub const MAIN: [Profile; 2] = [DATACENTRE, HOME];

/// All of them.
pub const PROFILES: [Profile; 4] = [DATACENTRE, HOME, MIXED, SMALL];

/// Round trips lie within this: one continent to the other side of the world.
pub const RTT_SECS: Secs = (0.020, 0.280);
/// Shape (sigma) of the round trips' lognormal distribution over boxes.
pub const RTT_SHAPE: f64 = 0.6;
/// Standard deviation of one packet's delay in calm hours …
pub const SPREAD_CALM_SECS: f64 = 0.0005;
/// … and in congested ones.
pub const SPREAD_CONGESTED_SECS: f64 = 0.040;
/// Congested hours of a day: from 19 to 22 by the site's own clock.
pub const CONGESTED_HOURS: RangeInclusive<u32> = 19..=21;

/// Bursts last as Pareto says, with this shape …
pub const BURST_SHAPE: f64 = 1.5;
/// … from this on: the mean is 2.9 s, with the tail cut …
pub const BURST_LEAST_SECS: f64 = 1.06;
/// … at two minutes (JAIST–EPFL traces: 814 bursts in 6 million samples, the longest about two minutes).
pub const BURST_MOST_SECS: f64 = 120.0;

/// Pauses of a virtual machine (live migration, snapshots; a host's maintenance is "almost always under 10 s, up to
/// 30 s": Azure's documentation of memory-preserving maintenance): how long, and how many a box-year.
pub const FREEZES: [(Secs, f64); 3] = [
    ((1.0, 5.0), 12.0),
    ((5.0, 10.0), 4.0),
    ((30.0, 30.0), 12.0 / 18.0),
];
/// Route flaps take a whole site for so long …
pub const FLAP_SECS: Secs = (10.0, 60.0);
/// … so often a site-year: a box sees 0.1 a month.
pub const FLAPS_PER_YEAR: f64 = 1.2;
/// A NAT rebind.
pub const REBIND_SECS: f64 = 2.0;

/// A machine that crashes and boots again is away for so long …
pub const REBOOT_SECS: Secs = (25.0, 120.0);
/// … so often a box-year.
pub const REBOOTS_PER_YEAR: f64 = 0.5;
/// A machine that dies is away for so long (somebody replaces it) …
pub const DEATH_SECS: Secs = (900.0, 7200.0);
/// … so often a box-year: far more often than in life, so that a hundredth of them are many.
pub const DEATHS_PER_YEAR: f64 = 3.0;
/// All machines of a site die at once (power, a provider's fault), a site-year, and are away for as long.
pub const SITE_DEATHS_PER_YEAR: f64 = 0.5;
/// The watchdog alone dies (its connections are closed by the kernel) and stays away for as long, a box-year.
pub const KILLS_PER_YEAR: f64 = 0.5;
/// The watchdog alone hangs, its connections open, a box-year.
pub const HANGS_PER_YEAR: f64 = 0.5;
/// The watchdog is restarted (an update): away for so long …
pub const RESTART_SECS: Secs = (0.2, 2.0);
/// … so often a box-year.
pub const RESTARTS_PER_YEAR: f64 = 12.0;

/// The server's process is stopped (SIGSTOP, a pause of its machine) for so long …
pub const SERVER_PAUSE_SECS: Secs = (1.0, 30.0);
/// … so often a server-year.
pub const SERVER_PAUSES_PER_YEAR: f64 = 12.0;
/// The server is restarted and down for so long …
pub const SERVER_DOWN_SECS: Secs = (1.0, 20.0);
/// … so often a server-year.
pub const SERVER_RESTARTS_PER_YEAR: f64 = 12.0;
/// One of the server's two paths, or both, is cut for so long …
pub const SERVER_CUT_SECS: Secs = (2.0, 60.0);
/// … so often a server-year each: one path …
pub const SERVER_HALF_CUTS_PER_YEAR: f64 = 8.0;
/// … and both.
pub const SERVER_CUTS_PER_YEAR: f64 = 8.0;

/// A receiver's answer: lognormal with this median …
pub const ANSWER_MEDIAN_SECS: f64 = 0.2;
/// … and this shape: chats and paging services answer within a second.
pub const ANSWER_SHAPE: f64 = 0.6;
/// A receiver takes nothing for so long …
pub const RECEIVER_DOWN_SECS: Secs = (30.0, 3600.0);
/// … so often a receiver-year: 99.97 % of the time it does.
pub const RECEIVER_DOWNS_PER_YEAR: f64 = 6.0;

/// A host of a receiver accepts a connection of the server's in this time.
pub const OWN_ANSWER_SECS: f64 = 0.05;

/// Boxes that an operator declared a witness for are asked at this pace while they are suspect.
pub const WITNESS_EVERY_SECS: f64 = 1.0;
