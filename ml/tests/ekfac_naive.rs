//! EK-FAC against plain loops over every multiply-add and against autograd of the weight itself, in float64.

#![allow(clippy::unwrap_used)]

use delta_influence::ekfac::{
    CovarianceFold, Damping, Eigenbasis, Factors, GradientSumFold, LambdaFold, Queries, Workspace, gradient, precondition, scores,
    scores_and_self_influence, self_influence,
};
use delta_influence::model::layer::{Layer, LayerKind, Pair};
use tch::{Device, Kind, Tensor};

const EXAMPLES: i64 = 7;

/// A layer with the input size it is tried on.
struct Case {
    layer: Layer,
    input: Vec<i64>,
}

#[allow(clippy::too_many_arguments)]
fn conv(
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
    let [in_channels, out_channels] = channels;
    let kind = LayerKind::Conv2d {
        in_channels,
        out_channels,
        kernel,
        stride,
        padding,
        dilation,
        groups,
        bias,
    };
    Case {
        layer: Layer { name: name.into(), kind },
        input: vec![EXAMPLES, in_channels, size[0], size[1]],
    }
}

fn linear(name: &str, features: [i64; 2], bias: bool, positions: &[i64]) -> Case {
    let kind = LayerKind::Linear {
        in_features: features[0],
        out_features: features[1],
        bias,
    };
    let input = [&[EXAMPLES], positions, &[features[0]]].concat();
    Case {
        layer: Layer { name: name.into(), kind },
        input,
    }
}

/// Every branch: shared and separate row products, strides, dilation, padding beyond the picture, groups, both orders of rotation.
fn cases() -> Vec<Case> {
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
        linear("linear", [6, 4], false, &[]),
        linear("linear-bias", [5, 7], true, &[]),
        linear("linear-positions", [4, 3], true, &[5]),
        linear("linear-two-positions", [3, 9], false, &[2, 3]),
    ]
}

fn workspace(budget_bytes: usize) -> Workspace {
    Workspace {
        kind: Kind::Double,
        device: Device::Cpu,
        budget_bytes,
    }
}

/// The layer applied by libtorch.
fn apply(layer: &Layer, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    match &layer.kind {
        LayerKind::Conv2d {
            stride,
            padding,
            dilation,
            groups,
            ..
        } => x.conv2d(weight, bias, *stride, *padding, *dilation, *groups),
        LayerKind::Linear { .. } => x.linear(weight, bias),
    }
}

fn has_bias(layer: &Layer) -> bool {
    matches!(layer.kind, LayerKind::Conv2d { bias: true, .. } | LayerKind::Linear { bias: true, .. })
}

fn weight_shape(layer: &Layer) -> Vec<i64> {
    match layer.kind {
        LayerKind::Conv2d {
            in_channels,
            out_channels,
            kernel,
            groups,
            ..
        } => vec![out_channels, in_channels / groups, kernel[0], kernel[1]],
        LayerKind::Linear {
            in_features, out_features, ..
        } => vec![out_features, in_features],
    }
}

