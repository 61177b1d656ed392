use super::*;
use crate::detect::fake::{Vectors, random_vectors};
use crate::detect::known_features::positions;
use crate::evidence::KnownLab;
use crate::progress::Silent;
use delta_guard_contract::detect::Space;
use delta_guard_contract::{ImageConfig, TraceVerdict};
use tch::Tensor;

const EXAMPLES: usize = 40;

struct Scene {
    vectors: Vectors,
    pictures: Vec<Tensor>,
    labels: Vec<u32>,
    image: ImageConfig,
}

impl Scene {
    /// Pictures of 3 × 2 × 2: a gradient has as many entries.
    fn new() -> Self {
        let pictures = (0..3).map(|k| {
            Tensor::from_slice(&[0.1f32, 0.9, 0.4, 0.3, 0.8, 0.2, 0.7, 0.6, 0.5, 0.15, 0.95, 0.35])
                .roll([k], [0])
                .view([3, 2, 2])
        });
        Self {
            vectors: random_vectors(EXAMPLES, 12, 9),
            pictures: pictures.collect(),
            labels: (0..EXAMPLES as u32).map(|i| i % 3).collect(),
            image: ImageConfig::default(),
        }
    }

    fn case(&self, anomalies: usize) -> DetectCase<'_> {
        DetectCase {
            anomalies: &self.pictures[..anomalies],
            wrong_label: 0,
            classes: 5,
            labels: &self.labels,
            placebos: &[],
            seed: 5,
            image: &self.image,
        }
    }

    /// s of each picture as it stands against each example, by loops.
    fn scores(&self, anomalies: usize) -> Vec<Vec<f64>> {
        let of = |picture: &Tensor| {
            let query = queries::single(picture, 0, &self.image).unwrap();
            (0..EXAMPLES).map(|i| self.vectors.score(&query, i)).collect()
        };
        self.pictures[..anomalies].iter().map(of).collect()
    }

    fn found(&mut self, keys: &Keys, anomalies: usize) -> Detection {
        let mut vectors = std::mem::replace(&mut self.vectors, random_vectors(1, 12, 1));
        let found = keys.detect(&mut KnownLab::of(&mut vectors), &self.case(anomalies), &mut Silent).unwrap();
        self.vectors = vectors;
        found
    }
}

fn sorted(found: &Detection) -> Vec<usize> {
    let mut all = positions(found);
    all.sort_unstable();
    all
}

#[test]
fn one_point_is_held_against_the_limit_strictly() {
    let mut scene = Scene::new();
    let scores = scene.scores(1).remove(0);
    let mut order: Vec<usize> = (0..EXAMPLES).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    // The limit is the eighth largest score itself: seven are above.
    let keys = Keys {
        threshold: scores[order[7]],
        ..Keys::default()
    };
    let found = scene.found(&keys, 1);
    assert_eq!(positions(&found), order[..7]);
    assert!(found.flagged.iter().all(|f| f.score == scores[f.position]));
    let predicted = Keys {
        classes: Classes::Predicted,
        ..keys.clone()
    };
    let own: Vec<usize> = order[..7].iter().copied().filter(|i| i % 3 == 0).collect();
    assert!(!own.is_empty() && own.len() < 7);
    assert_eq!(positions(&scene.found(&predicted, 1)), own);
    let high = Keys { threshold: 1e9, ..keys };
    let none = scene.found(&high, 1);
    assert!(matches!(&none.verdict, TraceVerdict::Undecided { why } if why.code() == "none-above-limit"));
}

#[test]
fn several_points_are_averaged_or_each_must_be_above() {
    let mut scene = Scene::new();
    let scores = scene.scores(3);
    let threshold = 0.5;
    let above = |i: usize| scores.iter().filter(|row| row[i] > threshold).count();
    let by = |rule: &dyn Fn(usize) -> bool| (0..EXAMPLES).filter(|&i| rule(i)).collect::<Vec<_>>();
    let mean = by(&|i| scores.iter().map(|row| row[i]).sum::<f64>() / 3.0 > threshold);
    let (all, two, one) = (by(&|i| above(i) == 3), by(&|i| above(i) >= 2), by(&|i| above(i) >= 1));
    assert!(all.len() < two.len() && two.len() < one.len() && mean != two && one.len() < EXAMPLES);
    let keys = |points, tolerated| Keys {
        threshold,
        points,
        tolerated,
        ..Keys::default()
    };
    assert_eq!(sorted(&scene.found(&keys(SeveralPoints::Mean, 0), 3)), mean);
    for (tolerated, expected) in [(0, &all), (1, &two), (2, &one), (3, &one), (9, &one)] {
        assert_eq!(
            &sorted(&scene.found(&keys(SeveralPoints::Each, tolerated), 3)),
            expected,
            "{tolerated} tolerated"
        );
    }
}

/// Copies are the transformed pictures of the ablation that keeps the label.
#[test]
fn copies_keep_the_wrong_label() {
    let mut scene = Scene::new();
    let keys = Keys {
        copies: 4,
        space: Space::Pixels,
        threshold: 0.5,
        ..Keys::default()
    };
    let opening = keys.opening(&scene.case(2)).unwrap().unwrap();
    assert_eq!(
        (opening.questions.len(), opening.examples.len(), opening.self_influence),
        (10, EXAMPLES, false)
    );
    let mut expected = vec![0.0; EXAMPLES];
    let mut images = Vec::new();
    for question in &opening.questions {
        let Question::Alone(query) = question else { panic!("{question:?}") };
        assert_eq!(query.label, 0);
        images.push(query.image.shallow_clone());
        (0..EXAMPLES).for_each(|i| expected[i] += scene.vectors.score(query, i) / 10.0);
    }
    let first = queries::single(&scene.pictures[0], 0, &scene.image).unwrap();
    assert!(images[0].equal(&first.image) && images[1..5].iter().any(|image| !image.equal(&first.image)));
    let found = scene.found(&keys, 2);
    assert_eq!(sorted(&found), (0..EXAMPLES).filter(|&i| expected[i] > 0.5).collect::<Vec<_>>());
    assert!(found.flagged.iter().all(|f| (f.score - expected[f.position]).abs() < 1e-9));
}
