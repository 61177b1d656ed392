//! BadT, bad teaching (Chundawat, Tarun, Mandal, Kankanhalli: Can Bad Teaching Induce Forgetting?, AAAI 2023, arXiv 2205.08096).
//!
//! Over all examples, shuffled, the student minimises KL(teacher ‖ student) at a temperature. On a flagged example the teacher is a network of the same kind with random
//! weights, on any other the production model; both frozen and in evaluation mode. No label is used.
//!
//! What is taken from where:
//!
//! * The authors' code (vikram2000b/bad-teaching-unlearning): one epoch, T = 1, no factor T². It takes `kl_div`'s mean over batch *and classes*; here it is the mean over
//!   the batch of the sum over the classes, larger by the number of classes, as the formula of their paper has it. Their Adam hardly sees the difference, SGD does.
//! * Optimiser, batch size and augmentation are the recipe's; theirs are Adam at 1e-4 and batches of 256. The random weights follow from the recipe's seed.
//! * The variant in the Δ-Influence notebooks is another method: 41 mini-batches in index order, with the mean over classes too.

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::model::{Model, Weights};
use crate::progress::Report;
use crate::train::loss::{Loss, Seen, divergence};
use crate::train::{Trained, Training, train};
use delta_guard_contract::Recipe;
use delta_guard_contract::method::unlearn::badt::Keys;
use tch::{Kind, Tensor};

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        case.something_to_forget()?;
        let seed = case.recipe.seed.wrapping_add(6);
        let recipe = Recipe {
            epochs: self.epochs,
            seed: case.recipe.seed.wrapping_add(5),
            ..case.plain_recipe(self.lr.unwrap_or(0.2 * case.recipe.lr))
        };
        let loss = BadTeaching {
            temperature: self.temperature,
            teacher: case.model(),
            random: Model::new(case.graph.clone(), Weights::init(case.graph, seed)?.to(case.device, Kind::Float)),
            seed,
            flagged: case.flagged,
        };
        let mut examples = [case.retained, case.flagged].concat();
        examples.sort_unstable();
        let run = Training {
            graph: case.graph,
            data: case.data,
            image: case.image,
            examples: &examples,
            recipe: &recipe,
            start: Some(case.production.copy()),
            loss: &loss,
            trainable: case.graph.last_layers(0),
            device: case.device,
            out_dir: case.out_dir,
            key: format!("badt from {}", case.checkpoint),
        };
        train(run, report)
    }
}

/// Two teachers.
struct BadTeaching<'a> {
    temperature: f64,
    /// The production model.
    teacher: Model,
    /// The one that knows nothing.
    random: Model,
    /// What its weights were drawn from.
    seed: u64,
    /// Ascending.
    flagged: &'a [usize],
}

impl Loss for BadTeaching<'_> {
    fn key(&self) -> String {
        format!("badt at {} from {} without {:?}", self.temperature, self.seed, self.flagged)
    }

    fn teacher(&self) -> Option<&Model> {
        Some(&self.teacher)
    }

    fn of(&self, seen: &Seen<'_>) -> Result<Tensor> {
        let target = seen.teacher.unwrap_or(seen.student).detach();
        let flagged = |(_, example): &(i64, &usize)| self.flagged.binary_search(example).is_ok();
        let places: Vec<i64> = (0..).zip(seen.examples).filter(flagged).map(|(place, _)| place).collect();
        let target = match places.is_empty() {
            true => target,
            false => {
                let places = Tensor::from_slice(&places).to_device(target.device());
                let random = self.random.forward(&seen.images.f_index_select(0, &places)?)?;
                target.f_index_copy(0, &places, &random)?
            }
        };
        Ok(divergence(seen.student, &target, self.temperature)?.f_mean(None::<Kind>)?)
    }
}

#[cfg(test)]
mod tests;
