//! Makes a failing schedule small: of the year of faults that led to something strange, those that are needed.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002) over the list of faults, after cutting off what came long before.

use crate::campaign::Campaign;
use crate::fleet::{Fleet, Setup, Strange};
use crate::schedule::{DAY_SECS, Fault, What};

/// What leads up to it is first looked for in so many seconds before it; else in everything.
const LEADS_SECS: [f64; 3] = [600.0, 6.0 * 3600.0, 10.0 * DAY_SECS];
/// Simulations at most.
const RUNS: u32 = 2000;

/// The smallest list found that still leads to `strange`.
pub fn shrink(campaign: &Campaign<'_>, fleet: u64, faults: &[Fault], strange: &Strange) -> Vec<Fault> {
    let days = (strange.at_secs + 3600.0) / DAY_SECS;
    let until = strange.at_secs + 60.0;
    let fails = |faults: &[Fault]| same(campaign, fleet, faults, days, strange);
    let near: Vec<Fault> = faults
        .iter()
        .filter(|fault| fault.at_secs <= until && concerns(fault.what, strange.of, campaign))
        .copied()
        .collect();
    let mut kept = if fails(&near) { near } else { faults.to_vec() };
    for lead in LEADS_SECS {
        let cut: Vec<Fault> = kept
            .iter()
            .filter(|fault| fault.at_secs + fault.for_secs >= strange.at_secs - lead)
            .copied()
            .collect();
        if fails(&cut) {
            kept = cut;
            break;
        }
    }
    fewest(kept, fails)
}

/// Leaves out what is not needed for it to fail, in ever smaller parts.
pub fn fewest(mut kept: Vec<Fault>, fails: impl Fn(&[Fault]) -> bool) -> Vec<Fault> {
    let mut runs = 0;
    let mut size = kept.len().div_ceil(2);
    while size >= 1 && kept.len() > 1 && runs < RUNS {
        let mut from = 0;
        let before = kept.len();
        while from < kept.len() && runs < RUNS {
            let to = (from + size).min(kept.len());
            let fewer: Vec<Fault> = [&kept[..from], &kept[to..]].concat();
            runs += 1;
            if fails(&fewer) {
                kept = fewer;
            } else {
                from = to;
            }
        }
        if kept.len() == before && size == 1 {
            break;
        }
        size = size.min(kept.len()).div_ceil(2);
    }
    kept
}

/// Whether a box could be touched by it.
fn concerns(what: What, of: u32, campaign: &Campaign<'_>) -> bool {
    match what {
        What::Burst(at)
        | What::Rebind(at)
        | What::Unlucky(at)
        | What::Freeze(at)
        | What::Death(at)
        | What::Kill(at)
        | What::Hang(at) => at == of,
        What::Flap(site) | What::SiteDeath(site) => site == of / campaign.profile.boxes_per_site,
        What::ServerPause
        | What::ServerRestart
        | What::ServerHalfCut(_)
        | What::ServerCut
        | What::ReceiverDown(_) => true,
    }
}

fn same(campaign: &Campaign<'_>, fleet: u64, faults: &[Fault], days: f64, strange: &Strange) -> bool {
    let record = Fleet::run(Setup {
        profile: campaign.profile,
        witness: campaign.witness,
        own: campaign.own,
        seed: campaign.seed,
        fleet,
        days,
        faults,
    });
    record
        .strange
        .iter()
        .any(|one| one.what == strange.what && one.of == strange.of)
}
