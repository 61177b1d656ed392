//! The stages of a case.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A stage of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, strum::IntoStaticStr, strum::VariantArray)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Stage {
    /// Decode the picture and predict it.
    Predict,
    /// Compute the factors, or find them on disk.
    Fit,
    /// Find the training examples.
    Trace,
    /// Ask policy.
    Decide,
    /// Train the candidate.
    Unlearn,
    /// Measure the candidate and judge it.
    Certify,
    /// Find out whether training examples stand out on the candidate that were not removed (`gate.regrowth`).
    Retrace,
    /// Publish the candidate; in `enforce`, move `current`.
    Publish,
    /// Write the report, queue the messages.
    Tell,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// Its name, as in the journal.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
