//! Settings of the detector: what the user writes ([`DetectConfig`]) and what it means ([`DetectSettings`]).
//!
//! A mode is a set of defaults; every key that is written overrides its mode's default.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the user writes. Keys that are left out come from `mode`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DetectConfig {
    /// `guard` (Δ-Influence finds the seeds, kin finds the rest), `paper-code` (what produced the published numbers) or `paper-text`.
    pub mode: DetectMode,
    /// Seed of labels, transforms, Fisher labels, the fit subset and the placebos. Unset: derived for each case (and once for the factors, which cases share) from the secret of this installation, the file `seed` in `paths.state`: an attacker cannot know it, and a repeat gives the same.
    pub seed: Option<u64>,
    /// Number of transformed queries n_b (paper: 50).
    #[schemars(range(min = 1, max = 1000))]
    pub queries: Option<u32>,
    /// τ: a shift counts when Δ < τ (paper searches 0, −1, −5, −10, −100).
    pub tau: Option<f64>,
    /// n_tol: an example is flagged by the count rule when at least `queries` − n_tol shifts count.
    pub n_tol: Option<u32>,
    /// What a query's gradient is taken of.
    pub objective: Option<Objective>,
    /// Labels of the Fisher matrix.
    pub fisher: Option<Fisher>,
    /// Damping of the inverse.
    pub damping: Option<Damping>,
    /// Where the transforms act.
    pub space: Option<Space>,
    /// How the random labels are drawn.
    pub labels: Option<Labels>,
    /// What is changed in a query (the paper's ablations are `image` and `label`).
    pub change: Option<Change>,
    /// How several anomalies are joined.
    pub combine: Option<Combine>,
    /// Examples that the factors are fitted on, drawn at random (0: all).
    pub fit_examples: Option<u32>,
    /// Numbers: `f32`, or `f64` for checks.
    pub precision: Option<Precision>,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Option<Vec<String>>,
    /// `guard`: number of seeds. Small classes get fewer: one for every four of their examples, but five (or this number, if it is less).
    #[schemars(range(min = 1, max = 1000))]
    pub seeds: Option<u32>,
    /// `guard`: α of the comparison with placebos, and of the kin cut where there are too few null pictures: z = Φ⁻¹(1 − α / n_c).
    pub alpha: Option<f64>,
    /// `guard`: rounds of kin are taken until the group stands, at most this many; a group that does not stand is told.
    #[schemars(range(min = 1, max = 1000))]
    pub rounds: Option<u32>,
    /// `guard`: number of placebos that the flagged group must stand out against.
    #[schemars(range(min = 1, max = 200))]
    pub placebos: Option<u32>,
    /// `guard`: at most this many other clean validation pictures of class ŷ measure which kinship is natural (fewer than 50, or 0: the spread of the class itself does).
    #[schemars(range(min = 0, max = 10000))]
    pub null_pictures: Option<u32>,
    /// `guard`: number of clean examples that may be expected above a cut that null pictures set.
    pub chance: Option<f64>,
    /// Compute the plain count rule over all examples too.
    pub plain: Option<bool>,
    /// May a candidate be made of what this mode flags? `guard`: true. The paper's modes flag many clean examples, too, and never abstain: false, and a case is only observed whatever `mode` says.
    pub allow_unlearn: Option<bool>,
}

/// Detector mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DetectMode {
    /// The default: seeds by Δ-Influence within the class of the wrong label, the rest by kin, "undecided" unless the group stands out (algorithm §3).
    #[default]
    Guard,
    /// The count rule as the authors' notebooks compute it (algorithm §1–2).
    PaperCode,
    /// The count rule as the paper's text says.
    PaperText,
}

impl DetectMode {
    /// Its name, as it is written in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            DetectMode::Guard => "guard",
            DetectMode::PaperCode => "paper-code",
            DetectMode::PaperText => "paper-text",
        }
    }

    /// May a candidate be made of what this mode flags? The paper's count rule holds nothing against placebos, so only where the owner says so (`detect.allow_unlearn`).
    pub fn may_unlearn(self, allow_unlearn: Option<bool>) -> bool {
        allow_unlearn.unwrap_or(self == DetectMode::Guard)
    }
}

/// What a query's gradient is taken of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// −(z_y − logsumexp of the other logits).
    Margin,
    /// Cross-entropy.
    Loss,
}

