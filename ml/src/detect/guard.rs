//! `guard`, the default: Δ-Influence finds the seeds, kin finds the rest, and the group must stand out (algorithm §3).
//!
//! *Decide strictly, collect generously.* Kin founds a group at the strict cut; what the generous one adds belongs to it, and the whole group is what is judged, the anomaly's and the placebos' alike.
//!
//! *Several anomalies.* `Intersect`: each has its own seeds and group, each group must stand out, and what all of them hold is flagged. `Pool`:
//! the seeds are the largest mean drops over all anomalies, there is one group, and its z is the mean of the anomalies' own z. (Not the z of
//! their mean score: averaging would shrink the noise that z is measured in, and a placebo, a single picture, could not keep up.)

use super::cut::FEWEST_NULL;
use super::exhibits::{Finding, Plain};
use super::histogram::histogram;
use super::joint::{ClassView, Joint};
use super::judge::{Field, Judged, judge};
use super::whitening::Whitening;
use super::{Detect, DetectCase, Detection, Suspect, exhibits, kin, paper, pass, queries};
use crate::error::{Result, ResultExt};
use crate::evidence::{Lab, Opening};
use crate::progress::Report;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::Precision;
use delta_guard_contract::detect::guard::Keys;
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
        let strengths: Vec<Vec<f64>> = own.anomalies.iter().map(|a| own.scaled(&a.original)).collect();
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
        let judged = self.judged(&mut joint, case, &field, report)?;
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
        let support = match objection {
            None => Vec::new(),
            Some(_) => (members.iter().zip(pass::mean(&strengths)))
                .map(|(&position, score)| Suspect { position, score })
                .collect(),
        };
        Ok(Finding {
            support,
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
    /// By both views together and, where they show no group, by gradients alone: what is faint in both may be clear in one, and a network that makes the same of all its
    /// training examples shows nothing by features.
    fn judged(&self, joint: &mut Joint<'_>, case: &DetectCase, field: &Field, report: &mut dyn Report) -> Result<Judged> {
        let judged = judge(self.0, joint, case, field, report)?;
        if joint.view.is_none() || !judged.objection.as_ref().is_some_and(no_group) {
            return Ok(judged);
        }
        report.log("no group in both views together: gradients alone are asked");
        joint.view = None;
        judge(self.0, joint, case, field, report)
    }

    /// Features of the examples of C, and what a reader must know where there are none. They count only where null pictures set the cut: seen from pictures that are poisons in
    /// part, they would show the poisons as ordinary.
    pub(super) fn view(&self, lab: &mut dyn Lab, case: &DetectCase, members: &[usize]) -> Result<(Option<ClassView>, Vec<String>)> {
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
        Ok((Some(ClassView::new(keys.feature_weight, &whitening, &examples, &null)?), Vec::new()))
    }
}

/// Was there nothing to be judged, or nothing else than the group?
fn no_group(why: &Abstain) -> bool {
    match why {
        Abstain::NothingAboveCut { .. } | Abstain::NotComparable { .. } => true,
        Abstain::OfAnomaly { why, .. } => no_group(why),
        _ => false,
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
        support: Vec::new(),
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
