//! A layer seen as one shape of convolution: a linear layer is a 1×1 one.

use delta_guard_contract::Code;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::model::layer::{Conv, Layer, LayerKind, Pair};

/// Geometry of a tracked layer, per block (group).
#[derive(Clone, Debug)]
pub(super) struct Geometry {
    pub name: String,
    /// The layer as a convolution; its groups are the blocks.
    pub conv: Conv,
    /// Output channels per block.
    pub out: i64,
    /// Input channels per block.
    pub channels: i64,
    linear: bool,
}

impl Geometry {
    /// Reads a layer; a geometry that no layer can have is a configuration error that names it.
    pub fn of(layer: &Layer) -> Result<Self> {
        let (name, conv) = (layer.name.clone(), layer.kind.conv());
        let Conv {
            in_channels,
            out_channels,
            groups,
            ..
        } = conv;
        if !conv.divides() {
            let why = format!("{in_channels} input and {out_channels} output channels do not divide into {groups} groups");
            return Err(invalid(&name, why));
        }
        let geometry = Self {
            name,
            out: out_channels / groups,
            channels: in_channels / groups,
            conv,
            linear: matches!(layer.kind, LayerKind::Linear(_)),
        };
        let conv = &geometry.conv;
        let mut sizes = [geometry.out, geometry.channels]
            .into_iter()
            .chain(conv.kernel)
            .chain(conv.stride)
            .chain(conv.dilation);
        if !sizes.all(|n| n >= 1) || conv.padding.iter().any(|&n| n < 0) {
            return Err(invalid(
                &geometry.name,
                format!("sizes, kernel, stride and dilation must be positive: {:?}", layer.kind),
            ));
        }
        Ok(geometry)
    }

    /// Reads a list of layers.
    pub fn list(layers: &[Layer]) -> Result<Vec<Self>> {
        layers.iter().map(Self::of).collect()
    }

    /// Inputs per block without the bias: channels · kernel height · kernel width.
    pub fn kernel_inputs(&self) -> i64 {
        self.channels * self.conv.kernel[0] * self.conv.kernel[1]
    }

    /// d: inputs per block, bias counted.
    pub fn inputs(&self) -> i64 {
        self.kernel_inputs() + i64::from(self.conv.bias)
    }

    /// b·o: outputs over all blocks.
    pub fn outputs(&self) -> i64 {
        self.conv.groups * self.out
    }

    /// Width of one kernel row in native order: kernel width · channels.
    pub fn row(&self) -> i64 {
        self.conv.kernel[1] * self.channels
    }

    /// (start, width) of the column ranges in native order that are formed separately: one per kernel row, and the bias.
    pub fn ranges(&self) -> Vec<(i64, i64)> {
        let bias = self.conv.bias.then_some((self.kernel_inputs(), 1));
        (0..self.conv.kernel[0]).map(|y| (y * self.row(), self.row())).chain(bias).collect()
    }

    /// For each native column the column of the flattened weight. Native order is (kernel row, kernel column, channel, bias), the order in which unfolding
    /// by shifted copies yields columns; a weight has (channel, kernel row, kernel column, bias).
    pub fn native_columns(&self) -> Vec<i64> {
        let [height, width] = self.conv.kernel;
        let mut columns = Vec::with_capacity(self.inputs() as usize);
        for y in 0..height {
            for x in 0..width {
                columns.extend((0..self.channels).map(|c| (c * height + y) * width + x));
            }
        }
        if self.conv.bias {
            columns.push(self.kernel_inputs());
        }
        columns
    }

    /// Inverse of [`Self::native_columns`].
    pub fn weight_columns(&self) -> Vec<i64> {
        let native = self.native_columns();
        let mut inverse = vec![0; native.len()];
        for (position, &column) in native.iter().enumerate() {
            inverse[column as usize] = position as i64;
        }
        inverse
    }

