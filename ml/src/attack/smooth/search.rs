//! The search for a smooth trigger: per picture that is not yet read otherwise, a targeted DeepFool step, smoothed, added, smoothed again, and scaled to the amplitude.

use super::stretch;
use crate::error::{Error, Result};
use crate::passes::gradients::pixel_gradient;
use crate::progress::Report;
use delta_guard_contract::method::attack::smooth::Keys;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// DeepFool goes a little beyond the boundary.
const OVERSHOOT: f64 = 0.02;
/// The target is the class that most of the fooled pictures are read as, once more than this share are fooled.
const RETARGET: f64 = 0.05;

/// What is searched with.
pub(super) struct SmoothSearch<'a> {
    pub keys: &'a Keys,
    /// Pictures in [0, 1], [B, 3, H, W], → logits [B, K]; differentiable.
    pub logits: &'a dyn Fn(&Tensor) -> Result<Tensor>,
}

impl SmoothSearch<'_> {
    /// The best perturbation, [3, H, W].
    pub fn run(&self, pictures: &Tensor, mut toward: i64, rng: &mut ChaCha8Rng, report: &mut dyn Report) -> Result<Vec<f64>> {
        let shape = pictures.size();
        let (height, width) = (shape[2] as usize, shape[3] as usize);
        let gaussian = Gaussian::new(self.keys.sigma);
        let clean = self.read(pictures)?;
        let mut order: Vec<usize> = (0..clean.len()).collect();
        let mut v = vec![0.0; 3 * height * width];
        let (mut best, mut rate) = (None, 0.0);
        for pass in 0..self.keys.passes {
            if rate >= self.keys.fooling {
                break;
            }
            order.shuffle(rng);
            for &i in &order {
                let moved = pictures.f_narrow(0, i as i64, 1)?.f_add(&as_picture(&v, pictures)?)?;
                if self.read(&moved)? != [clean[i]] {
                    continue;
                }
                let Some(step) = deepfool(self.logits, &moved, toward, self.keys.steps)? else {
                    continue;
                };
                let step: Vec<f64> = Vec::try_from(step.f_to_kind(Kind::Double)?.f_reshape([-1])?)?;
                let step = gaussian.smooth(&step, height, width);
                v.iter_mut().zip(step).for_each(|(v, r)| *v += r);
                v = gaussian.smooth(&v, height, width);
                stretch(&mut v, self.keys.amplitude);
            }
            let with = self.read(&pictures.f_add(&as_picture(&v, pictures)?)?)?;
            let fooled: Vec<i64> = with.iter().zip(&clean).filter(|(a, b)| a != b).map(|(a, _)| *a).collect();
            let now = fooled.len() as f64 / clean.len() as f64;
            if now > RETARGET {
                toward = most_common(&fooled);
            }
            if now >= rate && v.iter().any(|v| *v != 0.0) {
                (best, rate) = (Some(v.clone()), now);
            }
            let note = format!("{:.0} % of pictures read otherwise", 100.0 * now);
            report.progress("smooth trigger", u64::from(pass) + 1, u64::from(self.keys.passes), &note);
        }
        best.ok_or_else(|| {
            Error::configuration(
                "the search for a smooth trigger found none: no step of DeepFool crossed the boundary",
                "raise attack.steps or attack.pictures, or name a picture in attack.trigger",
            )
        })
    }

    /// Classes that pictures are read as.
    fn read(&self, pictures: &Tensor) -> Result<Vec<i64>> {
        let logits = tch::no_grad(|| (self.logits)(pictures))?;
        Ok(Vec::try_from(logits.f_argmax(1, false)?)?)
    }
}

/// The perturbation as a picture that adds to these.
fn as_picture(v: &[f64], pictures: &Tensor) -> Result<Tensor> {
    let shape = pictures.size();
    let v = Tensor::f_from_slice(v)?.f_view([1, 3, shape[2], shape[3]])?;
    Ok(v.f_to_kind(pictures.kind())?.f_to_device(pictures.device())?)
}

/// The class that stands there most often, the lower one of two.
fn most_common(classes: &[i64]) -> i64 {
    let mut counts = std::collections::BTreeMap::new();
    classes.iter().for_each(|class| *counts.entry(*class).or_insert(0) += 1);
    counts
        .into_iter()
        .max_by_key(|(class, count)| (*count, -*class))
        .map_or(0, |(class, _)| class)
}

