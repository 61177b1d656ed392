//! From (model, retained, flagged, recipe) to a model. A method is one file, its settings in the contract, and one line in each of two registries.

use crate::data::DataSet;
use crate::error::{Error, Result};
use crate::model::{Graph, Weights};
use crate::progress::Report;
use crate::train::Trained;
use delta_guard_contract::method::unlearn as settings;
use delta_guard_contract::{ImageConfig, Recipe, TrainId};
use std::collections::BTreeSet;
use std::path::Path;
use tch::Device;

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
}

/// What an unlearner works with.
pub struct Unlearning<'a> {
    /// Network.
    pub graph: &'a Graph,
    /// The production weights; never changed.
    pub production: &'a Weights,
    /// Names the production weights.
    pub checkpoint: &'a str,
    /// The training set.
    pub data: &'a DataSet,
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
    /// Folder for epoch files.
    pub out_dir: &'a Path,
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
