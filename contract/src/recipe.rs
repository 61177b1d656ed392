//! How a model is trained.
//!
//! Doc comments are the documentation of the keys: they become the JSON schema, and a test holds `config/delta-guard.yaml` against it.

use crate::method::{Mistake, unless};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the production model was trained, and how `eu` trains it again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Recipe {
    /// Passes over the training set.
    #[schemars(range(min = 1, max = 10000))]
    pub epochs: u32,
    /// Examples per step.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Highest learning rate of the schedule.
    #[schemars(range(min = 0.0))]
    pub lr: f64,
    /// How a step is taken.
    #[serde(skip_serializing_if = "Optimizer::is_sgd")]
    pub optimizer: Optimizer,
    /// Momentum of `sgd`, 0 to below 1.
    #[schemars(range(min = 0.0, max = 0.9999))]
    pub momentum: f64,
    /// Nesterov's form of the momentum.
    pub nesterov: bool,
    /// Weight decay on every parameter, batch norm's included: an L2 penalty of `sgd`, decoupled from the gradient in `adamw`.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// No weight decay on parameters with one dimension at most (norms) and on those whose names end in `.bias`.
    #[serde(skip_serializing_if = "is_false")]
    pub no_decay_norm_bias: bool,
    /// Longest norm of all gradients together; a longer one is shortened to it. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
    /// Course of the learning rate.
    pub schedule: Schedule,
    /// Share of each label that is spread evenly over all classes.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
    /// Random changes of the training pictures.
    pub augment: Augment,
    /// Mix whole pictures and their labels, two by two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mixup: Option<Mixing>,
    /// Put a box of one picture into another and mix their labels by area. With `mixup` as well, each batch has one of the two, with the same chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cutmix: Option<Mixing>,
    /// Decay of a moving average of the weights, per step, such as 0.9999; the average is then the model. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<f64>,
    /// The checkpoint that training began with (safetensors), where that was no random one: pretrained weights. Unset: random ones, by `seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Seed of initialisation, order and augmentation.
    pub seed: u64,
}

impl Default for Recipe {
    /// The paper's victims: 40 epochs of SGD with Nesterov momentum, ×0.1 at 14, 24, 35; of fewer or more epochs, at the same shares.
    fn default() -> Self {
        Self {
            epochs: 40,
            batch_size: 128,
            lr: 0.1,
            optimizer: Optimizer::Sgd,
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            no_decay_norm_bias: false,
            clip_norm: None,
            schedule: Schedule::Step {
                milestones: vec![0.35, 0.6, 0.875],
                gamma: 0.1,
            },
            label_smoothing: 0.0,
            augment: Augment::default(),
            mixup: None,
            cutmix: None,
            ema: None,
            init: None,
            seed: 0,
        }
    }
}

/// Is a key left out of jobs and records where it says what was always so? Then what an older version began goes on.
fn is_false(value: &bool) -> bool {
    !*value
}

/// See [`is_false`].
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// How a step is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent with `momentum` and `nesterov`.
    #[default]
    Sgd,
    /// Adam with decoupled weight decay, as PyTorch's.
    Adamw {
        /// How much of the first and of the second moment is kept in a step.
        #[serde(default = "default_betas")]
        betas: [f64; 2],
        /// Added to the root of the second moment.
        #[serde(default = "default_eps")]
        eps: f64,
    },
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

impl Optimizer {
    fn is_sgd(&self) -> bool {
        *self == Self::Sgd
    }
}

/// How often and how evenly pictures are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mixing {
    /// The share of a batch's own pictures is drawn from Beta(alpha, alpha): 1 evenly, lower values nearer to 0 and 1.
    pub alpha: f64,
    /// Share of the batches that are mixed.
    #[serde(default = "default_probability")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub probability: f64,
}

fn default_probability() -> f64 {
    1.0
}

