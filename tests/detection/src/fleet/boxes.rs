//! The boxes of a fleet: who they are, their way, and whether they are played out.

use std::time::Duration;

use fleet_server::incident::facts::BoxInfo;
use fleet_server::liveness::beat::{Arrival, OnTime};
use fleet_server::liveness::time::Mono;
use fleet_server::liveness::{BoxIx, ConnId};
use fleet_server::store::BoxId;
use protocol::names::{BoxName, Labels};
use protocol::witness::Targets;
use uuid::Uuid;

use super::Setup;
use crate::calm::Calm;
use crate::client::{Around, Client, EVERY, Outcome};
use crate::dice::Dice;
use crate::path::{self, Broken, Interruption, Sending, ServerTimes};
use crate::profile::Profile;
use crate::schedule::moment;
use crate::schedule::{Fault, What};

/// How a box is played.
#[derive(Debug)]
pub(super) enum Mode {
    /// In fair weather: not at all.
    Calm {
        /// When its last beat that was played went out.
        last_sent: Mono,
        /// On which connection.
        conn: ConnId,
        /// On which of the server's paths.
        route: usize,
    },
    /// Every packet.
    Active(Box<Client>),
    /// There is nobody.
    Gone,
}

/// One box.
#[derive(Debug)]
pub(super) struct SimBox {
    pub(super) ix: BoxIx,
    pub(super) path: path::Path,
    pub(super) calm: Calm,
    pub(super) dice: Dice,
    pub(super) mode: Mode,
    /// Not calm before this.
    pub(super) busy_until: Mono,
    /// A witness is being asked about it, again and again.
    pub(super) asking: bool,
    /// What took it away.
    pub(super) gone_with: Option<Fault>,
    seq: u64,
    conns: u64,
    session: u64,
    boot: u64,
}

/// All boxes of a fleet.
pub(super) fn draw(setup: &Setup<'_>, now: Mono) -> Vec<SimBox> {
    let profile = setup.profile;
    let boxes = profile.sites * profile.boxes_per_site;
    let mut own = interruptions(profile, setup.faults);
    (0..boxes)
        .map(|of| {
            let mut dice = Dice::of(&[setup.seed, setup.fleet, 4, u64::from(of)]);
            let path = path::Path::draw(profile, &mut dice, std::mem::take(&mut own[of as usize]));
            SimBox {
                ix: BoxIx(of),
                calm: Calm::measure(profile, &path.fair(), &mut dice),
                path,
                dice,
                mode: Mode::Gone,
                busy_until: now,
                asking: false,
                gone_with: None,
                seq: 0,
                conns: 0,
                session: 1,
                boot: 1,
            }
        })
        .collect()
}

/// By box: what interrupts it. Who is gone cannot go again.
fn interruptions(profile: &Profile, faults: &[Fault]) -> Vec<Vec<Interruption>> {
    let per_site = profile.boxes_per_site;
    let mut all = vec![Vec::new(); (profile.sites * per_site) as usize];
    let mut gone_until = vec![Mono::default(); all.len()];
    for fault in faults {
        let (from, to) = (fault.from(), fault.to());
        let mut add = |at: u32, of: Broken| all[at as usize].push(Interruption { from, to, of });
        let mut die = |at: u32, of: Broken| {
            if gone_until[at as usize] < from {
                gone_until[at as usize] = to + Duration::from_secs(60);
                add(at, of);
            }
        };
        match fault.what {
            What::Burst(at) => add(at, Broken::Path),
            What::Rebind(at) => add(at, Broken::Rebind),
            What::Freeze(at) => add(at, Broken::Frozen),
            What::Flap(site) => (site * per_site..(site + 1) * per_site).for_each(|at| add(at, Broken::Path)),
            What::Death(at) => die(at, Broken::Off),
            What::SiteDeath(site) => {
                (site * per_site..(site + 1) * per_site).for_each(|at| die(at, Broken::Off));
            }
            What::Kill(at) | What::Hang(at) => die(at, Broken::Watchdog),
            What::Unlucky(_)
            | What::ServerPause
            | What::ServerRestart
            | What::ServerHalfCut(_)
            | What::ServerCut
            | What::ReceiverDown(_) => {}
        }
    }
    all
}

impl SimBox {
    pub(super) fn info(&self, setup: &Setup<'_>) -> BoxInfo {
        let site = format!("site-{}", self.ix.0 / setup.profile.boxes_per_site);
        BoxInfo {
            ix: self.ix,
            // The store's ids start at 1; 0 is the canary.
            id: BoxId(i64::from(self.ix.0) + 1),
            name: BoxName::new(format!("box-{}", self.ix.0)).unwrap_or_else(|_| unreachable!("a fair name")),
            labels: Labels::from_texts([("site", site)]).unwrap_or_default(),
            witnesses: Targets::default(),
        }
    }

    /// The beats since `last_sent` whose time came before `now`.
    pub(super) fn calm_beats(&mut self, last_sent: Mono, now: Mono, profile: &Profile) -> OnTime {
        let count = now
            .since(last_sent)
            .as_micros()
            .div_ceil(EVERY.as_micros())
            .max(1) as u32
            - 1;
        self.seq += u64::from(count);
        let sent = last_sent + EVERY * count;
        let jitter = Duration::from_secs_f64(self.dice.between(profile.jitter_secs));
        let arrived = sent + jitter + self.path.delay(&mut self.dice, sent);
        OnTime {
            steady: self.calm.steady(count, f64::from(count) * EVERY.as_secs_f64()),
            last: moment(arrived),
            seq: self.seq,
        }
    }

    pub(super) fn arrival(&self, conn: ConnId, seq: u64, session: u64) -> Arrival {
        let own = u128::from(self.ix.0 + 1) << 64;
        Arrival {
            conn,
            session: Uuid::from_u128(own + u128::from(session)),
            boot_id: Uuid::from_u128(own + u128::from(self.boot)),
            seq,
            every: EVERY,
            goodbye: None,
        }
    }

    /// Another process speaks for it.
    pub(super) fn reborn(&mut self, rebooted: bool) {
        self.session += 1;
        self.boot += u64::from(rebooted);
        self.seq = 0;
    }

    /// One packet, now.
    pub(super) fn sending(&self, at: Mono, route: usize) -> Sending {
        Sending {
            at,
            route,
            conn_since: at,
            rto: self.path.rto(),
            unlucky: 0,
        }
    }

    pub(super) fn around<'a>(
        &'a mut self,
        server: &'a ServerTimes,
        profile: &Profile,
        out: &'a mut Vec<(Mono, Outcome)>,
    ) -> Around<'a> {
        Around {
            path: &self.path,
            server,
            dice: &mut self.dice,
            seq: &mut self.seq,
            conns: &mut self.conns,
            session: self.session,
            jitter_secs: profile.jitter_secs,
            out,
        }
    }
}
