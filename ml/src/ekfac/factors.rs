//! Fitted factors and the file that keeps them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use delta_guard_contract::Digest;
use safetensors::{Dtype, SafeTensors, View};
use tch::{Device, Kind, Tensor};

use super::geometry::Geometry;
use super::key::FACTOR_FORMAT;
use super::rotation::Rotation;
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::model::layer::Layer;

/// Eigenbases and Λ of all layers: all that preconditioning and self-influence need.
#[derive(Debug)]
pub struct Factors {
    layers: Vec<Layer>,
    pub(super) geometries: Vec<Geometry>,
    pub(super) rotations: Vec<Rotation>,
    /// [b, o, d] per layer.
    pub(super) lambdas: Vec<Tensor>,
    examples: u64,
}

/// Factors of one layer, as they are kept on disk.
#[derive(Debug)]
pub struct LayerFactors {
    /// Q_A: [b, d, d], eigenvectors as columns; rows as the columns of the flattened weight, the bias last.
    pub q_a: Tensor,
    /// Q_G: [b, o, o], eigenvectors as columns.
    pub q_g: Tensor,
    /// Λ: [b, o, d].
    pub lambda: Tensor,
}

impl Factors {
    pub(super) fn new(layers: Vec<Layer>, rotations: Vec<Rotation>, lambdas: Vec<Tensor>, examples: u64) -> Result<Self> {
        let geometries = Geometry::list(&layers)?;
        Ok(Self {
            layers,
            geometries,
            rotations,
            lambdas,
            examples,
        })
    }

    /// Tracked layers, in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// How many examples Λ is a mean over.
    pub fn examples(&self) -> u64 {
        self.examples
    }

    /// Factors of layer `index` (in layer order) with Q_A in weight order.
    pub fn layer(&self, index: usize) -> Result<LayerFactors> {
        let (Some(geometry), Some(rotation), Some(lambda)) = (self.geometries.get(index), self.rotations.get(index), self.lambdas.get(index)) else {
            return Err(Error::internal(format!("factors of layer {index} of {}", self.layers.len())));
        };
        let order = Tensor::f_from_slice(&geometry.weight_columns())?.f_to_device(rotation.q_a.device())?;
        Ok(LayerFactors {
            q_a: rotation.q_a.f_index_select(1, &order)?,
            q_g: rotation.q_g.shallow_clone(),
            lambda: lambda.shallow_clone(),
        })
    }

