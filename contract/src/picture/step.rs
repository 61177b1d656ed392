//! One entry of `transforms`, in torchvision's words: as written, and as carried out.

use crate::method::Mistake;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Longest side that a step may ask for.
pub const LONGEST: u32 = 4096;

/// What is done to a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageStep {
    /// torchvision's `Resize` on a PIL picture: antialiased, 8 bits after each direction.
    Resize {
        /// To which size.
        to: Edges,
        /// PIL's filter.
        resampling: Resampling,
    },
    /// torchvision's `CenterCrop`: what is smaller gets a black border.
    CenterCrop {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
    /// torchvision's `Grayscale`.
    Grayscale {
        /// 1, or 3 equal ones.
        channels: u32,
    },
}

impl fmt::Display for ImageStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resize { to, resampling } => {
                match to {
                    Edges::Shorter { side, max: None } => write!(f, "resize {side}")?,
                    Edges::Shorter { side, max: Some(max) } => write!(f, "resize {side} (at most {max})")?,
                    Edges::Both { height, width } => write!(f, "resize {height} × {width}")?,
                }
                write!(f, " {}", format!("{resampling:?}").to_lowercase())
            }
            Self::CenterCrop { height, width } => write!(f, "center_crop {height} × {width}"),
            Self::Grayscale { channels } => write!(f, "grayscale {channels}"),
        }
    }
}

/// A size that a picture is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Edges {
    /// The shorter side gets `side` pixels, the longer one ⌊`side` · long / short⌋; where that passes `max`, the longer one gets `max`.
    Shorter {
        /// Pixels.
        side: u32,
        /// Pixels.
        max: Option<u32>,
    },
    /// Both sides, whatever becomes of their ratio.
    Both {
        /// Pixels.
        height: u32,
        /// Pixels.
        width: u32,
    },
}

/// PIL's filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Resampling {
    /// One pixel, none mixed.
    Nearest,
    /// A triangle (torchvision's default).
    #[default]
    Bilinear,
    /// A cubic with a = −0.5.
    Bicubic,
    /// The mean of what a pixel covers.
    Box,
    /// A Hamming window over a sinc.
    Hamming,
    /// A sinc with three lobes.
    Lanczos,
}

/// One entry of the list: exactly one of the words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StepKeys {
    /// Another size: torchvision's `Resize`, on PIL pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<ResizeKeys>,
    /// The middle of the picture: one number (a square), or [height, width]. A picture that is smaller gets a black border.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub center_crop: Option<SizeKeys>,
    /// Grey: `{channels: 1}`, or `{channels: 3}` for three equal ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grayscale: Option<GrayscaleKeys>,
    /// Mean and standard deviation of each channel in units of full brightness (0 to 1). The last entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub normalize: Option<NormalizeKeys>,
}

/// torchvision's `Resize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResizeKeys {
    /// One number: the shorter side gets so many pixels. [height, width]: both sides, whatever becomes of their ratio.
    pub size: SizeKeys,
    /// How pixels are mixed: nearest, bilinear, bicubic, box, hamming or lanczos.
    #[serde(default)]
    pub interpolation: Resampling,
    /// True: pixels are averaged where a picture becomes smaller. PIL always does, whatever was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub antialias: Option<bool>,
    /// The longer side gets at most so many pixels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub max_size: Option<u32>,
}

/// torchvision's `Grayscale`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrayscaleKeys {
    /// 1, or 3 equal ones.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 3))]
    pub channels: u32,
}

fn one() -> u32 {
    1
}

/// torchvision's `Normalize`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NormalizeKeys {
    /// Mean of each channel in units of full brightness (0 to 1).
    pub mean: Vec<f64>,
    /// Standard deviation of each channel, same units; above 0.
    pub std: Vec<f64>,
}

/// A size as torchvision takes it: `224`, `[224]` or `[height, width]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SizeKeys {
    /// One number.
    One(u32),
    /// One number, in a list.
    Listed([u32; 1]),
    /// Height and width.
    Both([u32; 2]),
}

impl JsonSchema for SizeKeys {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let side = json_schema!({"type": "integer", "format": "uint32", "minimum": 1, "maximum": LONGEST});
        json_schema!({"type": ["integer", "array"], "format": "uint32", "minimum": 1, "maximum": LONGEST, "items": side, "minItems": 1, "maxItems": 2})
    }
}

impl SizeKeys {
    /// Height and width, where one number means a square.
    fn square(self) -> (u32, u32) {
        match self {
            Self::One(side) | Self::Listed([side]) => (side, side),
            Self::Both([height, width]) => (height, width),
        }
    }

