//! The trace job: from anomalies to training examples with their evidence, as `trace.json` and thumbnails.

use super::case::{Case, Submitted, name};
use super::{Place, fit, parts, pictures};
use crate::data::DataSet;
use crate::detect::{Suspect, detector};
use crate::device;
use crate::error::{Error, Result};
use crate::files;
use crate::influence::ModelEvidence;
use crate::passes::budget::Budget;
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
    let (train, settings) = (&case.train, &case.settings);
    let (budget, for_null) = Budget::new(&case.model, place.setup.memory_budget).shared();
    let mut stream = fit::stream(train, &case.model, case.image, settings, budget)?;
    let fit_settings = fit::fit_settings(detect, settings, factors_seed);
    let fitted = fit::fitted(place, &mut stream, &fit_settings, &case.checkpoint, report)?;
    let mut seconds = fitted.seconds;
    seconds.insert("placebo".into(), case.choosing);

    let question = case.question();
    let known = scores.map(|path| parts::known(&case, &fitted.used.key, &question, path)).transpose()?;
    let shared = SharedReport::new(report);
    let (mut passes, mut steps) = (&shared, &shared);
    let mut evidence = ModelEvidence::new(stream, &fitted.factors, settings, &mut passes);
    if let Some(validation) = &case.validation {
        let null = fit::stream(validation, &case.model, case.image, settings, for_null)?;
        evidence = evidence.with_null(null, case.null.clone());
    }
    if let Some((plan, scores)) = known {
        evidence = evidence.with_known(plan, scores);
    }
    let detection = detector(settings.mode).detect(&mut evidence, &question, &mut steps)?;
    for (step, took) in &evidence.seconds {
        *seconds.entry(step.clone()).or_default() += took;
    }
    drop(evidence);

    let thumbnails = pictures::thumbnails(place, train, case.image, &case.pictures, &detection)?;
    let members = question.members();
    let shared = pictures::shared_pixels(place, train, case.wrong, &members, &detection)?;
    let id = |position: usize| train.ids()[position].clone();
    let mut exhibits: Vec<Exhibit> = detection.exhibits.into_iter().map(|exhibit| exhibit.named(id)).collect();
    exhibits.extend(shared.map(Exhibit::Shared));
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
        factors: fitted.used,
        settings: settings.clone(),
        seed: detect.seed,
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
    })
}
