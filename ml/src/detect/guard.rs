//! `guard`, the default: Δ-Influence finds the seeds, kin finds the rest, and the group must stand out (algorithm §3).
//!
//! *Decide strictly, collect generously.* Kin founds a group at the strict cut; what the generous one adds belongs to it, and the whole group is what is judged, the anomaly's and the placebos' alike.
//!
//! *Several anomalies.* `Intersect`: each has its own seeds and group, each group must stand out, and what all of them hold is flagged. `Pool`:
//! the seeds are the largest mean drops over all anomalies, there is one group, and its z is the mean of the anomalies' own z. (Not the z of
//! their mean score: averaging would shrink the noise that z is measured in, and a placebo, a single picture, could not keep up.)

use super::cut::{FEWEST_NULL, Rates};
use super::exhibits::{Finding, Measured, Plain};
use super::histogram::histogram;
use super::joint::{Joint, View, Whitening};
use super::kin::{self, Growth};
use super::pass::{self, Pass, mean};
use super::stand_out::{Candidate, Placebo, Rival, StandOut, another_group, apart, common, objection, overlap};
use super::{Detect, DetectCase, Detection, exhibits, paper, queries};
use crate::error::{Error, Result, ResultExt};
use crate::evidence::{Evidence, Lab, Opening};
use crate::progress::Report;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::guard::Keys;
use delta_guard_contract::detect::{Combine, Delta, Precision};
use delta_guard_contract::finding::Abstain;
use tch::Tensor;

impl Detect for Keys {
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        case.check()?;
        let members = case.members();
        // One pass either way: over everything where the plain rule is asked for too, whose rows of C then serve here.
        if self.plain {
            return pass::opening(&self.delta, case, (0..case.labels.len()).collect(), true).map(Some);
        }
        let needed = kin::EXAMPLES_PER_SEED * kin::fewest_seeds(self.seeds);
        (members.len() >= needed)
            .then(|| pass::opening(&self.delta, case, members, true))
            .transpose()
    }

    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        Guard(self)
            .find(lab, case, report)
            .map(|finding| exhibits::of_guard(finding, &self.delta, case))
    }
}

/// It, with every figure that it finds.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a>(pub &'a Keys);

impl Guard<'_> {
    /// What it finds, with every figure. Errors: as [`Detect::detect`].
    pub fn find(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Finding> {
        case.check()?;
        let members = case.members();
        let fewest = kin::fewest_seeds(self.0.seeds);
        let needed = kin::EXAMPLES_PER_SEED * fewest;
        let too_few = |found: usize| Abstain::TooFewExamples {
            found: found as u64,
            needed: needed as u64,
            per_seed: kin::EXAMPLES_PER_SEED as u64,
            seeds: fewest as u64,
        };
        let mut plain = None;
        let Some(opening) = self.0.opening(case)? else {
            return Ok(undecided(too_few(members.len()), Vec::new(), members, Vec::new(), None));
        };
        let (view, mut notes) = self.view(lab, case, &members)?;
        let evidence = lab.influence()?;
        let mut own = pass::score(evidence, case, &opening)?;
        if self.0.plain {
            plain = Some(paper::plain(&paper::flagged(&own, &self.0.delta, &opening.examples), &self.0.delta));
            own = own.restrict(&members);
        }
        let usable: Vec<usize> = (0..members.len()).filter(|&i| own.root[i] > 0.0).collect();
        notes.extend(silent(members.len() - usable.len(), members.len(), self.0.delta.precision));
        let all_scaled = own.mean_scaled_delta();
        if usable.len() < needed {
            return Ok(undecided(too_few(usable.len()), notes, members, all_scaled, plain));
        }
        let field = Field {
            positions: usable.iter().map(|&i| members[i]).collect(),
            pass: own.restrict(&usable),
        };
        let view = view.map(|view| view.restrict(&usable)).transpose()?;
        let mut joint = Joint {
            evidence,
            view,
            positions: &field.positions,
            root: &field.pass.root,
        };
        let mut judged = judge(self.0, &mut joint, case, &field, report)?;
        // What is faint in both views together may be clear among gradients alone; and a network that makes the same of all its training examples shows nothing by features.
        let no_group = matches!(judged.objection, Some(Abstain::NothingAboveCut { .. } | Abstain::NotComparable { .. }));
        if joint.view.is_some() && no_group {
            report.log("no group in both views together: gradients alone are asked");
            joint.view = None;
            judged = judge(self.0, &mut joint, case, &field, report)?;
        }
        let objection = judged.objection;
        notes.extend(judged.notes);
        let flagged = if objection.is_none() { judged.candidates.clone() } else { Vec::new() };
        report.log(&match &objection {
            None => format!("{} training examples flagged", flagged.len()),
            Some(why) => format!("undecided: {}", why.sentence()),
        });
        notes.iter().for_each(|note| report.log(note));
        let mut is_flagged = vec![false; case.labels.len()];
        flagged.iter().for_each(|f| is_flagged[f.position] = true);
        let of = |yes: bool| {
            (0..members.len())
                .filter(|&i| is_flagged[members[i]] == yes)
                .map(|i| all_scaled[i])
                .collect::<Vec<f64>>()
        };
        Ok(Finding {
            verdict: objection.map_or(TraceVerdict::Flagged, |why| TraceVerdict::Undecided { why }),
            notes,
            histogram: histogram(&of(true), &of(false)),
            flagged,
            candidates: judged.candidates,
            stand_out: Some(judged.stand_out),
            plain,
            members,
            members_mean_scaled_delta: all_scaled,
        })
    }
}

