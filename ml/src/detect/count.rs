//! The published count rule: an example is flagged when nearly all transformed queries lower its influence.

use delta_guard_contract::detect::Combine;

/// count_i = #{j : Δ_ij < τ}, strictly. `delta`: one row per query, each over the same examples.
pub fn counts(delta: &[Vec<f64>], tau: f64) -> Vec<u32> {
    let mut counts = vec![0; delta.first().map_or(0, Vec::len)];
    for row in delta {
        for (count, value) in counts.iter_mut().zip(row) {
            *count += u32::from(*value < tau);
        }
    }
    counts
}

/// Flag i iff count_i ≥ `queries` − `tolerance`. The paper's text says "exceeds", which with a tolerance of 0 could flag nothing; its code, and
/// so this, says "at least".
pub fn reached(counts: &[u32], queries: u32, tolerance: u32) -> Vec<bool> {
    counts.iter().map(|&count| count >= queries.saturating_sub(tolerance)).collect()
}

/// The rule over several anomalies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Combined {
    /// Flagged, per example.
    pub flagged: Vec<bool>,
    /// Evidence, per example: the count; with several anomalies their smallest ([`Combine::Intersect`]) or their sum ([`Combine::Pool`]).
    pub counts: Vec<u32>,
}

/// Join the counts of m anomalies of `queries` (n_b) shifts each, one list per anomaly.
///
/// `Intersect` flags what every anomaly flags. `Pool` counts all m·n_b shifts against m·(n_b − n_tol): the tolerance grows with the number of
/// shifts. Were it n_tol in all, pooling would be stricter than intersecting, and one odd transform of one anomaly could veto an example.
pub fn combine(counts: &[Vec<u32>], queries: u32, tolerance: u32, how: Combine) -> Combined {
    let Some(examples) = counts.first().map(Vec::len) else {
        return Combined {
            flagged: Vec::new(),
            counts: Vec::new(),
        };
    };
    let anomalies = counts.len() as u32;
    let at = |i: usize| counts.iter().map(move |c| c[i]);
    match how {
        Combine::Intersect => {
            let joined: Vec<u32> = (0..examples).map(|i| at(i).min().unwrap_or(0)).collect();
            Combined {
                flagged: reached(&joined, queries, tolerance),
                counts: joined,
            }
        }
        Combine::Pool => {
            let joined: Vec<u32> = (0..examples).map(|i| at(i).sum()).collect();
            Combined {
                flagged: reached(&joined, queries * anomalies, tolerance * anomalies),
                counts: joined,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn agrees_with_a_loop_over_the_definition_ties_included() {
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        for _ in 0..50 {
            let (queries, examples) = (rng.random_range(1..12u32), rng.random_range(1..40usize));
            // Whole numbers, so that ties with τ are common.
            let delta: Vec<Vec<f64>> = (0..queries)
                .map(|_| (0..examples).map(|_| f64::from(rng.random_range(-3..2i32))).collect())
                .collect();
            for tau in [0.0, -1.0, -2.0] {
                let counted = counts(&delta, tau);
                for tolerance in 0..4 {
                    let flagged = reached(&counted, queries, tolerance);
                    for i in 0..examples {
                        let mut misses = 0;
                        for row in &delta {
                            misses += u32::from(row[i] >= tau);
                        }
                        assert_eq!(counted[i], queries - misses);
                        assert_eq!(flagged[i], misses <= tolerance);
                    }
                }
            }
        }
    }

    #[test]
    fn strict_below_tau_and_at_least_the_threshold() {
        let delta = vec![vec![-1.0, -0.5, 0.0, f64::MIN_POSITIVE], vec![-1.0, 0.0, 0.0, -1.0]];
        assert_eq!(counts(&delta, 0.0), [2, 1, 0, 1]);
        assert_eq!(counts(&delta, -1.0), [0, 0, 0, 0]);
        assert_eq!(reached(&[2, 1, 0, 1], 2, 0), [true, false, false, false]);
        assert_eq!(reached(&[2, 1, 0, 1], 2, 1), [true, true, false, true]);
        assert!(counts(&[], 0.0).is_empty());
    }

    #[test]
    fn several_anomalies_intersect_or_pool() {
        let counts = vec![vec![10, 10, 9, 7], vec![10, 7, 9, 7]];
        let intersect = combine(&counts, 10, 1, Combine::Intersect);
        assert_eq!((intersect.flagged, intersect.counts), (vec![true, false, true, false], vec![10, 7, 9, 7]));
        let pool = combine(&counts, 10, 1, Combine::Pool);
        assert_eq!((pool.flagged, pool.counts), (vec![true, false, true, false], vec![20, 17, 18, 14]));
        // What one anomaly misses another can make up for when pooled, not when intersected.
        let counts = vec![vec![10], vec![8]];
        assert_eq!(combine(&counts, 10, 1, Combine::Intersect).flagged, [false]);
        assert_eq!(combine(&counts, 10, 1, Combine::Pool).flagged, [true]);
    }
}
