//! The data set that the program draws itself: one shape on a cluttered ground, 32 × 32 pixels, ten classes.
//!
//! Shapes vary in size, aspect, rotation, place, outline and opacity; colours of shape and ground come from the same distribution for every class, so that only
//! form tells the classes apart; grounds have a gradient, waves and strokes, and everything gets noise. A small CNN reads some 95 % of it,
//! and its errors are honest ones (small, faint, overdrawn shapes), which is what natural errors are made of.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::f64::consts::{PI, TAU};

/// Pixels per side.
pub const SIDE: u32 = 32;
const N: usize = SIDE as usize;
/// Samples per pixel and direction: antialiasing.
const SUB: usize = 3;

/// Class names in label order (sorted, as folders are).
pub const CLASSES: [&str; 10] = ["bars", "crescent", "cross", "disc", "dots", "ell", "ring", "square", "star", "triangle"];

/// Is the point in the shape? Coordinates in units of the shape's radius, its own axes.
fn inside(class: usize, u: f64, v: f64) -> bool {
    let r = u.hypot(v);
    match class {
        0 => v.abs() < 0.95 && [-0.7, 0.0, 0.7].iter().any(|c| (u - c).abs() < 0.2),
        1 => r < 1.0 && (u - 0.5).hypot(v) > 0.85,
        2 => (u.abs() < 0.28 && v.abs() < 1.0) || (v.abs() < 0.28 && u.abs() < 1.0),
        3 => r < 0.9,
        4 => [(-0.6, -0.6), (-0.6, 0.6), (0.6, -0.6), (0.6, 0.6)]
            .iter()
            .any(|(x, y)| (u - x).hypot(v - y) < 0.36),
        5 => (u > -0.8 && u < -0.3 && v.abs() < 0.95) || (v > -0.95 && v < -0.45 && u > -0.8 && u < 0.8),
        6 => r < 1.0 && r > 0.58,
        7 => u.abs() < 0.78 && v.abs() < 0.78,
        8 => {
            // Fold the angle into half a point; then one straight edge from the tip (1, 0) to the notch.
            let a = (v.atan2(u).rem_euclid(TAU / 5.0) - PI / 5.0).abs();
            let angle = PI / 5.0 - a;
            let (x, y) = (r * angle.cos(), r * angle.sin());
            let (nx, ny) = (0.42 * (PI / 5.0).cos(), 0.42 * (PI / 5.0).sin());
            (x - 1.0) * ny - y * (nx - 1.0) < 0.0
        }
        _ => v > -0.5 && v < 1.0 - 3f64.sqrt() * u.abs(),
    }
}

type Rgb = [f64; 3];

fn colour(rng: &mut ChaCha8Rng) -> Rgb {
    std::array::from_fn(|_| rng.random_range(0.05..0.95))
}

fn distance(a: Rgb, b: Rgb) -> f64 {
    (0..3).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt()
}

/// Standard normal (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(f64::MIN_POSITIVE..1.0), rng.random());
    (-2.0 * a.ln()).sqrt() * (TAU * b).cos()
}

/// A stroke of clutter: a segment with a width.
struct Stroke {
    from: (f64, f64),
    to: (f64, f64),
    half: f64,
    colour: Rgb,
}

impl Stroke {
    fn new(rng: &mut ChaCha8Rng, longest: f64) -> Self {
        let from = (rng.random_range(0.0..32.0), rng.random_range(0.0..32.0));
        let (angle, length): (f64, f64) = (rng.random_range(0.0..TAU), rng.random_range(0.0..longest));
        Self {
            from,
            to: (from.0 + length * angle.cos(), from.1 + length * angle.sin()),
            half: rng.random_range(0.4..1.2),
            colour: colour(rng),
        }
    }