impl Guard<'_> {
    /// Features of the examples of C, and what a reader must know where there are none. They count only where null pictures set the cut: seen from pictures that are poisons in
    /// part, they would show the poisons as ordinary.
    fn view(&self, lab: &mut dyn Lab, case: &DetectCase, members: &[usize]) -> Result<(Option<View>, Vec<String>)> {
        let keys = self.0;
        let layer = keys.feature_layer.as_deref();
        if keys.feature_weight <= 0.0 {
            return Ok((None, Vec::new()));
        }
        let without = |why: String| Ok((None, vec![format!("Features were not compared, only gradients: {why}.")]));
        let null = match lab.null_features(layer)? {
            Some(null) if null.size()[0] as usize >= FEWEST_NULL => null,
            few => {
                let there = few.map_or(0, |null| null.size()[0]);
                return without(format!(
                    "besides the placebos there are {there} clean validation pictures of that class, and {FEWEST_NULL} are needed"
                ));
            }
        };
        let images = case.placebos.iter().map(|placebo| {
            let query = queries::single(&placebo.picture, case.wrong_label, case.image).context(|| format!("placebo {}", placebo.id))?;
            Ok(query.image)
        });
        let images = images.collect::<Result<Vec<Tensor>>>()?;
        let clean = match images.is_empty() {
            true => null.shallow_clone(),
            false => Tensor::f_cat(&[&null, &lab.features_of(layer, &images)?], 0)?,
        };
        let Some(whitening) = Whitening::of(&clean, keys.feature_damping)? else {
            return without("those of clean pictures of that class do not vary".into());
        };
        let examples = lab.features_at(layer, members)?;
        Ok((Some(View::new(keys.feature_weight, &whitening, &examples, &null)?), Vec::new()))
    }
}

/// Undecided before there was a group.
fn undecided(why: Abstain, notes: Vec<String>, members: Vec<usize>, scaled: Vec<f64>, plain: Option<Plain>) -> Finding {
    Finding {
        verdict: TraceVerdict::Undecided { why },
        notes,
        flagged: Vec::new(),
        candidates: Vec::new(),
        stand_out: None,
        plain,
        histogram: histogram(&[], &scaled),
        members,
        members_mean_scaled_delta: scaled,
    }
}

