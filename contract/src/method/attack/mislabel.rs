//! Natural label errors: pictures that nobody touched, under a wrong label. Users meet them more often than any attacker.

use super::two_classes;
use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Labels that are wrong without any trigger: of a group of pictures that look alike, or here and there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// Which pictures are labelled wrongly.
    pub kind: Errors,
    /// Class name (or number in label order) of the pictures; null: of a group the class of one picture drawn among all but the target's, else every class.
    pub victim_class: Option<String>,
    /// Class name (or number) that a group is labelled as. Labels of `uniform` are drawn instead.
    pub target_class: String,
    /// Number of pictures that are labelled wrongly.
    pub poisons: u32,
    /// By what the pictures of a group are alike.
    pub likeness: Likeness,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            kind: Errors::Group,
            victim_class: None,
            target_class: "0".into(),
            poisons: 100,
            likeness: Likeness::Color,
        }
    }
}

/// Which pictures are labelled wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Errors {
    /// The pictures of one class that are most like one of them, itself included, which is drawn: all get the target's label.
    Group,
    /// Any, each under a label drawn evenly from the other classes.
    Uniform,
}

/// What is compared of two pictures: Euclidean distance of these figures, in levels of 0 to 255. No model is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Likeness {
    /// The mean of each channel.
    Color,
    /// The mean of all.
    Brightness,
    /// The mean colours of 4 × 4 fields: what is left of a picture that is seen from afar.
    Layout,
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        // Labels of `uniform` are drawn: the target says nothing there.
        let victim = self.victim_class.as_ref().filter(|_| self.kind == Errors::Group);
        [
            two_classes(victim, &self.target_class),
            unless(
                self.poisons > 0,
                "poisons",
                "is 0",
                "set it to the number of training pictures to label wrongly",
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
        assert_eq!(wrong(json!({"poisons": 0})), ["poisons: is 0"]);
        assert_eq!(wrong(json!({"victim_class": "0"})), ["target_class: is 0, which is the victim class too"]);
        assert_eq!(wrong(json!({"victim_class": "0", "kind": "uniform"})), Vec::<String>::new());
        assert!(from_value::<Keys>(json!({"likeness": "texture"})).is_err());
    }
}
