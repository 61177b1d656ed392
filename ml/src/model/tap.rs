//! Where a network is tapped, and how what a tap sees becomes a pair of (input, output gradient) with the example first.
//!
//! Most layers see B × … already. Others fold something into the batch (windows of a Swin transformer) or keep the batch elsewhere (tokens first, inside PyTorch's attention). A weight
//! that is used several times has one gradient, the sum over its uses: its positions are put behind each other. A convolution that is used so is seen by its patches, as a linear layer.

use super::layer::{Conv, Layer, LayerKind, Linear, Pair};
use crate::error::{Error, Result};
use tch::Tensor;

/// A tracked layer and the nodes that use its weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Tap {
    /// Name and geometry, as EK-FAC sees it.
    pub layer: Layer,
    /// The nodes, in order.
    pub uses: Vec<Use>,
}

/// A node that uses a tracked layer's weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its place in the graph.
    pub node: usize,
    /// Where the examples are in its input and output.
    pub rows: Placement,
    /// The convolution whose patches are taken, where it is seen as a linear layer.
    pub patches: Option<Conv>,
}

/// Where the examples are in a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The dimension that counts them.
    pub dim: usize,
    /// Entries of that dimension that belong to one example.
    pub each: i64,
    /// Do an example's entries lie together (b₁ b₁ b₂ b₂), or apart (b₁ b₂ b₁ b₂)?
    pub together: bool,
}

impl Placement {
    /// The first dimension, an entry each.
    pub const PLAIN: Self = Self {
        dim: 0,
        each: 1,
        together: true,
    };

    /// `tensor`, of `examples`, as B × … × the dimensions behind `kept`: [B, positions, last `kept` dimensions].
    fn first(self, tensor: &Tensor, examples: i64, kept: usize) -> Result<Tensor> {
        let size = tensor.size();
        let (dim, dims) = (self.dim as i64, size.len());
        let last = dims.checked_sub(kept).ok_or_else(|| Error::internal("a tap with too few dimensions"))?;
        if size.get(self.dim).copied() != Some(examples * self.each) || self.dim >= last {
            return Err(Error::internal(format!(
                "a tap of shape {size:?} does not hold {examples} examples in dimension {dim}"
            )));
        }
        let shape = if self.together { [examples, self.each] } else { [self.each, examples] };
        let split = tensor.f_unflatten(dim, &shape[..])?;
        let from = if self.together { dim } else { dim + 1 };
        let front = split.f_movedim([from], [0i64])?;
        let mut shape = vec![examples, -1];
        shape.extend(&size[last..]);
        Ok(front.f_reshape(shape)?)
    }
}

/// What a pass kept of one tracked layer.
#[derive(Debug)]
pub struct Handles {
    tap: Tap,
    seen: Vec<(Use, Tensor, Tensor)>,
}

impl Handles {
    /// Of a layer, nothing yet.
    pub fn new(tap: &Tap) -> Self {
        Self {
            tap: tap.clone(),
            seen: Vec::new(),
        }
    }

    /// Input and output of one of its nodes.
    pub fn push(&mut self, node: usize, input: Tensor, output: Tensor) {
        let rows = self.tap.uses.iter().find(|u| u.node == node);
        self.seen.extend(rows.map(|u| (u.clone(), input, output)));
    }

    /// The outputs, to differentiate with respect to.
    pub fn outputs(&self) -> impl Iterator<Item = &Tensor> {
        self.seen.iter().map(|(_, _, output)| output)
    }

    /// The pair, with the gradients of its outputs taken from `grads`.
    ///
    /// # Errors
    /// When libtorch fails; a shape that is not what the graph's first run showed.
    pub fn pair(&self, examples: i64, grads: &mut impl Iterator<Item = Tensor>) -> Result<Pair> {
        let mut pairs = Vec::with_capacity(self.seen.len());
        for (at, input, output) in &self.seen {
            let grad = grads.next().filter(Tensor::defined);
            let grad = grad.unwrap_or_else(|| output.zeros_like()); // a layer that the logits do not depend on
            pairs.push(self.one(at, input, grad, examples)?);
        }
        match <[Pair; 1]>::try_from(pairs) {
            Ok([only]) => Ok(only),
            Err(pairs) => {
                let joined = |part: fn(&Pair) -> &Tensor| Tensor::f_cat(&pairs.iter().map(part).collect::<Vec<_>>(), 1);
                Ok(Pair {
                    input: joined(|pair| &pair.input)?,
                    output_grad: joined(|pair| &pair.output_grad)?,
                })
            }
        }
    }

