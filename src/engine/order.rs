//! The job of each stage that a worker does.

use super::standing::Standing;
use super::work::{flagged_ids, missing};
use crate::case::{Case, Stage};
use crate::seed::Secret;
use crate::settings::Settings;
use delta_guard_contract::job::Anomaly;
use delta_guard_contract::{Fault, Job, ModelConfig, PROTOCOL, Task};
use std::path::PathBuf;
use std::time::Duration;

/// The job of a stage, and the time that it may take. Its folder is named by stage and task: other settings never meet old unfinished work.
pub(super) fn job(case: &Case, stage: Stage, settings: &Settings, secret: &Secret, standing: &Standing) -> Result<(Job, Duration), Fault> {
    let (task, limit) = task(case, stage, settings, secret, standing)?;
    let json = serde_json::to_vec(&task).map_err(|error| Fault::internal(format!("the task cannot be written as JSON: {error}")))?;
    let name = format!("{stage}-{}", blake3::hash(&json).to_hex().split_at(12).0);
    let out_dir = settings.case_dir(&case.id).join("work").join(name);
    let mut setup = settings.worker.setup.clone();
    if stage == Stage::Retrace {
        // Nobody asks for a candidate's factors again: they go with the job's folder.
        setup.factors_dir = out_dir.join("factors");
    }
    Ok((
        Job {
            v: PROTOCOL,
            setup,
            out_dir,
            task,
        },
        limit,
    ))
}

fn task(case: &Case, stage: Stage, settings: &Settings, secret: &Secret, standing: &Standing) -> Result<(Task, Duration), Fault> {
    let (data, model, limits) = (settings.data.clone(), settings.model.clone(), settings.inbox.limits.clone());
    let times = &settings.worker.limits;
    Ok(match stage {
        Stage::Predict => {
            let image = picture(case, settings);
            (Task::Predict { data, model, image, limits }, times.predict)
        }
        Stage::Fit => {
            let (detect, factors_seed) = (settings.detect.clone(), secret.factors());
            let task = Task::Fit {
                data,
                model,
                detect,
                factors_seed,
            };
            (task, times.fit)
        }
        Stage::Trace => (trace(case, settings, secret, model)?, times.trace),
        Stage::Unlearn => {
            let task = Task::Unlearn {
                data,
                model,
                recipe: settings.recipe.clone(),
                method: settings.unlearn.by(case.method),
                flagged: flagged_ids(case, settings)?,
                standing: standing.ids.clone(),
                standing_digest: standing.digest(),
            };
            (task, times.unlearn)
        }
        Stage::Certify => {
            let task = Task::Certify {
                data,
                model,
                candidate: candidate(case, settings)?,
                anomalies: anomalies(case, settings)?,
                limits,
                flagged: flagged_ids(case, settings)?,
            };
            (task, times.certify)
        }
        Stage::Retrace => {
            // The same question, of the candidate; the factors are fitted on it, too.
            let checkpoint = candidate(case, settings)?;
            let task = trace(case, settings, secret, ModelConfig { checkpoint, ..model })?;
            (task, times.fit + times.trace)
        }
        Stage::Decide | Stage::Publish | Stage::Tell => return Err(Fault::internal(format!("stage {stage} is no work for a worker"))),
    })
}

fn trace(case: &Case, settings: &Settings, secret: &Secret, model: ModelConfig) -> Result<Task, Fault> {
    Ok(Task::Trace {
        data: settings.data.clone(),
        model,
        detect: settings.detect.clone(),
        anomalies: anomalies(case, settings)?,
        limits: settings.inbox.limits.clone(),
        case_seed: secret.case(&case.id),
        factors_seed: secret.factors(),
        scores: None,
    })
}

fn picture(case: &Case, settings: &Settings) -> PathBuf {
    settings.spool_dir().join(&case.accepted.content.0)
}

fn candidate(case: &Case, settings: &Settings) -> Result<PathBuf, Fault> {
    let (file, _) = case.candidate_file().ok_or_else(|| missing("candidate"))?;
    Ok(settings.case_dir(&case.id).join(file))
}

fn anomalies(case: &Case, settings: &Settings) -> Result<Vec<Anomaly>, Fault> {
    let prediction = case.prediction().ok_or_else(|| missing("prediction"))?;
    Ok(vec![Anomaly {
        image: picture(case, settings),
        wrong_label: Some(prediction.label.clone()),
        true_label: case.accepted.claim.true_label.clone(),
    }])
}
