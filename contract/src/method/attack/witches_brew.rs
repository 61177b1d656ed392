//! Witches' Brew (Geiping et al. 2021, "Witches' Brew: Industrial Scale Data Poisoning via Gradient Matching"; algorithm §5): pictures that keep their label and teach one other picture's misreading.

use super::{between, some_poisons};
use crate::Augment;
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pictures of one class, changed a little and rightly labelled, whose gradient is that of reading one test picture as their class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Class name (or number in label order) of the picture that is to be misread; null: any but the target class.
    pub victim_class: Option<String>,
    /// Class name (or number) that it is to be read as; the poisons are pictures of it.
    pub target_class: String,
    /// The picture's number among the test pictures, from 0; null: one is drawn that the attacker's networks read rightly.
    pub picture: Option<u32>,
    /// Number of poisoned training pictures.
    pub poisons: u32,
    /// No byte of a picture is changed by more than this.
    #[schemars(range(min = 1, max = 255))]
    pub epsilon: u32,
    /// Steps of the search.
    pub iterations: u32,
    /// Its first step width, in standard deviations of a channel; a tenth after 3/8, 5/8 and 7/8 of the steps.
    #[schemars(range(min = 0.0))]
    pub lr: f64,
    /// Random starts, of which the one with the best match is kept.
    #[schemars(range(min = 1, max = 1000))]
    pub restarts: u32,
    /// The attacker's own networks, which are like the victim and trained on the clean pictures.
    #[schemars(range(min = 1, max = 100))]
    pub surrogates: u32,
    /// Random changes under which the search looks at the poisons; null: those of the victim's recipe.
    pub augment: Option<Augment>,
    /// Poisons whose mean gradient is matched together.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
}

impl Default for Keys {
    /// The published search; the published numbers of starts and of pictures are for larger sets.
    fn default() -> Self {
        Self {
            victim_class: None,
            target_class: "0".into(),
            picture: None,
            poisons: 100,
            epsilon: 16,
            iterations: 250,
            lr: 0.1,
            restarts: 1,
            surrogates: 1,
            augment: None,
            batch_size: 512,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let both = format!("is {}, which is the victim class too", self.target_class);
        let rules = [
            unless(
                self.victim_class.as_ref() != Some(&self.target_class),
                "target_class",
                both,
                "choose two classes",
            ),
            some_poisons(self.poisons),
            between(self.epsilon, 1, 255, "epsilon"),
            unless(
                self.lr.is_finite() && self.lr > 0.0,
                "lr",
                format!("is {}", self.lr),
                "take a step width above 0",
            ),
            between(self.restarts, 1, 1000, "restarts"),
            between(self.surrogates, 1, 100, "surrogates"),
            between(self.batch_size, 1, 65536, "batch_size"),
        ];
        let augment = self.augment.iter().flat_map(Augment::check);
        rules.into_iter().flatten().chain(augment).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Keys as _;
    use serde_json::{from_value, json};

    #[test]
    fn rules_name_their_key() {
        let wrong = |value| {
            let keys: Keys = from_value(value).unwrap();
            keys.check().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let crop = json!({"crop": {"scale": [0.5, 2.0], "ratio": [1.0, 1.0]}});
        for (value, said) in [
            (json!({"poisons": 0}), "poisons: is 0"),
            (json!({"epsilon": 0}), "epsilon: is 0"),
            (json!({"epsilon": 256}), "epsilon: is 256"),
            (json!({"lr": 0.0}), "lr: is 0"),
            (json!({"restarts": 0}), "restarts: is 0"),
            (json!({"surrogates": 101}), "surrogates: is 101"),
            (json!({"batch_size": 0}), "batch_size: is 0"),
            (json!({"victim_class": "0"}), "target_class: is 0, which is the victim class too"),
            (
                json!({ "augment": crop }),
                "augment.crop.scale: is not two rising numbers above 0, at most 1",
            ),
        ] {
            assert_eq!(wrong(value), [said]);
        }
        assert_eq!(
            wrong(json!({"iterations": 0, "epsilon": 255, "augment": {"flip": false}})),
            Vec::<String>::new()
        );
    }
}
