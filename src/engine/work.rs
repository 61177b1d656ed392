//! The stages that a worker does: the job of each, and what its result means.

use super::base;
use super::trouble::Trouble;
use crate::case::{Case, Event, Stage, TraceSummary};
use crate::policy::{self, Found, Known};
use crate::publish;
use crate::seed::Secret;
use crate::settings::Settings;
use delta_guard_contract::job::Anomaly;
use delta_guard_contract::{Digest, Fault, FaultKind, FlaggedExample, Job, JobResult, PROTOCOL, Task, TraceReport, TrainId};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `flagged` records hold at most so many bytes of JSON.
const FLAGGED_BYTES: usize = 256 << 10;
/// Name of a trace report in its job's folder.
const TRACE_FILE: &str = "trace.json";

/// The job of a stage, and the time that it may take. Its folder is named by stage and task: other settings never meet old unfinished work.
pub(super) fn job(case: &Case, stage: Stage, settings: &Settings, secret: &Secret) -> Result<(Job, Duration), Fault> {
    let (task, limit) = task(case, stage, settings, secret)?;
    let json = serde_json::to_vec(&task).map_err(|error| internal(format!("the task cannot be written as JSON: {error}")))?;
    let name = format!("{stage}-{}", blake3::hash(&json).to_hex().split_at(12).0);
    let out_dir = settings.case_dir(&case.id).join("work").join(name);
    Ok((
        Job {
            v: PROTOCOL,
            setup: settings.worker.setup.clone(),
            out_dir,
            task,
        },
        limit,
    ))
}

fn task(case: &Case, stage: Stage, settings: &Settings, secret: &Secret) -> Result<(Task, Duration), Fault> {
    let (data, model, limits) = (settings.data.clone(), settings.model.clone(), settings.inbox.limits.clone());
    let image = settings.spool_dir().join(&case.accepted.content.0);
    let anomalies = || -> Result<Vec<Anomaly>, Fault> {
        let prediction = case.prediction.as_ref().ok_or_else(|| missing("prediction"))?;
        let true_label = case.accepted.claim.true_label.clone();
        Ok(vec![Anomaly {
            image: image.clone(),
            wrong_label: Some(prediction.label.clone()),
            true_label,
        }])
    };
    let times = &settings.worker.limits;
    Ok(match stage {
        Stage::Predict => (Task::Predict { data, model, image, limits }, times.predict),
        Stage::Fit => (
            Task::Fit {
                data,
                model,
                detect: settings.detect.clone(),
                factors_seed: secret.factors(),
            },
            times.fit,
        ),
        Stage::Trace => {
            let task = Task::Trace {
                data,
                model,
                detect: settings.detect.clone(),
                anomalies: anomalies()?,
                limits,
                case_seed: secret.case(&case.id),
                factors_seed: secret.factors(),
            };
            (task, times.trace)
        }
        Stage::Unlearn => {
            let task = Task::Unlearn {
                data,
                model,
                recipe: settings.recipe.clone(),
                method: settings.unlearn.method,
                cf: settings.unlearn.cf.clone(),
                flagged: flagged_ids(case, settings)?,
                standing: Vec::new(),
                standing_digest: None,
            };
            (task, times.unlearn)
        }
        Stage::Certify => {
            let (file, _) = case.candidate_file.as_ref().ok_or_else(|| missing("candidate"))?;
            let candidate = settings.case_dir(&case.id).join(file);
            (
                Task::Certify {
                    data,
                    model,
                    candidate,
                    anomalies: anomalies()?,
                    limits,
                    flagged: flagged_ids(case, settings)?,
                },
                times.certify,
            )
        }
        Stage::Decide | Stage::Publish | Stage::Tell => return Err(internal(format!("stage {stage} is no work for a worker"))),
    })
}

/// The ids that the trace flagged, sorted.
pub(super) fn flagged_ids(case: &Case, settings: &Settings) -> Result<Vec<TrainId>, Fault> {
    let trace = case.trace.as_ref().ok_or_else(|| missing("trace"))?;
    let file = settings.case_dir(&case.id).join(&trace.file);
    let report = super::read_trace(&file, &trace.digest).map_err(|error| Fault {
        kind: FaultKind::Configuration,
        message: format!("the trace report of the case cannot be used: {error:#}"),
        help: "put the file back, or remove the case's folder and submit the picture again".into(),
    })?;
    Ok(sorted_ids(&report))
}

