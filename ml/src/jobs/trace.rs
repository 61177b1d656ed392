//! The trace job: from anomalies to training examples with their evidence, as `trace.json` and thumbnails.

use super::case::{Case, Submitted, name};
use super::lab::{Curvature, FactorSource, ModelLab};
use super::{Place, origins, pictures, review};
use crate::data::DataSet;
use crate::detect::{Suspect, detector};
use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::progress::{Report, SharedReport};
use delta_guard_contract::finding::Exhibit;
use delta_guard_contract::job::JobResult;
use delta_guard_contract::{DataConfig, DetectConfig, Flagged, ModelConfig, Seed, TraceReport};
use std::path::Path;

/// [`delta_guard_contract::Task::Trace`]. `scores`: of a merge of parts.
pub fn trace(
    place: &Place<'_>,
    data: &DataConfig,
    model: &ModelConfig,
    detect: &DetectConfig,
    submitted: &Submitted<'_>,
    (factors_seed, scores): (Seed, Option<&Path>),
    report: &mut dyn Report,
) -> Result<JobResult> {
    let case = Case::lay_out(place, data, model, detect, submitted, report)?;
    let (train, question) = (&case.train, case.question());
    let source = FactorSource {
        detect,
        seed: factors_seed,
        scores,
    };
    let tracked = case.tracked(place)?;
    if let Some(tracked) = &tracked {
        report.log(&format!("influence is computed on {}", tracked.sentence()));
    }
    let (shared, curvature) = (SharedReport::new(report), Curvature::default());
    let (mut passes, mut sources, mut steps) = (&shared, &shared, &shared);
    let mut lab = ModelLab::new(place, &case, source, &curvature, (&mut passes, &mut sources));
    let detection = detector(case.method).detect(&mut lab, &question, &mut steps)?;
    let mut seconds = lab.seconds();
    drop(lab);
    seconds.extend(case.validation.is_some().then(|| ("placebo".to_string(), case.choosing)));

    let doubtful = review::review(&case, submitted.anomalies, &detection, &mut steps)?;
    let listed: Vec<usize> = doubtful.iter().flat_map(|review| review.rows.iter().map(|row| row.id)).collect();
    let thumbnails = pictures::thumbnails(place, train, case.image, &case.pictures, &detection, &listed)?;
    let members = question.members();
    let shared = pictures::shared_pixels(place, train, case.wrong, &members, &detection)?;
    let id = |position: usize| train.ids()[position].clone();
    let mut exhibits: Vec<Exhibit> = detection.exhibits.into_iter().map(|exhibit| exhibit.named(id)).collect();
    exhibits.extend(shared.map(Exhibit::Shared));
    exhibits.extend(doubtful.map(|review| Exhibit::Review(review).named(id)));
    let places: Vec<usize> = detection.flagged.iter().map(|found| found.position).collect();
    exhibits.extend(origins::sources(train, &places).map(Exhibit::Sources));
    let report = TraceReport {
        predicted_label: name(train, case.wrong),
        examples: train.len() as u64,
        examples_of_label: members.len() as u64,
        flagged: (1..)
            .zip(&detection.flagged)
            .map(|(rank, f)| flagged(train, rank, f))
            .collect::<Result<_>>()?,
        verdict: detection.verdict,
        words: detection.words,
        sure: detection.sure,
        exhibits,
        details: detection.details,
        notes: detection.notes,
        factors: curvature.fitted.into_inner().map(|fitted| fitted.used),
        tracked,
        settings: detect.clone().resolved(),
        seed: detect.common.seed,
        checkpoint: case.checkpoint.clone(),
        manifest: train.manifest_digest().clone(),
        seconds,
        thumbnails,
        peak_memory: device::peak_memory(),
        device: place.device_name.clone(),
    };
    let text = serde_json::to_vec_pretty(&report).map_err(|e| Error::internal(format!("trace report: {e}")))?;
    files::write_atomic(&place.out_dir.join("trace.json"), &text)?;
    Ok(JobResult::Trace(Box::new(report)))
}

fn flagged(train: &DataSet, rank: u32, found: &Suspect) -> Result<Flagged> {
    let id = train.ids()[found.position].clone();
    if !found.score.is_finite() {
        return Err(Error::internal(format!("the detector's score of {id} is {}, not a number", found.score)));
    }
    Ok(Flagged {
        id,
        label: name(train, train.labels()[found.position]),
        rank,
        score: found.score,
        source: train.source(found.position).map(String::from),
    })
}