    /// Writes the factors under their key: temporary file, fsync, rename, fsync of the folder. A reader sees the old file or the new one.
    pub fn save(&self, path: &Path, key: &Digest) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut tensors = Vec::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let factors = self.layer(index)?;
            for (what, tensor) in [("q_a", factors.q_a), ("q_g", factors.q_g), ("lambda", factors.lambda)] {
                tensors.push((format!("{}.{what}", layer.name), Stored::new(&tensor)?));
            }
        }
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let content = content_digest(tensors.iter().map(|(name, t)| (name.as_str(), t.data())));
        let layers = serde_json::to_string(&self.layers).map_err(|e| Error::internal(format!("layer list: {e}")))?;
        let metadata = HashMap::from([
            ("format".to_string(), FACTOR_FORMAT.to_string()),
            ("key".to_string(), key.0.clone()),
            ("layers".to_string(), layers),
            ("examples".to_string(), self.examples.to_string()),
            ("blake3".to_string(), content),
        ]);
        replace_file(path, |temporary| {
            safetensors::serialize_to_file(tensors, Some(metadata), temporary).map_err(|error| match error {
                safetensors::SafeTensorError::IoError(io) => Error::from(io),
                other => Error::internal(format!("{}: {other}", temporary.display())),
            })?;
            files::canonical::sort_header_of(fs_err::OpenOptions::new().read(true).write(true).open(temporary)?.file())
        })
        .context(|| format!("cannot write factors to {}", path.display()))
    }

    /// Reads factors and checks that they are whole, belong to `key` and fit `layers`.
    pub fn load(path: &Path, layers: &[Layer], key: &Digest, workspace: &Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let damaged = |why: String| {
            Error::configuration(
                format!("factor file {}: {why}", path.display()),
                "delete the file; the factors are then fitted again",
            )
        };
        let bytes = fs_err::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(format!("damaged: {e}")))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(format!("damaged: {e}")))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |name: &str| {
            metadata
                .get(name)
                .map(String::as_str)
                .ok_or_else(|| damaged(format!("its header has no {name}")))
        };
        if entry("format")? != FACTOR_FORMAT {
            return Err(damaged(format!("format {}, expected {FACTOR_FORMAT}", entry("format")?)));
        }
        if entry("key")? != key.0 {
            return Err(damaged(format!("made for key {}, wanted {}", entry("key")?, key.0)));
        }
        let stored: Vec<Layer> = serde_json::from_str(entry("layers")?).map_err(|e| damaged(format!("layer list: {e}")))?;
        if stored != layers {
            return Err(damaged("made for other layers than the model's".to_string()));
        }
        let examples = entry("examples")?.parse().map_err(|e| damaged(format!("number of examples: {e}")))?;
        let mut views: Vec<_> = file.tensors();
        views.sort_by(|a, b| a.0.cmp(&b.0));
        if content_digest(views.iter().map(|(name, view)| (name.as_str(), Cow::Borrowed(view.data())))) != entry("blake3")? {
            return Err(damaged(
                "damaged: its content does not have the digest that was written with it".to_string(),
            ));
        }
        let geometries = Geometry::list(layers)?;
        let (mut rotations, mut lambdas) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
        for geometry in &geometries {
            let (b, o, d) = (geometry.groups, geometry.out, geometry.inputs());
            let read = |what: &str, shape: [i64; 3]| read_tensor(&file, &format!("{}.{what}", geometry.name), &shape).map_err(damaged);
            let (q_a, q_g, lambda) = (read("q_a", [b, d, d])?, read("q_g", [b, o, o])?, read("lambda", [b, o, d])?);
            rotations.push(Rotation::new(geometry, &q_a, &q_g, workspace)?);
            lambdas.push(workspace.take(&lambda)?);
        }
        Self::new(layers.to_vec(), rotations, lambdas, examples)
    }
}

/// A contiguous CPU tensor on its way to a file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    fn new(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let dtype = match tensor.f_kind()? {
            Kind::Float => Dtype::F32,
            Kind::Double => Dtype::F64,
            other => return Err(Error::internal(format!("factors in {other:?} cannot be written"))),
        };
        let mut bytes = vec![0; tensor.numel() * tensor.f_kind()?.elt_size_in_bytes()];
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

/// BLAKE3 over names and bytes, in name order.
fn content_digest<'a>(tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, data) in tensors {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(data.len() as u64).to_le_bytes()).update(&data);
    }
    hasher.finalize().to_hex().to_string()
}

fn read_tensor(file: &SafeTensors<'_>, name: &str, shape: &[i64]) -> std::result::Result<Tensor, String> {
    let view = file.tensor(name).map_err(|_| format!("damaged: no tensor {name}"))?;
    let found: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    if found != shape {
        return Err(format!("{name} has shape {found:?}, expected {shape:?}"));
    }
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        other => return Err(format!("{name} is {other:?}, expected F32 or F64")),
    };
    let read = || -> Result<(Tensor, bool)> {
        let tensor = Tensor::f_from_data_size(view.data(), &found, kind)?;
        let finite = tensor.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite();
        Ok((tensor, finite))
    };
    match read() {
        Ok((tensor, true)) => Ok(tensor),
        Ok((_, false)) => Err(format!("{name} has entries that are not finite")),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// Has `write` fill a temporary file beside `path`, then puts it in place durably.
fn replace_file(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    let name = path
        .file_name()
        .ok_or_else(|| Error::internal(format!("{} names no file", path.display())))?;
    let temporary = folder.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let result = write(&temporary).and_then(|()| {
        fs_err::File::open(&temporary)?.sync_all()?;
        fs_err::rename(&temporary, path)?;
        Ok(fs_err::File::open(&folder)?.sync_all()?)
    });
    if result.is_err() {
        // The first error is the one to tell; what is left behind is a hidden file.
        let _ = fs_err::remove_file(&temporary);
    }
    result
}
