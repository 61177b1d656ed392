//! `activation-clustering`: the activations of a class, reduced by PCA and split by 2-means; a small part that stands apart is flagged
//! (see the settings for the source and for what is left out).

use super::{Detect, DetectCase, Detection, Suspect, ranked, singular};
use crate::error::Result;
use crate::evidence::Lab;
use crate::progress::Report;
use delta_guard_contract::TraceVerdict;
use delta_guard_contract::detect::Classes;
use delta_guard_contract::detect::activation_clustering::{Keys, SplitRule};
use delta_guard_contract::finding::{Abstain, Cell, Column, Exhibit, HowSure, Point, Points, Row, Scatter, Strip, Sure, Table, Words};
use rand::distr::{Distribution, weighted::WeightedIndex};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::Tensor;

/// Rounds of 2-means at most; it settles long before.
const ROUNDS: usize = 300;

impl Detect for Keys {
    fn detect(&self, lab: &mut dyn Lab, case: &DetectCase, report: &mut dyn Report) -> Result<Detection> {
        case.check()?;
        let features = ranked::features(lab, self.layer.as_deref(), case)?;
        let classes = match self.classes {
            Classes::All => (0..case.classes).collect(),
            Classes::Predicted => vec![case.wrong_label],
        };
        let mut splits = Vec::new();
        for (done, &class) in (1..).zip(&classes) {
            splits.extend(split(self, &features, case, class)?);
            report.progress("cluster", done, classes.len() as u64, "");
        }
        let found = told(self, case, &splits);
        report.log(&format!(
            "{} training examples flagged, of {} classes that were split",
            found.flagged.len(),
            splits.len()
        ));
        Ok(found)
    }
}

