//! EK-FAC against its formulas (`ekfac::spec`), and these against loops over every multiply-add and against autograd of the weight itself, in float64.

#![allow(clippy::unwrap_used)]

mod naive;

use delta_influence::ekfac::{
    CovarianceFold, Damping, Eigenbasis, Factors, GradientSumFold, LambdaFold, Queries, Workspace, gradient, precondition, scores,
    scores_and_self_influence, self_influence, spec,
};
use delta_influence::fold::Fold;
use delta_influence::model::layer::{Conv, Layer, LayerKind, Linear, Pair};
use naive::{EXAMPLES, autograd_gradient, cases, naive_covariances, pairs, rows, workspace};
use tch::{Device, Kind, Tensor};

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
    fold.take(pairs).unwrap();
    fold.finish().unwrap().eigenbasis(&workspace, |_| ()).unwrap()
}

fn fit(layers: &[Layer], pairs: &[Pair], workspace: Workspace) -> Factors {
    let mut fold = LambdaFold::new(&basis(layers, pairs, workspace), workspace).unwrap();
    fold.take(pairs).unwrap();
    fold.finish().unwrap()
}

/// What the formulas say of a layer and its pair.
struct Plain {
    w: Tensor,
    a: Tensor,
    g: Tensor,
}

fn plain(layer: &Layer, pair: &Pair) -> Plain {
    let (a, g) = spec::patches(layer, pair).unwrap();
    Plain {
        w: spec::weight_gradients(&a, &g).unwrap(),
        a: spec::covariance(&a).unwrap(),
        g: spec::covariance(&g).unwrap(),
    }
}

/// [N, b, o, d] as the fast code lays gradients out: [N, b·o, d].
fn flat(blocks: &Tensor) -> Tensor {
    blocks.flatten(1, 2)
}

/// The formulas, held against loops over single numbers and against autograd of the weight.
#[test]
fn the_specification_equals_loops_and_autograd() {
    let cases = cases();
    for (case, pair) in cases.iter().zip(&pairs(&cases, 2)) {
        let (layer, formula) = (&case.layer, plain(&case.layer, pair));
        let (a, g) = naive_covariances(layer, pair);
        assert_close(&formula.a, &a, 1e-12, &format!("(2) A of {}", layer.name));
        assert_close(&formula.g, &g, 1e-12, &format!("(2) G of {}", layer.name));
        assert_close(
            &flat(&formula.w),
            &autograd_gradient(layer, pair),
            1e-12,
            &format!("(1) W of {}", layer.name),
        );
        let (q_a, q_g) = (spec::eigenvectors(&a).unwrap(), spec::eigenvectors(&g).unwrap());
        // (3): Q is orthogonal and turns A into a diagonal.
        let turned = q_a.transpose(1, 2).matmul(&a).matmul(&q_a);
        assert_close(&turned, &turned.diagonal(0, 1, 2).diag_embed(0, -2, -1), 1e-10, "(3)");
        // (5): P undoes Q_G [ (Q_Gᵀ · Q_A) ∘ (Λ + d) ] Q_Aᵀ.
        let lambda = spec::lambda(&formula.w, &q_a, &q_g).unwrap();
        let d = spec::heuristic(&lambda, 0.1).unwrap();
        let p = spec::preconditioned(&formula.w, &q_a, &q_g, &lambda, d).unwrap();
        let undone = spec::rotated(&p, &q_a, &q_g).unwrap() * (&lambda + d);
        assert_close(&undone, &spec::rotated(&formula.w, &q_a, &q_g).unwrap(), 1e-10, "(5)");
        // (6) is a plain product of flattened gradients, and W_iᵀ P W_i its diagonal.
        let scores = p.flatten(1, -1).matmul(&formula.w.flatten(1, -1).tr());
        assert_close(&spec::scores(&p, &formula.w).unwrap(), &scores, 1e-12, "(6)");
        let own = spec::self_influence(&formula.w, &q_a, &q_g, &lambda, d).unwrap();
        assert_close(&own, &scores.diagonal(0, 0, 1), 1e-12, "self-influence");
    }
}

