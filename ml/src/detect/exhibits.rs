//! What the Δ detectors found, as exhibits: every title, caption and figure that a reader of the report sees of them.

use super::histogram::Bins;
use super::stand_out::StandOut;
use super::{DetectCase, Detection, Suspect};
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::{Combine, Delta};
use delta_guard_contract::finding::{Beside, Cell, Column, Exhibit, Histogram, HowSure, Note, Row, Series, Strip, Sure, Table, Words};

/// A flagged example with all that was measured of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Position in the training set.
    pub position: usize,
    /// Number of shifts Δ < τ; with several anomalies their smallest number (intersected) or their sum (pooled).
    pub count: u32,
    /// Mean over all queries of Δ / √(g_iᵀ P g_i).
    pub mean_scaled_delta: f64,
    /// κ of the last round (`guard`; with several anomalies the mean of theirs), else 0.
    pub kappa: f64,
    /// 1 = strongest evidence: largest κ (`guard`) or largest count, then most negative mean scaled Δ.
    pub rank: u32,
    /// One of the seeds of the last round (`guard`).
    pub seed: bool,
}

/// The count rule over all training examples.
#[derive(Clone, Debug, PartialEq)]
pub struct Plain {
    /// Flagged positions, strongest count first.
    pub flagged: Vec<usize>,
    /// τ used.
    pub tau: f64,
    /// n_tol used.
    pub n_tol: u32,
}

/// What a Δ detector found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What to do with it.
    pub verdict: TraceVerdict,
    /// What a reader of the verdict must know besides, in whole sentences.
    pub notes: Vec<String>,
    /// The flagged, strongest first. Empty when undecided.
    pub flagged: Vec<Measured>,
    /// What the steps before the verdict found: `flagged`, or the group that did not stand out. For research, never for removal.
    pub candidates: Vec<Measured>,
    /// `guard`: how the group stands out. None where it came to no group to be judged (too few examples).
    pub stand_out: Option<StandOut>,
    /// The plain rule, where it was asked for (and always in the paper's modes, whose result it is).
    pub plain: Option<Plain>,
    /// C: positions of the training examples with label ŷ, ascending.
    pub members: Vec<usize>,
    /// Mean scaled Δ of each of C; empty where nothing was scored.
    pub members_mean_scaled_delta: Vec<f64>,
    /// Mean scaled Δ of the flagged and of the others of C: the paper's Figure 2.
    pub histogram: Bins,
    /// `guard`, undecided: s(q_0, i) / √self_i of each of C (with several anomalies their mean).
    pub support: Vec<Suspect>,
}

/// From this multiple of the strongest placebo's z on a finding is called clear.
const CLEAR: f64 = 2.0;
/// Below this one it is called close.
const CLOSE: f64 = 1.25;

/// What the guard says of its finding.
pub(super) fn of_guard(finding: Finding, keys: &Delta, case: &DetectCase) -> Detection {
    let words = Words {
        called: "the guard".into(),
        score: "κ".into(),
        score_meaning: "how much an example’s effect on the model is like that of the seeds".into(),
        score_decimals: 2,
        flagged: "taught the model the same thing, and their influence on this picture falls when it is changed".into(),
        caution: String::new(),
    };
    let mut exhibits = vec![histogram(&finding.histogram)];
    exhibits.extend(finding.stand_out.as_ref().and_then(strip));
    let columns = [count(keys, case), mean_scaled_delta(), kappa(), seed()];
    let row = |f: &Measured| {
        vec![
            Cell::Whole(f.count.into()),
            Cell::Number(f.mean_scaled_delta),
            Cell::Number(f.kappa),
            Cell::Yes(f.seed),
        ]
    };
    exhibits.extend(table(&finding.flagged, columns.into(), row));
    exhibits.extend(finding.plain.as_ref().map(beside));
    exhibits.extend(finding.stand_out.as_ref().map(cut));
    let sure = Some(sure(finding.verdict == TraceVerdict::Flagged, finding.stand_out.as_ref()));
    told(finding, words, sure, exhibits, |f| f.kappa)
}

