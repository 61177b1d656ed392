//! The section `data.image`: rules on how its keys stand together, and the file that may say it.

use super::{Complaint, Findings};
use crate::config::Look;
use crate::config::file::ConfigFile;
use delta_guard_contract::picture::{ImageKeys, preset};
use delta_guard_contract::{ImageConfig, method::Mistake};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Files that say how pictures are made are short; a model that was named by mistake is not.
const MOST: u64 = 1 << 20;

/// What is wrong with the section as it is written. Nothing is said of a section whose form is wrong: the schema's mistakes are.
pub(in crate::config) fn image_keys(document: &Value) -> Vec<Complaint> {
    let mut found = Findings::default();
    let written = document.pointer("/data/image").cloned().map(serde_json::from_value::<ImageKeys>);
    if let Some(Ok(keys)) = written {
        found.take("data.image", keys.check());
    }
    found.0
}

/// Puts what the file `data.image.from` says in its place. A configuration for another machine may name a file that is not on this one: then it stays as it is.
pub(in crate::config) fn image_from_file(file: &mut ConfigFile, look: Look) -> Vec<Complaint> {
    let mut found = Findings::default();
    if let Some(path) = file.data.image.from.clone().filter(|path| look == Look::AtFiles || path.exists()) {
        match read(&path) {
            Ok(image) => {
                file.data.image = ImageConfig {
                    orientation: file.data.image.orientation,
                    ..image
                }
            }
            Err(mistake) => found.add("data.image.from", format!("{} {}", path.display(), mistake.what), mistake.help),
        }
    }
    found.0
}

fn read(path: &Path) -> Result<ImageConfig, Mistake> {
    let mut text = String::new();
    let help = "name a JSON file with timm's pretrained_cfg, or the list that docs/export.py writes";
    std::fs::File::open(path)
        .and_then(|file| file.take(MOST).read_to_string(&mut text))
        .map_err(|error| Mistake::new("", format!("cannot be read: {error}"), help))?;
    preset(&text, None)
}