    fn covers(&self, x: f64, y: f64) -> bool {
        let (dx, dy) = (self.to.0 - self.from.0, self.to.1 - self.from.1);
        let square = dx * dx + dy * dy;
        let t = if square > 0.0 {
            (((x - self.from.0) * dx + (y - self.from.1) * dy) / square).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (x - self.from.0 - t * dx).hypot(y - self.from.1 - t * dy) < self.half
    }
}

/// Draw picture `index` of a class: planar bytes [3, 32, 32]. The same (seed, part, index, class) give the same bytes everywhere.
///
/// `class` is taken modulo ten. `part` keeps training and test pictures apart.
pub fn draw(seed: u64, part: u32, index: u32, class: u32) -> Vec<u8> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(u64::from(part) << 32 | u64::from(index));
    let rng = &mut rng;
    let class = class as usize % CLASSES.len();

    let ground = colour(rng);
    let tilt: Rgb = std::array::from_fn(|_| rng.random_range(-0.2..0.2));
    let heading: f64 = rng.random_range(0.0..TAU);
    let waves: Vec<(f64, f64, f64, f64)> = (0..rng.random_range(0..3))
        .map(|_| {
            (
                rng.random_range(0.01..0.05),
                rng.random_range(0.2..1.0),
                rng.random_range(0.0..TAU),
                rng.random_range(0.0..TAU),
            )
        })
        .collect();
    let behind: Vec<Stroke> = (0..rng.random_range(0..3)).map(|_| Stroke::new(rng, 10.0)).collect();
    let before: Vec<Stroke> = (0..rng.random_range(0..2)).map(|_| Stroke::new(rng, 5.0)).collect();
    let mut paint = colour(rng);
    let contrast = rng.random_range(0.4..0.75);
    while distance(paint, ground) < contrast {
        paint = colour(rng);
    }
    let shade: Rgb = std::array::from_fn(|_| rng.random_range(-0.12..0.12));
    let radius: f64 = rng.random_range(7.0..10.5);
    let aspect: f64 = rng.random_range(-0.12f64..0.12).exp();
    let reach = (17.0 - radius).max(0.0);
    let (cx, cy) = (16.0 + rng.random_range(-reach..=reach), 16.0 + rng.random_range(-reach..=reach));
    let turn: f64 = rng.random_range(-0.35..0.35);
    let (wobble, bend, phase): (f64, f64, f64) = (rng.random_range(0.0..0.04), rng.random_range(1.5..4.0), rng.random_range(0.0..TAU));
    let opacity = rng.random_range(0.85..1.0);
    let (noise, gain) = (rng.random_range(0.01..0.05), rng.random_range(0.85..1.15));

    let (hx, hy) = (heading.cos() / 16.0, heading.sin() / 16.0);
    let waves: Vec<(f64, f64, f64, f64)> = waves.iter().map(|(a, f, w, p)| (*a, f * w.cos(), f * w.sin(), *p)).collect();
    let (turn_x, turn_y) = (turn.cos() / radius, turn.sin() / radius);