/// What the paper's rule says of its finding.
pub(super) fn of_count_rule(finding: Finding, keys: &Delta, case: &DetectCase) -> Detection {
    let words = Words {
        called: "the paper’s count rule".into(),
        score: "count".into(),
        score_meaning: "in how many of the changes of picture and label an example’s influence falls".into(),
        score_decimals: 0,
        flagged: "lost influence when the picture and its label were changed".into(),
        caution: "The rule flags clean examples, too, and never abstains: take the list as a place to look, not as one to remove.".into(),
    };
    let mut exhibits = vec![histogram(&finding.histogram)];
    let row = |f: &Measured| vec![Cell::Whole(f.count.into()), Cell::Number(f.mean_scaled_delta)];
    exhibits.extend(table(&finding.flagged, vec![count(keys, case), mean_scaled_delta()], row));
    exhibits.extend(finding.plain.as_ref().map(beside));
    let sure = Sure {
        how: HowSure::NotMeasured,
        sentence: "The paper’s count rule has no placebos and never abstains. Expect clean examples among the flagged.".into(),
    };
    told(finding, words, Some(sure), exhibits, |f| f.count.into())
}

fn told(finding: Finding, words: Words, sure: Option<Sure>, exhibits: Vec<Exhibit<usize>>, score: impl Fn(&Measured) -> f64) -> Detection {
    let suspect = |f: &Measured| Suspect {
        position: f.position,
        score: score(f),
    };
    Detection {
        flagged: finding.flagged.iter().map(suspect).collect(),
        verdict: finding.verdict,
        words,
        sure,
        exhibits,
        notes: finding.notes,
        support: finding.support,
        details: serde_json::json!({ "stand_out": finding.stand_out }),
    }
}

fn histogram(bins: &Bins) -> Exhibit<usize> {
    let series = |name: &str, counts: &[u64]| Series {
        name: name.into(),
        counts: counts.into(),
    };
    Exhibit::Histogram(Histogram {
        title: "Change of influence".into(),
        caption: "If an example taught the model this error, its influence must fall when picture and label are changed. Each group is drawn as shares of itself, \
                  all with the wrong label."
            .into(),
        axis: "mean change of influence Δ, scaled by the example’s own influence".into(),
        edges: bins.edges.clone(),
        series: vec![series("flagged", &bins.flagged), series("others", &bins.others)],
    })
}

/// d′ and z of the case beside those of its placebos. None without placebos, or where no group was found: there is nothing to show.
fn strip(stand_out: &StandOut) -> Option<Exhibit<usize>> {
    let all = stand_out.placebos.len();
    if all == 0 || stand_out.d_prime.is_none() && stand_out.z.is_none() {
        return None;
    }
    let row = |name: &str, meaning: &str, own: Option<f64>, others: Vec<f64>| Row {
        name: name.into(),
        meaning: meaning.into(),
        own,
        remark: match all - others.len() {
            0 => String::new(),
            silent => format!("{silent} of {all} placebos flagged nothing"),
        },
        others,
    };
    let of = |value: &dyn Fn(&super::stand_out::Placebo) -> Option<f64>| stand_out.placebos.iter().filter_map(value).collect::<Vec<f64>>();
    Some(Exhibit::Strip(Strip {
        title: format!("Against {all} placebos"),
        caption: "The same steps were run on clean, correctly read pictures of the same class.".into(),
        pass: "A real cause must beat them all; where it does not, the guard abstains.".into(),
        others: "placebos".into(),
        rows: vec![
            row(
                "d′",
                "how far the group stands apart from its class",
                stand_out.d_prime,
                of(&|p| p.d_prime),
            ),
            row("z", "how strongly it acts on this very picture", stand_out.z, of(&|p| p.z)),
        ],
    }))
}

pub(super) fn column(key: &str, name: &str, meaning: impl Into<String>, decimals: u8) -> Column {
    Column {
        key: key.into(),
        name: name.into(),
        meaning: meaning.into(),
        decimals,
    }
}

