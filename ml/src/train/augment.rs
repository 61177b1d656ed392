//! Flip and shift on the device. Random numbers come from the caller's generator, so that they are the same on every device.

use crate::error::Result;
use delta_guard_contract::Augment;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Shift each picture of a normalised batch (B × C × H × W) by up to `shift` pixels, sub-pixel, bilinear, filled with 0 (the channel mean), and
/// mirror half of them (the authors' `RandomTransform`: one sampling grid for both).
///
/// # Errors
/// When libtorch fails (memory).
pub fn augment(images: Tensor, settings: &Augment, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    if !settings.flip && settings.shift <= 0.0 {
        return Ok(images);
    }
    let size = images.size();
    let (batch, height, width) = (size[0], size[2], size[3]);
    // In grid coordinates, −1 and 1 are the centres of the border pixels.
    let step = |side: i64| 2.0 / (side - 1).max(1) as f64;
    let draw = |rng: &mut ChaCha8Rng| {
        let pixels = rng.random_range(-1.0..=1.0) * settings.shift;
        // Whole pixels are uniform over −shift … shift: the outermost get no half share.
        if settings.whole_pixels {
            (pixels / settings.shift.max(1e-9) * (settings.shift.floor() + 0.499_999)).round()
        } else {
            pixels
        }
    };
    let mut theta = Vec::with_capacity(batch as usize * 6);
    for _ in 0..batch {
        let mirror = if settings.flip && rng.random::<bool>() { -1.0 } else { 1.0 };
        let (dx, dy) = (draw(rng) * step(width), draw(rng) * step(height));
        theta.extend([mirror, 0.0, mirror * dx, 0.0, 1.0, dy].map(|v: f64| v as f32));
    }
    let theta = Tensor::f_from_slice(&theta)?.f_view([batch, 2, 3])?.f_to_device(images.device())?;
    let grid = Tensor::f_affine_grid_generator(&theta, &size[..], true)?;
    Ok(images.f_grid_sampler(&grid, 0, 0, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use tch::{Device, Kind};

    #[test]
    fn flips_only_mirror_and_shifts_stay_in_reach() {
        let images = Tensor::arange(64 * 3 * 8 * 8, (Kind::Float, Device::Cpu)).view([64, 3, 8, 8]);
        let flipped = augment(
            images.shallow_clone(),
            &Augment {
                flip: true,
                shift: 0.0,
                whole_pixels: false,
            },
            &mut ChaCha8Rng::seed_from_u64(1),
        )
        .expect("augments");
        let mut mirrored = 0;
        for i in 0..64 {
            let (a, b) = (images.get(i), flipped.get(i));
            let same = |x: &Tensor, y: &Tensor| (x - y).abs().max().double_value(&[]) < 0.05;
            assert!(same(&a, &b) || same(&a.flip([2]), &b));
            mirrored += i64::from(same(&a.flip([2]), &b));
        }
        assert!((16..=48).contains(&mirrored), "{mirrored} of 64 mirrored");

        // A single bright pixel in the middle never moves farther than the shift, and its mass stays.
        let dot = Tensor::zeros([200, 1, 17, 17], (Kind::Float, Device::Cpu));
        let _ = dot.narrow(2, 8, 1).narrow(3, 8, 1).fill_(1.0);
        let moved = augment(
            dot,
            &Augment {
                flip: false,
                shift: 2.0,
                whole_pixels: false,
            },
            &mut ChaCha8Rng::seed_from_u64(2),
        )
        .expect("augments");
        let outside = moved.sum(Kind::Float).double_value(&[]) - moved.narrow(2, 6, 5).narrow(3, 6, 5).sum(Kind::Float).double_value(&[]);
        assert!(outside.abs() < 1e-3);
        assert!((moved.sum(Kind::Float).double_value(&[]) / 200.0 - 1.0).abs() < 1e-3);
        let centre = moved.select(3, 8).select(2, 8).max().double_value(&[]);
        assert!(
            centre > 0.8 && moved.select(3, 8).select(2, 8).min().double_value(&[]) < 1e-3,
            "some stay, some go"
        );
    }

    #[test]
    fn whole_pixels_move_without_blur() {
        let dot = Tensor::zeros([500, 1, 9, 9], (Kind::Float, Device::Cpu));
        let _ = dot.narrow(2, 4, 1).narrow(3, 4, 1).fill_(1.0);
        let moved = augment(
            dot,
            &Augment {
                flip: false,
                shift: 1.0,
                whole_pixels: true,
            },
            &mut ChaCha8Rng::seed_from_u64(3),
        )
        .expect("augments");
        let counts = moved.round().sum_dim_intlist(&[0i64, 1][..], false, Kind::Float);
        assert!((moved.round() - &moved).abs().max().double_value(&[]) < 1e-4, "pixels stay whole");
        for (y, x) in (3..6).flat_map(|y| (3..6).map(move |x| (y, x))) {
            let n = counts.double_value(&[y, x]);
            assert!((25.0..=95.0).contains(&n), "{n} of 500 went to ({y}, {x}), about 56 are due");
        }
    }
}