/// Random inputs and output gradients for every case. W_i does not depend on the weight, so any output gradient will do.
fn pairs(cases: &[Case], seed: i64) -> Vec<Pair> {
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

fn rows(pairs: &[Pair], index: &[i64]) -> Vec<Pair> {
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
fn autograd_gradient(layer: &Layer, pair: &Pair) -> Tensor {
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
fn naive_covariances(layer: &Layer, pair: &Pair) -> (Tensor, Tensor) {
    let (x, g) = match layer.kind {
        LayerKind::Conv2d { .. } => (pair.input.shallow_clone(), pair.output_grad.shallow_clone()),
        LayerKind::Linear {
            in_features, out_features, ..
        } => {
            let n = pair.input.size()[0];
            let image = |t: &Tensor, features: i64| t.reshape([n, -1, features]).transpose(1, 2).unsqueeze(-1).contiguous();
            (image(&pair.input, in_features), image(&pair.output_grad, out_features))
        }
    };
    let (kernel, stride, padding, dilation, groups, bias) = match layer.kind {
        LayerKind::Conv2d {
            kernel,
            stride,
            padding,
            dilation,
            groups,
            bias,
            ..
        } => (kernel, stride, padding, dilation, groups, bias),
        LayerKind::Linear { bias, .. } => ([1, 1], [1, 1], [0, 0], [1, 1], 1, bias),
    };
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

/// ‖a − b‖ / ‖b‖
fn difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    let (a, b) = (a.to_kind(Kind::Double), b.to_kind(Kind::Double));
    (&a - &b).norm().double_value(&[]) / b.norm().double_value(&[])
}

fn assert_close(a: &Tensor, b: &Tensor, tolerance: f64, what: &str) {
    let d = difference(a, b);
    assert!(d <= tolerance, "{what}: relative difference {d:e} exceeds {tolerance:e}");
}

fn basis(layers: &[Layer], pairs: &[Pair], workspace: Workspace) -> Eigenbasis {
    let mut fold = CovarianceFold::new(layers, workspace).unwrap();
    fold.add(pairs).unwrap();
    fold.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap()
}

fn fit(layers: &[Layer], pairs: &[Pair], workspace: Workspace) -> Factors {
    let mut fold = LambdaFold::new(&basis(layers, pairs, workspace), workspace).unwrap();
    fold.add(pairs).unwrap();
    fold.finish().unwrap()
}

/// W_i in blocks: [N, b, o, d].
fn blocked(gradient: &Tensor, q_g: &Tensor) -> Tensor {
    let (n, _, d) = gradient.size3().unwrap();
    gradient.reshape([n, q_g.size()[0], q_g.size()[1], d])
}

fn rotated(gradient: &Tensor, q_a: &Tensor, q_g: &Tensor) -> Tensor {
    Tensor::einsum("bop,nboe,bed->nbpd", &[q_g, &blocked(gradient, q_g), q_a], None::<i64>)
}

#[test]
fn gradients_equal_autograd_of_the_weight() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let pairs = pairs(&cases, 1);
    for budget in [1, 20_000, 1 << 24] {
        let gradients = gradient(&layers, &pairs, &workspace(budget)).unwrap();
        for ((layer, pair), found) in layers.iter().zip(&pairs).zip(&gradients) {
            assert_close(found, &autograd_gradient(layer, pair), 1e-12, &layer.name);
        }
    }
}

#[test]
fn covariances_equal_loops_and_their_bases_diagonalise_them() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let pairs = pairs(&cases, 2);
    for budget in [1, 20_000, 1 << 24] {
        let mut fold = CovarianceFold::new(&layers, workspace(budget)).unwrap();
        fold.add(&pairs).unwrap();
        let found = fold.finish().unwrap();
        assert_eq!(found.examples, EXAMPLES as u64);
        let basis = found.eigenbasis(&workspace(budget), |_| ()).unwrap();
        for (i, layer) in layers.iter().enumerate() {
            let (a, g) = naive_covariances(layer, &pairs[i]);
            assert_close(&found.blocks[i].input, &a, 1e-12, &format!("A of {}", layer.name));
            assert_close(&found.blocks[i].output_grad, &g, 1e-12, &format!("G of {}", layer.name));
            let block = &basis.blocks[i];
            for (matrix, q, values) in [(a, &block.q_a, &block.input_eigenvalues), (g, &block.q_g, &block.output_grad_eigenvalues)] {
                let rebuilt = q.matmul(&values.diag_embed(0, -2, -1)).matmul(&q.transpose(1, 2));
                assert_close(&rebuilt, &matrix, 1e-12, &format!("Q diag Qᵀ of {}", layer.name));
            }
        }
    }
}

#[test]
fn lambda_and_scores_equal_the_formulas_on_autograd_gradients() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let (training, asked) = (pairs(&cases, 3), pairs(&cases, 4));
    for budget in [1, 1 << 24] {
        let workspace = workspace(budget);
        let factors = fit(&layers, &training, workspace);
        let query_gradients = gradient(&layers, &asked, &workspace).unwrap();
        for damping in [Damping::Absolute(1e-8), Damping::Heuristic(0.1)] {
            let options = (Kind::Double, Device::Cpu);
            let (mut expected, mut expected_self) = (Tensor::zeros([EXAMPLES, EXAMPLES], options), Tensor::zeros([EXAMPLES], options));
            let preconditioned = precondition(&factors, damping, &query_gradients, &workspace).unwrap();
            for (i, layer) in layers.iter().enumerate() {
                let block = factors.layer(i).unwrap();
                let w = rotated(&autograd_gradient(layer, &training[i]), &block.q_a, &block.q_g);
                let lambda = w.square().mean_dim([0i64].as_slice(), false, None);
                assert_close(&block.lambda, &lambda, 1e-10, &format!("Λ of {}", layer.name));
                let d = match damping {
                    Damping::Absolute(d) => d,
                    Damping::Heuristic(f) => f * lambda.mean(Kind::Double).double_value(&[]),
                };
                let v = rotated(&autograd_gradient(layer, &asked[i]), &block.q_a, &block.q_g) / (&lambda + d);
                expected += v.flatten(1, -1).matmul(&w.flatten(1, -1).tr());
                expected_self += (w.square() / (&lambda + d))
                    .flatten(1, -1)
                    .sum_dim_intlist([1i64].as_slice(), false, None);
                let p = Tensor::einsum("bop,nbpd,bed->nboe", &[&block.q_g, &v, &block.q_a], None::<i64>);
                assert_close(
                    &preconditioned[i],
                    &p.reshape(preconditioned[i].size()),
                    1e-10,
                    &format!("P of {}", layer.name),
                );
            }
            let queries = Queries::new(&factors, damping, &query_gradients, workspace).unwrap();
            assert_close(&scores(&queries, &training).unwrap(), &expected, 1e-10, "scores");
            assert_close(
                &self_influence(&factors, damping, &training, &workspace).unwrap(),
                &expected_self,
                1e-10,
                "self-influence",
            );
            let (joint, own) = scores_and_self_influence(&queries, &training).unwrap();
            assert_close(&joint, &expected, 1e-10, "scores beside self-influence");
            assert_close(&own, &expected_self, 1e-10, "self-influence beside scores");
            // One query takes the way without per-example gradients.
            for q in 0..EXAMPLES {
                let one: Vec<Tensor> = query_gradients.iter().map(|g| g.narrow(0, q, 1)).collect();
                let single = Queries::new(&factors, damping, &one, workspace).unwrap();
                assert_close(&scores(&single, &training).unwrap(), &expected.narrow(0, q, 1), 1e-10, "one query");
            }
            let halves =
                [vec![0, 1, 2], vec![3, 4, 5, 6]].map(|half| Queries::from_pairs(&factors, damping, &rows(&asked, &half), workspace).unwrap());
            let [first, second] = halves;
            let appended = first.append(second).unwrap();
            assert_eq!(appended.len(), EXAMPLES as usize);
            assert_close(&scores(&appended, &training).unwrap(), &expected, 1e-10, "queries from pairs");
            assert_close(
                &scores_and_self_influence(&appended, &training).unwrap().0,
                &expected,
                1e-10,
                "queries from pairs beside self-influence",
            );
            let shifted = queries.difference(2).unwrap();
            let base = expected.narrow(0, 2, 1);
            let wanted = &expected - &base;
            wanted.narrow(0, 2, 1).copy_(&base);
            assert_close(&scores(&shifted, &training).unwrap(), &wanted, 1e-10, "differences");
            assert_close(
                &scores_and_self_influence(&shifted, &training).unwrap().0,
                &wanted,
                1e-10,
                "differences beside self-influence",
            );
        }
    }
}

