//! Is an exported model read rightly? Its answers beside those that its owner stored, its gradients beside finite differences.
//!
//! The file's own weights are used: a checkpoint of the same names may take their place later. What is proved is the network and the way from a picture's file to its pixels.

mod likely;
mod slopes;
mod stored;

pub use stored::OwnersPictures;

use crate::data::normalise;
use crate::device;
use crate::ekfac::Blocks;
use crate::error::{Error, Result, ResultExt};
use crate::import::Program;
use crate::model::{Graph, Model, Weights, lower};
use delta_guard_contract::job::{Proof, Tracked, VerifyResult};
use delta_guard_contract::{Code, ImageConfig};
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// An exported model with what its owner stored.
#[derive(Debug)]
pub struct OwnersModel {
    /// Its network, for the pictures of `image`.
    pub graph: Graph,
    /// The weights in the file.
    pub weights: Weights,
    /// What its owner stored, if anything.
    pub owner: Option<OwnersPictures>,
    /// Pictures as the configuration says it, or as the file does.
    pub image: Option<ImageConfig>,
}

impl OwnersModel {
    /// Read a `.pt2` for pictures of `image`; None: as the file says.
    ///
    /// # Errors
    /// `ProgramUnusable`, `GraphUnusable`; sizes that neither says.
    pub fn read(file: &Path, image: Option<&ImageConfig>) -> Result<Self> {
        let what = || file.display().to_string();
        let program = Program::read(file)?;
        let owner = stored::of(&program).context(what)?;
        let image = match (image, &owner) {
            (Some(image), _) => Some(image.clone()),
            (None, Some(owner)) => Some(owner.image(&program).context(what)?),
            (None, None) => None,
        };
        let input = match &image {
            Some(image) => image.input(),
            None => own_input(&program).context(what)?,
        };
        let (graph, weights) = lower::graph(&program, input).context(what)?;
        Ok(Self {
            graph,
            weights,
            owner,
            image,
        })
    }

    /// How it answers the stored pictures; None: there are none.
    ///
    /// # Errors
    /// A stored picture that is none, another number of logits, libtorch's.
    pub fn proof(&self) -> Result<Option<Proof>> {
        let (Some(owner), Some(image)) = (&self.owner, &self.image) else {
            return Ok(None);
        };
        if owner.pictures.is_empty() {
            return Ok(None);
        }
        let model = Model::new(self.graph.clone(), self.weights.copy());
        let wanted = owner.logits()?;
        if wanted.size() != [owner.pictures.len() as i64, self.graph.classes()] {
            let message = format!(
                "logits of shape {:?} are stored, the network yields {} each",
                wanted.size(),
                self.graph.classes()
            );
            return Err(Error::new(Code::ProgramUnusable, message, "export the model again with docs/export.py"));
        }
        let ours = model.forward(&normalise(&owner.pixels(image)?, image, Kind::Float, Device::Cpu)?)?;
        let same = ours
            .argmax(1, false)
            .eq_tensor(&wanted.argmax(1, false))
            .sum(Kind::Int64)
            .int64_value(&[]);
        let mut proof = Proof {
            pictures: owner.pictures.len() as u64,
            difference: difference(&ours, &wanted),
            same_class: same as u64,
            likely: Vec::new(),
        };
        if !proof.agrees() {
            proof.likely = likely::causes(&model, owner, image, &ours, &wanted)?;
        }
        Ok(Some(proof))
    }
}

/// Largest difference of a number; infinite where one is not a number.
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    let off = (a.to_kind(Kind::Double) - b.to_kind(Kind::Double)).abs().max().double_value(&[]);
    if off.is_nan() { f64::INFINITY } else { off }
}

/// Channels, height and width that the file itself says.
fn own_input(program: &Program) -> Result<[i64; 3]> {
    match program.input_shape[..] {
        [_, Some(channels), Some(height), Some(width)] => Ok([channels, height, width]),
        _ => Err(Error::new(
            Code::GraphUnusable,
            "it takes pictures of any size, so that its file does not say which",
            "export it for one size of pictures, or check it with the configuration (--config), whose data.image says it",
        )),
    }
}

/// [`delta_guard_contract::Task::VerifyModel`]
///
/// # Errors
/// As [`OwnersModel::read`] and [`OwnersModel::proof`].
pub fn verify(file: &Path, image: Option<&ImageConfig>, memory_budget: u64) -> Result<VerifyResult> {
    let exported = OwnersModel::read(file, image)?;
    let proof = exported.proof().context(|| file.display().to_string())?;
    let (graph, weights) = (&exported.graph, &exported.weights);
    Ok(VerifyResult {
        classes: graph.classes() as u64,
        input: graph.input,
        parameters: graph.parameters(),
        tracked: tracked_within(graph, memory_budget),
        stored: exported.owner.as_ref().map(OwnersPictures::told),
        proof,
        gradient_difference: slopes::difference(graph, weights)?,
        seconds_per_picture: seconds(graph, weights)?,
        factor_bytes: factor_bytes(graph, memory_budget),
        peak_memory: device::peak_memory(),
    })
}

/// Of a tapped forward and backward pass, a picture.
fn seconds(graph: &Graph, weights: &Weights) -> Result<f64> {
    const PICTURES: i64 = 2;
    let model = Model::new(graph.clone(), weights.copy());
    let [channels, height, width] = graph.input;
    let images = Tensor::f_zeros([PICTURES, channels, height, width], (Kind::Float, Device::Cpu))?;
    let start = Instant::now();
    let tapped = model.forward_tapped(&images)?;
    let objective = tapped.logits.f_sum(Kind::Float)?;
    let _ = tapped.pairs(&objective, &(0..graph.layers().len()).collect::<Vec<_>>())?;
    Ok(start.elapsed().as_secs_f64() / PICTURES as f64)
}

/// What influence covers, and which layers are taken in blocks within `memory_budget` (`worker.memory_budget`).
pub fn tracked_within(graph: &Graph, memory_budget: u64) -> Tracked {
    Tracked {
        blocks: Blocks::within(&graph.layers(), memory_budget).told(),
        ..graph.tracked()
    }
}

/// Q_A, Q_G and Λ of all layers, float32.
fn factor_bytes(graph: &Graph, memory_budget: u64) -> u64 {
    let of = |layer: &crate::model::layer::Layer| {
        let conv = layer.kind.conv();
        let [_, inner, height, width] = conv.weight_shape();
        let (o, d) = (conv.out_channels / conv.groups, inner * height * width + i64::from(conv.bias));
        (conv.groups * (d * d + o * o + o * d)) as u64 * 4
    };
    Blocks::within(&graph.layers(), memory_budget).layers.iter().map(of).sum()
}