/// A class in two parts.
#[derive(Clone, Debug, PartialEq)]
struct Split {
    class: usize,
    /// Its examples: position, reduced activation, and what is measured of it.
    members: Vec<Member>,
    /// Share of the smaller part.
    share: f64,
    /// Mean silhouette.
    silhouette: f64,
    /// Distance between the parts' centres.
    distance: f64,
    flagged: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Member {
    position: usize,
    reduced: Vec<f64>,
    smaller: bool,
    silhouette: f64,
}

/// A class's split; None where it has less than two different activations. The examples are taken in the order of their activations: the order of the training set has no say.
fn split(keys: &Keys, features: &Tensor, case: &DetectCase, class: usize) -> Result<Option<Split>> {
    let positions: Vec<i64> = (0..)
        .zip(case.labels)
        .filter(|(_, label)| **label as usize == class)
        .map(|(i, _)| i)
        .collect();
    if positions.len() < 2 {
        return Ok(None);
    }
    let own = features.f_index_select(0, &Tensor::f_from_slice(&positions)?)?;
    let mut rows: Vec<(i64, Vec<f64>)> = positions.into_iter().zip(rows(&own)?).collect();
    rows.sort_by(|(_, a), (_, b)| order(a, b));
    let points = reduced(&rows, keys.dimensions as usize)?;
    let mut rng = ChaCha8Rng::seed_from_u64(case.seed);
    rng.set_stream(class as u64);
    let Some(means) = two_means(&points, keys.starts as usize, &mut rng) else {
        return Ok(None);
    };
    let second = means.second.iter().filter(|second| **second).count();
    let smaller_is = 2 * second < points.len();
    let silhouettes = silhouettes(&points, &means.second);
    let silhouette = silhouettes.iter().sum::<f64>() / points.len() as f64;
    let share = second.min(points.len() - second) as f64 / points.len() as f64;
    let apart = keys.decision == SplitRule::Size || silhouette > keys.min_silhouette;
    let member = |((((position, _), reduced), second), silhouette): (((_, Vec<f64>), bool), f64)| Member {
        position: position as usize,
        reduced,
        smaller: second == smaller_is,
        silhouette,
    };
    let members = rows.into_iter().zip(points).zip(means.second).zip(silhouettes).map(member);
    Ok(Some(Split {
        class,
        members: members.collect(),
        share,
        silhouette,
        distance: squared(&means.centres[0], &means.centres[1]).sqrt(),
        flagged: apart && share < keys.max_share,
    }))
}

/// Centred rows on their first principal components, strongest first; the largest value of each component is positive. At most `dimensions`, and none beyond the rows' rank but one.
fn reduced(rows: &[(i64, Vec<f64>)], dimensions: usize) -> Result<Vec<Vec<f64>>> {
    let (n, width) = (rows.len() as i64, rows.first().map_or(0, |(_, row)| row.len()) as i64);
    let flat: Vec<f64> = rows.iter().flat_map(|(_, row)| row).copied().collect();
    let x = Tensor::f_from_slice(&flat)?.f_view([n, width])?;
    let laid = singular::laid(&singular::centred(&x)?, dimensions as i64)?.rows;
    let largest = laid.f_abs()?.f_argmax(0, true)?;
    let sign = laid.f_gather(0, &largest, false)?.f_sign()?;
    self::rows(&laid.f_mul(&sign)?)
}

/// A matrix as rows.
fn rows(matrix: &Tensor) -> Result<Vec<Vec<f64>>> {
    let (_, width) = matrix.size2()?;
    let flat = Vec::<f64>::try_from(&matrix.f_contiguous()?.f_view([-1])?)?;
    Ok(flat.chunks(width.max(1) as usize).map(<[f64]>::to_vec).collect())
}

fn order(a: &[f64], b: &[f64]) -> std::cmp::Ordering {
    a.iter()
        .zip(b)
        .map(|(x, y)| x.total_cmp(y))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

fn squared(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// Two means, and which points are nearer to the second.
#[derive(Clone, Debug)]
struct Means {
    centres: [Vec<f64>; 2],
    second: Vec<bool>,
    /// Sum of squared distances to the own mean.
    spread: f64,
}

/// The tightest split of all starts, each from two points that k-means++ draws. None where all points are equal.
fn two_means(points: &[Vec<f64>], starts: usize, rng: &mut ChaCha8Rng) -> Option<Means> {
    let mut best: Option<Means> = None;
    for _ in 0..starts {
        let first = &points[rng.random_range(0..points.len())];
        // Fails where every weight is 0: no point differs from the first.
        let far = WeightedIndex::new(points.iter().map(|point| squared(point, first))).ok()?;
        let found = settled(points, [first.clone(), points[far.sample(rng)].clone()]);
        if best.as_ref().is_none_or(|best| found.spread < best.spread) {
            best = Some(found);
        }
    }
    best
}

/// Lloyd's rounds from two different points, until no point changes sides.
fn settled(points: &[Vec<f64>], mut centres: [Vec<f64>; 2]) -> Means {
    let mut second = Vec::new();
    for _ in 0..ROUNDS {
        let next: Vec<bool> = points.iter().map(|p| squared(p, &centres[1]) < squared(p, &centres[0])).collect();
        if next == second {
            break;
        }
        second = next;
        for side in [false, true] {
            let own: Vec<&Vec<f64>> = points.iter().zip(&second).filter(|(_, s)| **s == side).map(|(p, _)| p).collect();
            // A side without points keeps its mean.
            if !own.is_empty() {
                let centre = &mut centres[usize::from(side)];
                for (d, value) in centre.iter_mut().enumerate() {
                    *value = own.iter().map(|p| p[d]).sum::<f64>() / own.len() as f64;
                }
            }
        }
    }
    let spread = points.iter().zip(&second).map(|(p, s)| squared(p, &centres[usize::from(*s)])).sum();
    Means { centres, second, spread }
}

/// (b − a) / max(a, b) of each point, a and b being its mean distances to the others of its side and to the other side; 0 for a point that is alone, or where both are 0.
fn silhouettes(points: &[Vec<f64>], second: &[bool]) -> Vec<f64> {
    let of = |i: usize| {
        let (mut sums, mut counts) = ([0.0; 2], [0.0; 2]);
        for (j, point) in points.iter().enumerate().filter(|(j, _)| *j != i) {
            let other = usize::from(second[j] != second[i]);
            sums[other] += squared(&points[i], point).sqrt();
            counts[other] += 1.0;
        }
        let [a, b] = [sums[0] / counts[0], sums[1] / counts[1]];
        if counts[0] > 0.0 && a.max(b) > 0.0 { (b - a) / a.max(b) } else { 0.0 }
    };
    (0..points.len()).map(of).collect()
}

/// Findings and exhibits.
fn told(keys: &Keys, case: &DetectCase, splits: &[Split]) -> Detection {
    let mut flagged: Vec<(&Split, &Member)> = splits
        .iter()
        .filter(|split| split.flagged)
        .flat_map(|split| split.members.iter().filter(|m| m.smaller).map(move |m| (split, m)))
        .collect();
    flagged.sort_by(|(_, a), (_, b)| b.silhouette.total_cmp(&a.silhouette).then(a.position.cmp(&b.position)));
    let own = splits.iter().find(|split| split.class == case.wrong_label);
    let verdict = match flagged.is_empty() {
        true => TraceVerdict::Undecided { why: abstain(keys, splits) },
        false => TraceVerdict::Flagged,
    };
    Detection {
        verdict,
        flagged: flagged
            .iter()
            .map(|(_, member)| Suspect {
                position: member.position,
                score: member.silhouette,
            })
            .collect(),
        words: Words {
            called: "activation clustering".into(),
            score: "silhouette".into(),
            score_meaning: "how much nearer an example’s activation is to those of its own part of the class than to the rest".into(),
            score_decimals: 2,
            flagged: "have activations apart from the rest of their class".into(),
            caution: "A small natural group of a class looks the same to it: take the list as a place to look, not as one to remove.".into(),
        },
        sure: Some(Sure {
            how: HowSure::NotMeasured,
            sentence: "Every class can be split in two: nothing says here that a small part comes from an attack.".into(),
        }),
        exhibits: own
            .into_iter()
            .flat_map(|own| [scatter(own), strip(keys, own, splits)])
            .chain((!flagged.is_empty()).then(|| table(&flagged)))
            .collect(),
        notes: Vec::new(),
        support: Vec::new(),
        details: splits
            .iter()
            .map(
                |s| serde_json::json!({"class": s.class, "share": s.share, "silhouette": s.silhouette, "distance": s.distance, "flagged": s.flagged}),
            )
            .collect(),
    }
}

fn abstain(keys: &Keys, splits: &[Split]) -> Abstain {
    let sentence = match keys.decision {
        _ if splits.is_empty() => "no class has two different activations".into(),
        SplitRule::Size => format!("no class has a part of less than {:.0} %", 100.0 * keys.max_share),
        SplitRule::Silhouette => format!(
            "no class has a part of less than {:.0} % in a split with a silhouette above {}",
            100.0 * keys.max_share,
            keys.min_silhouette
        ),
    };
    Abstain::other("no-small-part", sentence)
}

fn scatter(own: &Split) -> Exhibit<usize> {
    let series = |name: &str, smaller: bool| Points {
        name: name.into(),
        points: own
            .members
            .iter()
            .filter(|m| m.smaller == smaller)
            .map(|m| Point {
                x: m.reduced[0],
                y: m.reduced.get(1).copied().unwrap_or(0.0),
                id: Some(m.position),
            })
            .collect(),
    };
    let name = if own.flagged { "flagged" } else { "smaller part" };
    let scatter = Scatter {
        title: "Activations".into(),
        caption: "What the last layer sees of the examples with the wrong label, on the two axes along which they differ most. What an attack brought in lies apart from the rest.".into(),
        x: "first principal component".into(),
        y: "second principal component".into(),
        series: vec![series(name, true), series("others", false)],
    };
    Exhibit::Scatter(scatter.thinned())
}

fn strip(keys: &Keys, own: &Split, splits: &[Split]) -> Exhibit<usize> {
    let row = |name: &str, meaning: &str, value: fn(&Split) -> f64| Row {
        name: name.into(),
        meaning: meaning.into(),
        own: Some(value(own)),
        others: splits.iter().filter(|s| s.class != own.class).map(value).collect(),
        remark: String::new(),
    };
    let silhouette = match keys.decision {
        SplitRule::Size => String::new(),
        SplitRule::Silhouette => format!(", and a silhouette above {}", keys.min_silhouette),
    };
    Exhibit::Strip(Strip {
        title: "The class beside the others".into(),
        caption: "Each class is split in two. The wrong label’s class is marked.".into(),
        pass: format!("Flagged is a part of less than {:.0} % of its class{silhouette}.", 100.0 * keys.max_share),
        others: "other classes".into(),
        rows: vec![
            row("share", "share of the smaller part", |s| s.share),
            row("silhouette", "how well the split fits, −1 to 1", |s| s.silhouette),
            row("distance", "between the centres of the two parts", |s| s.distance),
        ],
    })
}

fn table(flagged: &[(&Split, &Member)]) -> Exhibit<usize> {
    let column = |key: &str, meaning: &str, decimals| Column {
        key: key.into(),
        name: key.replace('_', " "),
        meaning: meaning.into(),
        decimals,
    };
    Exhibit::Table(Table {
        title: "Flagged examples".into(),
        caption: "The part of its class that each belongs to.".into(),
        columns: vec![
            column("part_size", "examples in the part", 0),
            column("part_share", "share of the part in its class", 3),
            column("class_silhouette", "mean silhouette of the class", 3),
            column("distance", "between the centres of the part and of the rest", 2),
        ],
        rows: flagged
            .iter()
            .map(|(split, _)| {
                let size = split.members.iter().filter(|m| m.smaller).count();
                vec![
                    Cell::Whole(size as i64),
                    Cell::Number(split.share),
                    Cell::Number(split.silhouette),
                    Cell::Number(split.distance),
                ]
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests;
