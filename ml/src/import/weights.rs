//! Weights and constants of an exported program: raw bytes with a shape, each held against what is there before anything is allocated.

use super::archive::{Archive, Part};
use super::program::model_name;
use super::schema::{Payload, Payloads, STRIDED, SymInt, TensorMeta, kind};
use super::{broken, shown, unread};
use crate::error::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use tch::{Kind, Tensor};

/// More dimensions than any tensor of a network has.
const MAX_DIMENSIONS: usize = 16;
/// Tensors may share bytes (tied weights): all of them together are at most so many times as large as the file.
const MAX_SHARING: usize = 16;

/// A tensor in a file: its bytes stay there until they are asked for.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Kind of numbers.
    pub kind: Kind,
    /// Sizes.
    pub shape: Vec<i64>,
    /// Steps from one element to the next along each dimension, elements.
    strides: Vec<i64>,
    /// The first element, and how many from there on belong to it.
    first: usize,
    reach: usize,
    payload: Part,
}

impl Stored {
    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product::<i64>() as usize
    }

    /// A copy in memory, contiguous.
    ///
    /// # Errors
    /// `OutOfMemory`.
    pub fn tensor(&self) -> Result<Tensor> {
        let size = self.kind.elt_size_in_bytes();
        let bytes = self
            .payload
            .bytes()
            .get(self.first * size..(self.first + self.reach) * size)
            .ok_or_else(|| Error::internal("a weight's bytes were checked and are not there"))?;
        let flat = Tensor::f_from_data_size(bytes, &[self.reach as i64], self.kind)?;
        Ok(flat.f_as_strided(&self.shape, &self.strides, None::<i64>)?.f_contiguous()?)
    }

    /// What a payload's description says, if the payload can hold it.
    fn new(meta: &TensorMeta, payload: &Part) -> std::result::Result<Self, String> {
        let kind = kind(meta.dtype).map_err(|kind| format!("holds {kind}, which are not read"))?;
        if meta.layout != STRIDED {
            return Err("is sparse, which is not read".into());
        }
        let known = |size: &SymInt| match size {
            SymInt::Int(n) if *n >= 0 => Ok(*n),
            SymInt::Int(n) => Err(format!("has a size, stride or offset of {n}")),
            SymInt::Expression(_) => Err("has a size, stride or offset that is not a number".into()),
        };
        let all = |sizes: &[SymInt]| sizes.iter().map(known).collect::<std::result::Result<Vec<i64>, String>>();
        let (shape, strides, first) = (all(&meta.sizes)?, all(&meta.strides)?, known(&meta.storage_offset)?);
        if shape.len() > MAX_DIMENSIONS || shape.len() != strides.len() {
            return Err(format!("has {} sizes and {} strides", shape.len(), strides.len()));
        }
        let (size, there) = (kind.elt_size_in_bytes(), payload.bytes().len());
        let too_large = || format!("of shape {shape:?} does not fit into its {there} bytes");
        let bounded = |n: i64| {
            usize::try_from(n)
                .ok()
                .filter(|n| n.checked_mul(size).is_some_and(|bytes| bytes <= there))
        };
        let numel = shape
            .iter()
            .try_fold(1i64, |n, d| n.checked_mul(*d))
            .and_then(bounded)
            .ok_or_else(too_large)?;
        let (first, reach) = if numel == 0 {
            (0, 0)
        } else {
            let steps = shape
                .iter()
                .zip(&strides)
                .try_fold(1i64, |n, (d, s)| n.checked_add((d - 1).checked_mul(*s)?));
            let end = steps.and_then(|n| n.checked_add(first)).and_then(bounded);
            (first as usize, end.ok_or_else(too_large)? - first as usize)
        };
        if kind == Kind::Bool && payload.bytes().iter().any(|b| *b > 1) {
            return Err("holds truth values that are neither 0 nor 1".into());
        }
        Ok(Self {
            kind,
            shape,
            strides,
            first,
            reach,
            payload: payload.clone(),
        })
    }
}

/// The weights and constants of the program named `model`, by state-dict name.
pub(super) fn read(archive: &Archive, model: &str) -> Result<BTreeMap<String, Stored>> {
    let mut tensors = payloads(archive, model, "data/weights", "weights")?;
    for (name, stored) in payloads(archive, model, "data/constants", "constants")? {
        if tensors.insert(name.clone(), stored).is_some() {
            return Err(broken(format!("tensor {} is a weight and a constant", shown(&name))));
        }
    }
    bounded(archive, tensors)
}

/// The owner's state dict in an archive: the weights of its one model, without the constants of the code.
///
/// # Errors
/// `ProgramUnusable` with tensor and entry.
pub fn state_dict(archive: &Archive) -> Result<BTreeMap<String, Stored>> {
    bounded(archive, payloads(archive, &model_name(archive)?, "data/weights", "weights")?)
}

fn bounded(archive: &Archive, tensors: BTreeMap<String, Stored>) -> Result<BTreeMap<String, Stored>> {
    let bytes = |t: &Stored| t.numel() * t.kind.elt_size_in_bytes();
    if tensors.values().map(bytes).fold(0, usize::saturating_add) > archive.length().saturating_mul(MAX_SHARING) {
        return Err(broken(format!(
            "its tensors together are more than {MAX_SHARING} times as large as the file"
        )));
    }
    Ok(tensors)
}

fn payloads(archive: &Archive, model: &str, folder: &str, what: &str) -> Result<BTreeMap<String, Stored>> {
    if archive.names("data/weights/").any(|name| name == format!("{model}.pt")) {
        return Err(unread("a torch older than 2.9 saved it, its weights as a pickle", super::SAVE_AGAIN));
    }
    let config = format!("{folder}/{model}_{what}_config.json");
    let text = archive.text(&config)?;
    let payloads: Payloads = serde_json::from_slice(&text).map_err(|e| broken(format!("entry {}: {e}", shown(&config))))?;
    let mut parts: BTreeMap<String, Part> = BTreeMap::new();
    let all = payloads.config.into_iter();
    all.map(|(name, payload)| stored(archive, folder, &name, &payload, &mut parts).map(|stored| (name, stored)))
        .collect()
}

fn stored(archive: &Archive, folder: &str, name: &str, payload: &Payload, parts: &mut BTreeMap<String, Part>) -> Result<Stored> {
    if payload.use_pickle {
        return Err(unread(
            format!("tensor {} is stored as a pickle, which is not read because it can run code", shown(name)),
            "its type is not torch.Tensor but a class of its own (quantised, sharded, …): export a model of plain tensors",
        ));
    }
    let Some(meta) = &payload.tensor_meta else {
        return Err(broken(format!("tensor {} has no sizes", shown(name))));
    };
    let entry = format!("{folder}/{}", payload.path_name);
    let part = match parts.entry(entry) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => {
            let part = archive.entry(free.key()).context(|| format!("tensor {}", shown(name)))?;
            free.insert(part)
        }
    };
    if part.bytes().is_empty() && meta.sizes.iter().all(|size| !matches!(size, SymInt::Int(0))) {
        return Err(unread(
            format!("tensor {} has no bytes: the model was exported without its weights", shown(name)),
            "export the model outside of FakeTensorMode and not on the device meta",
        ));
    }
    Stored::new(meta, part).map_err(|why| broken(format!("tensor {} {why}", shown(name))))
}