#[test]
fn each_layer_alone_gives_its_share() {
    // The layers together could hide a mistake of a small one.
    for case in cases() {
        let layers = [case.layer.clone()];
        let training = pairs(std::slice::from_ref(&case), 5);
        let asked = rows(&pairs(std::slice::from_ref(&case), 6), &[0, 1, 2]);
        let workspace = workspace(1 << 24);
        let factors = fit(&layers, &training, workspace);
        let block = factors.layer(0).unwrap();
        let gradients = gradient(&layers, &asked, &workspace).unwrap();
        let queries = Queries::new(&factors, Damping::Heuristic(0.1), &gradients, workspace).unwrap();
        let w = autograd_gradient(&case.layer, &training[0]);
        let expected = queries.layer(0).unwrap().flatten(1, -1).matmul(&w.flatten(1, -1).tr());
        let (joint, own) = scores_and_self_influence(&queries, &training).unwrap();
        assert_close(&scores(&queries, &training).unwrap(), &expected, 1e-11, &case.layer.name);
        assert_close(&joint, &expected, 1e-11, &case.layer.name);
        let d = 0.1 * block.lambda.mean(Kind::Double).double_value(&[]);
        let expected = (rotated(&w, &block.q_a, &block.q_g).square() / (&block.lambda + d))
            .flatten(1, -1)
            .sum_dim_intlist([1i64].as_slice(), false, None);
        assert_close(&own, &expected, 1e-11, &case.layer.name);
    }
}

