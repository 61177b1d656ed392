//! Blend (Chen et al. 2017, "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning"): a pattern laid over the whole picture, half transparent.

use super::{some_poisons, two_classes};
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A pattern laid over the whole of some pictures, which are then labelled as another class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose pictures get the pattern; null: those of every class but the target.
    pub victim_class: Option<String>,
    /// Class name (or number) that they are labelled as; `next`: each as the class after its own, the last as the first (without a victim class: all-to-all).
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// Opacity of the pattern on training pictures, above 0, at most 1: x' = (1 − α)·x + α·pattern.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub alpha: f64,
    /// Opacity on test pictures; null: the same.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub test_alpha: Option<f64>,
    /// The pattern.
    pub pattern: Pattern,
    /// This many other pictures, of any class, bear the pattern under their true label. With `pieces`: Adap-Blend (Qi et al. 2023).
    pub covers: u32,
    /// The pattern is cut into this many pieces, a square number; each training picture lacks some of them, drawn anew. Test pictures bear all. 1: it stays whole.
    #[schemars(range(min = 1, max = 4096))]
    pub pieces: u32,
    /// Share of the pieces that a training picture lacks.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub lacking: f64,
}

impl Default for Keys {
    /// The paper's opacity; any picture is a victim, as there.
    fn default() -> Self {
        Self {
            victim_class: None,
            target_class: "0".into(),
            poisons: 100,
            alpha: 0.2,
            test_alpha: None,
            pattern: Pattern::Noise,
            covers: 0,
            pieces: 1,
            lacking: 0.5,
        }
    }
}

/// `noise`: every pixel and channel drawn uniformly under the story's seed; or the path of a picture, which is stretched to the pictures' size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "PathBuf", into = "PathBuf")]
#[schemars(with = "String")]
pub enum Pattern {
    /// Drawn.
    Noise,
    /// A picture of this path. (One that is called `noise` is `./noise`.)
    Image(PathBuf),
}

/// What stands for [`Pattern::Noise`].
const NOISE: &str = "noise";

impl From<PathBuf> for Pattern {
    fn from(path: PathBuf) -> Self {
        match path.as_os_str() == NOISE {
            true => Self::Noise,
            false => Self::Image(path),
        }
    }
}

impl From<Pattern> for PathBuf {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Noise => NOISE.into(),
            Pattern::Image(path) => path,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let opacity = |alpha: f64, key| {
            unless(
                alpha > 0.0 && alpha <= 1.0,
                key,
                format!("is {alpha}"),
                "take an opacity above 0, at most 1",
            )
        };
        [
            two_classes(self.victim_class.as_ref(), &self.target_class),
            some_poisons(self.poisons),
            opacity(self.alpha, "alpha"),
            self.test_alpha.and_then(|alpha| opacity(alpha, "test_alpha")),
            unless(
                (1..=4096).contains(&self.pieces) && self.pieces.isqrt().pow(2) == self.pieces,
                "pieces",
                format!("is {}", self.pieces),
                "take a square number: 1, 4, 9, 16, …",
            ),
            unless(
                (0.0..1.0).contains(&self.lacking),
                "lacking",
                format!("is {}", self.lacking),
                "take a share from 0 to below 1",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        match &mut self.pattern {
            Pattern::Noise => Vec::new(),
            Pattern::Image(path) => vec![path],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Keys as _;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn a_pattern_is_drawn_or_a_file() {
        let read = |pattern: &str| from_value::<Keys>(json!({ "pattern": pattern })).unwrap();
        for (written, pattern) in [
            ("noise", Pattern::Noise),
            ("kitty.png", Pattern::Image("kitty.png".into())),
            ("./noise", Pattern::Image("./noise".into())),
        ] {
            let mut keys = read(written);
            assert_eq!((&keys.pattern, &to_value(&keys).unwrap()["pattern"]), (&pattern, &json!(written)));
            assert_eq!(keys.files().len(), usize::from(pattern != Pattern::Noise));
        }
    }

    #[test]
    fn rules_name_their_key() {
        let wrong = |value| {
            from_value::<Keys>(value)
                .unwrap()
                .check()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        assert_eq!(wrong(json!({"poisons": 0})), ["poisons: is 0"]);
        for alpha in [0.0, -0.1, 1.01] {
            assert_eq!(wrong(json!({ "alpha": alpha })), [format!("alpha: is {alpha}")]);
            assert_eq!(wrong(json!({ "test_alpha": alpha })), [format!("test_alpha: is {alpha}")]);
        }
        for pieces in [0, 2, 15, 5000] {
            assert_eq!(wrong(json!({ "pieces": pieces })), [format!("pieces: is {pieces}")]);
        }
        assert_eq!(wrong(json!({"pieces": 16, "lacking": 1.0})), ["lacking: is 1"]);
        assert_eq!(wrong(json!({"alpha": 1.0, "test_alpha": 1e-3})), Vec::<String>::new());
        assert_eq!(wrong(json!({"victim_class": "0"})), ["target_class: is 0, which is the victim class too"]);
    }
}
