//! Parquet files as Hugging Face's `datasets` writes them: one row an example, the picture as bytes, the label as a number whose names stand in the schema, or
//! as text. Rows are read a few at a time. An example's id is its file's name and its row.

mod columns;
pub(super) mod files;
mod pages;
mod rows;

use super::labels::{Label, WrittenLabels};
use super::manifest::{ContentDigest, Example, KnownClasses, Manifest, Unreadable};
use super::origin::{self, SourceNames, names_of};
use super::picture::DATA_LIMITS;
use super::reader::{BLOCK, BLOCK_BYTES, Raw, RawContent, SetReader, Sink};
use super::stat::{NamedDigest, Stamp, StatIndex};
use crate::error::{Error, Result};
use crate::progress::Report;
use columns::SetColumns;
use delta_guard_contract::{Code, Origin, TrainId};
use rows::Cells;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Reader of parquet files. Examples keep the files' order.
#[derive(Debug)]
pub(crate) struct ParquetReader {
    /// What the configuration names.
    place: PathBuf,
    files: Vec<PathBuf>,
    origin: Option<Origin>,
    /// Of each file: which rows have a picture.
    readable: Vec<Vec<bool>>,
}

/// What a file says, as the index keeps it: its declaration first, then its rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Kept {
    /// Class names that the schema declares, and whether there is a column `source`.
    Declared(Option<Vec<String>>, bool),
    /// A row, and why it has no picture if it has none.
    Row(Label, Option<String>, Option<String>),
}

/// A file's declaration and rows.
struct Surveyed {
    names: Option<Vec<String>>,
    has_source: bool,
    rows: Vec<(Kept, ContentDigest)>,
}

impl ParquetReader {
    pub(crate) fn new(place: PathBuf, files: Vec<PathBuf>, origin: Option<Origin>) -> Self {
        Self {
            place,
            files,
            origin,
            readable: Vec::new(),
        }
    }

    /// What one file holds, from the index or read.
    fn surveyed(file: &Path, index: &mut StatIndex, report: &mut dyn Report) -> Result<Surveyed> {
        let stamp = Stamp::of(&fs_err::metadata(file)?);
        let key = format!("{}|parquet", file.display());
        let of_part = |(text, digest): &NamedDigest| Some((serde_json::from_str(text).ok()?, *digest));
        let known = index
            .lookup(&key, &stamp)
            .and_then(|parts| parts.iter().map(of_part).collect::<Option<Vec<(Kept, ContentDigest)>>>());
        let kept = match known {
            Some(kept) => kept,
            None => survey(file, report)?,
        };
        let parts = kept
            .iter()
            .map(|(kept, digest)| serde_json::to_string(kept).map(|text| (text, *digest)))
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| Error::internal(format!("the index of {}: {error}", file.display())))?;
        index.keep(key, stamp, parts);
        let mut rows = kept.into_iter();
        match rows.next() {
            Some((Kept::Declared(names, has_source), _)) => Ok(Surveyed {
                names,
                has_source,
                rows: rows.collect(),
            }),
            _ => Err(Error::internal(format!(
                "the index of {} does not begin with its columns",
                file.display()
            ))),
        }
    }

    fn source<'a>(&self, column: Option<&'a str>, file: &'a str) -> &'a str {
        match self.origin {
            Some(Origin::Shard) => file,
            None | Some(Origin::Column) => column.unwrap_or_default(),
            _ => "",
        }
    }
}

