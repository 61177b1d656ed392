use super::*;
use crate::detect::known_features::{KnownFeatures, largest, positions};
use delta_guard_contract::TraceVerdict;

#[test]
fn cosines_are_those_of_numpy_and_the_gap_parts_the_group() {
    let known = KnownFeatures::read();
    let own = known.of(1);
    for (pictures, expected) in [(2, &known.cosines), (1, &known.cosines_of_one)] {
        let found = known.found(&Keys::default(), pictures, 1);
        for f in &found.flagged {
            let place = own.iter().position(|&i| i == f.position).unwrap();
            assert!((f.score - expected[place]).abs() < 1e-12, "{} {}", f.score, expected[place]);
        }
        let mut group = positions(&found);
        group.sort_unstable();
        assert_eq!(group, (48..54).collect::<Vec<_>>());
        let three = Keys {
            nearest: Nearest::Count,
            neighbours: 3,
            ..Keys::default()
        };
        let nearest: Vec<usize> = largest(expected, 3).into_iter().map(|i| own[i]).collect();
        assert_eq!(positions(&known.found(&three, pictures, 1)), nearest);
    }
    let all = Keys {
        nearest: Nearest::Count,
        neighbours: 99,
        ..Keys::default()
    };
    assert_eq!(known.found(&all, 1, 1).flagged.len(), 30, "no more than the class has");
}

fn near(scores: &[f64]) -> Vec<Suspect> {
    (0..).zip(scores).map(|(position, &score)| Suspect { position, score }).collect()
}

#[test]
fn the_largest_gap_of_the_allowed_share() {
    let keys = |max_share| Keys {
        max_share,
        ..Keys::default()
    };
    let scores = near(&[0.9, 0.8, 0.4, 0.3, 0.2, -0.9]);
    assert_eq!([0.5, 0.84, 1.0, 0.2, 0.1].map(|share| cut(&keys(share), &scores)), [2, 5, 5, 1, 0]);
    assert_eq!(cut(&keys(1.0), &near(&[0.5, 0.25, 0.0])), 1, "of equal gaps the first");
    for none in [&[][..], &[0.3], &[0.3, 0.3, 0.3]] {
        assert_eq!(cut(&keys(1.0), &near(none)), 0);
    }
}

/// Examples that are all alike lie nowhere, and have no neighbour.
#[test]
fn equal_examples_are_undecided() {
    let known = KnownFeatures::read();
    let equal = KnownFeatures {
        features: vec![vec![2.0; 7]; known.labels.len()],
        ..known
    };
    let found = equal.found(&Keys::default(), 1, 1);
    assert!(found.flagged.is_empty() && matches!(&found.verdict, TraceVerdict::Undecided { why } if why.code() == "no-neighbours"));
}
