//! Layers of many geometries, random pairs for them, and what EK-FAC sums over them, by plain loops and by autograd.

use delta_influence::ekfac::Workspace;
use delta_influence::model::layer::{Conv, Layer, LayerKind, Linear, Pair};
use tch::{Device, Kind, Tensor};

pub const EXAMPLES: i64 = 7;

/// A layer with the input size it is tried on.
pub struct Case {
    pub layer: Layer,
    pub input: Vec<i64>,
}

#[allow(clippy::too_many_arguments)]
pub fn conv(
    name: &str,
    channels: [i64; 2],
    kernel: [i64; 2],
    stride: [i64; 2],
    padding: [i64; 2],
    dilation: [i64; 2],
    groups: i64,
    bias: bool,
    size: [i64; 2],
) -> Case {
    let kind = LayerKind::Conv2d(Conv {
        stride,
        padding,
        dilation,
        groups,
        bias,
        ..Conv::new(channels, kernel)
    });
    Case {
        layer: Layer {
            name: name.into(),
            kind,
            part: None,
        },
        input: vec![EXAMPLES, channels[0], size[0], size[1]],
    }
}

pub fn linear(name: &str, features: [i64; 2], bias: bool, positions: &[i64]) -> Case {
    let kind = LayerKind::Linear(Linear {
        in_features: features[0],
        out_features: features[1],
        bias,
    });
    let input = [&[EXAMPLES], positions, &[features[0]]].concat();
    Case {
        layer: Layer {
            name: name.into(),
            kind,
            part: None,
        },
        input,
    }
}

/// Every branch: shared and separate row products, strides, dilation, padding beyond the picture, groups, both orders of rotation.
pub fn cases() -> Vec<Case> {
    vec![
        conv("plain", [3, 4], [3, 3], [1, 1], [1, 1], [1, 1], 1, false, [6, 5]),
        conv("bias", [3, 4], [3, 3], [1, 1], [1, 1], [1, 1], 1, true, [5, 6]),
        conv("no-padding", [2, 3], [3, 3], [1, 1], [0, 0], [1, 1], 1, true, [6, 6]),
        conv("stride", [3, 5], [3, 3], [2, 2], [1, 1], [1, 1], 1, false, [7, 6]),
        conv("stride-bias", [2, 3], [3, 2], [2, 3], [1, 0], [1, 1], 1, true, [8, 8]),
        conv("dilated", [2, 3], [3, 3], [1, 1], [2, 2], [2, 2], 1, true, [7, 7]),
        conv("dilated-stride", [2, 3], [3, 3], [2, 1], [3, 1], [2, 1], 1, false, [8, 5]),
        conv("large-kernel", [2, 3], [7, 7], [1, 1], [3, 3], [1, 1], 1, false, [3, 4]),
        conv("stem", [3, 4], [7, 7], [2, 2], [3, 3], [1, 1], 1, true, [9, 10]),
        conv("row-in-padding", [2, 3], [3, 3], [1, 1], [1, 1], [1, 1], 1, true, [1, 4]),
        conv("much-padding", [1, 2], [3, 3], [1, 1], [4, 3], [1, 1], 1, true, [2, 2]),
        conv("pointwise", [4, 3], [1, 1], [1, 1], [0, 0], [1, 1], 1, true, [3, 3]),
        conv("pointwise-stride", [4, 6], [1, 1], [2, 2], [0, 0], [1, 1], 1, false, [5, 5]),
        conv("pointwise-padding", [2, 3], [1, 1], [1, 1], [1, 1], [1, 1], 1, false, [3, 3]),
        conv("deep", [3, 12], [3, 3], [1, 1], [1, 1], [1, 1], 1, false, [2, 2]),
        conv("deep-bias", [3, 12], [3, 3], [2, 2], [1, 1], [1, 1], 1, true, [4, 4]),
        conv("grouped", [4, 6], [3, 3], [1, 1], [1, 1], [1, 1], 2, false, [5, 4]),
        conv("grouped-bias-stride", [6, 9], [3, 3], [2, 2], [1, 1], [1, 1], 3, true, [6, 5]),
        conv("grouped-deep", [4, 20], [3, 3], [1, 1], [1, 1], [1, 1], 2, true, [2, 2]),
        conv("depthwise", [5, 5], [5, 5], [1, 1], [2, 2], [1, 1], 5, false, [6, 6]),
        conv("depthwise-bias", [4, 8], [3, 3], [1, 1], [1, 1], [1, 1], 4, true, [4, 4]),
        conv("one-channel", [1, 3], [3, 3], [1, 1], [0, 0], [1, 1], 1, true, [5, 6]),
        conv("one-channel-stride", [1, 4], [3, 2], [2, 1], [0, 0], [1, 1], 1, false, [6, 5]),
        conv("depthwise-no-padding", [4, 4], [3, 3], [1, 1], [0, 0], [1, 1], 4, false, [5, 5]),
        linear("linear", [6, 4], false, &[]),
        linear("linear-bias", [5, 7], true, &[]),
        linear("linear-positions", [4, 3], true, &[5]),
        linear("linear-two-positions", [3, 9], false, &[2, 3]),
    ]
}

pub fn workspace(budget_bytes: usize) -> Workspace {
    Workspace {
        kind: Kind::Double,
        device: Device::Cpu,
        budget_bytes,
    }
}

