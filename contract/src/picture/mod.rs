//! Pictures as the model sees them: what brings a file's pixels to the model's size and channels, and how they are normalised.
//!
//! Either the short keys say it (`height`, `width`, `resize`, `mean`, `std`), or a list in torchvision's words does (`transforms`), or a file of
//! timm's or ours does (`from`). [`ImageConfig`] is what follows from them; [`ImageKeys`] is what stands in the file.

mod keys;
mod preset;
mod step;

pub use keys::ImageKeys;
pub use preset::{from_timm, from_torchvision, preset};
pub use step::{Edges, ImageStep, Resampling, SizeKeys, StepKeys};

use crate::method::Mistake;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::path::PathBuf;

/// Least and longest side of what a model reads.
pub const SIDES: std::ops::RangeInclusive<u32> = 4..=1024;
/// Units of brightness in a byte.
const FULL: f64 = 255.0;

/// Pictures as the model sees them: `channels` × `height` × `width`, (x/255 − mean) / std per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ImageKeys", into = "ImageKeys")]
pub struct ImageConfig {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    /// What to do with pictures of another size, where there are no `steps`.
    pub resize: Resize,
    /// What to do with a picture whose EXIF data say that it is to be turned.
    pub orientation: Orientation,
    /// Mean of each channel, in units of full brightness. One for each channel: R, G, B or grey.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, same units.
    pub std: Vec<f64>,
    /// What brings a picture to its size as PIL and torchvision do it, in order. None: `resize` says it.
    pub steps: Option<Vec<ImageStep>>,
    /// The file that says all this, where it was not read yet. The guard reads it with its configuration; no job has one.
    pub from: Option<PathBuf>,
}

impl Default for ImageConfig {
    /// CIFAR-10's size and figures (the figures of the authors' code).
    fn default() -> Self {
        Self {
            height: 32,
            width: 32,
            resize: Resize::Refuse,
            orientation: Orientation::Ignore,
            mean: vec![0.49147, 0.48226, 0.44677],
            std: vec![0.24703, 0.24349, 0.26159],
            steps: None,
            from: None,
        }
    }
}

impl ImageConfig {
    /// 1 (grey) or 3 (R, G, B).
    pub fn channels(&self) -> usize {
        self.mean.len()
    }

    /// What the network reads: channels, height, width.
    pub fn input(&self) -> [i64; 3] {
        [self.channels() as i64, i64::from(self.height), i64::from(self.width)]
    }

    /// Bytes of one picture.
    pub fn bytes(&self) -> usize {
        self.channels() * self.height as usize * self.width as usize
    }

    /// Every rule on the normalisation that does not hold.
    pub fn check(&self) -> Vec<Mistake> {
        normalisation(&self.mean, &self.std)
    }
}

impl JsonSchema for ImageConfig {
    fn schema_name() -> Cow<'static, str> {
        ImageKeys::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        ImageKeys::json_schema(generator)
    }
}

/// How a picture of another size is brought to the model's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resize {
    /// A picture of another size counts as unreadable: nothing is guessed about how training resized it.
    #[default]
    Refuse,
    /// Stretch both sides (bilinear, antialiased).
    Stretch,
    /// Scale so that the picture covers the target, then cut its centre.
    CenterCrop,
}

/// What is done about an EXIF orientation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Orientation {
    /// The pixels as they are stored, as PIL's `convert("RGB")` and torchvision's `ImageFolder` give them.
    #[default]
    Ignore,
    /// The picture turned as its EXIF data say (PIL's `ImageOps.exif_transpose`).
    Apply,
}

/// Rules on mean and std, keys `mean` and `std`.
fn normalisation(mean: &[f64], std: &[f64]) -> Vec<Mistake> {
    let mut found = Vec::new();
    for (key, values) in [("mean", mean), ("std", std)] {
        if ![1, 3].contains(&values.len()) {
            found.push(Mistake::new(
                key,
                format!("has {} values", values.len()),
                "write 3 (R, G, B) or 1 (grey): pictures of other numbers of channels are not read",
            ));
        }
    }
    if found.is_empty() && mean.len() != std.len() {
        found.push(Mistake::new(
            "std",
            format!("has {} values, mean {}", std.len(), mean.len()),
            "write one of each per channel: 3 (R, G, B) or 1 (grey)",
        ));
    }
    for (i, std) in std.iter().enumerate() {
        if !(*std > 0.0 && std.is_finite()) {
            found.push(Mistake::new(
                &format!("std.{i}"),
                format!("{std} is not above 0"),
                "the standard deviation of each channel, in units of full brightness; pictures are divided by it",
            ));
        }
    }
    found.extend(units_of_255(mean, std));
    found
}

/// Figures that were measured on bytes: a mean above full brightness, or a deviation that values between 0 and 1 cannot have.
fn units_of_255(mean: &[f64], std: &[f64]) -> Option<Mistake> {
    let (of_mean, of_std) = (mean.iter().any(|m| m.abs() > 1.0), std.iter().any(|s| *s > 1.5));
    if !of_mean && !of_std {
        return None;
    }
    let list = |values: &[f64]| {
        let values: Vec<String> = values.iter().map(|v| ((v / FULL * 1e5).round() / 1e5).to_string()).collect();
        format!("[{}]", values.join(", "))
    };
    // Who subtracts 123.7 from bytes and divides by 1 divides by 1/255 here, too.
    let help = match of_mean || mean.iter().all(|m| *m == 0.0) {
        true => format!("divided by 255 they are mean: {}, std: {}", list(mean), list(std)),
        false => format!("divided by 255 it is std: {}", list(std)),
    };
    let (key, what) = match of_mean {
        true => ("mean", "is in units of 0 to 255, pictures are in units of full brightness, 0 to 1"),
        false => ("std", "is in units of 0 to 255, pictures are in units of full brightness, 0 to 1"),
    };
    Some(Mistake::new(key, what, help))
}

#[cfg(test)]
mod tests;
