//! Jobs that only look: predict, measure, certify, extract.

use super::{Place, bench};
use crate::certify;
use crate::certify::readings::{self, Chosen};
use crate::data::encode_png;
use crate::error::{Error, Result};
use crate::files;
use crate::model::weights::CheckpointFile;
use crate::progress::Report;
use delta_guard_contract::job::{Anomaly, CertifyResult, ImageLimits, JobResult, MeasureResult, PICTURE_FILE, PredictedExample};
use delta_guard_contract::{Code, DataConfig, DataSource, ModelConfig, TrainId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;
use tch::Kind;

/// [`delta_guard_contract::Task::Predict`]
pub fn predict(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    image: &Path,
    limits: &ImageLimits,
    report: &mut dyn Report,
) -> Result<JobResult> {
    let pixels = crate::data::decode_submission(image, limits, &data.image)?;
    let scale = (96 / data.image.height.max(data.image.width)).clamp(1, 3);
    let png = encode_png(&pixels, data.image.height, data.image.width, scale)?;
    files::write_atomic(&place.out_dir.join(PICTURE_FILE), &png)?;
    let train = bench::training_set(place, data, report)?;
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    let (model, digest) = bench::load(place, &graph, model, Kind::Float, report)?;
    Ok(JobResult::Predict(certify::predict(
        &model,
        &pixels,
        &data.image,
        train.classes(),
        &digest,
    )?))
}

/// [`delta_guard_contract::Task::Measure`]
pub fn measure(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    source: &DataSource,
    list: bool,
    report: &mut dyn Report,
) -> Result<JobResult> {
    let train = bench::training_set(place, data, report)?;
    let set = bench::open(place, data, source, Some(train.classes()), report)?;
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    let (model, checkpoint) = bench::load(place, &graph, model, Kind::Float, report)?;
    let all: Vec<usize> = (0..set.len()).collect();
    let predicted = certify::predictions(&model, &set, &data.image, &all, "measure", report)?;
    let name = |class: u32| train.classes().get(class as usize).cloned().unwrap_or_default();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for (class, _) in &predicted {
        *counts.entry(name(*class)).or_default() += 1;
    }
    if list {
        let lines: Vec<PredictedExample> = predicted
            .iter()
            .zip(set.ids())
            .zip(set.labels())
            .map(|((&(class, probability), id), &label)| PredictedExample {
                id: id.clone(),
                label: name(label),
                predicted: name(class),
                probability,
            })
            .collect();
        let text = serde_json::to_vec(&lines).map_err(|e| Error::internal(format!("predictions: {e}")))?;
        files::write_atomic(&place.out_dir.join("predictions.json"), &text)?;
    }
    Ok(JobResult::Measure(MeasureResult {
        accuracy: certify::accuracy(&set, &predicted),
        predicted: counts,
        checkpoint,
    }))
}

/// What is to be certified.
pub struct ToCertify<'a> {
    /// The candidate checkpoint.
    pub candidate: &'a Path,
    /// The wrongly read pictures.
    pub anomalies: &'a [Anomaly],
    /// Limits of the decoder.
    pub limits: &'a ImageLimits,
    /// What the candidate was made without.
    pub flagged: &'a [TrainId],
}

/// [`delta_guard_contract::Task::Certify`]
pub fn certify(place: &Place<'_>, data: &DataConfig, model: &ModelConfig, repair: &ToCertify<'_>, report: &mut dyn Report) -> Result<JobResult> {
    let start = Instant::now();
    let train = bench::training_set(place, data, report)?;
    let validation = bench::validation_set(place, data, train.classes(), report)?;
    let graph = bench::graph(model, &data.image, train.classes().len())?;
    let pictures = repair
        .anomalies
        .iter()
        .map(|a| bench::picture(a, repair.limits, &data.image))
        .collect::<Result<Vec<_>>>()?;
    let all: Vec<usize> = (0..validation.len()).collect();
    let chosen = Chosen::new(&train, repair.flagged);
    if chosen.flagged.len() < repair.flagged.len() {
        report.log(&format!(
            "{} of {} flagged ids are not in the training set: how they are read is not told",
            repair.flagged.len() - chosen.flagged.len(),
            repair.flagged.len()
        ));
    }
    let mut look = |path: &Path, step: &str| -> Result<_> {
        let (model, digest) = bench::load(place, &graph, CheckpointFile { path, ..model.into() }, Kind::Float, report)?;
        let predictions = pictures
            .iter()
            .map(|p| certify::predict(&model, p, &data.image, train.classes(), &digest))
            .collect::<Result<Vec<_>>>()?;
        let seen = certify::predictions(&model, &validation, &data.image, &all, step, report)?;
        let read = chosen.read(&model, &train, &data.image, step, report)?;
        Ok((predictions, seen, read, digest))
    };
    let (anomalies_before, before, read_before, _) = look(&model.checkpoint, "measure production")?;
    let (anomalies_after, after, read_after, candidate) = look(repair.candidate, "measure candidate")?;
    Ok(JobResult::Certify(CertifyResult {
        anomalies_before,
        anomalies_after,
        before: certify::accuracy(&validation, &before),
        after: certify::accuracy(&validation, &after),
        paired: Some(certify::paired(&validation, &before, &after)),
        flagged: readings::compare(&train, &chosen, &read_before, &read_after),
        candidate,
        manifest: Some(train.manifest_digest().clone()),
        seconds: start.elapsed().as_secs_f64(),
    }))
}

/// [`delta_guard_contract::Task::Extract`]
pub fn extract(place: &Place<'_>, data: &DataConfig, source: &DataSource, ids: &[TrainId], report: &mut dyn Report) -> Result<JobResult> {
    let set = bench::open(place, data, source, None, report)?;
    let mut files = Vec::with_capacity(ids.len());
    for (n, id) in ids.iter().enumerate() {
        let position = set
            .position(id)
            .ok_or_else(|| Error::new(Code::IdUnknown, format!("`{id}` is not in {}", source.path.display()), ""))?;
        let png = encode_png(set.pixels(position), data.image.height, data.image.width, 1)?;
        let file = format!("{n}.png");
        files::write_atomic(&place.out_dir.join(&file), &png)?;
        files.push(file);
    }
    Ok(JobResult::Extract { files })
}
