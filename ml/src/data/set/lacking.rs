//! What is said when too little of a set can be read.

use crate::data::cache::Skipped;
use crate::data::manifest::{Manifest, Unreadable, some};
use crate::error::Error;
use delta_guard_contract::{Code, DataSource};
use std::path::Path;

/// The share is passed before all is decoded.
pub(super) fn too_many_so_far(skipped: &[Skipped], manifest: &Manifest, max_unreadable: f64) -> Error {
    let list: Vec<Unreadable> = skipped
        .iter()
        .map(|s| Unreadable {
            id: manifest.examples[s.position].id.clone(),
            reason: s.reason.clone(),
        })
        .collect();
    let source = DataSource {
        path: Path::new("the data").into(),
        format: Default::default(),
        split: Default::default(),
        source: None,
    };
    let count = format!("at least {}", list.len());
    too_many(&list, skipped, &count, manifest.examples.len(), max_unreadable, &source)
}

/// The first few, for an error.
fn shown(skipped: &[Unreadable]) -> String {
    skipped
        .iter()
        .take(3)
        .map(|u| format!("{}: {}", u.id, u.reason))
        .collect::<Vec<_>>()
        .join("; ")
}

/// What to do where most of what was left out is of another size: names the key with the value to type. `None` where sizes are not the trouble.
fn sizes_help(left_out: &[Skipped]) -> Option<String> {
    let sizes: Vec<(u32, u32)> = left_out.iter().filter_map(|s| s.size).collect();
    let (first, rest) = sizes.split_first()?;
    if sizes.len() * 2 <= left_out.len() {
        return None;
    }
    let resize = "set `data.image.resize: stretch` (or `center-crop`), as training did";
    Some(match rest.iter().all(|size| size == first) {
        // One size: perhaps the model reads just that.
        true => format!(
            "{resize}; or, if the model reads them as they are, `data.image.width: {}` and `data.image.height: {}`",
            first.0, first.1
        ),
        false => resize.into(),
    })
}

/// More are unreadable than the configuration allows.
pub(super) fn too_many(skipped: &[Unreadable], left_out: &[Skipped], count: &str, total: usize, max: f64, source: &DataSource) -> Error {
    Error::new(
        Code::DataUnusable,
        format!(
            "{}: {count} of {total} pictures are unreadable, more than the share of {max} allowed. The first: {}",
            source.path.display(),
            shown(skipped)
        ),
        sizes_help(left_out).unwrap_or_else(|| "repair or remove them, or raise data.max_unreadable_share".into()),
    )
}

/// Classes of which nothing is readable.
pub(super) fn none_left(classes: &[&str], skipped: &[Unreadable], left_out: &[Skipped], source: &DataSource) -> Error {
    let message = format!("{}: no readable picture is left of {}", source.path.display(), some(classes));
    let help = sizes_help(left_out).map_or_else(String::new, |help| format!("; {help}"));
    Error::new(Code::DataUnusable, message, format!("the first: {}{help}", shown(skipped)))
}
