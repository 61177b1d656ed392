//! SSD, selective synaptic dampening (Foster, Schoepf, Brintrup: Fast machine unlearning without retraining, AAAI 2024, arXiv 2308.07707). No training.
//!
//! The importance of a weight to a set is the mean of its squared gradients of the loss (the diagonal of the Fisher matrix). Where importance to the flagged examples
//! [D_f] exceeds α times that to the whole training set [D], the weight is multiplied by min(λ·[D] / [D_f], 1).
//!
//! What is taken from where:
//!
//! * The paper's text squares each example's gradient; the authors' code (if-loops/selective-synaptic-dampening) squares that of the mean loss of a batch of 128, and
//!   averages over the batches, a short last one counting as much as a full one. α = 10 was found with the code, so the default does as it; `batch_size: 1` is the text.
//! * Batches are drawn at random over all classes. The authors' data come in such an order; a folder of classes does not, and batches of one class would have other means.
//! * The authors' code takes every parameter, those of batch norm too: the bounds on layers (`min_layer`, `max_layer`) that it reads are used nowhere. Here `layers` chooses.
//! * As there, the gradients are those of evaluation mode, D holds D_f, and batch norm's running statistics are left alone.
//!
//! Since D holds D_f, [D_f] is at most |D| / |D_f| times [D] with `batch_size: 1`: with α = 10 nothing changes where more than a tenth of the examples is flagged.

use super::{Unlearner, Unlearning};
use crate::error::{Error, Result};
use crate::model::Graph;
use crate::progress::Report;
use crate::train::Trained;
use delta_guard_contract::detect::Objective;
use delta_guard_contract::method::unlearn::ssd::Keys;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;
use tch::{Kind, Tensor};

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        case.something_to_forget()?;
        let nodes = chosen(case.graph, &self.layers)?;
        let mut rng = ChaCha8Rng::seed_from_u64(case.recipe.seed.wrapping_add(3));
        let mut drawn = |mut examples: Vec<usize>| {
            examples.shuffle(&mut rng);
            examples
        };
        let (all, flagged) = (drawn([case.retained, case.flagged].concat()), drawn(case.flagged.to_vec()));
        let model = case.model();
        let unit = self.batch_size as usize;
        let to_all = case.squared_gradients(&model, Objective::Loss, (&all, unit), &nodes, report)?;
        let to_flagged = case.squared_gradients(&model, Objective::Loss, (&flagged, unit), &nodes, report)?;
        let (mut shrunk, mut weights) = (0, 0);
        for (name, mut weight) in model.parameters_of(&nodes) {
            if let (Some(to_all), Some(to_flagged)) = (to_all.get(&name), to_flagged.get(&name)) {
                shrunk += dampen(self, &mut weight, to_all, to_flagged)?;
                weights += weight.numel();
            }
        }
        report.log(&match shrunk {
            0 => "no weight matters that much more to the flagged examples than to all, so nothing was changed: lower unlearn.alpha".into(),
            _ => format!("{shrunk} of {weights} weights were shrunk"),
        });
        case.measured(model, report)
    }
}

/// Shrink a tensor of weights in place by its importances (float64, of its shape); how many were chosen.
fn dampen(keys: &Keys, weight: &mut Tensor, to_all: &Tensor, to_flagged: &Tensor) -> Result<i64> {
    tch::no_grad(|| {
        let chosen = to_flagged.f_gt_tensor(&to_all.f_mul_scalar(keys.alpha)?)?;
        let factor = to_all.f_mul_scalar(keys.lambda)?.f_div(to_flagged)?.f_clamp_max(1.0)?;
        // 0 / 0 is never chosen.
        let factor = factor.f_where_self(&chosen, &factor.f_ones_like()?)?;
        weight.copy_(&weight.f_to_kind(Kind::Double)?.f_mul(&factor)?);
        Ok(chosen.f_sum(Kind::Int64)?.f_int64_value(&[])?)
    })
}

/// Nodes that have parameters and one of these prefixes.
fn chosen(graph: &Graph, prefixes: &[String]) -> Result<BTreeSet<String>> {
    let all = graph.last_layers(0);
    let wanted = |name: &&String| prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix.as_str()));
    let found: BTreeSet<String> = all.iter().filter(wanted).cloned().collect();
    match found.is_empty() {
        true => {
            let names = all.into_iter().collect::<Vec<_>>().join(", ");
            Err(Error::configuration(
                format!("no layer's name starts with {}", prefixes.join(" or ")),
                format!("unlearn.layers takes the beginnings of: {names}"),
            ))
        }
        false => Ok(found),
    }
}