    /// The input as B × C × H × W (a linear layer's positions along H), checked.
    pub fn input_image(&self, input: &Tensor) -> Result<Tensor> {
        let image = self.image(input, "input")?;
        let channels = self.conv.groups * self.channels;
        match image.size()[..] {
            [_, c, h, w] if c == channels && self.conv.output_size([h, w]).iter().all(|&n| n >= 1) => Ok(image),
            _ => Err(shape(&self.name, "input", input, &format!("{channels} channels"))),
        }
    }

    /// The output gradient as B × O × H' × W', checked.
    pub fn output_image(&self, output_grad: &Tensor) -> Result<Tensor> {
        let image = self.image(output_grad, "output gradient")?;
        match image.size()[..] {
            [_, o, h, w] if o == self.outputs() && h >= 1 && w >= 1 => Ok(image),
            _ => Err(shape(&self.name, "output gradient", output_grad, &format!("{} channels", self.outputs()))),
        }
    }

    /// Both images of a pair, which must fit each other.
    pub fn images(&self, pair: &Pair) -> Result<(Tensor, Tensor)> {
        let (input, output) = (self.input_image(&pair.input)?, self.output_image(&pair.output_grad)?);
        let (i, o) = (input.size(), output.size());
        let expected = self.conv.output_size([i[2], i[3]]);
        if i[0] != o[0] || expected != [o[2], o[3]] {
            let wanted = format!(
                "{} examples of {}×{} positions, to fit an input {:?}",
                i[0],
                expected[0],
                expected[1],
                pair.input.size()
            );
            return Err(shape(&self.name, "output gradient", &pair.output_grad, &wanted));
        }
        Ok((input, output))
    }

    /// T of a pair: output positions per example.
    pub fn positions(&self, pair: &Pair) -> i64 {
        let size = pair.output_grad.size();
        size.iter().product::<i64>() / (size.first().copied().unwrap_or(1) * self.outputs()).max(1)
    }

    fn image(&self, tensor: &Tensor, what: &str) -> Result<Tensor> {
        let size = tensor.size();
        Ok(match (self.linear, &size[..]) {
            (false, [_, _, _, _]) => tensor.shallow_clone(),
            (true, [_, _]) => tensor.f_unsqueeze(-1)?.f_unsqueeze(-1)?,
            // B × ... × features: every place in between is a position.
            (true, [batch, middle @ .., features]) if !middle.is_empty() => tensor
                .f_reshape([*batch, middle.iter().product(), *features])?
                .f_transpose(1, 2)?
                .f_unsqueeze(-1)?,
            _ => {
                return Err(shape(
                    &self.name,
                    what,
                    tensor,
                    if self.linear { "B × … × features" } else { "B × C × H × W" },
                ));
            }
        })
    }
}

/// Checks that there is one pair per layer and that all have the same number of examples; returns that number.
pub(super) fn batch_size(geometries: &[Geometry], pairs: &[Pair]) -> Result<i64> {
    if geometries.len() != pairs.len() {
        return Err(Error::internal(format!("{} pairs for {} tracked layers", pairs.len(), geometries.len())));
    }
    let sizes: Vec<i64> = pairs.iter().map(|p| p.input.size().first().copied().unwrap_or(0)).collect();
    let first = sizes.first().copied().unwrap_or(0);
    match sizes.iter().position(|&n| n != first) {
        Some(i) => Err(Error::internal(format!(
            "layer {}: {} examples where layer {} has {first}",
            geometries[i].name, sizes[i], geometries[0].name
        ))),
        None => Ok(first),
    }
}

fn invalid(name: &str, why: String) -> Error {
    Error::new(Code::GraphUnusable, format!("layer {name}: {why}"), "check the model's graph")
}

fn shape(name: &str, what: &str, tensor: &Tensor, wanted: &str) -> Error {
    Error::internal(format!("layer {name}: {what} of shape {:?}, expected {wanted}", tensor.size()))
}