/// Labels of the Fisher matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fisher {
    /// Drawn from the model's own softmax, seeded per example.
    True,
    /// The training labels.
    Empirical,
}

/// Damping d of 1/(Λ + d).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Damping {
    /// d = factor · mean(Λ) of the layer.
    Heuristic {
        /// 0.1 in the literature.
        factor: f64,
    },
    /// d = value.
    Absolute {
        /// 1e-8 in kronfluence.
        value: f64,
    },
}

/// Where the transforms act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// On the picture in [0, 1], normalised afterwards.
    Pixels,
    /// On the normalised tensor (the authors' code).
    Normalised,
}

/// How the random labels are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Labels {
    /// Uniform over all classes but ŷ, with replacement.
    Independent,
    /// Distinct while there are enough classes (the code's 100-class runs), with replacement otherwise.
    Distinct,
}

/// What is changed in a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Image and label.
    Both,
    /// Image only; the label stays ŷ.
    Image,
    /// Label only; the image stays.
    Label,
}

/// How several anomalies are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// Intersect the flagged sets.
    Intersect,
    /// Pool all m · n_b counts.
    Pool,
}

/// Kind of number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32 bit.
    F32,
    /// 64 bit.
    F64,
}

/// What [`DetectConfig`] means: no options left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[allow(missing_docs, reason = "fields are those of DetectConfig")]
pub struct DetectSettings {
    pub mode: DetectMode,
    /// Never written anywhere: it may come from the installation's secret. [`crate::TraceReport`] tells the seeds that are none.
    #[serde(default, skip_serializing)]
    pub seed: u64,
    pub queries: u32,
    pub tau: f64,
    pub n_tol: u32,
    pub objective: Objective,
    pub fisher: Fisher,
    pub damping: Damping,
    pub space: Space,
    pub labels: Labels,
    pub change: Change,
    pub combine: Combine,
    pub fit_examples: u32,
    pub precision: Precision,
    pub layers: Vec<String>,
    pub seeds: u32,
    pub alpha: f64,
    pub rounds: u32,
    pub placebos: u32,
    #[serde(default)] // reports of before have none
    pub null_pictures: u32,
    #[serde(default)]
    pub chance: f64,
    pub plain: bool,
    /// Reports of before have none.
    #[serde(default)]
    pub allow_unlearn: bool,
}

impl DetectConfig {
    /// Fill what is left out with the defaults of the mode. `case_seed` is used where no seed is configured; `classes` decides how
    /// `paper-code` draws its labels (distinct on more than 10 classes).
    pub fn resolve(&self, case_seed: u64, classes: usize) -> DetectSettings {
        let guard = self.mode == DetectMode::Guard;
        let code = self.mode == DetectMode::PaperCode;
        DetectSettings {
            mode: self.mode,
            seed: self.seed.unwrap_or(case_seed),
            queries: self.queries.unwrap_or(50),
            tau: self.tau.unwrap_or(0.0),
            n_tol: self.n_tol.unwrap_or(if code { 2 } else { 1 }),
            objective: self.objective.unwrap_or(if self.mode == DetectMode::PaperText {
                Objective::Loss
            } else {
                Objective::Margin
            }),
            fisher: self.fisher.unwrap_or(Fisher::True),
            damping: self.damping.unwrap_or(if guard {
                Damping::Heuristic { factor: 0.1 }
            } else {
                Damping::Absolute { value: 1e-8 }
            }),
            space: self.space.unwrap_or(if code { Space::Normalised } else { Space::Pixels }),
            labels: self
                .labels
                .unwrap_or(if code && classes > 10 { Labels::Distinct } else { Labels::Independent }),
            change: self.change.unwrap_or(Change::Both),
            combine: self.combine.unwrap_or(Combine::Intersect),
            fit_examples: self.fit_examples.unwrap_or(if guard { 1000 } else { 0 }),
            precision: self.precision.unwrap_or(Precision::F32),
            layers: self.layers.clone().unwrap_or_default(),
            seeds: self.seeds.unwrap_or(20),
            alpha: self.alpha.unwrap_or(0.01),
            rounds: self.rounds.unwrap_or(30),
            placebos: self.placebos.unwrap_or(20),
            null_pictures: self.null_pictures.unwrap_or(300),
            chance: self.chance.unwrap_or(0.1),
            plain: self.plain.unwrap_or(!guard),
            allow_unlearn: self.mode.may_unlearn(self.allow_unlearn),
        }
    }
}
