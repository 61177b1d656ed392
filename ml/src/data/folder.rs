//! One folder per class on disk, read as torchvision's `ImageFolder` does.
//!
//! Classes are the folders, sorted by name; below a class folders may be nested. An example is a file whose name ends like a picture's (`ImageFolder`'s list);
//! one that cannot be decoded is an unreadable example. Hidden files and folders and files of other names are passed over and counted. Loose files beside the
//! class folders are nobody's.

use super::layout::{is_picture_name, listing};
use super::manifest::{ContentDigest, Example, KnownClasses, Manifest, PassedOver, Unreadable, class_order, some};
use super::origin::{SourceNames, first_folder};
use super::reader::{BLOCK, Raw, RawContent, SetReader, Sink};
use super::stat::{Stamp, StatIndex};
use crate::error::{Error, Result};
use crate::progress::Report;
use delta_guard_contract::{Code, Origin, TrainId, is_passing};
use rayon::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use walkdir::WalkDir;

/// Reader of a folder.
#[derive(Debug)]
pub(crate) struct FolderReader {
    root: PathBuf,
    origin: Option<Origin>,
    /// Path of each example of the manifest.
    paths: Vec<PathBuf>,
}

impl FolderReader {
    pub(crate) fn new(root: PathBuf, origin: Option<Origin>) -> Self {
        Self {
            root,
            origin,
            paths: Vec::new(),
        }
    }
}

/// A file that is an example, or why it is none.
pub(super) struct FoundFile {
    pub(super) id: TrainId,
    /// What the index calls the file, where that is not the id.
    pub(super) key: Option<String>,
    pub(super) label: u32,
    pub(super) path: PathBuf,
    pub(super) stamp: std::result::Result<Stamp, String>,
    pub(super) source: Option<Arc<str>>,
}

/// All examples below a class folder, sorted.
fn walk(root: &Path, class: &str, label: u32, passed_over: &mut PassedOver) -> Result<Vec<FoundFile>> {
    let mut out = Vec::new();
    let mut entries = WalkDir::new(root.join(class)).follow_links(true).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        let (path, stamp) = match entry {
            Ok(entry) if entry.depth() > 0 && entry.file_name().as_encoded_bytes().starts_with(b".") => {
                passed_over.add(id_of(root, entry.path()));
                if entry.file_type().is_dir() {
                    entries.skip_current_dir();
                }
                continue;
            }
            Ok(entry) if entry.file_type().is_dir() => {
                named(root, entry.path())?;
                continue;
            }
            Ok(entry) if !is_picture_name(&entry.file_name().to_string_lossy()) => {
                passed_over.add(id_of(root, entry.path()));
                continue;
            }
            Ok(entry) if !entry.file_type().is_file() => (entry.path().to_path_buf(), Err("not a regular file".to_string())),
            Ok(entry) => {
                let stamp = match entry.metadata() {
                    Ok(found) => Ok(Stamp::of(&found)),
                    Err(error) if is_passing(&error) => return Err(Error::passing(format!("reading {}: {error}", entry.path().display()))),
                    Err(error) => Err(error.to_string()),
                };
                (entry.into_path(), stamp)
            }
            // One picture less would be another training set.
            Err(error) if is_passing(&error) => return Err(Error::passing(format!("listing {}: {error}", root.display()))),
            Err(error) => match error.path() {
                // A link that leads nowhere is one unreadable picture; a folder that cannot be listed hides who knows how many.
                Some(path) if path.is_symlink() && !path.exists() => (path.to_path_buf(), Err("a symbolic link that leads nowhere".to_string())),
                _ => {
                    let help = match error.loop_ancestor() {
                        Some(_) => "remove the link that leads back into a folder above it",
                        None => "make the folder readable for the service",
                    };
                    return Err(Error::new(Code::DataUnusable, format!("listing {}: {error}", root.display()), help));
                }
            },
        };
        named(root, &path)?;
        let id = TrainId(id_of(root, &path));
        out.push(FoundFile {
            id,
            key: None,
            label,
            path,
            stamp,
            source: None,
        });
    }
    Ok(out)
}

/// The id of a file: its path below the root.
fn id_of(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}

fn digest_file(path: &Path) -> std::io::Result<ContentDigest> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(fs_err::File::open(path)?)?;
    Ok(*hash.finalize().as_bytes())
}

/// A picture or folder whose name is no text cannot be told apart in verdicts from others like it.
fn named(root: &Path, path: &Path) -> Result<()> {
    match path.strip_prefix(root).unwrap_or(path).to_str() {
        Some(_) => Ok(()),
        None => Err(not_utf8(path)),
    }
}

/// A name that is not UTF-8 is an error, and never dropped: `path` is shown with its odd bytes escaped.
pub(super) fn not_utf8(path: &Path) -> Error {
    let (folder, name) = (path.parent().unwrap_or(Path::new("/")), path.file_name().unwrap_or_default());
    Error::new(
        Code::DataUnusable,
        format!("{folder:?} has a name that is not UTF-8: {name:?}"),
        "rename it: classes and examples go by their names everywhere (`convmv -f latin1 -t utf8 --notest -r FOLDER` does it for names in Latin-1)",
    )
}

pub(crate) fn no_classes(place: &Path) -> Error {
    let help = "one sub-folder per class is expected, with the class's pictures in it; check path and split";
    Error::new(Code::DataUnusable, format!("{} has no class folders", place.display()), help)
}

