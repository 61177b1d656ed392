//! One folder per class, on disk or inside tar files.
//!
//! Classes are the folders, sorted by name; below a class folders may be nested. Hidden files and folders are passed over, and so are loose files beside the class
//! folders. Whatever else lies in a class folder counts: a file that is no picture is an unreadable example.

use super::archive;
use super::layout::{choose_part, is_picture_name, listing};
use super::manifest::{ContentDigest, Example, Manifest, Unreadable, class_order, some};
use super::picture::DATA_LIMITS;
use super::reader::{BLOCK, BLOCK_BYTES, Content, Raw, Reader, Sink, in_parallel};
use super::stat::{Part, Stamp, StatIndex};
use crate::error::{Error, Result, ResultExt};
use crate::progress::Report;
use delta_guard_contract::{Split, TrainId};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use walkdir::WalkDir;

/// Reader of a folder.
#[derive(Debug)]
pub(crate) struct FolderReader {
    root: PathBuf,
    /// Path of each example of the manifest.
    paths: Vec<PathBuf>,
}

impl FolderReader {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, paths: Vec::new() }
    }
}

/// A file found under a class folder, or why it is none.
struct Found {
    id: TrainId,
    label: u32,
    path: PathBuf,
    stamp: std::result::Result<Stamp, String>,
}

/// All files below a class folder, sorted.
fn walk(root: &Path, class: &str, label: u32) -> Result<Vec<Found>> {
    let hidden = |e: &walkdir::DirEntry| e.depth() > 0 && e.file_name().as_encoded_bytes().starts_with(b".");
    let mut out = Vec::new();
    for entry in WalkDir::new(root.join(class))
        .follow_links(true)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(|e| !hidden(e))
    {
        let (path, stamp) = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) if !entry.file_type().is_file() => (entry.path().to_path_buf(), Err("not a regular file".to_string())),
            Ok(entry) => {
                let stamp = entry.metadata().map(|m| Stamp::of(&m)).map_err(|e| e.to_string());
                (entry.into_path(), stamp)
            }
            Err(error) => match error.path() {
                // A link that leads nowhere is one unreadable picture; a folder that cannot be listed hides who knows how many.
                Some(path) if path.is_symlink() && !path.exists() => (path.to_path_buf(), Err("a symbolic link that leads nowhere".to_string())),
                _ => {
                    return Err(Error::configuration(
                        format!("listing {}: {error}", root.display()),
                        "make the folder readable for the service",
                    ));
                }
            },
        };
        let relative = path.strip_prefix(root).unwrap_or(&path);
        let id = TrainId(relative.to_string_lossy().into_owned());
        let stamp = if relative.to_str().is_none() {
            Err("its name is not UTF-8".to_string())
        } else {
            stamp
        };
        out.push(Found { id, label, path, stamp });
    }
    Ok(out)
}

fn digest_file(path: &Path) -> std::io::Result<ContentDigest> {
    let mut hash = blake3::Hasher::new();
    hash.update_reader(fs_err::File::open(path)?)?;
    Ok(*hash.finalize().as_bytes())
}

fn no_classes(place: &Path) -> Error {
    let help = "one sub-folder per class is expected, with the class's pictures in it; check path and split";
    Error::configuration(format!("{} has no class folders", place.display()), help)
}

fn empty_classes(place: &Path, empty: &[&str]) -> Error {
    let help = "put pictures into the folders, or remove them: a class without examples cannot be learned";
    Error::configuration(format!("{} has class folders without pictures: {}", place.display(), some(empty)), help)
}

