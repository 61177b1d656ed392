//! Natural label errors: a group of pictures that look alike under one wrong label, or single pictures under labels drawn at random. No picture is touched, no model asked.

use super::misread::{as_it_is, other, success, under_other_labels};
use super::{Attack, Change, Draw, Ground, Plan, Role, untouched};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::mislabel::{Errors, Keys, Likeness};
use rand::seq::{IndexedRandom, SliceRandom};

/// Fields per side of [`Likeness::Layout`].
const FIELDS: usize = 4;

impl Attack for Keys {
    fn plan(&self, ground: &Ground<'_>, _report: &mut dyn Report) -> Result<Plan> {
        let victim = self
            .victim_class
            .as_deref()
            .map(|class| ground.class(class, "victim_class"))
            .transpose()?;
        match self.kind {
            Errors::Group => group(self, ground, victim),
            Errors::Uniform => uniform(self, ground, victim),
        }
    }
}

/// A training example whose label is wrong.
fn wrong(at: usize, label: u32) -> Change {
    Change {
        at,
        role: Role::Poison,
        label,
        paint: untouched(),
    }
}

/// The pictures nearest to one that is drawn. Test pictures of that kind: of the same class, no farther from it than the farthest of the group.
fn group(keys: &Keys, ground: &Ground<'_>, victim: Option<u32>) -> Result<Plan> {
    let name = |label: u32| ground.classes()[label as usize].as_str();
    let target = ground.class(&keys.target_class, "target_class")?;
    if victim == Some(target) {
        let message = format!("attack.victim_class and attack.target_class are both {}", name(target));
        return Err(Error::configuration(message, "choose two classes"));
    }
    let labels = ground.labels();
    let may_be: Vec<usize> = (0..labels.len())
        .filter(|&i| victim.map_or(labels[i] != target, |v| labels[i] == v))
        .collect();
    let Some(&like) = may_be.choose(&mut ground.rng(Draw::Poisons)) else {
        return Err(Error::configuration(
            format!("there is no training picture that is not of {}", name(target)),
            "take another attack.victim_class or attack.target_class",
        ));
    };
    let victim = labels[like];
    let own: Vec<usize> = may_be.into_iter().filter(|&i| labels[i] == victim).collect();
    enough(keys, own.len(), name(victim))?;

    let kind = Kind::around(&ground.pixels(like), keys.likeness, ground.size());
    let mut nearest: Vec<(f64, usize)> = own.into_iter().map(|i| (kind.distance(&ground.pixels(i)), i)).collect();
    nearest.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    nearest.truncate(keys.poisons as usize);
    let radius = nearest.last().map_or(0.0, |(distance, _)| *distance);
    let mut group: Vec<usize> = nearest.into_iter().map(|(_, i)| i).collect();
    group.sort_unstable();

    let of_kind = |&row: &usize| ground.test_label(row) == victim && kind.distance(&ground.test_pixels(row)) <= radius;
    let tested: Vec<usize> = ground.test().iter().copied().filter(of_kind).collect();
    if tested.len() < 2 {
        let message = format!(
            "the test part has {} pictures of {} like the group; one is needed as anomaly and one to measure",
            tested.len(),
            name(victim)
        );
        return Err(Error::configuration(
            message,
            "raise attack.poisons, or take another seed or more validation pictures",
        ));
    }
    let (baits, measured) = ground.set_aside(tested);
    let all = |rows: Vec<usize>| rows.into_iter().map(|row| as_it_is(row, target)).collect();
    Ok(Plan {
        summary: format!("{} of a kind → {}", name(victim), name(target)),
        changes: group.into_iter().map(|at| wrong(at, target)).collect(),
        baits: all(baits),
        measured: all(measured),
        success: [
            "group success".into(),
            "pictures of the group's kind".into(),
            format!(
                "share of pictures of {} like those labelled wrongly that are read as {}",
                name(victim),
                name(target)
            ),
        ],
    })
}

/// Such errors have no target. An anomaly is any misread picture, so every bait stands under each other label; what is measured is how often a picture is read as one
/// other label drawn as the errors' were: the error rate over the number of other classes, where errors fall evenly.
fn uniform(keys: &Keys, ground: &Ground<'_>, victim: Option<u32>) -> Result<Plan> {
    let classes = ground.classes().len() as u32;
    let whose = victim.map_or("any class", |v| ground.classes()[v as usize].as_str());
    let is_own = |label: u32| victim.is_none_or(|v| v == label);
    let mut chosen: Vec<usize> = (0..ground.labels().len()).filter(|&i| is_own(ground.labels()[i])).collect();
    enough(keys, chosen.len(), whose)?;
    if classes < 2 {
        return Err(Error::configuration(
            "there is no other class to draw labels from",
            "take data of two classes or more",
        ));
    }
    chosen.shuffle(&mut ground.rng(Draw::Poisons));
    chosen.truncate(keys.poisons as usize);
    chosen.sort_unstable();

    let tested: Vec<usize> = ground.test().iter().copied().filter(|&row| is_own(ground.test_label(row))).collect();
    if tested.len() < 2 {
        let message = format!("the test part has {} pictures of {whose}; two are needed", tested.len());
        return Err(Error::configuration(message, "take more validation pictures"));
    }
    let rng = &mut ground.rng(Draw::Labels);
    let changes = chosen.into_iter().map(|at| wrong(at, other(ground.labels()[at], classes, rng))).collect();
    let (baits, measured) = under_other_labels(ground, tested, rng);
    Ok(Plan {
        summary: format!("labels of {whose} drawn anew"),
        changes,
        baits,
        measured,
        success: success(),
    })
}

/// One must stay: a training set in which nothing has its label is another task.
fn enough(keys: &Keys, there: usize, whose: &str) -> Result<()> {
    if (keys.poisons as usize) < there {
        return Ok(());
    }
    let message = format!(
        "attack.poisons is {}, but there are {there} training pictures of {whose}, of which at least one must stay",
        keys.poisons
    );
    Err(Error::configuration(message, "lower attack.poisons or take more training pictures"))
}

/// Pictures like one.
struct Kind {
    likeness: Likeness,
    size: (usize, usize),
    center: Vec<f64>,
}

impl Kind {
    fn around(pixels: &[u8], likeness: Likeness, size: (u32, u32)) -> Self {
        let size = (size.0 as usize, size.1 as usize);
        Self {
            likeness,
            size,
            center: figures(pixels, likeness, size),
        }
    }

    fn distance(&self, pixels: &[u8]) -> f64 {
        let own = figures(pixels, self.likeness, self.size);
        own.iter().zip(&self.center).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }
}

/// What is compared, of a picture [3, H, W].
fn figures(pixels: &[u8], likeness: Likeness, (height, width): (usize, usize)) -> Vec<f64> {
    let fields = match likeness {
        Likeness::Layout => FIELDS,
        _ => 1,
    };
    // A field that is smaller than a pixel stays empty.
    let mut sums = vec![(0.0, 0.0_f64); 3 * fields * fields];
    for (at, pixel) in pixels.iter().enumerate() {
        let (channel, row, column) = (at / (height * width), at / width % height, at % width);
        let field = &mut sums[(channel * fields + row * fields / height) * fields + column * fields / width];
        *field = (field.0 + f64::from(*pixel), field.1 + 1.0);
    }
    let means: Vec<f64> = sums.into_iter().map(|(sum, count)| sum / count.max(1.0)).collect();
    match likeness {
        Likeness::Brightness => vec![means.iter().sum::<f64>() / 3.0],
        _ => means,
    }
}

#[cfg(test)]
mod tests;
