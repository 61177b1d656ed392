//! `feature-neighbours`: cosines between the submitted picture's activation and those of the wrong label's examples, all seen from the middle of that class.

use super::exhibits::column;
use super::{Detect, DetectCase, Detection, Suspect, queries, ranked};
use crate::error::{Result, ResultExt};
use crate::evidence::Lab;
use crate::progress::Report;
use delta_guard_contract::detect::feature_neighbours::{Keys, Nearest};
use delta_guard_contract::finding::{Abstain, Cell, Words};
use tch::{Kind, Tensor};

impl Detect for Keys {
    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        case.check()?;
        let members = case.members();
        let images = (1..).zip(case.anomalies).map(|(number, picture)| {
            let query = queries::single(picture, case.wrong_label, case.image).context(|| format!("anomaly {number}"))?;
            Ok(query.image)
        });
        let images = images.collect::<Result<Vec<Tensor>>>()?;
        let mut near = Vec::new();
        if !members.is_empty() {
            let layer = self.layer.as_deref();
            let pictures = lab.features_of(layer, &images)?;
            let features = ranked::features(lab, layer, case)?;
            let places: Vec<i64> = members.iter().map(|&i| i as i64).collect();
            let own = features.f_index_select(0, &Tensor::f_from_slice(&places)?)?;
            let cosines = cosines(&own, &pictures)?;
            near = members
                .iter()
                .zip(cosines)
                .map(|(&position, score)| Suspect { position, score })
                .collect();
        }
        let near = ranked::strongest_first(near);
        let flagged = near[..cut(self, &near)].to_vec();
        report.log(&format!(
            "{} of {} training examples with the wrong label flagged",
            flagged.len(),
            near.len()
        ));
        Ok(told(flagged, &near))
    }
}

/// Of each row the cosine to the pictures, all without the rows' mean: the mean over several pictures; 0 where a length is 0.
fn cosines(rows: &Tensor, pictures: &Tensor) -> Result<Vec<f64>> {
    let middle = rows.f_mean_dim(&[0i64][..], true, None::<Kind>)?;
    let unit = |x: &Tensor| -> Result<Tensor> {
        let seen = x.f_sub(&middle)?;
        let length = seen.f_square()?.f_sum_dim_intlist(&[1i64][..], true, None::<Kind>)?.f_sqrt()?;
        Ok(seen.f_div(&length.f_clamp_min(f64::MIN_POSITIVE)?)?)
    };
    let each = unit(rows)?.f_matmul(&unit(pictures)?.f_tr()?)?;
    Ok(Vec::try_from(&each.f_mean_dim(&[1i64][..], false, None::<Kind>)?)?)
}

/// How many of the nearest are flagged; `near` is sorted, the nearest first. At a gap: those before the largest one, which lies among `max_share` of the class; of equal ones the
/// first. Nothing where there is no gap.
fn cut(keys: &Keys, near: &[Suspect]) -> usize {
    match keys.nearest {
        Nearest::Count => near.len().min(keys.neighbours as usize),
        Nearest::Gap => {
            let last = (keys.max_share * near.len() as f64 + 1e-9) as usize;
            let gap = |i: usize| near[i - 1].score - near[i].score;
            let gaps = (1..=last.min(near.len().saturating_sub(1))).filter(|&i| gap(i) > 0.0);
            gaps.reduce(|best, i| if gap(i) > gap(best) { i } else { best }).unwrap_or(0)
        }
    }
}

fn told(flagged: Vec<Suspect>, near: &[Suspect]) -> Detection {
    let meaning = "cosine of an example’s activation and the submitted picture’s, both seen from the middle of their class";
    let mut exhibits = Vec::new();
    let caption = "How near the examples lie to the submitted picture in what the last layer sees.";
    exhibits.extend(ranked::of_class(near, &flagged, "Nearness", caption, "cosine"));
    let rows = flagged.iter().map(|f| vec![Cell::Number(f.score)]).collect();
    exhibits.extend(ranked::table(vec![column("cosine", "cosine", meaning, 4)], rows));
    Detection {
        verdict: ranked::verdict(&flagged, || {
            Abstain::other("no-neighbours", "no example with the wrong label lies nearer than the others")
        }),
        flagged,
        words: Words {
            called: "the nearest neighbours".into(),
            score: "cosine".into(),
            score_meaning: meaning.into(),
            score_decimals: 3,
            flagged: "look most like the submitted picture to the last layer".into(),
            caution: "Some examples are always nearest: take the list as a place to look, not as one to remove.".into(),
        },
        sure: ranked::unmeasured("Some examples are always the nearest: nothing says here that they caused anything."),
        exhibits,
        notes: Vec::new(),
        support: Vec::new(),
        details: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
