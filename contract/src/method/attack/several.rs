//! Several attacks at once, on different training pictures: two triggers on one target, two targets, a backdoor beside label errors.

use super::{Attack, badnet};
use crate::method::{Method, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Several attacks at once, on different training pictures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The attacks, each as it stands alone. An attack takes the pictures that those before it left.
    pub attacks: Vec<Attack>,
    /// Whose test pictures are submitted and measured.
    pub measured: SuccessOf,
}

/// Whose test pictures are submitted and measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SuccessOf {
    /// Those of every attack; success is the share over all of them.
    #[default]
    All,
    /// Those of the first one.
    First,
}

impl Default for Keys {
    /// Two triggers on one target.
    fn default() -> Self {
        let square = badnet::Trigger::Square {
            size: 6,
            margin: 20,
            color: [255, 0, 255],
        };
        let second = badnet::Keys {
            trigger: square,
            ..badnet::Keys::default()
        };
        Self {
            attacks: vec![Attack::default(), Attack::Badnet(second)],
            measured: SuccessOf::All,
        }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        let few = unless(
            self.attacks.len() > 1,
            "attacks",
            format!("has {} of them", self.attacks.len()),
            "name two or more; one stands under attack itself",
        );
        let each = self.attacks.iter().enumerate().flat_map(|(n, attack)| {
            let section = format!("attacks.{n}");
            match attack {
                Attack::Several(_) => vec![Mistake::new(&section, "is several attacks itself", "name them all in one list")],
                other => other.check().into_iter().map(|mistake| mistake.below(&section)).collect(),
            }
        });
        few.into_iter().chain(each).collect()
    }

    fn files(&mut self) -> Vec<&mut PathBuf> {
        self.attacks.iter_mut().flat_map(Method::files).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Keys as _;
    use serde_json::{from_value, json};

    #[test]
    fn each_attack_is_checked_where_it_stands() {
        let wrong = |value| -> Vec<String> { from_value::<Keys>(value).unwrap().check().iter().map(ToString::to_string).collect() };
        assert_eq!(
            wrong(json!({"attacks": [{"method": "blend", "target_class": "3"}]})),
            ["attacks: has 1 of them"]
        );
        assert_eq!(
            wrong(json!({"attacks": [{"poisons": 0}, {"method": "several"}, {"method": "sig", "delta": 0.0}]})),
            ["attacks.0.poisons: is 0", "attacks.1: is several attacks itself", "attacks.2.delta: is 0"]
        );
        let mut keys: Keys =
            from_value(json!({"attacks": [{"trigger": {"kind": "image", "path": "a.png"}}, {"method": "blend", "pattern": "b.png"}]})).unwrap();
        assert_eq!(keys.files(), ["a.png", "b.png"].map(std::path::Path::new));
    }
}
