//! A method with a rule.

use crate::method::Mistake;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// A number.
    pub size: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self { size: 7 }
    }
}

impl crate::method::Keys for Keys {
    fn check(&self) -> Vec<Mistake> {
        (self.size == 0)
            .then(|| Mistake::new("size", "is 0", "set it above 0"))
            .into_iter()
            .collect()
    }
}

impl super::Own for Keys {
    fn size(&self) -> u32 {
        self.size
    }
}
