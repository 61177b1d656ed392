//! EK-FAC influence on a small CNN, from the parts: which training pictures support a prediction?
//!
//! Run it with `make examples`. The query is training picture 7 under its own label; nothing supports it more than itself.

use delta_influence::ekfac::{CovarianceFold, Damping, LambdaFold, Queries, Workspace, scores};
use delta_influence::error::Result;
use delta_influence::fold::Fold;
use delta_influence::model::layer::Pair;
use delta_influence::model::{Model, Weights, zoo};
use delta_influence::passes::objective;
use tch::{Device, Kind, Tensor};

fn main() -> Result<()> {
    tch::manual_seed(1);
    let (examples, classes) = (60, 3);
    let images = Tensor::randn([examples, 3, 12, 12], (Kind::Float, Device::Cpu));
    let labels = Tensor::arange(examples, (Kind::Int64, Device::Cpu)).remainder(classes);

    // A network is data: a graph of named layers, and weights under PyTorch's names.
    let graph = zoo::small_cnn([3, 12, 12], 4, classes)?;
    let layers = graph.layers();
    let all: Vec<usize> = (0..layers.len()).collect();
    let weights = Weights::init(&graph, 1)?;
    let model = Model::new(graph, weights);

    // One tapped pass yields, per layer, the inputs and the gradients of its outputs: all that EK-FAC needs.
    let pairs = |images: &Tensor, labels: &Tensor| -> Result<Vec<Pair>> {
        let tapped = model.forward_tapped(images)?;
        let objective = objective::loss(&tapped.logits, labels)?;
        tapped.pairs(&objective, &all)
    };
    let training = pairs(&images, &labels)?;

    let workspace = Workspace::new(Kind::Float, Device::Cpu);
    let mut covariance = CovarianceFold::new(&layers, workspace)?;
    covariance.take(&training)?;
    let basis = covariance.finish()?.eigenbasis(&workspace, |_| {})?;
    let mut lambda = LambdaFold::new(&basis, workspace)?;
    lambda.take(&training)?;
    let factors = lambda.finish()?;

    let query = pairs(&images.narrow(0, 7, 1), &labels.narrow(0, 7, 1))?;
    let queries = Queries::from_pairs(&factors, Damping::Heuristic(0.1), &query, workspace)?;
    let influence = Vec::<f32>::try_from(&scores(&queries, &training)?.get(0))?;

    let mut order: Vec<usize> = (0..influence.len()).collect();
    order.sort_by(|&a, &b| influence[b].total_cmp(&influence[a]));
    for &i in &order[..5] {
        println!("training picture {i:2} (class {}): {:+.4}", i as i64 % classes, influence[i]);
    }
    assert_eq!(order[0], 7, "a training picture supports itself most");
    Ok(())
}
