//! `ekfac-threshold`: s(q, i) above a fixed limit, for one point or several (see the settings).

use super::exhibits::column;
use super::{Detect, DetectCase, Detection, Suspect, pass, queries, ranked};
use crate::error::{Error, Result, ResultExt};
use crate::evidence::{Answer, Lab, Opening, Question};
use crate::progress::Report;
use delta_guard_contract::detect::Classes;
use delta_guard_contract::detect::ekfac_threshold::{Keys, SeveralPoints};
use delta_guard_contract::finding::{Abstain, Cell, Words};

impl Detect for Keys {
    fn opening(&self, case: &DetectCase) -> Result<Option<Opening>> {
        case.check()?;
        let examples = match self.classes {
            Classes::All => (0..case.labels.len()).collect(),
            Classes::Predicted => case.members(),
        };
        let mut questions = Vec::new();
        for (number, picture) in (0..).zip(case.anomalies) {
            let set = queries::draw(picture, case.wrong_label, case.classes, &self.as_delta(), case.seed, case.image, number)
                .context(|| format!("anomaly {}", number + 1))?;
            if let Question::Family { baseline, shifted } = set.question {
                questions.extend(std::iter::once(baseline).chain(shifted).map(Question::Alone));
            }
        }
        let opening = Opening {
            questions,
            examples,
            self_influence: false,
        };
        Ok(Some(opening).filter(|opening| !opening.examples.is_empty()))
    }

    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        let mut scored = Vec::new();
        if let Some(opening) = self.opening(case)? {
            let examples = &opening.examples;
            let scores = lab.influence()?.scores("score", &opening.questions, examples, false)?;
            let rows: Vec<&[f64]> = scores.answers.iter().flat_map(Answer::rows).collect();
            if rows.len() != opening.questions.len() || rows.iter().any(|row| row.len() != examples.len()) {
                return Err(Error::internal("scores of a threshold came back in another shape"));
            }
            for (j, row) in rows.iter().enumerate() {
                pass::finite(row, examples, || format!("the score of point {}", j + 1))?;
            }
            let one = |(i, &position): (usize, &usize)| Scored::of(position, rows.iter().map(|row| row[i]), self.threshold);
            scored = examples.iter().enumerate().map(one).collect();
        }
        let found = told(self, case, &scored);
        report.log(&format!("{} of {} training examples flagged", found.flagged.len(), scored.len()));
        Ok(found)
    }
}

/// Scores of one example.
#[derive(Clone, Copy, Debug)]
struct Scored {
    position: usize,
    mean: f64,
    points: u32,
    above: u32,
}

impl Scored {
    fn of(position: usize, scores: impl Iterator<Item = f64>, threshold: f64) -> Self {
        let (mut sum, mut points, mut above) = (0.0, 0, 0);
        for score in scores {
            sum += score;
            points += 1;
            above += u32::from(score > threshold);
        }
        Self {
            position,
            mean: sum / f64::from(points.max(1)),
            points,
            above,
        }
    }

    fn flagged(&self, keys: &Keys) -> bool {
        match keys.points {
            SeveralPoints::Mean => self.mean > keys.threshold,
            SeveralPoints::Each => self.above >= self.points.saturating_sub(keys.tolerated).max(1),
        }
    }
}

/// The order of magnitude, with the sign: scores under a small damping have very long tails.
fn magnitude(score: f64) -> f64 {
    score.signum() * score.abs().ln_1p() / std::f64::consts::LN_10
}

fn told(keys: &Keys, case: &DetectCase, scored: &[Scored]) -> Detection {
    let suspect = |s: &Scored| Suspect {
        position: s.position,
        score: s.mean,
    };
    let flagged = ranked::strongest_first(scored.iter().filter(|s| s.flagged(keys)).map(suspect).collect());
    let drawn: Vec<Suspect> = scored
        .iter()
        .filter(|s| case.labels[s.position] as usize == case.wrong_label)
        .map(|s| Suspect {
            position: s.position,
            score: magnitude(s.mean),
        })
        .collect();
    let meaning = "how much an example supports the wrong prediction";
    let mut exhibits = Vec::new();
    let caption = "What examples do to the wrong prediction: positive supports it.";
    exhibits.extend(ranked::of_class(
        &drawn,
        &flagged,
        "Influence",
        caption,
        "influence s, as its sign times log₁₀(1 + |s|)",
    ));
    let points = scored.first().map_or(0, |s| s.points);
    let columns = vec![
        column("influence", "s", format!("{meaning}, on the mean of {points} points"), 3),
        column("above", "above", format!("in how many of {points} points it is above the limit"), 0),
    ];
    // Ascending positions, as they were asked.
    let above = |f: &Suspect| scored.binary_search_by_key(&f.position, |s| s.position).map_or(0, |i| scored[i].above);
    let rows = flagged
        .iter()
        .map(|f| vec![Cell::Number(f.score), Cell::Whole(above(f).into())])
        .collect();
    exhibits.extend(ranked::table(columns, rows));
    Detection {
        verdict: ranked::verdict(&flagged, || {
            Abstain::other("none-above-limit", format!("no example’s influence is above {}", keys.threshold))
        }),
        flagged,
        words: Words {
            called: "the threshold of influence".into(),
            score: "s".into(),
            score_meaning: meaning.into(),
            score_decimals: 2,
            flagged: "support the wrong prediction by more than the limit".into(),
            caution:
                "The limit fits no model in particular, and many clean examples lie above it: take the list as a place to look, not as one to remove."
                    .into(),
        },
        sure: ranked::unmeasured("A fixed limit has no placebos and never abstains. Expect clean examples among the flagged."),
        exhibits,
        notes: Vec::new(),
        support: Vec::new(),
        details: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
