//! The smooth trigger (Zeng et al. 2021; algorithm §5): its search, and how it is laid on pictures.

mod search;

use super::prepare::Moments;
use super::{Attack, Backdoor, Draw, Ground, Paint, Plan};
use crate::data::picture::{DATA_LIMITS, decode};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::smooth::{Added, Keys, Smooth};
use delta_guard_contract::{ImageConfig, Recipe, Resize};
use rand::Rng;
use rand::seq::index;
use search::SmoothSearch;
use std::rc::Rc;
use tch::{Kind, Tensor};

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Plan> {
        let backdoor = Backdoor::between(ground, self.victim_class.as_deref(), &self.target_class, self.poisons)?;
        let perturbation = match &self.trigger {
            Smooth::Search => self.searched(ground, report)?,
            Smooth::Image(path) => {
                let (height, width) = ground.size();
                let size = ImageConfig {
                    height,
                    width,
                    resize: Resize::Stretch,
                    ..ImageConfig::default()
                };
                let bytes = decode(&fs_err::read(path)?, &DATA_LIMITS, &size).map_err(|why| {
                    let message = format!("the trigger {}: {why}", path.display());
                    Error::configuration(message, "attack.trigger must be `search` or name a picture")
                })?;
                bytes.into_iter().map(|byte| self.amplitude * f64::from(byte) / 255.0).collect()
            }
        };
        let channels = match self.apply {
            Added::Normalised => standardised(ground)?,
            _ => [(0.0, 1.0); 3],
        };
        let paint = laid(perturbation.into(), self.apply, channels);
        Backdoor {
            training: paint.clone(),
            test: paint,
            ..backdoor
        }
        .plan(ground)
    }
}

/// The search against a network like the victim's.
trait Searched {
    fn searched(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Vec<f64>>;
}

impl Searched for Keys {
    fn searched(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Vec<f64>> {
        let mut rng = ground.rng(Draw::Search);
        let victim = ground.victim()?;
        // Another start than the victim's: the attacker does not know it.
        let recipe = Recipe {
            seed: rng.next_u64() >> 1,
            ..victim.recipe.clone()
        };
        let surrogate = ground.surrogate(&victim.model, &recipe, report)?;
        let all = ground.labels().len();
        let seen = index::sample(&mut rng, all, (self.pictures as usize).min(all)).into_vec();
        let (height, width) = ground.size();
        let bytes: Vec<u8> = seen.iter().flat_map(|&at| ground.pixels(at).into_owned()).collect();
        let pictures = Tensor::f_from_slice(&bytes)?
            .f_view([seen.len() as i64, 3, i64::from(height), i64::from(width)])?
            .f_to_kind(Kind::Float)?
            .f_div_scalar(255.0)?
            .f_to_device(ground.workshop.device)?;
        // `next` is no class: the search chooses its own after the first pass.
        let toward = ground.class(&self.target_class, "target_class").unwrap_or_default();
        let search = SmoothSearch {
            keys: self,
            logits: &|pictures| surrogate.logits(pictures),
        };
        search.run(&pictures, i64::from(toward), &mut rng, report)
    }
}

/// Mean and deviation of each channel of the clean training pictures, of values in 0 … 1.
fn standardised(ground: &Ground<'_>) -> Result<[(f64, f64); 3]> {
    let mut moments = Moments::default();
    (0..ground.labels().len()).for_each(|at| moments.add(&ground.pixels(at)));
    let (mean, std) = moments.figures()?;
    Ok([0, 1, 2].map(|c| (mean[c], std[c])))
}

/// Lays a perturbation on pictures whose channels have these means and deviations.
fn laid(perturbation: Rc<[f64]>, apply: Added, channels: [(f64, f64); 3]) -> Paint {
    Rc::new(move |pixels| {
        let area = (pixels.len() / 3).max(1);
        let of = |at: usize| channels[(at / area).min(2)];
        let mut values: Vec<f64> = pixels
            .iter()
            .zip(perturbation.iter())
            .enumerate()
            .map(|(at, (pixel, v))| (f64::from(*pixel) / 255.0 - of(at).0) / of(at).1 + v)
            .collect();
        if apply != Added::Clamp {
            stretch(&mut values, 1.0);
        }
        for (at, (pixel, value)) in pixels.iter_mut().zip(values).enumerate() {
            *pixel = (255.0 * (value * of(at).1 + of(at).0)).round().clamp(0.0, 255.0) as u8;
        }
    })
}

/// Brings values to 0 … `top`, the least to the one and the greatest to the other; values that are all the same stay.
fn stretch(values: &mut [f64], top: f64) {
    let (least, most) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, m), v| (l.min(*v), m.max(*v)));
    if most > least {
        values.iter_mut().for_each(|v| *v = top * (*v - least) / (most - least));
    }
}

#[cfg(test)]
mod tests;