/// The layer applied by libtorch.
pub fn apply(layer: &Layer, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match &layer.kind {
        LayerKind::Conv2d(conv) => conv.apply(x, weight, bias).unwrap(),
        LayerKind::Linear(_) => x.linear(weight, bias),
    }
}

pub fn has_bias(layer: &Layer) -> bool {
    layer.kind.conv().bias
}

pub fn weight_shape(layer: &Layer) -> Vec<i64> {
    match &layer.kind {
        LayerKind::Conv2d(conv) => conv.weight_shape().to_vec(),
        LayerKind::Linear(linear) => linear.weight_shape().to_vec(),
    }
}

/// Random inputs and output gradients for every case. W_i does not depend on the weight, so any output gradient will do.
pub fn pairs(cases: &[Case], seed: i64) -> Vec<Pair> {
    tch::manual_seed(seed);
    let options = (Kind::Double, Device::Cpu);
    cases
        .iter()
        .map(|case| {
            let input = Tensor::randn(&case.input[..], options) + 0.3;
            let output = apply(&case.layer, &input, &Tensor::zeros(&weight_shape(&case.layer)[..], options), None);
            Pair {
                input,
                output_grad: Tensor::randn_like(&output),
            }
        })
        .collect()
}

pub fn rows(pairs: &[Pair], index: &[i64]) -> Vec<Pair> {
    let index = Tensor::from_slice(index);
    pairs
        .iter()
        .map(|p| Pair {
            input: p.input.index_select(0, &index),
            output_grad: p.output_grad.index_select(0, &index),
        })
        .collect()
}

/// W_i by autograd of the weight: [N, O, d].
pub fn autograd_gradient(layer: &Layer, pair: &Pair) -> Tensor {
    let one = |i: i64| {
        let weight = Tensor::zeros(&weight_shape(layer)[..], (Kind::Double, Device::Cpu)).set_requires_grad(true);
        let bias = has_bias(layer).then(|| Tensor::zeros([weight.size()[0]], (Kind::Double, Device::Cpu)).set_requires_grad(true));
        let output = apply(layer, &pair.input.narrow(0, i, 1), &weight, bias.as_ref());
        let objective = (output * pair.output_grad.narrow(0, i, 1)).sum(Kind::Double);
        let inputs: Vec<&Tensor> = [Some(&weight), bias.as_ref()].into_iter().flatten().collect();
        let gradients = Tensor::run_backward(&[objective], &inputs, false, false);
        let flat = gradients[0].flatten(1, -1);
        if bias.is_some() {
            Tensor::cat(&[flat, gradients[1].unsqueeze(1)], 1)
        } else {
            flat
        }
    };
    Tensor::stack(&(0..pair.input.size()[0]).map(one).collect::<Vec<_>>(), 0)
}

/// A and G by loops over examples, positions and pairs of entries.
pub fn naive_covariances(layer: &Layer, pair: &Pair) -> (Tensor, Tensor) {
    let (x, g) = match &layer.kind {
        LayerKind::Conv2d(_) => (pair.input.shallow_clone(), pair.output_grad.shallow_clone()),
        LayerKind::Linear(linear) => {
            let n = pair.input.size()[0];
            let image = |t: &Tensor, features: i64| t.reshape([n, -1, features]).transpose(1, 2).unsqueeze(-1).contiguous();
            (image(&pair.input, linear.in_features), image(&pair.output_grad, linear.out_features))
        }
    };
    let Conv {
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias,
        ..
    } = layer.kind.conv();
    let (n, c, h, w) = x.size4().unwrap();
    let (_, o, oh, ow) = g.size4().unwrap();
    let xs = Vec::<f64>::try_from(x.contiguous().view(-1)).unwrap();
    let gs = Vec::<f64>::try_from(g.contiguous().view(-1)).unwrap();
    let (cg, og) = (c / groups, o / groups);
    let d = cg * kernel[0] * kernel[1] + i64::from(bias);
    let mut a = vec![0.0; (groups * d * d) as usize];
    let mut gg = vec![0.0; (groups * og * og) as usize];
    for (i, group) in (0..n).flat_map(|i| (0..groups).map(move |b| (i, b))) {
        for (ty, tx) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
            let mut patch = Vec::new();
            for ch in 0..cg {
                for (ky, kx) in (0..kernel[0]).flat_map(|y| (0..kernel[1]).map(move |x| (y, x))) {
                    let (y, x) = (
                        ty * stride[0] + ky * dilation[0] - padding[0],
                        tx * stride[1] + kx * dilation[1] - padding[1],
                    );
                    let inside = (0..h).contains(&y) && (0..w).contains(&x);
                    patch.push(if inside {
                        xs[(((i * c + group * cg + ch) * h + y) * w + x) as usize]
                    } else {
                        0.0
                    });
                }
            }
            if bias {
                patch.push(1.0);
            }
            let grads: Vec<f64> = (0..og).map(|k| gs[(((i * o + group * og + k) * oh + ty) * ow + tx) as usize]).collect();
            for (into, vector, size) in [(&mut a, &patch, d), (&mut gg, &grads, og)] {
                for (p, q) in (0..size).flat_map(|p| (0..size).map(move |q| (p, q))) {
                    into[((group * size + p) * size + q) as usize] += vector[p as usize] * vector[q as usize] / (n * oh * ow) as f64;
                }
            }
        }
    }
    (
        Tensor::from_slice(&a).view([groups, d, d]),
        Tensor::from_slice(&gg).view([groups, og, og]),
    )
}
