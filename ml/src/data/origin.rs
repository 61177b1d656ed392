//! Where examples come from, as the data say: the name of a folder, a file, or a column.

use super::labels::LONGEST;
use super::layout::Layout;
use crate::error::{Error, Result};
use delta_guard_contract::{Code, Origin};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Names of sources, each kept once.
#[derive(Debug, Default)]
pub(crate) struct SourceNames(HashSet<Arc<str>>);

impl SourceNames {
    /// The source of this name; none for an empty one.
    pub(crate) fn named(&mut self, name: &str) -> Option<Arc<str>> {
        if name.is_empty() {
            return None;
        }
        if let Some(known) = self.0.get(name) {
            return Some(known.clone());
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        Some(name)
    }
}

/// What is wrong with a source's name.
pub(crate) fn fault(name: &str) -> Option<&'static str> {
    if name.len() > LONGEST {
        return Some("has a source of more than 255 bytes");
    }
    name.chars().any(char::is_control).then_some("has a source with control characters")
}

/// `below`: a path below the class's folder. The first folder in it.
pub(crate) fn first_folder(below: &str) -> &str {
    below.split_once('/').map_or("", |(folder, _)| folder)
}

/// Names of the files of a set: of each what its path has that others have not, below the folder that they all lie in.
pub(crate) fn names_of(files: &[PathBuf]) -> Vec<String> {
    let mut common = files.first().and_then(|file| file.parent()).unwrap_or(Path::new("")).to_path_buf();
    while !files.iter().all(|file| file.starts_with(&common)) {
        if !common.pop() {
            break;
        }
    }
    let name = |file: &PathBuf| file.strip_prefix(&common).unwrap_or(file).display().to_string();
    files.iter().map(name).collect()
}

/// Can this layout tell sources in this way?
pub(crate) fn check(layout: &Layout, origin: Option<Origin>, place: &Path) -> Result<()> {
    let (what, can): (&str, &[Origin]) = match layout {
        Layout::Folder(_) => ("a folder of pictures", &[Origin::Folder]),
        Layout::Tars { .. } => ("a tar of class folders", &[Origin::Folder, Origin::Shard]),
        Layout::Cifar { .. } => ("CIFAR batches", &[Origin::Shard]),
        Layout::Shards(_) => ("a set of WebDataset shards", &[Origin::Shard, Origin::Column]),
        Layout::Parquet(_) => ("a set of parquet files", &[Origin::Shard, Origin::Column]),
        Layout::List { .. } => ("a list of pictures", &[Origin::Column]),
    };
    match origin {
        Some(origin) if origin != Origin::None && !can.contains(&origin) => {
            let words: Vec<String> = can.iter().map(|origin| format!("`{}`", word(*origin))).collect();
            Err(Error::new(
                Code::DataUnusable,
                format!("{} is {what}: it cannot tell sources by `source: {}`", place.display(), word(origin)),
                format!("set source to {}, or leave it out", words.join(" or ")),
            ))
        }
        _ => Ok(()),
    }
}

fn word(origin: Origin) -> &'static str {
    match origin {
        Origin::None => "none",
        Origin::Folder => "folder",
        Origin::Shard => "shard",
        Origin::Column => "column",
    }
}

/// `source: column` where no example has one.
pub(crate) fn no_column(place: &Path) -> Error {
    Error::new(
        Code::DataUnusable,
        format!("{} has no column (or JSON key) `source`, as `source: column` says", place.display()),
        "add the column, or leave the key out",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_by_what_tells_them_apart() {
        let names = |files: &[&str]| names_of(&files.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["/a/b/1.tar", "/a/b/2.tar"]), ["1.tar", "2.tar"]);
        assert_eq!(names(&["/a/b/1.tar", "/a/c/1.tar"]), ["b/1.tar", "c/1.tar"]);
        assert_eq!(names(&["/a/1.tar"]), ["1.tar"]);
    }
}
