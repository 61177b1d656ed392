//! At the daemon's start: a network of the owner's that answers its stored pictures otherwise, or of which influence would see too little, is not guarded.

use super::{Exit, Failure};
use crate::jobs::{self, Local, Runner};
use crate::settings::Settings;
use crate::stop::Stop;
use delta_guard_contract::job::VerifyResult;
use delta_guard_contract::verify::UNPROVED;
use delta_guard_contract::{Job, JobResult, Message, PROTOCOL, Task, WorkerSetup};
use tracing::{info, warn};

/// See whether the network is the owner's, where the file says how to. What cannot be tried is told, and met again by the first case.
///
/// # Errors
/// When the answers differ.
pub(super) async fn at_the_start(settings: &Settings, stop: Stop) -> anyhow::Result<()> {
    if settings.unproved {
        warn!(message = "Guarded network comes without proof.", why = UNPROVED);
    }
    if !settings.model.architecture.ends_with(".pt2") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let job = Job {
        v: PROTOCOL,
        setup: WorkerSetup {
            cache_dir: folder.path().join("cache"),
            factors_dir: folder.path().join("factors"),
            ..settings.worker.setup.clone()
        },
        out_dir: folder.path().to_path_buf(),
        task: Task::VerifyModel {
            file: settings.model.architecture.clone().into(),
            image: Some(settings.data.image.clone()),
        },
    };
    let runner = Local {
        program: settings.worker.path.clone(),
        grace: settings.worker.stop_grace,
        nice: i32::try_from(settings.worker.nice).ok(),
    };
    let mut hear = |_: Message| {};
    match runner.run(&job, settings.worker.limits.predict, stop, &mut hear).await {
        Ok(JobResult::Verify(verified)) => judge(settings, &verified)?,
        Ok(other) => return Err(super::work::unexpected(&other)),
        Err(jobs::Failure::Stopped) => {}
        Err(jobs::Failure::Fault(fault)) => warn!(message = "Guarded network could not be proved.", why = %fault),
    }
    Ok(())
}

/// What was seen of the network.
fn judge(settings: &Settings, verified: &VerifyResult) -> anyhow::Result<()> {
    let refused = |(message, help): (String, String)| {
        let message = format!("{} is not guarded: {message}", settings.model.architecture);
        Err(Failure::new(Exit::Config, message, help))
    };
    match &verified.proof {
        Some(proof) if proof.agrees() => info!(message = "Guarded network is the owner's.", proof = proof.sentence()),
        Some(proof) => return refused((proof.sentence(), proof.help())),
        None if settings.unproved => {} // told already
        None => warn!(message = "Guarded network comes without proof.", why = UNPROVED),
    }
    if settings.detect.needs().influence().is_none() {
        return Ok(());
    }
    match verified.tracked.lacking(settings.model.min_tracked_share) {
        Some(lacking) => refused(lacking),
        None => {
            info!(message = "Influence sees the guarded network.", tracked = verified.tracked.sentence());
            Ok(())
        }
    }
}
