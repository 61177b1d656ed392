//! Groups that are found without an anomaly.

use super::scene::{CLASSES, Scene, WRONG, picture, scene};
use crate::detect::audit::{Audited, audit};
use crate::detect::{DetectCase, PlaceboPicture};
use crate::evidence::KnownLab;
use crate::progress::Silent;
use delta_guard_contract::TrainId;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

fn found(scene: &mut Scene, misread: &[PlaceboPicture]) -> Audited {
    let case = DetectCase {
        anomalies: &[],
        wrong_label: WRONG,
        classes: CLASSES,
        labels: &scene.labels,
        placebos: &scene.placebos,
        seed: scene.seed,
        image: &scene.image,
    };
    let mut lab = KnownLab::of(&mut scene.evidence);
    audit(&scene.keys, &mut lab, &case, misread, &mut Silent).unwrap()
}

fn with_null(poisons: usize, natural: usize, seed: u64) -> Scene {
    let mut scene = scene(poisons, natural, seed);
    scene.evidence.null = scene.clean_gradients(150);
    scene
}

fn positions(found: &Audited) -> Vec<Vec<usize>> {
    let sorted = |group: &crate::detect::audit::ApartGroup| {
        let mut members: Vec<usize> = group.members.iter().map(|(position, _)| *position).collect();
        members.sort_unstable();
        members
    };
    found.groups.iter().map(sorted).collect()
}

#[test]
fn a_planted_group_is_found_without_an_anomaly() {
    for seed in 1..4 {
        let mut scene = with_null(24, 0, seed);
        let found = found(&mut scene, &[]);
        assert_eq!(positions(&found), [scene.evidence.group.clone()], "seed {seed}");
        let group = &found.groups[0];
        assert!(
            group.grown_from.iter().any(|from| from.starts_with("direction ")),
            "{:?}",
            group.grown_from
        );
        assert!(group.members.windows(2).all(|pair| pair[0].1 >= pair[1].1));
        assert!(group.founders >= 12 && group.founders <= 24 && group.d_prime > 3.0 && !group.features);
        assert_eq!((found.null_pictures, found.starts, &found.skipped), (150, 8 * 2 + 20, &None));
        assert_eq!(scene.evidence.scores_calls, 1, "one scoring pass");
    }
}

/// A handful among as many null pictures as examples: each of them lies on the examples' side by a coin's toss.
#[test]
fn a_group_that_chance_may_bring_together_is_only_told() {
    let mut scene = with_null(7, 0, 2);
    let found = found(&mut scene, &[]);
    assert!(found.groups.is_empty(), "{:?}", found.groups);
    assert!(found.doubtful.contains(&7), "{:?}", found.doubtful);
    assert!(found.notes.iter().any(|note| note.contains("may be chance")), "{:?}", found.notes);
}

#[test]
fn a_class_without_one_has_none() {
    for seed in 1..6 {
        let mut scene = with_null(0, 0, seed);
        let found = found(&mut scene, &[]);
        assert!(found.groups.is_empty(), "seed {seed}: {:?}", found.groups);
    }
}

/// What clean validation pictures show, too, is no group: they set the cut.
#[test]
fn a_natural_group_is_none() {
    for seed in 1..4 {
        let mut scene = scene(0, 24, seed);
        scene.evidence.null = scene.clean_gradients(150);
        let found = found(&mut scene, &[]);
        assert!(found.groups.is_empty(), "seed {seed}: {:?}", found.groups);
    }
}

/// A picture of another class that is read as this one points to the group, too.
#[test]
fn a_misread_picture_is_a_start() {
    let mut scene = with_null(24, 0, 2);
    let misread = [PlaceboPicture {
        id: TrainId("val/misread.png".into()),
        picture: picture(1.0, 0.0, &mut ChaCha8Rng::seed_from_u64(9)),
    }];
    let found = found(&mut scene, &misread);
    assert_eq!(positions(&found), [scene.evidence.group.clone()]);
    assert!(found.groups[0].grown_from.contains(&"the misread picture val/misread.png".to_string()));
    assert_eq!(found.starts, 8 * 2 + 20 + 1);
}

#[test]
fn where_a_group_cannot_be_told_from_a_natural_one_that_is_said() {
    let mut few_null = with_null(24, 0, 1);
    few_null.evidence.null.truncate(49);
    let said = found(&mut few_null, &[]);
    assert!(said.groups.is_empty() && said.skipped.unwrap().contains("fewer than 50 validation pictures"));
    let mut unread = with_null(24, 0, 1);
    unread.placebos.clear();
    assert!(
        found(&mut unread, &[])
            .skipped
            .unwrap()
            .contains("reads none of its validation pictures rightly")
    );
    let mut small = with_null(24, 0, 1);
    small.labels.iter_mut().skip(40).for_each(|label| *label = 0);
    assert!(found(&mut small, &[]).skipped.unwrap().contains("and 20 are needed"));
}
