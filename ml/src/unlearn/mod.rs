//! From (model, retained, flagged, recipe) to a model. A method is one file, its settings in the contract, and one line in each of two registries.

use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::fold::Fold;
use crate::model::weights::CheckpointFile;
use crate::model::{Graph, Model, Weights};
use crate::passes::budget::Budget;
use crate::passes::gradients::{Differentiated, Squares};
use crate::passes::labels::PassLabels;
use crate::passes::objective;
use crate::passes::stream::{GradientOf, Stream};
use crate::progress::Report;
use crate::train::Trained;
use delta_guard_contract::detect::Objective;
use delta_guard_contract::method::unlearn as settings;
use delta_guard_contract::{DataSource, ImageConfig, Recipe, Schedule, TrainId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The registry: each method of the contract's with its file here.
macro_rules! unlearners {
    ($($Variant:ident($file:ident),)*) => {
        $(pub mod $file;)*

        /// The unlearner of a method, with its settings.
        pub fn unlearner(method: &settings::Unlearner) -> &dyn Unlearner {
            match method {
                $(settings::Unlearner::$Variant(keys) => keys,)*
            }
        }
    };
}

unlearners! {
    Eu(eu),
    Cf(cf),
    Ssd(ssd),
    Scrub(scrub),
    Badt(badt),
    Potion(potion),
    Command(command),
}

#[cfg(test)]
mod teachers;

/// What an unlearner works with.
pub struct Unlearning<'a> {
    /// Network.
    pub graph: &'a Graph,
    /// The production weights; never changed.
    pub production: &'a Weights,
    /// The file that they were read from, and what stands before their names there.
    pub production_file: CheckpointFile<'a>,
    /// Names the production weights.
    pub checkpoint: &'a str,
    /// The training set.
    pub data: &'a DataSet,
    /// Where it lies, for methods that hand it to another program.
    pub source: &'a DataSource,
    /// Normalisation.
    pub image: &'a ImageConfig,
    /// Positions that stay (R), ascending.
    pub retained: &'a [usize],
    /// Positions that go (D), ascending.
    pub flagged: &'a [usize],
    /// Recipe of the production model.
    pub recipe: &'a Recipe,
    /// Where.
    pub device: Device,
    /// Bytes that a pass may use (`worker.memory_budget`).
    pub memory_budget: u64,
    /// Folder for epoch files.
    pub out_dir: &'a Path,
}

