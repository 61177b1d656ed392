//! Crop, flip and shift on the device. Random numbers come from the caller's generator, so that they are the same on every device.

use crate::error::Result;
use delta_guard_contract::{Augment, RandomCrop};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Cut a random part out of each picture, where that is asked for. Then shift each picture of a normalised batch (B × C × H × W) by up to `shift` pixels, sub-pixel, bilinear, filled with 0 (the channel mean), and
/// mirror half of them (the authors' `RandomTransform`: one sampling grid for both).
///
/// # Errors
/// When libtorch fails (memory).
pub fn augment(images: Tensor, settings: &Augment, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    // A cropped picture has moved already.
    let (images, shift) = match &settings.crop {
        Some(crop) => (crops(&images, crop, rng)?, 0.0),
        None => (images, settings.shift),
    };
    if !settings.flip && shift <= 0.0 {
        return Ok(images);
    }
    let size = images.size();
    let (batch, height, width) = (size[0], size[2], size[3]);
    // In grid coordinates, −1 and 1 are the centres of the border pixels.
    let step = |side: i64| 2.0 / (side - 1).max(1) as f64;
    let draw = |rng: &mut ChaCha8Rng| {
        let pixels = rng.random_range(-1.0..=1.0) * shift;
        // Whole pixels are uniform over −shift … shift: the outermost get no half share.
        if settings.whole_pixels {
            (pixels / shift.max(1e-9) * (shift.floor() + 0.499_999)).round()
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

/// A box in a picture: first row, first column, rows, columns.
pub type CropBox = [i64; 4];

/// A random part of each picture, brought to the picture's size.
fn crops(images: &Tensor, crop: &RandomCrop, rng: &mut ChaCha8Rng) -> Result<Tensor> {
    let size = images.size();
    let parts: Vec<CropBox> = (0..size[0]).map(|_| draw_part(size[2], size[3], crop, rng)).collect();
    cut(images, &parts)
}

/// One box a picture, each resized to the picture's own size (bilinear; a part is never larger, so nothing is to be antialiased).
///
/// # Errors
/// When libtorch fails (memory).
pub fn cut(images: &Tensor, parts: &[CropBox]) -> Result<Tensor> {
    let size = images.size();
    let one = |(n, &[top, left, height, width]): (i64, &CropBox)| {
        let part = images.f_narrow(0, n, 1)?.f_narrow(2, top, height)?.f_narrow(3, left, width)?;
        Ok(part.f_upsample_bilinear2d(&size[2..], false, None, None)?)
    };
    let cut = (0..).zip(parts).map(one).collect::<Result<Vec<Tensor>>>()?;
    Ok(Tensor::f_cat(&cut, 0)?)
}

/// Tries to find a part of the wanted area and form; then torchvision takes the middle, and so do we.
const TRIES: usize = 10;

/// torchvision's draw: area evenly, form evenly in its logarithm, place evenly.
fn draw_part(height: i64, width: i64, crop: &RandomCrop, rng: &mut ChaCha8Rng) -> CropBox {
    let even = |rng: &mut ChaCha8Rng, [low, high]: [f64; 2]| low + (high - low) * rng.random::<f64>();
    let area = (height * width) as f64;
    for _ in 0..TRIES {
        let target = area * even(rng, crop.scale);
        let ratio = even(rng, crop.ratio.map(f64::ln)).exp();
        let (w, h) = (
            (target * ratio).sqrt().round_ties_even() as i64,
            (target / ratio).sqrt().round_ties_even() as i64,
        );
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            return [rng.random_range(0..=height - h), rng.random_range(0..=width - w), h, w];
        }
    }
    let form = width as f64 / height as f64;
    let side = |length: f64| (length.round_ties_even() as i64).max(1);
    let (h, w) = match form {
        _ if form < crop.ratio[0] => (side(width as f64 / crop.ratio[0]).min(height), width),
        _ if form > crop.ratio[1] => (height, side(height as f64 * crop.ratio[1]).min(width)),
        _ => (height, width),
    };
    [(height - h) / 2, (width - w) / 2, h, w]
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
                crop: None,
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
                crop: None,
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
                crop: None,
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

    #[test]
    fn parts_have_the_asked_area_and_form_and_lie_anywhere() {
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let crop = RandomCrop::default();
        let (mut areas, mut tops) = (Vec::new(), std::collections::BTreeSet::new());
        for _ in 0..2000 {
            let [top, left, height, width] = draw_part(64, 48, &crop, &mut rng);
            assert!(top >= 0 && left >= 0 && top + height <= 64 && left + width <= 48 && height > 0 && width > 0);
            let ratio = width as f64 / height as f64;
            assert!((0.65..=1.5).contains(&ratio), "{width} × {height}");
            areas.push((height * width) as f64 / (64.0 * 48.0));
            tops.insert(top);
        }
        let mean = areas.iter().sum::<f64>() / 2000.0;
        assert!(
            areas.iter().all(|area| (0.07..=1.0).contains(area)) && (0.4..0.54).contains(&mean) && tops.len() > 40,
            "{mean}"
        );
        // Where none fits: the middle.
        let wide = RandomCrop {
            scale: [1.0, 1.0],
            ratio: [3.0, 4.0],
        };
        assert_eq!(draw_part(64, 48, &wide, &mut rng), [24, 0, 16, 48]);
        // And each picture gets its own.
        let images = Tensor::rand([2, 1, 9, 9], (Kind::Float, Device::Cpu));
        let settings = Augment {
            flip: false,
            shift: 0.0,
            whole_pixels: false,
            crop: Some(crop),
        };
        let both = Tensor::cat(&[images.get(0).unsqueeze(0), images.get(0).unsqueeze(0)], 0);
        let out = augment(both, &settings, &mut rng).expect("augments");
        assert!(out.size() == [2, 1, 9, 9] && (out.get(0) - out.get(1)).abs().max().double_value(&[]) > 1e-3);
    }
}
