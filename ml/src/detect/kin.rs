//! Steps 1–3 of the guard (algorithm §3): the strongest are seeds, the examples that resemble them are kin, the kin are the next seeds.
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
    /// The group as it is judged, ascending: with all that the generous cut adds to it, without what lies beyond a gap. What is kin enough to found a group is one question, what belongs
    /// to one that is there another.
    pub collected: Vec<usize>,
    /// κ from which on an example belongs to it, where that is not the cut's own.
    pub end: Option<f64>,
    /// Null pictures as much alike as the last of `collected`.
    pub null_alike: usize,
    /// Rounds taken.
    pub rounds: u32,
    /// Did the set stand: was the group its own seeds (or nothing) at the end?
    pub stood: bool,
}

impl Growth {
    /// Examples of the group as it is judged and in all; null pictures that are as much alike, and in all.
    pub fn counts(&self) -> [usize; 4] {
        [self.collected.len(), self.kappa.len(), self.null_alike, self.cut.null_pictures()]
    }
}

/// Examples of C that each seed needs: were a larger part of C seeds, most of them could not be poisons and κ would measure the class itself.
pub const EXAMPLES_PER_SEED: usize = 4;

/// Fewer seeds than this (unless the settings ask for fewer) say too little about what they have in common.
pub fn fewest_seeds(wanted: u32) -> usize {
    wanted.min(5) as usize
}

/// How many seeds a class of `examples` gets: `wanted`, but no more than one for every [`EXAMPLES_PER_SEED`], and no fewer than [`fewest_seeds`].
pub fn seed_count(wanted: u32, examples: usize) -> usize {
    (wanted as usize).min(examples / EXAMPLES_PER_SEED).max(fewest_seeds(wanted))
}

/// |κ| and what cosines are compared with may exceed 1 by rounding only.
pub const ROUNDING: f64 = 1e-3;