fn count(keys: &Delta, case: &DetectCase) -> Column {
    let anomalies = match keys.combine {
        Combine::Intersect => 1,
        Combine::Pool => case.anomalies.len(),
    };
    let changes = keys.queries as usize * anomalies;
    column(
        "count",
        "fell in",
        format!("how many of {changes} changes of picture and label lower its influence"),
        0,
    )
}

fn mean_scaled_delta() -> Column {
    column("mean_scaled_delta", "Δ", "mean change of its influence, scaled by its own influence", 3)
}

fn kappa() -> Column {
    column("kappa", "κ", "how much its effect on the model is like that of the seeds", 3)
}

fn seed() -> Column {
    column("seed", "seed", "was it one of the seeds of the last round", 0)
}

fn table(flagged: &[Measured], columns: Vec<Column>, row: impl Fn(&Measured) -> Vec<Cell>) -> Option<Exhibit<usize>> {
    (!flagged.is_empty()).then(|| {
        Exhibit::Table(Table {
            title: "Every figure".into(),
            caption: "What was measured of each flagged example, the strongest first.".into(),
            columns,
            rows: flagged.iter().map(row).collect(),
        })
    })
}

fn beside(plain: &Plain) -> Exhibit<usize> {
    Exhibit::Beside(Beside {
        title: "published count rule, beside it".into(),
        caption: format!("τ = {}, n_tol = {}", plain.tau, plain.n_tol),
        flagged: plain.flagged.clone(),
    })
}

fn cut(stand_out: &StandOut) -> Exhibit<usize> {
    let by = match stand_out.null_pictures {
        0 => "by the spread of the class".to_owned(),
        n => format!("by {n} clean validation pictures of the class"),
    };
    Exhibit::Note(Note {
        title: "kin cut".into(),
        caption: match stand_out.end {
            Some(end) => format!(
                "κ > {:.4} {by}, {} rounds: {} examples; the group is all with κ ≥ {end:.4}",
                stand_out.cut, stand_out.rounds, stand_out.founders
            ),
            None => format!("κ > {:.4} {by}, {} rounds", stand_out.cut, stand_out.rounds),
        },
    })
}

/// How sure the guard is: by the strongest placebo.
fn sure(flagged: bool, stand_out: Option<&StandOut>) -> Sure {
    let (how, sentence) = match stand_out.and_then(against_placebos) {
        Some((how, sentence)) if flagged => (how, sentence),
        Some((_, sentence)) => (HowSure::NotEnough, sentence),
        None if flagged => (HowSure::NotMeasured, "There was no placebo to compare with.".into()),
        None => (HowSure::NotEnough, "No group of examples was found that could be compared.".into()),
    };
    Sure { how, sentence }
}

/// The group's effect on this picture beside the strongest placebo's. None where either is missing.
fn against_placebos(stand_out: &StandOut) -> Option<(HowSure, String)> {
    let z = stand_out.z.filter(|z| z.is_finite())?;
    let all = stand_out.placebos.len();
    if all == 0 {
        return None;
    }
    let found: Vec<f64> = stand_out.placebos.iter().filter_map(|p| p.z).filter(|z| z.is_finite()).collect();
    let strongest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let own = format!("The group acts on this picture {z:.1} standard deviations more than the rest of its class does (z).");
    let pictures = format!("The same steps were run on {all} clean pictures of the class");
    if strongest <= 0.0 {
        let nothing = if found.is_empty() {
            "none of them led to a group"
        } else {
            "no group acted on its picture"
        };
        return Some((HowSure::Clear, format!("{own} {pictures}: {nothing}.")));
    }
    let times = z / strongest;
    let how = if times >= CLEAR {
        HowSure::Clear
    } else if times >= CLOSE {
        HowSure::FairlyClear
    } else {
        HowSure::Close
    };
    let beside = if times >= 1.0 {
        format!("this case is {times:.1} times that")
    } else {
        "this case does not reach it".into()
    };
    Some((
        how,
        format!("{own} {pictures}: the strongest of them reached {strongest:.1}, and {beside}."),
    ))
}

#[cfg(test)]
mod tests;
