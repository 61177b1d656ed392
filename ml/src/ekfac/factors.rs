//! Fitted factors and the file that keeps them.

use std::collections::BTreeMap;
use std::path::Path;

use delta_guard_contract::{Code, Digest};
use tch::{Kind, Tensor};

use super::file;
use super::geometry::Geometry;
use super::key::FACTOR_FORMAT;
use super::rotation::Rotation;
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::write_sealed;
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

    /// Factors under which the inverse with a damping of 1 is the identity: no rotation, Λ = 0.
    pub fn identity(layers: &[Layer], workspace: &Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let (mut rotations, mut lambdas) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
        for geometry in &Geometry::list(layers)? {
            let (b, o, d) = (geometry.conv.groups, geometry.out, geometry.inputs());
            let eye = |n: i64| -> Result<Tensor> {
                Ok(Tensor::f_eye(n, (workspace.kind, workspace.device))?
                    .f_expand([b, n, n], false)?
                    .f_contiguous()?)
            };
            rotations.push(Rotation::new(geometry, &eye(d)?, &eye(o)?, workspace)?);
            lambdas.push(workspace.zeros(&[b, o, d])?);
        }
        Self::new(layers.to_vec(), rotations, lambdas, 0)
    }

    /// The mean of a layer's Λ; of a part, over all parts of its layer.
    pub(super) fn mean_lambda(&self, place: usize) -> Result<f64> {
        let Some(part) = &self.layers[place].part else {
            return Ok(self.lambdas[place].f_mean(Kind::Double)?.f_double_value(&[])?);
        };
        let (mut sum, mut numbers) = (0.0, 0);
        for (layer, lambda) in self.layers.iter().zip(&self.lambdas) {
            if layer.part.as_ref().is_some_and(|other| other.of == part.of) {
                sum += lambda.f_sum(Kind::Double)?.f_double_value(&[])?;
                numbers += lambda.numel();
            }
        }
        Ok(sum / numbers.max(1) as f64)
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

    /// Writes the factors under their key, whole or not at all.
    pub fn save(&self, path: &Path, key: &Digest) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let mut tensors = BTreeMap::new();
        for (index, layer) in self.layers.iter().enumerate() {
            let factors = self.layer(index)?;
            for (what, tensor) in [("q_a", factors.q_a), ("q_g", factors.q_g), ("lambda", factors.lambda)] {
                tensors.insert(format!("{}.{what}", layer.name), tensor);
            }
        }
        let mut texts = file::texts(FACTOR_FORMAT, key, &self.layers)?;
        texts.insert("examples".into(), self.examples.to_string());
        write_sealed(path, tensors.iter().map(|(name, t)| (name.as_str(), t)), texts).context(|| "factors".into())
    }

    /// Reads factors and checks that they are whole, belong to `key` and fit `layers`.
    pub fn load(path: &Path, layers: &[Layer], key: &Digest, workspace: &Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let (mut tensors, texts) = file::read(path, FACTOR_FORMAT, key, layers)?;
        let examples = texts.get("examples").map(|n| n.parse());
        let Some(Ok(examples)) = examples else {
            let message = format!("{}: its header does not tell the number of examples", path.display());
            return Err(Error::new(
                Code::KeptFileUnusable,
                message,
                "delete the file; the factors are then fitted again",
            ));
        };
        let geometries = Geometry::list(layers)?;
        let (mut rotations, mut lambdas) = (Vec::with_capacity(layers.len()), Vec::with_capacity(layers.len()));
        for geometry in &geometries {
            let (b, o, d) = (geometry.conv.groups, geometry.out, geometry.inputs());
            let mut read = |what: &str, shape: [i64; 3]| {
                file::tensor(&mut tensors, &format!("{}.{what}", geometry.name), &shape).context(|| path.display().to_string())
            };
            let (q_a, q_g, lambda) = (read("q_a", [b, d, d])?, read("q_g", [b, o, o])?, read("lambda", [b, o, d])?);
            rotations.push(Rotation::new(geometry, &q_a, &q_g, workspace)?);
            lambdas.push(workspace.take(&lambda)?);
        }
        Self::new(layers.to_vec(), rotations, lambdas, examples)
    }
}
