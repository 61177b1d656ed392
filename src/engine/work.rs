//! The stages that a worker does: what the result of each means.

use super::standing::{Standing, digest_ids};
use super::trouble::{Trouble, mend, passing};
use super::{base, kept, retrace};
use crate::case::{Case, Event, Kept, Stage, StandingUse, TraceSummary, bounds};
use crate::policy::{self, Found, Known};
use crate::publish;
use crate::settings::Settings;
use delta_guard_contract::job::Prediction;
use delta_guard_contract::{Code, Digest, Fault, Job, JobResult, Task, TraceReport, TrainId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Name of a trace report in its job's folder.
const TRACE_FILE: &str = "trace.json";

/// The ids that the trace flagged, sorted.
pub(super) fn flagged_ids(case: &Case, settings: &Settings) -> Result<Vec<TrainId>, Fault> {
    Ok(sorted_ids(&trace_report(case, settings)?))
}

/// The trace report of the case.
pub(super) fn trace_report(case: &Case, settings: &Settings) -> Result<TraceReport, Fault> {
    let trace = case.trace().ok_or_else(|| missing("trace"))?;
    let file = settings.case_dir(&case.id).join(&trace.file);
    super::read_trace(&file, &trace.digest).map_err(|error| {
        mend(
            &error.context("the trace report of the case cannot be used"),
            "put the file back, or remove the case's folder and submit the picture again",
        )
    })
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

/// Keep the exclusion list that a candidate was made under beside it: the list may grow before the candidate is published.
fn keep_standing(case: &Case, task: &Task, settings: &Settings) -> Result<Option<StandingUse>, Fault> {
    let Task::Unlearn { standing, .. } = task else { return Ok(None) };
    let standing = Standing {
        ids: standing.clone(),
        ..Standing::default()
    };
    let Some(named) = standing.named() else { return Ok(None) };
    let bytes = serde_json::to_vec(&standing.ids).map_err(|error| Fault::internal(format!("the exclusion list cannot be written: {error}")))?;
    let dir = settings.case_dir(&case.id);
    publish::publish_file(&dir, &standing_file(&named), &bytes).map_err(resource)?;
    Ok(Some(named))
}

fn standing_file(named: &StandingUse) -> String {
    format!("standing-{}.json", named.digest.short())
}

/// The exclusion list that the case's candidate was made under.
pub(super) fn standing_ids(case: &Case, settings: &Settings) -> Result<Vec<TrainId>, Fault> {
    let Some(named) = case.standing() else { return Ok(Vec::new()) };
    let file = settings.case_dir(&case.id).join(standing_file(named));
    let read = || -> anyhow::Result<Vec<TrainId>> {
        let ids: Vec<TrainId> = serde_json::from_slice(&fs_err::read(&file)?)?;
        let found = digest_ids(&ids);
        anyhow::ensure!(found == named.digest, "{} was changed: its ids' BLAKE3 is {found}", file.display());
        Ok(ids)
    };
    read().map_err(|error| {
        mend(
            &error.context("the exclusion list of the candidate cannot be used"),
            format!(
                "put the file back, or let the candidate be made again: `delta-guard retry {}`",
                case.id.short()
            ),
        )
    })
}

/// What to record of a result. Files that it speaks of are read and fingerprinted here; blocks.
pub(super) fn events(case: &Case, stage: Stage, job: &Job, result: JobResult, seconds: f64, settings: &Settings) -> Result<Vec<Event>, Trouble> {
    plausible(&result)?;
    let out_dir = &job.out_dir;
    let case_dir = settings.case_dir(&case.id);
    let doing = format!("stage {stage}");
    match (stage, result) {
        (Stage::Predict, JobResult::Predict(prediction)) => {
            if !prediction.classes.contains(&prediction.label) {
                let label = bounds::cut(&prediction.label, bounds::LABEL);
                return Err(Fault::internal(format!("the worker predicted {label:?}, which is none of its classes")).into());
            }
            let claim = &case.accepted.claim;
            let claimed: Vec<&str> = [&claim.predicted_label, &claim.true_label]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            let short = bounds::short_prediction(prediction.clone(), &claimed);
            Ok(vec![Event::Predicted {
                whole: keep_if_shortened(&short, &prediction, &case_dir)?,
                prediction: short,
                seconds,
            }])
        }
        (Stage::Fit, JobResult::Fit(fit)) => {
            // The training set of an earlier attempt at this stage does not count: this is where the case gets its own.
            base::was_read(case, &doing, fit.checkpoint.as_ref(), None)?;
            let short = bounds::short_fit(fit.clone());
            Ok(vec![Event::Fitted {
                whole: keep_if_shortened(&short, &fit, &case_dir)?,
                fit: short,
                seconds,
            }])
        }
        (Stage::Trace, JobResult::Trace(report)) => {
            base::was_read(case, &doing, Some(&report.checkpoint), Some(&report.manifest))?;
            Ok(traced(case, out_dir, *report, seconds, settings)?)
        }
        (Stage::Unlearn, JobResult::Train(result)) => {
            base::was_read(case, &doing, result.base.as_ref(), result.manifest.as_ref())?;
            let path = inside(out_dir, &result.file)?;
            let digest = publish::digest_file(&path).map_err(|error| {
                let error = anyhow::Error::from(error).context("the candidate cannot be read");
                passing(&error).unwrap_or_else(|| Fault::internal(format!("{error:#}")))
            })?;
            Ok(vec![Event::Unlearned {
                standing: keep_standing(case, &job.task, settings)?,
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
            let wrong = case.prediction().ok_or_else(|| missing("prediction"))?.label.clone();
            let over_caps = case.decision().map(|decision| decision.over_caps.clone()).unwrap_or_default();
            let known = Known {
                wrong,
                truth: case.accepted.claim.true_label.clone(),
            };
            let gate = policy::judge(&result, &[known], &over_caps, &settings.gate);
            let short = bounds::short_certify(result.clone());
            Ok(vec![Event::Certified {
                whole: keep_if_shortened(&short, &result, &case_dir)?,
                result: short,
                gate,
                seconds,
            }])
        }
        (Stage::Retrace, JobResult::Trace(report)) => {
            base::was_read(case, &doing, None, Some(&report.manifest))?;
            Ok(vec![retrace::event(case, &report, seconds, settings)?])
        }
        (stage, _) => Err(Fault::internal(format!("the worker answered another question than that of stage {stage}")).into()),
    }
}

fn traced(case: &Case, out_dir: &Path, report: TraceReport, seconds: f64, settings: &Settings) -> Result<Vec<Event>, Fault> {
    about_the_case(case, &report)?;
    let trace = summary(case, out_dir, Some(TRACE_FILE), &report, settings)?;
    Ok(vec![Event::Traced { trace, seconds }])
}

/// Is a trace about what the case is about, and does it name each example once?
pub(super) fn about_the_case(case: &Case, report: &TraceReport) -> Result<(), Fault> {
    if let Some(prediction) = case.prediction()
        && prediction.label != report.predicted_label
    {
        return Err(Fault::internal(format!(
            "the picture was predicted as {:?} and traced as {:?}",
            prediction.label, report.predicted_label
        )));
    }
    if sorted_ids(report).len() != report.flagged.len() {
        return Err(Fault::internal("the worker flagged a training example twice"));
    }
    Ok(())
}

/// Write a trace report into a folder, and its flagged examples into a file of the case; what the record says of them. None: its digest names the file.
pub(super) fn summary(case: &Case, dir: &Path, name: Option<&str>, report: &TraceReport, settings: &Settings) -> Result<TraceSummary, Fault> {
    let bytes = serde_json::to_vec(report).map_err(|error| Fault::internal(format!("the trace report cannot be written: {error}")))?;
    let digest = Digest(blake3::hash(&bytes).to_hex().to_string());
    let own = format!("trace-{}.json", digest.short());
    let name = name.unwrap_or(&own);
    let file = inside(dir, name)?;
    publish::make_dir(dir)
        .map_err(anyhow::Error::from)
        .and_then(|()| publish::publish_file(dir, name, &bytes))
        .map_err(resource)?;
    Ok(TraceSummary {
        found: Found::of(report),
        file: relative(case, &file, settings)?,
        digest,
        ids: digest_ids(&sorted_ids(report)),
        // The file first, then the record that names it.
        flagged: match report.flagged.is_empty() {
            true => None,
            false => Some(kept::keep(&settings.case_dir(&case.id), &report.flagged).map_err(resource)?),
        },
        manifest: Some(report.manifest.clone()),
    })
}

/// The file of a result that was shortened for its record.
fn keep_if_shortened<T: PartialEq + Serialize>(short: &T, whole: &T, case_dir: &Path) -> Result<Option<Kept>, Fault> {
    if short == whole {
        return Ok(None);
    }
    kept::keep(case_dir, whole).map(Some).map_err(resource)
}

fn digest(what: &str, digest: &Digest) -> Result<(), Fault> {
    match bounds::is_digest(digest) {
        true => Ok(()),
        false => Err(Fault::internal(format!(
            "the worker names {:?} as the digest of {what}",
            bounds::cut(&digest.0, 70)
        ))),
    }
}

fn optional(digests: &[&Option<Digest>]) -> Result<(), Fault> {
    digests.iter().copied().flatten().try_for_each(|one| digest("what it read", one))
}

fn name(name: &str) -> Result<(), Fault> {
    match bounds::json_bytes(name) <= bounds::CLASS_NAME {
        true => Ok(()),
        false => Err(Fault::new(
            Code::DataUnusable,
            format!("a class name is longer than {} bytes: {:?}", bounds::CLASS_NAME, bounds::cut(name, 60)),
            "give the class's folder a shorter name",
        )),
    }
}

fn train_id(id: &TrainId) -> Result<(), Fault> {
    match bounds::json_bytes(&id.0) <= bounds::TRAIN_ID {
        true => Ok(()),
        false => Err(Fault::new(
            Code::DataUnusable,
            format!(
                "the id of a training example is longer than {} bytes: {:?}",
                bounds::TRAIN_ID,
                bounds::cut(&id.0, 60)
            ),
            "give the file, or the folders that it lies in, shorter names",
        )),
    }
}

fn prediction(prediction: &Prediction) -> Result<(), Fault> {
    digest("the checkpoint", &prediction.checkpoint)?;
    prediction.top.iter().try_for_each(|(label, _)| name(label))?;
    prediction.classes.iter().chain([&prediction.label]).try_for_each(|label| name(label))
}

/// Digests, class names and ids go into records as they are; a worker that sends something else in their place is defective.
fn plausible(result: &JobResult) -> Result<(), Fault> {
    match result {
        JobResult::Predict(found) => prediction(found),
        JobResult::Fit(fit) => {
            optional(&[&fit.checkpoint, &fit.manifest])?;
            digest("the factors", &fit.factors.key)
        }
        JobResult::Trace(report) => {
            digest("the checkpoint", &report.checkpoint)?;
            digest("the training set", &report.manifest)?;
            name(&report.predicted_label)?;
            report.flagged.iter().try_for_each(|example| {
                name(&example.label)?;
                train_id(&example.id)
            })
        }
        JobResult::Train(trained) => {
            optional(&[&trained.base, &trained.manifest])?;
            if let Some(made) = &trained.made {
                name(&made.method)?;
                name(&made.about)?;
            }
            digest("the candidate", &trained.digest)
        }
        JobResult::Certify(certified) => {
            optional(&[&certified.manifest])?;
            digest("the candidate", &certified.candidate)?;
            certified
                .flagged
                .iter()
                .flat_map(|flagged| &flagged.read_as)
                .try_for_each(|(label, _)| name(label))?;
            certified
                .anomalies_before
                .iter()
                .chain(&certified.anomalies_after)
                .try_for_each(prediction)
        }
        // Not asked for by the daemon.
        JobResult::Check(_)
        | JobResult::Measure(_)
        | JobResult::Audit(_)
        | JobResult::Part(_)
        | JobResult::Prepare(_)
        | JobResult::Extract { .. }
        | JobResult::Verify(_)
        | JobResult::Graph { .. } => Ok(()),
    }
}

/// A file that the worker names: a plain name in its own folder.
fn inside(out_dir: &Path, name: &str) -> Result<PathBuf, Fault> {
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    if plain {
        Ok(out_dir.join(name))
    } else {
        Err(Fault::internal(format!("the worker names the file {name:?}, which is not a plain name")))
    }
}

fn relative(case: &Case, path: &Path, settings: &Settings) -> Result<String, Fault> {
    let below = path.strip_prefix(settings.case_dir(&case.id)).ok().and_then(Path::to_str);
    below
        .map(String::from)
        .ok_or_else(|| Fault::internal(format!("{} is not in the case's folder", path.display())))
}

pub(super) fn missing(what: &str) -> Fault {
    Fault::internal(format!("the case has no {what} yet"))
}

/// A failed write of our own: most likely the disk.
pub(super) fn resource(error: anyhow::Error) -> Fault {
    passing(&error).unwrap_or_else(|| {
        Fault::new(
            Code::Resource,
            format!("{error:#}"),
            "look at free space and permissions of the state and candidates folders",
        )
    })
}
