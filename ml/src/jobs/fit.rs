//! The fit job, and the laying out of factors that trace shares with it.

use super::{Place, bench};
use crate::data::DataSet;
use crate::device;
use crate::error::{Error, Result};
use crate::influence::fit::{FitSettings, Fitted, factors};
use crate::influence::pass::{Pass, batch_size};
use crate::model::layer::{Layer, LayerKind};
use crate::model::{Graph, Model};
use crate::progress::Report;
use delta_guard_contract::detect::DetectSettings;
use delta_guard_contract::job::{FitResult, JobResult};
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
    let train = bench::training_set(place, data, report)?;
    let settings = detect.resolve(0, train.classes().len());
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    let (model, checkpoint) = bench::load(place, &graph, &model.checkpoint, device::kind(settings.precision))?;
    let pass = pass(place, &train, &model, &data.image, &settings)?;
    let rows = pass.tracked().iter().map(size).collect();
    let fitted = fitted(place, &pass, &settings, detect.seed.map_or(factors_seed, Seed), &checkpoint, report)?;
    Ok(JobResult::Fit(FitResult {
        factors: fitted.used,
        seconds: fitted.seconds,
        layers: rows,
        checkpoint: Some(checkpoint),
        manifest: Some(train.manifest_digest().clone()),
    }))
}

/// The model over the training set, as the settings ask.
///
/// # Errors
/// `Configuration` when no layer is left.
pub fn pass<'a>(place: &Place<'_>, train: &'a DataSet, model: &'a Model, image: &'a ImageConfig, settings: &DetectSettings) -> Result<Pass<'a>> {
    let layers = tracked(&model.graph, settings)?;
    Ok(Pass {
        model,
        data: train,
        image,
        layers,
        batch: batch_size(model, place.setup.memory_budget),
    })
}

/// Factors for a job, found or fitted.
///
/// # Errors
/// Of the passes.
pub fn fitted(
    place: &Place<'_>,
    pass: &Pass<'_>,
    settings: &DetectSettings,
    seed: Seed,
    checkpoint: &Digest,
    report: &mut dyn Report,
) -> Result<Fitted> {
    factors(pass, &FitSettings::new(settings, seed), checkpoint, &place.setup.factors_dir, report)
}

/// Places of the layers that the settings ask for.
///
/// # Errors
/// `Configuration` when no layer's name fits.
fn tracked(graph: &Graph, settings: &DetectSettings) -> Result<Vec<usize>> {
    let all = graph.layers();
    let asked = |l: &Layer| settings.layers.is_empty() || settings.layers.iter().any(|p| l.name.starts_with(p.as_str()));
    let chosen: Vec<usize> = (0..all.len()).filter(|&l| asked(&all[l])).collect();
    if chosen.is_empty() {
        let names: Vec<&str> = all.iter().map(|l| l.name.as_str()).collect();
        return Err(Error::configuration(
            format!("detect.layers: no layer's name starts with one of {:?}", settings.layers),
            format!("the layers are: {}", names.join(", ")),
        ));
    }
    Ok(chosen)
}

/// Name, rows of G, rows of A.
fn size(layer: &Layer) -> (String, u64, u64) {
    let (out, inner, bias) = match layer.kind {
        LayerKind::Conv2d {
            in_channels,
            out_channels,
            kernel,
            groups,
            bias,
            ..
        } => (out_channels, in_channels / groups * kernel[0] * kernel[1], bias),
        LayerKind::Linear {
            in_features,
            out_features,
            bias,
        } => (out_features, in_features, bias),
    };
    (layer.name.clone(), out as u64, (inner + i64::from(bias)) as u64)
}
