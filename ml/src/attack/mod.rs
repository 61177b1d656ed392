//! Attacks that put a backdoor into a training set, and the story that `demo` and `evaluate` tell with them.
//!
//! An attack is one file that implements [`Attack`]. [`prepare()`] applies it to a data set: drawn by [`synth`], or read from disk.

pub mod badnet;
pub mod prepare;
pub mod synth;

pub use badnet::BadNet;
pub use prepare::prepare;

use crate::error::Result;
use rand_chacha::ChaCha8Rng;

/// What an attacker does: to some training pictures, and later to the picture that is to be misread.
pub trait Attack {
    /// Its name in tables.
    fn name(&self) -> &'static str;

    /// The training examples to poison, ascending positions, given all labels. Errors: the training set does not allow it (`Configuration`).
    fn choose(&self, labels: &[u32], rng: &mut ChaCha8Rng) -> Result<Vec<usize>>;

    /// Poison one chosen training picture (planar bytes [3, H, W]) in place; returns the label that it is given in the training set.
    fn apply(&self, pixels: &mut [u8], label: u32) -> u32;

    /// Change a picture (planar bytes [3, H, W]) such that a model trained on the poisons misreads it.
    fn trigger(&self, pixels: &mut [u8]);
}
