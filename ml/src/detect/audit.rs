//! Groups of a class that stand apart, without any anomaly. What a trigger teaches is one direction among many that the examples of a class share, and it is a leading one: kin grows from the
//! class's own leading directions ([`super::directions`]), both ways along each, and from validation pictures: clean ones, and those of other classes that are read as this one. The cut is the
//! guard's, drawn from clean validation pictures of the class: what they resemble is natural, and a group must lie beyond it.
//!
//! Many sets of seeds are tried, and each climbs to whatever is alike. So a group must also be one that training examples have and validation pictures have not: if both were drawn from the same
//! pictures, how likely would so many of those above the end of the group be training examples ([`by_chance`])? That is corrected for every set of seeds of every class.

use super::cut::{FEWEST_NULL, Rates};
use super::guard::Guard;
use super::joint::Joint;
use super::kin::{self, Growth};
use super::stand_out::{apart, same_group};
use super::{DetectCase, PlaceboPicture, directions, pass};
use crate::error::Result;
use crate::evidence::{Evidence, Lab};
use crate::progress::Report;
use delta_guard_contract::TrainId;
use delta_guard_contract::detect::guard::Keys;
use statrs::function::factorial::ln_binomial;

/// Directions that are looked along.
const DIRECTIONS: usize = 8;
/// Products with the matrix of cosines before they are taken. A group that stands apart has an eigenvalue well above the next.
const ROUNDS: u32 = 6;

/// What grew.
#[derive(Clone, Debug, PartialEq)]
pub struct ApartGroup {
    /// Positions in the training set and κ, the largest first.
    pub members: Vec<(usize, f64)>,
    /// d′ of κ.
    pub d_prime: f64,
    /// Members above the strict cut.
    pub founders: usize,
    /// [`by_chance`], corrected for the sets of seeds that were grown and for the number of classes (Bonferroni).
    pub p: f64,
    /// What it grew from.
    pub grown_from: Vec<String>,
    /// By features and gradients together; else by gradients alone.
    pub features: bool,
}

/// What was found of a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audited {
    /// Null pictures that the cut was drawn from.
    pub null_pictures: usize,
    /// Sets of seeds that were grown.
    pub starts: usize,
    /// Groups, the furthest apart first.
    pub groups: Vec<ApartGroup>,
    /// Why nothing was asked.
    pub skipped: Option<String>,
    /// For a reader.
    pub notes: Vec<String>,
    /// Sizes of groups that chance may have brought together.
    pub doubtful: Vec<usize>,
}

impl Audited {
    fn none(why: String) -> Self {
        Self {
            skipped: Some(why),
            ..Self::default()
        }
    }
}

/// Seeds, and what they are.
type Start = (String, Vec<usize>);

