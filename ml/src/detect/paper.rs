//! `paper-code` and `paper-text`: the published count rule over all training examples, whatever their label. The two differ in their settings
//! (objective, space, labels, transforms, tolerance) only.

use super::exhibits::{self, Finding, Measured, Plain};
use super::histogram::histogram;
use super::{Detect, DetectCase, Detection, pass};
use crate::error::Result;
use crate::evidence::{Lab, Opening};
use crate::progress::Report;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::{Delta, paper_code, paper_text};
use delta_guard_contract::finding::Abstain;

/// The count rule.
#[derive(Clone, Copy, Debug)]
pub struct CountRule<'a>(pub &'a Delta);

/// The rule's flagged examples over a pass of all of `examples` (positions), strongest count first, then the most negative mean scaled Δ.
pub(super) fn flagged(pass: &pass::Pass, keys: &Delta, examples: &[usize]) -> Vec<Measured> {
    let combined = pass.counted(keys);
    let mean_scaled = pass.mean_scaled_delta();
    let mut places: Vec<usize> = (0..examples.len()).filter(|&i| combined.flagged[i]).collect();
    places.sort_by(|&a, &b| {
        combined.counts[b]
            .cmp(&combined.counts[a])
            .then(mean_scaled[a].total_cmp(&mean_scaled[b]))
            .then(a.cmp(&b))
    });
    let flag = |(rank, i): (u32, usize)| Measured {
        position: examples[i],
        count: combined.counts[i],
        mean_scaled_delta: mean_scaled[i],
        kappa: 0.0,
        rank,
        seed: false,
    };
    (1..).zip(places).map(flag).collect()
}

/// What the report tells of the rule.
pub(super) fn plain(flagged: &[Measured], keys: &Delta) -> Plain {
    Plain {
        flagged: flagged.iter().map(|f| f.position).collect(),
        tau: keys.tau,
        n_tol: keys.n_tol,
    }
}

impl Detect for paper_code::Keys {
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        CountRule(&self.delta).opening(case).map(Some)
    }

    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        CountRule(&self.delta)
            .find(lab, case, report)
            .map(|finding| exhibits::of_count_rule(finding, &self.delta, case))
    }
}

impl Detect for paper_text::Keys {
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        CountRule(&self.delta).opening(case).map(Some)
    }

    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        CountRule(&self.delta)
            .find(lab, case, report)
            .map(|finding| exhibits::of_count_rule(finding, &self.delta, case))
    }
}

impl CountRule<'_> {
    fn opening(&self, case: &DetectCase) -> Result<Opening> {
        pass::opening(self.0, case, (0..case.labels.len()).collect(), false)
    }

    /// What it finds, with every figure. Errors: as [`Detect::detect`].
    pub fn find(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Finding> {
        case.check()?;
        let examples: Vec<usize> = (0..case.labels.len()).collect();
        let pass = pass::score(lab.influence()?, case, &self.opening(case)?)?;
        let flagged = flagged(&pass, self.0, &examples);
        report.log(&format!(
            "the count rule flagged {} of {} training examples",
            flagged.len(),
            examples.len()
        ));
        let verdict = if flagged.is_empty() {
            let (of, tolerated) = (u64::from(self.0.queries), u64::from(self.0.n_tol));
            TraceVerdict::Undecided {
                why: Abstain::TooFewShifts {
                    least: of - tolerated,
                    of,
                    tau: self.0.tau,
                },
            }
        } else {
            TraceVerdict::Flagged
        };
        let members = case.members();
        let mean_scaled = pass.mean_scaled_delta();
        let mut is_flagged = vec![false; examples.len()];
        flagged.iter().for_each(|f| is_flagged[f.position] = true);
        let others: Vec<f64> = members.iter().filter(|&&i| !is_flagged[i]).map(|&i| mean_scaled[i]).collect();
        Ok(Finding {
            verdict,
            notes: Vec::new(),
            histogram: histogram(&flagged.iter().map(|f| f.mean_scaled_delta).collect::<Vec<_>>(), &others),
            plain: Some(plain(&flagged, self.0)),
            candidates: flagged.clone(),
            flagged,
            stand_out: None,
            support: Vec::new(),
            members_mean_scaled_delta: members.iter().map(|&i| mean_scaled[i]).collect(),
            members,
        })
    }
}
