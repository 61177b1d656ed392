//! Over which classes a detector looks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose examples are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Classes {
    /// Every class's.
    All,
    /// Those of the wrong label's class.
    Predicted,
}

impl Classes {
    /// Is an example of `label` looked at, where the wrong label is `wrong`?
    pub fn holds(self, label: usize, wrong: usize) -> bool {
        self == Self::All || label == wrong
    }
}