/// Groups of the class `case.wrong_label`. `case` has its placebos and no anomaly; `misread` are validation pictures of other classes that the model reads as it.
///
/// # Errors
/// As [`super::Detect::detect`].
pub fn audit(keys: &Keys, lab: &mut dyn Lab, case: &DetectCase, misread: &[PlaceboPicture], report: &mut dyn Report) -> Result<Audited> {
    let members = case.members();
    let fewest = kin::fewest_seeds(keys.seeds);
    let needed = kin::EXAMPLES_PER_SEED * fewest;
    if members.len() < needed {
        return Ok(Audited::none(format!(
            "{} training examples have this label, and {needed} are needed",
            members.len()
        )));
    }
    if case.placebos.is_empty() {
        return Ok(Audited::none("the model reads none of its validation pictures rightly".into()));
    }
    let (view, notes) = Guard(keys).view(lab, case, &members)?;
    let (names, pictures) = pictures(case.placebos, misread);
    let asked = DetectCase {
        placebos: &pictures,
        ..*case
    };
    let evidence = lab.influence()?;
    let opening = pass::opening(&keys.delta, &asked, members.clone(), true)?;
    let scored = pass::score(evidence, &asked, &opening)?;
    let usable: Vec<usize> = (0..members.len()).filter(|&i| scored.root[i] > 0.0).collect();
    let positions: Vec<usize> = usable.iter().map(|&i| members[i]).collect();
    let scored = scored.restrict(&usable);
    if positions.len() < needed {
        return Ok(Audited::none(format!(
            "{} of its training examples have a gradient, and {needed} are needed",
            positions.len()
        )));
    }
    let count = kin::seed_count(keys.seeds, positions.len());
    let seeds = |row: &Vec<f64>| kin::seeds(&scored.scaled(row), count);
    let by_pictures: Vec<Start> = names.into_iter().zip(scored.placebos.iter().map(seeds)).collect();
    let view = view.map(|view| view.restrict(&usable)).transpose()?;
    let mut joint = Joint {
        evidence,
        view,
        positions: &positions,
        root: &scored.root,
    };
    let mut found = Audited { notes, ..Audited::default() };
    // Both views are asked, each with all its sets of seeds.
    let tried = 2 * (2 * DIRECTIONS + by_pictures.len()) * case.classes;
    loop {
        let mut starts = along(&mut joint, count, case.seed)?;
        starts.extend(by_pictures.iter().cloned());
        grown(keys, &mut joint, starts, (fewest, tried), &mut found)?;
        // As the guard does: what is faint in both views may be clear in gradients alone.
        if !found.groups.is_empty() || joint.view.take().is_none() || found.skipped.is_some() {
            break;
        }
    }
    tell(&mut found, report);
    Ok(found)
}

/// What was found, and what could not be told.
fn tell(found: &mut Audited, report: &mut dyn Report) {
    report.log(&format!("{} groups stand apart, of {} sets of seeds", found.groups.len(), found.starts));
    if let Some(largest) = found.doubtful.iter().max() {
        found.notes.push(format!(
            "{} more may be chance, of at most {largest} examples: validation pictures are too few to tell them from natural ones.",
            found.doubtful.len()
        ));
    }
}

/// The pictures that kin grows from, and what each is.
fn pictures(clean: &[PlaceboPicture], misread: &[PlaceboPicture]) -> (Vec<String>, Vec<PlaceboPicture>) {
    let clean = clean.iter().map(|p| (format!("the clean picture {}", p.id), p));
    let misread = misread.iter().map(|p| (format!("the misread picture {}", p.id), p));
    clean.chain(misread).map(|(name, p)| (name, shared(p))).unzip()
}

fn shared(of: &PlaceboPicture) -> PlaceboPicture {
    PlaceboPicture {
        id: TrainId(of.id.0.clone()),
        picture: of.picture.shallow_clone(),
    }
}

/// The examples that lie furthest along each leading direction, either way.
fn along(joint: &mut Joint<'_>, count: usize, seed: u64) -> Result<Vec<Start>> {
    let (positions, root) = (joint.positions, joint.root);
    let vectors = directions::leading(joint, positions, root, DIRECTIONS, ROUNDS, seed)?;
    Ok((1..)
        .zip(&vectors)
        .flat_map(|(number, vector)| both_ways(number, vector, count))
        .collect())
}

fn both_ways(number: usize, vector: &[f64], count: usize) -> [Start; 2] {
    let other: Vec<f64> = vector.iter().map(|v| -v).collect();
    let name = format!("direction {number} of the class");
    [(name.clone(), kin::seeds(vector, count)), (name, kin::seeds(&other, count))]
}

