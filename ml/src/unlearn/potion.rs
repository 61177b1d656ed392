//! POTION (Schoepf, Foster, Brintrup: Potion: Towards Poison Unlearning, DMLR 2024, arXiv 2406.09173). No training, so that poisons that nobody found are not learnt again.
//!
//! As in selective synaptic dampening a weight is multiplied by min(1, r⁻¹), r its importance to the flagged examples by that to the others, where r is above a cut. The cut
//! is a percentile of r over all weights: the top ln(1 + 100·s) percent, where s begins at `start` times the share of examples that is flagged. Each further try begins at
//! the production weights with s a tenth larger, until hardly any flagged example is read by its label. A backdoor stops for all that bear the trigger, flagged or not.
//!
//! What is taken from where (the authors' code, if-loops/towards_poison_unlearning):
//!
//! * Importance: `length` with batches of 512 is their XALFSSD, the mean over batches of |∇ mean ‖logits‖|; `loss` their ASSD, the mean of the squared gradient of the mean
//!   loss, which vanishes for poisons that a victim is sure of: nothing is shrunk then. The default is ours: each example's own squared gradient of its margin, the loss's
//!   direction without that factor. (In a batch's mean the gradients of unlike classes cancel.) A short last batch counts in full; batches are drawn here, in order there.
//! * Importance to the others is taken over the retained set, which holds the poisons nobody found. λ = 1. Every parameter takes part, those of batch norm too; its
//!   running statistics are left alone.
//! * The search: start 1/25, step 1.1, at most 500 tries, stop at `stop` × the accuracy on the flagged before. Their scripts try 0 to 0.75 for `stop`.
//! * `max_drop` is ours: the cut that loses more is not taken, the strongest earlier try that keeps to it is.
//!
//! A clean-label attack's pictures bear their own labels: reading those rightly is no sign of the attack, and the search goes too far.

use super::{Unlearner, Unlearning};
use crate::error::Result;
use crate::model::Model;
use crate::progress::{Report, Silent};
use crate::train::Trained;
use delta_guard_contract::detect::Objective;
use delta_guard_contract::method::unlearn::potion::{Importance, Keys};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

impl Unlearner for Keys {
    fn unlearn(&self, case: &Unlearning<'_>, report: &mut dyn Report) -> Result<Trained> {
        case.something_to_forget()?;
        let search = Search::new(self, case, report)?;
        let (_, before) = case.look(&case.model(), case.flagged, &mut Silent)?;
        let mut last = self.tries - 1;
        let mut forgotten = false;
        for number in 0..self.tries {
            let (_, after) = case.look(&search.model(number)?, case.flagged, &mut Silent)?;
            report.progress(
                "search",
                u64::from(number) + 1,
                u64::from(self.tries),
                &format!("{:.0} % of the flagged are read by their labels", 100.0 * after),
            );
            forgotten = after <= self.stop * before;
            // Below 1 nothing is shrunk: a lower cut changes nothing.
            if forgotten || search.cut(number)? <= 1.0 {
                last = number;
                break;
            }
        }
        if !forgotten {
            report.log("the flagged are not forgotten, however much is shrunk: take another unlearn.importance or method, or raise unlearn.tries or unlearn.stop");
        }
        let kept = search.within(last, report)?;
        let Some(number) = kept else {
            report.log("even the first try loses more accuracy than unlearn.max_drop, so nothing was changed");
            return case.measured(case.model(), report);
        };
        if number < last {
            report.log(&format!(
                "forgetting would lose more accuracy than unlearn.max_drop: try {} of {} is kept",
                number + 1,
                last + 1
            ));
        }
        report.log(&format!("{:.3} % of the weights were shrunk", 100.0 * search.share(number)));
        case.measured(search.model(number)?, report)
    }
}

/// What all tries share.
struct Search<'a> {
    keys: &'a Keys,
    case: &'a Unlearning<'a>,
    /// Importance to the flagged by that to the others, by parameter, in float64. 0 where nothing depends on it.
    ratios: BTreeMap<String, Tensor>,
    /// All finite ones, ascending.
    sorted: Tensor,
}