impl Reader for FolderReader {
    fn scan(&mut self, known: Option<&[String]>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let folders: BTreeSet<String> = listing(&self.root)?.into_iter().filter(|(_, dir)| *dir).map(|(name, _)| name).collect();
        if folders.is_empty() {
            return Err(no_classes(&self.root));
        }
        let classes = class_order(&folders, known, &self.root)?;
        let mut found = Vec::new();
        let mut empty = Vec::new();
        for (label, class) in classes.iter().enumerate().filter(|(_, c)| folders.contains(*c)) {
            let before = found.len();
            found.extend(walk(&self.root, class, label as u32)?);
            if found.len() == before {
                empty.push(class.as_str());
            }
        }
        if !empty.is_empty() {
            return Err(empty_classes(&self.root, &empty));
        }
        let mut manifest = Manifest {
            examples: Vec::with_capacity(found.len()),
            classes,
            unreadable: Vec::new(),
        };
        let total = found.len() as u64;
        self.paths.clear();
        for block in found.chunks(BLOCK) {
            report.progress("read", manifest.examples.len() as u64, total, "");
            let digests = in_parallel(block, |file| {
                let stamp = file.stamp.as_ref().map_err(String::clone)?;
                match index.lookup(&file.id.0, stamp) {
                    Some([(_, digest)]) => Ok(*digest),
                    _ => digest_file(&file.path).map_err(|e| e.to_string()),
                }
            });
            for (file, digest) in block.iter().zip(digests) {
                match (digest, file.stamp.clone()) {
                    (Ok(digest), Ok(stamp)) => {
                        index.keep(file.id.0.clone(), stamp, vec![(String::new(), digest)]);
                        manifest.examples.push(Example {
                            id: file.id.clone(),
                            label: file.label,
                            digest,
                        });
                        self.paths.push(file.path.clone());
                    }
                    (Err(reason), _) | (_, Err(reason)) => manifest.unreadable.push(Unreadable { id: file.id.clone(), reason }),
                }
            }
        }
        report.progress("read", total, total, "");
        manifest.checked(&self.root)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        for (n, block) in self.paths.chunks(BLOCK).enumerate() {
            let raw = block.iter().enumerate().map(|(i, path)| Raw {
                position: n * BLOCK + i,
                content: Content::File(path.clone()),
            });
            if sink(raw.collect())?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Reader of one or more tar files with class folders in them. Examples keep the archives' order.
#[derive(Debug)]
pub(crate) struct TarReader {
    files: Vec<PathBuf>,
    split: Split,
    /// Position in the manifest by id.
    positions: HashMap<String, usize>,
}

/// Marks a member whose bytes are not read: a link, a device, something larger than a picture may be.
const NO_BYTES: ContentDigest = [0; 32];

impl TarReader {
    pub(crate) fn new(files: Vec<PathBuf>, split: Split) -> Self {
        Self {
            files,
            split,
            positions: HashMap::new(),
        }
    }

    /// The id of a member: its name, after that of its tar where there are several.
    fn id(&self, file: &Path, member: &str) -> String {
        match file.file_name() {
            Some(tar) if self.files.len() > 1 => format!("{}/{member}", tar.to_string_lossy()),
            _ => member.to_string(),
        }
    }

    /// Names and digests of the members of one tar.
    fn members(file: &Path, index: &mut StatIndex, report: &mut dyn Report) -> Result<Vec<Part>> {
        let stamp = Stamp::of(&fs_err::metadata(file)?);
        let key = file.display().to_string();
        let parts = match index.lookup(&key, &stamp) {
            Some(parts) => parts.to_vec(),
            None => {
                let mut parts = Vec::new();
                archive::members(file, &mut |mut member| {
                    let digest = if member.regular && member.size <= DATA_LIMITS.max_bytes {
                        member.digest()?
                    } else {
                        NO_BYTES
                    };
                    if parts.len() % BLOCK == 0 {
                        report.progress("read", parts.len() as u64, 0, &key);
                    }
                    parts.push((member.name, digest));
                    Ok(ControlFlow::Continue(()))
                })?;
                parts
            }
        };
        index.keep(key, stamp, parts.clone());
        Ok(parts)
    }
}

/// Where in the members' names are the classes, and which parts are there (empty: none)? A folder that everything lies in is looked through.
pub(crate) fn tar_parts<S: AsRef<str>>(names: &[S]) -> (usize, Vec<&str>) {
    let split: Vec<Vec<&str>> = names.iter().map(|n| n.as_ref().split('/').collect()).collect();
    let mut depth = 0;
    // Pictures right inside a folder make it a class.
    let has_pictures = |depth: usize, folder: &str| {
        split
            .iter()
            .any(|p| p.len() == depth + 2 && p[depth] == folder && is_picture_name(p[depth + 1]))
    };
    let folders = |depth: usize| -> BTreeSet<&str> { split.iter().filter(|p| p.len() >= depth + 2).map(|p| p[depth]).collect() };
    loop {
        let here = folders(depth);
        let mut only = here.iter();
        match (only.next(), only.next()) {
            (Some(one), None) if !has_pictures(depth, one) && !folders(depth + 1).is_empty() && !is_part(one) => depth += 1,
            _ => break,
        }
    }
    let parts = folders(depth).into_iter().filter(|f| is_part(f) && !has_pictures(depth, f)).collect();
    (depth, parts)
}

fn is_part(name: &str) -> bool {
    matches!(name, "train" | "test" | "val" | "validation")
}

impl Reader for TarReader {
    fn scan(&mut self, known: Option<&[String]>, index: &mut StatIndex, report: &mut dyn Report) -> Result<Manifest> {
        let place = match &self.files[..] {
            [one] => one.clone(),
            [first, ..] => first.parent().unwrap_or(first).to_path_buf(),
            [] => return Err(Error::internal("a tar reader without tars")),
        };
        let mut all: Vec<(String, Part)> = Vec::new();
        for file in &self.files {
            let parts = Self::members(file, index, report)?;
            all.extend(parts.into_iter().map(|part| (self.id(file, &part.0), part)));
        }
        let names: Vec<&str> = all.iter().map(|(_, (name, _))| name.as_str()).collect();
        let (mut depth, parts) = tar_parts(&names);
        let chosen = choose_part(&parts, self.split, &place)?;
        let inside = |name: &str, depth: usize| chosen.is_none_or(|part| name.split('/').nth(depth) == Some(part));
        let part_depth = depth;
        depth += usize::from(chosen.is_some());
        // A member is an example when it lies in a class folder.
        let class_of = |name: &str| {
            let mut parts = name.split('/').skip(depth);
            let class = parts.next()?;
            (parts.next().is_some() && inside(name, part_depth)).then(|| class.to_string())
        };
        let found: BTreeSet<String> = names.iter().filter_map(|n| class_of(n)).collect();
        if found.is_empty() {
            return Err(no_classes(&place));
        }
        let classes = class_order(&found, known, &place)?;
        let labels: HashMap<&str, u32> = classes.iter().enumerate().map(|(l, c)| (c.as_str(), l as u32)).collect();
        let mut examples = Vec::new();
        let mut unreadable = Vec::new();
        for (id, (name, digest)) in &all {
            let Some(class) = class_of(name) else { continue };
            if *digest == NO_BYTES {
                let reason = format!("not a regular file of at most {} MiB", DATA_LIMITS.max_bytes >> 20);
                unreadable.push(Unreadable {
                    id: TrainId(id.clone()),
                    reason,
                });
            } else if let Some(&label) = labels.get(class.as_str()) {
                examples.push(Example {
                    id: TrainId(id.clone()),
                    label,
                    digest: *digest,
                });
            }
        }
        self.positions = examples.iter().enumerate().map(|(i, e): (usize, &Example)| (e.id.0.clone(), i)).collect();
        Manifest {
            examples,
            classes,
            unreadable,
        }
        .checked(&place)
    }

    fn read(&self, sink: Sink) -> Result<()> {
        let mut block = Vec::new();
        let mut weight = 0;
        let mut flow = ControlFlow::Continue(());
        for file in &self.files {
            archive::members(file, &mut |mut member| {
                let Some(&position) = self.positions.get(&self.id(file, &member.name)).filter(|_| member.regular) else {
                    return Ok(ControlFlow::Continue(()));
                };
                // The scan left out what is larger; here it can only be so when the archive was replaced meanwhile.
                let Some(bytes) = member.bytes(DATA_LIMITS.max_bytes)? else {
                    return Err(Error::configuration(
                        format!("{} changed while it was read", member.name),
                        "run again when nobody writes to the archive",
                    ));
                };
                weight += bytes.len();
                block.push(Raw {
                    position,
                    content: Content::Encoded(bytes),
                });
                if block.len() == BLOCK || weight > BLOCK_BYTES {
                    weight = 0;
                    flow = sink(std::mem::take(&mut block))?;
                }
                Ok(flow)
            })
            .context(|| "decoding".into())?;
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
