use super::*;
use crate::detect::known_features::{KnownFeatures, positions};
use std::collections::BTreeSet;

#[test]
fn as_many_as_asked_all_of_the_label_and_every_one_as_often() {
    let known = KnownFeatures::read();
    let mut times = vec![0u32; known.labels.len()];
    for seed in 0..2000 {
        let drawn = positions(&known.found(&Keys { count: 6 }, 1, seed));
        assert_eq!(drawn.iter().collect::<BTreeSet<_>>().len(), 6);
        drawn.iter().for_each(|&i| times[i] += 1);
    }
    // 2000 · 6 / 30 = 400 expected of each of class 1, standard deviation 18.
    for (i, &n) in times.iter().enumerate() {
        assert!(if known.labels[i] == 1 { (310..490).contains(&n) } else { n == 0 }, "{i}: {n}");
    }
}

#[test]
fn a_seed_draws_the_same_and_more_are_more_of_the_same() {
    let known = KnownFeatures::read();
    let drawn = |count, seed| positions(&known.found(&Keys { count }, 1, seed));
    assert_eq!(drawn(6, 3), drawn(6, 3));
    assert_ne!(drawn(6, 3), drawn(6, 4));
    assert_eq!(drawn(20, 3)[..6], drawn(6, 3));
    let mut all = drawn(99, 3);
    all.sort_unstable();
    assert_eq!(all, known.of(1), "no more than there are");
}
