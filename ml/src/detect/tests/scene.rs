//! A planted case: poisons share the trigger's direction, the anomaly carries the trigger.

use crate::detect::fake::{Vectors, normals, random_vectors};
use crate::detect::*;
use crate::evidence::{KnownLab, Query, Question};
use crate::progress::Silent;
use delta_guard_contract::detect::Delta;
use delta_guard_contract::detect::guard::Keys;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub(super) const SIDE: usize = 8;
const PIXELS: usize = 3 * SIDE * SIDE;
pub(super) const CLASSES: usize = 5;
pub(super) const WRONG: usize = 2;
pub(super) const EXAMPLES: usize = 420;

/// A case that owns its parts.
pub(super) struct Scene {
    pub(super) evidence: Vectors,
    pub(super) labels: Vec<u32>,
    pub(super) anomalies: Vec<Tensor>,
    pub(super) placebos: Vec<PlaceboPicture>,
    pub(super) keys: Keys,
    /// Features of the examples, of null pictures and of placebos.
    pub(super) features: Option<[Tensor; 3]>,
    /// By the count rule, with the same keys.
    pub(super) rule: bool,
    pub(super) seed: u64,
    pub(super) image: ImageConfig,
}

/// The trigger, per pixel value: a checkerboard of ±1 in the top left corner.
pub(super) fn trigger() -> Vec<f64> {
    let at = |i: usize| ((i / SIDE) % SIDE, i % SIDE);
    (0..PIXELS)
        .map(at)
        .map(|(y, x)| if y < 3 && x < 3 { 1.0 - 2.0 * ((x + y) % 2) as f64 } else { 0.0 })
        .collect()
}

/// A smooth natural pattern: one half bright, the other dark.
fn natural() -> Vec<f64> {
    (0..PIXELS).map(|i| if i % SIDE < SIDE / 2 { 0.5 } else { -0.5 }).collect()
}

/// A picture: grey, noise, and so much of the trigger and of the natural pattern.
pub(super) fn picture(triggered: f64, patterned: f64, rng: &mut ChaCha8Rng) -> Tensor {
    let noise = normals(PIXELS, rng);
    let values: Vec<f32> = (0..PIXELS)
        .map(|i| (0.5 + 0.1 * noise[i] + 0.5 * triggered * trigger()[i] + 0.2 * patterned * natural()[i]).clamp(0.0, 1.0) as f32)
        .collect();
    Tensor::from_slice(&values).view([3, SIDE as i64, SIDE as i64])
}

/// `poisons` of the examples of the wrong label point along the trigger, `natural_group` others along the natural pattern.
pub(super) fn scene(poisons: usize, natural_group: usize, seed: u64) -> Scene {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut evidence = random_vectors(EXAMPLES, PIXELS, seed);
    evidence.wrong_label = WRONG as i64;
    // Two of five examples have the wrong label.
    let labels: Vec<u32> = (0..EXAMPLES as u32).map(|i| if i % 5 == 4 { 2 } else { i % 5 }).collect();
    let members: Vec<usize> = (0..EXAMPLES).filter(|&i| labels[i] as usize == WRONG).collect();
    let class_direction = normals(PIXELS, &mut rng);
    for &i in &members {
        evidence.gradients[i].iter_mut().zip(&class_direction).for_each(|(g, c)| *g += 0.2 * c);
    }
    evidence.group = members.iter().copied().step_by(3).take(poisons).collect();
    for &i in &evidence.group {
        evidence.gradients[i].iter_mut().zip(trigger()).for_each(|(g, t)| *g += 3.0 * t);
    }
    for &i in members.iter().skip(1).step_by(3).take(natural_group) {
        evidence.gradients[i].iter_mut().zip(natural()).for_each(|(g, t)| *g += 2.5 * t);
    }
    for (i, gradient) in evidence.gradients.iter_mut().enumerate() {
        let length = 10f64.powf((i * 37 % 100) as f64 / 50.0 - 1.0);
        gradient.iter_mut().for_each(|g| *g *= length);
    }
    let placebos = (0..20)
        .map(|i| PlaceboPicture {
            id: TrainId(format!("val/{i}.png")),
            picture: picture(0.0, f64::from(i % 5) * 0.5, &mut rng),
        })
        .collect();
    let keys = Keys {
        seeds: 12,
        // Features have scenes of their own.
        feature_weight: 0.0,
        delta: Delta {
            queries: 20,
            ..Delta::default()
        },
        ..Keys::default()
    };
    Scene {
        evidence,
        labels,
        anomalies: vec![picture(1.0, 0.5, &mut rng)],
        placebos,
        keys,
        features: None,
        rule: false,
        seed,
        image: ImageConfig {
            mean: vec![0.5; 3],
            std: vec![0.25; 3],
            height: SIDE as u32,
            width: SIDE as u32,
            ..ImageConfig::default()
        },
    }
}

impl Scene {
    pub(super) fn detect(&mut self) -> Result<exhibits::Finding> {
        let case = DetectCase {
            anomalies: &self.anomalies,
            wrong_label: WRONG,
            classes: CLASSES,
            labels: &self.labels,
            placebos: &self.placebos,
            seed: self.seed,
            image: &self.image,
        };
        let mut lab = KnownLab::of(&mut self.evidence);
        if let Some([examples, null, placebos]) = &self.features {
            lab.features = Some(examples.shallow_clone());
            lab.null_features = Some(null.shallow_clone());
            lab.picture_features = Some(placebos.shallow_clone());
        }
        match self.rule {
            true => paper::CountRule(&self.keys.delta).find(&mut lab, &case, &mut Silent),
            false => guard::Guard(&self.keys).find(&mut lab, &case, &mut Silent),
        }
    }

    /// Gradients of clean examples of the wrong label, in turn, so many.
    pub(super) fn clean_gradients(&self, count: usize) -> Vec<Vec<f64>> {
        let clean = (0..EXAMPLES).filter(|i| self.labels[*i] as usize == WRONG && !self.evidence.group.contains(i));
        let gradients: Vec<Vec<f64>> = clean.map(|i| self.evidence.gradients[i].clone()).collect();
        gradients.into_iter().cycle().take(count).collect()
    }

    /// Placebos that hardly show the natural pattern.
    pub(super) fn faint_placebos(&mut self, seed: u64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        self.placebos.iter_mut().for_each(|p| p.picture = picture(0.0, 0.1, &mut rng));
    }

    pub(super) fn queries(&self, anomaly: u32) -> Vec<Query> {
        let set = queries::draw(
            &self.anomalies[anomaly as usize],
            WRONG,
            CLASSES,
            &self.keys.delta,
            self.seed,
            &self.image,
            anomaly,
        )
        .unwrap();
        match set.question {
            Question::Family { baseline, shifted } => std::iter::once(baseline).chain(shifted).collect(),
            Question::Alone(query) => vec![query],
        }
    }

    /// Δ_ij from absolute scores.
    pub(super) fn delta(&self, queries: &[Query], example: usize) -> Vec<f64> {
        queries[1..]
            .iter()
            .map(|q| self.evidence.score(q, example) - self.evidence.score(&queries[0], example))
            .collect()
    }
}
