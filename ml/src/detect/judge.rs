//! Steps 1–4 of the guard over the examples of C that have a gradient: seeds, kin, what is collected, and whether it stands out.

use super::DetectCase;
use super::cut::Rates;
use super::exhibits::Measured;
use super::kin::{self, Growth};
use super::pass::{Pass, mean};
use super::stand_out::{Candidate, Placebo, Rival, StandOut, another_group, apart, common, objection, overlap};
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::progress::Report;
use delta_guard_contract::detect::guard::Keys;
use delta_guard_contract::detect::{Combine, Delta};
use delta_guard_contract::finding::Abstain;

/// About a group that did not stand.
fn unsettled(growth: &Growth) -> Option<String> {
    let gone = growth.seeds.len() + growth.flagged.len() - 2 * common(&growth.seeds, &growth.flagged);
    (!growth.stood).then(|| {
        format!(
            "The group did not settle: after {} rounds of kin {gone} examples still came or went (at most detect.rounds are taken).",
            growth.rounds
        )
    })
}

/// The examples of C that have a gradient, and the pass's rows over them.
pub(super) struct Field {
    pub positions: Vec<usize>,
    pub pass: Pass,
}

/// One group to be judged: grown from the largest drops, and, to hold it against, from the largest scores as a placebo's is.
struct Trial {
    from_drops: Growth,
    from_scores: Growth,
    /// s(q_0, i) / √self_i of each anomaly that the group is to explain.
    strengths: Vec<Vec<f64>>,
}

impl Trial {
    fn d_prime(&self) -> Option<f64> {
        apart(&self.from_drops.kappa, &self.from_drops.collected)
    }

    fn z(&self) -> Option<f64> {
        let each: Option<Vec<f64>> = self.strengths.iter().map(|s| apart(s, &self.from_drops.collected)).collect();
        each.map(|each| each.iter().sum::<f64>() / each.len() as f64)
    }
}

/// What the steps came to.
pub(super) struct Judged {
    /// None: the group stands out.
    pub objection: Option<Abstain>,
    pub notes: Vec<String>,
    pub candidates: Vec<Measured>,
    pub stand_out: StandOut,
}

/// A placebo's s / √self_i, and what grows from the largest of them.
struct PlaceboTrial {
    strength: Vec<f64>,
    growth: Growth,
}

/// Steps 1–4. All anomalies and placebos grow in the same passes.
///
/// # Errors
/// Scores that are no numbers or no cosines; a cut above every cosine.
pub(super) fn judge(keys: &Keys, evidence: &mut dyn Evidence, case: &DetectCase, field: &Field, report: &mut dyn Report) -> Result<Judged> {
    let (trials, placebos) = grow_all(keys, evidence, field)?;
    let judgements: Vec<(Option<Abstain>, Vec<Rival>)> = trials.iter().map(|trial| one(keys, case, field, trial, &placebos)).collect();
    log(keys, &trials, placebos.len(), report);
    trials.iter().try_for_each(|trial| reachable(&trial.from_drops))?;
    let candidates = candidates(&keys.delta, field, &trials);
    let mut objection = (1..).zip(&judgements).find_map(|(anomaly, (objection, _))| {
        let why = objection.clone()?;
        Some(match judgements.len() {
            1 => why,
            _ => Abstain::OfAnomaly { anomaly, why: Box::new(why) },
        })
    });
    if objection.is_none() && candidates.is_empty() {
        objection = Some(Abstain::NothingInCommon);
    }
    // The report shows one group: the first that was objected to, else the one that acts least.
    let weakest = (0..trials.len())
        .min_by(|&a, &b| {
            let key = |i: usize| (judgements[i].0.is_none(), trials[i].z().unwrap_or(f64::NEG_INFINITY));
            key(a)
                .0
                .cmp(&key(b).0)
                .then(if key(a).0 { key(a).1.total_cmp(&key(b).1) } else { a.cmp(&b) })
        })
        .unwrap_or(0);
    Ok(Judged {
        objection,
        notes: (trials.iter().map(|trial| &trial.from_drops))
            .flat_map(|growth| [unsettled(growth), out_of_reach(growth)])
            .flatten()
            .collect(),
        candidates,
        stand_out: stand_out(case, &trials[weakest], &judgements[weakest].1),
    })
}

