//! What must hold of every run, however small.

use crate::profile::{DATACENTRE, MAIN};
use crate::qos::Wrong;
use crate::report::Outcome;

/// False darks per 10,000 box-days that are allowed.
pub const FALSE_DARK_MAX: f64 = 1.0;

/// With a witness, in a datacentre, half of all deaths are found within this …
pub const MEDIAN_MAX_SECS: f64 = 4.5;
/// … and 99 of 100 within this.
pub const P99_MAX_SECS: f64 = 7.0;
/// Fewer deaths than this have no 99th percentile to speak of.
const ENOUGH: u64 = 2000;

/// Each one that does not hold, in a sentence.
pub fn broken(outcome: &Outcome<'_>) -> Vec<String> {
    let ours = &outcome.sum.ours;
    let name = outcome.heading();
    let mut all = Vec::new();
    let mut none = |count: u64, what: &str| {
        if count > 0 {
            all.push(format!("{name}: {count} {what}"));
        }
    };
    // The two other profiles are there to show what is harder: they count among the false darks.
    if MAIN.contains(outcome.campaign.profile) && outcome.campaign.own {
        none(ours.of(Wrong::Server), "boxes dark by the server's own doing");
    }
    none(
        ours.of(Wrong::Short) + ours.of(Wrong::Early),
        "verdicts before the tolerance",
    );
    none(
        outcome.sum.forgotten,
        "boxes that stayed dark although they were heard",
    );
    none(ours.missed, "deaths not found");
    none(outcome.sum.told.lost, "notifications lost");
    none(outcome.sum.told.untold, "pages or ends that nobody was told of");
    none(
        outcome.sum.told.wrong,
        "notifications out of order or without a cause",
    );
    let false_dark = ours.false_dark() as f64 * 1e4 / outcome.sum.box_days;
    // A hundred box-years hold about four times 10,000 box-days.
    if false_dark >= FALSE_DARK_MAX {
        all.push(format!("{name}: {false_dark:.2} false darks per 10,000 box-days"));
    }
    let (median, p99) = (ours.detection_secs(0.5), ours.detection_secs(0.99));
    let promised = outcome.campaign.witness && outcome.campaign.profile.name == DATACENTRE.name;
    if promised && ours.found >= ENOUGH && (median > MEDIAN_MAX_SECS || p99 > P99_MAX_SECS) {
        all.push(format!(
            "{name}: deaths found after {median:.2} s (median), {p99:.2} s (p99)"
        ));
    }
    all
}
