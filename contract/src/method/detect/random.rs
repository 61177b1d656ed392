//! `random`: examples of the wrong label drawn at random. The placebo of every table: what a repair owes to taking anything out at all.

use super::needs::{Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Random examples of the wrong label, as a placebo to compare with. It looks at nothing and finds nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// How many are drawn (of a smaller class: all).
    #[schemars(range(min = 1))]
    pub count: u32,
}

impl Default for Keys {
    fn default() -> Self {
        Self { count: 50 }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let some = unless(
            self.count > 0,
            "count",
            "is 0",
            "at least 1: as many as the method flags that it is compared with",
        );
        some.into_iter().collect()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        Needs::default()
    }
}
