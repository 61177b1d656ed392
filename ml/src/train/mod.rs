//! A recipe and a data set in, a model out. Every epoch is kept on disk, so that an interrupted run goes on from the last one.

mod adamw;
pub mod augment;
pub mod average;
pub mod loss;
pub mod mix;
pub mod optimizer;
pub mod resume;
pub mod schedule;
mod sgd;

use crate::data::{DataSet, normalise};
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::model::{Graph, Model, Weights};
use crate::progress::Report;
use crate::random;
use average::Average;
use delta_guard_contract::{Code, ImageConfig, Recipe};
use loss::{Loss, Round, Seen};
use optimizer::Stepper;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use resume::EpochState;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What to train.
pub struct Training<'a> {
    /// Network.
    pub graph: &'a Graph,
    /// Pictures and labels.
    pub data: &'a DataSet,
    /// Their normalisation.
    pub image: &'a ImageConfig,
    /// Positions to train on, ascending.
    pub examples: &'a [usize],
    /// How.
    pub recipe: &'a Recipe,
    /// Weights to start from; None: initialised from the recipe's seed.
    pub start: Option<Weights>,
    /// What is minimised.
    pub loss: &'a dyn Loss,
    /// Nodes whose parameters are trained.
    pub trainable: BTreeSet<String>,
    /// Where.
    pub device: Device,
    /// Folder of the epoch file.
    pub out_dir: &'a Path,
    /// What names this run beyond recipe, graph, data and examples (digest of the starting checkpoint, …).
    pub key: String,
}

impl Training<'_> {
    /// What the epoch after `done` others goes over.
    fn round(&self, done: u32) -> Round<'_> {
        self.loss.round(done).unwrap_or(Round {
            examples: self.examples,
            batch_size: self.recipe.batch_size as usize,
        })
    }

    /// Steps of some epochs.
    fn steps(&self, epochs: Range<u32>) -> u64 {
        let of = |round: Round<'_>| round.examples.len().div_ceil(round.batch_size) as u64;
        epochs.map(|done| of(self.round(done))).sum()
    }
}

/// A trained model.
#[derive(Debug)]
pub struct Trained {
    /// On the training device, in `Float`.
    pub model: Model,
    /// Mean loss (of cross-entropy: nats) over the augmented pictures of the last epoch.
    pub loss: f64,
    /// Share of them that were read rightly.
    pub accuracy: f64,
    /// Epochs that an earlier, interrupted run had done.
    pub resumed_epochs: u32,
}

/// Train.
///
/// # Errors
/// `Configuration` when there is nothing to train on or the loss is no longer finite; `Resource` for memory and disk.
pub fn train(mut run: Training<'_>, report: &mut dyn Report) -> Result<Trained> {
    if run.examples.is_empty() {
        return Err(Error::new(
            Code::NothingLeft,
            "no training examples are left",
            "check data.train.path and the list of removed ids",
        ));
    }
    let _alone = random::alone();
    let recipe = run.recipe;
    let key = resume::key(&run);
    let saved = EpochState::load(run.out_dir, &key, run.graph, report)?;
    let state = match saved {
        Some(state) => state,
        None => EpochState {
            weights: run.start.take().map_or_else(|| Weights::init(run.graph, recipe.seed), Ok)?,
            optimizer: Default::default(),
            average: None,
            epochs: 0,
            loss: f64::NAN,
            accuracy: 0.0,
        },
    };
    let model = Model::new(run.graph.clone(), state.weights.to(run.device, Kind::Float));
    let trained: Vec<(String, Tensor)> = model
        .parameters_of(&run.trainable)
        .into_iter()
        .map(|(name, tensor)| (name, tensor.set_requires_grad(true)))
        .collect();
    let mut stepper = Stepper::new(trained, recipe);
    stepper.restore(state.optimizer, run.device);
    let before = state.average.map(|average| average.to(run.device, Kind::Float));
    let mut average = recipe.ema.map(|decay| Average::new(decay, before));
    let (mut loss, mut accuracy) = (state.loss, state.accuracy);
    for done in state.epochs..recipe.epochs {
        (loss, accuracy) = epoch(&run, &model, (&mut stepper, average.as_mut()), done, report)?;
        EpochState {
            weights: model.weights.copy(),
            optimizer: stepper.state().iter().map(|(name, kept)| (name.clone(), kept.shallow_clone())).collect(),
            average: average.as_ref().and_then(Average::weights).map(Weights::copy),
            epochs: done + 1,
            loss,
            accuracy,
        }
        .save(run.out_dir, &key)?;
    }
    for (_, parameter) in model.parameters() {
        let _ = parameter.set_requires_grad(false);
    }
    // What is averaged is the model.
    let averaged = average.as_ref().and_then(Average::weights).map(Weights::copy);
    Ok(Trained {
        model: averaged.map_or(model, |weights| Model::new(run.graph.clone(), weights)),
        loss,
        accuracy,
        resumed_epochs: state.epochs,
    })
}

