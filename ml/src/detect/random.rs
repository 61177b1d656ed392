//! `random`: examples of the wrong label, drawn under the case's seed. A placebo for tables.

use super::exhibits::column;
use super::{Detect, DetectCase, Detection, Suspect, ranked};
use crate::error::Result;
use crate::evidence::Lab;
use crate::progress::Report;
use delta_guard_contract::detect::random::Keys;
use delta_guard_contract::finding::{Abstain, Cell, Words};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// A stream that nothing else of a case draws from: queries take the low ones, clean pictures the last.
const STREAM: u64 = u64::MAX - 1;

impl Detect for Keys {
    fn detect(&self, _: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        case.check()?;
        let mut drawn = case.members();
        let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
        rng.set_stream(STREAM);
        drawn.shuffle(&mut rng);
        let drawn: Vec<usize> = drawn.into_iter().take(self.count as usize).collect();
        report.log(&format!("{} training examples drawn", drawn.len()));
        Ok(told(&drawn))
    }
}

fn told(drawn: &[usize]) -> Detection {
    let all = drawn.len();
    let flagged: Vec<Suspect> = (0..all)
        .map(|i| Suspect {
            position: drawn[i],
            score: (all - i) as f64,
        })
        .collect();
    let meaning = "as the how many-th it was drawn";
    let rows = (1..=all as i64).map(|i| vec![Cell::Whole(i)]).collect();
    Detection {
        verdict: ranked::verdict(&flagged, || Abstain::other("none-to-draw", "no training example has the wrong label")),
        flagged,
        words: Words {
            called: "the lot".into(),
            score: "turns left".into(),
            score_meaning: "how many were still to be drawn, which means nothing".into(),
            score_decimals: 0,
            flagged: "were drawn at random".into(),
            caution: "It is a placebo: nothing was looked at.".into(),
        },
        sure: ranked::unmeasured("The examples were drawn at random."),
        exhibits: ranked::table(vec![column("drawn", "drawn", meaning, 0)], rows).into_iter().collect(),
        notes: Vec::new(),
        support: Vec::new(),
        details: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
