//! The guard where features tell what gradients hardly do, and the other way round.

use super::positions;
use super::scene::{EXAMPLES, Scene, scene};
use crate::detect::fake::normals;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

const FEATURES: usize = 32;

/// So many rows of noise, `shift` added to the first feature of some.
fn rows(count: usize, shifted: &[usize], shift: f64, seed: u64) -> Tensor {
    let mut values = normals(count * FEATURES, &mut ChaCha8Rng::seed_from_u64(seed));
    shifted.iter().for_each(|row| values[row * FEATURES] += shift);
    Tensor::from_slice(&values).view([count as i64, FEATURES as i64])
}

/// A planted group whose gradients drown in noise `faint` times their length, and whose features are `shift` standard deviations apart.
fn faint(faint: f64, shift: f64, null: usize, seed: u64) -> Scene {
    let mut scene = scene(24, 0, seed);
    let mut rng = ChaCha8Rng::seed_from_u64(seed + 50);
    for i in scene.evidence.group.clone() {
        let gradient = &mut scene.evidence.gradients[i];
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let noise = normals(gradient.len(), &mut rng);
        let unit = noise.iter().map(|g| g * g).sum::<f64>().sqrt();
        gradient.iter_mut().zip(noise).for_each(|(g, n)| *g += faint * length * n / unit);
    }
    scene.evidence.null = scene.clean_gradients(null);
    let group = scene.evidence.group.clone();
    scene.features = Some([rows(EXAMPLES, &group, shift, 1), rows(null, &[], 0.0, 2), rows(20, &[], 0.0, 3)]);
    scene.keys.feature_weight = 0.5;
    scene
}

fn right(found: &[usize], scene: &Scene) -> (usize, usize) {
    let right = found.iter().filter(|i| scene.evidence.group.contains(i)).count();
    (right, found.len() - right)
}

/// Poisons whose gradients drown in noise found no group among gradients; their features do.
#[test]
fn features_tell_what_gradients_hardly_do() {
    let mut alone = faint(2.5, 6.0, 150, 3);
    alone.keys.feature_weight = 0.0;
    assert!(alone.detect().unwrap().flagged.is_empty());
    let mut both = faint(2.5, 6.0, 150, 3);
    let found = both.detect().unwrap();
    let (hits, clean) = right(&positions(&found.flagged), &both);
    assert!(hits == 24 && clean <= 2, "{hits} and {clean} clean: {:?}", found.verdict);
    // One scoring pass, whatever features say.
    assert_eq!(both.evidence.scores_calls, 1);
    // Of other examples they would find others: that each row belongs to its example matters.
    let mut moved = faint(2.5, 6.0, 150, 3);
    if let Some([examples, ..]) = &mut moved.features {
        *examples = examples.roll(1, 0);
    }
    let (hits, _) = right(&positions(&moved.detect().unwrap().flagged), &moved);
    assert!(hits < 12, "{hits}");
}

/// Poisons under their true label look like their class to the network: features that tell nothing hide no group.
#[test]
fn features_that_tell_nothing_hide_no_group() {
    for seed in 1..4 {
        let mut scene = faint(0.0, 0.0, 150, seed);
        let found = scene.detect().unwrap();
        let (hits, clean) = right(&positions(&found.flagged), &scene);
        assert!(hits == 24 && clean <= 2, "{hits} and {clean} clean: {:?}", found.verdict);
    }
}

/// Where nothing stands out in both views together, gradients are asked alone.
#[test]
fn gradients_are_asked_alone_where_both_together_show_nothing() {
    let mut scene = faint(0.0, 0.0, 150, 2);
    // Features in which all examples are alike, but for rounding, and null pictures are not: κ is that of the class.
    if let Some([examples, ..]) = &mut scene.features {
        *examples = rows(1, &[], 0.0, 9).expand([EXAMPLES as i64, FEATURES as i64], false).contiguous();
    }
    let found = scene.detect().unwrap();
    assert_eq!(right(&positions(&found.flagged), &scene), (24, 0), "{:?}", found.verdict);
}

#[test]
fn of_few_null_pictures_features_are_left_out_and_that_is_told() {
    let mut few = faint(0.0, 6.0, 30, 3);
    let found = few.detect().unwrap();
    assert!(found.notes[0].contains("there are 30 clean validation pictures"), "{:?}", found.notes);
    few.keys.feature_weight = 0.0;
    let alone = few.detect().unwrap();
    assert_eq!((positions(&found.flagged), alone.notes.len()), (positions(&alone.flagged), 0));
}

/// The strict cut founds a group and the generous one completes it; where none is founded none is collected.
#[test]
fn a_group_is_decided_strictly_and_collected_generously() {
    let with = |collect: f64, noise: f64| {
        let mut scene = faint(noise, 0.0, 150, 3);
        scene.keys.feature_weight = 0.0;
        scene.keys.collect = collect;
        let found = scene.detect().unwrap();
        (positions(&found.candidates), found)
    };
    let ((strict, _), (generous, found)) = (with(0.0, 1.5), with(0.2, 1.5));
    assert!(
        strict.len() < generous.len() && strict.iter().all(|i| generous.contains(i)),
        "{strict:?} {generous:?}"
    );
    let stand_out = found.stand_out.unwrap();
    assert_eq!(stand_out.founders as usize, strict.len());
    assert!(stand_out.end.unwrap() < stand_out.cut);
    assert!(found.flagged.iter().all(|f| f.kappa >= stand_out.end.unwrap()));
    assert!(with(0.2, 3.0).0.is_empty());
}
