//! WaNet (Nguyen & Tran 2021, "WaNet – Imperceptible Warping-based Backdoor Attack"): the trigger is a smooth warp of the whole picture.

use super::{some_poisons, two_classes};
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A smooth warp of some pictures, which are then labelled as another class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose pictures are warped; null: those of every class but the target.
    pub victim_class: Option<String>,
    /// Class name (or number) that they are labelled as; `next`: each as the class after its own.
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// Points per side of the grid whose displacements are drawn; between them they follow a cubic.
    #[schemars(range(min = 2, max = 256))]
    pub grid: u32,
    /// Strength: at the grid's points a picture is displaced by half as many pixels, on the mean and along each axis.
    #[schemars(range(min = 0.0))]
    pub strength: f64,
    /// Noise mode: this many other pictures keep their label and get the warp with noise of up to half a pixel in every pixel's displacement, so that only the warp itself is learnt.
    pub covers: u32,
}

impl Default for Keys {
    /// The paper's grid and strength.
    fn default() -> Self {
        Self {
            victim_class: None,
            target_class: "0".into(),
            poisons: 100,
            grid: 4,
            strength: 0.5,
            covers: 0,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        [
            two_classes(self.victim_class.as_ref(), &self.target_class),
            some_poisons(self.poisons),
            unless(
                (2..=256).contains(&self.grid),
                "grid",
                format!("is {}", self.grid),
                "take 2 to 256 points per side",
            ),
            unless(
                self.strength > 0.0 && self.strength.is_finite(),
                "strength",
                format!("is {}", self.strength),
                "take a strength above 0",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Keys as _;
    use serde_json::{from_value, json};

    #[test]
    fn rules_name_their_key() {
        let wrong = |value| -> Vec<String> { from_value::<Keys>(value).unwrap().check().iter().map(ToString::to_string).collect() };
        assert_eq!(
            wrong(json!({"poisons": 0, "grid": 1, "strength": 0.0})),
            ["poisons: is 0", "grid: is 1", "strength: is 0"]
        );
        assert_eq!(wrong(json!({"victim_class": "0"})), ["target_class: is 0, which is the victim class too"]);
    }
}