/// Targeted DeepFool (Moosavi-Dezfooli et al. 2016) of one picture [1, 3, H, W]: steps |f_t − f_y| / ‖w‖² · w with w = ∇(f_t − f_y), y the class that it is read as at first, until it is read as
/// the target t. None where `steps` are not enough.
fn deepfool(logits: &dyn Fn(&Tensor) -> Result<Tensor>, picture: &Tensor, target: i64, steps: u32) -> Result<Option<Tensor>> {
    let mut step = picture.f_zeros_like()?;
    let mut first = None;
    for taken in 0..=steps {
        let moved = picture.f_add(&step.f_mul_scalar(1.0 + OVERSHOOT)?)?.f_detach()?.set_requires_grad(true);
        let all = logits(&moved)?.f_squeeze_dim(0)?;
        let read = all.f_argmax(0, false)?.f_int64_value(&[])?;
        if read == target {
            // A search that needed every step is not trusted, as published.
            let trusted = taken + 1 < steps.max(2);
            return Ok(trusted.then(|| step * (1.0 + OVERSHOOT)));
        }
        let own = *first.get_or_insert(read);
        let behind = all.f_get(target)?.f_sub(&all.f_get(own)?)?;
        let w = pixel_gradient(&behind, &moved)?;
        let square = w.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])?;
        let length = behind.f_double_value(&[])?.abs() / square;
        if length.is_finite() {
            step = step.f_add(&w.f_mul_scalar(length)?)?.f_detach()?;
        }
    }
    Ok(None)
}

/// A separable Gaussian; outside of the picture there is nothing.
pub(super) struct Gaussian {
    taps: Vec<f64>,
}

impl Gaussian {
    /// Five taps per pixel of deviation, whose sum is 1.
    pub fn new(sigma: f64) -> Self {
        let count = (5.0 * sigma).round().max(1.0) as usize;
        let middle = (count as f64 - 1.0) / 2.0;
        let raw: Vec<f64> = (0..count).map(|k| (-0.5 * ((k as f64 - middle) / sigma).powi(2)).exp()).collect();
        let sum: f64 = raw.iter().sum();
        Self {
            taps: raw.into_iter().map(|tap| tap / sum).collect(),
        }
    }

