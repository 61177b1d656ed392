//! Exact unlearning: train again, as if the flagged examples had never been there.

use super::Own;
use crate::Recipe;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Train again from scratch without the flagged examples, by `recipe`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {}

impl crate::method::Keys for Keys {}

impl Own for Keys {
    fn about(&self) -> &'static str {
        "train again from scratch without the flagged examples"
    }

    fn effort(&self, recipe: &Recipe) -> String {
        format!("{} epochs from the start", recipe.epochs)
    }

    fn rests_on_recipe(&self) -> bool {
        true
    }
}
