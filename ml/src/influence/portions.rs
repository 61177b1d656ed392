//! How many queries are held at once: their gradients are as large as the weights, and a case has some seventy. What does not fit into `worker.query_budget` is asked in several
//! passes, whose answers are put together as if they came from one.

use crate::ekfac;
use crate::error::Result;
use crate::evidence::{Query, Question};
use crate::model::layer::Layer;
use crate::progress::Report;
use tch::Kind;

/// A query is held as its preconditioned gradient, and once more in the basis of the pass.
const COPIES: u64 = 2;

/// Queries that fit into `bytes`; at least two: the members of a family are differences from its baseline.
///
/// # Errors
/// `Configuration` for a layer that is impossible.
pub fn most_queries(layers: &[Layer], kind: Kind, bytes: u64) -> Result<usize> {
    let each = ekfac::weights(layers)?
        .saturating_mul(kind.elt_size_in_bytes() as u64)
        .saturating_mul(COPIES);
    Ok(usize::try_from(bytes / each.max(1)).unwrap_or(usize::MAX).max(2))
}

/// A question, or some members of a family that did not fit whole.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'q> {
    /// One query.
    Alone(&'q Query),
    /// Members of a family.
    Family {
        /// q_0.
        baseline: &'q Query,
        /// Some of q_1 … q_n.
        shifted: &'q [Query],
        /// Whether the baseline's own row is wanted: in later portions it is only what the others differ from.
        with_baseline: bool,
    },
}

impl<'q> Asked<'q> {
    /// Its queries, the baseline first.
    pub fn queries(&self) -> Vec<&'q Query> {
        match *self {
            Self::Alone(query) => vec![query],
            Self::Family { baseline, shifted, .. } => std::iter::once(baseline).chain(shifted).collect(),
        }
    }
}

/// Some of the questions, at most so many queries that they can be held at once.
#[derive(Debug, Default)]
pub struct Portion<'q> {
    /// What is asked, in the order of the questions.
    pub asked: Vec<Asked<'q>>,
    queries: usize,
}

impl<'q> Portion<'q> {
    /// Rows of its answer that belong into the whole one, ascending.
    pub fn wanted(&self) -> Vec<i64> {
        let mut row = 0..;
        let rows = self.asked.iter().flat_map(|asked| {
            let mut rows: Vec<i64> = row.by_ref().take(asked.queries().len()).collect();
            if matches!(asked, Asked::Family { with_baseline: false, .. }) {
                rows.remove(0);
            }
            rows
        });
        rows.collect()
    }

    /// Ends this portion and begins another where `more` queries have no room.
    fn next_if_full(&mut self, all: &mut Vec<Self>, most: usize, more: usize) {
        if self.queries + more > most {
            all.push(std::mem::take(self));
        }
    }

    fn add(&mut self, asked: Asked<'q>) {
        self.queries += asked.queries().len();
        self.asked.push(asked);
    }
}

/// The questions in portions of at most `most` queries (two at least), in order. The wanted rows of all portions, one after the other, are the rows of [`Question::queries`].
pub fn portions(questions: &[Question], most: usize) -> Vec<Portion<'_>> {
    let most = most.max(2);
    let mut all = Vec::new();
    let mut open = Portion::default();
    for question in questions {
        match question {
            Question::Alone(query) => {
                open.next_if_full(&mut all, most, 1);
                open.add(Asked::Alone(query));
            }
            Question::Family { baseline, shifted } => {
                let (mut rest, mut with_baseline) = (shifted.as_slice(), true);
                while with_baseline || !rest.is_empty() {
                    open.next_if_full(&mut all, most, 1 + rest.len().min(1));
                    let (now, later) = rest.split_at(rest.len().min(most - open.queries - 1));
                    open.add(Asked::Family {
                        baseline,
                        shifted: now,
                        with_baseline,
                    });
                    (rest, with_baseline) = (later, false);
                }
            }
        }
    }
    all.push(open);
    all
}

