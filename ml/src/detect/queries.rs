//! Pictures to queries: the anomaly under its wrong label, and its transformed siblings under random ones.

use super::labels;
use super::transforms::{Kind, Transform};
use crate::data::standardise;
use crate::error::{Error, Result, ResultExt};
use crate::evidence::{Query, Question};
use delta_guard_contract::config::ImageConfig;
use delta_guard_contract::detect::{Change, Delta, Space};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// The queries of one anomaly.
#[derive(Debug)]
pub struct QuerySet {
    /// Query 0, the baseline: the picture with ŷ. Queries 1 … n_b: what it is shifted to.
    pub question: Question,
    /// Transform of each of the queries 1 … n_b; None where only the label changes.
    pub transforms: Vec<Option<Transform>>,
}

/// A picture from bytes, channel after channel (C × H × W), as a tensor of values in [0, 1]. Error: another number of bytes.
pub fn picture_from_bytes(bytes: &[u8], channels: usize, height: usize, width: usize) -> Result<Tensor> {
    if bytes.is_empty() || bytes.len() != channels * height * width {
        let message = format!(
            "a picture of {channels} × {height} × {width} has {} bytes, not {}",
            channels * height * width,
            bytes.len()
        );
        return Err(Error::internal(message));
    }
    let flat = Tensor::f_from_slice(bytes)?.f_to_kind(tch::Kind::Float)?.f_div_scalar(255.0)?;
    Ok(flat.f_view([channels as i64, height as i64, width as i64])?)
}

/// The picture as a float tensor on the CPU, checked: C × H × W (1 or 3 channels), finite. Queries are made there whatever the model's device, so that they are
/// the same everywhere.
fn checked(picture: &Tensor) -> Result<Tensor> {
    let shape = picture.size();
    if shape.len() != 3 || ![1, 3].contains(&shape[0]) || shape.contains(&0) {
        return Err(Error::internal(format!(
            "a query needs a picture of 1 or 3 × height × width, got {shape:?}"
        )));
    }
    let picture = picture.f_to_device(Device::Cpu)?.f_to_kind(tch::Kind::Float)?;
    if !bool::try_from(picture.f_isfinite()?.f_all()?)? {
        return Err(Error::internal("a query's picture holds values that are not numbers"));
    }
    Ok(picture)
}

/// One picture under one label: a placebo's query, or query 0.
pub fn single(picture: &Tensor, label: usize, image: &ImageConfig) -> Result<Query> {
    Ok(Query {
        image: standardise(&checked(picture)?, image)?,
        label: label as i64,
    })
}