fn sorted_ids(report: &TraceReport) -> Vec<TrainId> {
    report
        .flagged
        .iter()
        .map(|example| example.id.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// BLAKE3 of ids, one a line.
fn digest_ids(ids: &[TrainId]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(id.0.as_bytes()).update(b"\n");
    }
    Digest(hasher.finalize().to_hex().to_string())
}

/// What to record of a result. Files that it speaks of are read and fingerprinted here; blocks.
pub(super) fn events(case: &Case, stage: Stage, out_dir: &Path, result: JobResult, seconds: f64, settings: &Settings) -> Result<Vec<Event>, Trouble> {
    let doing = format!("stage {stage}");
    match (stage, result) {
        (Stage::Predict, JobResult::Predict(prediction)) => {
            if !prediction.classes.contains(&prediction.label) {
                return Err(internal(format!("the worker predicted {:?}, which is none of its classes", prediction.label)).into());
            }
            Ok(vec![Event::Predicted { prediction, seconds }])
        }
        (Stage::Fit, JobResult::Fit(fit)) => {
            // The training set of an earlier attempt at this stage does not count: this is where the case gets its own.
            base::was_read(case, &doing, fit.checkpoint.as_ref(), None)?;
            Ok(vec![Event::Fitted { fit, seconds }])
        }
        (Stage::Trace, JobResult::Trace(report)) => {
            base::was_read(case, &doing, Some(&report.checkpoint), Some(&report.manifest))?;
            Ok(traced(case, out_dir, *report, seconds, settings)?)
        }
        (Stage::Unlearn, JobResult::Train(result)) => {
            base::was_read(case, &doing, result.base.as_ref(), result.manifest.as_ref())?;
            let path = inside(out_dir, &result.file)?;
            let digest = publish::digest_file(&path).map_err(|error| internal(format!("the candidate cannot be read: {error}")))?;
            Ok(vec![Event::Unlearned {
                file: relative(case, &path, settings)?,
                result,
                digest,
                seconds,
            }])
        }
        (Stage::Certify, JobResult::Certify(result)) => {
            for before in &result.anomalies_before {
                base::was_read(case, &doing, Some(&before.checkpoint), result.manifest.as_ref())?;
            }
            let wrong = case.prediction.as_ref().ok_or_else(|| missing("prediction"))?.label.clone();
            let over_caps = case.decision.as_ref().map(|decision| decision.over_caps.clone()).unwrap_or_default();
            let known = Known {
                wrong,
                truth: case.accepted.claim.true_label.clone(),
            };
            let gate = policy::judge(&result, &[known], &over_caps, &settings.gate);
            Ok(vec![Event::Certified { result, gate, seconds }])
        }
        (stage, _) => Err(internal(format!("the worker answered another question than that of stage {stage}")).into()),
    }
}

fn traced(case: &Case, out_dir: &Path, report: TraceReport, seconds: f64, settings: &Settings) -> Result<Vec<Event>, Fault> {
    if let Some(prediction) = &case.prediction
        && prediction.label != report.predicted_label
    {
        return Err(internal(format!(
            "the picture was predicted as {:?} and traced as {:?}, by one and the same checkpoint",
            prediction.label, report.predicted_label
        )));
    }
    let ids = sorted_ids(&report);
    if ids.len() != report.flagged.len() {
        return Err(internal("the worker flagged a training example twice".into()));
    }
    let bytes = serde_json::to_vec(&report).map_err(|error| internal(format!("the trace report cannot be written: {error}")))?;
    let file = inside(out_dir, TRACE_FILE)?;
    publish::make_dir(out_dir)
        .map_err(anyhow::Error::from)
        .and_then(|()| publish::publish_file(out_dir, TRACE_FILE, &bytes))
        .map_err(resource)?;
    let trace = TraceSummary {
        found: Found::of(&report),
        file: relative(case, &file, settings)?,
        digest: Digest(blake3::hash(&bytes).to_hex().to_string()),
        ids: digest_ids(&ids),
        manifest: Some(report.manifest.clone()),
    };
    let mut events: Vec<Event> = in_parts(report.flagged)?
        .into_iter()
        .map(|examples| Event::Flagged { examples })
        .collect();
    events.push(Event::Traced { trace, seconds });
    Ok(events)
}

/// Evidence in parts that fit into a record.
fn in_parts(flagged: Vec<FlaggedExample>) -> Result<Vec<Vec<FlaggedExample>>, Fault> {
    let mut parts: Vec<Vec<FlaggedExample>> = Vec::new();
    let mut bytes = FLAGGED_BYTES;
    for example in flagged {
        let size = serde_json::to_vec(&example)
            .map_err(|error| internal(format!("evidence cannot be written: {error}")))?
            .len()
            + 1;
        if bytes + size > FLAGGED_BYTES {
            parts.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.push(example);
        }
    }
    Ok(parts)
}

/// A file that the worker names: a plain name in its own folder.
fn inside(out_dir: &Path, name: &str) -> Result<PathBuf, Fault> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    if plain {
        Ok(out_dir.join(name))
    } else {
        Err(internal(format!("the worker names the file {name:?}, which is not a plain name")))
    }
}

fn relative(case: &Case, path: &Path, settings: &Settings) -> Result<String, Fault> {
    let below = path.strip_prefix(settings.case_dir(&case.id)).ok().and_then(Path::to_str);
    below
        .map(String::from)
        .ok_or_else(|| internal(format!("{} is not in the case's folder", path.display())))
}

fn missing(what: &str) -> Fault {
    internal(format!("the case has no {what} yet"))
}

fn internal(message: String) -> Fault {
    Fault {
        kind: FaultKind::Internal,
        message,
        help: String::new(),
    }
}

/// A failed write of our own: most likely the disk.
pub(super) fn resource(error: anyhow::Error) -> Fault {
    Fault {
        kind: FaultKind::Resource,
        message: format!("{error:#}"),
        help: "look at free space and permissions of the state and candidates folders".into(),
    }
}