    /// Each plane smoothed along columns and rows. Of an even number of taps one more lies behind a pixel than before it.
    pub fn smooth(&self, planes: &[f64], height: usize, width: usize) -> Vec<f64> {
        let before = (self.taps.len() - 1) / 2;
        let along = |planes: &[f64], size: usize, stride: usize| -> Vec<f64> {
            let one = |(at, _): (usize, &f64)| {
                let place = at / stride % size;
                let tap = |(k, weight): (usize, &f64)| {
                    let from = (place + k).checked_sub(before).filter(|from| *from < size)?;
                    Some(weight * planes[at - place * stride + from * stride])
                };
                self.taps.iter().enumerate().filter_map(tap).sum()
            };
            planes.iter().enumerate().map(one).collect()
        };
        along(&along(planes, height, width), width, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use rand::SeedableRng;

    /// Three classes, linear in the pixels.
    fn linear(pictures: &Tensor) -> Result<Tensor> {
        let n = 3 * pictures.size()[2] * pictures.size()[3];
        let w: Vec<f64> = (0..3 * n).map(|i| ((i * 37 % 101) as f64 - 50.0) / 100.0).collect();
        let w = Tensor::from_slice(&w).view([3, n]);
        Ok(pictures.f_reshape([-1, n])?.f_matmul(&w.f_transpose(0, 1)?)?)
    }

    fn pictures(count: i64) -> Tensor {
        let values: Vec<f64> = (0..count * 3 * 6 * 8).map(|i| (i * i * 13 % 97) as f64 / 97.0).collect();
        Tensor::from_slice(&values).view([count, 3, 6, 8])
    }

    /// Closed form: of a linear network one step crosses the boundary, r = 1.02·(f_y − f_t)/‖w_t − w_y‖²·(w_t − w_y).
    #[test]
    fn deepfool_crosses_a_linear_boundary_in_one_step() {
        let two = |pictures: &Tensor| Ok(linear(pictures)?.f_narrow(1, 0, 2)?);
        let w: Vec<f64> = (0..2 * 144).map(|i| ((i * 37 % 101) as f64 - 50.0) / 100.0).collect();
        for i in 0..4 {
            let picture = pictures(4).narrow(0, i, 1);
            let logits: Vec<f64> = Vec::try_from(two(&picture).unwrap().reshape([-1])).unwrap();
            let own = usize::from(logits[1] > logits[0]);
            let target = 1 - own;
            let got: Vec<f64> = Vec::try_from(deepfool(&two, &picture, target as i64, 50).unwrap().unwrap().reshape([-1])).unwrap();
            let slope: Vec<f64> = (0..144).map(|p| w[target * 144 + p] - w[own * 144 + p]).collect();
            let square: f64 = slope.iter().map(|s| s * s).sum();
            let length = 1.02 * (logits[own] - logits[target]) / square;
            for (got, slope) in got.iter().zip(&slope) {
                assert!((got - length * slope).abs() < 1e-12);
            }
            // What is read as the target needs no step.
            let none = deepfool(&two, &picture, own as i64, 50).unwrap().unwrap();
            assert_eq!(none.abs().max().double_value(&[]), 0.0);
        }
        // A class that is never the greatest: the steps are not enough.
        let flat = |pictures: &Tensor| Ok(two(pictures)?.f_pad([0, 1], "constant", Some(-1e9))?);
        assert!(deepfool(&flat, &pictures(1), 2, 5).unwrap().is_none());
    }

    /// Against the sum over both axes at once.
    #[test]
    fn smoothing_is_a_gaussian_that_sees_nothing_outside() {
        for (sigma, taps) in [(6.0, 30), (0.5, 3), (1.0, 5)] {
            let gaussian = Gaussian::new(sigma);
            assert_eq!(gaussian.taps.len(), taps);
            let planes: Vec<f64> = (0..3 * 20 * 17).map(|i| (i * i * 11 % 89) as f64).collect();
            let got = gaussian.smooth(&planes, 20, 17);
            let weight = |offset: f64| (-0.5 * (offset / sigma).powi(2)).exp();
            let middle = (taps as f64 - 1.0) / 2.0;
            let sum: f64 = (0..taps).map(|k| weight(k as f64 - middle)).sum();
            let first = -(((taps - 1) / 2) as i64);
            for (at, got) in got.iter().enumerate() {
                let (plane, row, column) = (at / 340, (at / 17 % 20) as i64, (at % 17) as i64);
                let mut wanted = 0.0;
                for i in 0..taps as i64 {
                    for j in 0..taps as i64 {
                        let (r, c) = (row + first + i, column + first + j);
                        if (0..20).contains(&r) && (0..17).contains(&c) {
                            let value = planes[plane * 340 + r as usize * 17 + c as usize];
                            wanted += weight(i as f64 - middle) * weight(j as f64 - middle) / (sum * sum) * value;
                        }
                    }
                }
                assert!((got - wanted).abs() < 1e-9, "{at}: {got}, not {wanted}");
            }
        }
    }

    /// The class is the brightest channel: what a smooth perturbation can change.
    fn brightest(pictures: &Tensor) -> Result<Tensor> {
        Ok(pictures.f_mean_dim(&[2_i64, 3][..], false, Kind::Double)?)
    }

    #[test]
    fn the_search_ends_when_enough_are_fooled_and_keeps_to_its_amplitude() {
        let keys = Keys {
            sigma: 1.0,
            amplitude: 0.9,
            fooling: 0.2,
            ..Keys::default()
        };
        let search = |keys: &Keys| {
            let search = SmoothSearch { keys, logits: &brightest };
            search.run(&pictures(30), 2, &mut ChaCha8Rng::seed_from_u64(1), &mut Silent).unwrap()
        };
        let v = search(&keys);
        let (least, most) = v.iter().fold((1.0_f64, 0.0_f64), |(l, m), v| (l.min(*v), m.max(*v)));
        assert!(least == 0.0 && (most - 0.9).abs() < 1e-12, "{least} … {most}");
        let all = pictures(30);
        let read = |x: &Tensor| Vec::<i64>::try_from(brightest(x).unwrap().argmax(1, false)).unwrap();
        let moved = &all + as_picture(&v, &all).unwrap();
        let fooled = read(&all).iter().zip(read(&moved)).filter(|(a, b)| **a != *b).count();
        assert!(fooled >= 6, "{fooled} of 30");
        assert_eq!(search(&keys), v);
    }

    #[test]
    fn the_commonest_class_is_found() {
        assert_eq!((most_common(&[3, 1, 1, 2]), most_common(&[5, 2, 2, 5])), (1, 2));
    }
}
