//! A list of pictures: CSV or JSON lines, one picture a row.
//!
//! Paths start at the list's folder and stay in it: as in archives, nothing that a name leads to outside is looked at (links in the folder are followed, as in
//! folders of classes). `id` and `source` are taken as they stand; without an id, the path is the id.

use super::folder::{FoundFile, digested, hand_over};
use super::labels::WrittenLabels;
use super::layout::choose_part;
use super::manifest::{KnownClasses, Manifest};
use super::origin::{self, SourceNames};
use super::reader::{BLOCK, SetReader, Sink};
use super::rows::{ListRow, Rows, wrong};
use super::stat::{Stamp, StatIndex};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::{Code, Origin, Split, TrainId, is_passing};
use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::path::{Component, Path, PathBuf};

/// Reader of a list.
#[derive(Debug)]
pub(crate) struct ListReader {
    file: PathBuf,
    split: Split,
    origin: Option<Origin>,
    /// Path of each example of the manifest.
    paths: Vec<PathBuf>,
}

/// What a list says, before any picture is looked at.
struct Said {
    labels: WrittenLabels,
    /// In the list's order; labels are numbers of `labels`, stamps are not yet taken.
    found: Vec<FoundFile>,
}

impl ListReader {
    pub(crate) fn new(file: PathBuf, split: Split, origin: Option<Origin>) -> Self {
        Self {
            file,
            split,
            origin,
            paths: Vec::new(),
        }
    }

    fn said(&self) -> Result<Said> {
        let root = self.file.parent().unwrap_or(Path::new("."));
        let part = part(&self.file, self.split)?;
        let (mut labels, mut sources, mut found) = (WrittenLabels::default(), SourceNames::default(), Vec::new());
        let mut rows = Rows::open(&self.file)?;
        let (mut ids, mut with_source): (HashMap<TrainId, u64>, bool) = (HashMap::new(), false);
        while let Some(row) = rows.next()? {
            if part.as_ref().is_some_and(|part| row.split.as_ref() != Some(part)) {
                continue;
            }
            if let Some(fault) = row.label.fault() {
                return Err(wrong(&self.file, row.line, &format!("the row {fault}")));
            }
            let inside = inside(&row, root, &self.file)?;
            let id = TrainId(row.id.unwrap_or_else(|| inside.clone()));
            if let Some(first) = ids.insert(id.clone(), row.line) {
                return Err(Error::new(
                    Code::DataUnusable,
                    format!("{}, line {}: {id} stands in line {first} already", self.file.display(), row.line),
                    "name each example once, or give each row an `id` of its own",
                ));
            }
            with_source |= row.source.is_some();
            let source = row.source.filter(|_| self.origin != Some(Origin::None));
            found.push(FoundFile {
                id,
                label: labels.number(row.label),
                path: root.join(&inside),
                stamp: Err(String::new()),
                source: sources.named(source.as_deref().unwrap_or_default()),
                key: Some(inside),
            });
        }
        if self.origin == Some(Origin::Column) && !with_source {
            return Err(origin::no_column(&self.file));
        }
        Ok(Said { labels, found })
    }
}

/// The path of a row below the list's folder.
fn inside(row: &ListRow, root: &Path, file: &Path) -> Result<String> {
    let path = Path::new(&row.path);
    let path = if path.is_absolute() { path.strip_prefix(root).ok() } else { Some(path) };
    let mut parts: Vec<&str> = Vec::new();
    let mut stays = path.is_some();
    for part in path.into_iter().flat_map(Path::components) {
        match part {
            Component::Normal(part) => parts.extend(part.to_str()),
            Component::ParentDir => stays &= parts.pop().is_some(),
            _ => {}
        }
    }
    if stays && !parts.is_empty() {
        return Ok(parts.join("/"));
    }
    Err(Error::new(
        Code::DataUnusable,
        format!(
            "{}, line {}: the path {} leads out of the list's folder",
            file.display(),
            row.line,
            row.path
        ),
        "put the list into a folder above all its pictures, or put a link to their folder beside it and write paths through the link",
    ))
}

/// Values of the column `split`, and how many rows have each.
fn parts(file: &Path) -> Result<BTreeMap<String, u64>> {
    let mut rows = Rows::open(file)?;
    let mut parts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        if let Some(part) = row.split {
            *parts.entry(part).or_default() += 1;
        }
    }
    Ok(parts)
}

/// The value of `split` that is asked for. None: all rows.
fn part(file: &Path, split: Split) -> Result<Option<String>> {
    let parts = parts(file)?;
    let names: Vec<&str> = parts.keys().map(String::as_str).collect();
    if names.len() == 1 && split == Split::All {
        return Ok(None);
    }
    Ok(choose_part(&names, split, file)?.map(String::from))
}

/// Has the list rows of another part than the training part?
pub(crate) fn has_test_part(file: &Path) -> Result<bool> {
    Ok(parts(file)?.keys().any(|part| part != "train"))
}

/// Class names in label order, each with its rows; of known classes also those without one.
///
/// # Errors
/// As for reading the list.
pub(crate) fn count(file: &Path, split: Split, known: Option<KnownClasses>) -> Result<Vec<(String, u64)>> {
    let said = ListReader::new(file.to_path_buf(), split, None).said()?;
    let (classes, map) = said.labels.classes(None, known, file)?;
    let mut counts = vec![0; classes.len()];
    for row in &said.found {
        counts[map[row.label as usize] as usize] += 1;
    }
    Ok(classes.into_iter().zip(counts).collect())
}

/// What `stat` says of a picture; the inner error is the picture's, the outer one the machine's.
fn stamp(path: &Path) -> Result<std::result::Result<Stamp, String>> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_file() => Ok(Ok(Stamp::of(&meta))),
        Ok(_) => Ok(Err("not a regular file".into())),
        Err(error) if is_passing(&error) => Err(Error::passing(format!("reading {}: {error}", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Err(format!("there is no file {}", path.display()))),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// The file of each example of a list.
pub(super) fn paths(file: &Path, split: Split) -> Result<HashMap<TrainId, PathBuf>> {
    let said = ListReader::new(file.to_path_buf(), split, None).said()?;
    Ok(said.found.into_iter().map(|found| (found.id, found.path)).collect())
}

impl SetReader for ListReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let Said { labels, mut found } = self.said()?;
        let total = found.len() as u64;
        for (n, block) in found.chunks_mut(BLOCK).enumerate() {
            report.progress("list", (n * BLOCK) as u64, total, "");
            let stamps: Vec<_> = block.par_iter().map(|file| stamp(&file.path)).collect();
            for (file, stamp) in block.iter_mut().zip(stamps) {
                file.stamp = stamp?;
            }
        }
        let mut manifest = Manifest::default();
        self.paths = digested(found, &mut manifest, index, report)?;
        if manifest.examples.is_empty() && manifest.unreadable.is_empty() {
            return manifest.checked(&self.file);
        }
        manifest.labelled(&labels, None, known, &self.file)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        hand_over(&self.paths, sink)
    }
}
