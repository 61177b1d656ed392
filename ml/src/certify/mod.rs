//! Measures: what a model makes of a picture or of a labelled set; and what makes a verdict believable: what the flagged pictures share ([`shared`]), how
//! the repaired model reads them ([`readings`]).

pub mod readings;
pub mod shared;

use crate::data::{DataSet, normalise};
use crate::error::Result;
use crate::model::Model;
use crate::progress::Report;
use delta_guard_contract::ImageConfig;
use delta_guard_contract::job::{Accuracy, Paired, Prediction};
use tch::{Kind, Tensor};

/// Examples per evaluation batch.
const BATCH: usize = 500;

/// Predicted class and its probability, for each of `examples` in order.
///
/// # Errors
/// When libtorch fails (memory).
pub fn predictions(
    model: &Model,
    data: &DataSet,
    image: &ImageConfig,
    examples: &[usize],
    step: &str,
    report: &mut dyn Report,
) -> Result<Vec<(u32, f64)>> {
    let mut found = Vec::with_capacity(examples.len());
    read(model, data, image, examples, step, report, &mut |probabilities| {
        let (probability, class) = probabilities.f_max_dim(1, false)?;
        let (probability, class) = (Vec::<f64>::try_from(&probability)?, Vec::<i64>::try_from(&class)?);
        found.extend(class.into_iter().map(|c| c as u32).zip(probability));
        Ok(())
    })?;
    Ok(found)
}

/// Probabilities of all classes, for each of `examples` in order.
///
/// # Errors
/// When libtorch fails (memory).
pub fn probabilities(
    model: &Model,
    data: &DataSet,
    image: &ImageConfig,
    examples: &[usize],
    step: &str,
    report: &mut dyn Report,
) -> Result<Vec<Vec<f64>>> {
    let mut found = Vec::with_capacity(examples.len());
    read(model, data, image, examples, step, report, &mut |probabilities| {
        found.extend(Vec::<Vec<f64>>::try_from(probabilities)?);
        Ok(())
    })?;
    Ok(found)
}

/// Batch by batch, probabilities of all classes: one row per example.
fn read(
    model: &Model,
    data: &DataSet,
    image: &ImageConfig,
    examples: &[usize],
    step: &str,
    report: &mut dyn Report,
    keep: &mut dyn FnMut(&Tensor) -> Result<()>,
) -> Result<()> {
    let mut done = 0;
    for batch in examples.chunks(BATCH) {
        let images = normalise(&data.batch(batch)?, image, model.kind(), model.device())?;
        keep(&model.forward(&images)?.f_softmax(1, Kind::Double)?)?;
        done += batch.len() as u64;
        report.progress(step, done, examples.len() as u64, "");
    }
    Ok(())
}

/// Accuracy from predictions over the whole of a data set.
pub fn accuracy(data: &DataSet, predicted: &[(u32, f64)]) -> Accuracy {
    let mut accuracy = Accuracy::default();
    for (&label, &(class, _)) in data.labels().iter().zip(predicted) {
        let name = data.classes().get(label as usize).cloned().unwrap_or_else(|| label.to_string());
        let counts = accuracy.classes.entry(name).or_default();
        counts.0 += 1;
        accuracy.examples += 1;
        if label == class {
            counts.1 += 1;
            accuracy.correct += 1;
        }
    }
    accuracy
}

/// Which pictures of a data set two models' predictions over the whole of it lose and win.
pub fn paired(data: &DataSet, before: &[(u32, f64)], after: &[(u32, f64)]) -> Paired {
    let mut paired = Paired::default();
    for ((&label, &(was, _)), &(is, _)) in data.labels().iter().zip(before).zip(after) {
        let name = data.classes().get(label as usize).cloned().unwrap_or_else(|| label.to_string());
        let counts = paired.classes.entry(name).or_default();
        match (was == label, is == label) {
            (true, false) => (counts.0, paired.lost) = (counts.0 + 1, paired.lost + 1),
            (false, true) => (counts.1, paired.won) = (counts.1 + 1, paired.won + 1),
            _ => {}
        }
    }
    paired
}

/// What the model makes of one picture (C·H·W planar uint8).
///
/// # Errors
/// When libtorch fails.
pub fn predict(
    model: &Model,
    pixels: &[u8],
    image: &ImageConfig,
    classes: &[String],
    checkpoint: &delta_guard_contract::Digest,
) -> Result<Prediction> {
    let picture = Tensor::f_from_slice(pixels)?.f_view(image.input())?.f_unsqueeze(0)?;
    let logits = model.forward(&normalise(&picture, image, model.kind(), model.device())?)?;
    let probabilities = Vec::<f64>::try_from(&logits.f_softmax(1, Kind::Double)?.f_view([-1])?)?;
    let mut top: Vec<(String, f64)> = classes.iter().cloned().zip(probabilities).collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    top.truncate(5);
    let (label, probability) = top.first().cloned().unwrap_or_default();
    Ok(Prediction {
        label,
        probability,
        top,
        classes: classes.to_vec(),
        checkpoint: checkpoint.clone(),
    })
}
