//! What a detector needs of the world before it can say anything.

use super::delta::{Damping, Fisher, Objective, Precision};

/// What guard and worker ask of a detector's settings.
pub trait Detects {
    /// What it needs. Nothing else is opened for it, and nothing is fitted that it does not ask for.
    fn needs(&self) -> Needs;

    /// May a candidate be made of what it flags, where the owner does not say (`detect.allow_unlearn`)? Only of a detector that abstains where it cannot be sure.
    fn may_unlearn(&self) -> bool {
        false
    }
}

/// What a detector needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Influence scores, and the EK-FAC factors that they rest on. None: its cases have no fit stage.
    pub factors: Option<Influence>,
    /// Influence scores without curvature: P is the identity. Nothing is fitted, and what is said of Fisher matrix, damping and fit stands for nothing.
    pub gradients: Option<Influence>,
    /// Clean validation pictures of the wrong label's class. None: the validation set is not opened.
    pub validation: Option<Clean>,
    /// Activations of the training examples.
    pub features: bool,
    /// The training examples' pictures.
    pub pictures: bool,
}

impl Needs {
    /// Kind of number of the model.
    pub fn precision(&self) -> Precision {
        self.influence().map_or(Precision::F32, |influence| influence.precision)
    }

    /// Influence scores of either kind.
    pub fn influence(&self) -> Option<&Influence> {
        self.factors.as_ref().or(self.gradients.as_ref())
    }
}

/// How influence is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct Influence {
    /// What a query's gradient is taken of.
    pub objective: Objective,
    /// What a training example's gradient is taken of.
    pub of_examples: Objective,
    /// Labels of the Fisher matrix.
    pub fisher: Fisher,
    /// Damping of the inverse.
    pub damping: Damping,
    /// Examples that the factors are fitted on, drawn at random (0: all).
    pub fit_examples: u32,
    /// Only layers whose name starts with one of these (empty: all).
    pub layers: Vec<String>,
    /// Kind of number.
    pub precision: Precision,
}

/// How many clean pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clean {
    /// Rightly read ones, to hold a group against.
    pub placebos: u32,
    /// At most this many others, however they are read.
    pub null_pictures: u32,
}
