//! Step 4 of the lead: does the group stand out, and does it act on *this* anomaly, more than what the case's placebos bring about?

use delta_guard_contract::TrainId;
use delta_guard_contract::finding::Abstain;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Continuous, ContinuousCDF, Normal, StudentsT};

/// The flagged group against the case's own placebos, as a trace report holds it for scripts and tests ([`super::exhibits`]).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StandOut {
    /// d′ = (mean_F κ − mean_{C∖F} κ) / std_{C∖F} κ. None when nothing was flagged.
    pub d_prime: Option<f64>,
    /// The same difference for s(q_0, i) / √self_i.
    pub z: Option<f64>,
    /// The cut of κ: by the tail of the null pictures, or median + z·1.4826·MAD where there are too few of them.
    pub cut: f64,
    /// Null pictures that the cut was drawn from; 0: by the spread of the class itself.
    pub null_pictures: u32,
    /// Examples above the cut: they founded the group.
    #[serde(default)]
    pub founders: u32,
    /// κ from which on an example belongs to the group, where it is not the cut: the generous one, or the upper side of a gap.
    #[serde(default)]
    pub end: Option<f64>,
    /// Rounds of kin until the set stood.
    pub rounds: u32,
    /// Each placebo's group.
    pub placebos: Vec<Placebo>,
}

/// One placebo: a clean, correctly read validation image of class ŷ put through steps 1–3.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Placebo {
    /// Validation example.
    pub id: TrainId,
    /// Size of its flagged group.
    pub flagged: u32,
    /// Its d′, when it flagged anything.
    pub d_prime: Option<f64>,
    /// Its z.
    pub z: Option<f64>,
    /// Share of its group that is in the anomaly's group (0 to 1).
    pub overlap: f64,
}

/// Least number of placebos that a group may be judged by (fewer where the settings ask for fewer): with one, every second natural error would
/// exceed it by chance.
pub const FEWEST_PLACEBOS: usize = 5;

/// One-sided prediction limit for one more value of the kind of `values` at error rate α: mean + t·s·√(1 + 1/n). None for fewer than two.
fn prediction_limit(values: &[f64], alpha: f64) -> Option<f64> {
    let n = values.len() as f64;
    let t = StudentsT::new(0.0, 1.0, n - 1.0).ok()?;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    Some(mean + t.inverse_cdf(1.0 - alpha) * (variance * (1.0 + 1.0 / n)).sqrt())
}

/// The z of the `group` largest of `all` normal values: what choosing alone brings about.
///
/// A group is grown from the examples that act most on the anomaly, so that its z is above 0 even where nothing caused the anomaly. At worst it is the upper
/// end of the class, and where the class has one hump, that end has this z: with p = group / all and t = Φ⁻¹(1 − p), the means on both sides of t are φ(t) / p and
/// −φ(t) / (1 − p), and the variance below is 1 − tλ − λ² with λ = φ(t) / (1 − p). It is 2.3 for a tenth to a quarter of the class, 2.8 for a hundredth; above half
/// of it, that of half (2.6). A cause has a hump of its own, beyond that.
pub fn z_of_choosing(group: usize, all: usize) -> f64 {
    let p = (group as f64 / all.max(1) as f64).min(0.5);
    if p <= 0.0 {
        return 0.0;
    }
    let normal = Normal::standard();
    let t = -normal.inverse_cdf(p);
    let (above, below) = (normal.pdf(t) / p, normal.pdf(t) / (1.0 - p));
    (above + below) / (1.0 - t * below - below * below).sqrt()
}

/// From this share on two groups are the same one.
const SAME_GROUP: f64 = 0.5;

/// Groups of fewer members are what near-duplicates make.
const FEWEST_ALIKE: usize = 5;
/// A natural group of less than this share of the candidates is no measure of how far they stand apart.
const SAME_SIZE: f64 = 0.5;