/// The weights that a recipe's training begins with, and what names them. None: random ones.
///
/// # Errors
/// As [`Weights::load`], naming `recipe.init`.
pub fn beginning(recipe: &Recipe, graph: &Graph) -> Result<Option<(Weights, String)>> {
    let Some(init) = &recipe.init else { return Ok(None) };
    let read = || -> Result<(Weights, String)> { Ok((Weights::load(init, graph, Kind::Float)?, files::digest(init)?.0)) };
    read().context(|| "recipe.init".into()).map(Some)
}

/// Each epoch has its own stream of random numbers, so that a resumed run draws what an undisturbed one would.
fn randomness(run: &Training<'_>, done: u32) -> ChaCha8Rng {
    let stream = 1 + u64::from(done);
    let mut rng = ChaCha8Rng::seed_from_u64(run.recipe.seed);
    rng.set_stream(stream);
    // The same for what libtorch draws itself, in dropout; `train` holds its generator.
    drop(random::seeded(run.recipe.seed.wrapping_add(stream)));
    rng
}

/// One epoch, the one after `done` others. Returns its mean loss and the share that was read rightly.
fn epoch(
    run: &Training<'_>,
    model: &Model,
    (stepper, mut average): (&mut Stepper, Option<&mut Average>),
    done: u32,
    report: &mut dyn Report,
) -> Result<(f64, f64)> {
    let recipe = run.recipe;
    let Round { examples, batch_size } = run.round(done);
    let (before, per_epoch, steps) = (run.steps(0..done), run.steps(done..done + 1), run.steps(0..recipe.epochs));
    let mut rng = randomness(run, done);
    let mut order = examples.to_vec();
    order.shuffle(&mut rng);
    let mut sums = Tensor::zeros([2], (Kind::Double, run.device));
    let (mut loss_mean, mut accuracy) = (f64::NAN, 0.0);
    for (i, batch) in order.chunks(batch_size).enumerate() {
        let step = before + i as u64;
        let lr = schedule::learning_rate(&recipe.schedule, recipe.lr, step, per_epoch, steps);
        let images = normalise(&run.data.batch(batch)?, run.image, Kind::Float, run.device)?;
        let images = augment::augment(images, &recipe.augment, &mut rng)?;
        let labels = run.data.labels_tensor(batch)?.to_device(run.device);
        let mix::MixedBatch { images, others } = mix::mix(images, &labels, recipe, &mut rng)?;
        let logits = model.forward_train(&images)?;
        let teacher = run.loss.teacher().map(|teacher| teacher.forward(&images)).transpose()?;
        let loss = run.loss.of(&Seen {
            images: &images,
            student: &logits,
            teacher: teacher.as_ref(),
            labels: &labels,
            others: others.as_ref().map(|(labels, share)| (labels, *share)),
            smoothing: recipe.label_smoothing,
            examples: batch,
            epoch: done,
        })?;
        stepper.step(&loss, lr)?;
        if let Some(average) = &mut average {
            average.update(&model.weights)?;
        }
        let correct = logits.detach().argmax(1, false).eq_tensor(&labels).sum(Kind::Double);
        let loss_sum = loss.detach().to_kind(Kind::Double) * batch.len() as f64;
        sums += Tensor::stack(&[loss_sum, correct], 0);
        // Reading the sums waits for the device.
        if (i + 1) % 10 == 0 || i as u64 + 1 == per_epoch {
            let seen = ((i + 1) * batch_size).min(order.len()) as f64;
            (loss_mean, accuracy) = (sums.double_value(&[0]) / seen, sums.double_value(&[1]) / seen);
            let (now, all) = (done + 1, recipe.epochs);
            if !loss_mean.is_finite() {
                let place = format!("epoch {now} of {all}, step {} of {per_epoch}, at learning rate {lr:.3e}", i + 1);
                return Err(Error::new(
                    Code::NotFinite,
                    format!("training diverged: the loss is {loss_mean} in {place}"),
                    "lower the learning rate (recipe.lr, or the unlearning method's own lr), or lengthen the warm-up",
                ));
            }
            let note = format!("epoch {now}/{all}, loss {loss_mean:.3}, accuracy {:.1} %", 100.0 * accuracy);
            report.progress("train", step + 1, steps, &note);
        }
    }
    Ok((loss_mean, accuracy))
}
