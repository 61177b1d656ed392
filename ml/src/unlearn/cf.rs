//! CF, catastrophic forgetting: fine-tune the production model on the retained set, all layers or the last k (algorithm §4).

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::progress::Report;
use crate::train::loss::CrossEntropy;
use crate::train::{Trained, Training, train};
use delta_guard_contract::Recipe;
use delta_guard_contract::method::unlearn::cf::Keys;
use std::path::Path;

/// Times that a collapsed fine-tuning is tried again.
const AGAIN: u32 = 2;

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        // At low rates little is forgotten, at high ones a network may collapse (docs/lab/diary.md): begin high, and come down if it does.
        let mut lr = self.lr.unwrap_or(2.0 * case.recipe.lr);
        let mut trained = at(lr, self, case, case.out_dir, report)?;
        for again in 1..=AGAIN {
            if !collapsed(trained.loss, case.data.classes().len()) {
                break;
            }
            report.log(&format!(
                "fine-tuning collapsed at learning rate {lr:.3e} (loss {:.3}): again at three quarters of it",
                trained.loss
            ));
            lr *= 0.75;
            // Beside the collapsed one's last epoch, so that a job that is killed from here on need not repeat it to know.
            let folder = case.out_dir.join(format!("again-{again}"));
            fs_err::create_dir_all(&folder)?;
            trained = at(lr, self, case, &folder, report)?;
        }
        Ok(trained)
    }
}

/// No better than guessing, within two percent: the loss of a network that gives every class the same probability is ln(classes).
fn collapsed(loss: f64, classes: usize) -> bool {
    classes > 1 && loss > 0.98 * (classes as f64).ln()
}

/// Fine-tune at a highest learning rate, with the last epoch in `folder`.
fn at(lr: f64, keys: &Keys, case: &Unlearning<'_>, folder: &Path, report: &mut dyn Report) -> Result<Trained> {
    let recipe = Recipe {
        epochs: keys.epochs,
        lr,
        schedule: keys.schedule.clone(),
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
        loss: &CrossEntropy,
        trainable: case.graph.last_layers(keys.last_k as usize),
        device: case.device,
        out_dir: folder,
        key: format!("cf from {}", case.checkpoint),
    };
    train(run, report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_guesses_has_collapsed() {
        assert!(collapsed(2.297, 10) && collapsed(0.70, 2) && collapsed(5.0, 3));
        assert!(!collapsed(1.9, 10) && !collapsed(0.2, 2) && !collapsed(0.0, 1));
    }
}