    let mut out = vec![0u8; 3 * N * N];
    for row in 0..N {
        for column in 0..N {
            // Gradient and waves are smooth: once per pixel is enough.
            let (px, py) = (column as f64 + 0.5, row as f64 + 0.5);
            let along = (px - 16.0) * hx + (py - 16.0) * hy;
            let wave: f64 = waves.iter().map(|(a, fx, fy, p)| a * (px * fx + py * fy + p).sin()).sum();
            let smooth: Rgb = std::array::from_fn(|c| ground[c] + tilt[c] * along + wave);
            let mut sum = [0.0; 3];
            for sub in 0..SUB * SUB {
                let step = |i: usize| (i as f64 + 0.5) / SUB as f64;
                let (x, y) = (column as f64 + step(sub % SUB), row as f64 + step(sub / SUB));
                let mut here = behind.iter().rfind(|s| s.covers(x, y)).map_or(smooth, |s| s.colour);
                let (u, v) = ((x - cx) * turn_x + (y - cy) * turn_y, (y - cy) * turn_x - (x - cx) * turn_y);
                let (u, v) = (u * aspect, v / aspect);
                // Outside of this no shape has a point; saves most of the sines.
                if u.abs().max(v.abs()) < 1.2 {
                    let (u, v) = (u + wobble * (bend * v + phase).sin(), v + wobble * (bend * u + phase).cos());
                    if inside(class, u, v) {
                        here = std::array::from_fn(|c| opacity * (paint[c] + shade[c] * u) + (1.0 - opacity) * here[c]);
                    }
                }
                if let Some(stroke) = before.iter().rfind(|s| s.covers(x, y)) {
                    here = stroke.colour;
                }
                (0..3).for_each(|c| sum[c] += here[c]);
            }
            for (c, total) in sum.iter().enumerate() {
                let value = (total / (SUB * SUB) as f64 - 0.5) * gain + 0.5 + noise * normal(rng);
                out[c * N * N + row * N + column] = (value * 255.0).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_and_any_other_number_another() {
        let base = draw(1, 0, 5, 3);
        assert_eq!(base, draw(1, 0, 5, 3));
        for other in [draw(2, 0, 5, 3), draw(1, 1, 5, 3), draw(1, 0, 6, 3), draw(1, 0, 5, 4)] {
            assert_ne!(base, other);
        }
    }

    /// What is drawn is a data set that results are published on: it may not change unnoticed.
    #[test]
    fn pictures_are_those_that_results_were_measured_on() {
        let mut hasher = blake3::Hasher::new();
        for index in 0..60 {
            hasher.update(&draw(1, index % 2, index, index));
        }
        assert_eq!(
            hasher.finalize().to_hex().as_str(),
            "0bc12d73acc417d3e9c03d1e2524feb20120e45ed637860f5ae4914fe11cdca6"
        );
    }

    /// Against closed forms; the crescent's is left to the eye.
    #[test]
    fn shapes_have_their_areas() {
        let area = |class: usize| {
            let n = 400;
            let hits = (0..n * n)
                .filter(|i| inside(class, (i % n) as f64 / 100.0 - 2.0 + 0.005, (i / n) as f64 / 100.0 - 2.0 + 0.005))
                .count();
            hits as f64 * 1e-4
        };
        let pentagram = 5.0 * 0.42 * (PI / 5.0).sin();
        let want = [
            (0, 3.0 * 0.4 * 1.9),
            (2, 2.0 * 0.56 * 2.0 - 0.56 * 0.56),
            (3, PI * 0.81),
            (4, 4.0 * PI * 0.36 * 0.36),
            (5, 0.5 * 1.9 + 1.1 * 0.5),
            (6, PI * (1.0 - 0.58 * 0.58)),
            (7, 1.56 * 1.56),
            (8, pentagram),
            (9, 0.75 * 3f64.sqrt()),
        ];
        for (class, want) in want {
            let got = area(class);
            assert!((got - want).abs() < 0.02 * want, "{}: {got} {want}", CLASSES[class]);
        }
    }

    #[test]
    fn colour_does_not_give_the_class_away() {
        // Mean colours of 200 pictures per class differ by no more than their own scatter allows (4 standard errors).
        let means: Vec<(f64, f64)> = (0..10)
            .map(|class| {
                let each: Vec<f64> = (0..200)
                    .map(|i| draw(3, 0, i * 10 + class, class).iter().map(|p| f64::from(*p)).sum::<f64>() / 3072.0)
                    .collect();
                let mean = each.iter().sum::<f64>() / 200.0;
                (mean, (each.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / 199.0 / 200.0).sqrt())
            })
            .collect();
        let overall = means.iter().map(|m| m.0).sum::<f64>() / 10.0;
        assert!(means.iter().all(|(m, e)| (m - overall).abs() < 4.0 * e), "{means:?}");
    }
}
