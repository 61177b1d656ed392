//! Could a fall of accuracy be chance? Both models read the same pictures, so only those count that one of them reads rightly and the other wrongly: were
//! both equally good, each of these would be a toss of a coin (McNemar 1947, exact and one-sided). Where many classes are looked at, one of them falls by chance
//! sooner or later; their probabilities are corrected for that (Holm 1979).

use statrs::distribution::{Binomial, DiscreteCDF};

/// The probability that chance alone loses `lost` or more of `lost + won` pictures, where each is as likely lost as won. 1 where nothing was lost.
pub fn mcnemar(lost: u64, won: u64) -> f64 {
    match (lost, Binomial::new(0.5, lost.saturating_add(won))) {
        (0, _) | (_, Err(_)) => 1.0,
        (lost, Ok(tosses)) => tosses.sf(lost - 1).clamp(0.0, 1.0),
    }
}

/// Holm's correction: each probability as it counts where all of them were looked at, in the same order. Whoever takes those at or below α as no chance is wrong
/// about any of them with at most the probability α, however they hang together.
pub(super) fn holm(probabilities: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|a, b| probabilities[*a].total_cmp(&probabilities[*b]));
    let mut corrected = vec![1.0; probabilities.len()];
    let mut so_far: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        so_far = so_far.max((probabilities.len() - rank) as f64 * probabilities[at]).min(1.0);
        corrected[at] = so_far;
    }
    corrected
}

/// The smallest number of pictures of which every fall above `limit` (a share) can be told from chance at `alpha`, where `looked_at` sets are looked at and the
/// candidate wins no picture back. None where no fall is above the limit, where every one counts, and where the limit is 0: one picture can never be told from chance.
pub fn needed(limit: f64, alpha: f64, looked_at: usize) -> Option<u64> {
    if !(limit > 0.0 && limit < 1.0 && alpha > 0.0 && alpha < 1.0) {
        return None;
    }
    // So many pictures must be lost at least: ½ to their power, counted over all sets, is α or less.
    let tosses = (looked_at.max(1) as f64 / alpha).log2().ceil().max(1.0);
    // With one less the limit must not be passed yet.
    Some(((tosses - 1.0) / limit - super::EPSILON).ceil().max(1.0) as u64)
}

/// How rare that is, in words and as a number: `in 4 of 1,000 measurements (p = 0.0042 over 10 classes)`.
pub fn how_often(p: f64, looked_at: usize) -> String {
    let words = match p {
        p if p < 0.001 => "in fewer than 1 of 1,000 measurements".into(),
        p if p < 0.0995 => format!("in {:.0} of 1,000 measurements", 1000.0 * p),
        p => format!("in {:.0} of 100 measurements", 100.0 * p),
    };
    let number = match p {
        p if p < 1e-4 => "p < 0.0001".into(),
        p if p < 0.01 => format!("p = {p:.4}"),
        p => format!("p = {p:.2}"),
    };
    match looked_at {
        1 => format!("{words} ({number})"),
        n => format!("{words} ({number} over {n} classes)"),
    }
}