/// Course of the learning rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Schedule {
    /// `lr` throughout.
    Constant,
    /// × `gamma` at each of the `milestones`.
    Step {
        /// Whole numbers: epochs, counted from 0, at whose start the rate falls. Below 1: shares of the whole training.
        milestones: Vec<f64>,
        /// Factor.
        gamma: f64,
    },
    /// Half a cosine from `lr` to 0, per step.
    Cosine,
    /// Cosine up from lr/25 to `lr` in the first `warmup` share of the steps, then cosine down to lr/250000 (PyTorch's OneCycleLR).
    OneCycle {
        /// Share of the steps, 0 to 1; PyTorch's default is 0.3.
        #[serde(default = "default_warmup")]
        warmup: f64,
    },
    /// A straight rise to `lr`, then half a cosine down (PyTorch's LinearLR before CosineAnnealingLR).
    WarmupCosine {
        /// How long it rises: a whole number of epochs, or a share of the training below 1.
        warmup: f64,
        /// What it begins with, as a share of `lr`. torchvision's reference script has 0.01.
        #[serde(default = "default_start")]
        start: f64,
        /// The learning rate that it ends near.
        #[serde(default)]
        least: f64,
        /// Change once an epoch, not at each step.
        #[serde(default)]
        by_epoch: bool,
    },
}

fn default_warmup() -> f64 {
    0.3
}

fn default_start() -> f64 {
    0.01
}

impl Recipe {
    /// Every rule that the schema cannot say and that does not hold.
    pub fn check(&self) -> Vec<Mistake> {
        let mut found = self.schedule.check(self.epochs);
        found.extend(unless(self.lr > 0.0, "lr", "is not above 0", "the paper trains with 0.1"));
        found.extend(self.optimizer.check(self.lr));
        let above = |key: &str, value: Option<f64>, usual: &str| unless(value.is_none_or(|value| value > 0.0), key, "is not above 0", usual);
        found.extend(above("clip_norm", self.clip_norm, "leave it out for gradients as they are"));
        for (key, mixing) in [("mixup", self.mixup), ("cutmix", self.cutmix)] {
            let alpha = mixing.map(|mixing| mixing.alpha);
            found.extend(above(
                &format!("{key}.alpha"),
                alpha,
                "torchvision's reference takes 0.2 for mixup and 1.0 for cutmix",
            ));
        }
        let average = self.ema.is_none_or(|decay| decay > 0.0 && decay < 1.0);
        found.extend(unless(
            average,
            "ema",
            "is not between 0 and 1",
            "0.9999 keeps 10,000 steps, 0.99 keeps 100; leave it out for none",
        ));
        found.extend(self.augment.check());
        found
    }
}

impl Optimizer {
    fn check(&self, lr: f64) -> Vec<Mistake> {
        let Self::Adamw { betas, eps } = self else { return Vec::new() };
        let mut found = Vec::new();
        for (n, beta) in betas.iter().enumerate() {
            let holds = (0.0..1.0).contains(beta);
            found.extend(unless(
                holds,
                &format!("optimizer.betas.{n}"),
                format!("{beta} is not 0 or more and below 1"),
                "PyTorch's are 0.9 and 0.999",
            ));
        }
        found.extend(unless(*eps > 0.0, "optimizer.eps", "is not above 0", "PyTorch's is 1e-8"));
        found.extend(unless(
            lr < 0.05,
            "lr",
            format!("{lr} is a rate of SGD, too high for adamw"),
            "AdamW trains at about 0.001: write the rate that the production model was trained with",
        ));
        found
    }
}

