//! From what is written to what the guard works by.

use super::Config;
use super::file::ConfigFile;
use crate::settings::{InboxSettings, Settings, StageLimits, WorkerSettings};
use anyhow::Context;
use delta_guard_contract::WorkerSetup;
use delta_guard_contract::job::ImageLimits;
use std::path::PathBuf;
use std::time::Duration;

/// A file system that does not answer for so long hangs.
const STALL: Duration = Duration::from_secs(30);
/// Name of the worker's program.
const WORKER: &str = "delta-guard-worker";

impl Config {
    /// Everything that the daemon needs to know, and where it was read from.
    ///
    /// # Errors
    /// See [`ConfigFile::worker_path`].
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings {
            config: Some(self.path.clone()),
            ..self.file.settings()?
        })
    }
}

impl ConfigFile {
    /// Where refused files go.
    pub fn refused_dir(&self) -> PathBuf {
        self.paths.refused.clone().unwrap_or_else(|| self.paths.inbox.with_file_name("refused"))
    }

    /// Where the worker's program is: as configured, else beside our own.
    ///
    /// # Errors
    /// When our own place cannot be told.
    pub fn worker_path(&self) -> anyhow::Result<PathBuf> {
        if let Some(command) = &self.worker.command {
            return Ok(command.clone());
        }
        let own = std::env::current_exe().context("cannot tell where this program lies; name the worker with the key worker.command")?;
        Ok(own.with_file_name(WORKER))
    }

    /// Folders and means of a worker.
    pub fn worker_setup(&self) -> WorkerSetup {
        WorkerSetup {
            cache_dir: self.paths.state.join("cache"),
            factors_dir: self.paths.state.join("factors"),
            device: self.worker.device,
            threads: self.worker.threads,
            memory_budget: self.worker.memory_budget.0,
            query_budget: self.worker.query_budget.0,
            memory_limit: self.worker.memory_limit.map_or(0, |size| size.0),
        }
    }

    /// Limits of the picture decoder.
    pub fn image_limits(&self) -> ImageLimits {
        ImageLimits {
            max_bytes: self.inbox.max_bytes.0,
            max_pixels: self.inbox.max_pixels,
        }
    }

    /// Everything that the daemon needs to know. Call it on a checked file only: its paths must be absolute.
    ///
    /// # Errors
    /// See [`ConfigFile::worker_path`].
    pub fn settings(&self) -> anyhow::Result<Settings> {
        let limits = &self.worker.time_limits;
        Ok(Settings {
            config: None,
            instance: self.instance.clone(),
            owner: self.owner.clone(),
            group: self.paths.group.clone(),
            public_url: self.http.public_url.as_ref().map(|url| url.trim_end_matches('/').to_owned()),
            mode: self.mode,
            inbox: InboxSettings {
                dir: self.paths.inbox.clone(),
                refused_dir: self.refused_dir(),
                settle: self.inbox.settle.0,
                scan_interval: self.inbox.scan_interval.0,
                sidecar_wait: self.inbox.sidecar_wait.0,
                stall: STALL,
                limits: self.image_limits(),
            },
            state_dir: self.paths.state.clone(),
            candidates_dir: self.paths.candidates.clone(),
            check_prediction: self.inbox.check_prediction,
            data: self.data.clone(),
            model: self.model.clone(),
            unproved: super::proof::is_unproved(&self.model.architecture),
            recipe: self.recipe.clone(),
            detect: self.detect.clone(),
            unlearn: self.unlearn.clone(),
            gate: self.gate.clone(),
            caps: self.caps.clone(),
            worker: WorkerSettings {
                path: self.worker_path()?,
                setup: self.worker_setup(),
                nice: self.worker.nice,
                limits: StageLimits {
                    predict: limits.predict.0,
                    fit: limits.fit.0,
                    trace: limits.trace.0,
                    unlearn: limits.unlearn.0,
                    certify: limits.certify.0,
                },
                attempts: self.worker.attempts,
                retry_delay: self.worker.retry_after.0,
                stop_grace: self.worker.stop_grace.0,
            },
        })
    }
}
