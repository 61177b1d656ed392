//! Steps 1–3 of the lead (algorithm §3): the strongest are seeds, the examples that resemble them are kin, the kin are the next seeds.
//!
//! k(a, b) = g_aᵀ P g_b / √(g_aᵀ P g_a · g_bᵀ P g_b) is a cosine; κ_i is the mean of k(i, s) over the seeds s ≠ i. Examples are places in the
//! list of those of C that have a gradient at all.

use super::cut::{Cut, Rates};
use super::pass::finite;
use crate::error::{Error, Result};
use crate::evidence::{Evidence, Kin};

/// What has grown from one set of seeds.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// Seeds of the last round, ascending.
    pub seeds: Vec<usize>,
    /// κ of every example in the last round.
    pub kappa: Vec<f64>,
    /// The cut of the last round.
    pub cut: Cut,
    /// The group: examples above the cut, ascending. A single one has no kin: it counts as none.
    pub flagged: Vec<usize>,
    /// Rounds taken.
    pub rounds: u32,
    /// Did the set stand: was the group its own seeds (or nothing) at the end?
    pub stood: bool,
}

/// Step 1: the `count` places with the largest `strength`, ascending; of equal ones the first.
pub fn seeds(strength: &[f64], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..strength.len()).collect();
    order.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]).then(a.cmp(&b)));
    order.truncate(count);
    order.sort_unstable();
    order
}

/// Step 2: κ from `sums`_i = Σ_s g_sᵀ P g_i / √(g_sᵀ P g_s) over the seeds s. A seed's own term, exactly k(i, i) = 1, is taken out. A lone seed
/// has no other to resemble: its κ is 0.
pub fn kappa(sums: &[f64], root: &[f64], seeds: &[usize]) -> Vec<f64> {
    let mut kappa: Vec<f64> = sums.iter().zip(root).map(|(sum, root)| sum / root / seeds.len() as f64).collect();
    for &s in seeds {
        kappa[s] = if seeds.len() > 1 {
            (sums[s] / root[s] - 1.0) / (seeds.len() - 1) as f64
        } else {
            0.0
        };
    }
    kappa
}

/// Steps 2 and 3 for several sets of seeds at once, at most `rounds` times: one pass per round for all that still grow, the same group asked
/// once. `positions` are the examples (ascending, as `evidence` knows them), `root` their √self-influence (all above 0). Errors: scores that
/// are not numbers, a set without seeds.
pub fn grow(
    evidence: &mut dyn Evidence,
    positions: &[usize],
    root: &[f64],
    starts: Vec<Vec<usize>>,
    rates: Rates,
    rounds: u32,
) -> Result<Vec<Growth>> {
    let mut next = starts;
    let mut grown: Vec<Option<Growth>> = next.iter().map(|_| None).collect();
    for round in 1..=rounds.max(1) {
        let growing: Vec<usize> = (0..next.len()).filter(|&c| grown[c].as_ref().is_none_or(|g| !g.stood)).collect();
        if growing.is_empty() {
            break;
        }
        let mut groups: Vec<&Vec<usize>> = Vec::new();
        let asked: Vec<usize> = growing
            .iter()
            .map(|&c| {
                groups.iter().position(|g| **g == next[c]).unwrap_or_else(|| {
                    groups.push(&next[c]);
                    groups.len() - 1
                })
            })
            .collect();
        let weighted: Vec<Vec<(usize, f64)>> = groups
            .iter()
            .map(|g| g.iter().map(|&s| (positions[s], 1.0 / root[s])).collect())
            .collect();
        let Kin { rows: sums, null } = evidence.kin("kin", &weighted, positions)?;
        if sums.len() != groups.len() || sums.iter().any(|row| row.len() != positions.len()) || !(null.is_empty() || null.len() == groups.len()) {
            return Err(Error::internal(format!(
                "kin of {} groups over {} examples came back in another shape",
                groups.len(),
                positions.len()
            )));
        }
        for (&chain, &group) in growing.iter().zip(&asked) {
            finite(&sums[group], positions, || {
                format!("the kinship of a group of {} in round {round}", next[chain].len())
            })?;
            let null = null.get(group).map_or(&[][..], Vec::as_slice);
            let step = one_round(&sums[group], null, root, &next[chain], rates, round)?;
            if !step.stood {
                next[chain] = step.flagged.clone();
            }
            grown[chain] = Some(step);
        }
    }
    grown
        .into_iter()
        .map(|g| g.ok_or_else(|| Error::internal("a set of seeds did not grow")))
        .collect()
}

