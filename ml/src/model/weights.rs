//! State dicts: checkpoints strictly in and out with the names that their owner gave, and initialisation.

mod names;
mod source;

pub use source::{CheckpointFile, digest};

use super::graph::{Graph, StateEntry};
use super::initial;
use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::write_tensors;
use delta_guard_contract::Code;
use names::{HELP, Names};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Tensors by state-dict name.
#[derive(Debug)]
pub struct Weights(pub BTreeMap<String, Tensor>);

impl Weights {
    /// A deep copy.
    pub fn copy(&self) -> Self {
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), tensor.detach().copy())).collect())
    }

    /// On another device, floats as `kind`.
    pub fn to(&self, device: Device, kind: Kind) -> Self {
        let one = |t: &Tensor| t.to_device(device).to_kind(if t.is_floating_point() { kind } else { t.kind() });
        Self(self.0.iter().map(|(name, tensor)| (name.clone(), one(tensor))).collect())
    }

    /// Random initialisation as PyTorch's ResNet: convolutions Kaiming normal (fan out), linear layers and biases uniform ±1/√fan_in, norms 1 and 0.
    /// Deterministic in the seed.
    ///
    /// # Errors
    /// `Configuration`: a parameter whose initial form nothing in the graph tells (a class token, a table of positions), by name.
    pub fn init(graph: &Graph, seed: u64) -> Result<Self> {
        initial::weights(graph, seed).map(Self)
    }

    /// Read a checkpoint of this graph: every tensor there, right shapes, finite values; what else may lie in it, and what may stand before the names: see [`CheckpointFile`].
    /// Floats of any width become `Float` (`Double` is kept when `kind` says so). Only batch norm's `num_batches_tracked` may be missing, as PyTorch allows.
    ///
    /// # Errors
    /// `Configuration`, naming file and tensors, all of them when several are missing.
    pub fn load<'a>(source: impl Into<CheckpointFile<'a>>, graph: &Graph, kind: Kind) -> Result<Self> {
        Self::load_noted(source, graph, kind).map(|(weights, _)| weights)
    }

    /// The same, with what a person should know of how the file was read: one sentence each.
    ///
    /// # Errors
    /// As [`Weights::load`].
    pub fn load_noted<'a>(source: impl Into<CheckpointFile<'a>>, graph: &Graph, kind: Kind) -> Result<(Self, Vec<String>)> {
        let source = source.into();
        let what = || format!("checkpoint {}", source.path.display());
        let mut tensors = source::read(source.path)?;
        let state = graph.state();
        let names = names_in(&tensors, state.iter().map(|entry| entry.name.as_str()), source.prefix).context(what)?;
        let mut known = BTreeMap::new();
        for entry in &state {
            let tensor = tensors.remove(&format!("{}{}", names.prefix, entry.name));
            known.insert(entry.name.clone(), checked_tensor(tensor, entry, kind).context(what)?);
        }
        Ok((Self(known), names.notes()))
    }

    /// What takes the place of the checkpoint at `source`: these values under its names and in its kinds of numbers, without `num_batches_tracked` where that has
    /// none, and whatever lies beside them there, untouched. One file, whether it was one or several.
    ///
    /// # Errors
    /// `Configuration` when the checkpoint cannot be read, or a value is too large for its kind (float16 ends at 65,504).
    pub fn like<'a>(&self, source: impl Into<CheckpointFile<'a>>) -> Result<Self> {
        let source = source.into();
        let mut file = source::read(source.path)?;
        let what = || format!("checkpoint {}", source.path.display());
        let names = names_in(&file, self.0.keys().map(String::as_str), source.prefix).context(what)?;
        for (name, tensor) in &self.0 {
            let Some(former) = file.get_mut(&format!("{}{name}", names.prefix)) else {
                continue; // only batch norm's counter can be missing: see `load`
            };
            let kind = former.kind();
            let same = tensor.detach().f_to_kind(kind)?;
            if same.is_floating_point() && same.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
                return Err(Error::new(
                    Code::CheckpointUnusable,
                    format!(
                        "tensor {name} of the new model does not fit into {kind:?}, the kind of numbers of {}",
                        source.path.display()
                    ),
                    "save the production checkpoint as float32 (or bfloat16) and name that in model.checkpoint",
                ));
            }
            *former = same;
        }
        Ok(Self(file))
    }

    /// Write a checkpoint that Python's `safetensors` and `load_state_dict` accept; `metadata` goes into its header.
    ///
    /// # Errors
    /// `Resource` when the disk is full.
    pub fn save(&self, path: &Path, metadata: &[(&str, String)]) -> Result<()> {
        let mut metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| ((*k).to_string(), v.clone())).collect();
        metadata.insert("format".into(), "pt".into());
        write_tensors(path, self.0.iter().map(|(n, t)| (n.as_str(), t)), metadata)
    }
}

fn names_in<'a>(file: &BTreeMap<String, Tensor>, network: impl Iterator<Item = &'a str>, prefix: Option<&str>) -> Result<Names> {
    let file: BTreeSet<&str> = file.keys().map(String::as_str).collect();
    Names::find(&file, &network.collect(), prefix)
}

fn is_float(kind: Kind) -> bool {
    matches!(kind, Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double)
}

fn checked_tensor(tensor: Option<Tensor>, entry: &StateEntry, kind: Kind) -> Result<Tensor> {
    let Some(tensor) = tensor else {
        return Ok(Tensor::zeros([] as [i64; 0], (Kind::Int64, Device::Cpu))); // batch norm's counter: only the training loop reads it
    };
    if tensor.size() != entry.shape {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("tensor {} has shape {:?} instead of {:?}", entry.name, tensor.size(), entry.shape),
            HELP,
        ));
    }
    if !is_float(entry.kind) {
        return Ok(tensor.to_kind(entry.kind));
    }
    if !tensor.is_floating_point() {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("tensor {} holds {:?} instead of floats", entry.name, tensor.kind()),
            HELP,
        ));
    }
    let tensor = tensor.to_kind(kind);
    if tensor.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("tensor {} holds a NaN or an infinity", entry.name),
            "the training run that made it diverged: use another checkpoint",
        ));
    }
    Ok(tensor)
}
