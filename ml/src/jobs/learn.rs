//! Jobs that make a model: train, unlearn.

use super::{Place, bench};
use crate::data::DataSet;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::model::Weights;
use crate::progress::Report;
use crate::train::loss::CrossEntropy;
use crate::train::{self, Trained, Training};
use crate::unlearn::{self, Unlearning};
use delta_guard_contract::job::{JobResult, Made, TrainResult};
use delta_guard_contract::method::unlearn::Unlearner;
use delta_guard_contract::method::{Method, Mistake};
use delta_guard_contract::{DataConfig, Digest, ModelConfig, Recipe, TrainId};
use std::time::Instant;
use tch::Kind;

const FILE: &str = "model.safetensors";

/// The settings of `section` break a rule: the first that they break, as the guard would have said it of its configuration.
fn refuse(section: &str, broken: Vec<Mistake>) -> Result<()> {
    match broken.into_iter().next() {
        Some(mistake) => Err(Error::configuration(mistake.sentence(section), mistake.help)),
        None => Ok(()),
    }
}

/// [`delta_guard_contract::Task::Train`]
pub fn train(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    recipe: &Recipe,
    without: &[TrainId],
    report: &mut dyn Report,
) -> Result<JobResult> {
    let start = Instant::now();
    refuse("recipe", recipe.check())?;
    let set = bench::training_set(place, data, report)?;
    let graph = bench::graph(model, &data.image, set.classes().len())?;
    let (examples, _) = unlearn::split(&set, without)?;
    let (begin, key) = match train::beginning(recipe, &graph)? {
        Some((weights, digest)) => (Some(weights), format!("train from {digest}")),
        None => (None, "train".into()),
    };
    let run = Training {
        graph: &graph,
        data: &set,
        image: &data.image,
        examples: &examples,
        recipe,
        start: begin,
        loss: &CrossEntropy,
        trainable: graph.last_layers(0),
        device: place.device,
        out_dir: place.out_dir,
        key,
    };
    let trained = train::train(run, report)?;
    finish(place, (&trained.model.weights, &trained), (examples.len(), None), (None, &set), start)
}

/// [`delta_guard_contract::Task::Unlearn`]
pub fn unlearn(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    recipe: &Recipe,
    method: &Unlearner,
    (flagged, standing): (&[TrainId], &[TrainId]),
    report: &mut dyn Report,
) -> Result<JobResult> {
    let start = Instant::now();
    refuse("recipe", recipe.check())?;
    refuse("unlearn", method.check())?;
    let set = bench::training_set(place, data, report)?;
    let graph = bench::graph(model, &data.image, set.classes().len())?;
    let (retained, removed) = unlearn::split_with_standing(&set, flagged, standing)?;
    if !standing.is_empty() {
        report.log(&format!(
            "{} examples are left out: {} flagged in this case, the others by the standing exclusion list",
            removed.len(),
            flagged.len()
        ));
    }
    let (production, checkpoint) = bench::weights(&graph, model, Kind::Float, report)?;
    let case = Unlearning {
        graph: &graph,
        production: &production,
        production_file: model.into(),
        checkpoint: &checkpoint.0,
        data: &set,
        source: &data.train,
        image: &data.image,
        retained: &retained,
        flagged: &removed,
        recipe,
        device: place.device,
        memory_budget: place.setup.memory_budget,
        out_dir: place.out_dir,
    };
    let trained = unlearn::unlearner(method).unlearn(&case, report)?;
    // What takes production's place has its names, shapes and types.
    let candidate = trained.model.weights.like(model).context(|| "the candidate".into())?;
    let made = Made {
        method: method.name().into(),
        about: method.own().about().into(),
    };
    finish(
        place,
        (&candidate, &trained),
        (retained.len(), Some(made)),
        (Some(checkpoint), &set),
        start,
    )
}

/// `from`: the production checkpoint that was read, and the training set.
fn finish(
    place: &Place<'_>,
    (weights, trained): (&Weights, &Trained),
    (examples, made): (usize, Option<Made>),
    from: (Option<Digest>, &DataSet),
    start: Instant,
) -> Result<JobResult> {
    let path = place.out_dir.join(FILE);
    weights
        .save(&path, &[("made_by", format!("delta-guard {}", env!("CARGO_PKG_VERSION")))])
        .context(|| "writing the checkpoint".into())?;
    Ok(JobResult::Train(TrainResult {
        file: FILE.into(),
        digest: files::digest(&path)?,
        made,
        examples: examples as u64,
        train_loss: trained.loss,
        train_accuracy: trained.accuracy,
        seconds: start.elapsed().as_secs_f64(),
        resumed_epochs: trained.resumed_epochs,
        device: Some(place.device_name.clone()),
        peak_memory: Some(crate::device::peak_memory()),
        base: from.0,
        manifest: Some(from.1.manifest_digest().clone()),
    }))
}