    fn numbers(self) -> [u32; 2] {
        let (height, width) = self.square();
        [height, width]
    }
}

impl StepKeys {
    fn words(&self) -> Vec<&'static str> {
        let there = [
            ("resize", self.resize.is_some()),
            ("center_crop", self.center_crop.is_some()),
            ("grayscale", self.grayscale.is_some()),
            ("normalize", self.normalize.is_some()),
        ];
        there.into_iter().filter(|(_, there)| *there).map(|(word, _)| word).collect()
    }

    /// Every rule that the entry alone breaks; keys below it.
    pub fn check(&self) -> Vec<Mistake> {
        let words = self.words();
        let mut found = Vec::new();
        if words.len() != 1 {
            let what = match words.is_empty() {
                true => "is empty".into(),
                false => format!("says {} at once", words.join(" and ")),
            };
            found.push(Mistake::new(
                "",
                what,
                "write each step as an entry of its own, `- resize: {size: 256}`: their order counts",
            ));
        }
        let sizes = [("resize.size", self.resize.as_ref().map(|r| r.size)), ("center_crop", self.center_crop)];
        for (key, size) in sizes {
            if size.is_some_and(|size| size.numbers().iter().any(|side| !(1..=LONGEST).contains(side))) {
                found.push(Mistake::new(key, "is out of range", format!("allowed: 1 to {LONGEST} pixels")));
            }
        }
        if let Some(resize) = &self.resize {
            if resize.antialias == Some(false) && resize.resampling_mixes() {
                found.push(Mistake::new(
                    "resize.antialias",
                    "is false, but pictures are resized here as PIL does it, which always averages",
                    "write true if your pipeline resizes PIL pictures (torchvision ignores the word there); a pipeline that resizes tensors without it cannot be followed",
                ));
            }
            if let (Some(max), SizeKeys::One(side) | SizeKeys::Listed([side])) = (resize.max_size, resize.size)
                && max <= side
            {
                found.push(Mistake::new(
                    "resize.max_size",
                    format!("is {max}, size is {side}"),
                    "it must be more than size",
                ));
            }
            if resize.max_size.is_some() && matches!(resize.size, SizeKeys::Both(_)) {
                found.push(Mistake::new("resize.max_size", "is said where size names both sides", "leave it out"));
            }
        }
        if let Some(grey) = &self.grayscale
            && ![1, 3].contains(&grey.channels)
        {
            found.push(Mistake::new(
                "grayscale.channels",
                format!("is {}", grey.channels),
                "1, or 3 for three equal ones",
            ));
        }
        found
    }

    /// What is done; None: it only normalises.
    pub(super) fn step(&self) -> Option<ImageStep> {
        if let Some(resize) = &self.resize {
            return Some(resize.step());
        }
        if let Some(size) = self.center_crop {
            let (height, width) = size.square();
            return Some(ImageStep::CenterCrop { height, width });
        }
        self.grayscale.as_ref().map(|grey| ImageStep::Grayscale { channels: grey.channels })
    }
}

impl ResizeKeys {
    fn resampling_mixes(&self) -> bool {
        self.interpolation != Resampling::Nearest
    }

    fn step(&self) -> ImageStep {
        let to = match self.size {
            SizeKeys::One(side) | SizeKeys::Listed([side]) => Edges::Shorter { side, max: self.max_size },
            SizeKeys::Both([height, width]) => Edges::Both { height, width },
        };
        ImageStep::Resize {
            to,
            resampling: self.interpolation,
        }
    }
}

impl From<ImageStep> for StepKeys {
    fn from(step: ImageStep) -> Self {
        match step {
            ImageStep::Resize { to, resampling } => {
                let (size, max_size) = match to {
                    Edges::Shorter { side, max } => (SizeKeys::One(side), max),
                    Edges::Both { height, width } => (SizeKeys::Both([height, width]), None),
                };
                let resize = ResizeKeys {
                    size,
                    interpolation: resampling,
                    antialias: None,
                    max_size,
                };
                Self {
                    resize: Some(resize),
                    ..Self::default()
                }
            }
            ImageStep::CenterCrop { height, width } => Self {
                center_crop: Some(SizeKeys::Both([height, width])),
                ..Self::default()
            },
            ImageStep::Grayscale { channels } => Self {
                grayscale: Some(GrayscaleKeys { channels }),
                ..Self::default()
            },
        }
    }
}