    fn one(&self, at: &Use, input: &Tensor, grad: Tensor, examples: i64) -> Result<Pair> {
        let plain = at.rows == Placement::PLAIN && self.tap.uses.len() == 1;
        if let Some(conv) = &at.patches {
            let patches = input.f_im2col(conv.kernel, conv.dilation, conv.padding, conv.stride)?.f_transpose(1, 2)?;
            let by_position = grad.f_flatten(2, -1)?.f_transpose(1, 2)?;
            return Ok(Pair {
                input: at.rows.first(&patches, examples, 1)?,
                output_grad: at.rows.first(&by_position, examples, 1)?,
            });
        }
        if plain || matches!(self.tap.layer.kind, LayerKind::Conv2d(_)) {
            return Ok(Pair {
                input: input.shallow_clone(),
                output_grad: grad,
            });
        }
        Ok(Pair {
            input: at.rows.first(input, examples, 1)?,
            output_grad: at.rows.first(&grad, examples, 1)?,
        })
    }
}

impl Tap {
    /// A layer of these uses; None where it cannot be seen so.
    pub fn of(name: &str, uses: Vec<(usize, Placement, LayerKind)>) -> Option<Self> {
        let (_, first, kind) = uses.first()?.clone();
        let plain = uses.len() == 1 && first == Placement::PLAIN;
        let seen = match &kind {
            LayerKind::Conv2d(conv) if !plain => LayerKind::Linear(patches(conv)?),
            kind => kind.clone(),
        };
        let each = uses.into_iter().map(|(node, rows, own)| {
            let patches = match own {
                LayerKind::Conv2d(own) if !plain => {
                    // The same weight: only how it moves over the picture may differ.
                    (LayerKind::Linear(self::patches(&own)?) == seen).then_some(Some(own))?
                }
                own => (own == kind).then_some(None)?,
            };
            Some(Use { node, rows, patches })
        });
        Some(Self {
            uses: each.collect::<Option<_>>()?,
            layer: Layer {
                name: name.into(),
                kind: seen,
                part: None,
            },
        })
    }
}

/// A convolution's patches times its weight: a linear layer. None where there are groups.
fn patches(conv: &Conv) -> Option<Linear> {
    (conv.groups == 1).then(|| Linear {
        in_features: conv.in_channels * conv.kernel[0] * conv.kernel[1],
        out_features: conv.out_channels,
        bias: conv.bias,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three examples, each number tells whose it is.
    #[test]
    fn each_examples_entries_come_together_wherever_they_are() {
        let of = |numbers: &[i64], shape: &[i64]| Tensor::from_slice(numbers).reshape(shape);
        let rows = |dim, each, together| Placement { dim, each, together };
        for (tensor, at) in [
            (of(&[0, 1, 2], &[3, 1]), Placement::PLAIN),
            (of(&[0, 0, 1, 1, 2, 2], &[6, 1]), rows(0, 2, true)),
            (of(&[0, 1, 2, 0, 1, 2], &[6, 1]), rows(0, 2, false)),
            (of(&[0, 1, 2, 0, 1, 2], &[2, 3, 1]), rows(1, 1, true)),
            (of(&[0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2], &[2, 6, 1]), rows(1, 2, true)),
        ] {
            let found = at.first(&tensor, 3, 1).unwrap();
            for example in 0..3 {
                let own = Vec::<i64>::try_from(found.get(example).flatten(0, -1)).unwrap();
                assert!(own.iter().all(|n| *n == example) && own.len() == tensor.numel() / 3, "{at:?}: {own:?}");
            }
        }
        assert!(Placement::PLAIN.first(&of(&[0, 1, 2, 3], &[4, 1]), 3, 1).is_err());
    }
}
