//! Tracked layers and what a pass sees of them.

use crate::error::Result;
use tch::Tensor;

/// A convolution or linear layer as EK-FAC knows it: its name and its geometry.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Name in the state dict, without `.weight` (`layer1.0.conv1`).
    pub name: String,
    /// Geometry.
    pub kind: LayerKind,
}

/// Geometry of a tracked layer.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayerKind {
    /// 2-d convolution; pairs are (height, width). Weight: out × in/groups × kh × kw.
    Conv2d {
        /// Input channels.
        in_channels: i64,
        /// Output channels.
        out_channels: i64,
        /// Kernel.
        kernel: [i64; 2],
        /// Stride.
        stride: [i64; 2],
        /// Zero padding on both sides.
        padding: [i64; 2],
        /// Dilation.
        dilation: [i64; 2],
        /// Groups.
        groups: i64,
        /// Has a bias.
        bias: bool,
    },
    /// Linear layer. Weight: out × in.
    Linear {
        /// Input features.
        in_features: i64,
        /// Output features.
        out_features: i64,
        /// Has a bias.
        bias: bool,
    },
}

/// What a tapped forward and backward pass yields for one layer and a batch of B examples, each example's gradient being that of its own
/// objective (the batch objective is a *sum* and norms are in eval mode, so rows do not mix).
#[derive(Debug)]
pub struct Pair {
    /// Layer input: B × C × H × W, or B × features.
    pub input: Tensor,
    /// ∂objective/∂(layer output): B × O × H' × W', or B × features.
    pub output_grad: Tensor,
}

impl Pair {
    /// Those of some examples only, by their places in the batch.
    ///
    /// # Errors
    /// When libtorch fails (memory, a place outside the batch).
    pub fn select(&self, places: &[i64]) -> Result<Self> {
        let index = Tensor::f_from_slice(places)?.f_to_device(self.input.device())?;
        let one = |t: &Tensor| -> Result<Tensor> {
            if t.dim() != 4 {
                return Ok(t.f_index_select(0, &index)?);
            }
            // With channels innermost in memory, as they are in networks on a CPU.
            Ok(t.f_permute([0, 2, 3, 1])?.f_index_select(0, &index)?.f_permute([0, 3, 1, 2])?)
        };
        Ok(Self {
            input: one(&self.input)?,
            output_grad: one(&self.output_grad)?,
        })
    }
}
