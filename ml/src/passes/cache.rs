//! Pairs of batches that later passes will ask for again, as far as the budget reaches: kin goes over the examples of one class several times.

use super::stream::GradientOf;
use crate::model::layer::Pair;
use std::collections::BTreeMap;
use tch::Tensor;

/// Kept pairs, by batch and by what was asked of it.
#[derive(Debug, Default)]
pub struct PairCache {
    batches: Vec<(GradientOf, Vec<usize>, Vec<Pair>)>,
    bytes: u64,
    budget: u64,
}

impl PairCache {
    /// An empty one.
    pub fn new(budget: u64) -> Self {
        Self { budget, ..Self::default() }
    }

    /// The pairs of a batch, if they are kept.
    pub fn get(&self, ask: GradientOf, batch: &[usize]) -> Option<&[Pair]> {
        let kept = self.batches.iter().find(|(a, examples, _)| *a == ask && examples == batch);
        kept.map(|(_, _, pairs)| pairs.as_slice())
    }

    /// Keep a batch if it still fits.
    pub fn offer(&mut self, ask: GradientOf, batch: &[usize], pairs: Vec<Pair>) {
        // Layers that read the same activation share its memory.
        let size = |t: &Tensor| (t.data_ptr() as usize, t.numel() as u64 * t.kind().elt_size_in_bytes() as u64);
        let blocks: BTreeMap<usize, u64> = pairs.iter().flat_map(|p| [size(&p.input), size(&p.output_grad)]).collect();
        let bytes: u64 = blocks.values().sum();
        if self.bytes + bytes <= self.budget {
            self.bytes += bytes;
            self.batches.push((ask, batch.to_vec(), pairs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passes::labels::PassLabels;
    use delta_guard_contract::detect::Objective;

    /// The gradients of one batch differ with what was asked of it.
    #[test]
    fn pairs_answer_only_what_they_were_made_for() {
        let ask = |labels, objective| GradientOf { labels, objective };
        let pair = || Pair {
            input: Tensor::from_slice(&[1.0]),
            output_grad: Tensor::from_slice(&[2.0]),
        };
        let kept = ask(PassLabels::Training, Objective::Margin);
        let mut cache = PairCache::new(1 << 10);
        cache.offer(kept, &[3, 5], vec![pair()]);
        assert!(cache.get(kept, &[3, 5]).is_some());
        assert!(cache.get(kept, &[3]).is_none() && cache.get(kept, &[5, 3]).is_none());
        assert!(cache.get(ask(PassLabels::Training, Objective::Loss), &[3, 5]).is_none());
        assert!(
            cache
                .get(ask(PassLabels::Sampled { seed: 1, draw: 0 }, Objective::Margin), &[3, 5])
                .is_none()
        );
    }
}