/// Steps 1–3.
fn grow_all(keys: &Keys, evidence: &mut dyn Evidence, field: &Field) -> Result<(Vec<Trial>, Vec<PlaceboTrial>)> {
    let pass = &field.pass;
    let drops: Vec<Vec<f64>> = (0..pass.anomalies.len())
        .map(|a| pass.mean_scaled_delta_of(a).iter().map(|v| -v).collect())
        .collect();
    let strengths: Vec<Vec<f64>> = pass.anomalies.iter().map(|a| pass.scaled(&a.original)).collect();
    let placebo_strengths: Vec<Vec<f64>> = pass.placebos.iter().map(|row| pass.scaled(row)).collect();
    // Which anomalies each group is to explain.
    let trials: Vec<(Vec<f64>, Vec<Vec<f64>>)> = match keys.delta.combine {
        Combine::Intersect => drops.into_iter().zip(strengths).map(|(drop, strength)| (drop, vec![strength])).collect(),
        Combine::Pool => vec![(mean(&drops), strengths)],
    };
    let count = kin::seed_count(keys.seeds, field.positions.len());
    let first = |strength: &[f64]| kin::seeds(strength, count);
    let starts = trials
        .iter()
        .flat_map(|(drop, strengths)| [first(drop), first(&mean(strengths))])
        .chain(placebo_strengths.iter().map(|s| first(s)));
    let starts: Vec<Vec<usize>> = starts.collect();
    let rates = Rates {
        alpha: keys.alpha,
        chance: keys.chance,
        collect: keys.collect,
    };
    let mut grown = kin::grow(evidence, &field.positions, &pass.root, starts, rates, keys.rounds)?.into_iter();
    let trials = trials
        .into_iter()
        .filter_map(|(_, strengths)| {
            Some(Trial {
                from_drops: grown.next()?,
                from_scores: grown.next()?,
                strengths,
            })
        })
        .collect();
    let placebos = grown.zip(placebo_strengths).map(|(growth, strength)| PlaceboTrial { strength, growth });
    Ok((trials, placebos.collect()))
}

/// Step 4 of one group: why it does not stand out, if it does not, and what it was held against.
fn one(keys: &Keys, case: &DetectCase, field: &Field, trial: &Trial, placebos: &[PlaceboTrial]) -> (Option<Abstain>, Vec<Rival>) {
    let group = &trial.from_drops.collected;
    let rivals: Vec<Rival> = (placebos.iter().zip(case.placebos))
        .map(|(PlaceboTrial { strength, growth }, placebo)| Rival {
            name: placebo.id.to_string(),
            group: growth.collected.clone(),
            d_prime: apart(&growth.kappa, &growth.collected),
            z: apart(strength, &growth.collected),
            z_of_candidate: apart(strength, group),
        })
        .collect();
    let candidate = Candidate {
        group,
        all: field.positions.len(),
        d_prime: trial.d_prime(),
        z: trial.z(),
        like_a_placebo: &trial.from_scores.collected,
    };
    let objection = if group.is_empty() {
        Some(why_nothing(&trial.from_drops))
    } else if !trial.from_drops.stood && another_group(&trial.from_drops.flagged, &trial.from_drops.seeds) {
        Some(Abstain::NotStanding {
            candidates: group.len() as u64,
        })
    } else {
        objection(&candidate, &rivals, keys.placebos as usize, keys.alpha)
    };
    (objection, rivals)
}

fn log(keys: &Keys, trials: &[Trial], placebos: usize, report: &mut dyn Report) {
    if placebos < keys.placebos as usize {
        report.log(&format!("{placebos} of the {} placebos asked for were found", keys.placebos));
    }
    for (number, trial) in trials.iter().enumerate() {
        let (drops, scores) = (&trial.from_drops, &trial.from_scores);
        let standing = if drops.stood { "the set stands" } else { "the set did not stand yet" };
        let (n, m, rounds) = (drops.flagged.len(), scores.flagged.len(), drops.rounds);
        let whole = drops.collected.len();
        report.log(&format!(
            "group {}: {n} kin of the strongest drops after {rounds} rounds ({standing}), {whole} in the whole group; {m} kin of the strongest scores",
            number + 1
        ));
    }
}