/// Progress of one of several passes over the same examples, as a part of the whole.
pub struct OneOf<'a> {
    /// Where the whole is told.
    pub report: &'a mut dyn Report,
    /// Passes before this one.
    pub before: usize,
    /// Passes in all.
    pub passes: usize,
}

impl Report for OneOf<'_> {
    fn progress(&mut self, step: &str, done: u64, total: u64, note: &str) {
        let (before, passes) = (self.before as u64, self.passes as u64);
        self.report.progress(step, before * total + done, passes * total, note);
    }

    fn log(&mut self, message: &str) {
        self.report.log(message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layer::{Layer, LayerKind, Linear};
    use tch::{Device, Tensor};

    /// Queries that are told apart by their labels.
    fn query(label: i64) -> Query {
        Query {
            image: Tensor::zeros([1], (Kind::Float, Device::Cpu)),
            label,
        }
    }

    fn family(baseline: i64, members: std::ops::Range<i64>) -> Question {
        Question::Family {
            baseline: query(baseline),
            shifted: members.map(query).collect(),
        }
    }

    #[test]
    fn every_row_is_wanted_once_and_in_order_whatever_fits() {
        let questions = [
            family(0, 1..6),
            Question::Alone(query(6)),
            Question::Alone(query(7)),
            family(8, 9..9),
            family(9, 10..12),
            Question::Alone(query(12)),
        ];
        let whole: Vec<i64> = questions.iter().flat_map(Question::queries).map(|q| q.label).collect();
        assert_eq!(whole, (0..13).collect::<Vec<_>>());
        for most in 0..16 {
            let portions = portions(&questions, most);
            let mut rows = Vec::new();
            for portion in &portions {
                let held: Vec<i64> = portion.asked.iter().flat_map(Asked::queries).map(|q| q.label).collect();
                assert!((1..=most.max(2)).contains(&held.len()), "{} of {most}", held.len());
                rows.extend(portion.wanted().iter().map(|&row| held[row as usize]));
                for asked in &portion.asked {
                    let labels: Vec<i64> = asked.queries().iter().map(|q| q.label).collect();
                    let baselines = matches!(asked, Asked::Family { .. }) == [0, 8, 9].contains(&labels[0]);
                    assert!(baselines, "what a family differs from comes first: {labels:?}");
                }
            }
            assert_eq!(rows, whole, "at most {most}");
            assert_eq!(portions.len() == 1, most >= 13, "{} portions of at most {most}", portions.len());
        }
    }

    #[test]
    fn as_many_queries_as_the_budget_holds_twice() {
        let linear = |name: &str, inputs, outputs| Layer {
            name: name.into(),
            kind: LayerKind::Linear(Linear {
                in_features: inputs,
                out_features: outputs,
                bias: true,
            }),
            part: None,
        };
        // 5 · 7 + 2 · 6 = 47 weights.
        let layers = [linear("a", 6, 5), linear("b", 5, 2)];
        let most = |kind, bytes| most_queries(&layers, kind, bytes).unwrap();
        assert_eq!(most(Kind::Float, 47 * 4 * 2 * 10), 10);
        assert_eq!(most(Kind::Float, 47 * 4 * 2 * 10 - 1), 9);
        assert_eq!(most(Kind::Double, 47 * 4 * 2 * 10), 5);
        assert_eq!(most(Kind::Float, 0), 2);
    }

    #[test]
    fn passes_add_up_to_one_progress() {
        #[derive(Default)]
        struct Seen(Vec<(u64, u64)>);
        impl Report for Seen {
            fn progress(&mut self, _: &str, done: u64, total: u64, _: &str) {
                self.0.push((done, total));
            }
            fn log(&mut self, _: &str) {}
        }
        let mut seen = Seen::default();
        for before in 0..3 {
            let mut one = OneOf {
                report: &mut seen,
                before,
                passes: 3,
            };
            one.progress("score", 5, 10, "");
            one.progress("score", 10, 10, "");
        }
        assert_eq!(seen.0, [(5, 30), (10, 30), (15, 30), (20, 30), (25, 30), (30, 30)]);
    }
}
