//! SCRUB (Kurmanji, Triantafillou, Hayes, Triantafillou: Towards Unbounded Machine Unlearning, NeurIPS 2023, arXiv 2302.09880).
//!
//! The student begins as the production model, which stays as teacher, frozen and in evaluation mode. For the first `max_epochs` epochs a pass over the flagged examples
//! *ascends* the divergence T²·KL(teacher ‖ student); every epoch's pass over the retained ones descends γ·CE + α·T²·KL. KL is the mean over a batch's examples.
//!
//! What is taken from where:
//!
//! * The authors' code (meghdadk/SCRUB, its large-scale runs): 3 epochs, 2 with a max-step, α = 0.001, γ = 0.99, T = 4, batches of 32 flagged examples, the student in
//!   training mode on both sets, divergence alone ascended. Its small-scale runs take 10 epochs, 3 max-steps, α = 0.5, γ = 1, T = 2 and Adam.
//! * Optimiser, decay, batch size and augmentation are the recipe's. Both models see the same augmented pictures; nothing is mixed, since a mixed picture belongs to no set.
//! * The last epoch is the candidate. Nothing is selected: the authors' rewinding wants a forget error to aim at, which for poisons nobody knows.
//! * The variant in the Δ-Influence notebooks is another method: 41 mini-batches in all, unshuffled and without augmentation, cross-entropy ascended too, and the model that did best on
//!   the test set kept. A large flagged set takes most of those 41 steps for ascent.

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::model::Model;
use crate::progress::Report;
use crate::train::loss::{CrossEntropy, Loss, Round, Seen, divergence};
use crate::train::{Trained, Training, train};
use delta_guard_contract::Recipe;
use delta_guard_contract::method::unlearn::scrub::Keys;
use tch::{Kind, Tensor};

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        case.something_to_forget()?;
        let recipe = Recipe {
            epochs: self.epochs + self.max_epochs,
            seed: case.recipe.seed.wrapping_add(4),
            ..case.plain_recipe(self.lr.unwrap_or(0.05 * case.recipe.lr))
        };
        let loss = Scrub {
            keys: self,
            teacher: case.model(),
            flagged: case.flagged,
        };
        let run = Training {
            graph: case.graph,
            data: case.data,
            image: case.image,
            examples: case.retained,
            recipe: &recipe,
            start: Some(case.production.copy()),
            loss: &loss,
            trainable: case.graph.last_layers(0),
            device: case.device,
            out_dir: case.out_dir,
            key: format!("scrub from {}", case.checkpoint),
        };
        train(run, report)
    }
}

/// What its two kinds of passes minimise.
struct Scrub<'a> {
    keys: &'a Keys,
    teacher: Model,
    flagged: &'a [usize],
}

impl Scrub<'_> {
    /// Passes alternate, flagged and retained, as long as there are max-steps.
    fn ascends(&self, done: u32) -> bool {
        done.is_multiple_of(2) && done / 2 < self.keys.max_epochs
    }
}

impl Loss for Scrub<'_> {
    fn key(&self) -> String {
        format!("scrub {:?} without {:?}", self.keys, self.flagged)
    }

    fn teacher(&self) -> Option<&Model> {
        Some(&self.teacher)
    }

    fn round(&self, done: u32) -> Option<Round<'_>> {
        self.ascends(done).then_some(Round {
            examples: self.flagged,
            batch_size: self.keys.flagged_batch as usize,
        })
    }

    fn of(&self, seen: &Seen<'_>) -> Result<Tensor> {
        let temperature = self.keys.temperature;
        let teacher = seen.teacher.unwrap_or(seen.student);
        let apart = divergence(seen.student, teacher, temperature)?
            .f_mean(None::<Kind>)?
            .f_mul_scalar(temperature * temperature)?;
        if self.ascends(seen.epoch) {
            return Ok(apart.f_neg()?);
        }
        let right = CrossEntropy.of(seen)?.f_mul_scalar(self.keys.gamma)?;
        Ok(right.f_add(&apart.f_mul_scalar(self.keys.alpha)?)?)
    }
}

#[cfg(test)]
mod tests;
