//! Controls: clean pictures that are handed in as if they were anomalies, to see that the guard leaves them alone.
//!
//! What matters is the class of the poisons: a natural error that is read as it, or a rightly read picture of it, is held against the very examples
//! among which the poisons are. Those come first; where there are too few, the rest is spread evenly over the other classes.

use super::Hits;
use delta_guard_contract::TrainId;
use delta_guard_contract::job::PredictedExample;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A kind of control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlKind {
    /// The model misreads it, although nobody changed it.
    NaturalError,
    /// The model reads it rightly.
    Placebo,
}

impl ControlKind {
    /// Its name in files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::NaturalError => "natural-error",
            Self::Placebo => "placebo",
        }
    }
}

/// A picture to hand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Validation example.
    pub id: TrainId,
    /// Is it read as the poisons' class?
    pub of_class: bool,
}

/// Choose `n` of what was measured: those that are read as `class`, the poisons', first, then others; each evenly over the list (which is in class order or in the
/// data's), so neither the first ones nor any that were chosen by what they show.
pub fn choose(measured: &[PredictedExample], kind: ControlKind, class: &str, n: usize) -> Vec<Control> {
    let fits = |p: &&PredictedExample| (p.label == p.predicted) == (kind == ControlKind::Placebo);
    let (of_class, others): (Vec<&PredictedExample>, Vec<&PredictedExample>) = measured.iter().filter(fits).partition(|p| p.predicted == class);
    let spread = |all: &[&PredictedExample], n: usize, of_class: bool| -> Vec<Control> {
        let n = n.min(all.len());
        let at = |i: usize| all[i * all.len() / n].id.clone();
        (0..n).map(|i| Control { id: at(i), of_class }).collect()
    };
    let mut chosen = spread(&of_class, n, true);
    chosen.extend(spread(&others, n - chosen.len(), false));
    chosen
}

/// What controls of one kind showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// Handed in.
    pub tried: usize,
    /// Of them, read as the poisons' class.
    pub of_class: usize,
    /// Those with a verdict other than "undecided".
    pub decided: Vec<ControlDecided>,
    /// Why the others were left alone: code of the reason, and how often.
    #[serde(default)]
    pub abstained: BTreeMap<String, usize>,
}

/// A control that was not left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlDecided {
    /// Which.
    pub id: TrainId,
    /// Is it read as the poisons' class?
    pub of_class: bool,
    /// What was flagged for it, against the poisons: a group of poisons was found although nobody handed in a picture of the attack, or clean examples were.
    pub flagged: Hits,
}

impl Controls {
    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            tried: self.tried + other.tried,
            of_class: self.of_class + other.of_class,
            decided: self.decided.iter().chain(&other.decided).cloned().collect(),
            abstained: self.abstained.iter().chain(&other.abstained).fold(BTreeMap::new(), |mut sum, (code, n)| {
                *sum.entry(code.clone()).or_default() += n;
                sum
            }),
        }
    }

    /// Share that was decided, with its 95 % interval. None where none was tried.
    pub fn rate(&self) -> Option<Rate> {
        Rate::of(self.decided.len(), self.tried)
    }
}