/// About examples without gradient: nothing can be said of them, and they are no random ones.
fn silent(count: usize, all: usize, precision: Precision) -> Option<String> {
    let what_to_do = match precision {
        Precision::F32 => "Set detect.precision to f64 to compare them too.",
        Precision::F64 => "No number can be fine enough for them: look at them by hand.",
    };
    (count > 0).then(|| {
        format!(
            "{count} of the {all} training examples with the wrong label have no gradient and were not compared. They are those that the model is surest of, \
             and poisons are often among these. {what_to_do}"
        )
    })
}

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
struct Field {
    positions: Vec<usize>,
    pass: Pass,
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
struct Judged {
    objection: Option<Abstain>,
    notes: Vec<String>,
    candidates: Vec<Measured>,
    stand_out: StandOut,
}

/// Steps 1–4. All anomalies and placebos grow in the same passes.
fn judge(keys: &Keys, evidence: &mut dyn Evidence, case: &DetectCase, field: &Field, report: &mut dyn Report) -> Result<Judged> {
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
    let trials: Vec<Trial> = trials
        .into_iter()
        .filter_map(|(_, strengths)| {
            Some(Trial {
                from_drops: grown.next()?,
                from_scores: grown.next()?,
                strengths,
            })
        })
        .collect();
    let placebo_growths: Vec<Growth> = grown.collect();
    trials.iter().try_for_each(|trial| reachable(&trial.from_drops))?;

    let judgements: Vec<(Option<Abstain>, Vec<Rival>)> = trials
        .iter()
        .map(|trial| {
            let group = &trial.from_drops.collected;
            let rivals: Vec<Rival> = (placebo_growths.iter().zip(&placebo_strengths).zip(case.placebos))
                .map(|((growth, strength), placebo)| Rival {
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
        })
        .collect();
    if placebo_growths.len() < keys.placebos as usize {
        report.log(&format!(
            "{} of the {} placebos asked for were found",
            placebo_growths.len(),
            keys.placebos
        ));
    }
    for (number, trial) in trials.iter().enumerate() {
        let (drops, scores) = (&trial.from_drops, &trial.from_scores);
        let standing = if drops.stood { "the set stands" } else { "the set did not stand yet" };
        let (n, m, rounds) = (drops.flagged.len(), scores.flagged.len(), drops.rounds);
        let joined = drops.collected.len() - n;
        report.log(&format!(
            "group {}: {n} kin of the strongest drops after {rounds} rounds ({standing}), {joined} more collected; {m} kin of the strongest scores",
            number + 1
        ));
    }
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
    let shown = &trials[weakest];
    let rivals = &judgements[weakest].1;
    let placebos = rivals.iter().zip(case.placebos).map(|(rival, placebo)| Placebo {
        id: placebo.id.clone(),
        flagged: rival.group.len() as u32,
        d_prime: rival.d_prime,
        z: rival.z,
        overlap: overlap(&rival.group, &shown.from_drops.collected),
    });
    let stand_out = StandOut {
        d_prime: shown.d_prime(),
        z: shown.z(),
        // Where κ does not vary there is no cut; 1, the largest cosine, flags nothing either and can be written as JSON.
        cut: Some(shown.from_drops.cut.value()).filter(|cut| cut.is_finite()).unwrap_or(1.0),
        null_pictures: shown.from_drops.cut.null_pictures() as u32,
        collected: (shown.from_drops.collected.len() - shown.from_drops.flagged.len()) as u32,
        generous_cut: shown.from_drops.generous,
        rounds: shown.from_drops.rounds,
        placebos: placebos.collect(),
    };
    Ok(Judged {
        objection,
        notes: trials.iter().filter_map(|trial| unsettled(&trial.from_drops)).collect(),
        candidates,
        stand_out,
    })
}

/// Error: a cut above every cosine. Nothing could have been found, whatever there is.
fn reachable(growth: &Growth) -> Result<()> {
    let cut = growth.cut.value();
    if cut.is_finite() && cut > 1.0 + kin::ROUNDING {
        return Err(Error::numeric(
            format!("the cut of the kinship κ is {cut:.3}, and no cosine lies above 1: nothing could be found, whatever there is"),
            "set detect.precision to f64; if it is f64, set detect.chance or detect.alpha higher, or give the class more validation pictures",
        ));
    }
    Ok(())
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
