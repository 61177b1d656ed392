//! Gradient matching (Geiping et al. 2021): pictures are changed until training on them moves a network as training on others, under other labels, would.

use super::Surrogate;
use super::ball::Ball;
use crate::data::standardise;
use crate::error::{Error, Result};
use crate::passes::gradients::{Differentiated, pixel_gradient};
use crate::passes::objective;
use delta_guard_contract::fault::Code;
use tch::{Kind, Tensor};

/// How a search looks at a normalised batch: randomly shifted and mirrored, as a training would.
pub(super) type View<'a> = dyn FnMut(Tensor) -> Result<Tensor> + 'a;

/// The gradient of one network that is to be matched.
struct Wanted {
    weights: Differentiated,
    gradient: Vec<Tensor>,
    length: Tensor,
}

/// The gradients that are to be matched, of every network.
pub(super) struct Matching<'a> {
    surrogates: &'a [Surrogate],
    wanted: Vec<Wanted>,
}

/// Σ ⟨a, b⟩ over all weights.
fn product(a: &[Tensor], b: &[Tensor]) -> Result<Tensor> {
    let each = a
        .iter()
        .zip(b)
        .map(|(a, b)| Ok(a.f_mul(b)?.f_sum(None::<Kind>)?))
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::f_stack(&each, 0)?.f_sum(None::<Kind>)?)
}

fn length(gradient: &[Tensor]) -> Result<Tensor> {
    Ok(product(gradient, gradient)?.f_sqrt()?)
}

impl<'a> Matching<'a> {
    /// The gradient of the summed loss of `pictures` ([0, 1], B × 3 × H × W) under `labels`, whatever their true ones: what would teach the networks to read them so.
    ///
    /// # Errors
    /// When libtorch fails, and where that gradient is no direction.
    pub fn towards(surrogates: &'a [Surrogate], pictures: &Tensor, labels: &Tensor) -> Result<Self> {
        let of = |surrogate: &Surrogate| {
            let weights = Differentiated::new(&surrogate.model, &surrogate.model.graph.last_layers(0));
            let gradient = weights.gradients(&objective::loss(&surrogate.logits(pictures)?, labels)?, false)?;
            let length = length(&gradient)?;
            direction(&length, "the pictures that are to be misread")?;
            Ok(Wanted { weights, gradient, length })
        };
        Ok(Self {
            surrogates,
            wanted: surrogates.iter().map(of).collect::<Result<_>>()?,
        })
    }

    /// 1 − cosine between the gradient of the loss of `pictures` ([0, 1]) under `labels`, as `view` shows them, and the wanted one; mean over the networks. Differentiable with regard to the pictures.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn loss(&self, pictures: &Tensor, labels: &Tensor, view: &mut View<'_>) -> Result<Tensor> {
        let Some(first) = self.surrogates.first() else {
            return Err(Error::internal("gradient matching without a network"));
        };
        // Every network sees the same: they are normalised alike.
        let seen = view(standardise(pictures, &first.image)?)?;
        let of = |(surrogate, wanted): (&Surrogate, &Wanted)| {
            let loss = objective::loss(&surrogate.model.forward_differentiable(&seen)?, labels)?;
            let own = wanted.weights.gradients(&loss, true)?;
            let lengths = length(&own)?.f_mul(&wanted.length)?;
            Ok(product(&wanted.gradient, &own)?.f_div(&lengths)?.f_neg()?.f_add_scalar(1.0)?)
        };
        let losses = self.surrogates.iter().zip(&self.wanted).map(of).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::f_stack(&losses, 0)?.f_mean(None::<Kind>)?)
    }
}

/// An error where a length is none.
fn direction(length: &Tensor, what: &str) -> Result<()> {
    let length = length.f_double_value(&[])?;
    if length.is_finite() && length > 0.0 {
        return Ok(());
    }
    let message = format!("the gradient of {what} on the attacker's network is {length:e} long: there is no direction to match");
    Err(Error::new(Code::NotFinite, message, "choose another picture, or another recipe"))
}

