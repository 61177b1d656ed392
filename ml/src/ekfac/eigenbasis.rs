//! Eigenbases Q_A, Q_G of the covariances: float64 on the CPU, whatever the working precision.

use std::path::Path;

use delta_guard_contract::{Code, Digest};
use tch::{Device, Kind, Tensor};

use super::blocks::shared;
use super::covariance::Covariances;
use super::file;
use super::geometry::Geometry;
use super::workspace::Workspace;
use crate::error::{Error, Result, ResultExt};
use crate::files::tensors::write_sealed;
use crate::model::layer::Layer;

/// Eigenbases of all layers.
#[derive(Debug)]
pub struct Eigenbasis {
    /// The layers, in the order of `blocks`.
    pub layers: Vec<Layer>,
    /// One entry per layer.
    pub blocks: Vec<LayerBasis>,
}

/// Eigenvectors (columns) and ascending eigenvalues of a layer.
#[derive(Debug)]
pub struct LayerBasis {
    /// Q_A: [b, d, d], working precision; rows as the columns of the flattened weight, the bias last.
    pub q_a: Tensor,
    /// Q_G: [b, o, o], working precision.
    pub q_g: Tensor,
    /// Eigenvalues of A: [b, d], float64, CPU. EK-FAC replaces them by Λ; they are kept for inspection.
    pub input_eigenvalues: Tensor,
    /// Eigenvalues of G: [b, o], float64, CPU.
    pub output_grad_eigenvalues: Tensor,
}

/// Version of the file that keeps an eigenbasis between the parts of the two passes.
const FORMAT: &str = "delta-guard-eigenbasis/1";

impl Eigenbasis {
    /// Writes the basis under its key, whole or not at all.
    ///
    /// # Errors
    /// `Resource` when the disk is full.
    pub fn save(&self, path: &Path, key: &Digest) -> Result<()> {
        let mut tensors = file::Tensors::new();
        for (layer, block) in self.layers.iter().zip(&self.blocks) {
            for (what, tensor) in block.named() {
                tensors.insert(format!("{}.{what}", layer.name), tensor.shallow_clone());
            }
        }
        let texts = file::texts(FORMAT, key, &self.layers)?;
        write_sealed(path, tensors.iter().map(|(name, t)| (name.as_str(), t)), texts).context(|| "eigenbasis".into())
    }

    /// Reads a basis and checks that it is whole, belongs to `key` and fits `layers`.
    ///
    /// # Errors
    /// `Configuration`: missing, damaged, another's.
    pub fn load(path: &Path, layers: &[Layer], key: &Digest, workspace: &Workspace) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let (mut tensors, _) = file::read(path, FORMAT, key, layers)?;
        let mut blocks = Vec::with_capacity(layers.len());
        for geometry in Geometry::list(layers)? {
            let (b, o, d) = (geometry.conv.groups, geometry.out, geometry.inputs());
            let mut read = |what: &str, shape: &[i64]| file::tensor(&mut tensors, &format!("{}.{what}", geometry.name), shape);
            blocks.push(LayerBasis {
                q_a: workspace.take(&read("q_a", &[b, d, d])?)?,
                q_g: workspace.take(&read("q_g", &[b, o, o])?)?,
                input_eigenvalues: read("input_eigenvalues", &[b, d])?,
                output_grad_eigenvalues: read("output_grad_eigenvalues", &[b, o])?,
            });
        }
        Ok(Self {
            layers: layers.to_vec(),
            blocks,
        })
    }
}

impl LayerBasis {
    /// Its tensors with their names in the file.
    fn named(&self) -> [(&'static str, &Tensor); 4] {
        [
            ("q_a", &self.q_a),
            ("q_g", &self.q_g),
            ("input_eigenvalues", &self.input_eigenvalues),
            ("output_grad_eigenvalues", &self.output_grad_eigenvalues),
        ]
    }
}

impl Covariances {
    /// Decomposes every covariance. `each` is told how many layers are done.
    pub fn eigenbasis(&self, workspace: &Workspace, mut each: impl FnMut(usize)) -> Result<Eigenbasis> {
        let _guard = tch::no_grad_guard();
        let (same_inputs, same_grads) = (shared(&self.layers, |part| part.inputs), shared(&self.layers, |part| part.outputs));
        let mut blocks: Vec<LayerBasis> = Vec::with_capacity(self.blocks.len());
        for (place, (layer, covariance)) in self.layers.iter().zip(&self.blocks).enumerate() {
            let known = |same: usize, part: fn(&LayerBasis) -> (&Tensor, &Tensor)| {
                let (values, vectors) = part(blocks.get(same)?);
                Some((values.shallow_clone(), vectors.shallow_clone()))
            };
            let (input_eigenvalues, q_a) = match known(same_inputs[place], |basis| (&basis.input_eigenvalues, &basis.q_a)) {
                Some(known) => known,
                None => eigh(&covariance.input, &layer.name, "input covariance", workspace)?,
            };
            let (output_grad_eigenvalues, q_g) = match known(same_grads[place], |basis| (&basis.output_grad_eigenvalues, &basis.q_g)) {
                Some(known) => known,
                None => eigh(&covariance.output_grad, &layer.name, "output gradient covariance", workspace)?,
            };
            blocks.push(LayerBasis {
                q_a,
                q_g,
                input_eigenvalues,
                output_grad_eigenvalues,
            });
            each(blocks.len());
        }
        Ok(Eigenbasis {
            layers: self.layers.clone(),
            blocks,
        })
    }
}

/// Eigenvalues (float64, CPU) and eigenvectors (working precision and device) of [b, n, n], decomposed in float64 where the products are computed: on a GPU
/// the widest layers take seconds instead of a minute.
fn eigh(matrix: &Tensor, layer: &str, what: &str, workspace: &Workspace) -> Result<(Tensor, Tensor)> {
    let matrix = matrix.f_to_device(workspace.device)?.f_to_kind(Kind::Double)?;
    let matrix = matrix.f_add(&matrix.f_transpose(1, 2)?)?.f_mul_scalar(0.5)?;
    if !matrix.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
        let help = "check the checkpoint and the pixels: a NaN or an infinite activation spoils the whole layer";
        return Err(Error::new(
            Code::NotFinite,
            format!("layer {layer}: the {what} has entries that are not finite"),
            help,
        ));
    }
    let (values, vectors) = matrix.f_linalg_eigh("L").map_err(|error| {
        let line = error.to_string().lines().next().unwrap_or_default().to_string();
        Error::new(
            Code::NotFinite,
            format!(
                "layer {layer}: the eigendecomposition of the {what} ({0} × {0}) did not converge: {line}",
                matrix.size()[1]
            ),
            "fit the factors on more or other examples; a layer whose inputs are all alike or span many orders of magnitude can cause this",
        )
    })?;
    // An overflow while decomposing a finite matrix would show here.
    if !values.f_sum(Kind::Double)?.f_double_value(&[])?.is_finite() {
        return Err(Error::new(
            Code::NotFinite,
            format!("layer {layer}: the {what} has eigenvalues that are not finite"),
            "check the scale of the pixels",
        ));
    }
    Ok((
        values.f_to_device(Device::Cpu)?,
        vectors.f_contiguous()?.f_to_kind(workspace.kind)?.f_to_device(workspace.device)?,
    ))
}
