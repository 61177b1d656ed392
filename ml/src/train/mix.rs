//! Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), as torchvision's transforms define them: each picture of a batch with the one before it.

use crate::error::{Error, Result};
use delta_guard_contract::{Mixing, Recipe};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use statrs::distribution::{Beta, ContinuousCDF};
use tch::Tensor;

/// A batch: pictures, and what they were mixed with.
#[derive(Debug)]
pub struct MixedBatch {
    /// B × C × H × W.
    pub images: Tensor,
    /// The class numbers of what was mixed in, and the share of the pictures' own labels. None: nothing was.
    pub others: Option<(Tensor, f64)>,
}

/// Mix a batch as the recipe says. Where it names both ways, each has the same chance to be taken.
///
/// # Errors
/// When libtorch fails (memory).
pub fn mix(images: Tensor, labels: &Tensor, recipe: &Recipe, rng: &mut ChaCha8Rng) -> Result<MixedBatch> {
    let (settings, cut) = match (&recipe.mixup, &recipe.cutmix) {
        (None, None) => return Ok(MixedBatch { images, others: None }),
        (Some(mixup), None) => (mixup, false),
        (None, Some(cutmix)) => (cutmix, true),
        (Some(mixup), Some(cutmix)) => match rng.random::<bool>() {
            true => (cutmix, true),
            false => (mixup, false),
        },
    };
    if rng.random::<f64>() >= settings.probability {
        return Ok(MixedBatch { images, others: None });
    }
    let share = share(settings, rng)?;
    let (images, share) = match cut {
        true => cutmix(images, share, rng)?,
        false => (mixup(&images, share)?, share),
    };
    let others = labels.f_roll([1], [0])?;
    Ok(MixedBatch {
        images,
        others: Some((others, share)),
    })
}

/// One draw of Beta(α, α).
fn share(settings: &Mixing, rng: &mut ChaCha8Rng) -> Result<f64> {
    let beta = Beta::new(settings.alpha, settings.alpha).map_err(|error| Error::internal(format!("alpha {}: {error}", settings.alpha)))?;
    Ok(beta.inverse_cdf(rng.random::<f64>()).clamp(0.0, 1.0))
}

/// `share` of each picture, the rest of the one before it.
fn mixup(images: &Tensor, share: f64) -> Result<Tensor> {
    let others = images.f_roll([1], [0])?.f_mul_scalar(1.0 - share)?;
    Ok(images.f_mul_scalar(share)?.f_add(&others)?)
}

/// A box of 1 − `share` of the area is replaced by that of the picture before. Gives the share that is left, since the box may stick out.
fn cutmix(images: Tensor, share: f64, rng: &mut ChaCha8Rng) -> Result<(Tensor, f64)> {
    let size = images.size();
    let (height, width) = (size[2], size[3]);
    let (x, y) = (rng.random_range(0..width), rng.random_range(0..height));
    let half = 0.5 * (1.0 - share).sqrt();
    let (across, down) = ((half * width as f64) as i64, (half * height as f64) as i64);
    let (left, right) = ((x - across).max(0), (x + across).min(width));
    let (top, bottom) = ((y - down).max(0), (y + down).min(height));
    let inside = |images: &Tensor| images.f_narrow(2, top, bottom - top)?.f_narrow(3, left, right - left);
    if left < right && top < bottom {
        let others = inside(&images)?.f_roll([1], [0])?;
        inside(&images)?.f_copy_(&others)?;
    }
    let area = ((right - left) * (bottom - top)) as f64;
    Ok((images, 1.0 - area / (width * height) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tch::{Device, Kind};

    fn batch() -> (Tensor, Tensor) {
        let labels = Tensor::arange(4, (Kind::Int64, Device::Cpu));
        // Every pixel of picture n is n.
        let images = Tensor::arange(4, (Kind::Float, Device::Cpu))
            .view([4, 1, 1, 1])
            .expand([4, 3, 8, 6], true)
            .contiguous();
        (images, labels)
    }

    fn recipe(mixup: Option<f64>, cutmix: Option<f64>, probability: f64) -> Recipe {
        let mixing = |alpha| Mixing { alpha, probability };
        Recipe {
            mixup: mixup.map(mixing),
            cutmix: cutmix.map(mixing),
            ..Recipe::default()
        }
    }

    #[test]
    fn shares_are_drawn_from_the_beta_distribution() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for alpha in [0.2, 1.0, 4.0] {
            let drawn: Vec<f64> = (0..4000).map(|_| share(&Mixing { alpha, probability: 1.0 }, &mut rng).unwrap()).collect();
            let mean = drawn.iter().sum::<f64>() / 4000.0;
            let variance = drawn.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 4000.0;
            let wanted = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(
                (mean - 0.5).abs() < 0.03 && (variance / wanted - 1.0).abs() < 0.1,
                "{alpha}: {mean} {variance}"
            );
        }
    }

    #[test]
    fn mixup_takes_the_same_share_of_pixels_and_labels() {
        let (images, labels) = batch();
        let mixed = mix(images, &labels, &recipe(Some(1.0), None, 1.0), &mut ChaCha8Rng::seed_from_u64(2)).unwrap();
        let (others, share) = mixed.others.unwrap();
        assert_eq!(Vec::<i64>::try_from(&others).unwrap(), [3, 0, 1, 2]);
        assert!(share > 0.01 && share < 0.99);
        for (n, other) in [3.0, 0.0, 1.0, 2.0].into_iter().enumerate() {
            let wanted = share * n as f64 + (1.0 - share) * other;
            assert!((mixed.images.get(n as i64) - wanted).abs().max().double_value(&[]) < 1e-6);
        }
    }

    #[test]
    fn cutmix_replaces_a_box_and_counts_its_area() {
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..50 {
            let (images, labels) = batch();
            let mixed = mix(images, &labels, &recipe(None, Some(1.0), 1.0), &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
            let (_, share) = mixed.others.unwrap();
            let foreign = mixed.images.get(2).eq(1.0).sum(Kind::Int64).int64_value(&[]);
            let own = mixed.images.get(2).eq(2.0).sum(Kind::Int64).int64_value(&[]);
            assert_eq!((foreign + own, foreign % 3), (3 * 48, 0));
            assert!((1.0 - foreign as f64 / (3.0 * 48.0) - share).abs() < 1e-9);
            sizes.insert(foreign);
        }
        assert!(sizes.len() > 8, "{sizes:?}");
    }

    #[test]
    fn both_are_taken_as_often_and_neither_more_often_than_asked() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut counts = [0_u32; 3];
        for _ in 0..300 {
            let (images, labels) = batch();
            let mixed = mix(images, &labels, &recipe(Some(4.0), Some(4.0), 0.6), &mut rng).unwrap();
            let whole = mixed.images.round().eq_tensor(&mixed.images).all().int64_value(&[]) == 1;
            counts[match (mixed.others.is_some(), whole) {
                (false, _) => 0,
                (true, true) => 1,
                (true, false) => 2,
            }] += 1;
        }
        assert!((95..=145).contains(&counts[0]) && counts[1].abs_diff(counts[2]) < 50, "{counts:?}");
        let (images, labels) = batch();
        assert!(mix(images, &labels, &recipe(None, None, 1.0), &mut rng).unwrap().others.is_none());
    }
}
