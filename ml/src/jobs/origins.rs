//! Which sources the flagged examples come from, and how surprising that is.
//!
//! The question is put within labels, since sources often differ in what they show: if as many examples of each label as were flagged had been drawn at random
//! among all with that label, how likely would a source have as many of them, or more? With one label that is the upper tail of the hypergeometric
//! distribution; with several, of a sum of such. p-values are corrected for the number of sources by Holm's method (Holm 1979).

use crate::data::DataSet;
use delta_guard_contract::finding::{SourceRow, Sources};
use statrs::function::factorial::ln_binomial;
use std::collections::BTreeMap;

/// Below this, chance is out of the question.
const FAR_BEYOND: f64 = 1e-6;
/// Below this, chance is improbable.
const WELL_BEYOND: f64 = 1e-3;
/// Below this, chance is hardly enough.
const BEYOND: f64 = 0.05;

/// Of one label: examples, flagged ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Drawn {
    examples: u64,
    flagged: u64,
}

/// Of one source: by label, what it has.
type ByLabel = BTreeMap<u32, Drawn>;

/// The table; None where the set has fewer than two sources, or nothing was flagged.
pub(super) fn sources(train: &DataSet, flagged: &[usize]) -> Option<Sources> {
    if !train.has_sources() || flagged.is_empty() {
        return None;
    }
    let labels = train.labels();
    let mut all: ByLabel = BTreeMap::new();
    for &position in flagged {
        all.entry(*labels.get(position)?).or_default().flagged += 1;
    }
    let mut of_source: BTreeMap<&str, ByLabel> = BTreeMap::new();
    for (position, label) in labels.iter().enumerate() {
        if let Some(drawn) = all.get_mut(label) {
            drawn.examples += 1;
            let own = of_source.entry(train.source(position).unwrap_or_default()).or_default();
            own.entry(*label).or_default().examples += 1;
        }
    }
    for &position in flagged {
        let own = of_source.get_mut(train.source(position).unwrap_or_default())?;
        own.get_mut(&labels[position])?.flagged += 1;
    }
    (of_source.len() > 1).then(|| table(&all, &of_source))
}

fn table(all: &ByLabel, of_source: &BTreeMap<&str, ByLabel>) -> Sources {
    let mut rows: Vec<SourceRow> = of_source.iter().map(|(name, own)| row(name, own, all)).collect();
    rows.sort_by(|a, b| a.p.total_cmp(&b.p).then(b.flagged.cmp(&a.flagged)).then(a.source.cmp(&b.source)));
    correct(&mut rows);
    let further = rows.split_off(rows.len().min(Sources::MOST));
    let flagged: u64 = all.values().map(|drawn| drawn.flagged).sum();
    Sources {
        title: "Where the flagged examples come from".into(),
        caption: caption(&rows, of_source.len(), flagged),
        further: further.len() as u64,
        further_flagged: further.iter().map(|row| row.flagged).sum(),
        rows,
    }
}

fn row(name: &str, own: &ByLabel, all: &ByLabel) -> SourceRow {
    let flagged: u64 = own.values().map(|drawn| drawn.flagged).sum();
    let expected = own
        .iter()
        .filter_map(|(label, drawn)| all.get(label).map(|of| of.flagged as f64 * drawn.examples as f64 / of.examples as f64))
        .sum();
    SourceRow {
        source: name.to_owned(),
        flagged,
        examples: own.values().map(|drawn| drawn.examples).sum(),
        expected,
        p: tail(own, all, flagged),
        corrected: 1.0,
    }
}

/// Probability that the source has `flagged` or more of the drawn examples.
fn tail(own: &ByLabel, all: &ByLabel, flagged: u64) -> f64 {
    if flagged == 0 {
        return 1.0;
    }
    // Logarithms throughout: probabilities that are too small for a number must not vanish before they are added.
    let mut sum = (0, vec![0.0]);
    for (label, drawn) in own {
        if let Some(of) = all.get(label) {
            sum = added(&sum, &hypergeometric(*of, drawn.examples));
        }
    }
    let (lowest, logs) = sum;
    let upper = (flagged as usize).saturating_sub(lowest).min(logs.len());
    ln_sum(&logs[upper..]).exp().min(1.0)
}

/// Distribution of the sum of two independent counts: the lowest count, and logarithms of the probabilities from there on.
fn added(one: &(usize, Vec<f64>), other: &(usize, Vec<f64>)) -> (usize, Vec<f64>) {
    let (short, long) = if one.1.len() < other.1.len() { (one, other) } else { (other, one) };
    let last = short.1.len() + long.1.len() - 2;
    let at = |k: usize| {
        let from = k.saturating_sub(long.1.len() - 1);
        let terms: Vec<f64> = (from..short.1.len().min(k + 1)).map(|i| short.1[i] + long.1[k - i]).collect();
        ln_sum(&terms)
    };
    (short.0 + long.0, (0..=last).map(at).collect())
}

/// ln Σ exp.
fn ln_sum(logs: &[f64]) -> f64 {
    let top = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + logs.iter().map(|log| (log - top).exp()).sum::<f64>().ln()
}

/// Logarithms of the probabilities that of `of.flagged` examples drawn among `of.examples`, `own` of which are the source's, the source has k: from the lowest
/// possible k on.
fn hypergeometric(of: Drawn, own: u64) -> (usize, Vec<f64>) {
    let lowest = (of.flagged + own).saturating_sub(of.examples);
    let log = |k: u64| ln_binomial(own, k) + ln_binomial(of.examples - own, of.flagged - k) - ln_binomial(of.examples, of.flagged);
    (lowest as usize, (lowest..=of.flagged.min(own)).map(log).collect())
}

/// Holm's correction. `rows` are sorted by p.
fn correct(rows: &mut [SourceRow]) {
    let (count, mut most) = (rows.len(), 0.0);
    for (place, row) in rows.iter_mut().enumerate() {
        most = f64::max(most, ((count - place) as f64 * row.p).min(1.0));
        row.corrected = most;
    }
}

/// What one sees, in plain words.
fn caption(rows: &[SourceRow], sources: usize, flagged: u64) -> String {
    let beyond: Vec<&SourceRow> = rows.iter().filter(|row| row.corrected < BEYOND).collect();
    let Some(first) = beyond.first() else {
        return format!("No source stands out: each of the {sources} has about as many as a random draw with the same labels would bring.");
    };
    let beyond_chance = if first.corrected < FAR_BEYOND {
        "That is far beyond what chance brings about"
    } else if first.corrected < WELL_BEYOND {
        "That is well beyond what chance brings about"
    } else {
        "That is more than chance brings about, but not by much"
    };
    let others = match &beyond[1..] {
        [] => String::new(),
        [one] => format!(" {} stands out, too.", called(one)),
        more => format!(" {} more of the {sources} sources stand out, too.", more.len()),
    };
    format!(
        "{} of {flagged} come from {}, where {:.1} would be expected ({}, corrected for {sources} sources). {beyond_chance}: look at this source first.{others}",
        first.flagged,
        called(first),
        first.expected,
        probability(first.corrected)
    )
}

fn probability(p: f64) -> String {
    if p < 1e-300 {
        "p below 1e-300".into()
    } else if p < WELL_BEYOND {
        format!("p = {p:.0e}")
    } else {
        format!("p = {p:.3}")
    }
}

fn called(row: &SourceRow) -> String {
    match row.source.as_str() {
        "" => "examples whose source is not said".into(),
        name => format!("“{name}”"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
