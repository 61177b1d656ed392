//! SIG (Barni, Kallas & Tondi 2019, "A new backdoor attack in CNNs by training set corruption without label poisoning"): a sinusoid over pictures of the target class, whose labels stay.

use super::{some_poisons, two_classes};
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A sinusoidal signal on pictures of the target class, whose labels stay (clean label).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) whose test pictures are to be misread; null: those of every class but the target.
    pub victim_class: Option<String>,
    /// Class name (or number) whose training pictures get the signal, and as which pictures with it are to be read.
    pub target_class: String,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// Amplitude on training pictures, in levels of 0 to 255: x' = x + Δ·sin(2π·column·frequency / width), cut off at 0 and 255.
    #[schemars(range(min = 0.0, max = 255.0))]
    pub delta: f64,
    /// Amplitude on test pictures; null: the same.
    #[schemars(range(min = 0.0, max = 255.0))]
    pub test_delta: Option<f64>,
    /// Periods over a picture's width.
    #[schemars(range(min = 0.0))]
    pub frequency: f64,
}

impl Default for Keys {
    /// The paper's frequency and its lower amplitude on pictures of colour.
    fn default() -> Self {
        Self {
            victim_class: None,
            target_class: "0".into(),
            poisons: 100,
            delta: 20.0,
            test_delta: None,
            frequency: 6.0,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let amplitude = |delta: f64, key| {
            unless(
                delta > 0.0 && delta <= 255.0,
                key,
                format!("is {delta}"),
                "take an amplitude above 0, at most 255",
            )
        };
        [
            two_classes(self.victim_class.as_ref(), &self.target_class),
            some_poisons(self.poisons),
            amplitude(self.delta, "delta"),
            self.test_delta.and_then(|delta| amplitude(delta, "test_delta")),
            unless(
                self.frequency > 0.0 && self.frequency.is_finite(),
                "frequency",
                format!("is {}", self.frequency),
                "take a number of periods above 0",
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
            wrong(json!({"poisons": 0, "delta": 0.0, "test_delta": 256.0, "frequency": -1.0})),
            ["poisons: is 0", "delta: is 0", "test_delta: is 256", "frequency: is -1"]
        );
        assert_eq!(wrong(json!({"victim_class": "0"})), ["target_class: is 0, which is the victim class too"]);
    }
}
