//! The section `data.image` as it is written, and what follows from it.

use super::step::{NormalizeKeys, StepKeys};
use super::{ImageConfig, ImageStep, Orientation, Resize, SIDES, normalisation};
use crate::method::Mistake;
use crate::picture::Edges;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Pictures as the model sees them: size, what brings them to it, and their normalisation, (x/255 − mean) / std per channel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImageKeys {
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 1024))]
    pub height: Option<u32>,
    /// Pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 4, max = 1024))]
    pub width: Option<u32>,
    /// What to do with pictures of another size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// What to do with a picture whose EXIF data say that it is to be turned (photographs of telephones). Submissions follow the same key.
    pub orientation: Orientation,
    /// Mean of each channel (R, G, B; or one, of grey pictures) in units of full brightness (0 to 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    /// Standard deviation of each channel, same units; above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// What the model's pipeline does to a picture, in torchvision's words and in its order: resize, center_crop, grayscale, normalize. It stands in the place of `resize`, `mean` and `std`, and of the size where it says one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transforms: Option<Vec<StepKeys>>,
    /// A JSON file that says it: timm's `pretrained_cfg`, or the list `preprocess` that docs/export.py writes. It stands in the place of `transforms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
}

impl ImageKeys {
    /// Every rule that does not hold, keys below `data.image`; what a file says (`from`) is not read here.
    pub fn check(&self) -> Vec<Mistake> {
        let mut found = self.said_twice();
        match &self.transforms {
            None => {
                let filled = self.plain();
                found.extend(normalisation(&filled.mean, &filled.std));
            }
            Some(list) => {
                let own: Vec<Mistake> = list
                    .iter()
                    .enumerate()
                    .flat_map(|(i, step)| step.check().into_iter().map(move |m| m.below(&format!("transforms.{i}"))))
                    .collect();
                // What the list as a whole says follows from entries that are right.
                let whole = if own.is_empty() { self.whole(list) } else { Vec::new() };
                found.extend(own.into_iter().chain(whole));
            }
        }
        found
    }

    /// Two ways of saying the same.
    fn said_twice(&self) -> Vec<Mistake> {
        let list = match (&self.transforms, &self.from) {
            (None, None) => return Vec::new(),
            (Some(_), None) => "transforms",
            (None, Some(_)) => "from",
            (Some(_), Some(_)) => {
                let help = "keep one of the two: `from` names a file that holds such a list";
                return vec![Mistake::new("transforms", "stands beside from", help)];
            }
        };
        let said = [
            ("height", list == "from" && self.height.is_some(), ""),
            ("width", list == "from" && self.width.is_some(), ""),
            ("resize", self.resize.is_some(), "{resize: {size: …}}"),
            ("mean", self.mean.is_some(), "{normalize: {mean: …, std: …}}"),
            ("std", self.std.is_some(), "{normalize: {mean: …, std: …}}"),
        ];
        let twice = |(key, _, word): (&str, bool, &str)| {
            let help = match list {
                "from" => format!("remove {key}: the file says it"),
                _ => format!("remove it, and say it in the list: {word}"),
            };
            Mistake::new(key, format!("stands beside {list}, which says all that is done"), help)
        };
        said.into_iter().filter(|said| said.1).map(twice).collect()
    }

    /// Rules on the list as a whole.
    fn whole(&self, list: &[StepKeys]) -> Vec<Mistake> {
        let mut found = Vec::new();
        let normalize = list.iter().position(|step| step.normalize.is_some());
        if let Some(at) = normalize.filter(|at| at + 1 < list.len()) {
            found.push(Mistake::new(
                &format!("transforms.{at}.normalize"),
                "is not the last entry",
                "put it last: what comes before it works on bytes, as torchvision's transforms on PIL pictures do",
            ));
        }
        let steps: Vec<ImageStep> = list.iter().filter_map(StepKeys::step).collect();
        let channels = channels(&steps);
        if let Some((at, NormalizeKeys { mean, std })) = normalize.and_then(|at| Some((at, list[at].normalize.as_ref()?))) {
            let key = format!("transforms.{at}.normalize");
            let broken = normalisation(mean, std);
            if broken.is_empty() && mean.len() != channels {
                found.push(Mistake::new(
                    &format!("{key}.mean"),
                    format!("has {} values, the pictures have {channels} channels there", mean.len()),
                    match channels {
                        1 => "write one value, or grayscale: {channels: 3}",
                        _ => "write three values, or put grayscale: {channels: 1} before it",
                    },
                ));
            }
            found.extend(broken.into_iter().map(|m| m.below(&key)));
        }
        found.extend(self.size(&steps));
        found
    }

