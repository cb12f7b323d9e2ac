//! The smallest part of a schedule that still fails: drops faults, the larger half first. Pure but for what it is given
//! to try a schedule with.

use super::schedule::Schedule;

/// Schedules tried at most: each takes seconds.
const TRIES: usize = 30;

/// The smallest schedule found for which `fails` says so still.
pub(super) fn shrink(schedule: &Schedule, mut fails: impl FnMut(&Schedule) -> bool) -> Schedule {
    let mut smallest = schedule.clone();
    let mut tries = 0;
    let mut part = smallest.faults.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        let mut dropped = false;
        while at < smallest.faults.len() {
            if tries == TRIES {
                return smallest;
            }
            let mut smaller = smallest.clone();
            let end = (at + part).min(smaller.faults.len());
            smaller.faults.drain(at..end);
            tries += 1;
            if fails(&smaller) {
                smallest = smaller;
                dropped = true;
            } else {
                at += part;
            }
        }
        if part == 1 && !dropped {
            break;
        }
        part = (part / 2).max(usize::from(dropped || part > 1));
    }
    smallest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faults::schedule::What;

    #[test]
    fn what_does_not_matter_is_dropped() {
        let mut schedule = Schedule::of(1);
        schedule.faults = (0..40)
            .flat_map(|seed| Schedule::of(seed).faults)
            .take(12)
            .collect();
        schedule.faults[3].what = What::ServerKill;
        schedule.faults[9].what = What::Acknowledge;
        let (kill, ack) = (schedule.faults[3], schedule.faults[9]);
        let needs = |one: &Schedule| one.faults.contains(&kill) && one.faults.contains(&ack);
        assert_eq!(shrink(&schedule, needs).faults, [kill, ack]);
    }

    #[test]
    fn it_ends() {
        let schedule = Schedule::of(5);
        assert_eq!(shrink(&schedule, |_| false), schedule);
        assert!(shrink(&schedule, |_| true).faults.is_empty());
    }
}
