//! Pure: the answers of all witnesses of one box as one.
//!
//! The rule: whoever reached the host proves that it lives, so one such answer wins. That it is dead takes everybody who
//! can tell: each has answered, none could reach it, and at least one did try. Who could not ask (its own trouble: no
//! route, no name, no such peer) says neither.

use crate::liveness::beat::WitnessAnswer;

/// One for each witness; `None`: it has not answered yet, or so long ago that it does not count.
pub fn fold(answers: impl IntoIterator<Item = Option<WitnessAnswer>>) -> WitnessAnswer {
    let (mut dead, mut pending) = (false, false);
    for answer in answers {
        match answer {
            Some(WitnessAnswer::Reachable) => return WitnessAnswer::Reachable,
            Some(WitnessAnswer::Unreachable) => dead = true,
            Some(WitnessAnswer::Unknown) => {}
            None => pending = true,
        }
    }
    if dead && !pending {
        WitnessAnswer::Unreachable
    } else {
        WitnessAnswer::Unknown
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::liveness::beat::WitnessAnswer::{Reachable, Unknown, Unreachable};

    #[test]
    fn one_that_reached_it_wins_and_death_takes_all_who_can_tell() {
        for (answers, wanted) in [
            (vec![], Unknown),
            (vec![None], Unknown),
            (vec![Some(Unknown)], Unknown),
            (vec![Some(Unreachable)], Unreachable),
            (vec![Some(Unreachable), Some(Unknown)], Unreachable),
            (vec![Some(Unreachable), None], Unknown),
            (vec![Some(Unreachable), None, Some(Reachable)], Reachable),
        ] {
            assert_eq!(fold(answers.clone()), wanted, "{answers:?}");
        }
    }

    proptest! {
        /// Nobody's order matters, and no answer can outvote one that reached the host.
        #[test]
        fn order_does_not_matter(answers in prop::collection::vec(0..4_u8, 0..9)) {
            let read = |n: &u8| [None, Some(Reachable), Some(Unreachable), Some(Unknown)][usize::from(*n)];
            let forth = fold(answers.iter().map(read));
            prop_assert_eq!(forth, fold(answers.iter().rev().map(read)));
            prop_assert_eq!(forth == Reachable, answers.contains(&1));
        }
    }
}