/// κ, cut and group of one set of seeds. `null`: Σ_s g_sᵀ P g_v / √(g_sᵀ P g_s · g_vᵀ P g_v) of each null picture v.
fn one_round(sums: &[f64], null: &[f64], root: &[f64], seeds: &[usize], rates: Rates, round: u32) -> Result<Growth> {
    let kappa = kappa(sums, root, seeds);
    let null: Vec<f64> = null.iter().map(|sum| sum / seeds.len() as f64).collect();
    let cut = Cut::of(&kappa, &null, rates).ok_or_else(|| Error::internal(format!("no cut for {} values of κ at {rates:?}", kappa.len())))?;
    let mut flagged: Vec<usize> = (0..kappa.len()).filter(|&i| kappa[i] > cut.value()).collect();
    if flagged.len() < 2 {
        flagged.clear();
    }
    let stood = flagged.is_empty() || flagged == seeds;
    Ok(Growth {
        seeds: seeds.to_vec(),
        kappa,
        cut,
        flagged,
        rounds: round,
        stood,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fake::{Vectors, random_vectors};

    const RATES: Rates = Rates { alpha: 0.01, chance: 0.1 };

    #[test]
    fn seeds_are_the_strongest_and_ties_go_to_the_first() {
        assert_eq!(seeds(&[1.0, 5.0, 3.0, 5.0, -1.0], 3), [1, 2, 3]);
        assert_eq!(seeds(&[2.0, 2.0, 2.0], 2), [0, 1]);
        assert_eq!(seeds(&[1.0], 5), [0]);
    }

    #[test]
    fn kappa_is_the_mean_cosine_to_the_other_seeds() {
        // Brute force over explicit vectors and a random positive P, one round so that the seeds are known.
        let mut evidence = random_vectors(40, 12, 3);
        let positions: Vec<usize> = (0..40).filter(|i| i % 4 != 1).collect();
        let root: Vec<f64> = positions.iter().map(|&i| evidence.inner(i, i).sqrt()).collect();
        for start in [vec![2, 5, 6, 20], vec![0, 29], vec![7]] {
            let grown = grow(&mut evidence, &positions, &root, vec![start.clone()], RATES, 1).unwrap();
            for (i, &a) in positions.iter().enumerate() {
                let others: Vec<f64> = start
                    .iter()
                    .filter(|&&s| s != i)
                    .map(|&s| evidence.inner(a, positions[s]) / (evidence.inner(a, a) * evidence.inner(positions[s], positions[s])).sqrt())
                    .collect();
                let expected = if others.is_empty() {
                    0.0
                } else {
                    others.iter().sum::<f64>() / others.len() as f64
                };
                assert!((grown[0].kappa[i] - expected).abs() < 1e-12, "{i}: {} {expected}", grown[0].kappa[i]);
            }
        }
    }

    #[test]
    fn a_planted_group_grows_from_half_of_its_members_among_strangers() {
        let mut evidence = Vectors::planted(300, 60, 25, 4);
        let positions: Vec<usize> = (0..300).collect();
        let root: Vec<f64> = positions.iter().map(|&i| evidence.inner(i, i).sqrt()).collect();
        let group: Vec<usize> = evidence.group.clone();
        let strangers = positions.iter().copied().filter(|i| !group.contains(i));
        let mut start: Vec<usize> = group.iter().copied().take(10).chain(strangers.take(8)).collect();
        start.sort_unstable();
        let calls = evidence.kin_calls;
        let grown = grow(&mut evidence, &positions, &root, vec![start.clone(), start], RATES, 5).unwrap();
        assert_eq!(grown[0].flagged, group);
        assert!(grown[0].stood && grown[0].seeds == group);
        assert_eq!(grown[0], grown[1]);
        assert_eq!(evidence.kin_calls - calls, grown[0].rounds as usize);
        assert_eq!(evidence.largest_kin_call, 1, "the same group is asked once");
    }

    #[test]
    fn an_empty_start_has_no_kin_and_no_panic() {
        let mut evidence = random_vectors(20, 5, 5);
        let positions: Vec<usize> = (0..20).collect();
        let root: Vec<f64> = positions.iter().map(|&i| evidence.inner(i, i).sqrt()).collect();
        assert!(grow(&mut evidence, &positions, &root, vec![vec![]], RATES, 3).is_err());
        assert!(grow(&mut evidence, &positions, &root, vec![], RATES, 3).unwrap().is_empty());
    }
}
