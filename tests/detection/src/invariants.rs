//! What must hold of every run, however small.

use crate::qos::Wrong;
use crate::report::Outcome;

/// False darks per 10,000 box-days that are allowed, where a witness can be asked.
pub const FALSE_DARK_MAX: f64 = 1.0;

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
    none(ours.of(Wrong::Server), "boxes dark by the server's own doing");
    none(ours.of(Wrong::Short), "verdicts before the tolerance");
    none(ours.missed, "deaths not found");
    none(outcome.sum.told.lost, "notifications lost");
    none(
        outcome.sum.told.wrong,
        "notifications out of order or without a cause",
    );
    let false_dark = ours.false_dark() as f64 * 1e4 / outcome.sum.box_days;
    // A few hundred box-years hold about ten times 10,000 box-days.
    if outcome.campaign.witness && false_dark >= FALSE_DARK_MAX {
        all.push(format!("{name}: {false_dark:.2} false darks per 10,000 box-days"));
    }
    all
}