#[test]
fn gradients_equal_the_formula() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let pairs = pairs(&cases, 1);
    for budget in [1, 20_000, 1 << 24] {
        let gradients = gradient(&layers, &pairs, &workspace(budget)).unwrap();
        for ((layer, pair), found) in layers.iter().zip(&pairs).zip(&gradients) {
            assert_close(found, &flat(&plain(layer, pair).w), 1e-12, &layer.name);
        }
    }
}

#[test]
fn covariances_equal_the_formula_and_their_bases_diagonalise_them() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let pairs = pairs(&cases, 2);
    for budget in [1, 20_000, 1 << 24] {
        let mut fold = CovarianceFold::new(&layers, workspace(budget)).unwrap();
        fold.take(&pairs).unwrap();
        let found = fold.finish().unwrap();
        assert_eq!(found.examples, EXAMPLES as u64);
        let basis = found.eigenbasis(&workspace(budget), |_| ()).unwrap();
        for (i, layer) in layers.iter().enumerate() {
            let Plain { a, g, .. } = plain(layer, &pairs[i]);
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
fn lambda_and_scores_equal_the_formulas() {
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
                let (q_a, q_g) = (&block.q_a, &block.q_g);
                let (w, v) = (plain(layer, &training[i]).w, plain(layer, &asked[i]).w);
                let lambda = spec::lambda(&w, q_a, q_g).unwrap();
                assert_close(&block.lambda, &lambda, 1e-10, &format!("Λ of {}", layer.name));
                let d = match damping {
                    Damping::Absolute(d) => d,
                    Damping::Heuristic(factor) => spec::heuristic(&lambda, factor).unwrap(),
                };
                let p = spec::preconditioned(&v, q_a, q_g, &lambda, d).unwrap();
                assert_close(&preconditioned[i], &flat(&p), 1e-10, &format!("P of {}", layer.name));
                expected += spec::scores(&p, &w).unwrap();
                expected_self += spec::self_influence(&w, q_a, q_g, &lambda, d).unwrap();
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

/// Without curvature scores are plain products of gradients.
#[test]
fn over_no_curvature_the_inverse_is_the_identity() {
    let cases = cases();
    let layers: Vec<Layer> = cases.iter().map(|c| c.layer.clone()).collect();
    let (training, asked) = (pairs(&cases, 3), pairs(&cases, 4));
    for budget in [1, 1 << 24] {
        let workspace = workspace(budget);
        let factors = Factors::identity(&layers, &workspace).unwrap();
        let gradients = gradient(&layers, &asked, &workspace).unwrap();
        let options = (Kind::Double, Device::Cpu);
        let (mut expected, mut expected_self) = (Tensor::zeros([EXAMPLES, EXAMPLES], options), Tensor::zeros([EXAMPLES], options));
        let preconditioned = precondition(&factors, Damping::Absolute(1.0), &gradients, &workspace).unwrap();
        for (i, layer) in layers.iter().enumerate() {
            let rows = |of: &[Pair]| plain(layer, &of[i]).w.reshape([EXAMPLES, -1]);
            let (w, v) = (rows(&training), rows(&asked));
            assert_close(&preconditioned[i], &gradients[i], 1e-14, &format!("P of {}", layer.name));
            expected += v.matmul(&w.tr());
            expected_self += w.square().sum_dim_intlist(&[1i64][..], false, Kind::Double);
        }
        let queries = Queries::from_pairs(&factors, Damping::Absolute(1.0), &asked, workspace).unwrap();
        let (joint, own) = scores_and_self_influence(&queries, &training).unwrap();
        assert_close(&scores(&queries, &training).unwrap(), &expected, 1e-12, "scores");
        assert_close(&joint, &expected, 1e-12, "scores beside self-influence");
        assert_close(&own, &expected_self, 1e-12, "self-influence");
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
        let w = plain(&case.layer, &training[0]).w;
        let p = queries.layer(0).unwrap();
        let expected = spec::scores(&p.reshape([&[p.size()[0]], &w.size()[1..]].concat()), &w).unwrap();
        let (joint, own) = scores_and_self_influence(&queries, &training).unwrap();
        assert_close(&scores(&queries, &training).unwrap(), &expected, 1e-11, &case.layer.name);
        assert_close(&joint, &expected, 1e-11, &case.layer.name);
        let d = spec::heuristic(&block.lambda, 0.1).unwrap();
        let expected = spec::self_influence(&w, &block.q_a, &block.q_g, &block.lambda, d).unwrap();
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
                c.take(&part).unwrap();
                l.take(&part).unwrap();
                let index = Tensor::from_slice(batch);
                s.add_weighted(&weights.index_select(1, &index), &part).unwrap();
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
            let Plain { w, a, g } = plain(layer, &all[i]);
            assert_close(&covariances.blocks[i].input, &a, 1e-12, &layer.name);
            assert_close(&covariances.blocks[i].output_grad, &g, 1e-12, &layer.name);
            assert_close(&lambda.layer(i).unwrap().lambda, &reference.layer(i).unwrap().lambda, 1e-11, &layer.name);
            assert_close(&sums[i], &flat(&spec::group_sums(&weights, &w).unwrap()), 1e-12, &layer.name);
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
    assert!(fold.take(&pairs(&cases[1..], 1)).is_err(), "a layer is missing");

    let spoiled = pairs(&cases, 1);
    let _ = spoiled[3].input.narrow(0, 0, 1).fill_(f64::NAN);
    let error = fold.take(&spoiled).unwrap_err().to_string();
    assert!(error.contains("layer stride") && error.contains("not finite"), "{error}");

    let basis = basis(&layers, &pairs(&cases, 1), workspace);
    let error = LambdaFold::new(&basis, workspace).unwrap().take(&spoiled).unwrap_err().to_string();
    assert!(error.contains("layer stride") && error.contains("not finite"), "{error}");

    let mut misfit = pairs(&cases, 1);
    misfit[0].output_grad = misfit[0].output_grad.narrow(2, 0, 3);
    let mut fold = CovarianceFold::new(&layers, workspace).unwrap();
    let error = fold.take(&misfit).unwrap_err().to_string();
    assert!(error.contains("layer plain") && error.contains("output gradient"), "{error}");

    let wrong = Layer {
        name: "odd".into(),
        kind: LayerKind::Conv2d(Conv {
            padding: [1, 1],
            groups: 2,
            ..Conv::new([3, 4], [3, 3])
        }),
        part: None,
    };
    let error = CovarianceFold::new(&[wrong], workspace).unwrap_err().to_string();
    assert!(error.contains("layer odd") && error.contains("groups"), "{error}");

    assert!(CovarianceFold::new(&layers, workspace).unwrap().finish().is_err(), "no examples");
}

/// Group sums settle into float64 every 1,024 examples: over more than that, nothing is lost or counted twice.
#[test]
fn group_sums_of_many_examples_are_a_product() {
    let kind = LayerKind::Linear(Linear {
        in_features: 4,
        out_features: 3,
        bias: true,
    });
    let layer = Layer {
        name: "fc".into(),
        kind,
        part: None,
    };
    tch::manual_seed(11);
    let (double, count) = ((Kind::Double, Device::Cpu), 600);
    let mut sums = GradientSumFold::new(std::slice::from_ref(&layer), 2, workspace(1 << 20)).unwrap();
    let mut expected = Tensor::zeros([2, 3, 5], double);
    for _ in 0..5 {
        let (input, output_grad, weights) = (
            Tensor::randn([count, 4], double),
            Tensor::randn([count, 3], double),
            Tensor::randn([2, count], double),
        );
        let with_bias = Tensor::cat(&[&input, &Tensor::ones([count, 1], double)], 1);
        expected += Tensor::einsum("gn,no,nd->god", &[&weights, &output_grad, &with_bias], None::<i64>);
        sums.add_weighted(&weights, &[Pair { input, output_grad }]).unwrap();
    }
    assert_close(&sums.finish().unwrap()[0], &expected, 1e-12, "3,000 examples");
}