fn stand_out(case: &DetectCase, shown: &Trial, rivals: &[Rival]) -> StandOut {
    let placebos = rivals.iter().zip(case.placebos).map(|(rival, placebo)| Placebo {
        id: placebo.id.clone(),
        flagged: rival.group.len() as u32,
        d_prime: rival.d_prime,
        z: rival.z,
        overlap: overlap(&rival.group, &shown.from_drops.collected),
    });
    StandOut {
        d_prime: shown.d_prime(),
        z: shown.z(),
        // Where κ does not vary there is no cut; 1, the largest cosine, flags nothing either and can be written as JSON.
        cut: Some(shown.from_drops.cut.value()).filter(|cut| cut.is_finite()).unwrap_or(1.0),
        null_pictures: shown.from_drops.cut.null_pictures() as u32,
        founders: shown.from_drops.flagged.len() as u32,
        end: shown.from_drops.end,
        rounds: shown.from_drops.rounds,
        placebos: placebos.collect(),
    }
}

/// Is the cut above every cosine? Then nothing could have been found, whatever there is.
fn beyond(growth: &Growth) -> bool {
    let cut = growth.cut.value();
    cut.is_finite() && cut > 1.0 + kin::ROUNDING
}

/// Error: by the spread of the class itself. It is that wide only where cosines are lost to rounding.
fn reachable(growth: &Growth) -> Result<()> {
    if growth.cut.null_pictures() == 0 && beyond(growth) {
        let cut = growth.cut.value();
        return Err(Error::numeric(
            format!("the cut of the kinship κ is {cut:.3}, and no cosine lies above 1: nothing could be found, whatever there is"),
            "set detect.precision to f64; if it is f64, set detect.chance or detect.alpha higher, or give the class more validation pictures",
        ));
    }
    Ok(())
}

/// By the tail of the null: clean pictures may differ that much, and the case is undecided.
fn out_of_reach(growth: &Growth) -> Option<String> {
    let cut = growth.cut.value();
    (growth.cut.null_pictures() > 0 && beyond(growth)).then(|| {
        format!(
            "The cut of κ is {cut:.2}, and no cosine lies above 1: clean validation pictures of the class differ so much that no group could have been found. More of them (detect.null_pictures), \
             a larger detect.chance, or detect.precision f64 where it is f32, lower the cut."
        )
    })
}

/// Why no group was found.
fn why_nothing(growth: &Growth) -> Abstain {
    let cut = growth.cut.value();
    if cut.is_infinite() {
        return Abstain::AllAlike;
    }
    let largest = growth.kappa.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    Abstain::NothingAboveCut { largest, cut }
}

/// What every trial's group holds, with its evidence, strongest κ first.
fn candidates(delta: &Delta, field: &Field, trials: &[Trial]) -> Vec<Measured> {
    let combined = field.pass.counted(delta);
    let mean_scaled = field.pass.mean_scaled_delta();
    let kappa = mean(&trials.iter().map(|t| t.from_drops.kappa.clone()).collect::<Vec<_>>());
    let held = |groups: &dyn Fn(&Trial) -> &Vec<usize>, i: &usize| trials.iter().map(|t| groups(t).binary_search(i).is_ok()).collect::<Vec<_>>();
    let mut places: Vec<usize> = (0..field.positions.len())
        .filter(|i| held(&|t| &t.from_drops.collected, i).iter().all(|&yes| yes))
        .collect();
    places.sort_by(|&a, &b| kappa[b].total_cmp(&kappa[a]).then(a.cmp(&b)));
    let flag = |(rank, i): (u32, usize)| Measured {
        position: field.positions[i],
        count: combined.counts[i],
        mean_scaled_delta: mean_scaled[i],
        kappa: kappa[i],
        rank,
        seed: held(&|t| &t.from_drops.seeds, &i).contains(&true),
    };
    (1..).zip(places).map(flag).collect()
}