/// (mean over the group − mean over the others) / standard deviation of the others. `group`: ascending places in `values`. None for an empty
/// group, fewer than two others, or others that do not vary.
pub fn apart(values: &[f64], group: &[usize]) -> Option<f64> {
    let inside = |i: &usize| group.binary_search(i).is_ok();
    let others: Vec<f64> = (0..values.len()).filter(|i| !inside(i)).map(|i| values[i]).collect();
    if group.is_empty() || others.len() < 2 {
        return None;
    }
    let mean = |v: &mut dyn Iterator<Item = f64>, n: usize| v.sum::<f64>() / n as f64;
    let of_group = mean(&mut group.iter().map(|&i| values[i]), group.len());
    let of_others = mean(&mut others.iter().copied(), others.len());
    let variance = mean(&mut others.iter().map(|v| (v - of_others).powi(2)), others.len());
    let apart = (of_group - of_others) / variance.sqrt();
    (variance > 0.0 && apart.is_finite()).then_some(apart)
}

/// Number of places in both (ascending) groups.
pub fn common(a: &[usize], b: &[usize]) -> usize {
    a.iter().filter(|i| b.binary_search(i).is_ok()).count()
}

/// Share of `group` that lies in `of`; 0 for an empty group.
pub fn overlap(group: &[usize], of: &[usize]) -> f64 {
    if group.is_empty() {
        0.0
    } else {
        common(group, of) as f64 / group.len() as f64
    }
}

/// Do the groups share at least half of the larger one?
pub fn same_group(a: &[usize], b: &[usize]) -> bool {
    overlap(a, b).min(overlap(b, a)) >= SAME_GROUP
}

/// Does neither hold half of the other?
pub fn another_group(a: &[usize], b: &[usize]) -> bool {
    overlap(a, b).max(overlap(b, a)) < SAME_GROUP
}

/// The anomaly's group, to be judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Ascending places in C.
    pub group: &'a [usize],
    /// Number of examples in C.
    pub all: usize,
    /// d′ of κ.
    pub d_prime: Option<f64>,
    /// z of s(q_0, i) / √self_i.
    pub z: Option<f64>,
    /// The group that the anomaly brings about when it is put through the very steps of the placebos (seeds by s(q_0, i) / √self_i).
    pub like_a_placebo: &'a [usize],
}

/// What a placebo brings about.
#[derive(Clone, Debug, PartialEq)]
pub struct Rival {
    /// For messages.
    pub name: String,
    /// Its group, ascending places in C.
    pub group: Vec<usize>,
    /// d′ of its own group.
    pub d_prime: Option<f64>,
    /// z of its own group for itself.
    pub z: Option<f64>,
    /// z of the *candidate's* group for the placebo.
    pub z_of_candidate: Option<f64>,
}