/// Read a file once: labels, digests.
fn survey(file: &Path, report: &mut dyn Report) -> Result<Vec<(Kept, ContentDigest)>> {
    let columns = SetColumns::of(file)?;
    let mut kept = vec![(Kept::Declared(columns.names.clone(), columns.source.is_some()), [0; 32])];
    rows::each(file, &columns, true, &mut |row, cells| {
        if row.is_multiple_of(BLOCK as u64) {
            report.progress("read", row, 0, &file.display().to_string());
        }
        let Cells { bytes, label, source } = cells;
        let fault = label.fault().or(source.as_deref().and_then(origin::fault));
        if let Some(fault) = fault {
            return Err(rows::wrong(file, row, &format!("it {fault}")));
        }
        let (reason, digest) = match &bytes {
            None => (Some("the row has no bytes of a picture".to_owned()), [0; 32]),
            Some(bytes) if bytes.len() as u64 > DATA_LIMITS.max_bytes => (Some(format!("larger than {} MiB", DATA_LIMITS.max_bytes >> 20)), [0; 32]),
            Some(bytes) => (None, *blake3::hash(bytes.data()).as_bytes()),
        };
        kept.push((Kept::Row(label, source, reason), digest));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(kept)
}

/// The names that all files declare.
fn declared(names: &mut Option<Vec<String>>, own: Option<Vec<String>>, first: bool, file: &Path) -> Result<()> {
    if first {
        *names = own;
    } else if *names != own {
        return Err(Error::new(
            Code::DataUnusable,
            format!("{} declares other class names than the files before it", file.display()),
            "write all files of a set with the same features",
        ));
    }
    Ok(())
}

/// Class names in label order, each with its rows; of known classes also those without one. Reads labels only.
///
/// # Errors
/// As for reading the set.
pub(crate) fn count(files: &[PathBuf], known: Option<KnownClasses>, place: &Path) -> Result<Vec<(String, u64)>> {
    let (mut labels, mut names, mut of_label) = (WrittenLabels::default(), None, Vec::new());
    for (n, file) in files.iter().enumerate() {
        let columns = SetColumns::of(file)?;
        declared(&mut names, columns.names.clone(), n == 0, file)?;
        rows::each(file, &columns, false, &mut |row, cells| {
            if let Some(fault) = cells.label.fault() {
                return Err(rows::wrong(file, row, &format!("it {fault}")));
            }
            let label = labels.number(cells.label) as usize;
            of_label.resize(of_label.len().max(label + 1), 0);
            of_label[label] += 1;
            Ok(ControlFlow::Continue(()))
        })?;
    }
    let (classes, map) = labels.classes(names.as_deref(), known, place)?;
    let mut counts = vec![0; classes.len()];
    for (label, n) in of_label.iter().enumerate() {
        counts[map[label] as usize] += n;
    }
    Ok(classes.into_iter().zip(counts).collect())
}

impl SetReader for ParquetReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let (mut labels, mut sources, mut names) = (WrittenLabels::default(), SourceNames::default(), None);
        let (mut manifest, called) = (Manifest::default(), names_of(&self.files));
        self.readable.clear();
        for (n, file) in self.files.iter().enumerate() {
            let surveyed = Self::surveyed(file, index, report)?;
            declared(&mut names, surveyed.names, n == 0, file)?;
            if self.origin == Some(Origin::Column) && !surveyed.has_source {
                return Err(origin::no_column(file));
            }
            let mut readable = Vec::with_capacity(surveyed.rows.len());
            for (row, (kept, digest)) in surveyed.rows.into_iter().enumerate() {
                let Kept::Row(label, source, reason) = kept else {
                    return Err(Error::internal(format!("the index of {} declares its columns twice", file.display())));
                };
                let (id, label) = (TrainId(format!("{}#{row}", called[n])), labels.number(label));
                readable.push(reason.is_none());
                match reason {
                    Some(reason) => manifest.unreadable.push(Unreadable { id, reason }),
                    None => manifest.examples.push(Example {
                        id,
                        label,
                        digest,
                        source: sources.named(self.source(source.as_deref(), &called[n])),
                    }),
                }
            }
            self.readable.push(readable);
        }
        manifest.labelled(&labels, names.as_deref(), known, &self.place)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        let (mut block, mut weight, mut position) = (Vec::new(), 0, 0);
        let mut flow = ControlFlow::Continue(());
        for (file, readable) in self.files.iter().zip(&self.readable) {
            let columns = SetColumns::of(file)?;
            rows::each(file, &columns, true, &mut |row, cells| {
                let wanted = usize::try_from(row).ok().and_then(|row| readable.get(row)).copied();
                let bytes = cells.bytes.filter(|bytes| bytes.len() as u64 <= DATA_LIMITS.max_bytes);
                match (wanted, bytes) {
                    (Some(false), _) => return Ok(ControlFlow::Continue(())),
                    (Some(true), Some(bytes)) => {
                        weight += bytes.len();
                        block.push(Raw {
                            position,
                            content: RawContent::Encoded(bytes.data().to_vec()),
                        });
                        position += 1;
                    }
                    _ => {
                        return Err(Error::new(
                            Code::ChangedWhileRead,
                            format!("{} changed while it was read", file.display()),
                            "run again when nobody writes to the file",
                        ));
                    }
                }
                if block.len() == BLOCK || weight > BLOCK_BYTES {
                    weight = 0;
                    flow = sink(std::mem::take(&mut block))?;
                }
                Ok(flow)
            })?;
            if flow.is_break() {
                return Ok(());
            }
        }
        if !block.is_empty() {
            let _ = sink(block)?;
        }
        Ok(())
    }
}