#[test]
fn batches_order_and_ranges_do_not_matter() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let (all, workspace) = (pairs(&cases, 7), workspace(1 << 20));
    let whole_basis = basis(&layers, &all, workspace);
    let reference = fit(&layers, &all, workspace);
    let query_gradients = gradient(&layers, &rows(&all, &[3, 5]), &workspace).unwrap();
    let queries = Queries::new(&reference, Damping::Absolute(1e-8), &query_gradients, workspace).unwrap();
    let expected = scores(&queries, &all).unwrap();
    let weights = Tensor::from_slice(&[1.0, -2.0, 0.0, 0.5, 3.0, 1.5, -1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 2.0]).view([2, EXAMPLES]);

    // Ranges, each a list of batches; every arrangement holds each example once.
    let arrangements: [&[&[&[i64]]]; 3] = [
        &[&[&[0], &[1], &[2], &[3], &[4], &[5], &[6]]],
        &[&[&[6, 2, 4], &[0, 1, 5, 3]]],
        &[&[&[5, 6]], &[&[0, 3, 1], &[2]], &[&[4]]],
    ];
    for arrangement in arrangements {
        let mut covariances = CovarianceFold::new(&layers, workspace).unwrap();
        let mut lambda = LambdaFold::new(&whole_basis, workspace).unwrap();
        let mut sums = GradientSumFold::new(&layers, 2, workspace).unwrap();
        for range in arrangement {
            let mut c = CovarianceFold::new(&layers, workspace).unwrap();
            let mut l = LambdaFold::new(&whole_basis, workspace).unwrap();
            let mut s = GradientSumFold::new(&layers, 2, workspace).unwrap();
            for batch in *range {
                let part = rows(&all, batch);
                c.add(&part).unwrap();
                l.add(&part).unwrap();
                let index = Tensor::from_slice(batch);
                s.add(&weights.index_select(1, &index), &part).unwrap();
                assert_close(
                    &scores(&queries, &part).unwrap(),
                    &expected.index_select(1, &index),
                    1e-11,
                    "scores of a batch",
                );
            }
            covariances.merge(c).unwrap();
            lambda.merge(l).unwrap();
            sums.merge(s).unwrap();
        }
        let (covariances, lambda, sums) = (covariances.finish().unwrap(), lambda.finish().unwrap(), sums.finish().unwrap());
        assert_eq!((covariances.examples, lambda.examples()), (EXAMPLES as u64, EXAMPLES as u64));
        for (i, layer) in layers.iter().enumerate() {
            let (a, g) = naive_covariances(layer, &all[i]);
            assert_close(&covariances.blocks[i].input, &a, 1e-12, &layer.name);
            assert_close(&covariances.blocks[i].output_grad, &g, 1e-12, &layer.name);
            assert_close(&lambda.layer(i).unwrap().lambda, &reference.layer(i).unwrap().lambda, 1e-11, &layer.name);
            let w = autograd_gradient(layer, &all[i]);
            assert_close(&sums[i], &Tensor::einsum("gn,nod->god", &[&weights, &w], None::<i64>), 1e-12, &layer.name);
        }
    }
}

#[test]
fn single_precision_follows_double() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let (training, asked) = (pairs(&cases, 8), pairs(&cases, 9));
    let single = Workspace::new(Kind::Float, Device::Cpu);
    let run = |workspace: Workspace| {
        let factors = fit(&layers, &training, workspace);
        let queries = Queries::new(
            &factors,
            Damping::Heuristic(0.1),
            &gradient(&layers, &asked, &workspace).unwrap(),
            workspace,
        )
        .unwrap();
        scores_and_self_influence(&queries, &training).unwrap()
    };
    let (found, own) = run(single);
    assert_eq!((found.kind(), own.kind()), (Kind::Float, Kind::Float));
    let (expected, expected_own) = run(workspace(1 << 24));
    assert_close(&found, &expected, 1e-4, "scores");
    assert_close(&own, &expected_own, 1e-4, "self-influence");
}

#[test]
fn bad_input_is_named() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let workspace = workspace(1 << 24);
    let mut fold = CovarianceFold::new(&layers, workspace).unwrap();
    assert!(fold.add(&pairs(&cases[1..], 1)).is_err(), "a layer is missing");

    let spoiled = pairs(&cases, 1);
    let _ = spoiled[3].input.narrow(0, 0, 1).fill_(f64::NAN);
    let error = fold.add(&spoiled).unwrap_err().to_string();
    assert!(error.contains("layer stride") && error.contains("not finite"), "{error}");

    let basis = basis(&layers, &pairs(&cases, 1), workspace);
    let error = LambdaFold::new(&basis, workspace).unwrap().add(&spoiled).unwrap_err().to_string();
    assert!(error.contains("layer stride") && error.contains("not finite"), "{error}");

    let mut misfit = pairs(&cases, 1);
    misfit[0].output_grad = misfit[0].output_grad.narrow(2, 0, 3);
    let mut fold = CovarianceFold::new(&layers, workspace).unwrap();
    let error = fold.add(&misfit).unwrap_err().to_string();
    assert!(error.contains("layer plain") && error.contains("output gradient"), "{error}");

    let wrong = Layer {
        name: "odd".into(),
        kind: LayerKind::Conv2d {
            in_channels: 3,
            out_channels: 4,
            kernel: [3, 3],
            stride: [1, 1],
            padding: [1, 1],
            dilation: [1, 1],
            groups: 2,
            bias: false,
        },
    };
    let error = CovarianceFold::new(&[wrong], workspace).unwrap_err().to_string();
    assert!(error.contains("layer odd") && error.contains("groups"), "{error}");

    assert!(CovarianceFold::new(&layers, workspace).unwrap().finish().is_err(), "no examples");
}