/// What grows from the starts and stands apart, each group once.
fn grown(keys: &Keys, joint: &mut Joint<'_>, starts: Vec<Start>, (fewest, tried): (usize, usize), found: &mut Audited) -> Result<()> {
    let (positions, root) = (joint.positions, joint.root);
    let rates = Rates {
        alpha: keys.alpha,
        chance: keys.chance,
        collect: keys.collect,
    };
    let (names, seeds): (Vec<String>, Vec<Vec<usize>>) = starts.into_iter().unzip();
    let features = joint.view.is_some();
    found.starts += names.len();
    let growths = kin::grow(joint as &mut dyn Evidence, positions, root, seeds, rates, keys.rounds)?;
    found.null_pictures = growths.first().map_or(0, |growth| growth.cut.null_pictures());
    if found.null_pictures == 0 {
        found.skipped = Some(format!(
            "fewer than {FEWEST_NULL} validation pictures are left to draw the cut from: without them a natural group cannot be told from another"
        ));
        return Ok(());
    }
    let mut groups: Vec<(Growth, ApartGroup)> = Vec::new();
    for (name, growth) in names.into_iter().zip(growths) {
        let apart = apart(&growth.kappa, &growth.collected);
        let Some(d_prime) = apart.filter(|_| growth.stood && growth.collected.len() >= fewest) else {
            continue;
        };
        let group = ApartGroup {
            d_prime,
            founders: growth.flagged.len(),
            p: (by_chance(growth.counts()) * tried as f64).min(1.0),
            grown_from: vec![name],
            features,
            members: Vec::new(),
        };
        match groups.iter_mut().find(|(known, _)| same_group(&known.collected, &growth.collected)) {
            Some((known, best)) => {
                let mut from = best.grown_from.clone();
                from.extend(group.grown_from.iter().filter(|name| !best.grown_from.contains(name)).cloned());
                if group.p < best.p || group.p == best.p && group.d_prime > best.d_prime {
                    (*known, *best) = (growth, group);
                }
                best.grown_from = from;
            }
            None => groups.push((growth, group)),
        }
    }
    groups.sort_by(|a, b| b.1.d_prime.total_cmp(&a.1.d_prime));
    for (growth, mut group) in groups {
        if group.p > keys.alpha {
            found.doubtful.push(growth.collected.len());
            continue;
        }
        group.members = growth.collected.iter().map(|&i| (positions[i], growth.kappa[i])).collect();
        group.members.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        found.groups.push(group);
    }
    Ok(())
}

/// Of `group` among `examples` training examples and `alike` among `pictures` validation pictures that lie above one and the same κ: if all were drawn alike, how likely would at least so many of
/// those above it be training examples? Fisher's exact test, one-sided.
pub fn by_chance([group, examples, alike, pictures]: [usize; 4]) -> f64 {
    let above = (group + alike) as u64;
    let of = |total: usize, chosen: u64| ln_binomial(total as u64, chosen);
    let all = of(examples + pictures, above);
    let most = above.min(examples as u64);
    let least = (group as u64).max(above.saturating_sub(pictures as u64));
    let sum: f64 = (least..=most).map(|k| (of(examples, k) + of(pictures, above - k) - all).exp()).sum();
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::{both_ways, by_chance};

    #[test]
    fn the_ends_of_a_direction_are_starts_both() {
        let [(name, one), (_, other)] = both_ways(3, &[0.1, -0.5, 0.4, -0.2, 0.0], 2);
        assert_eq!((name.as_str(), one, other), ("direction 3 of the class", vec![0, 2], vec![1, 3]));
    }

    #[test]
    fn chance_is_fishers_exact_test() {
        // Fisher's tea: 3 of 4 right. 4 and 4 cups, 4 chosen: (C(4,3)·C(4,1) + C(4,4)) / C(8,4) = 17 / 70.
        assert!((by_chance([3, 4, 1, 4]) - 17.0 / 70.0).abs() < 1e-12);
        // All of 24 among 481 + 180: product of (481 − i) / (661 − i).
        let all: f64 = (0..24).map(|i| f64::from(481 - i) / f64::from(661 - i)).product();
        assert!((by_chance([24, 481, 0, 180]) / all - 1.0).abs() < 1e-9);
        assert!((by_chance([0, 10, 5, 10]) - 1.0).abs() < 1e-12 && (by_chance([10, 10, 10, 10]) - 1.0).abs() < 1e-12);
        assert!(by_chance([150, 650, 0, 180]) < 1e-15);
    }
}
