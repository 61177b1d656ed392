use super::*;
use crate::detect::known_features::{KnownFeatures, largest, positions};
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::Classes;

/// Class by class against NumPy's SVD: scores, who is flagged and how many.
#[test]
fn signatures_are_those_of_numpys_svd() {
    let known = KnownFeatures::read();
    let keys = Keys {
        epsilon: 0.2,
        ..Keys::default()
    };
    let found = known.found(&keys, 1, 1);
    let mut expected = Vec::new();
    // 1.5 · 0.2 of 20, 30 and 4 examples: 6, 9 and 1.
    for (class, count) in [(0, 6), (1, 9), (2, 1)] {
        let (own, tau) = (known.of(class), &known.signatures[&class]);
        let mean = tau.iter().sum::<f64>() / tau.len() as f64;
        expected.extend(largest(tau, count).into_iter().map(|i| (own[i], tau[i] / mean)));
    }
    expected.sort_by(|a, b| b.1.total_cmp(&a.1));
    assert_eq!(found.flagged.len(), 16);
    for (f, (position, score)) in found.flagged.iter().zip(&expected) {
        assert_eq!(f.position, *position);
        assert!((f.score - score).abs() < 1e-9 * score, "{} {score}", f.score);
    }
    let predicted = Keys {
        classes: Classes::Predicted,
        ..keys
    };
    let own: Vec<usize> = expected.iter().map(|e| e.0).filter(|i| known.labels[*i] == 1).collect();
    assert_eq!(positions(&known.found(&predicted, 1, 1)), own);
    assert!(
        (48..54).filter(|i| own.contains(i)).count() >= 5,
        "the group inside the class is among them: {own:?}"
    );
}

#[test]
fn the_notebooks_form_is_a_length_along_large_singular_values() {
    let known = KnownFeatures::read();
    let above = |values: &[f64], threshold: f64| -> Vec<usize> {
        let count = values.iter().filter(|v| **v > threshold).count();
        largest(values, count)
    };
    let keys = Keys {
        form: SpectralForm::Notebook,
        spectral_threshold: 12.0,
        contribution_threshold: 6.0,
        ..Keys::default()
    };
    let kept = known.singular_values.iter().filter(|v| **v > 12.0).count();
    assert!(kept > 0 && kept < 7, "some are kept and some are not: {:?}", known.singular_values);
    let (expected, found) = (above(&known.contributions_12, 6.0), known.found(&keys, 1, 1));
    assert!(expected.len() > 5 && expected.len() < 50, "{}", expected.len());
    assert_eq!(positions(&found), expected);
    for f in &found.flagged {
        assert!((f.score - known.contributions_12[f.position]).abs() < 1e-9);
    }
    // With every singular value it is the length of the activation.
    let all = Keys {
        spectral_threshold: 0.0,
        classes: Classes::Predicted,
        ..keys.clone()
    };
    for f in known.found(&all, 1, 1).flagged {
        let length = known.features[f.position].iter().map(|v| v * v).sum::<f64>().sqrt();
        assert!(known.labels[f.position] == 1 && (f.score - length).abs() < 1e-9);
    }
    let none = Keys {
        contribution_threshold: 1e3,
        ..keys
    };
    let found = known.found(&none, 1, 1);
    assert!(matches!(&found.verdict, TraceVerdict::Undecided { why } if why.code() == "no-signature" && why.sentence().contains("1000")));
}

/// More columns than rows go another way to the same numbers; equal activations have no direction.
#[test]
fn few_rows_and_equal_rows() {
    let known = KnownFeatures::read();
    let few = crate::detect::known_features::tensor(&known.of(2).iter().map(|&i| known.features[i].clone()).collect::<Vec<_>>());
    assert_eq!(few.size(), [4, 7]);
    for (found, expected) in signatures(&few).unwrap().iter().zip(&known.signatures[&2]) {
        assert!((found - expected).abs() < 1e-9 * expected.max(1.0), "{found} {expected}");
    }
    let equal = KnownFeatures {
        features: vec![vec![2.0; 7]; known.labels.len()],
        ..known
    };
    let found = equal.found(&Keys::default(), 1, 1);
    assert!(found.flagged.is_empty() && matches!(&found.verdict, TraceVerdict::Undecided { why } if why.code() == "no-signature"));
}
