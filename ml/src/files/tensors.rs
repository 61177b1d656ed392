//! Tensors in safetensors files: the one place where they are written and read.
//!
//! A *sealed* file holds in its header what it is, and the digest of its content: a reader that asks for another thing, or finds a damaged one, is told so.

use super::{canonical, write_atomic_as};
use crate::error::{Error, Result, ResultExt};
use delta_guard_contract::Code;
use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors};
use safetensors::{View, serialize_to_file};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Header texts of a file.
pub type Texts = HashMap<String, String>;

/// Key of the content's digest among a sealed file's texts.
const SEAL: &str = "blake3";

/// All tensors of a safetensors file in memory.
///
/// # Errors
/// `Configuration` when it is not one, or holds a kind of number that is not read.
pub fn read_tensors(file: &[u8]) -> Result<BTreeMap<String, Tensor>> {
    let help = "write it with safetensors.torch.save_file";
    let archive = SafeTensors::deserialize(file).map_err(|e| not_safetensors(&e))?;
    let mut tensors = BTreeMap::new();
    for (name, view) in archive.iter() {
        let kind = kind_of(view.dtype()).ok_or_else(|| {
            Error::new(
                Code::FileUnusable,
                format!("tensor {name} holds {:?}, which is not read", view.dtype()),
                help,
            )
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|&d| d as i64).collect();
        let bytes = shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
        if bytes != view.data().len() {
            return Err(Error::new(
                Code::FileUnusable,
                format!("tensor {name}: {} bytes instead of {bytes}", view.data().len()),
                help,
            )); // tch would read past the end
        }
        tensors.insert(name.to_string(), Tensor::f_from_data_size(view.data(), &shape, kind)?);
    }
    Ok(tensors)
}

/// The header's metadata of a safetensors file in memory.
///
/// # Errors
/// `Configuration` when it is not one.
pub fn read_metadata(file: &[u8]) -> Result<HashMap<String, String>> {
    let (_, header) = SafeTensors::read_metadata(file).map_err(|e| not_safetensors(&e))?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Write tensors as safetensors, whole or not at all. The same tensors and texts are the same bytes, in whatever order they come.
///
/// # Errors
/// `Resource` when the disk is full.
pub fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>, texts: Texts) -> Result<()> {
    write(path, stored(tensors)?, texts)
}

/// [`write_tensors`] with the digest of the content among the texts. See [`read_sealed`].
///
/// # Errors
/// As there.
pub fn write_sealed<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>, mut texts: Texts) -> Result<()> {
    let stored = stored(tensors)?;
    texts.insert(SEAL.into(), seal(stored.iter().map(|(name, t)| (name.as_str(), t.data()))));
    write(path, stored, texts)
}

/// A sealed file's tensors and texts. `wanted`: texts that the file must hold; of several that differ the first is told.
///
/// # Errors
/// `Configuration`: it is no safetensors file, it is damaged, or it is another thing than what is wanted.
pub fn read_sealed(path: &Path, wanted: &[(&str, &str)]) -> Result<(BTreeMap<String, Tensor>, Texts)> {
    let what = || path.display().to_string();
    let bytes = fs_err::read(path)?;
    let refused = |code: Code, why: String| Error::new(code, format!("{}: {why}", what()), "");
    let texts = read_metadata(&bytes).context(what)?;
    for (key, value) in wanted {
        match texts.get(*key) {
            Some(found) if found == value => {}
            Some(found) => {
                return Err(refused(
                    Code::KeptFileForeign,
                    format!("its {key} is {}, wanted {}", short(found), short(value)),
                ));
            }
            None => return Err(refused(Code::KeptFileUnusable, format!("its header has no {key}"))),
        }
    }
    let archive = SafeTensors::deserialize(&bytes).map_err(|e| not_safetensors(&e)).context(what)?;
    let mut views: Vec<_> = archive.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let content = seal(views.iter().map(|(name, view)| (name.as_str(), Cow::Borrowed(view.data()))));
    if texts.get(SEAL) != Some(&content) {
        return Err(refused(
            Code::KeptFileUnusable,
            "damaged: its content does not have the digest that was written with it".into(),
        ));
    }
    Ok((read_tensors(&bytes).context(what)?, texts))
}

/// Lists of layers are long.
fn short(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// Contiguous CPU tensors on their way to a file, in the order of their names.
fn stored<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<(String, Stored)>> {
    let mut all = tensors
        .map(|(name, tensor)| Ok((name.to_string(), Stored::new(tensor)?)))
        .collect::<Result<Vec<_>>>()?;
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all)
}

fn write(path: &Path, tensors: Vec<(String, Stored)>, texts: Texts) -> Result<()> {
    write_atomic_as(path, |temporary| {
        serialize_to_file(tensors, Some(texts), temporary).map_err(|error| match error {
            SafeTensorError::IoError(io) => Error::from(io),
            other => Error::internal(format!("safetensors: {other}")),
        })?;
        canonical::sort_header(fs_err::OpenOptions::new().read(true).write(true).open(temporary)?.file())
    })
}

/// BLAKE3 over names and bytes, in name order.
fn seal<'a>(tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, data) in tensors {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(data.len() as u64).to_le_bytes()).update(&data);
    }
    hasher.finalize().to_hex().to_string()
}

struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let kind = tensor.f_kind()?;
        let dtype = dtype_of(kind).ok_or_else(|| Error::internal(format!("tensors of {kind:?} are not written")))?;
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Self {
            dtype,
            shape: tensor.size().iter().map(|&n| n as usize).collect(),
            bytes,
        })
    }
}

impl View for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Kinds of numbers that are read and written.
const DTYPES: [(Dtype, Kind); 10] = [
    (Dtype::F64, Kind::Double),
    (Dtype::F32, Kind::Float),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
    (Dtype::I16, Kind::Int16),
    (Dtype::I8, Kind::Int8),
    (Dtype::U8, Kind::Uint8),
    (Dtype::BOOL, Kind::Bool),
];

/// As libtorch names it; None: it is not read.
pub fn kind_of(dtype: Dtype) -> Option<Kind> {
    DTYPES.iter().find(|(d, _)| *d == dtype).map(|(_, kind)| *kind)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    DTYPES.iter().find(|(_, k)| *k == kind).map(|(dtype, _)| *dtype)
}

/// What is wrong with bytes that were to be a safetensors file.
pub fn not_safetensors(error: &SafeTensorError) -> Error {
    match error {
        SafeTensorError::MetadataIncompleteBuffer | SafeTensorError::InvalidHeaderLength | SafeTensorError::HeaderTooSmall => Error::new(
            Code::FileUnusable,
            "the safetensors file is cut short: it ends before its tensors do, or goes on after them",
            "copy it again, and compare the sizes",
        ),
        other => Error::new(
            Code::FileUnusable,
            format!("not a safetensors file: {other}"),
            "write it with safetensors.torch.save_file",
        ),
    }
}
