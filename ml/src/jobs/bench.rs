//! What most jobs lay out first: data, network, weights.

use super::Place;
use crate::data::DataSet;
use crate::error::{Error, Result, ResultExt};
use crate::files;
use crate::model::{Graph, Model, Weights, zoo};
use crate::progress::Report;
use delta_guard_contract::job::{Anomaly, ImageLimits};
use delta_guard_contract::{DataConfig, DataSource, Digest, ImageConfig, ModelConfig};
use std::path::Path;
use tch::Kind;

/// The training set.
///
/// # Errors
/// `Configuration` with the key that names it.
pub fn training_set(place: &Place<'_>, data: &DataConfig, report: &mut dyn Report) -> Result<DataSet> {
    open(place, data, &data.train, None, report).context(|| "training set (data.train)".into())
}

/// The validation set, its labels in the training set's class order.
///
/// # Errors
/// `Configuration` with the key that names it.
pub fn validation_set(place: &Place<'_>, data: &DataConfig, classes: &[String], report: &mut dyn Report) -> Result<DataSet> {
    open(place, data, &data.validation, Some(classes), report).context(|| "validation set (data.validation)".into())
}

/// Any labelled set with the training set's sizes and class order.
///
/// # Errors
/// `Configuration`.
pub fn open(place: &Place<'_>, data: &DataConfig, source: &DataSource, classes: Option<&[String]>, report: &mut dyn Report) -> Result<DataSet> {
    let set = DataSet::open(source, &data.image, data.max_unreadable_share, &place.setup.cache_dir, classes, report)?;
    for unreadable in set.skipped().iter().take(5) {
        report.log(&format!("skipped {}: {}", unreadable.id, unreadable.reason));
    }
    if set.skipped().len() > 5 {
        report.log(&format!("skipped {} unreadable pictures in all", set.skipped().len()));
    }
    Ok(set)
}

/// The network for a training set.
///
/// # Errors
/// `Configuration`.
pub fn graph(model: &ModelConfig, image: &ImageConfig, classes: usize) -> Result<Graph> {
    zoo::graph(model, image.height, image.width, classes)
}

/// A checkpoint on the job's device, with its digest.
///
/// # Errors
/// `Configuration`: missing, misshapen, not finite.
pub fn load(place: &Place<'_>, graph: &Graph, checkpoint: &Path, kind: Kind) -> Result<(Model, Digest)> {
    let (weights, digest) = weights(graph, checkpoint, kind)?;
    Ok((Model::new(graph.clone(), weights.to(place.device, kind)), digest))
}

/// A checkpoint's weights, with the digest of the file that they were read from.
///
/// # Errors
/// `Configuration`: missing, misshapen, not finite, replaced while it was read.
pub fn weights(graph: &Graph, checkpoint: &Path, kind: Kind) -> Result<(Weights, Digest)> {
    let digest = files::digest(checkpoint)?;
    let weights = Weights::load(checkpoint, graph, kind)?;
    // Two readings of one name may be of two files.
    if files::digest(checkpoint)? == digest {
        return Ok((weights, digest));
    }
    Err(Error::configuration(
        format!("the checkpoint {} was replaced while it was read", checkpoint.display()),
        "let nothing write to it while the guard works; put a new checkpoint in its place by renaming it",
    ))
}

/// Position of a class name.
///
/// # Errors
/// `Submission`, listing the classes.
pub fn class_of(name: &str, classes: &[String]) -> Result<u32> {
    classes.iter().position(|c| c == name).map(|p| p as u32).ok_or_else(|| {
        Error::new(
            delta_guard_contract::FaultKind::Submission,
            format!("there is no class `{name}`"),
            format!("the classes are: {}", classes.join(", ")),
        )
    })
}

/// Decode a submission's picture into planar uint8 of the model's size.
///
/// # Errors
/// `Submission` with the reason.
pub fn picture(anomaly: &Anomaly, limits: &ImageLimits, image: &ImageConfig) -> Result<Vec<u8>> {
    crate::data::decode_submission(&anomaly.image, limits, image)
}
