//! Detectors: their settings, and what guard and worker may ask of these.

mod classes;
pub mod delta;
pub mod needs;

#[cfg(test)]
mod tests;

pub use classes::Classes;
pub use delta::{Change, Combine, Damping, Delta, Fisher, Labels, Objective, Precision, Space};
pub use needs::{Clean, Detects, Influence, Needs};

use super::{Common, Method, Section};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

crate::method::methods! {
    /// How the training examples behind an anomaly are found.
    Detector as Detects, "detector";
    Guard(guard) = "guard",
    PaperCode(paper_code) = "paper-code",
    PaperText(paper_text) = "paper-text",
    ActivationClustering(activation_clustering) = "activation-clustering",
    SpectralSignatures(spectral_signatures) = "spectral-signatures",
    FeatureNeighbours(feature_neighbours) = "feature-neighbours",
    Random(random) = "random",
    Frequency(frequency) = "frequency",
    EkfacThreshold(ekfac_threshold) = "ekfac-threshold",
    GradientCosine(gradient_cosine) = "gradient-cosine",
}

/// The section `detect` of a configuration.
pub type DetectConfig = Section<Shared, Detector>;

/// What every detector has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shared {
    /// Seed of all that is drawn (labels, transforms, Fisher labels, the fit subset, placebos). Unset: derived for each case (and once for the factors, which cases share) from the secret of this installation, the file `seed` in `paths.state`: an attacker cannot know it, and a repeat gives the same.
    pub seed: Option<u64>,
    /// May a candidate be made of what this method flags? Unset: of what `guard` flags, which abstains where it cannot be sure; the other methods' cases are only observed, whatever `mode` says.
    pub allow_unlearn: Option<bool>,
}

impl Common for Shared {
    const KEYS: &'static [&'static str] = &["seed", "allow_unlearn"];
    const MOVED: &'static [(&'static str, &'static str)] = &[("mode", "it is called `method`")];
}

impl DetectConfig {
    /// What the method needs.
    pub fn needs(&self) -> Needs {
        self.method.own().needs()
    }

    /// May a candidate be made of what it flags?
    pub fn may_unlearn(&self) -> bool {
        may_unlearn(self.method.name(), self.common.allow_unlearn)
    }

    /// The same with this seed, unless it has one.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.common.seed.get_or_insert(seed);
        self
    }

    /// The same with nothing left to be decided but the seed: for reports.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        self.common.allow_unlearn = Some(self.may_unlearn());
        self
    }
}

/// May a candidate be made of what the method of this name flagged? A method that there is no more may not.
pub fn may_unlearn(name: &str, allow_unlearn: Option<bool>) -> bool {
    allow_unlearn.unwrap_or_else(|| Detector::named(name).is_some_and(|method| method.own().may_unlearn()))
}

/// Reads settings in a trace report of this version, or of the first, whose methods were called modes and wrote each other's keys.
///
/// # Errors
/// As [`DetectConfig`].
pub fn of_any_version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DetectConfig, D::Error> {
    use serde::de::Error;
    let mut keys = Map::<String, Value>::deserialize(deserializer)?;
    if let Some(mode) = keys.remove("mode") {
        let method = mode.as_str().and_then(Detector::named).unwrap_or_default();
        if let Ok(Value::Object(own)) = serde_json::to_value(method) {
            keys.retain(|key, _| own.contains_key(key) || Shared::KEYS.contains(&key.as_str()));
        }
        keys.insert(super::METHOD.into(), mode);
    }
    serde_json::from_value(Value::Object(keys)).map_err(D::Error::custom)
}
