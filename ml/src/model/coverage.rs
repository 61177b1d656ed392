//! How much of a network its tracked layers are.

use super::graph::{Graph, StateEntry};
use super::probe::NOT_READ;
use delta_guard_contract::job::Tracked;
use std::collections::{BTreeMap, BTreeSet};

/// Untracked tensors that are named.
const NAMED: usize = 20;
/// Why the weights of a tracked layer are not tracked that the settings did not choose.
const NOT_CHOSEN: &str = "detect.layers leaves its layer out";

impl Graph {
    /// What influence on all tracked layers covers.
    pub fn tracked(&self) -> Tracked {
        self.tracked_of(&(0..self.seen.taps.len()).collect::<Vec<_>>())
    }

    /// What influence on the layers at these places covers.
    pub fn tracked_of(&self, places: &[usize]) -> Tracked {
        let chosen: BTreeSet<&String> = places.iter().filter_map(|&place| self.seen.sources.get(place)).flatten().collect();
        let reasons: BTreeMap<&str, &str> = self.seen.untracked.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        let (mut all, mut inside, mut left) = (0, 0, Vec::new());
        for entry in self.state.iter().filter(|entry| entry.parameter) {
            let (numbers, why) = (numbers(entry), reasons.get(entry.name.as_str()).copied());
            if why != Some(NOT_READ) {
                all += numbers;
            }
            if chosen.contains(&entry.name) {
                inside += numbers;
            } else {
                left.push((numbers, entry.name.as_str(), why.unwrap_or(NOT_CHOSEN)));
            }
        }
        left.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        let named = left.iter().take(NAMED).map(|(_, name, why)| ((*name).to_string(), (*why).to_string()));
        Tracked {
            layers: places.len() as u64,
            tracked_share: if all > 0 { inside as f64 / all as f64 } else { 0.0 },
            untracked: named.collect(),
            untracked_tensors: left.len() as u64,
            blocks: Vec::new(),
        }
    }

    /// How many trained numbers there are.
    pub fn parameters(&self) -> u64 {
        self.state.iter().filter(|entry| entry.parameter).map(numbers).sum()
    }
}

fn numbers(entry: &StateEntry) -> u64 {
    entry.shape.iter().product::<i64>().max(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::zoo;

    /// The small network, and tensors of a head that no node reads.
    fn with_a_head() -> Graph {
        let mut graph = serde_json::to_value(zoo::small_cnn([3, 8, 8], 2, 3).unwrap()).unwrap();
        let head = serde_json::json!({"name": "aux.weight", "shape": [1000, 10], "kind": "float32", "parameter": true});
        graph["state"].as_array_mut().unwrap().push(head);
        Graph::read(&graph.to_string()).unwrap()
    }

    #[test]
    fn what_the_logits_do_not_depend_on_counts_neither_way_and_is_named() {
        let (plain, headed) = (zoo::small_cnn([3, 8, 8], 2, 3).unwrap().tracked(), with_a_head().tracked());
        assert_eq!(headed.tracked_share, plain.tracked_share);
        assert_eq!(headed.untracked[0], ("aux.weight".to_string(), NOT_READ.to_string()));
        assert_eq!(headed.untracked_tensors, plain.untracked_tensors + 1);
        assert!(plain.tracked_share < 1.0 && with_a_head().parameters() > 10_000);
    }

    #[test]
    fn layers_that_are_not_chosen_are_named_with_that_reason() {
        let graph = zoo::small_cnn([3, 8, 8], 2, 3).unwrap();
        let last = graph.layers().len() - 1;
        let (all, one) = (graph.tracked(), graph.tracked_of(&[last]));
        // fc: 3 × 8 and its bias.
        assert_eq!((one.layers, one.tracked_share), (1, 27.0 / graph.parameters() as f64));
        assert_eq!(one.untracked_tensors - all.untracked_tensors, last as u64);
        assert!(one.untracked.contains(&("conv1.weight".into(), NOT_CHOSEN.into())), "{:?}", one.untracked);
        assert!(!one.untracked.iter().any(|(name, _)| name.starts_with("fc.")));
        assert_eq!(graph.tracked_of(&[]).tracked_share, 0.0);
    }
}
