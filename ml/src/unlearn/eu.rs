//! EU, exact unlearning: a new initialisation (or the one that production began with, `recipe.init`), the training recipe, the retained set (algorithm §4).

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::progress::Report;
use crate::train::loss::CrossEntropy;
use crate::train::{Trained, Training, beginning, train};
use delta_guard_contract::Recipe;
use delta_guard_contract::method::unlearn::eu::Keys;

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        // A new initialisation: nothing of the production run's randomness is repeated.
        let recipe = Recipe {
            seed: case.recipe.seed.wrapping_add(1),
            ..case.recipe.clone()
        };
        let (start, key) = match beginning(&recipe, case.graph)? {
            Some((weights, digest)) => (Some(weights), format!("eu from {digest}")),
            None => (None, "eu".into()),
        };
        let run = Training {
            graph: case.graph,
            data: case.data,
            image: case.image,
            examples: case.retained,
            recipe: &recipe,
            start,
            loss: &CrossEntropy,
            trainable: case.graph.last_layers(0),
            device: case.device,
            out_dir: case.out_dir,
            key,
        };
        train(run, report)
    }
}