/// Error: a cosine that is none. Then a norm was lost to rounding, and with it every verdict.
fn cosines(values: &[f64], what: &str) -> Result<()> {
    match values.iter().find(|v| v.abs() > 1.0 + ROUNDING) {
        None => Ok(()),
        Some(value) => Err(Error::numeric(
            format!(
                "influence cannot be computed exactly enough for this model: the kinship κ of {what} is {value:.3}, and a cosine lies between −1 and 1"
            ),
            "set detect.precision to f64; if it is f64, set detect.damping to a larger factor",
        )),
    }
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

/// Steps 2 and 3 for several sets of seeds at once, until each set stands: one pass per round for all that still grow, the same group asked
/// once. A set that comes back to an earlier one goes round for ever: it ends there, as one that did not stand, and so does every set after `rounds`. `positions` are the examples (ascending, as `evidence` knows them), `root` their √self-influence (all above 0). Errors: scores that
/// are not numbers or that are no cosines, a set without seeds.
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
    let mut ended = vec![false; next.len()];
    let mut seen: Vec<Vec<Vec<usize>>> = next.iter().map(|start| vec![start.clone()]).collect();
    for round in 1..=rounds.max(1) {
        let growing: Vec<usize> = (0..next.len()).filter(|&c| !ended[c]).collect();
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
            ended[chain] = step.stood || seen[chain].contains(&step.flagged);
            if !ended[chain] {
                next[chain] = step.flagged.clone();
                seen[chain].push(step.flagged.clone());
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
    cosines(&kappa, "a training example")?;
    cosines(&null, "a clean validation picture")?;
    let cut = Cut::of(&kappa, &null, rates).ok_or_else(|| Error::internal(format!("no cut for {} values of κ at {rates:?}", kappa.len())))?;
    let mut flagged: Vec<usize> = (0..kappa.len()).filter(|&i| kappa[i] > cut.value()).collect();
    if flagged.len() < 2 {
        flagged.clear();
    }
    let stood = flagged.is_empty() || flagged == seeds;
    // Decided by the strict cut; what belongs to the group is another question.
    let end = cut.end(&kappa, rates.collect).filter(|_| !flagged.is_empty());
    let collected = match end {
        Some(end) => (0..kappa.len()).filter(|&i| kappa[i] >= end).collect(),
        None => flagged.clone(),
    };
    let least = collected.iter().map(|&i| kappa[i]).fold(f64::INFINITY, f64::min);
    Ok(Growth {
        seeds: seeds.to_vec(),
        null_alike: null.iter().filter(|v| **v >= least).count(),
        kappa,
        cut,
        end,
        flagged,
        collected,
        rounds: round,
        stood,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::fake::{Vectors, random_vectors};
    use crate::evidence::{Question, Scores};
    use delta_guard_contract::FaultKind;

    const RATES: Rates = Rates {
        alpha: 0.01,
        chance: 0.1,
        collect: 0.2,
    };

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

    /// Kinship by a rule instead of vectors: which examples resemble a group. The rest resemble it a little and unequally.
    struct Rule<F>(F);

    impl<F: FnMut(&[usize]) -> Vec<usize>> Evidence for Rule<F> {
        fn scores(&mut self, _: &str, _: &[Question], _: &[usize], _: bool) -> Result<Scores> {
            Err(Error::internal("not asked here"))
        }

        fn kin(&mut self, _: &str, groups: &[Vec<(usize, f64)>], examples: &[usize]) -> Result<Kin> {
            let rows = groups.iter().map(|group| {
                let members: Vec<usize> = group.iter().map(|(s, _)| *s).collect();
                let alike = (self.0)(&members);
                let kappa = |i: &usize| if alike.contains(i) { 0.8 } else { 0.01 * (i % 7) as f64 };
                let own = |i: &usize| if members.contains(i) { 1.0 - kappa(i) } else { 0.0 };
                examples.iter().map(|i| kappa(i) * members.len() as f64 + own(i)).collect()
            });
            Ok(Kin {
                rows: rows.collect(),
                null: Vec::new(),
            })
        }
    }

    fn by_rule(rule: impl FnMut(&[usize]) -> Vec<usize>, rounds: u32) -> Growth {
        let positions: Vec<usize> = (0..100).collect();
        let mut grown = grow(&mut Rule(rule), &positions, &[1.0; 100], vec![vec![0, 1, 2, 3]], RATES, rounds).unwrap();
        grown.remove(0)
    }

    #[test]
    fn null_pictures_beside_a_group_are_counted() {
        let alike = |i: usize| if i < 10 { 0.8 } else { 0.01 * (i % 7) as f64 };
        // A seed's own term is taken out of its sum.
        let sums: Vec<f64> = (0..100).map(|i| if i < 4 { 3.0 * alike(i) + 1.0 } else { 4.0 * alike(i) }).collect();
        let null: Vec<f64> = (0..60).map(|j| 4.0 * if j == 9 { 0.85 } else { 0.01 * f64::from(j % 7) }).collect();
        let growth = one_round(&sums, &null, &[1.0; 100], &[0, 1, 2, 3], RATES, 1).unwrap();
        assert_eq!(growth.collected, (0..10).collect::<Vec<_>>());
        assert_eq!(growth.counts(), [10, 100, 1, 60]);
    }

    #[test]
    fn kin_goes_on_until_the_set_stands() {
        // Two more each round, up to twenty.
        let growing = |group: &[usize]| (0..(group.len() + 2).min(20)).collect::<Vec<_>>();
        let grown = by_rule(growing, 30);
        assert!(grown.stood && grown.flagged == (0..20).collect::<Vec<_>>());
        assert_eq!(grown.rounds, 9, "eight rounds from 4 to 20, one to see that it stands");
        let cut_short = by_rule(growing, 3);
        assert!(!cut_short.stood && cut_short.rounds == 3 && cut_short.flagged.len() == 10);
    }

    #[test]
    fn a_set_that_goes_round_ends_where_it_comes_back() {
        let mut asked = 0;
        let grown = by_rule(
            |group| {
                asked += 1;
                if group[0] == 0 { vec![10, 11, 12] } else { vec![0, 1, 2, 3] }
            },
            30,
        );
        assert!(!grown.stood);
        assert_eq!((grown.rounds, asked), (2, 2));
        assert_eq!((grown.seeds, grown.flagged), (vec![10, 11, 12], vec![0, 1, 2, 3]));
    }

    #[test]
    fn small_classes_get_fewer_seeds() {
        for (examples, seeds) in [(5000, 20), (80, 20), (79, 19), (38, 9), (20, 5), (19, 5), (0, 5)] {
            assert_eq!(seed_count(20, examples), seeds, "{examples} examples");
        }
        assert_eq!((seed_count(3, 1000), seed_count(3, 2), fewest_seeds(3)), (3, 3, 3));
        assert_eq!((seed_count(10, 38), seed_count(10, 40), fewest_seeds(20)), (9, 10, 5));
    }

    #[test]
    fn a_cosine_above_one_is_a_fault() {
        let mut evidence = random_vectors(40, 12, 3);
        let positions: Vec<usize> = (0..40).collect();
        let root = |scale: f64| -> Vec<f64> {
            let exact = positions.iter().map(|&i| evidence.inner(i, i).sqrt());
            exact.enumerate().map(|(i, root)| if i == 7 { root * scale } else { root }).collect()
        };
        let (exact, lost) = (root(1.0), root(0.01));
        let start = || vec![vec![2, 5, 6, 20]];
        assert!(grow(&mut evidence, &positions, &exact, start(), RATES, 1).is_ok());
        let error = grow(&mut evidence, &positions, &lost, start(), RATES, 1).unwrap_err();
        assert_eq!(error.fault().kind, FaultKind::Numeric);
        assert!(error.fault().help.contains("detect.precision"), "{error}");
        // Of null pictures too.
        evidence.null = vec![evidence.gradients[5].iter().map(|g| 100.0 * g).collect()];
        let scaled = grow(&mut evidence, &positions, &exact, start(), RATES, 1);
        assert!(scaled.is_ok(), "they are divided by their own root: {scaled:?}");
        for value in [1.0011, -1.0011, f64::INFINITY] {
            assert!(cosines(&[0.3, value], "x").is_err());
        }
        assert!(cosines(&[1.0009, -1.0009, 0.0], "x").is_ok());
    }
}
