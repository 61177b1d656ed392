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
use delta_guard_contract::{DataConfig, DetectConfig, Digest, ImageConfig, ModelConfig};

/// [`delta_guard_contract::Task::Fit`]
pub fn fit(place: &Place<'_>, data: &DataConfig, model: &ModelConfig, detect: &DetectConfig, report: &mut dyn Report) -> Result<JobResult> {
    let train = bench::training_set(place, data, report)?;
    let settings = detect.resolve(0, train.classes().len());
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    let (model, checkpoint) = bench::load(place, &graph, &model.checkpoint, device::kind(settings.precision))?;
    let layers = tracked(&graph, &settings)?;
    let rows = layers.iter().map(|l| size(l)).collect();
    let fitted = fitted(place, &train, &model, &data.image, &settings, detect.seed, &checkpoint, report)?;
    Ok(JobResult::Fit(FitResult { factors: fitted.used, seconds: fitted.seconds, layers: rows }))
}

/// Factors for a job, found or fitted.
///
/// # Errors
/// Of the passes.
#[allow(clippy::too_many_arguments, reason = "each is a thing of its own")]
pub fn fitted(
    place: &Place<'_>,
    train: &DataSet,
    model: &Model,
    image: &ImageConfig,
    settings: &DetectSettings,
    configured_seed: Option<u64>,
    checkpoint: &Digest,
    report: &mut dyn Report,
) -> Result<Fitted> {
    let budget = place.setup.memory_budget;
    let pass = Pass { model, data: train, image, batch: batch_size(model, budget) };
    let fit = FitSettings::new(settings, configured_seed, tracked(&model.graph, settings)?, budget);
    factors(&pass, &fit, checkpoint, &place.setup.factors_dir, report)
}

/// The layers that the settings ask for.
///
/// # Errors
/// `Configuration` when no layer's name fits.
pub fn tracked(graph: &Graph, settings: &DetectSettings) -> Result<Vec<Layer>> {
    let all = graph.layers();
    let chosen: Vec<Layer> = if settings.layers.is_empty() {
        all.clone()
    } else {
        all.iter().filter(|l| settings.layers.iter().any(|p| l.name.starts_with(p.as_str()))).cloned().collect()
    };
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
        LayerKind::Conv2d { in_channels, out_channels, kernel, groups, bias, .. } => (out_channels, in_channels / groups * kernel[0] * kernel[1], bias),
        LayerKind::Linear { in_features, out_features, bias } => (out_features, in_features, bias),
    };
    (layer.name.clone(), out as u64, (inner + i64::from(bias)) as u64)
}