/// The n_b + 1 queries of anomaly number `anomaly` of a case. `picture`: C × H × W in [0, 1].
///
/// Every random number comes from ChaCha8 under `seed`: the labels from a stream of their own and before the transforms, each query's
/// transform from its own stream, so that an ablation ([`Change`]) changes what it names and nothing else.
pub fn draw(picture: &Tensor, wrong_label: usize, classes: usize, keys: &Delta, seed: u64, image: &ImageConfig, anomaly: u32) -> Result<QuerySet> {
    let picture = checked(picture)?;
    let (_, height, width) = picture.size3()?;
    let stream = |number: u32| {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream((u64::from(anomaly) << 32) | u64::from(number));
        rng
    };
    let labels = labels::draw(keys.labels, keys.queries as usize, classes, wrong_label, &mut stream(0))?;
    let kinds = Kind::drawn(keys.rotation);
    let (mut shifted, mut transforms) = (Vec::with_capacity(labels.len()), Vec::with_capacity(labels.len()));
    for (number, label) in (1..).zip(labels) {
        let transform = (keys.change != Change::Label).then(|| {
            let mut rng = stream(number);
            let kind = kinds[rng.random_range(0..kinds.len() as u32) as usize];
            Transform::draw(kind, &mut rng, height as usize, width as usize)
        });
        let changed = match &transform {
            None => standardise(&picture, image),
            Some(transform) => match keys.space {
                Space::Pixels => transform.apply(&picture).and_then(|x| standardise(&x, image)),
                Space::Normalised => standardise(&picture, image).and_then(|x| transform.apply(&x)),
            },
        };
        let label = if keys.change == Change::Image { wrong_label as i64 } else { label };
        shifted.push(Query {
            image: changed.context(|| format!("query {number}"))?,
            label,
        });
        transforms.push(transform);
    }
    Ok(QuerySet {
        question: Question::Family {
            baseline: single(&picture, wrong_label, image)?,
            shifted,
        },
        transforms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Tensor {
        let bytes: Vec<u8> = (0..3 * 16 * 12).map(|i| ((i * 37 + i * i % 101) % 256) as u8).collect();
        picture_from_bytes(&bytes, 3, 16, 12).unwrap()
    }

    fn drawn(keys: &Delta, seed: u64, anomaly: u32) -> QuerySet {
        draw(&picture(), 4, 10, keys, seed, &ImageConfig::default(), anomaly).unwrap()
    }

    fn same(a: &Tensor, b: &Tensor) -> bool {
        a.equal(b)
    }

    #[test]
    fn bytes_become_values_and_wrong_counts_errors() {
        let x = picture_from_bytes(&[0, 255, 51, 102], 1, 2, 2).unwrap();
        assert_eq!(Vec::<f32>::try_from(x.view([-1])).unwrap(), [0.0, 1.0, 0.2, 0.4]);
        assert!(picture_from_bytes(&[0; 5], 1, 2, 2).is_err());
        assert!(picture_from_bytes(&[], 0, 2, 2).is_err());
    }

    #[test]
    fn query_0_is_the_anomaly_and_the_rest_are_differences_to_it() {
        for rotation in [false, true] {
            let keys = Delta {
                rotation,
                ..Delta::default()
            };
            let set = drawn(&keys, 5, 0);
            assert_eq!(set.question.queries().len(), 51);
            assert_eq!(set.question.queries()[0].label, 4);
            assert!(matches!(&set.question, Question::Family { shifted, .. } if shifted.len() == 50));
            assert!(same(
                &set.question.queries()[0].image,
                &standardise(&picture(), &ImageConfig::default()).unwrap()
            ));
            assert!(set.question.queries()[1..].iter().all(|q| q.label != 4 && (0..10).contains(&q.label)));
            assert!(set.question.queries().iter().all(|q| q.image.size() == [3, 16, 12]));
            let seen = |kind| set.transforms.iter().flatten().any(|t| t.kind() == kind);
            assert_eq!(seen(Kind::Rotation), rotation);
        }
    }

    #[test]
    fn one_seed_is_one_set_and_another_seed_or_anomaly_another() {
        let keys = Delta::default();
        let a = drawn(&keys, 5, 0);
        let b = drawn(&keys, 5, 0);
        assert_eq!(a.transforms, b.transforms);
        assert!(
            a.question
                .queries()
                .into_iter()
                .zip(b.question.queries())
                .all(|(x, y)| x.label == y.label && same(&x.image, &y.image))
        );
        assert_ne!(a.transforms, drawn(&keys, 6, 0).transforms);
        assert_ne!(a.transforms, drawn(&keys, 5, 1).transforms);
    }

    #[test]
    fn ablations_change_what_they_name_only() {
        let both = Delta::default();
        let image = drawn(
            &Delta {
                change: Change::Image,
                ..both.clone()
            },
            5,
            0,
        );
        let label = drawn(
            &Delta {
                change: Change::Label,
                ..both.clone()
            },
            5,
            0,
        );
        let both = drawn(&both, 5, 0);
        assert!(
            image
                .question
                .queries()
                .iter()
                .zip(both.question.queries())
                .all(|(x, y)| x.label == 4 && same(&x.image, &y.image))
        );
        assert!(
            label
                .question
                .queries()
                .iter()
                .zip(both.question.queries())
                .all(|(x, y)| x.label == y.label && same(&x.image, &label.question.queries()[0].image))
        );
        assert!(label.transforms.iter().all(Option::is_none));
    }

    #[test]
    fn the_space_decides_what_an_inversion_inverts() {
        let image = ImageConfig::default();
        for space in [Space::Pixels, Space::Normalised] {
            let keys = Delta { space, ..Delta::default() };
            let set = drawn(&keys, 5, 0);
            let queries = set.question.queries();
            let (query, _) = queries[1..]
                .iter()
                .zip(&set.transforms)
                .find(|(_, t)| **t == Some(Transform::Invert))
                .expect("50 draws of 7");
            let expected = match space {
                Space::Pixels => standardise(&(1.0 - picture()), &image).unwrap(),
                Space::Normalised => 1.0 - standardise(&picture(), &image).unwrap(),
            };
            assert!(query.image.allclose(&expected, 1e-6, 1e-6, false));
        }
    }

    #[test]
    fn pictures_that_are_none_are_errors() {
        let image = ImageConfig::default();
        assert!(single(&Tensor::zeros([1, 8, 8], (tch::Kind::Float, Device::Cpu)), 0, &image).is_err());
        assert!(single(&Tensor::zeros([3, 8], (tch::Kind::Float, Device::Cpu)), 0, &image).is_err());
        assert!(single(&(picture() * f64::NAN), 0, &image).is_err());
    }
}