/// None: the group stands out. Otherwise why it does not.
///
/// The rule of algorithm §3 step 4, with four conditions that only ever add to abstaining, and one that says which groups can be compared:
/// * *Same treatment.* The anomaly's seeds are its strongest scaled drops (50 transformed queries), a placebo's are its strongest scores, which
///   costs one query instead of 51. So that the other seed rule cannot be what makes the anomaly stand out, the anomaly is also put through the
///   placebos' steps, and both ways must lead to the same group.
/// * *Same group.* z must also exceed what the same group does to each placebo, and the limit that one more placebo would keep with
///   probability 1 − α. Without it, where no placebo flags anything every chance group would stand out; and a natural error that drifts onto
///   poisons with which it has nothing to do would exceed all of 20 placebos once in 21 times. z itself must be positive.
/// * *More than a few.* Near-duplicates, or a few pictures with the same frame, teach the model the same thing by nature: of 1,000 natural errors one or two
///   lead to such a group, and hardly a placebo shows it. A group has at least [`FEWEST_ALIKE`] members.
/// * *As large.* d′ is compared with that of natural groups of at least half the size: the smaller a group, the more alike its members can be.
/// * *More than choice.* Where no placebo has any effect, any small z would exceed them all. z must also exceed [`z_of_choosing`].
///
/// `wanted` is the number of placebos that the settings ask for, `alpha` their α.
pub fn objection(candidate: &Candidate, rivals: &[Rival], wanted: usize, alpha: f64) -> Option<Abstain> {
    let candidates = candidate.group.len() as u64;
    if candidates == 0 {
        return Some(Abstain::NoGroup);
    }
    let (Some(d_prime), Some(z)) = (candidate.d_prime, candidate.z) else {
        return Some(Abstain::NotComparable { candidates });
    };
    let fewest = FEWEST_PLACEBOS.min(wanted.max(1));
    if rivals.len() < fewest {
        return Some(Abstain::TooFewPlacebos {
            candidates,
            found: rivals.len() as u64,
            needed: fewest as u64,
        });
    }
    if !same_group(candidate.like_a_placebo, candidate.group) {
        return Some(Abstain::DependsOnSeeds {
            candidates,
            other: candidate.like_a_placebo.len() as u64,
            common: common(candidate.group, candidate.like_a_placebo) as u64,
        });
    }
    if z <= 0.0 {
        return Some(Abstain::NotSupporting { candidates, z });
    }
    let exceeds = |of: &dyn Fn(&Rival) -> Option<f64>, limit: f64| -> Option<(String, f64)> {
        let strongest = rivals
            .iter()
            .filter_map(|r| of(r).map(|v| (r.name.clone(), v)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        (strongest.1 >= limit).then_some(strongest)
    };
    if let Some((placebo, theirs)) = exceeds(&|r| r.z, z) {
        return Some(Abstain::LikePlaceboGroup {
            candidates,
            z,
            theirs,
            placebo,
        });
    }
    if let Some((placebo, theirs)) = exceeds(&|r| r.z_of_candidate, z) {
        return Some(Abstain::ActsOnPlacebo {
            candidates,
            z,
            theirs,
            placebo,
        });
    }
    let on_placebos: Vec<f64> = rivals.iter().filter_map(|r| r.z_of_candidate).collect();
    if let Some(limit) = prediction_limit(&on_placebos, alpha).filter(|limit| z <= *limit) {
        let placebos = on_placebos.len() as u64;
        return Some(Abstain::WithinPlacebos {
            candidates,
            z,
            limit,
            placebos,
        });
    }
    let floor = z_of_choosing(candidate.group.len(), candidate.all);
    if z <= floor {
        let of = candidate.all as u64;
        return Some(Abstain::WithinChoice { candidates, of, z, floor });
    }
    if candidate.group.len() < FEWEST_ALIKE {
        let needed = FEWEST_ALIKE as u64;
        return Some(Abstain::TooFewAlike { candidates, needed });
    }
    // Two near-duplicates stand apart as far as nothing else does: that says nothing of a group of sixty.
    let comparable = |r: &Rival| r.group.len() as f64 >= SAME_SIZE * candidate.group.len() as f64;
    let another = |r: &Rival| {
        let is_another = overlap(&r.group, candidate.group) < SAME_GROUP;
        r.d_prime.filter(|_| is_another && comparable(r))
    };
    exceeds(&another, d_prime).map(|(placebo, theirs)| Abstain::LikeNaturalGroup {
        candidates,
        d_prime,
        theirs,
        placebo,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rival(group: &[usize], d_prime: f64, z: f64, z_of_candidate: f64) -> Rival {
        Rival {
            name: "v/1.png".into(),
            group: group.to_vec(),
            d_prime: Some(d_prime),
            z: Some(z),
            z_of_candidate: Some(z_of_candidate),
        }
    }

    fn judge(candidate: &Candidate, mut rivals: Vec<Rival>) -> Option<String> {
        // Silent placebos make up the number that is needed.
        let silent = Rival {
            name: "silent".into(),
            group: vec![],
            d_prime: None,
            z: None,
            z_of_candidate: Some(0.1),
        };
        rivals.resize(rivals.len().max(FEWEST_PLACEBOS), silent);
        objection(candidate, &rivals, 20, 0.01).map(|why| why.sentence())
    }

    const GROUP: [usize; 5] = [1, 2, 3, 4, 5];
    const STRONG: Candidate = Candidate {
        group: &GROUP,
        all: 40,
        d_prime: Some(10.0),
        z: Some(5.0),
        like_a_placebo: &GROUP,
    };

    #[test]
    fn a_few_that_are_alike_are_no_group() {
        let of = |group: &'static [usize]| {
            judge(
                &Candidate {
                    group,
                    like_a_placebo: group,
                    ..STRONG
                },
                vec![],
            )
        };
        assert_eq!(of(&GROUP), None);
        let said = of(&GROUP[..4]).unwrap();
        assert!(said.contains("only 4 candidates") && said.contains("at least 5"), "{said}");
    }

    #[test]
    fn apart_is_the_difference_of_means_in_standard_deviations_of_the_others() {
        // Others 0, 2, 4: mean 2, population standard deviation √(8/3); group 10, 12: mean 11.
        let d = apart(&[0.0, 10.0, 2.0, 12.0, 4.0], &[1, 3]).unwrap();
        assert!((d - 9.0 / (8.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(apart(&[1.0, 1.0, 5.0], &[2]), None, "others do not vary");
        assert_eq!(apart(&[1.0, 2.0], &[]), None);
        assert_eq!(apart(&[1.0, 2.0], &[0]), None, "a single other");
        assert_eq!(apart(&[1.0, f64::NAN, 2.0], &[0]), None);
    }

    #[test]
    fn overlap_is_a_share_of_the_first_group() {
        assert_eq!(overlap(&[1, 2, 3, 4], &[3, 4, 5]), 0.5);
        assert_eq!(overlap(&[], &[1]), 0.0);
        assert!(same_group(&[1, 2], &[1, 2, 3]));
        assert!(!same_group(&[1, 2], &[1, 2, 3, 4, 5]));
        assert!(!same_group(&[], &[1]));
    }

    #[test]
    fn a_group_beyond_every_placebo_stands_out() {
        assert_eq!(judge(&STRONG, vec![]), None);
        assert_eq!(judge(&STRONG, vec![rival(&[8, 9], 9.9, 4.9, 1.0)]), None);
    }

    #[test]
    fn z_must_exceed_every_placebos() {
        assert!(
            judge(&STRONG, vec![rival(&[8, 9], 1.0, 5.0, 0.0)])
                .unwrap()
                .contains("z 5.00, placebo v/1.png")
        );
        assert!(
            judge(&STRONG, vec![rival(&GROUP, 1.0, 6.0, 0.0)])
                .unwrap()
                .contains("act on the anomaly no more")
        );
        assert!(
            judge(&STRONG, vec![rival(&[], 1.0, 1.0, 5.5)])
                .unwrap()
                .contains("on a clean picture of that class")
        );
        assert!(judge(&Candidate { z: Some(-0.1), ..STRONG }, vec![]).unwrap().contains("do not support"));
    }

    #[test]
    fn z_must_be_beyond_what_one_more_placebo_may_have() {
        // Mean 1, s = √2.5, n = 5, t₄(0.99) = 3.746947: limit 1 + 3.746947·√(2.5·1.2) = 7.48990.
        let values = [-1.0, 0.0, 1.0, 2.0, 3.0];
        assert!((prediction_limit(&values, 0.01).unwrap() - 7.489_90).abs() < 1e-4);
        assert_eq!(prediction_limit(&[1.0], 0.01), None);
        assert_eq!(prediction_limit(&[], 0.01), None);
        let rivals = || {
            values
                .iter()
                .map(|&z| Rival {
                    group: vec![],
                    d_prime: None,
                    z: None,
                    ..rival(&[], 0.0, 0.0, z)
                })
                .collect()
        };
        assert!(
            judge(&Candidate { z: Some(7.48), ..STRONG }, rivals())
                .unwrap()
                .contains("up to z 7.49, from 5 placebos")
        );
        assert_eq!(judge(&Candidate { z: Some(7.50), ..STRONG }, rivals()), None);
    }

    /// Against the ends of drawn normal values, and where no placebo has any effect.
    #[test]
    fn z_must_be_beyond_what_choosing_brings_about() {
        let normal = Normal::standard();
        let values: Vec<f64> = (0..20_000).map(|i| normal.inverse_cdf((f64::from(i) + 0.5) / 20_000.0)).collect();
        for (group, expected) in [(200, 2.78), (2_000, 2.31), (4_600, 2.30), (10_000, 2.65)] {
            let end: Vec<usize> = (20_000 - group..20_000).collect();
            let (measured, ours) = (apart(&values, &end).unwrap(), z_of_choosing(group, 20_000));
            assert!(
                (measured - ours).abs() < 0.01 && (ours - expected).abs() < 0.01,
                "{group}: {measured} {ours}"
            );
        }
        assert_eq!(z_of_choosing(15_000, 20_000), z_of_choosing(10_000, 20_000));
        assert_eq!(z_of_choosing(0, 0), 0.0);
        // 5 of 40: 2.29.
        assert!(
            judge(&Candidate { z: Some(0.95), ..STRONG }, vec![])
                .unwrap()
                .contains("the strongest 5 of 40")
        );
        assert!(judge(&Candidate { z: Some(2.28), ..STRONG }, vec![]).is_some());
        assert_eq!(judge(&Candidate { z: Some(2.31), ..STRONG }, vec![]), None);
    }

    #[test]
    fn d_prime_must_exceed_that_of_another_group_but_not_of_the_same() {
        assert!(judge(&STRONG, vec![rival(&[5, 6, 7], 10.0, 1.0, 0.0)]).unwrap().contains("d′ 10.00"));
        assert_eq!(
            judge(&STRONG, vec![rival(&[1, 2, 6, 7], 12.0, 1.0, 0.0)]),
            None,
            "half of it is the same group"
        );
        // One of less than half the size is no measure; half is.
        assert_eq!(judge(&STRONG, vec![rival(&[6, 7], 23.0, 1.0, 0.0)]), None);
        assert!(judge(&STRONG, vec![rival(&[6, 7, 8], 23.0, 1.0, 0.0)]).is_some());
        // What holds the candidates among many more is another group: the share is that of its own.
        assert!(judge(&STRONG, vec![rival(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], 12.0, 1.0, 0.0)]).is_some());
    }

    #[test]
    fn nothing_few_placebos_and_another_way_to_seeds_are_undecided() {
        assert!(judge(&Candidate { group: &[], ..STRONG }, vec![]).unwrap().contains("no group"));
        assert!(judge(&Candidate { d_prime: None, ..STRONG }, vec![]).is_some());
        assert!(
            judge(
                &Candidate {
                    like_a_placebo: &[7, 8, 9],
                    ..STRONG
                },
                vec![]
            )
            .unwrap()
            .contains("0 of them")
        );
        assert!(
            judge(
                &Candidate {
                    like_a_placebo: &[],
                    ..STRONG
                },
                vec![]
            )
            .is_some()
        );
        for wanted in [0, 1, 20] {
            assert!(objection(&STRONG, &[], wanted, 0.01).unwrap().sentence().contains("only 0 placebos"));
        }
        assert!(
            objection(&STRONG, &[rival(&[8], 1.0, 1.0, 1.0)], 20, 0.01)
                .unwrap()
                .sentence()
                .contains("5 are needed")
        );
        assert_eq!(objection(&STRONG, &[rival(&[8], 1.0, 1.0, 1.0)], 1, 0.01), None);
    }
}