/// Signed Adam within a ball: only the sign of the gradient is handed to Adam (β 0.9 and 0.999), whose steps become smaller by a factor of ten three times.
pub(super) struct Search<'a> {
    pub ball: &'a Ball,
    /// Of the ball's pictures.
    pub labels: &'a Tensor,
    pub iterations: u32,
    /// In standard deviations of each channel.
    pub lr: f64,
    /// Pictures whose mean gradient is matched together.
    pub batch_size: u32,
}

/// Adam's.
const BETAS: [f64; 2] = [0.9, 0.999];
const ADAM_EPS: f64 = 1e-8;

impl Search<'_> {
    /// The pictures that are reached from `start`. `step` hears which step is done.
    ///
    /// # Errors
    /// When libtorch fails, or the match is no number.
    pub fn run(&self, matching: &Matching<'_>, start: Tensor, view: &mut View<'_>, step: &mut dyn FnMut(u32)) -> Result<Tensor> {
        let Some(first) = matching.surrogates.first() else { return Ok(start) };
        let like = |values: &[f64]| -> Result<Tensor> {
            let values = Tensor::f_from_slice(values)?.f_to_kind(start.kind())?;
            Ok(values.f_to_device(start.device())?.f_view([-1, 1, 1])?)
        };
        let width = like(&first.image.std)?.f_mul_scalar(self.lr)?;
        let [mut mean, mut square] = [start.f_zeros_like()?, start.f_zeros_like()?];
        let mut pictures = start;
        for t in 0..self.iterations {
            let sign = self.gradient(matching, &pictures, view)?.f_sign()?;
            let [m, v] = BETAS;
            mean = mean.f_mul_scalar(m)?.f_add(&sign.f_mul_scalar(1.0 - m)?)?;
            square = square.f_mul_scalar(v)?.f_add(&sign.f_square()?.f_mul_scalar(1.0 - v)?)?;
            let unbiased = |moment: &Tensor, beta: f64| moment.f_div_scalar(1.0 - beta.powf(f64::from(t) + 1.0));
            let root = unbiased(&square, v)?.f_sqrt()?.f_add_scalar(ADAM_EPS)?;
            let moved = unbiased(&mean, m)?.f_div(&root)?.f_mul(&width)?.f_mul_scalar(self.drop(t))?;
            pictures = self.ball.project(&pictures.f_sub(&moved)?)?;
            step(t + 1);
        }
        Ok(pictures)
    }

    /// The part of the step width that is left at a step: a tenth for each of the published drops (iterations // 2.667, // 1.6, // 1.142).
    fn drop(&self, t: u32) -> f64 {
        let passed = [2.667, 1.6, 1.142]
            .iter()
            .filter(|part| (f64::from(self.iterations) / **part).floor() <= f64::from(t));
        0.1f64.powi(passed.count() as i32)
    }

    /// Of the match of each batch, with regard to its pixels.
    fn gradient(&self, matching: &Matching<'_>, pictures: &Tensor, view: &mut View<'_>) -> Result<Tensor> {
        let mut found = Vec::new();
        for (at, count) in self.batches() {
            let batch = pictures.f_narrow(0, at, count)?.f_detach()?.set_requires_grad(true);
            let loss = matching.loss(&batch, &self.labels.f_narrow(0, at, count)?, view)?;
            number(&loss)?;
            found.push(pixel_gradient(&loss, &batch)?);
        }
        Ok(Tensor::f_cat(&found, 0)?)
    }

    /// How well pictures match as they are: the mean loss of the batches.
    ///
    /// # Errors
    /// When libtorch fails, or it is no number.
    pub fn value(&self, matching: &Matching<'_>, pictures: &Tensor) -> Result<f64> {
        let mut sum = 0.0;
        for (at, count) in self.batches() {
            let (batch, labels) = (pictures.f_narrow(0, at, count)?, self.labels.f_narrow(0, at, count)?);
            sum += count as f64 * number(&matching.loss(&batch, &labels, &mut Ok)?)?;
        }
        Ok(sum / self.labels.numel().max(1) as f64)
    }

    /// First picture and number of each batch.
    fn batches(&self) -> impl Iterator<Item = (i64, i64)> {
        let (all, size) = (self.labels.numel() as i64, i64::from(self.batch_size.max(1)));
        (0..all).step_by(size as usize).map(move |at| (at, size.min(all - at)))
    }
}

