//! The random labels of the transformed queries.

use crate::error::{Error, Result};
use delta_guard_contract::detect::Labels;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// `count` labels among `classes`, all but `wrong_label` (ŷ), uniform. [`Labels::Distinct`], and [`Labels::ByClasses`] on more than 10, draw without replacement while there are enough
/// classes, otherwise with replacement like [`Labels::Independent`]. Errors: fewer than two classes, ŷ not among them.
pub fn draw(labels: Labels, count: usize, classes: usize, wrong_label: usize, rng: &mut ChaCha8Rng) -> Result<Vec<i64>> {
    if classes < 2 || wrong_label >= classes {
        let message = format!("no other label can be drawn: the wrong label is class {wrong_label} of {classes} classes (counted from 0)");
        return Err(Error::configuration(message, "check that data, model and anomaly belong together"));
    }
    let mut others: Vec<i64> = (0..classes as i64).filter(|&class| class != wrong_label as i64).collect();
    // u32: the same draws whatever the width of a pointer.
    let mut below = |n: usize| rng.random_range(0..n as u32) as usize;
    let distinct = match labels {
        Labels::Independent => false,
        Labels::Distinct => true,
        Labels::ByClasses => classes > 10,
    };
    if distinct && count <= others.len() {
        for place in 0..count {
            let from = place + below(others.len() - place);
            others.swap(place, from);
        }
        others.truncate(count);
        return Ok(others);
    }
    Ok((0..count).map(|_| others[below(others.len())]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn independent_labels_are_uniform_over_all_but_the_wrong_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let drawn = draw(Labels::Independent, 90_000, 10, 3, &mut rng).unwrap();
        for class in 0..10 {
            let n = drawn.iter().filter(|&&label| label == class).count();
            // 10,000 expected, standard deviation 94.
            assert!(if class == 3 { n == 0 } else { (9_500..10_500).contains(&n) }, "class {class}: {n}");
        }
    }

    #[test]
    fn distinct_labels_do_not_repeat_while_there_are_enough() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut seen = [false; 100];
        for _ in 0..40 {
            let mut drawn = draw(Labels::Distinct, 50, 100, 68, &mut rng).unwrap();
            drawn.iter().for_each(|&label| seen[label as usize] = true);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn.len(), 50);
        }
        assert_eq!(seen.iter().filter(|&&s| s).count(), 99);
        assert!(!seen[68]);
        let all = draw(Labels::Distinct, 9, 10, 0, &mut rng).unwrap();
        assert_eq!(all.iter().sum::<i64>(), 45);
        assert_eq!(draw(Labels::Distinct, 50, 10, 0, &mut rng).unwrap().len(), 50);
    }

    #[test]
    fn impossible_draws_are_errors() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        assert!(draw(Labels::Independent, 1, 1, 0, &mut rng).is_err());
        assert!(draw(Labels::Distinct, 1, 10, 10, &mut rng).is_err());
    }
}
