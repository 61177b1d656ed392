//! May it be done? Modes, caps, gate limits. Pure functions: no clock, no file, no randomness in here.

pub mod caps;
mod decide;
mod gate;

pub use caps::{Caps, PastPromotion, Spent};
pub use decide::{Action, Decision, Found, decide};
pub use gate::{GateLimits, GateVerdict, Known, Reading, how_often, judge, mcnemar, needed};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How far the guard may act by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Name the training examples and report; nothing is unlearned.
    Observe,
    /// Also make, check and publish a candidate; a person promotes it.
    #[default]
    Propose,
    /// Also move the `current` link to the candidate when the gate passes.
    Enforce,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Observe => "observe",
            Mode::Propose => "propose",
            Mode::Enforce => "enforce",
        })
    }
}
