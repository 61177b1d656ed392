//! Whose turn it is. A submission is predicted, refused or told at once; fitting, tracing and training take hours. So what is short comes before the next
//! long stage, in turn over the submitters; and so that a flood of pictures does not keep the long ones from ever being done, one of these has its turn
//! after a bounded number of short ones.

use crate::case::next::{Rules, Step, next};
use crate::case::{Case, Stage};
use std::collections::HashMap;

/// At most this many short stages in a row, while a long one waits.
const SHORT_IN_A_ROW: u32 = 100;

/// Chooses the next case.
#[derive(Debug, Default)]
pub(super) struct Turns {
    short_in_a_row: u32,
    turn: u64,
    /// When each submitter last had a turn.
    served: HashMap<u32, u64>,
}

/// Is what this case needs next done in seconds?
fn is_short(case: &Case, rules: &Rules) -> bool {
    matches!(
        next(case, rules),
        Step::Work(Stage::Predict) | Step::Record(_) | Step::Publish | Step::Approve | Step::Promote | Step::Tell
    )
}

impl Turns {
    /// The case whose turn it is, of those that are open, in journal order.
    pub fn choose<'a>(&mut self, open: impl Iterator<Item = &'a Case>, rules: &Rules) -> Option<&'a Case> {
        let (mut short, mut long): (Option<&Case>, Option<&Case>) = (None, None);
        for case in open {
            if !is_short(case, rules) {
                long.get_or_insert(case);
                continue;
            }
            let last = |case: &Case| self.served.get(&case.accepted.uid).copied().unwrap_or(0);
            // What was begun comes to its end before another picture is looked at.
            let rank = |case: &Case| (case.prediction().is_none() && !case.state.is_end(), last(case));
            if short.is_none_or(|first| rank(case) < rank(first)) {
                short = Some(case);
            }
        }
        self.turn += 1;
        match (short, long) {
            (Some(case), None) => Some(self.serve(case)),
            (Some(case), Some(_)) if self.short_in_a_row < SHORT_IN_A_ROW => {
                self.short_in_a_row += 1;
                Some(self.serve(case))
            }
            (_, long) => {
                self.short_in_a_row = 0;
                long
            }
        }
    }

    fn serve<'a>(&mut self, case: &'a Case) -> &'a Case {
        self.served.insert(case.accepted.uid, self.turn);
        case
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::tests::{case, predicted};

    fn rules() -> Rules {
        Rules {
            mode: crate::policy::Mode::Propose,
            check_prediction: true,
            allow_unlearn: None,
            without_factors: None,
            gate: Default::default(),
        }
    }

    fn of(mut case: Case, seq: u64, uid: u32) -> Case {
        case.seq = seq;
        case.accepted.uid = uid;
        case
    }

    #[test]
    fn new_pictures_come_before_the_next_long_stage() {
        let cases = [of(predicted(), 1, 0), of(case(), 2, 0), of(case(), 3, 0)];
        let mut turns = Turns::default();
        let mut chosen = |open: &[Case]| turns.choose(open.iter(), &rules()).map(|case| case.seq);
        assert_eq!(chosen(&cases), Some(2));
        assert_eq!(chosen(&cases[..1]), Some(1));
        assert_eq!(chosen(&[]), None);
    }

    #[test]
    fn submitters_have_their_turns_in_turn() {
        let mut cases: Vec<Case> = (1..=50).map(|seq| of(case(), seq, 7)).collect();
        cases.push(of(case(), 51, 8));
        let mut turns = Turns::default();
        let mut order = Vec::new();
        for _ in 0..4 {
            let seq = turns.choose(cases.iter(), &rules()).map(|case| case.seq).expect("one is open");
            cases.retain(|case| case.seq != seq);
            order.push(seq);
        }
        assert_eq!(order, [1, 51, 2, 3], "the one picture of the other submitter does not wait for fifty");
    }

    #[test]
    fn a_flood_of_pictures_does_not_keep_a_long_stage_waiting_for_ever() {
        let cases = [of(predicted(), 1, 0), of(case(), 2, 0)];
        let mut turns = Turns::default();
        let chosen: Vec<u64> = (0..202)
            .filter_map(|_| turns.choose(cases.iter(), &rules()).map(|case| case.seq))
            .collect();
        let long: Vec<usize> = chosen.iter().enumerate().filter(|(_, seq)| **seq == 1).map(|(at, _)| at).collect();
        assert_eq!(long, [100, 201]);
    }
}
