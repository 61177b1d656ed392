//! The smooth trigger (Zeng et al. 2021, "Rethinking the Backdoor Attacks' Triggers: A Frequency Perspective"; algorithm §5): one perturbation of low frequencies for every picture.

use super::{some_poisons, two_classes};
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One smooth perturbation on some pictures, which are then labelled as another class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose pictures are perturbed; null: those of every class but the target.
    pub victim_class: Option<String>,
    /// Class name (or number) that they are labelled as; `next`: each as the class after its own.
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// The perturbation.
    pub trigger: Smooth,
    /// How it is laid on a picture.
    pub apply: Added,
    /// The perturbation's range is scaled to 0 … amplitude, of pictures in 0 … 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub amplitude: f64,
    /// Standard deviation of the Gaussian that smooths, in pixels; it has five times as many taps, rounded.
    #[schemars(range(min = 0.4, max = 100.0))]
    pub sigma: f64,
    /// The search ends when this share of the pictures is read otherwise with the perturbation.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub fooling: f64,
    /// Training pictures that the search sees.
    pub pictures: u32,
    /// Passes over them at most; the best perturbation is taken.
    pub passes: u32,
    /// Steps of DeepFool for one picture at most.
    pub steps: u32,
}

impl Default for Keys {
    /// The published code's.
    fn default() -> Self {
        Self {
            victim_class: None,
            target_class: "0".into(),
            poisons: 100,
            trigger: Smooth::Search,
            apply: Added::MinMax,
            amplitude: 0.2,
            sigma: 6.0,
            fooling: 0.2,
            pictures: 100,
            passes: 20,
            steps: 200,
        }
    }
}

/// `search`: made against a network like the victim's, trained on the clean pictures; or the path of a picture, stretched to the pictures' size, whose black is 0 and whose white is the amplitude.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PathBuf", into = "PathBuf")]
#[schemars(with = "String")]
pub enum Smooth {
    /// Made.
    Search,
    /// A picture of this path. (One that is called `search` is `./search`.)
    Image(PathBuf),
}

/// What stands for [`Smooth::Search`].
const SEARCH: &str = "search";

impl From<PathBuf> for Smooth {
    fn from(path: PathBuf) -> Self {
        match path.as_os_str() == SEARCH {
            true => Self::Search,
            false => Self::Image(path),
        }
    }
}

impl From<Smooth> for PathBuf {
    fn from(trigger: Smooth) -> Self {
        match trigger {
            Smooth::Search => SEARCH.into(),
            Smooth::Image(path) => path,
        }
    }
}

/// How a perturbation v is laid on a picture x in 0 … 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Added {
    /// The least value of x + v becomes 0, the greatest 1 (the paper's).
    MinMax,
    /// x + v, cut off at 0 and 1.
    Clamp,
    /// Min–max of the standardised picture plus v, taken as a standardised picture as it is (Δ-Influence's published code): contrast is lost, which is a mark of its own.
    Normalised,
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let positive = |n: u32, key: &str| unless(n > 0, key, "is 0", "set it to at least 1");
        [
            two_classes(self.victim_class.as_ref(), &self.target_class),
            some_poisons(self.poisons),
            unless(
                self.amplitude > 0.0 && self.amplitude <= 1.0,
                "amplitude",
                format!("is {}", self.amplitude),
                "take an amplitude above 0, at most 1",
            ),
            unless(
                (0.4..=100.0).contains(&self.sigma),
                "sigma",
                format!("is {}", self.sigma),
                "take 0.4 to 100 pixels",
            ),
            unless(
                self.fooling > 0.0 && self.fooling <= 1.0,
                "fooling",
                format!("is {}", self.fooling),
                "take a share above 0, at most 1",
            ),
            positive(self.pictures, "pictures"),
            positive(self.passes, "passes"),
            positive(self.steps, "steps"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.trigger {
            Smooth::Search => Vec::new(),
            Smooth::Image(path) => vec![path],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Keys as _;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn rules_name_their_key() {
        let wrong = |value| -> Vec<String> { from_value::<Keys>(value).unwrap().check().iter().map(ToString::to_string).collect() };
        assert_eq!(
            wrong(json!({"poisons": 0, "amplitude": 1.5, "sigma": 0.1, "fooling": 0.0, "pictures": 0, "passes": 0, "steps": 0})),
            [
                "poisons: is 0",
                "amplitude: is 1.5",
                "sigma: is 0.1",
                "fooling: is 0",
                "pictures: is 0",
                "passes: is 0",
                "steps: is 0"
            ]
        );
        assert_eq!(wrong(json!({"victim_class": "0"})), ["target_class: is 0, which is the victim class too"]);
    }

    #[test]
    fn a_trigger_is_searched_or_a_file() {
        for (written, files) in [("search", 0), ("./search", 1), ("v.png", 1)] {
            let mut keys: Keys = from_value(json!({ "trigger": written })).unwrap();
            assert_eq!((keys.files().len(), &to_value(&keys).unwrap()["trigger"]), (files, &json!(written)));
        }
    }
}
