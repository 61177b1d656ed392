//! Files that say how a model's pictures are made: timm's `pretrained_cfg`, and the list that is exported with a model.

use super::step::{GrayscaleKeys, NormalizeKeys, ResizeKeys, SizeKeys, StepKeys};
use super::{ImageConfig, ImageKeys, Resampling};
use crate::method::Mistake;
use serde::Deserialize;
use serde_json::Value;

/// timm's defaults (`timm.data.constants`).
const CROP: f64 = 0.875;
const MEAN: [f64; 3] = [0.485, 0.456, 0.406];
const STD: [f64; 3] = [0.229, 0.224, 0.225];

/// What timm's evaluation transforms depend on. Other keys of a `pretrained_cfg` say nothing about pictures.
#[derive(Deserialize)]
#[serde(default)]
struct Timm {
    input_size: [u32; 3],
    interpolation: Option<String>,
    crop_pct: Option<f64>,
    crop_mode: Option<String>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
}

impl Default for Timm {
    fn default() -> Self {
        Self {
            input_size: [3, 224, 224],
            interpolation: None,
            crop_pct: None,
            crop_mode: None,
            mean: None,
            std: None,
        }
    }
}

/// A file's text in either form: an object with `input_size` or `pretrained_cfg` is timm's, a list or an object with `preprocess` ours. `size`: height and width of what
/// the network reads, for a list that says none.
///
/// # Errors
/// What is wrong; the key is empty, or one of the list.
pub fn preset(text: &str, size: Option<(u32, u32)>) -> Result<ImageConfig, Mistake> {
    let value: Value = serde_json::from_str(text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    let timm = value.get("pretrained_cfg").is_some() || value.get("input_size").is_some();
    if timm { from_timm(text) } else { from_torchvision(text, size) }
}

/// timm's `pretrained_cfg` as JSON (also inside a model's `config.json` on the Hugging Face hub): what `create_transform(**resolve_data_config(…))` does in evaluation.
///
/// # Errors
/// What is wrong, and which forms are not followed.
pub fn from_timm(text: &str) -> Result<ImageConfig, Mistake> {
    let mut value: Value = serde_json::from_str(text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    if let Some(inner) = value.get_mut("pretrained_cfg").map(Value::take) {
        value = inner;
    }
    let cfg: Timm = serde_json::from_value(value).map_err(|e| wrong(format!("is no pretrained_cfg of timm: {e}")))?;
    let [channels, height, width] = cfg.input_size;
    let crop = cfg.crop_pct.filter(|crop| *crop != 0.0).unwrap_or(CROP);
    if !(crop > 0.01 && crop <= 16.0) {
        return Err(wrong(format!("says crop_pct: {crop}")));
    }
    let scaled = |side: u32| (f64::from(side) / crop).floor().min(f64::from(u32::MAX)) as u32;
    let size = match (cfg.crop_mode.as_deref().unwrap_or("center"), height == width) {
        ("squash", _) => SizeKeys::Both([scaled(height), scaled(width)]),
        ("center", true) => SizeKeys::One(scaled(height)),
        ("center", false) => {
            return Err(Mistake::new(
                "",
                format!("says input_size {height} × {width} with crop_mode center: timm has a resize of its own for it, which is not followed here"),
                "write what your pipeline does into data.image.transforms",
            ));
        }
        (other, _) => {
            return Err(Mistake::new(
                "",
                format!("says crop_mode {other:?}, which is not followed here"),
                "center and squash are; write what your pipeline does into data.image.transforms",
            ));
        }
    };
    let name = cfg.interpolation.unwrap_or_else(|| "bicubic".into());
    let interpolation: Resampling = serde_json::from_value(Value::from(name.clone())).map_err(|_| {
        Mistake::new(
            "",
            format!("says interpolation {name:?}"),
            "nearest, bilinear, bicubic, box, hamming and lanczos are known; write the one that your pipeline uses into data.image.transforms",
        )
    })?;
    let each = |values: Option<Vec<f64>>, usual: &[f64]| match values.unwrap_or_else(|| usual.to_vec()) {
        one if one.len() == 1 => vec![one[0]; channels.min(3) as usize],
        values => values,
    };
    let grey = StepKeys {
        grayscale: Some(GrayscaleKeys { channels: 1 }),
        ..StepKeys::default()
    };
    let resize = ResizeKeys {
        size,
        interpolation,
        antialias: None,
        max_size: None,
    };
    // timm's readers open pictures as grey for a model of one channel.
    let mut list = if channels == 1 { vec![grey] } else { Vec::new() };
    list.push(StepKeys {
        resize: Some(resize),
        ..StepKeys::default()
    });
    list.push(StepKeys {
        center_crop: Some(SizeKeys::Both([height, width])),
        ..StepKeys::default()
    });
    list.push(StepKeys {
        normalize: Some(NormalizeKeys {
            mean: each(cfg.mean, &MEAN),
            std: each(cfg.std, &STD),
        }),
        ..StepKeys::default()
    });
    resolved(list, None)
}

/// A list in torchvision's words as JSON, or an object that holds one under `preprocess`: `[{"resize": {"size": 256}}, {"center_crop": 224}, {"normalize": {"mean": …, "std": …}}]`.
/// `size`: height and width of what the network reads; it is taken where the list itself ends in no size.
///
/// # Errors
/// What is wrong.
pub fn from_torchvision(text: &str, size: Option<(u32, u32)>) -> Result<ImageConfig, Mistake> {
    let mut value: Value = serde_json::from_str(text).map_err(|e| wrong(format!("is not JSON: {e}")))?;
    if let Some(inner) = value.get_mut("preprocess").map(Value::take) {
        value = inner;
    }
    if !value.is_array() {
        return Err(Mistake::new(
            "",
            "is neither a pretrained_cfg of timm nor a list of transforms",
            "a pretrained_cfg has input_size, crop_pct, mean, …; a list looks like [{\"resize\": {\"size\": 256}}, {\"center_crop\": 224}, {\"normalize\": {\"mean\": […], \"std\": […]}}]",
        ));
    }
    let list: Vec<StepKeys> = serde_json::from_value(value).map_err(|e| {
        Mistake::new(
            "",
            format!("holds a list that is not understood: {e}"),
            "its words are resize, center_crop, grayscale and normalize, each in a mapping of its own",
        )
    })?;
    resolved(list, size)
}

fn resolved(list: Vec<StepKeys>, size: Option<(u32, u32)>) -> Result<ImageConfig, Mistake> {
    let mut keys = ImageKeys {
        transforms: Some(list),
        ..ImageKeys::default()
    };
    // A list that ends in a size must not be told one; one that does not must be.
    if let Some((height, width)) = size
        && ImageConfig::try_from(keys.clone()).is_err()
    {
        (keys.height, keys.width) = (Some(height), Some(width));
    }
    if let Some(first) = keys.check().into_iter().next() {
        let what = format!("cannot be followed: {} {}", first.key, first.what);
        return Err(Mistake::new("", what, first.help));
    }
    ImageConfig::try_from(keys).map_err(wrong)
}

fn wrong(what: String) -> Mistake {
    Mistake::new(
        "",
        what,
        "name a JSON file with timm's pretrained_cfg, or the list that docs/export.py writes",
    )
}
