//! Checkpoint files as people have them: safetensors, safetensors in several files with an index, an exported program.

use super::names::with_dot;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::files::tensors::read_tensors;
use crate::import::{Archive, state_dict};
use delta_guard_contract::checkpoint::{Shards, is_index, joined};
use delta_guard_contract::mistaken::{HEAD, Mistaken, mistaken};
use delta_guard_contract::{Code, Digest, ModelConfig};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// More bytes than any index has.
const MAX_INDEX: u64 = 64 << 20;

/// A checkpoint file, and which of its tensors are the network's.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointFile<'a> {
    /// The file.
    pub path: &'a Path,
    /// `model.prefix`.
    pub prefix: Option<&'a str>,
}

impl CheckpointFile<'_> {
    /// The same file; the network alone, where none of its names has the prefix.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn or_alone(self) -> Result<Self> {
        let Some(prefix) = self.prefix else { return Ok(self) };
        let start = with_dot(prefix);
        let there = read(self.path)?.keys().any(|name| name.starts_with(&start));
        Ok(if there { self } else { Self { prefix: None, ..self } })
    }
}

impl<'a> From<&'a ModelConfig> for CheckpointFile<'a> {
    fn from(model: &'a ModelConfig) -> Self {
        Self {
            path: &model.checkpoint,
            prefix: model.prefix.as_deref(),
        }
    }
}

impl<'a> From<&'a Path> for CheckpointFile<'a> {
    fn from(path: &'a Path) -> Self {
        Self { path, prefix: None }
    }
}

impl<'a> From<&'a PathBuf> for CheckpointFile<'a> {
    fn from(path: &'a PathBuf) -> Self {
        path.as_path().into()
    }
}

/// All tensors of a checkpoint, by the names that it has.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let what = || format!("checkpoint {}", path.display());
    if is_index(path) {
        return read_shards(path);
    }
    let bytes = read_one(path)?;
    if is_zip(&bytes) {
        drop(bytes);
        return read_program(path).context(what);
    }
    read_tensors(&bytes).context(what)
}

/// Of the two kinds of files that are read this is the one whose ninth byte does not open a JSON object.
fn is_zip(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") && bytes.get(8) != Some(&b'{')
}

/// The state dict of an exported program.
fn read_program(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let stored = state_dict(&Archive::open(path)?)?;
    stored.iter().map(|(name, stored)| Ok((name.clone(), stored.tensor()?))).collect()
}

/// The tensors that an index names, from the files that it names.
fn read_shards(index: &Path) -> Result<BTreeMap<String, Tensor>> {
    let (shards, folder) = shards(index)?;
    let what = || format!("checkpoint {}", index.display());
    let mut tensors = BTreeMap::new();
    for file in shards.files() {
        let path = folder.join(file);
        let within = || format!("{}: {}", what(), path.display());
        let refused = |why: String| Error::new(Code::CheckpointUnusable, format!("{}: {why}", within()), SAVE_ALL);
        if !path.is_file() {
            return Err(refused("it is not there, and the index names it".into()));
        }
        for (name, tensor) in read_tensors(&read_one(&path)?).context(within)? {
            match shards.0.get(&name) {
                Some(named) if named == file => drop(tensors.insert(name, tensor)),
                Some(named) => return Err(refused(format!("it holds tensor {name}, which the index names in {named}"))),
                None => return Err(refused(format!("it holds tensor {name}, which the index does not name"))),
            }
        }
    }
    match shards.0.keys().find(|name| !tensors.contains_key(*name)) {
        None => Ok(tensors),
        Some(name) => Err(Error::new(
            Code::CheckpointUnusable,
            format!("{}: tensor {name} is not in {}, where the index names it", what(), shards.0[name]),
            SAVE_ALL,
        )),
    }
}

/// What to do where index and files differ.
const SAVE_ALL: &str = "copy the index and all of its files again: they do not belong together";

fn shards(index: &Path) -> Result<(Shards, &Path)> {
    let text = fs_err::File::open(index)?;
    let mut bytes = Vec::new();
    text.take(MAX_INDEX).read_to_end(&mut bytes)?;
    let shards = Shards::read(&bytes).map_err(|why| {
        Error::new(
            Code::CheckpointUnusable,
            format!("checkpoint {} {why}", index.display()),
            "name a safetensors file, or the index (*.safetensors.index.json) that lies beside its files",
        )
    })?;
    Ok((shards, index.parent().unwrap_or(Path::new(""))))
}

/// The digest that names a checkpoint: of the file, or over all files of one that has several.
///
/// # Errors
/// When one cannot be read.
pub fn digest(path: &Path) -> Result<Digest> {
    if !is_index(path) {
        return files::digest(path);
    }
    let (shards, folder) = shards(path)?;
    let files = shards
        .files()
        .into_iter()
        .map(|file| Ok((file.to_string(), files::digest(&folder.join(file))?)));
    let text = joined(&files::digest(path)?, &files.collect::<Result<Vec<_>>>()?);
    Ok(Digest(blake3::hash(text.as_bytes()).to_hex().to_string()))
}

/// The bytes of a checkpoint, or what the file is instead of one. A wrong file is told by its first bytes, before gigabytes are read. Of a zip file only the first
/// bytes: it is read in place.
fn read_one(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut file = fs_err::File::open(path)?;
    (&mut file).take(HEAD as u64).read_to_end(&mut head)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(Mistaken { what, help, .. }) = mistaken(&head, &name) {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("checkpoint {} is not a safetensors file: the file is {what}", path.display()),
            help,
        ));
    }
    if !is_zip(&head) {
        file.read_to_end(&mut head)?;
    }
    Ok(head)
}
