//! `guard`, the default: Δ-Influence finds the seeds within the class of the wrong label, kin finds the rest, and it abstains unless the group stands out (algorithm §3).

use super::delta::{self, Delta, Objective};
use super::needs::{Clean, Detects, Needs};
use crate::method::{Keys as Settings, Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The default: seeds by Δ-Influence within the class of the wrong label, the rest by kin, "undecided" unless the group stands out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    #[allow(missing_docs, reason = "its keys are documented")]
    #[serde(flatten)]
    pub delta: Delta,
    /// Number of seeds. Small classes get fewer: one for every four of their examples, but five (or this number, if it is less).
    #[schemars(range(min = 1, max = 1000))]
    pub seeds: u32,
    /// α of the comparison with placebos, and of the kin cut where there are too few null pictures: z = Φ⁻¹(1 − α / n_c).
    pub alpha: f64,
    /// Rounds of kin are taken until the group stands, at most this many; a group that does not stand is told.
    #[schemars(range(min = 1, max = 1000))]
    pub rounds: u32,
    /// Number of placebos that the flagged group must stand out against.
    #[schemars(range(min = 1, max = 200))]
    pub placebos: u32,
    /// At most this many other clean validation pictures of class ŷ measure which kinship is natural (fewer than 50, or 0: the spread of the class itself does).
    #[schemars(range(min = 0, max = 10000))]
    pub null_pictures: u32,
    /// Number of clean examples that may be expected above a cut that null pictures set.
    pub chance: f64,
    /// Share of the kinship that features have in it (what the last layer reads), 0 to 1; the rest is that of gradients. Only where null pictures set the cut.
    #[schemars(range(min = 0, max = 1))]
    pub feature_weight: f64,
    /// Damping of the features' covariance over clean pictures of the class, as a factor of their mean variance.
    pub feature_damping: f64,
    /// Layer whose input the features are; null: the last linear one.
    pub feature_layer: Option<String>,
    /// A group that kin has founded is joined by all examples down to where this share of those with such a kinship must be expected to be clean, by the null pictures. 0: none join.
    #[schemars(range(min = 0, max = 1))]
    pub collect: f64,
    /// Compute the plain count rule over all examples too.
    pub plain: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            delta: Delta::default(),
            seeds: 20,
            alpha: 0.01,
            rounds: 30,
            placebos: 20,
            null_pictures: 300,
            chance: 0.1,
            feature_weight: 0.5,
            feature_damping: 0.1,
            feature_layer: None,
            collect: 0.2,
            plain: false,
        }
    }
}

impl Settings for Keys {
    fn check(&self) -> Vec<Mistake> {
        let (alpha, chance) = (self.alpha, self.chance);
        let own = [
            unless(
                alpha > 0.0 && alpha < 1.0,
                "alpha",
                format!("{alpha} is not between 0 and 1"),
                "an error rate; the default is 0.01",
            ),
            unless(
                chance > 0.0 && chance.is_finite(),
                "chance",
                format!("{chance} is not above 0"),
                "a number of examples; the default is 0.1",
            ),
            unless(
                (0.0..=1.0).contains(&self.feature_weight),
                "feature_weight",
                format!("{} is not between 0 and 1", self.feature_weight),
                "a share of the kinship; the default is 0.5",
            ),
            unless(
                self.feature_damping > 0.0 && self.feature_damping.is_finite(),
                "feature_damping",
                format!("{} is not above 0", self.feature_damping),
                "a factor of the features' mean variance; the default is 0.1",
            ),
            unless(
                (0.0..=1.0).contains(&self.collect),
                "collect",
                format!("{} is not between 0 and 1", self.collect),
                "a share of clean examples; the default is 0.2, and 0 collects none",
            ),
            unless(self.seeds > 0, "seeds", "is 0", "at least 1; the default is 20"),
            unless(self.rounds > 0, "rounds", "is 0", "at least 1; the default is 30"),
            unless(self.placebos > 0, "placebos", "is 0", "at least 1; the default is 20"),
        ];
        self.delta.check().into_iter().chain(own.into_iter().flatten()).collect()
    }
}

impl Detects for Keys {
    fn needs(&self) -> Needs {
        // Where only directions count, which is everything that is divided by √self-influence and every count at τ = 0, the margin's gradient says the
        // same as the loss's and keeps the examples that the model is surest of (poisons) out of the range where 1 − p_y is lost.
        let of_examples = if self.delta.tau == 0.0 { Objective::Margin } else { Objective::Loss };
        Needs {
            factors: Some(delta::influence(&self.delta, of_examples)),
            validation: Some(Clean {
                placebos: self.placebos,
                null_pictures: self.null_pictures,
            }),
            features: self.feature_weight > 0.0,
            ..Needs::default()
        }
    }

    fn may_unlearn(&self) -> bool {
        true
    }
}
