//! The fit job, and the laying out of streams and factors that trace and the parts share with it.

use super::{Place, bench};
use crate::data::DataSet;
use crate::device;
use crate::error::{Error, Result};
use crate::model::layer::Layer;
use crate::model::{Graph, Model};
use crate::passes::budget::Budget;
use crate::passes::fit::{FitSettings, FittedFactors, factors};
use crate::passes::stream::Stream;
use crate::progress::Report;
use delta_guard_contract::detect::Influence;
use delta_guard_contract::job::{FitResult, JobResult};
use delta_guard_contract::method::Method;
use delta_guard_contract::{DataConfig, DetectConfig, Digest, ImageConfig, ModelConfig, Seed};

/// [`delta_guard_contract::Task::Fit`]
pub fn fit(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    detect: &DetectConfig,
    factors_seed: Seed,
    report: &mut dyn Report,
) -> Result<JobResult> {
    let asked = influence(detect)?;
    let train = bench::training_set(place, data, report)?;
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    covers(&graph, model)?;
    let (model, checkpoint) = bench::load(place, &graph, model, device::kind(asked.precision), report)?;
    let budget = Budget::new(&model, place.setup.memory_budget);
    let mut stream = stream(place, &train, &model, &data.image, &asked, budget)?;
    report.log(&format!("influence is computed on {}", stream.coverage().sentence()));
    let rows = stream.tracked().iter().map(size).collect();
    let fitted = fitted(place, &mut stream, &fit_settings(detect, &asked, factors_seed), &checkpoint, report)?;
    Ok(JobResult::Fit(FitResult {
        factors: fitted.used,
        seconds: fitted.seconds,
        layers: rows,
        checkpoint: Some(checkpoint),
        manifest: Some(train.manifest_digest().clone()),
    }))
}

/// The influence that the detector asks for.
///
/// # Errors
/// `Configuration`: settings that make no sense; a detector that needs no factors.
pub fn influence(detect: &DetectConfig) -> Result<Influence> {
    Error::mistakes("detect", detect.check())?;
    detect.needs().factors.ok_or_else(|| {
        let message = format!("the detector {} needs no factors", detect.method.name());
        Error::configuration(message, "there is nothing to fit: trace without them")
    })
}

/// What the factors are fitted by: under `detect.seed`, or the installation's.
pub fn fit_settings(detect: &DetectConfig, asked: &Influence, factors_seed: Seed) -> FitSettings {
    FitSettings::new(asked, detect.common.seed.map_or(factors_seed, Seed))
}

/// The model over a data set, as the settings ask.
///
/// # Errors
/// `Configuration` when no layer is left.
pub fn stream<'a>(
    place: &Place<'_>,
    data: &'a DataSet,
    model: &'a Model,
    image: &'a ImageConfig,
    asked: &Influence,
    budget: Budget,
) -> Result<Stream<'a>> {
    let stream = Stream::new(model, data, image, tracked(&model.graph, &asked.layers)?, budget);
    Ok(stream.in_blocks(place.setup.memory_budget))
}

/// Is influence computed on enough of the network? It is refused, not only told: a verdict that comes from half of a network says "not these" of examples whose
/// effect lies in the other half, and whoever reads it weeks later sees a verdict. Who knows better lowers the key, once, in writing. What `detect.layers`
/// leaves out is the owner's own choice and does not count here.
///
/// # Errors
/// `Configuration`: on less than `model.min_tracked_share`.
pub fn covers(graph: &Graph, model: &ModelConfig) -> Result<()> {
    match graph.tracked().lacking(model.min_tracked_share) {
        None => Ok(()),
        Some((message, help)) => Err(Error::configuration(format!("{}: {message}", model.architecture), help)),
    }
}

/// Factors for a job, found or fitted.
///
/// # Errors
/// Of the passes.
pub fn fitted(
    place: &Place<'_>,
    stream: &mut Stream<'_>,
    settings: &FitSettings,
    checkpoint: &Digest,
    report: &mut dyn Report,
) -> Result<FittedFactors> {
    factors(stream, settings, checkpoint, &place.setup.factors_dir, report)
}

/// Places of the layers that the settings ask for.
///
/// # Errors
/// `Configuration` when no layer's name fits.
pub fn tracked(graph: &Graph, prefixes: &[String]) -> Result<Vec<usize>> {
    let all = graph.layers();
    let asked = |l: &Layer| prefixes.is_empty() || prefixes.iter().any(|p| l.name.starts_with(p.as_str()));
    let chosen: Vec<usize> = (0..all.len()).filter(|&l| asked(&all[l])).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
        return Err(Error::configuration(
            format!("detect.layers: no layer's name starts with one of {prefixes:?}"),
            format!("the layers are: {}", names.join(", ")),
        ));
    }
    Ok(chosen)
}

/// Name, rows of G, rows of A.
fn size(layer: &Layer) -> (String, u64, u64) {
    let conv = layer.kind.conv();
    let [out, inner, height, width] = conv.weight_shape();
    (layer.name.clone(), out as u64, (inner * height * width + i64::from(conv.bias)) as u64)
}