/// What a method may do with the production model besides training it.
impl Unlearning<'_> {
    /// A copy of it to change, where the job computes.
    pub fn model(&self) -> Model {
        Model::new(self.graph.clone(), self.production.copy().to(self.device, Kind::Float))
    }

    /// Is anything flagged? For methods that look at what is to be forgotten.
    ///
    /// # Errors
    /// `Configuration` when not.
    pub fn something_to_forget(&self) -> Result<()> {
        match self.flagged.is_empty() {
            true => Err(Error::configuration(
                "no example is flagged, so there is nothing to forget",
                "name flagged examples",
            )),
            false => Ok(()),
        }
    }

    /// The production model's recipe for a few epochs by a method's own loss: at one learning rate, nothing mixed (a mixed picture belongs to no set), nothing averaged
    /// (the average would begin at the production model).
    pub fn plain_recipe(&self, lr: f64) -> Recipe {
        Recipe {
            lr,
            schedule: Schedule::Constant,
            mixup: None,
            cutmix: None,
            ema: None,
            ..self.recipe.clone()
        }
    }

    /// The means of the squared gradients of an objective over units of `examples` (evaluation mode; see [`Stream::run_gradients`]), by parameter name, of all parameters of
    /// some `nodes`. In float64. A repeated job begins again: nothing of it is kept.
    ///
    /// # Errors
    /// When libtorch fails (memory); `Configuration` for gradients that are no numbers.
    pub fn squared_gradients(
        &self,
        model: &Model,
        objective: Objective,
        (examples, unit): (&[usize], usize),
        nodes: &BTreeSet<String>,
        report: &mut dyn Report,
    ) -> Result<BTreeMap<String, Tensor>> {
        let weights = Differentiated::new(model, nodes);
        let mut squares = Squares::new(&weights);
        let ask = GradientOf {
            labels: PassLabels::Training,
            objective,
        };
        let stream = self.stream(model);
        stream.run_gradients("gradients", (examples, unit), ask, &weights, &mut squares, report)?;
        squares.finish()
    }

    /// The means of the absolute gradients of the mean length of the logits (their Euclidean norm), as [`Self::squared_gradients`]. No label is looked at.
    ///
    /// # Errors
    /// As [`Self::squared_gradients`].
    pub fn length_gradients(
        &self,
        model: &Model,
        (examples, unit): (&[usize], usize),
        nodes: &BTreeSet<String>,
        report: &mut dyn Report,
    ) -> Result<BTreeMap<String, Tensor>> {
        let weights = Differentiated::new(model, nodes);
        let mut sizes = Squares::sizes(&weights);
        let lengths = |_: &[usize], logits: &Tensor| {
            Ok(logits
                .f_square()?
                .f_sum_dim_intlist([1i64].as_slice(), false, None::<Kind>)?
                .f_sqrt()?
                .f_sum(None::<Kind>)?)
        };
        let stream = self.stream(model);
        stream.run_gradients_of("gradients", (examples, unit), lengths, &weights, &mut sizes, report)?;
        sizes.finish()
    }

    /// Loss (mean) and accuracy of a model on some examples, under their training labels (evaluation mode, no augmentation).
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn look(&self, model: &Model, examples: &[usize], report: &mut dyn Report) -> Result<(f64, f64)> {
        let (mut loss, mut correct) = (0.0, 0.0);
        self.stream(model).run_logits("measure", examples, report, |batch, logits| {
            let labels = self.data.labels_tensor(batch)?.f_to_device(logits.device())?;
            loss += objective::loss(&logits.f_to_kind(Kind::Double)?, &labels)?.f_double_value(&[])?;
            correct += logits
                .f_argmax(1, false)?
                .f_eq_tensor(&labels)?
                .f_sum(Kind::Double)?
                .f_double_value(&[])?;
            Ok(())
        })?;
        Ok((loss / examples.len() as f64, correct / examples.len() as f64))
    }

    /// A candidate that was made without training, with its loss and accuracy on the retained examples (evaluation mode, no augmentation).
    ///
    /// # Errors
    /// When libtorch fails (memory).
    pub fn measured(&self, model: Model, report: &mut dyn Report) -> Result<Trained> {
        let (loss, accuracy) = self.look(&model, self.retained, report)?;
        Ok(Trained {
            model,
            loss,
            accuracy,
            resumed_epochs: 0,
        })
    }

    fn stream<'a>(&'a self, model: &'a Model) -> Stream<'a> {
        Stream::new(model, self.data, self.image, Vec::new(), Budget::new(model, self.memory_budget))
    }
}

/// A way to make a model forget, implemented by the method's settings.
pub trait Unlearner {
    /// A model that has not learnt from D any more, or should not.
    ///
    /// # Errors
    /// As training.
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained>;
}

/// As [`split`]; ids of `standing` go too. They were taken out by earlier repairs: one that is not in the set any more is gone already.
///
/// # Errors
/// As [`split`].
pub fn split_with_standing(data: &DataSet, flagged: &[TrainId], standing: &[TrainId]) -> Result<(Vec<usize>, Vec<usize>)> {
    let still_there = standing.iter().filter(|id| data.position(id).is_some());
    let all: Vec<TrainId> = flagged.iter().chain(still_there).cloned().collect();
    split(data, &all)
}

/// Split the data set into (retained, flagged) positions.
///
/// # Errors
/// `Configuration` when an id is not in the training set, or when nothing would be left: only members of the manifest can be removed.
pub fn split(data: &DataSet, flagged: &[TrainId]) -> Result<(Vec<usize>, Vec<usize>)> {
    let mut gone = BTreeSet::new();
    for id in flagged {
        let position = data.position(id).ok_or_else(|| {
            Error::configuration(
                format!("`{id}` is not in the training set"),
                "the ids must come from a trace of this training set (data.train)",
            )
        })?;
        gone.insert(position);
    }
    if gone.len() == data.len() {
        return Err(Error::configuration("every training example would be removed", "check the list of ids"));
    }
    Ok(((0..data.len()).filter(|i| !gone.contains(i)).collect(), gone.into_iter().collect()))
}
