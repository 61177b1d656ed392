//! The job behind `check-config`: do data, network and checkpoint go together? It reads no picture and writes nothing.

use super::{Place, bench};
use crate::data::{Glance, KnownClasses, class_names, glance};
use crate::error::{Result, ResultExt};
use crate::model::Weights;
use crate::verify::tracked_within;
use delta_guard_contract::job::{CheckResult, JobResult};
use delta_guard_contract::{DataConfig, ModelConfig};
use tch::Kind;

/// [`delta_guard_contract::Task::Check`]
pub fn check(place: &Place<'_>, data: &DataConfig, model: Option<&ModelConfig>) -> Result<JobResult> {
    let listed = data.classes.as_ref().map(class_names).transpose()?;
    let train = glance(&data.train, listed.as_deref().map(KnownClasses::Listed)).context(|| "training set (data.train)".into())?;
    let known: Option<Vec<String>> = match &train {
        Glance::Classes(list) => Some(list.iter().map(|(name, _)| name.clone()).collect()),
        _ => listed,
    };
    let validation = glance(&data.validation, known.as_deref().map(KnownClasses::Training)).context(|| "validation set (data.validation)".into())?;
    let classes = match &train {
        Glance::Classes(list) => Some(list.len()),
        Glance::Number(n) => Some(*n),
        Glance::Unknown => known.as_ref().map(Vec::len),
    };
    let (mut notes, mut tracked) = (Vec::new(), None);
    let parameters = match classes.zip(model) {
        Some((classes, model)) => {
            let graph = bench::graph(model, &data.image, classes)?;
            let (weights, noted) = Weights::load_noted(model, &graph, Kind::Float)?;
            (notes, tracked) = (noted, Some(tracked_within(&graph, place.setup.memory_budget)));
            Some(weights.0.values().map(|tensor| tensor.numel() as u64).sum())
        }
        None => None,
    };
    let listed = |glance: Glance| match glance {
        Glance::Classes(list) => list,
        _ => Vec::new(),
    };
    Ok(JobResult::Check(CheckResult {
        classes: classes.map(|n| n as u64),
        train: listed(train),
        validation: listed(validation),
        parameters,
        proof: model.map(|model| bench::proof(model, &data.image)).transpose()?.flatten(),
        tracked,
        notes,
        device: Some(place.device_name.clone()),
    }))
}
