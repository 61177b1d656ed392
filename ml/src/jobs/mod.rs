//! Jobs: one function per task, all of them `(task, place) → result`. A job can be repeated: what it finds of its own unfinished work it goes on from.

mod audit;
mod bench;
mod case;
mod check;
mod fit;
mod lab;
mod learn;
mod look;
mod origins;
mod parts;
mod pictures;
mod review;
mod trace;

use crate::device::{self, Gpu};
use crate::error::{Error, Result};
use crate::progress::Report;
use crate::{attack, model};
use delta_guard_contract::job::{JobResult, OUTCOME_FILE};
use delta_guard_contract::{Code, Digest, Job, PROTOCOL, Task, WorkerSetup};
use std::path::Path;
use tch::Device;

/// Where a job runs and what it may use.
pub struct Place<'a> {
    /// Folders and limits.
    pub setup: &'a WorkerSetup,
    /// The job's folder.
    pub out_dir: &'a Path,
    /// Device found.
    pub device: Device,
    /// Its description.
    pub device_name: String,
    /// Bytes that the gradients of queries may take there.
    pub query_budget: u64,
}

/// Run a job and write its result to [`OUTCOME_FILE`] in its folder; the file's digest.
///
/// # Errors
/// As [`run`], and of writing.
pub fn run_to_file(job: &Job, report: &mut dyn Report) -> Result<Digest> {
    let result = run(job, report)?;
    let text = serde_json::to_vec(&result).map_err(|e| Error::internal(format!("the result: {e}")))?;
    crate::files::write_atomic(&job.out_dir.join(OUTCOME_FILE), &text)?;
    Ok(Digest(blake3::hash(&text).to_hex().to_string()))
}

/// Run a job.
///
/// # Errors
/// See [`delta_guard_contract::FaultKind`]: whose fault it is decides what the guard does next.
pub fn run(job: &Job, report: &mut dyn Report) -> Result<JobResult> {
    if job.v != PROTOCOL {
        return Err(Error::new(
            Code::VersionMismatch,
            format!("the job speaks protocol {}, this worker {PROTOCOL}", job.v),
            "install delta-guard and delta-guard-worker of the same version",
        ));
    }
    fs_err::create_dir_all(&job.out_dir)?;
    let gpu = match job.task {
        Task::Train { .. } | Task::Unlearn { .. } | Task::Prepare { .. } => Gpu::AsPyTorch,
        _ => Gpu::Exact,
    };
    let (device, device_name) = device::set_up(job.setup.device, job.setup.threads, gpu)?;
    report.log(&format!("computing on {device_name}"));
    let mut query_budget = job.setup.query_budget;
    if device == Device::Cpu {
        crate::memory::limit(job.setup.memory_limit, job.setup.threads);
        query_budget = crate::memory::for_queries(query_budget, job.setup.memory_limit);
    }
    let place = Place {
        setup: &job.setup,
        out_dir: &job.out_dir,
        device,
        device_name,
        query_budget,
    };
    match &job.task {
        Task::Check { data, model } => check::check(&place, data, model.as_ref()),
        Task::VerifyModel { file, image } => Ok(JobResult::Verify(Box::new(crate::verify::verify(
            file,
            image.as_ref(),
            job.setup.memory_budget,
        )?))),
        Task::Predict { data, model, image, limits } => look::predict(&place, data, model, image, limits, report),
        Task::Measure { data, model, source, list } => look::measure(&place, data, model, source, *list, report),
        Task::Certify {
            data,
            model,
            candidate,
            anomalies,
            limits,
            flagged,
        } => look::certify(
            &place,
            data,
            model,
            &look::ToCertify {
                candidate,
                anomalies,
                limits,
                flagged,
            },
            report,
        ),
        Task::Extract { data, source, ids } => look::extract(&place, data, source, ids, report),
        Task::Fit {
            data,
            model,
            detect,
            factors_seed,
        } => fit::fit(&place, data, model, detect, *factors_seed, report),
        Task::Trace {
            data,
            model,
            detect,
            anomalies,
            limits,
            case_seed,
            factors_seed,
            scores,
        } => {
            let submitted = case::Submitted {
                anomalies,
                limits,
                case_seed: *case_seed,
            };
            trace::trace(&place, data, model, detect, &submitted, (*factors_seed, scores.as_deref()), report)
        }
        Task::Audit {
            data,
            model,
            detect,
            classes,
            seed,
            factors_seed,
        } => {
            let asked = audit::AuditAsked {
                classes,
                seed: *seed,
                factors_seed: *factors_seed,
            };
            audit::audit(&place, data, model, detect, &asked, report)
        }
        Task::FoldPart { sum, part, parts } => parts::part(&place, sum, *part, *parts, report),
        Task::FoldMerge { sum, parts } => parts::merge(&place, sum, parts, report),
        Task::Train {
            data,
            model,
            recipe,
            without,
        } => learn::train(&place, data, model, recipe, without, report),
        Task::Unlearn {
            data,
            model,
            recipe,
            method,
            flagged,
            standing,
            standing_digest: _,
        } => learn::unlearn(&place, data, model, recipe, method, (flagged, standing), report),
        Task::Prepare { story, victim } => {
            let workshop = attack::Workshop {
                out_dir: &job.out_dir,
                victim: victim.as_ref(),
                device,
            };
            Ok(JobResult::Prepare(attack::prepare(story, &workshop, report)?))
        }
        Task::Graph { model, input, classes } => {
            let graph = model::zoo::graph(model, *input, *classes as usize)?;
            let text = serde_json::to_vec_pretty(&graph).map_err(|e| Error::internal(format!("graph: {e}")))?;
            crate::files::write_atomic(&job.out_dir.join("graph.json"), &text)?;
            Ok(JobResult::Graph { file: "graph.json".into() })
        }
    }
}
