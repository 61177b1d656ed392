//! Attacks on training data, and the story that `demo` and `evaluate` tell with them.
//!
//! An attack is one file that implements [`Attack`] for its settings, and one line in [`of`]. [`prepare()`] carries out its [`Plan`] on a data set: drawn by [`synth`], or read from disk.

mod backdoor;
pub mod badnet;
mod ball;
mod blend;
mod ground;
mod matching;
mod mislabel;
mod misread;
mod none;
mod pool;
pub mod prepare;
mod several;
mod sig;
mod smooth;
mod surrogate;
pub mod synth;
mod wanet;
mod witches_brew;

pub use backdoor::{Aim, Backdoor, Bearers, Victims};
pub use ground::{Draw, Ground};
pub use prepare::{Workshop, prepare};
pub use surrogate::Surrogate;

use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::method::attack::Attack as Settings;
use delta_guard_contract::method::{Method, Mistake};
use std::rc::Rc;

/// What an attacker does: to training pictures, and to the pictures that are to be misread.
pub trait Attack {
    /// Which training examples are changed and how, and by which pictures its success is measured.
    ///
    /// # Errors
    /// `Configuration` where the data do not allow it.
    fn plan(&self, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Plan>;

    /// Is its plan without any change? Of every other attack such a plan is a defect.
    fn changes_nothing(&self) -> bool {
        false
    }
}

/// The registry.
pub fn of(settings: &Settings) -> &dyn Attack {
    match settings {
        Settings::Badnet(keys) => keys,
        Settings::Blend(keys) => keys,
        Settings::Mislabel(keys) => keys,
        Settings::WitchesBrew(keys) => keys,
        Settings::Sig(keys) => keys,
        Settings::Wanet(keys) => keys,
        Settings::Smooth(keys) => keys,
        Settings::Several(keys) => keys,
        Settings::None(keys) => keys,
    }
}

/// The plan of an attack whose settings keep its rules.
///
/// # Errors
/// `Configuration`: the settings themselves, or the data do not allow it.
pub fn plan(settings: &Settings, ground: &Ground<'_>, report: &mut dyn Report) -> Result<Plan> {
    refused(&settings.check())?;
    let attack = of(settings);
    let plan = attack.plan(ground, report)?;
    plan.check(ground, settings.name(), attack.changes_nothing())?;
    Ok(plan)
}

fn refused(mistakes: &[Mistake]) -> Result<()> {
    let Some(first) = mistakes.first() else { return Ok(()) };
    let sentences: Vec<String> = mistakes.iter().map(|m| m.sentence("attack")).collect();
    Err(Error::configuration(sentences.join("; "), first.help.clone()))
}

/// Changes a picture (planar bytes [3, H, W]) in place.
pub type Paint = Rc<dyn Fn(&mut [u8])>;

/// What is to be done.
pub struct Plan {
    /// What is done, in few words: `disc → star`.
    pub summary: String,
    /// Training examples that are changed, by ascending position.
    pub changes: Vec<Change>,
    /// Test pictures that are to be misread, to choose the one from that is submitted.
    pub baits: Vec<Tested>,
    /// Test pictures that success is measured on.
    pub measured: Vec<Tested>,
    /// Name, pictures and sentence of that measure, as [`delta_guard_contract::job::Success`] has them.
    pub success: [String; 3],
}

/// A training example that is changed.
pub struct Change {
    /// Its position among the training examples.
    pub at: usize,
    /// Poison, or cover?
    pub role: Role,
    /// The label that it is given.
    pub label: u32,
    /// What is done to its pixels.
    pub paint: Paint,
}

/// What a changed training example is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The attack works by it.
    Poison,
    /// It hides the poisons, under its true label.
    Cover,
}

/// A test picture and what it is to be read as.
pub struct Tested {
    /// Its row in the test pool, see [`Ground::test`].
    pub row: usize,
    /// The label that counts as success.
    pub label: u32,
    /// What is done to its pixels before it is submitted; [`untouched`] where nothing is.
    pub paint: Paint,
}

/// Leaves a picture as it is.
pub fn untouched() -> Paint {
    Rc::new(|_| {})
}

impl Plan {
    /// What every attack must keep to. What is broken here is the method's fault.
    fn check(&self, ground: &Ground<'_>, name: &str, changes_nothing: bool) -> Result<()> {
        let labels = ground.labels();
        let known = |label: u32| (label as usize) < ground.classes().len();
        let wrong = match self {
            _ if !self.changes.is_sorted_by(|a, b| a.at < b.at) => "examples that are not in order",
            _ if self.changes.iter().any(|c| c.at >= labels.len() || !known(c.label)) => "an example or a label that there is not",
            _ if self.changes.iter().any(|c| c.role == Role::Cover && c.label != labels[c.at]) => "a cover under another label",
            _ if changes_nothing && !self.changes.is_empty() => "a change",
            _ if !changes_nothing && !self.changes.iter().any(|c| c.role == Role::Poison) => "no poison",
            _ if self.baits.is_empty() || self.measured.is_empty() => "no picture to be misread",
            _ if self
                .baits
                .iter()
                .chain(&self.measured)
                .any(|t| !ground.test().contains(&t.row) || !known(t.label)) =>
            {
                "a test picture or a label that there is not"
            }
            _ => return Ok(()),
        };
        Err(Error::internal(format!("attack {name} planned {wrong}")))
    }
}

#[cfg(test)]
mod tests;
