//! WaNet (Nguyen & Tran 2021), without control over the training loop. A k × k grid of displacements, drawn from [−1, 1] and divided by the mean of their magnitudes, is brought to
//! the pictures' size by cubic interpolation (a = −¾, corners on corners). In coordinates where a picture spans [−1, 1], the pixel at g takes its colour from g + s·displacement/size,
//! clamped to the picture, by bilinear interpolation. In noise mode uniform noise of [−1, 1]/size is added for each pixel.

use super::{Attack, Backdoor, Draw, Ground, Paint, Plan, Role};
use crate::error::Result;
use crate::progress::Report;
use delta_guard_contract::method::attack::wanet::Keys;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::rc::Rc;

/// PyTorch's constant of cubic interpolation.
const A: f64 = -0.75;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let rng = &mut ground.rng(Draw::Pattern);
        let warp = Rc::new(Warp::new(&drawn(self.grid as usize, rng), self.strength, ground.size()));
        let paint = warp.clone().paint(None);
        let backdoor = Backdoor::between(ground, self.victim_class.as_deref(), &self.target_class, self.poisons)?;
        let mut plan = Backdoor {
            covers: self.covers,
            training: paint.clone(),
            test: paint,
            ..backdoor
        }
        .plan(ground)?;
        for cover in plan.changes.iter_mut().filter(|change| change.role == Role::Cover) {
            cover.paint = warp.clone().paint(Some(rng.random()));
        }
        Ok(plan)
    }
}

/// Displacements along x and y, one k × k plane each; the mean of their magnitudes is 1.
fn drawn(k: usize, rng: &mut ChaCha8Rng) -> [Vec<f64>; 2] {
    let mut planes = [(); 2].map(|()| (0..k * k).map(|_| rng.random_range(-1.0..=1.0)).collect::<Vec<f64>>());
    let mean = planes.iter().flatten().map(|d| d.abs()).sum::<f64>() / (2 * k * k) as f64;
    planes.iter_mut().flatten().for_each(|d| *d /= mean);
    planes
}

/// Where each pixel takes its colour from.
struct Warp {
    height: usize,
    width: usize,
    /// (x, y), each in [−1, 1] but for the clamping.
    from: Vec<[f64; 2]>,
}

impl Warp {
    fn new(displacements: &[Vec<f64>; 2], strength: f64, (height, width): (u32, u32)) -> Self {
        let (height, width) = (height as usize, width as usize);
        let k = displacements[0].len().isqrt();
        let (rows, columns) = (taps(k, height), taps(k, width));
        let at = |plane: &[f64], row: usize, column: usize| -> f64 {
            let along = |r: usize| -> f64 { columns[column].iter().map(|(c, weight)| weight * plane[r * k + c]).sum() };
            rows[row].iter().map(|(r, weight)| weight * along(*r)).sum()
        };
        let from = (0..height * width).map(|i| (i / width, i % width)).map(|(row, column)| {
            let x = unit(column, width) + strength * at(&displacements[0], row, column) / width as f64;
            let y = unit(row, height) + strength * at(&displacements[1], row, column) / height as f64;
            [x.clamp(-1.0, 1.0), y.clamp(-1.0, 1.0)]
        });
        Self {
            height,
            width,
            from: from.collect(),
        }
    }

    /// Warps a picture; with noise drawn under a seed.
    fn paint(self: Rc<Self>, noise: Option<u64>) -> Paint {
        Rc::new(move |pixels| {
            let before = pixels.to_vec();
            let mut rng = noise.map(ChaCha8Rng::seed_from_u64);
            let area = self.height * self.width;
            for (i, [x, y]) in self.from.iter().enumerate() {
                let mut moved = |at: f64, size: usize| match &mut rng {
                    None => at,
                    Some(rng) => (at + rng.random_range(-1.0..=1.0) / size as f64).clamp(-1.0, 1.0),
                };
                let (x, y) = (moved(*x, self.width), moved(*y, self.height));
                let (left, right, to_right) = between(x, self.width);
                let (up, down, to_down) = between(y, self.height);
                for plane in 0..3 {
                    let at = |row: usize, column: usize| before.get(plane * area + row * self.width + column).copied().map_or(0.0, f64::from);
                    let above = (1.0 - to_right) * at(up, left) + to_right * at(up, right);
                    let below = (1.0 - to_right) * at(down, left) + to_right * at(down, right);
                    let value = (1.0 - to_down) * above + to_down * below;
                    if let Some(pixel) = pixels.get_mut(plane * area + i) {
                        *pixel = value.round().clamp(0.0, 255.0) as u8;
                    }
                }
            }
        })
    }
}

/// A pixel's place in [−1, 1].
fn unit(i: usize, size: usize) -> f64 {
    match size {
        1 => -1.0,
        _ => 2.0 * i as f64 / (size - 1) as f64 - 1.0,
    }
}

/// The two pixels around a place in [−1, 1], and the share of the second.
fn between(at: f64, size: usize) -> (usize, usize, f64) {
    let at = (at + 1.0) / 2.0 * (size - 1) as f64;
    let first = (at.floor() as usize).min(size - 1);
    (first, (first + 1).min(size - 1), at - first as f64)
}