impl Schedule {
    /// Every rule that does not hold for a training of this many epochs. The keys stand below the training's.
    pub fn check(&self, epochs: u32) -> Vec<Mistake> {
        match self {
            Self::Step { milestones, gamma } => {
                let mut found: Vec<Mistake> = (0..).zip(milestones).filter_map(|(n, at)| milestone(n, *at, epochs)).collect();
                let share = |at: f64| if at < 1.0 { at } else { at / f64::from(epochs) };
                found.extend(unless(
                    milestones.is_sorted_by(|a, b| share(*a) < share(*b)),
                    "schedule.milestones",
                    "are not in rising order",
                    "write each epoch once, the earliest first",
                ));
                found.extend(unless(
                    *gamma > 0.0,
                    "schedule.gamma",
                    "is not above 0",
                    "the learning rate is multiplied by it; 0.1 is usual",
                ));
                found
            }
            Self::OneCycle { warmup } => Vec::from_iter(unless(
                *warmup > 0.0 && *warmup < 1.0,
                "schedule.warmup",
                format!("{warmup} is not between 0 and 1"),
                "the share of the steps in which the learning rate rises; PyTorch's default is 0.3",
            )),
            Self::WarmupCosine { warmup, start, least, .. } => {
                let whole = *warmup >= 0.0 && (*warmup < 1.0 || warmup.fract() == 0.0) && *warmup < f64::from(epochs);
                let mut found = Vec::from_iter(unless(
                    whole,
                    "schedule.warmup",
                    format!("{warmup} is neither a whole number of epochs below {epochs} nor a share below 1"),
                    "write how many epochs the rate rises, such as 5, or the share of the training, such as 0.05",
                ));
                let share = (0.0..=1.0).contains(start);
                found.extend(unless(
                    share,
                    "schedule.start",
                    format!("{start} is not between 0 and 1"),
                    "the first rate as a share of lr, such as 0.01",
                ));
                found.extend(unless(*least >= 0.0, "schedule.least", "is below 0", "the rate at the end, such as 0"));
                found
            }
            Self::Constant | Self::Cosine => Vec::new(),
        }
    }
}

fn milestone(n: usize, at: f64, epochs: u32) -> Option<Mistake> {
    let key = format!("schedule.milestones.{n}");
    if !(at >= 0.0 && (at < 1.0 || at.fract() == 0.0)) {
        let help = "write an epoch, such as 14, or a share of the training, such as 0.35";
        return Some(Mistake::new(
            &key,
            format!("{at} is neither a whole number of epochs nor a share below 1"),
            help,
        ));
    }
    unless(
        at < f64::from(epochs),
        &key,
        format!("epoch {at} never comes: `epochs` is {epochs}"),
        format!(
            "epochs count from 0, so milestones go up to {}; below 1 they are shares of the training, such as [0.35, 0.6, 0.875]",
            epochs.saturating_sub(1)
        ),
    )
}

/// Random changes of the training pictures, drawn anew each time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Mirror half of the pictures.
    pub flip: bool,
    /// Shift by up to this many pixels in x and y, uniform, sub-pixel (bilinear, filled with the channel mean).
    #[schemars(range(min = 0.0, max = 64.0))]
    pub shift: f64,
    /// Shift by whole pixels only: nothing is blurred.
    pub whole_pixels: bool,
    /// Cut a random part out and bring it to the picture's size (torchvision's RandomResizedCrop). It is cut from the picture as the model sees it, so details beyond that size are not there. In the place of `shift`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<RandomCrop>,
}

/// A random part of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RandomCrop {
    /// Least and greatest share of the picture's area.
    pub scale: [f64; 2],
    /// Least and greatest width by height.
    pub ratio: [f64; 2],
}

impl Default for RandomCrop {
    /// torchvision's.
    fn default() -> Self {
        Self {
            scale: [0.08, 1.0],
            ratio: [3.0 / 4.0, 4.0 / 3.0],
        }
    }
}

impl Augment {
    /// See [`crate::method::Keys::check`].
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let Some(RandomCrop { scale, ratio }) = self.crop else {
            return Vec::new();
        };
        let rising = |[low, high]: [f64; 2]| low > 0.0 && low <= high;
        let scale = unless(
            rising(scale) && scale[1] <= 1.0,
            "augment.crop.scale",
            "is not two rising numbers above 0, at most 1",
            "torchvision's are [0.08, 1.0]",
        );
        let ratio = unless(
            rising(ratio),
            "augment.crop.ratio",
            "is not two rising numbers above 0",
            "torchvision's are [0.75, 1.3333]",
        );
        [scale, ratio].into_iter().flatten().collect()
    }
}

impl Default for Augment {
    fn default() -> Self {
        Self {
            flip: true,
            shift: 4.0,
            whole_pixels: false,
            crop: None,
        }
    }
}