fn number(loss: &Tensor) -> Result<f64> {
    let value = loss.f_double_value(&[])?;
    if value.is_finite() {
        return Ok(value);
    }
    let message = "the gradient of the poisons on the attacker's network has no direction: it knows them by heart";
    Err(Error::new(
        Code::NotFinite,
        message,
        "take a recipe of fewer epochs, or more augmentation",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, Weights, zoo};
    use delta_guard_contract::ImageConfig;
    use std::collections::BTreeMap;
    use tch::Device;

    /// What PyTorch computed (`tests/fixtures/matching/make.py`).
    struct Fixture {
        tensors: BTreeMap<String, Tensor>,
        surrogates: Vec<Surrogate>,
    }

    /// As in the script.
    const EPSILON: u32 = 16;

    impl Fixture {
        fn read() -> Self {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/matching/matching.safetensors");
            let tensors: BTreeMap<String, Tensor> = Tensor::read_safetensors(path).unwrap().into_iter().collect();
            let network = |n: usize| {
                let own = format!("net{n}.");
                let mine = tensors
                    .iter()
                    .filter_map(|(name, values)| Some((name.strip_prefix(&own)?.to_owned(), values.copy())));
                Surrogate {
                    model: Model::new(zoo::small_cnn([3, 8, 8], 2, 4).unwrap(), Weights(mine.collect())),
                    image: ImageConfig {
                        mean: vec![0.4, 0.5, 0.6],
                        std: vec![0.2, 0.3, 0.25],
                        ..ImageConfig::default()
                    },
                    resumed_epochs: 0,
                }
            };
            let surrogates = vec![network(0), network(1)];
            Self { tensors, surrogates }
        }

        fn unit(&self, name: &str) -> Tensor {
            self.tensors[name].to_kind(Kind::Double) / 255.0
        }

        fn matching(&self) -> Matching<'_> {
            Matching::towards(&self.surrogates, &self.unit("target"), &Tensor::from_slice(&[2i64])).unwrap()
        }

        fn ball(&self) -> Ball {
            let pictures: Vec<Vec<u8>> = (0..5)
                .map(|n| Vec::try_from(self.tensors["pictures"].get(n).reshape([-1])).unwrap())
                .collect();
            Ball::around(&pictures, (8, 8), EPSILON, Kind::Double, Device::Cpu).unwrap()
        }
    }

    fn labels() -> Tensor {
        Tensor::from_slice(&[1i64; 5])
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        let difference: Tensor = a - b;
        difference.abs().max().double_value(&[])
    }

    fn mirrored(batch: Tensor) -> Result<Tensor> {
        Ok(batch.f_flip([3i64])?)
    }

    #[test]
    fn the_loss_and_its_gradient_are_pytorchs() {
        let fixture = Fixture::read();
        let (matching, pictures) = (fixture.matching(), fixture.unit("pictures").set_requires_grad(true));
        let loss = matching.loss(&pictures, &labels(), &mut mirrored).unwrap();
        assert!(apart(&loss, &fixture.tensors["loss"]) < 1e-12);
        let slope = pixel_gradient(&loss, &pictures).unwrap();
        let (error, size) = (apart(&slope, &fixture.tensors["slope"]), slope.abs().max().double_value(&[]));
        assert!(error < 1e-11 * size && size > 1e-4, "{error:e} of {size:e}");
    }

    /// Central differences at some pixels of every picture.
    #[test]
    fn the_gradient_is_the_slope_of_the_loss() {
        const STEP: f64 = 1e-6;
        let fixture = Fixture::read();
        let (matching, pictures) = (fixture.matching(), fixture.unit("pictures").set_requires_grad(true));
        let of = |pictures: &Tensor| matching.loss(pictures, &labels(), &mut mirrored).unwrap();
        let slope = pixel_gradient(&of(&pictures), &pictures).unwrap().reshape([-1]);
        for at in (0..960).step_by(41) {
            let moved = |by: f64| {
                let moved = pictures.detach().copy();
                let _ = moved.view([-1]).get(at).f_add_scalar_(by).unwrap();
                of(&moved).double_value(&[])
            };
            let want = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let got = slope.double_value(&[at]);
            assert!((got - want).abs() < 1e-6, "pixel {at}: {got:e}, by differences {want:e}");
        }
    }

    #[test]
    fn the_search_goes_where_torch_optim_goes() {
        let fixture = Fixture::read();
        let (matching, ball, labels) = (fixture.matching(), fixture.ball(), labels());
        let search = Search {
            ball: &ball,
            labels: &labels,
            iterations: 9,
            lr: 0.1,
            batch_size: 3,
        };
        let start = || fixture.tensors["start"].copy();
        let mut steps = Vec::new();
        let found = search.run(&matching, start(), &mut Ok, &mut |t| steps.push(t)).unwrap();
        assert_eq!(steps, (1..=9).collect::<Vec<_>>());
        let (error, way) = (apart(&found, &fixture.tensors["found"]), apart(&found, &start()));
        assert!(error < 1e-9 && way > 0.05, "{error:e} after a way of {way}");
        let [before, after] = [start(), found].map(|pictures| search.value(&matching, &pictures).unwrap());
        assert!(after < before - 0.005, "{before} → {after}");
        // Batches of 3 and 2, weighed by their size.
        let part = |at, count| {
            let pictures = start().narrow(0, at, count);
            matching.loss(&pictures, &labels.narrow(0, at, count), &mut Ok).unwrap().double_value(&[])
        };
        assert!((before - (3.0 * part(0, 3) + 2.0 * part(3, 2)) / 5.0).abs() < 1e-12);
        let none = Search { iterations: 0, ..search };
        let stays = none.run(&matching, start(), &mut Ok, &mut |_| ()).unwrap();
        assert_eq!(apart(&stays, &start()), 0.0, "no step, no change");
    }

    #[test]
    fn steps_become_smaller_where_published() {
        let fixture = Fixture::read();
        let (ball, labels) = (fixture.ball(), labels());
        let search = Search {
            ball: &ball,
            labels: &labels,
            iterations: 250,
            lr: 0.1,
            batch_size: 3,
        };
        let falls: Vec<u32> = (1..250).filter(|&t| search.drop(t) < search.drop(t - 1)).collect();
        assert_eq!(falls, [93, 156, 218]);
        assert!((search.drop(0) - 1.0).abs() < 1e-15 && (search.drop(249) - 1e-3).abs() < 1e-15);
    }

    #[test]
    fn a_gradient_without_a_direction_is_an_error() {
        let fixture = Fixture::read();
        let nowhere = Tensor::full([1, 3, 8, 8], f64::NAN, (Kind::Double, Device::Cpu));
        let said = Matching::towards(&fixture.surrogates, &nowhere, &Tensor::from_slice(&[2i64]))
            .err()
            .unwrap();
        assert!(said.to_string().contains("no direction to match"), "{said}");
        let matching = fixture.matching();
        let said = number(&matching.loss(&nowhere, &labels().narrow(0, 0, 1), &mut Ok).unwrap()).unwrap_err();
        assert_eq!(said.fault().code, Code::NotFinite);
    }
}
