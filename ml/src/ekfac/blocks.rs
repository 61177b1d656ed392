//! Wide layers in blocks, so that their covariances stay within a bound.
//!
//! A layer of d inputs needs a covariance of d² numbers, and as many for its eigenvectors: 5 GB each for the 25,088 inputs of a VGG's first linear layer. Where one would take more than
//! the bound, its inputs (or its outputs) are divided into contiguous ranges, and the layer into *parts*: the weights from one range of inputs to one range of outputs. To everything else
//! in this room a part is a layer. A and G of the whole become block-diagonal, so do their eigenvectors, and since a Kronecker product of block-diagonal matrices consists of the products
//! of the blocks, EK-FAC of the parts *is* EK-FAC of the whole under such a covariance. Gradients, scores and Λ are those of the whole; its damping is that of all parts together.
//!
//! What is divided depends on the layers and the bound only. Parts of one layer that read the same inputs share their A, those with the same outputs their G ([`shared`]).

use crate::error::Result;
use crate::model::layer::{Layer, LayerKind, LayerPart, Linear, Pair};
use tch::Tensor;

/// Whatever the bound is, covariances of this size are computed whole: it is the least that `worker.memory_budget` may be.
const LEAST: u64 = 16 << 20;
/// Bytes of a covariance's number: they are summed in float64.
const NUMBER: u128 = 8;

/// Layers, wide ones divided.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    /// What the rest of this room takes for layers.
    pub layers: Vec<Layer>,
    /// Of each, the place of the layer that it is a part of, or that it is.
    of: Vec<usize>,
    /// The layers as they were.
    whole: Vec<Layer>,
}

/// One side of a layer: its channels per group, what one of them counts in the covariance, and whether a bias comes on top.
#[derive(Clone, Copy)]
struct Side {
    groups: i64,
    channels: i64,
    each: i64,
    bias: bool,
}

impl Side {
    /// Inputs and outputs of a layer.
    fn both(layer: &Layer) -> [Self; 2] {
        let conv = layer.kind.conv();
        let side = |channels: i64, each: i64, bias: bool| Self {
            groups: conv.groups,
            channels: channels / conv.groups.max(1),
            each,
            bias,
        };
        let window = conv.kernel[0] * conv.kernel[1];
        [side(conv.in_channels, window, conv.bias), side(conv.out_channels, 1, false)]
    }

    /// Bytes of its covariance in so many pieces.
    fn bytes(self, pieces: i64) -> u128 {
        let square = |(place, [_, count]): (i64, [i64; 2])| {
            let bias = self.bias && place == pieces - 1;
            let wide = (count * self.each + i64::from(bias)) as u128;
            wide * wide
        };
        let all: u128 = (0..).zip(ranges(self.channels, pieces)).map(square).sum();
        all * self.groups as u128 * NUMBER
    }

    /// The fewest pieces that stay within `most` bytes, if any do; else one a channel.
    fn pieces(self, most: u64) -> i64 {
        let most = u128::from(most);
        // Pieces take at least this part of the whole.
        let first = (self.bytes(1) / most.max(1)).clamp(1, self.channels.max(1) as u128) as i64;
        (first..self.channels)
            .find(|&pieces| self.bytes(pieces) <= most)
            .unwrap_or(self.channels.max(1))
    }
}

/// `pieces` ranges (first, how many) of `all`, as even as can be.
fn ranges(all: i64, pieces: i64) -> impl Iterator<Item = [i64; 2]> {
    let start = move |piece: i64| (i128::from(all) * i128::from(piece) / i128::from(pieces)) as i64;
    (0..pieces).map(move |piece| [start(piece), start(piece + 1) - start(piece)])
}

impl Blocks {
    /// Layers whose covariances are to stay within `budget` bytes (`worker.memory_budget`) each.
    pub fn within(layers: &[Layer], budget: u64) -> Self {
        Self::of(layers, budget.max(LEAST))
    }

    /// The same, however little `most` is.
    pub fn of(layers: &[Layer], most: u64) -> Self {
        let (mut parts, mut of) = (Vec::new(), Vec::new());
        for (place, layer) in layers.iter().enumerate() {
            let [inputs, outputs] = Side::both(layer);
            let (columns, rows) = (inputs.pieces(most), outputs.pieces(most));
            if columns * rows <= 1 {
                parts.push(layer.clone());
                of.push(place);
                continue;
            }
            for to in ranges(outputs.channels, rows) {
                for from in ranges(inputs.channels, columns) {
                    let last = from[0] + from[1] == inputs.channels;
                    parts.push(part(layer, from, to, last));
                    of.push(place);
                }
            }
        }
        Self {
            layers: parts,
            of,
            whole: layers.to_vec(),
        }
    }

