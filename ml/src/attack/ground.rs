//! What an attacker stands on: the clean data, its choices under the story's seed.

use super::ball::Ball;
use super::pool::Pool;
use super::prepare::Workshop;
use crate::data::cifar::CifarKind;
use crate::data::manifest::some;
use crate::error::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::borrow::Cow;
use tch::{Device, Kind};

/// Pictures set aside as baits, where there are twice as many.
const BAITS: usize = 10;

/// What a generator is for: each purpose has its own, so that a change in one choice leaves the others as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draw {
    /// The story: training pictures of the source.
    Training = 1,
    /// The story: validation pictures of the source.
    Validation = 2,
    /// The story: the fifth that becomes the test part.
    TestPart = 3,
    /// Which examples are poisoned.
    Poisons = 4,
    /// Which test pictures are baits.
    Baits = 5,
    /// What a trigger looks like.
    Pattern = 6,
    /// Which examples are covers.
    Covers = 7,
    /// Where an optimisation begins, and its order.
    Search = 8,
    /// How the attacker's own networks are trained.
    Surrogates = 9,
    /// Which labels are drawn.
    Labels = 10,
    /// What each training picture lacks of a pattern.
    Masks = 11,
}

/// A generator for one purpose.
pub(super) fn generator(seed: u64, purpose: Draw) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    // Far from the streams of drawn pictures.
    rng.set_stream(u64::MAX - purpose as u64);
    rng
}

/// The clean data and what may be asked about them. Training examples are named by their position, test pictures by their row.
pub struct Ground<'a> {
    pub(super) classes: &'a [String],
    pub(super) size: (u32, u32),
    pub(super) form: Option<CifarKind>,
    pub(super) seed: u64,
    pub(super) train: &'a Pool<'a>,
    /// Position → row of `train`.
    pub(super) rows: Vec<usize>,
    pub(super) labels: Vec<u32>,
    pub(super) test: &'a Pool<'a>,
    pub(super) part: Vec<usize>,
    pub(super) workshop: &'a Workshop<'a>,
}

impl Ground<'_> {
    /// Class names in label order.
    pub fn classes(&self) -> &[String] {
        self.classes
    }

    /// The same ground with these training examples only, under another seed.
    pub(super) fn part(&self, left: &[usize], seed: u64) -> Ground<'_> {
        Ground {
            classes: self.classes,
            size: self.size,
            form: self.form,
            seed,
            train: self.train,
            rows: left.iter().map(|&at| self.rows[at]).collect(),
            labels: left.iter().map(|&at| self.labels[at]).collect(),
            test: self.test,
            part: self.part.clone(),
            workshop: self.workshop,
        }
    }

    /// Height and width of every picture.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// True labels of the training examples.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// A training picture, planar bytes [3, H, W].
    pub fn pixels(&self, at: usize) -> Cow<'_, [u8]> {
        self.train.pixels(self.rows[at])
    }

    /// Rows of the test part, ascending.
    pub fn test(&self) -> &[usize] {
        &self.part
    }

    /// True label of a test picture.
    pub fn test_label(&self, row: usize) -> u32 {
        self.test.labels[row]
    }

    /// A test picture, planar bytes [3, H, W].
    pub fn test_pixels(&self, row: usize) -> Cow<'_, [u8]> {
        self.test.pixels(row)
    }

    /// The story's generator for a purpose.
    pub fn rng(&self, purpose: Draw) -> ChaCha8Rng {
        generator(self.seed, purpose)
    }

    /// A class given by name or, where no class has that name, by number in label order.
    ///
    /// # Errors
    /// `Configuration` where there is none such, with the classes.
    pub fn class(&self, name: &str, key: &str) -> Result<u32> {
        let by_name = self.classes.iter().position(|c| c == name);
        let by_number = || name.parse::<usize>().ok().filter(|n| *n < self.classes.len());
        by_name.or_else(by_number).map(|i| i as u32).ok_or_else(|| {
            let known = if self.classes.len() <= 100 {
                self.classes.join(", ")
            } else {
                some(self.classes)
            };
            Error::configuration(format!("attack.{key}: there is no class {name}"), format!("the classes are {known}"))
        })
    }

    /// This many training examples of a class, ascending: all of it at most.
    ///
    /// # Errors
    /// `Configuration` where there are fewer.
    pub fn some_of(&self, class: u32, poisons: u32) -> Result<Vec<usize>> {
        let mut own: Vec<usize> = (0..self.labels.len()).filter(|&at| self.labels[at] == class).collect();
        if poisons as usize > own.len() {
            let message = format!(
                "attack.poisons is {poisons}, but there are {} training pictures of {}",
                own.len(),
                self.classes[class as usize]
            );
            return Err(Error::configuration(message, "lower attack.poisons or take more training pictures"));
        }
        own.shuffle(&mut self.rng(Draw::Poisons));
        own.truncate(poisons as usize);
        own.sort_unstable();
        Ok(own)
    }

    /// Where an attack computes.
    pub fn device(&self) -> Device {
        self.workshop.device
    }

    /// Pictures of this size as networks of the attacker's are given them, and how far each byte may go.
    pub(super) fn ball(&self, pictures: &[Cow<'_, [u8]>], epsilon: u32) -> Result<Ball> {
        Ball::around(pictures, self.size, epsilon, Kind::Float, self.device())
    }

    /// Baits and the pictures to measure on, of these test pictures; no picture is both. The measured ones in the test part's order.
    pub fn set_aside(&self, mut rows: Vec<usize>) -> (Vec<usize>, Vec<usize>) {
        rows.shuffle(&mut self.rng(Draw::Baits));
        let mut measured = rows.split_off(BAITS.min(rows.len() / 2));
        measured.sort_unstable();
        (rows, measured)
    }
}