/// A share of a sample, and Wilson's 95 % interval: it holds also where nothing was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// The share, 0 to 1.
    pub share: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Rate {
    /// `hits` of `n`; None for n = 0.
    pub fn of(hits: usize, n: usize) -> Option<Self> {
        /// Normal quantile of 97.5 %.
        const Z: f64 = 1.959_963_984_540_054;
        if n == 0 {
            return None;
        }
        let (share, n) = (hits as f64 / n as f64, n as f64);
        let middle = (share + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
        let half = Z / (1.0 + Z * Z / n) * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt();
        Some(Self {
            share,
            low: (middle - half).max(0.0),
            high: (middle + half).min(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured() -> Vec<PredictedExample> {
        let read = |n: usize, label: &str, predicted: &str| PredictedExample {
            id: TrainId(format!("{label}/{n}")),
            label: label.into(),
            predicted: predicted.into(),
            probability: 0.5,
        };
        let mut all: Vec<PredictedExample> = Vec::new();
        for n in 0..100 {
            let label = ["cat", "dog", "ship", "star"][n % 4];
            // Every tenth is misread; every thirtieth as a star.
            let predicted = match n {
                n if n % 30 == 0 && label != "star" => "star",
                n if n % 10 == 0 => "owl",
                _ => label,
            };
            all.push(read(n, label, predicted));
        }
        all
    }

    #[test]
    fn the_poisons_class_comes_first_and_the_rest_is_spread() {
        let measured = measured();
        let look = |id: &TrainId| measured.iter().find(|p| p.id == *id).unwrap();
        for (kind, n) in [
            (ControlKind::Placebo, 20),
            (ControlKind::Placebo, 60),
            (ControlKind::NaturalError, 6),
            (ControlKind::NaturalError, 500),
            (ControlKind::Placebo, 0),
        ] {
            let chosen = choose(&measured, kind, "star", n);
            let fits = |p: &PredictedExample| (p.label == p.predicted) == (kind == ControlKind::Placebo);
            let all = measured.iter().filter(|p| fits(p)).count();
            let of_class = measured.iter().filter(|p| fits(p) && p.predicted == "star").count();
            assert!(of_class > 1 && of_class < all);
            assert_eq!(chosen.len(), n.min(all), "{kind:?} {n}");
            assert_eq!(chosen.iter().filter(|c| c.of_class).count(), n.min(of_class), "{kind:?} {n}");
            for control in &chosen {
                let p = look(&control.id);
                assert!(fits(p) && control.of_class == (p.predicted == "star"), "{control:?}");
            }
            let different: std::collections::BTreeSet<&TrainId> = chosen.iter().map(|c| &c.id).collect();
            assert_eq!(different.len(), chosen.len(), "one was taken twice");
        }
        // Not the first ones of the list: of 25 stars, ten are spread from one end to the other.
        let places: Vec<usize> = choose(&measured, ControlKind::Placebo, "star", 10)
            .iter()
            .map(|c| measured.iter().position(|p| p.id == c.id).unwrap())
            .collect();
        assert!(places[0] < 20 && places[9] > 80, "{places:?}");
        assert_eq!(choose(&[], ControlKind::Placebo, "star", 5), []);
    }

    /// Against Newcombe's published examples (Statistics in Medicine 17, 1998, table I, method 3: the score interval without continuity correction).
    #[test]
    fn wilson_intervals_are_the_published_ones() {
        for (hits, n, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let rate = Rate::of(hits, n).unwrap();
            assert!(
                (rate.low - low).abs() < 5e-5 && (rate.high - high).abs() < 5e-5,
                "{hits} of {n}: {rate:?}"
            );
            assert!((rate.share - hits as f64 / n as f64).abs() < 1e-15);
        }
        assert_eq!(Rate::of(0, 0), None);
        let all = Rate::of(5, 5).unwrap();
        assert!(all.high <= 1.0 && all.low > 0.5, "{all:?}");
    }

    #[test]
    fn controls_add_up() {
        let one = Controls {
            tried: 20,
            of_class: 12,
            decided: vec![ControlDecided {
                id: TrainId("a".into()),
                of_class: true,
                flagged: Hits::default(),
            }],
            abstained: [("no-group".to_owned(), 17), ("within-choice".to_owned(), 2)].into(),
        };
        let both = one.plus(&Controls {
            tried: 10,
            abstained: [("all-alike".to_owned(), 3), ("no-group".to_owned(), 7)].into(),
            ..Controls::default()
        });
        let reasons: Vec<(&str, usize)> = both.abstained.iter().map(|(code, n)| (code.as_str(), *n)).collect();
        assert_eq!(reasons, [("all-alike", 3), ("no-group", 24), ("within-choice", 2)]);
        assert_eq!((both.tried, both.of_class, both.decided.len()), (30, 12, 1));
        assert!((both.rate().unwrap().share - 1.0 / 30.0).abs() < 1e-15);
    }
}
