//! Features with known answers, for tests: NumPy's, and what it computed of them (`tests/fixtures/detect/make.py`).

use super::{Detect, DetectCase, Detection};
use crate::evidence::KnownLab;
use crate::progress::Silent;
use delta_guard_contract::ImageConfig;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What the script wrote.
#[derive(Debug, Deserialize)]
pub struct KnownFeatures {
    /// Labels, three classes.
    pub labels: Vec<u32>,
    /// Features of training examples.
    pub features: Vec<Vec<f64>>,
    /// Features of two pictures.
    pub pictures: Vec<Vec<f64>>,
    /// Of each class (Tran et al.).
    pub signatures: BTreeMap<usize, Vec<f64>>,
    /// Of all features, uncentred, the largest first.
    pub singular_values: Vec<f64>,
    /// With the singular values above 12.
    pub contributions_12: Vec<f64>,
    /// Of class 1 to both pictures, on the mean.
    pub cosines: Vec<f64>,
    /// Of class 1 to the first picture.
    pub cosines_of_one: Vec<f64>,
}

/// Rows as a tensor.
pub fn tensor(rows: &[Vec<f64>]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([rows.len() as i64, -1])
}

impl KnownFeatures {
    /// Read it.
    pub fn read() -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/detect/features.json");
        serde_json::from_slice(&fs_err::read(file).unwrap()).unwrap()
    }

    /// Places of a class.
    pub fn of(&self, class: usize) -> Vec<usize> {
        (0..self.labels.len()).filter(|&i| self.labels[i] as usize == class).collect()
    }

    /// What a method finds from the first `pictures` pictures, read as class 1, under a seed.
    pub fn found(&self, method: &dyn Detect, pictures: usize, seed: u64) -> Detection {
        let mut lab = KnownLab {
            features: Some(tensor(&self.features)),
            picture_features: Some(tensor(&self.pictures)),
            ..KnownLab::default()
        };
        let anomalies: Vec<Tensor> = (0..pictures).map(|_| Tensor::zeros([3, 4, 4], (Kind::Float, Device::Cpu))).collect();
        let case = DetectCase {
            anomalies: &anomalies,
            wrong_label: 1,
            classes: 3,
            labels: &self.labels,
            placebos: &[],
            seed,
            image: &ImageConfig::default(),
        };
        method.detect(&mut lab, &case, &mut Silent).unwrap()
    }
}

/// Flagged positions, the strongest first.
pub fn positions(found: &Detection) -> Vec<usize> {
    found.flagged.iter().map(|f| f.position).collect()
}

/// The places of the `count` largest, the largest first.
pub fn largest(values: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(count);
    order
}
