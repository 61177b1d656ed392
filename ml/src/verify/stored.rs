//! What an owner stored in the file (docs/export.py): classes, preprocessing, pictures and what the model answered.

use crate::data::picture::{DATA_LIMITS, decode};
use crate::error::{Error, Result};
use crate::import::Program;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use delta_guard_contract::job::StoredByOwner;
use delta_guard_contract::picture::from_torchvision;
use delta_guard_contract::{Code, ImageConfig};
use serde::Deserialize;
use tch::Tensor;

const FILE: &str = "delta_guard.json";
/// The form that docs/export.py writes.
const FORMAT: u32 = 1;
/// More pictures prove nothing more.
const MOST_PICTURES: usize = 64;

/// What an owner stored, with the pictures' bytes.
#[derive(Debug)]
pub struct OwnersPictures {
    about: About,
    /// Name, bytes of the file, logits.
    pub pictures: Vec<(String, Vec<u8>, Vec<f64>)>,
}

#[derive(Debug, Deserialize)]
struct About {
    format: u32,
    classes: Vec<String>,
    preprocess: serde_json::Value,
    #[serde(default)]
    pictures: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
struct Shown {
    file: String,
    name: String,
    logits: Vec<f64>,
}

fn wrong(message: String) -> Error {
    Error::new(Code::ProgramUnusable, message, "export the model again with docs/export.py")
}

/// What is under `extra/`, if it is ours.
pub(super) fn of(program: &Program) -> Result<Option<OwnersPictures>> {
    let Some(text) = program.extra.get(FILE) else { return Ok(None) };
    let mut about: About = serde_json::from_slice(text.bytes()).map_err(|e| wrong(format!("extra/{FILE}: {e}")))?;
    if about.format != FORMAT {
        return Err(wrong(format!("extra/{FILE} is of format {}, {FORMAT} is read", about.format)));
    }
    if about.pictures.len() > MOST_PICTURES {
        return Err(wrong(format!(
            "it holds {} pictures, at most {MOST_PICTURES} are read",
            about.pictures.len()
        )));
    }
    let pictures = std::mem::take(&mut about.pictures).into_iter().map(|shown| {
        let part = program.extra.get(&shown.file);
        let part = part.ok_or_else(|| wrong(format!("extra/{} is missing", shown.file)))?;
        let bytes = STANDARD.decode(part.bytes()).map_err(|e| wrong(format!("extra/{}: {e}", shown.file)))?;
        Ok((shown.name, bytes, shown.logits))
    });
    let pictures = pictures.collect::<Result<_>>()?;
    Ok(Some(OwnersPictures { about, pictures }))
}

impl OwnersPictures {
    /// The pipeline that its owner described.
    pub(super) fn image(&self, program: &Program) -> Result<ImageConfig> {
        let size = match program.input_shape[..] {
            [_, _, Some(height), Some(width)] => u32::try_from(height).ok().zip(u32::try_from(width).ok()),
            _ => None,
        };
        from_torchvision(&self.about.preprocess.to_string(), size).map_err(|mistake| {
            Error::new(
                Code::ProgramUnusable,
                mistake.sentence(&format!("extra/{FILE}: preprocess")),
                mistake.help,
            )
        })
    }

    /// [n, classes], float64.
    pub(super) fn logits(&self) -> Result<Tensor> {
        let classes = self.about.classes.len();
        if let Some((name, _, logits)) = self.pictures.iter().find(|(_, _, logits)| logits.len() != classes) {
            return Err(wrong(format!("{name} has {} logits, there are {classes} classes", logits.len())));
        }
        let flat: Vec<f64> = self.pictures.iter().flat_map(|(_, _, logits)| logits.iter().copied()).collect();
        Ok(Tensor::f_from_slice(&flat)?.f_reshape([self.pictures.len() as i64, classes as i64])?)
    }

    /// uint8 [n, channels, height, width] as `image` says.
    pub(super) fn pixels(&self, image: &ImageConfig) -> Result<Tensor> {
        let mut all = Vec::with_capacity(self.pictures.len() * image.bytes());
        for (name, bytes, _) in &self.pictures {
            let pixels = decode(bytes, &DATA_LIMITS, image).map_err(|refused| wrong(format!("the stored picture {name}: {refused}")))?;
            all.extend(pixels);
        }
        let [channels, height, width] = image.input();
        Ok(Tensor::f_from_slice(&all)?.f_reshape([self.pictures.len() as i64, channels, height, width])?)
    }

    pub(super) fn told(&self) -> StoredByOwner {
        StoredByOwner {
            classes: self.about.classes.clone(),
            preprocess: self.about.preprocess.clone(),
            pictures: self.pictures.iter().map(|(name, _, _)| name.clone()).collect(),
        }
    }
}