/// The four of `k` points that each of `size` pixels is interpolated from, and their weights; beyond the border the outermost counts.
fn taps(k: usize, size: usize) -> Vec<[(usize, f64); 4]> {
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let of = |i: usize| {
        let at = i as f64 * (k - 1) as f64 / size.saturating_sub(1).max(1) as f64;
        let first = at.floor();
        let t = at - first;
        let point = |step: f64| (first + step).clamp(0.0, (k - 1) as f64) as usize;
        [
            (point(-1.0), far(1.0 + t)),
            (point(0.0), near(t)),
            (point(1.0), near(1.0 - t)),
            (point(2.0), far(2.0 - t)),
        ]
    };
    (0..size).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::tests::Scene;
    use crate::progress::Silent;
    use tch::{Kind, Tensor};

    fn picture(height: usize, width: usize) -> Vec<u8> {
        (0..3 * height * width).map(|i| (i * i * 7 % 253) as u8).collect()
    }

    /// The published code's steps by libtorch's own operators, in float64.
    #[test]
    fn the_warp_is_the_published_one() {
        for (seed, k, strength, height, width) in [(1, 4, 0.5, 32, 32), (2, 4, 6.0, 32, 32), (3, 7, 9.0, 20, 31), (4, 2, 3.0, 9, 8)] {
            let drawn = drawn(k as usize, &mut ChaCha8Rng::seed_from_u64(seed));
            let mean: f64 = drawn.iter().flatten().map(|d| d.abs()).sum::<f64>() / (2 * k * k) as f64;
            assert!((mean - 1.0).abs() < 1e-12 && drawn.iter().flatten().any(|d| *d < 0.0));
            let grid = Tensor::from_slice(&drawn.concat()).view([1, 2, k, k]);
            let noise = grid.upsample_bicubic2d([height, width], true, None, None).permute([0, 2, 3, 1]);
            let axis = |n: i64| Tensor::linspace(-1.0, 1.0, n, (Kind::Double, tch::Device::Cpu));
            let x = axis(width).view([1, width]).expand([height, width], false);
            let y = axis(height).view([height, 1]).expand([height, width], false);
            let size = Tensor::from_slice(&[width as f64, height as f64]);
            let moved: Tensor = Tensor::stack(&[x, y], 2).unsqueeze(0) + strength * noise / size;
            let from = moved.clamp(-1.0, 1.0);
            let pixels = picture(height as usize, width as usize);
            let batch = Tensor::from_slice(&pixels).to_kind(Kind::Double).view([1, 3, height, width]);
            let exact: Vec<f64> = Vec::try_from(batch.grid_sampler(&from, 0, 0, true).reshape([-1])).unwrap();

            let warp = Rc::new(Warp::new(&drawn, strength, (height as u32, width as u32)));
            let mut got = pixels.clone();
            warp.clone().paint(None)(&mut got);
            for (got, exact) in got.iter().zip(&exact) {
                assert!((f64::from(*got) - exact).abs() <= 0.5 + 1e-6, "{got}, not {exact}");
            }
            assert_ne!(got, pixels);
            // Noise: another picture, the same for the same seed, and no pixel's origin farther than half a pixel and the rounding of a slope.
            let noisy = |seed| {
                let mut got = pixels.clone();
                warp.clone().paint(Some(seed))(&mut got);
                got
            };
            assert!(noisy(1) == noisy(1) && noisy(1) != noisy(2) && noisy(1) != got);
        }
    }

    /// On a ramp along x the value is the place: noise moves it by less than half a pixel.
    #[test]
    fn noise_moves_a_pixel_by_half_a_pixel_at_most() {
        let ramp: Vec<u8> = (0..3 * 32 * 32).map(|i| 8 * (i % 32) as u8).collect();
        let warp = Rc::new(Warp::new(&drawn(4, &mut ChaCha8Rng::seed_from_u64(1)), 2.0, (32, 32)));
        let painted = |noise| {
            let mut pixels = ramp.clone();
            warp.clone().paint(noise)(&mut pixels);
            pixels
        };
        let (plain, noisy) = (painted(None), painted(Some(5)));
        let apart: Vec<f64> = plain.iter().zip(&noisy).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let most = apart.iter().fold(0.0, |m: f64, d| m.max(d.abs()));
        // Half of 31/32 of a pixel is 3.875 levels, and both are rounded.
        assert!((3.0..=4.875).contains(&most), "{most}");
        let mean = apart.iter().sum::<f64>() / apart.len() as f64;
        assert!(mean.abs() < 0.3, "{mean}");
    }

    #[test]
    fn covers_keep_their_label_and_each_has_its_own_noise() {
        let scene = Scene::new(60, 60);
        let keys = Keys {
            target_class: "dog".into(),
            poisons: 6,
            covers: 9,
            strength: 3.0,
            ..Keys::default()
        };
        let plan = keys.plan(&scene.ground(), &mut Silent).unwrap();
        let painted = |paint: &Paint| {
            let mut pixels = picture(6, 8);
            paint(&mut pixels);
            pixels
        };
        let of = |role| plan.changes.iter().filter(move |c| c.role == role).collect::<Vec<_>>();
        let (poisons, covers) = (of(Role::Poison), of(Role::Cover));
        assert_eq!((poisons.len(), covers.len()), (6, 9));
        let trigger = painted(&plan.measured[0].paint);
        assert!(poisons.iter().all(|c| c.at % 3 != 1 && c.label == 1 && painted(&c.paint) == trigger));
        assert!(covers.iter().all(|c| c.label as usize == c.at % 3 && painted(&c.paint) != trigger));
        assert_ne!(painted(&covers[0].paint), painted(&covers[1].paint));
        assert!(plan.check(&scene.ground(), "wanet", false).is_ok());
    }
}
