//! CF, catastrophic forgetting: fine-tune the production model on the retained set, all layers or the last k (algorithm §4).

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::progress::Report;
use crate::train::{Trained, Training, train};
use delta_guard_contract::Recipe;
use delta_guard_contract::config::CfConfig;

/// Fine-tune without the flagged examples.
#[derive(Debug)]
pub struct CatastrophicForgetting {
    /// Epochs, learning rate, schedule, depth.
    pub settings: CfConfig,
}

impl Unlearner for CatastrophicForgetting {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        let recipe = Recipe {
            epochs: self.settings.epochs,
            // At the recipe's own rate and below, poison success hardly fell in 8 epochs (docs/results.md).
            lr: self.settings.lr.unwrap_or(2.0 * case.recipe.lr),
            schedule: self.settings.schedule.clone(),
            seed: case.recipe.seed.wrapping_add(2),
            ..case.recipe.clone()
        };
        let run = Training {
            graph: case.graph,
            data: case.data,
            image: case.image,
            examples: case.retained,
            recipe: &recipe,
            start: Some(case.production.copy()),
            trainable: case.graph.last_layers(self.settings.last_k as usize),
            device: case.device,
            out_dir: case.out_dir,
            key: format!("cf from {}", case.checkpoint),
        };
        train(run, report)
    }
}