    /// Is no layer divided?
    pub fn none(&self) -> bool {
        self.layers.len() == self.whole.len()
    }

    /// The pairs of the layers as pairs of the parts: views where there are no groups.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn split(&self, pairs: &[Pair]) -> Result<Vec<Pair>> {
        let one = |(layer, &of): (&Layer, &usize)| -> Result<Pair> {
            let pair = pairs
                .get(of)
                .ok_or_else(|| crate::error::Error::internal("a part of a layer without a pair"))?;
            let Some(part) = &layer.part else {
                return Ok(Pair {
                    input: pair.input.shallow_clone(),
                    output_grad: pair.output_grad.shallow_clone(),
                });
            };
            let [inputs, outputs] = Side::both(&self.whole[of]);
            let linear = matches!(layer.kind, LayerKind::Linear(_));
            Ok(Pair {
                input: channels(&pair.input, linear, inputs, part.inputs)?,
                output_grad: channels(&pair.output_grad, linear, outputs, part.outputs)?,
            })
        };
        self.layers.iter().zip(&self.of).map(one).collect()
    }

    /// What is divided, and how: a phrase a layer.
    pub fn told(&self) -> Vec<String> {
        let one = |(place, layer): (usize, &Layer)| {
            let parts: Vec<&LayerPart> = self
                .layers
                .iter()
                .zip(&self.of)
                .filter(|(_, of)| **of == place)
                .filter_map(|(part, _)| part.part.as_ref())
                .collect();
            let side = |range: fn(&LayerPart) -> [i64; 2], what: &str| {
                let starts: std::collections::BTreeSet<i64> = parts.iter().map(|part| range(part)[0]).collect();
                let widest = parts.iter().map(|part| range(part)[1]).max().unwrap_or(0);
                (starts.len() > 1).then(|| format!("{what} in {} blocks of at most {widest}", starts.len()))
            };
            let sides = [side(|part| part.inputs, "inputs"), side(|part| part.outputs, "outputs")];
            let said: Vec<String> = sides.into_iter().flatten().collect();
            (!said.is_empty()).then(|| format!("{} ({})", layer.name, said.join(", ")))
        };
        self.whole.iter().enumerate().filter_map(one).collect()
    }
}

/// The weights from some inputs to some outputs; the bias comes with the last inputs.
fn part(layer: &Layer, inputs: [i64; 2], outputs: [i64; 2], last: bool) -> Layer {
    let name = format!(
        "{}[{}..{}, {}..{}]",
        layer.name,
        outputs[0],
        outputs[0] + outputs[1],
        inputs[0],
        inputs[0] + inputs[1]
    );
    let mut conv = layer.kind.conv();
    conv.bias &= last;
    conv.in_channels = inputs[1] * conv.groups;
    conv.out_channels = outputs[1] * conv.groups;
    Layer {
        name,
        kind: match layer.kind {
            LayerKind::Conv2d(_) => LayerKind::Conv2d(conv),
            LayerKind::Linear(_) => LayerKind::Linear(Linear {
                in_features: inputs[1],
                out_features: outputs[1],
                bias: conv.bias,
            }),
        },
        part: Some(LayerPart {
            of: layer.name.clone(),
            inputs,
            outputs,
        }),
    }
}

/// Some channels of each group.
fn channels(tensor: &Tensor, linear: bool, side: Side, [first, count]: [i64; 2]) -> Result<Tensor> {
    if side.groups == 1 {
        return Ok(tensor.f_narrow(if linear { -1 } else { 1 }, first, count)?);
    }
    let groups = tensor.f_unflatten(1, [side.groups, side.channels])?;
    Ok(groups.f_narrow(2, first, count)?.f_flatten(1, 2)?)
}