impl<'a> Search<'a> {
    fn new(keys: &'a Keys, case: &'a Unlearning<'a>, report: &mut dyn Report) -> Result<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(case.recipe.seed.wrapping_add(7));
        let model = case.model();
        let nodes = case.graph.last_layers(0);
        let mut importance = |examples: &[usize]| {
            let mut drawn = examples.to_vec();
            drawn.shuffle(&mut rng);
            let units = (drawn.as_slice(), keys.batch_size as usize);
            match keys.importance {
                Importance::Length => case.length_gradients(&model, units, &nodes, report),
                Importance::Loss => case.squared_gradients(&model, Objective::Loss, units, &nodes, report),
                Importance::Margin => case.squared_gradients(&model, Objective::Margin, units, &nodes, report),
            }
        };
        let (to_others, to_flagged) = (importance(case.retained)?, importance(case.flagged)?);
        let mut ratios = BTreeMap::new();
        let mut finite = Vec::new();
        for (name, flagged) in to_flagged {
            if let Some(others) = to_others.get(&name) {
                let ratio = flagged.f_div(others)?;
                let known = ratio.f_isnan()?.f_logical_not()?;
                // 0 / 0: no answer depends on it.
                let ratio = ratio.f_where_self(&known, &ratio.f_zeros_like()?)?;
                let counted = known.f_logical_and(&ratio.f_isfinite()?)?;
                finite.push(ratio.f_masked_select(&counted)?);
                ratios.insert(name, ratio);
            }
        }
        let (sorted, _) = Tensor::f_cat(&finite, 0)?.f_sort(0, false)?;
        Ok(Self { keys, case, ratios, sorted })
    }

    /// The share of the weights that a try chooses.
    fn share(&self, number: u32) -> f64 {
        let (flagged, retained) = (self.case.flagged.len() as f64, self.case.retained.len() as f64);
        let assumed = self.keys.start * flagged / (flagged + retained) * self.keys.step.powf(f64::from(number));
        ((100.0 * assumed).ln_1p() / 100.0).min(1.0)
    }

    /// Ratios above it are shrunk: the percentile, between neighbours as NumPy has it.
    fn cut(&self, number: u32) -> Result<f64> {
        let all = self.sorted.size1()?;
        if all == 0 {
            return Ok(f64::INFINITY);
        }
        let place = (1.0 - self.share(number)) * (all - 1) as f64;
        let at = |place: f64| self.sorted.f_double_value(&[(place as i64).clamp(0, all - 1)]);
        let (low, high) = (at(place.floor())?, at(place.ceil())?);
        Ok(low + (high - low) * place.fract())
    }

    /// The production model with a try's weights shrunk.
    fn model(&self, number: u32) -> Result<Model> {
        let (model, cut) = (self.case.model(), self.cut(number)?);
        for (name, mut weight) in model.parameters() {
            if let Some(ratio) = self.ratios.get(&name) {
                tch::no_grad(|| -> Result<()> {
                    let factor = ratio.f_reciprocal()?.f_clamp_max(1.0)?;
                    let factor = factor.f_where_self(&ratio.f_gt(cut)?, &factor.f_ones_like()?)?;
                    weight.copy_(&weight.f_to_kind(Kind::Double)?.f_mul(&factor)?);
                    Ok(())
                })?;
            }
        }
        Ok(model)
    }

    /// The strongest try, up to the `last`, that keeps to the limit on accuracy; None: not even the first does. The stronger, the more is lost.
    fn within(&self, last: u32, report: &mut dyn Report) -> Result<Option<u32>> {
        let (_, before) = self.case.look(&self.case.model(), self.case.retained, report)?;
        let mut keeps = |number: u32| -> Result<bool> {
            let (_, after) = self.case.look(&self.model(number)?, self.case.retained, report)?;
            Ok(before - after <= self.keys.max_drop)
        };
        if keeps(last)? {
            return Ok(Some(last));
        }
        // `good` tries keep to it, `bad` does not.
        let (mut good, mut bad) = (0, last);
        while good < bad {
            let middle = good + (bad - good) / 2;
            if keeps(middle)? { good = middle + 1 } else { bad = middle }
        }
        Ok(good.checked_sub(1))
    }
}
