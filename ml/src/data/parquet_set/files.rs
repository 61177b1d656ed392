//! Which parquet files of a folder are the set.

use crate::data::layout::{PARTS, choose_part, listing};
use crate::error::{Error, Result};
use crate::files::is_dir;
use delta_guard_contract::{Code, Split};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Is the file a parquet file, by its name?
pub(crate) fn is_parquet_name(name: &str) -> bool {
    name.ends_with(".parquet")
}

/// The folder that holds parquet files and nothing else that could be a set: this one, or its `data` as in a set of Hugging Face.
pub(crate) fn home(path: &Path) -> Result<Option<PathBuf>> {
    let entries = listing(path)?;
    let folders: Vec<&str> = entries.iter().filter(|(_, dir)| *dir).map(|(name, _)| name.as_str()).collect();
    let here = entries.iter().any(|(name, dir)| !dir && is_parquet_name(name));
    match folders[..] {
        [] if here => Ok(Some(path.to_path_buf())),
        ["data"] if !here => Ok(home(&path.join("data"))?.filter(|inner| *inner == path.join("data"))),
        _ => Ok(None),
    }
}

/// Names of the parquet files of a folder, and the parts that they belong to: `train-00000-of-00004.parquet` to `train`.
fn parts(folder: &Path) -> Result<(Vec<String>, Vec<&'static str>)> {
    let names: Vec<String> = listing(folder)?
        .into_iter()
        .filter(|(name, dir)| !dir && is_parquet_name(name))
        .map(|(name, _)| name)
        .collect();
    let parts = PARTS.into_iter().filter(|part| names.iter().any(|name| is_of(name, part))).collect();
    Ok((names, parts))
}

fn is_of(name: &str, part: &str) -> bool {
    name.strip_prefix(part).is_some_and(|rest| rest.starts_with(['-', '.']))
}

/// Has the folder files of another part than the training part?
pub(crate) fn has_test_part(folder: &Path) -> Result<bool> {
    Ok(parts(folder)?.1.iter().any(|part| *part != "train"))
}

/// The files of a part, in the order of their names.
///
/// # Errors
/// No files, no such part, or some of those that the others' names promise are missing.
pub(crate) fn of_folder(path: &Path, split: Split) -> Result<Vec<PathBuf>> {
    let folder = match home(path)? {
        Some(home) => home,
        None if is_dir(&path.join("data"))? && parts(path)?.0.is_empty() => path.join("data"),
        None => path.to_path_buf(),
    };
    let (names, parts) = parts(&folder)?;
    let chosen = match parts[..] {
        [_] if split == Split::All => None,
        _ => choose_part(&parts, split, &folder)?,
    };
    let names: Vec<String> = names.into_iter().filter(|name| chosen.is_none_or(|part| is_of(name, part))).collect();
    if names.is_empty() {
        return Err(Error::new(
            Code::DataUnusable,
            format!("{} holds no parquet files", path.display()),
            "point the path at a parquet file or a folder of them, or set format: auto",
        ));
    }
    complete(&folder, &names)?;
    Ok(names.iter().map(|name| folder.join(name)).collect())
}

/// `NAME-00001-of-00004.parquet`: name, number, of how many, digits.
fn numbered(name: &str) -> Option<(&str, u32, u32, usize)> {
    let (front, of) = name.strip_suffix(".parquet")?.rsplit_once("-of-")?;
    let (stem, number) = front.rsplit_once('-')?;
    Some((stem, number.parse().ok()?, of.parse().ok()?, of.len()))
}

/// A file that is missing would be another training set.
fn complete(folder: &Path, names: &[String]) -> Result<()> {
    let there: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let sets: BTreeSet<(&str, u32, usize)> = names
        .iter()
        .filter_map(|name| numbered(name))
        .map(|(stem, _, of, digits)| (stem, of, digits))
        .collect();
    for (stem, of, digits) in sets {
        let name = |n: u32| format!("{stem}-{n:0digits$}-of-{of:0digits$}.parquet");
        if let Some(missing) = (0..of).map(name).find(|name| !there.contains(name.as_str())) {
            return Err(Error::new(
                Code::DataUnusable,
                format!("{} is missing", folder.join(missing).display()),
                "download the set again: its files count how many there are",
            ));
        }
    }
    Ok(())
}
