//! `gradient-cosine`: the guard's steps over gradients without curvature. The laboratory hands out such scores where the settings need `gradients` in the place of factors; nothing
//! else differs.

use super::guard::Guard;
use super::{Detect, DetectCase, Detection, exhibits};
use crate::error::Result;
use crate::evidence::{Lab, Opening};
use crate::progress::Report;
use delta_guard_contract::detect::gradient_cosine::Keys;

impl Detect for Keys {
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        self.as_guard().opening(case)
    }

    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        let guard = self.as_guard();
        let finding = Guard(&guard).find(lab, case, report)?;
        let mut told = exhibits::of_guard(finding, &guard.delta, case);
        told.words.called = "the guard without curvature".into();
        told.words.score_meaning = "how much an example’s gradient points where those of the seeds do".into();
        told.words.caution = "It is there to be compared with the guard: gradients without curvature miss what is found with it.".into();
        Ok(told)
    }
}
