//! Tracked layers and what a pass sees of them.

use crate::error::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// A convolution or linear layer as EK-FAC knows it: its name and its geometry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name in the state dict, without `.weight` (`layer1.0.conv1`).
    pub name: String,
    /// Geometry.
    pub kind: LayerKind,
    /// Which part of a layer it is that is too wide to be taken whole; None: it is whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<LayerPart>,
}

/// The weights of a layer from some of its inputs to some of its outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerPart {
    /// The layer's name.
    pub of: String,
    /// The first input channel (or feature) of each group, and how many.
    pub inputs: [i64; 2],
    /// The first output channel of each group, and how many.
    pub outputs: [i64; 2],
}

/// Geometry of a tracked layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LayerKind {
    /// 2-d convolution.
    Conv2d(Conv),
    /// Linear layer.
    Linear(Linear),
}

/// Geometry of a 2-d convolution with zero padding; pairs are (height, width). Weight: out × in/groups × kh × kw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv {
    /// Input channels.
    pub in_channels: i64,
    /// Output channels.
    pub out_channels: i64,
    /// Kernel size.
    pub kernel: [i64; 2],
    /// Stride.
    #[serde(default = "ones")]
    pub stride: [i64; 2],
    /// Padding on both sides.
    #[serde(default)]
    pub padding: [i64; 2],
    /// Dilation.
    #[serde(default = "ones")]
    pub dilation: [i64; 2],
    /// Groups.
    #[serde(default = "one")]
    pub groups: i64,
    /// Has a bias.
    #[serde(default)]
    pub bias: bool,
}

/// Geometry of a linear layer, y = W x + b. Weight: out × in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linear {
    /// Input features.
    pub in_features: i64,
    /// Output features.
    pub out_features: i64,
    /// Has a bias.
    #[serde(default = "yes")]
    pub bias: bool,
}

fn one() -> i64 {
    1
}

fn ones() -> [i64; 2] {
    [1, 1]
}

fn yes() -> bool {
    true
}

impl LayerKind {
    /// The layer as a convolution: a linear layer is a 1×1 one.
    pub fn conv(&self) -> Conv {
        match self {
            Self::Conv2d(conv) => conv.clone(),
            Self::Linear(linear) => Conv {
                bias: linear.bias,
                ..Conv::new([linear.in_features, linear.out_features], [1, 1])
            },
        }
    }
}

impl Conv {
    /// One of these (input, output) channels and this kernel: stride and dilation 1, no padding, no groups, no bias.
    pub fn new([in_channels, out_channels]: [i64; 2], kernel: [i64; 2]) -> Self {
        Self {
            in_channels,
            out_channels,
            kernel,
            stride: ones(),
            padding: [0, 0],
            dilation: ones(),
            groups: one(),
            bias: false,
        }
    }

    /// Do the channels divide into the groups?
    pub fn divides(&self) -> bool {
        self.groups >= 1 && self.in_channels % self.groups == 0 && self.out_channels % self.groups == 0
    }

    /// Sizes that a convolution can have, or what does not fit.
    ///
    /// # Errors
    /// A sentence.
    pub fn fits(&self) -> std::result::Result<(), String> {
        let (from, to) = (self.in_channels, self.out_channels);
        if from < 1 || to < 1 || !self.divides() {
            return Err(format!("{from} → {to} channels do not divide into {} groups", self.groups));
        }
        for i in 0..2 {
            let (kernel, stride, padding, dilation) = (self.kernel[i], self.stride[i], self.padding[i], self.dilation[i]);
            let sizes = [kernel, stride, dilation].iter().all(|n| (1..=1 << 10).contains(n));
            if !sizes || !(0..=1 << 10).contains(&padding) {
                return Err(format!(
                    "window kernel {kernel}, stride {stride}, padding {padding}, dilation {dilation} makes no sense"
                ));
            }
        }
        Ok(())
    }

    /// Shape of the weight.
    pub fn weight_shape(&self) -> [i64; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    /// Height and width of the output for those of an input; 0 or less where the kernel does not fit.
    pub fn output_size(&self, input: [i64; 2]) -> [i64; 2] {
        [0, 1].map(|i| window(input[i], self.kernel[i], self.stride[i], self.padding[i], self.dilation[i]))
    }

    /// The convolution of a B × C × H × W input.
    ///
    /// # Errors
    /// When libtorch fails (memory, a tensor that does not fit).
    pub fn apply(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        Ok(x.f_conv2d(weight, bias, self.stride, self.padding, self.dilation, self.groups)?)
    }
}

impl Linear {
    /// Shape of the weight.
    pub fn weight_shape(&self) -> [i64; 2] {
        [self.out_features, self.in_features]
    }
}

/// Places that a window takes along one axis.
pub(super) fn window(size: i64, kernel: i64, stride: i64, padding: i64, dilation: i64) -> i64 {
    (size + 2 * padding - dilation * (kernel - 1) - 1).div_euclid(stride) + 1
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