/// Of each layer, the first that has the same inputs (or outputs) of the same layer: itself, but for parts. Their covariances are one.
pub(super) fn shared(layers: &[Layer], range: fn(&LayerPart) -> [i64; 2]) -> Vec<usize> {
    let same = |a: &Layer, b: &Layer| match (&a.part, &b.part) {
        (Some(a), Some(b)) => a.of == b.of && range(a) == range(b),
        _ => false,
    };
    let first = |place: usize| (0..place).find(|&other| same(&layers[other], &layers[place])).unwrap_or(place);
    (0..layers.len()).map(first).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::layer::Conv;

    fn linear(name: &str, in_features: i64, out_features: i64) -> Layer {
        let kind = LayerKind::Linear(Linear {
            in_features,
            out_features,
            bias: true,
        });
        Layer {
            name: name.into(),
            kind,
            part: None,
        }
    }

    fn wide(kind: LayerKind) -> Layer {
        Layer {
            name: "wide".into(),
            kind,
            part: None,
        }
    }

    fn bytes(layer: &Layer) -> u128 {
        Side::both(layer).map(|side| side.bytes(1)).into_iter().max().unwrap_or(0)
    }

    /// Of all parts, each covariance counted once.
    fn total(blocks: &Blocks, range: fn(&LayerPart) -> [i64; 2], side: usize) -> u128 {
        let firsts = shared(&blocks.layers, range);
        let own = (0..firsts.len()).filter(|&place| firsts[place] == place);
        own.map(|place| Side::both(&blocks.layers[place])[side].bytes(1)).sum()
    }

    #[test]
    fn a_vggs_first_linear_layer_stays_within_the_usual_budget_and_what_is_narrower_is_left_whole() {
        let layers = [
            linear("features", 4608, 512),
            linear("classifier.0", 25_088, 4096),
            linear("classifier.3", 4096, 4096),
        ];
        let blocks = Blocks::within(&layers, 1 << 30);
        assert_eq!(blocks.told(), ["classifier.0 (inputs in 5 blocks of at most 5018)"]);
        assert_eq!(blocks.layers.len(), 7);
        assert!(total(&Blocks::within(&layers[1..2], 1 << 30), |p| p.inputs, 0) <= 1 << 30);
        // 5.04 GB in one.
        assert!(!Blocks::within(&layers, 5_000_000_000).none());
        let whole = Blocks::within(&layers, 5_100_000_000);
        assert!(whole.none() && whole.layers == layers && whole.told().is_empty());
    }

    #[test]
    fn many_outputs_are_divided_too() {
        let blocks = Blocks::within(&[linear("head", 768, 21_841)], 1 << 30);
        assert_eq!(blocks.told(), ["head (outputs in 4 blocks of at most 5461)"]);
        assert!(total(&blocks, |p| p.outputs, 1) <= 1 << 30);
        // The inputs' covariance is one.
        assert_eq!(shared(&blocks.layers, |p| p.inputs), [0, 0, 0, 0]);
        assert_eq!(shared(&blocks.layers, |p| p.outputs), [0, 1, 2, 3]);
    }

    /// Every weight and bias is in just one part, whatever the bound; the bound is kept as far as channels can be divided, and by as few pieces as can be.
    #[test]
    fn parts_are_the_layer() {
        let mut grouped = Conv::new([12, 18], [3, 2]);
        (grouped.groups, grouped.bias) = (3, true);
        for layer in [
            linear("fc", 13, 7),
            wide(LayerKind::Conv2d(grouped)),
            wide(LayerKind::Conv2d(Conv::new([5, 4], [1, 1]))),
        ] {
            let [inputs, outputs] = Side::both(&layer);
            let conv = layer.kind.conv();
            for most in [1, 100, 300, 1000, 4000, 1 << 20] {
                let blocks = Blocks::of(std::slice::from_ref(&layer), most);
                let mut seen = std::collections::BTreeSet::new();
                for part in &blocks.layers {
                    let whole = LayerPart {
                        of: String::new(),
                        inputs: [0, inputs.channels],
                        outputs: [0, outputs.channels],
                    };
                    let LayerPart {
                        inputs: [i, ni],
                        outputs: [o, no],
                        ..
                    } = part.part.clone().unwrap_or(whole);
                    let [from, to] = [ni, no].map(|n| n * conv.groups);
                    assert_eq!([part.kind.conv().in_channels, part.kind.conv().out_channels], [from, to]);
                    let fresh = (o..o + no).flat_map(|o| (i..i + ni).map(move |i| (o, i))).all(|at| seen.insert(at));
                    assert!(fresh, "{layer:?} within {most}: a weight in two parts");
                    assert_eq!(part.kind.conv().bias, conv.bias && i + ni == inputs.channels);
                }
                assert_eq!(seen.len() as i64, inputs.channels * outputs.channels, "{layer:?} within {most}");
                for side in [inputs, outputs] {
                    let pieces = side.pieces(most);
                    assert!(side.bytes(pieces) <= u128::from(most) || pieces == side.channels);
                    assert!((1..pieces).all(|fewer| side.bytes(fewer) > u128::from(most)));
                }
                assert_eq!(blocks.none(), bytes(&layer) <= u128::from(most));
            }
        }
    }

    #[test]
    fn a_depthwise_layer_cannot_be_divided() {
        let mut depthwise = Conv::new([64, 64], [3, 3]);
        depthwise.groups = 64;
        assert!(Blocks::of(&[wide(LayerKind::Conv2d(depthwise))], 1).none());
    }

    #[test]
    fn the_least_budget_leaves_usual_layers_whole() {
        assert!(Blocks::within(&[linear("fc", 1447, 1000)], 1).none());
        assert!(!Blocks::within(&[linear("fc", 1448, 1000)], 1).none());
    }
}
