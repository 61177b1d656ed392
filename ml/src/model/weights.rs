//! State dicts: strict safetensors in and out with PyTorch's names, and initialisation.

use super::graph::{Graph, StateEntry};
use super::initial;
use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::{kind_of, not_safetensors, read_tensors, write_tensors};
use delta_guard_contract::Code;
use delta_guard_contract::mistaken::{HEAD, Mistaken, mistaken};
use safetensors::SafeTensors;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
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

    /// Read a checkpoint of exactly this graph: every tensor there, none besides, right shapes, finite values. Floats of any width become `Float`
    /// (`Double` is kept when `kind` says so). Only batch norm's `num_batches_tracked` may be missing, as PyTorch allows.
    ///
    /// # Errors
    /// `Configuration`, naming file and tensors, all of them when several are missing.
    pub fn load(path: &Path, graph: &Graph, kind: Kind) -> Result<Self> {
        let what = || format!("checkpoint {}", path.display());
        let tensors = read_tensors(&read_checkpoint(path)?).context(what)?;
        Self::checked(tensors, graph, kind).context(what)
    }

    /// The same values in the kinds of numbers that the checkpoint at `path` has, and without `num_batches_tracked` where that has none: what took
    /// the checkpoint's place takes these.
    ///
    /// # Errors
    /// `Configuration` when the checkpoint cannot be read, or a value is too large for its kind (float16 ends at 65,504).
    pub fn like(&self, path: &Path) -> Result<Self> {
        let file = read_checkpoint(path)?;
        let model = SafeTensors::deserialize(&file)
            .map_err(|e| not_safetensors(&e))
            .context(|| format!("checkpoint {}", path.display()))?;
        let mut out = BTreeMap::new();
        for (name, tensor) in &self.0 {
            let Some(kind) = model.tensor(name).ok().and_then(|view| kind_of(view.dtype())) else {
                continue; // only batch norm's counter can be missing: see `load`
            };
            let same = tensor.detach().f_to_kind(kind)?;
            if same.is_floating_point() && same.f_isfinite()?.f_all()?.int64_value(&[]) == 0 {
                return Err(Error::new(
                    Code::CheckpointUnusable,
                    format!(
                        "tensor {name} of the new model does not fit into {kind:?}, the kind of numbers of {}",
                        path.display()
                    ),
                    "save the production checkpoint as float32 (or bfloat16) and name that in model.checkpoint",
                ));
            }
            out.insert(name.clone(), same);
        }
        Ok(Self(out))
    }

    /// Hold named tensors against a graph's state dict.
    fn checked(mut tensors: BTreeMap<String, Tensor>, graph: &Graph, kind: Kind) -> Result<Self> {
        let help = "model.checkpoint must be the state dict of model.architecture with model.width and model.stem, saved as safetensors";
        let state = graph.state();
        let missing: Vec<&str> = state
            .iter()
            .filter(|e| e.kind == Kind::Float && !tensors.contains_key(&e.name))
            .map(|e| e.name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(Error::new(
                Code::CheckpointUnusable,
                format!("{} missing: {}", plural(missing.len(), "tensor"), list(&missing)),
                help,
            ));
        }
        let mut known = BTreeMap::new();
        for entry in &state {
            known.insert(entry.name.clone(), checked_tensor(tensors.remove(&entry.name), entry, kind, help)?);
        }
        if !tensors.is_empty() {
            let names: Vec<&str> = tensors.keys().map(String::as_str).collect();
            return Err(Error::new(
                Code::CheckpointUnusable,
                format!("{} too many: {}", plural(names.len(), "tensor"), list(&names)),
                help,
            ));
        }
        Ok(Self(known))
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

fn plural(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

fn list(names: &[&str]) -> String {
    let shown = names[..names.len().min(5)].join(", ");
    if names.len() > 5 { format!("{shown}, …") } else { shown }
}

fn checked_tensor(tensor: Option<Tensor>, entry: &StateEntry, kind: Kind, help: &str) -> Result<Tensor> {
    let Some(tensor) = tensor else {
        return Ok(Tensor::zeros([] as [i64; 0], (Kind::Int64, Device::Cpu))); // batch norm's counter: only the training loop reads it
    };
    if tensor.size() != entry.shape {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("tensor {} has shape {:?} instead of {:?}", entry.name, tensor.size(), entry.shape),
            help,
        ));
    }
    if entry.kind == Kind::Int64 {
        return Ok(tensor.to_kind(Kind::Int64));
    }
    if !tensor.is_floating_point() {
        return Err(Error::new(
            Code::CheckpointUnusable,
            format!("tensor {} holds {:?} instead of floats", entry.name, tensor.kind()),
            help,
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

/// The bytes of a checkpoint, or what the file is instead of one. A wrong file is told by its first bytes, before gigabytes are read.
fn read_checkpoint(path: &Path) -> Result<Vec<u8>> {
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
    file.read_to_end(&mut head)?;
    Ok(head)
}