    /// The steps say one size, or `height` and `width` do; not both, and not neither.
    fn size(&self, steps: &[ImageStep]) -> Option<Mistake> {
        let key = "transforms";
        match (end(steps), self.height.or(self.width)) {
            (Some(_), Some(_)) => {
                let told = if self.height.is_some() { "height" } else { "width" };
                let help = format!("remove height and width: {key} says the size");
                Some(Mistake::new(told, format!("stands beside {key}, which says the size"), help))
            }
            (Some((height, width)), None) if !SIDES.contains(&height) || !SIDES.contains(&width) => Some(Mistake::new(
                key,
                format!("makes pictures of {height} × {width} (height × width)"),
                format!("a model reads {} to {} pixels a side", SIDES.start(), SIDES.end()),
            )),
            (Some(_), None) => None,
            (None, _) if self.height.is_some() && self.width.is_some() => None,
            (None, _) => Some(Mistake::new(
                key,
                "does not end in one size for all pictures",
                "add center_crop: 224 (what your pipeline cuts); or, where all pictures have the model's size then, say height and width beside it",
            )),
        }
    }

    /// By the short keys alone.
    fn plain(&self) -> ImageConfig {
        let usual = ImageConfig::default();
        ImageConfig {
            height: self.height.unwrap_or(usual.height),
            width: self.width.unwrap_or(usual.width),
            resize: self.resize.unwrap_or_default(),
            orientation: self.orientation,
            mean: self.mean.clone().unwrap_or(usual.mean),
            std: self.std.clone().unwrap_or(usual.std),
            steps: None,
            from: self.from.clone(),
        }
    }
}

/// Channels after the steps.
fn channels(steps: &[ImageStep]) -> usize {
    let last = steps.iter().rev().find_map(|step| match step {
        ImageStep::Grayscale { channels } => Some(*channels as usize),
        _ => None,
    });
    last.unwrap_or(3)
}

/// Height and width after the steps, where they are the same for every picture.
fn end(steps: &[ImageStep]) -> Option<(u32, u32)> {
    steps.iter().fold(None, |size, step| match *step {
        ImageStep::CenterCrop { height, width }
        | ImageStep::Resize {
            to: Edges::Both { height, width },
            ..
        } => Some((height, width)),
        ImageStep::Resize {
            to: to @ Edges::Shorter { .. },
            ..
        } => size.map(|(height, width)| to.of(height, width)),
        ImageStep::Grayscale { .. } => size,
    })
}

impl Edges {
    /// Height and width of a picture of `height` × `width` that is resized so, by torchvision's rule. A side may become 0, and too long for 32 bits is as long as they hold.
    pub fn of(self, height: u32, width: u32) -> (u32, u32) {
        let (side, max) = match self {
            Self::Both { height, width } => return (height, width),
            Self::Shorter { side, max } => (side, max),
        };
        let (short, long) = (height.min(width).max(1), height.max(width));
        // As Python: the product is a whole number, its quotient a float, and cut.
        let cut = |a: u32, b: u32, by: u32| (f64::from(a) * f64::from(b) / f64::from(by)) as u32;
        let (mut new_short, mut new_long) = (side, cut(side, long, short));
        if let Some(max) = max.filter(|max| new_long > *max) {
            (new_short, new_long) = (cut(max, new_short, new_long), max);
        }
        match width <= height {
            true => (new_long, new_short),
            false => (new_short, new_long),
        }
    }
}

impl TryFrom<ImageKeys> for ImageConfig {
    type Error = String;

    /// Errors: every rule that does not hold, in one text.
    fn try_from(keys: ImageKeys) -> Result<Self, String> {
        let found = keys.check();
        if !found.is_empty() {
            let all: Vec<String> = found.iter().map(|mistake| mistake.sentence("data.image")).collect();
            return Err(all.join("; "));
        }
        let plain = keys.plain();
        let Some(list) = keys.transforms else { return Ok(plain) };
        let steps: Vec<ImageStep> = list.iter().filter_map(StepKeys::step).collect();
        let (height, width) = end(&steps).unwrap_or((plain.height, plain.width));
        let normalize = list.into_iter().find_map(|step| step.normalize).unwrap_or_else(|| NormalizeKeys {
            mean: vec![0.0; channels(&steps)],
            std: vec![1.0; channels(&steps)],
        });
        Ok(Self {
            height,
            width,
            mean: normalize.mean,
            std: normalize.std,
            steps: Some(steps),
            ..plain
        })
    }
}

impl From<ImageConfig> for ImageKeys {
    fn from(image: ImageConfig) -> Self {
        let Some(steps) = image.steps else {
            if image.from.is_some() {
                return Self {
                    orientation: image.orientation,
                    from: image.from,
                    ..Self::default()
                };
            }
            return Self {
                height: Some(image.height),
                width: Some(image.width),
                resize: Some(image.resize),
                orientation: image.orientation,
                mean: Some(image.mean),
                std: Some(image.std),
                transforms: None,
                from: None,
            };
        };
        let said = end(&steps).is_none();
        let mut list: Vec<StepKeys> = steps.into_iter().map(StepKeys::from).collect();
        list.push(StepKeys {
            normalize: Some(NormalizeKeys {
                mean: image.mean,
                std: image.std,
            }),
            ..StepKeys::default()
        });
        Self {
            height: said.then_some(image.height),
            width: said.then_some(image.width),
            orientation: image.orientation,
            transforms: Some(list),
            ..Self::default()
        }
    }
}
