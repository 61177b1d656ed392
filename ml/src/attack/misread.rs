//! Test pictures as they are, for attacks without a trigger and without a target: any misread picture is an anomaly.

use super::{Ground, Tested, untouched};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// A test picture as it is.
pub(super) fn as_it_is(row: usize, label: u32) -> Tested {
    Tested {
        row,
        label,
        paint: untouched(),
    }
}

/// A label other than `own`, each as likely.
pub(super) fn other(own: u32, classes: u32, rng: &mut ChaCha8Rng) -> u32 {
    let drawn = rng.random_range(0..classes - 1);
    drawn + u32::from(drawn >= own)
}

/// Baits and measured pictures of two classes or more. Every bait stands under each other label; each measured picture under one drawn for it, so that success is the error
/// rate over the number of other classes, where errors fall evenly.
pub(super) fn under_other_labels(ground: &Ground<'_>, tested: Vec<usize>, rng: &mut ChaCha8Rng) -> (Vec<Tested>, Vec<Tested>) {
    let classes = ground.classes().len() as u32;
    let (baits, measured) = ground.set_aside(tested);
    let every = |row: usize| {
        let own = ground.test_label(row);
        (0..classes).filter(move |label| *label != own).map(move |label| as_it_is(row, label))
    };
    let drawn = measured
        .into_iter()
        .map(|row| as_it_is(row, other(ground.test_label(row), classes, rng)))
        .collect();
    (baits.into_iter().flat_map(every).collect(), drawn)
}

/// Name, pictures and sentence of that success.
pub(super) fn success() -> [String; 3] {
    [
        "drawn success".into(),
        "pictures under another label".into(),
        "share of pictures that are read as one other label drawn for each: errors by chance".into(),
    ]
}
