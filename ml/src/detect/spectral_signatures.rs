//! `spectral-signatures`: how far an example's activation lies along the direction in which its class varies most, or what the notebooks call so (see the settings for the sources).

use super::exhibits::column;
use super::{Detect, DetectCase, Detection, Suspect, ranked, singular};
use crate::error::Result;
use crate::evidence::Lab;
use crate::progress::Report;
use delta_guard_contract::detect::spectral_signatures::{Keys, SpectralForm};
use delta_guard_contract::finding::{Abstain, Cell, Words};
use tch::{Kind, Tensor};

/// As many times as are expected to be poisoned are flagged (Tran et al., algorithm 1).
const MARGIN: f64 = 1.5;

impl Detect for Keys {
    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        case.check()?;
        let features = ranked::features(lab, self.layer.as_deref(), case)?;
        let found = match self.form {
            SpectralForm::Published => published(self, &features, case, report)?,
            SpectralForm::Notebook => notebook(self, &features, case)?,
        };
        report.log(&format!("{} training examples flagged", found.flagged.len()));
        Ok(told(self, case, found))
    }
}

/// What was measured.
#[derive(Debug, Default)]
struct Found {
    flagged: Vec<Suspect>,
    /// Of every example that was looked at.
    all: Vec<Suspect>,
}

/// Class by class: τ_i = ((x_i − mean) · v)² with v the first right singular vector of the centred class. The ⌊1.5·ε·n⌋ largest are flagged. The score is τ_i in units
/// of the class's mean, so that classes can be compared.
fn published(keys: &Keys, features: &Tensor, case: &DetectCase, report: &mut dyn Report) -> Result<Found> {
    let mut found = Found::default();
    for class in (0..case.classes).filter(|&class| keys.classes.holds(class, case.wrong_label)) {
        let own: Vec<usize> = (0..case.labels.len()).filter(|&i| case.labels[i] as usize == class).collect();
        report.progress("signatures", class as u64 + 1, case.classes as u64, "");
        if own.len() < 2 {
            continue;
        }
        let tau = signatures(&rows_of(features, &own)?)?;
        let mean = tau.iter().sum::<f64>() / tau.len() as f64;
        if mean <= 0.0 {
            continue; // equal activations have no direction
        }
        let all: Vec<Suspect> = own.iter().zip(tau).map(|(&position, t)| Suspect { position, score: t / mean }).collect();
        // Products of decimal shares may fall short of a whole number by rounding.
        let count = (MARGIN * keys.epsilon * own.len() as f64 + 1e-9) as usize;
        found.flagged.extend(ranked::strongest_first(all.clone()).into_iter().take(count));
        found.all.extend(all);
    }
    Ok(found)
}

/// Squared projection of each row, without the rows' mean, on the direction in which they vary most.
fn signatures(rows: &Tensor) -> Result<Vec<f64>> {
    let laid = singular::laid(&singular::centred(rows)?, 1)?;
    Ok(Vec::try_from(&laid.rows.f_square()?.f_contiguous()?.f_view([-1])?)?)
}

/// All classes together, uncentred: the length of what an activation has along the right singular vectors with large singular values.
fn notebook(keys: &Keys, features: &Tensor, case: &DetectCase) -> Result<Found> {
    let laid = singular::laid(features, i64::MAX)?;
    let large = laid.squares.f_gt(keys.spectral_threshold.powi(2))?.f_to_kind(Kind::Double)?;
    let lengths = laid
        .rows
        .f_mul(&large)?
        .f_square()?
        .f_sum_dim_intlist(&[1i64][..], false, None::<Kind>)?
        .f_sqrt()?;
    let lengths = Vec::<f64>::try_from(&lengths)?;
    let looked_at = |i: &usize| keys.classes.holds(case.labels[*i] as usize, case.wrong_label);
    let all: Vec<Suspect> = (0..lengths.len())
        .filter(looked_at)
        .map(|position| Suspect {
            position,
            score: lengths[position],
        })
        .collect();
    let flagged = all.iter().filter(|s| s.score > keys.contribution_threshold).cloned().collect();
    Ok(Found { flagged, all })
}

fn rows_of(features: &Tensor, positions: &[usize]) -> Result<Tensor> {
    let places: Vec<i64> = positions.iter().map(|&i| i as i64).collect();
    Ok(features.f_index_select(0, &Tensor::f_from_slice(&places)?)?)
}

fn told(keys: &Keys, case: &DetectCase, found: Found) -> Detection {
    let flagged = ranked::strongest_first(found.flagged);
    let of_label: Vec<Suspect> = found
        .all
        .iter()
        .filter(|s| case.labels[s.position] as usize == case.wrong_label)
        .cloned()
        .collect();
    let (called, score, meaning, flagged_did, sure) = match keys.form {
        SpectralForm::Published => (
            "spectral signatures",
            "signature",
            "how far an example’s activation lies along the direction in which its class varies most, squared, in units of the class’s mean",
            "lie farthest along the direction in which the activations of their class vary most",
            "A fixed share of each class is flagged, whether anything was done to the class or not.",
        ),
        SpectralForm::Notebook => (
            "the notebooks’ spectral signatures",
            "contribution",
            "the length of what an example’s activation has along the large singular values of all activations",
            "have long activations",
            "A length beyond a fixed limit is flagged, whether anything was done to the class or not.",
        ),
    };
    let mut exhibits = Vec::new();
    exhibits.extend(ranked::of_class(
        &of_label,
        &flagged,
        "Spectral signatures",
        "What the method looks at.",
        meaning,
    ));
    exhibits.extend(ranked::table(
        vec![column(score, score, meaning, 3)],
        flagged.iter().map(|f| vec![Cell::Number(f.score)]).collect(),
    ));
    Detection {
        verdict: ranked::verdict(&flagged, || match keys.form {
            SpectralForm::Published => Abstain::other(
                "no-signature",
                "no class is large enough for the share that is flagged, or its activations are all equal",
            ),
            SpectralForm::Notebook => Abstain::other("no-signature", format!("no contribution is above {}", keys.contribution_threshold)),
        }),
        flagged,
        words: Words {
            called: called.into(),
            score: score.into(),
            score_meaning: meaning.into(),
            score_decimals: 2,
            flagged: flagged_did.into(),
            caution: "It flags clean examples in every case: take the list as a place to look, not as one to remove.".into(),
        },
        sure: ranked::unmeasured(sure),
        exhibits,
        notes: Vec::new(),
        support: Vec::new(),
        details: serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests;