/// Every class folder `found` must be among the `filled` ones.
pub(crate) fn class_folders(place: &Path, found: &BTreeSet<String>, filled: &BTreeSet<String>, passed_over: &PassedOver) -> Result<()> {
    let empty: Vec<&str> = found.difference(filled).map(String::as_str).collect();
    if empty.is_empty() {
        return Ok(());
    }
    let mut message = format!("{} has class folders without pictures: {}", place.display(), some(&empty));
    if passed_over.count > 0 {
        message += &format!(" ({passed_over})");
    }
    let help = "put pictures into the folders, or remove them: a class without examples cannot be learned";
    Err(Error::new(Code::DataUnusable, message, help))
}

/// Class names in label order, each with its files; of known classes also those without a folder, with 0.
///
/// # Errors
/// `Configuration`, as for reading it.
pub(crate) fn count(root: &Path, known: Option<KnownClasses>) -> Result<Vec<(String, u64)>> {
    let folders: BTreeSet<String> = listing(root)?.into_iter().filter(|(_, dir)| *dir).map(|(name, _)| name).collect();
    if folders.is_empty() {
        return Err(no_classes(root));
    }
    let (mut counted, mut filled, mut passed_over) = (Vec::new(), BTreeSet::new(), PassedOver::default());
    for (label, class) in class_order(&folders, known, root)?.into_iter().enumerate() {
        let files = if folders.contains(&class) {
            walk(root, &class, label as u32, &mut passed_over)?.len() as u64
        } else {
            0
        };
        if files > 0 {
            filled.insert(class.clone());
        }
        counted.push((class, files));
    }
    class_folders(root, &folders, &filled, &passed_over)?;
    Ok(counted)
}

/// A file's digest, from the index where it is as it was; the inner error is the picture's, the outer one the machine's.
fn digest_of(file: &FoundFile, index: &StatIndex) -> Result<std::result::Result<ContentDigest, String>> {
    let stamp = match &file.stamp {
        Ok(stamp) => stamp,
        Err(reason) => return Ok(Err(reason.clone())),
    };
    if let Some([(_, digest)]) = index.lookup(file.key(), stamp) {
        return Ok(Ok(*digest));
    }
    match digest_file(&file.path) {
        Ok(digest) => Ok(Ok(digest)),
        // The picture is not to blame, and a training set without it is another one.
        Err(error) if is_passing(&error) => Err(Error::from(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Lists the files as examples with the digests of their contents. The paths of those that were readable.
pub(super) fn digested(found: Vec<FoundFile>, manifest: &mut Manifest, index: &mut StatIndex, report: &mut dyn Report) -> Result<Vec<PathBuf>> {
    let (total, mut paths) = (found.len() as u64, Vec::new());
    for block in found.chunks(BLOCK) {
        report.progress("read", manifest.examples.len() as u64, total, "");
        let digests: Vec<_> = block.par_iter().map(|file| digest_of(file, index)).collect();
        for (file, digest) in block.iter().zip(digests) {
            match (digest?, file.stamp.clone()) {
                (Ok(digest), Ok(stamp)) => {
                    index.keep(file.key().to_owned(), stamp, vec![(String::new(), digest)]);
                    manifest.examples.push(Example {
                        id: file.id.clone(),
                        label: file.label,
                        digest,
                        source: file.source.clone(),
                    });
                    paths.push(file.path.clone());
                }
                (Err(reason), _) | (_, Err(reason)) => manifest.unreadable.push(Unreadable { id: file.id.clone(), reason }),
            }
        }
    }
    report.progress("read", total, total, "");
    Ok(paths)
}

impl FoundFile {
    fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.id.0)
    }
}

/// Hand over files, in this order.
pub(super) fn hand_over(paths: &[PathBuf], sink: Sink) -> Result<()> {
    for (n, block) in paths.chunks(BLOCK).enumerate() {
        let raw = block.iter().enumerate().map(|(i, path)| Raw {
            position: n * BLOCK + i,
            content: RawContent::File(path.clone()),
        });
        if sink(raw.collect())?.is_break() {
            break;
        }
    }
    Ok(())
}

impl SetReader for FolderReader {
    fn scan(&mut self, known: Option<KnownClasses>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let folders: BTreeSet<String> = listing(&self.root)?.into_iter().filter(|(_, dir)| *dir).map(|(name, _)| name).collect();
        if folders.is_empty() {
            return Err(no_classes(&self.root));
        }
        let classes = class_order(&folders, known, &self.root)?;
        let (mut found, mut filled, mut passed_over) = (Vec::new(), BTreeSet::new(), PassedOver::default());
        for (label, class) in classes.iter().enumerate().filter(|(_, c)| folders.contains(*c)) {
            let before = found.len();
            found.extend(walk(&self.root, class, label as u32, &mut passed_over)?);
            if found.len() > before {
                filled.insert(class.clone());
            }
        }
        class_folders(&self.root, &folders, &filled, &passed_over)?;
        if self.origin == Some(Origin::Folder) {
            let mut sources = SourceNames::default();
            for file in &mut found {
                let below = file.id.0.split_once('/').map_or("", |(_, below)| below);
                file.source = sources.named(first_folder(below));
            }
        }
        let mut manifest = Manifest {
            classes,
            passed_over,
            ..Manifest::default()
        };
        self.paths = digested(found, &mut manifest, index, report)?;
        manifest.checked(&self.root)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        hand_over(&self.paths, sink)
    }
}
